"""The pixel grid of a layer as a surface: which neighbours hang together, and points between them."""

from collections.abc import Iterator

import torch
from torch import Tensor

SLOPE = 12.0  # pixel widths: a surface seen at 85 degrees; beyond it, two pixels show two surfaces
JUMP = 0.06  # of the depth: at low resolutions a pixel is wide, and 85 degrees would bridge an arm and a body
PLANE_SLOPE = 57.0  # 89 degrees, for what goes on as a plane does
RIM = 40.0  # pixel widths between front and back at the last pixel of a body
BEND = 0.2  # how much of its step in inverse depth may change from one pixel to the next, on a plane


def cells_of(z_LHW: Tensor, there_LHW: Tensor, focal: float) -> tuple[Tensor, Tensor]:
    """The pieces of surface that a stack's points span: (corners (N,4) int64, rim (N,) bool).

    Corners count in the flattened (L,H,W) grid: upper left, upper right, lower left, lower right. The cells of one
    layer come first, each of four neighbours that belong to one surface. Two neighbours do where their depths differ by
    at most 12 pixel widths (z / focal; a surface seen at 85 degrees) and 6 % of the depth; or by at most 57 (89
    degrees) where one of the two pixels beyond them goes on as a plane would: on a plane 1 / z is affine in the image,
    so that its step from pixel to pixel stays the same.

    Cells of the rim close a body at its outline, where front and back meet within a pixel: they span two neighbours
    and the two layers between which the ray is inside (0 and 1, 2 and 3, ...), at most 40 pixel widths apart, where a
    ray beside them meets nothing from the one's depth to the other's. A body of less than some 400 pixels' radius has
    no larger gap there.
    """
    inverse = torch.where(there_LHW, 1 / torch.where(there_LHW, z_LHW, 1), torch.nan)  # a gap compares as not smooth
    across, down = (_smooth_steps(inverse.movedim(axis, -1), focal).movedim(-1, axis) for axis in (-1, -2))
    whole = across[:, :-1] & across[:, 1:] & down[:, :, :-1] & down[:, :, 1:]
    height, width = z_LHW.shape[1:]
    layer, row, column = whole.nonzero().unbind(1)
    first = (layer * height + row) * width + column
    smooth = torch.stack([first, first + 1, first + width, first + width + 1], dim=1)
    closing = _rim_cells(z_LHW, there_LHW, focal)
    rim = torch.arange(len(smooth) + len(closing), device=first.device) >= len(smooth)
    return torch.cat([smooth, closing]), rim


def _rim_cells(z_LHW: Tensor, there_LHW: Tensor, focal: float) -> Tensor:
    """(N,4): two neighbours p, q on the outline of a body, and two layers of it: (l,p), (l,q), (l+1,p), (l+1,q)."""
    layers, height, width = z_LHW.shape
    pairs = layers // 2
    front, back = z_LHW[0 : 2 * pairs : 2], z_LHW[1 : 2 * pairs : 2]
    both = there_LHW[0 : 2 * pairs : 2] & there_LHW[1 : 2 * pairs : 2]
    reach = SLOPE / focal * front
    depth = torch.where(there_LHW, z_LHW, torch.inf)
    ends = torch.zeros_like(both)  # on some side; the border of the image ends nothing
    for axis in (1, 2):
        count = z_LHW.shape[axis] - 1
        for here, beside in ((0, 1), (1, 0)):
            low, high = (edge.narrow(axis, here, count) for edge in (front - reach, back + reach))
            goes_on = torch.zeros_like(low, dtype=torch.bool)
            for layer in depth.narrow(axis, beside, count):
                goes_on |= (layer >= low) & (layer <= high)
            ends.narrow(axis, here, count).logical_or_(~goes_on)
    rim = both & ends & (back - front <= RIM / focal * front)
    found = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        left, right = max(0, -dx), max(0, dx)
        p = (slice(None), slice(0, height - dy), slice(left, width - right))
        q = (slice(None), slice(dy, height), slice(right, width - left))
        close = ((front[p] - front[q]).abs() <= reach[p]) & ((back[p] - back[q]).abs() <= reach[p])
        pair, row, column = (rim[p] & rim[q] & close).nonzero().unbind(1)
        first = (2 * pair * height + row) * width + column + left
        next_to = first + dy * width + dx
        found.append(torch.stack([first, next_to, first + height * width, next_to + height * width], dim=1))
    return torch.cat(found)


def _smooth_steps(inverse: Tensor, focal: float) -> Tensor:
    """(...,N-1) bool along the last axis of inverse depths (...,N); NaN where there is nothing."""
    step = inverse.diff(dim=-1)
    relative = step.abs() / torch.minimum(inverse[..., 1:], inverse[..., :-1])  # of the nearer one's depth
    same = step.diff(dim=-1).abs() <= BEND * torch.minimum(step[..., 1:].abs(), step[..., :-1].abs())
    goes_on = torch.nn.functional.pad(same, (1, 0)) | torch.nn.functional.pad(same, (0, 1))
    return (relative <= min(SLOPE / focal, JUMP)) | (goes_on & (relative <= PLANE_SLOPE / focal))


def portions(count_N: Tensor, at_once: int) -> Iterator[slice]:
    """The N in order, in slices whose counts are at most `at_once` together, or of one that is more by itself."""
    until = count_N.cumsum(0).cpu()
    start = 0
    while start < len(until):
        done = int(until[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(until, done + at_once, right=True)))
        yield slice(start, stop)
        start = stop


def dice(values_N4C: Tensor, across_N: Tensor, down_N: Tensor) -> tuple[Tensor, Tensor]:
    """Cut each cell into across x down pieces, and take what is at their centres.

    values (N,4,C) at the corners of N cells -> (values (M,C), bilinear; cell (M,) int64, whose piece each one is), M
    the sum of across * down; a cell with a 0 has none.
    """
    pieces_N = across_N * down_N
    cell = torch.repeat_interleave(pieces_N)
    number = torch.arange(len(cell), device=cell.device) - (pieces_N.cumsum(0) - pieces_N)[cell]
    width = across_N[cell]
    s = ((number % width) + 0.5) / width
    t = (torch.div(number, width, rounding_mode="floor") + 0.5) / down_N[cell]
    weight = torch.stack([(1 - s) * (1 - t), s * (1 - t), (1 - s) * t, s * t], dim=1).to(values_N4C.dtype)
    total = weight[:, :1] * values_N4C[cell, 0]
    for corner in range(1, 4):  # one corner at a time: (M,4,C) would be four times the memory
        total += weight[:, corner : corner + 1] * values_N4C[cell, corner]
    return total, cell
