"""Layered points seen by another camera: z-buffered splats whose size follows the spacing of the pixels they are of."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from train.downstream.cells import cells_of, dice, portions
from train.downstream.stack import Stack
from train.prediction.prediction import HIDDEN_GREY

NOTHING = 255  # the layer of a pixel that sees no point
SPACING = 0.7072  # pixels: a square grid no wider than sqrt(1/2), however it lies, has a sample in every pixel
LARGEST = 64  # samples across one pixel of the prediction; what is magnified further shows its gaps
NEAREST = 0.01  # of the median depth: what is nearer to the camera, or behind it, is not drawn
AT_ONCE = 1 << 22  # samples held in memory, some 170 bytes each
SLACK = 1e-3  # of the depth: samples so near to the foremost belong to its surface

Hidden = Literal["grey", "image"]


@dataclass(frozen=True, eq=False)
class Frame:
    """rgb (H,W,3) float32 in [0,1], 0 where nothing is seen | depth (H,W) float32, z in the frame's own camera, 0 where
    nothing is seen | layer (H,W) uint8: of which layer the seen point is (0: visible in the image), 255 for nothing."""

    rgb: np.ndarray
    depth: np.ndarray
    layer: np.ndarray


@dataclass(frozen=True, eq=False)
class Surfaces:
    """A stack made ready: P points with colour, layer and pixel, their width (of a pixel at their depth), and
    N cells of four of them that hang together (cells.py), at a rim or not. An edge point is not surrounded by cells: it
    covers a square of its own."""

    xyz_P3: Tensor
    rgb_P3: Tensor
    layer_P: Tensor
    pixel_P: Tensor
    width_P: Tensor
    edge_P: Tensor
    cell_N4: Tensor
    rim_N: Tensor
    nearest: float

    @property
    def device(self) -> torch.device:
        return self.xyz_P3.device


def surfaces(stack: Stack, hidden: Hidden = "grey", device: torch.device | str = "cpu") -> Surfaces:
    """Prepare a stack. Hidden layers are grey, or have the colour of their pixel in the image.

    Points are put on the rays of the recovered camera at their own depth, so that the source view gives the image back.
    """
    layers, height, width = stack.there.shape
    focal = float(np.sqrt(stack.K[0, 0] * stack.K[1, 1]))
    z = torch.from_numpy(np.ascontiguousarray(stack.xyz[..., 2])).to(device)
    there = torch.from_numpy(np.ascontiguousarray(stack.there)).to(device)
    x, y = (torch.from_numpy(slope).to(device) for slope in slopes(stack.K, height, width))
    xyz = torch.stack([z * x, z * y, z], dim=-1)
    image = torch.from_numpy(np.ascontiguousarray(stack.rgb)).to(device)
    rgb = image.expand(layers, -1, -1, -1).clone()
    if hidden == "grey":
        rgb[1:] = HIDDEN_GREY / 255
    corners, rim = cells_of(z, there, focal)
    surrounded = torch.bincount(corners[~rim].flatten(), minlength=there.numel()).view(there.shape) == 4
    index = torch.cumsum(there.flatten(), 0) - 1  # from the grid to the points that are there
    _, row, column = there.nonzero().unbind(1)
    layer = torch.arange(layers, dtype=torch.uint8, device=z.device)[:, None, None].expand(layers, height, width)
    return Surfaces(
        xyz[there],
        rgb[there],
        layer[there],
        row * width + column,
        z[there] / focal,
        ~surrounded[there],
        index[corners],
        rim,
        NEAREST * float(z[there].median()),
    )


def slopes(K: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x / z and y / z (H,W) float32 of the rays through the pixel centres."""
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
    return rays[..., 0].astype(np.float32), rays[..., 1].astype(np.float32)


def view(scene: Surfaces, K: np.ndarray, world_from_camera: np.ndarray, height: int, width: int) -> Frame:
    """What a camera sees; the world is the frame of the camera that the prediction was made for.

    Each cell is cut until its pieces are nearer to each other than 0.71 pixels, so that a surface has no holes up to a
    magnification of 45; points at a cut cover the square that their pixel covers at their depth. Of the samples that
    fall into a pixel, those on the foremost surface compete, and the one nearest to the pixel's centre is shown: at the
    source view that is the pixel's own point, so image and layer 0 come back exactly.
    """
    camera = torch.from_numpy(np.linalg.inv(world_from_camera).astype(np.float32)).to(scene.device)
    k = torch.from_numpy(np.asarray(K, np.float32)).to(scene.device)
    focal = float(np.sqrt(K[0, 0] * K[1, 1]))
    xyz_P3 = scene.xyz_P3 @ camera[:3, :3].T + camera[:3, 3]
    z_P = xyz_P3[:, 2]
    front_P = z_P > scene.nearest
    uv_P2 = (xyz_P3 @ k[:2].T) / torch.where(front_P, z_P, 1)[:, None]
    seen_N = _seen(uv_P2, front_P, scene.cell_N4, height, width)
    cell_N4, rim_N = scene.cell_N4[seen_N], scene.rim_N[seen_N]

    across, down = _pieces(uv_P2[cell_N4])
    slack_N = _depth_within(z_P[cell_N4], across, down, rim_N)
    slack_P = _slack_of_points(scene, cell_N4, slack_N)
    values_P6 = torch.cat([xyz_P3, scene.rgb_P3], dim=1)
    layer_N = scene.layer_P[cell_N4[:, 0]]
    size_P = focal * scene.width_P / z_P.clamp_min(scene.nearest)
    edges = torch.nonzero(scene.edge_P & front_P).flatten()
    each = (size_P[edges] / SPACING).ceil().clamp(1, LARGEST).long()  # samples along a side of its square

    def of_points(uv: Tensor, index: Tensor) -> Samples:
        z = z_P[index]
        return Samples(uv, z, slack_P[index] + SLACK * z, scene.rgb_P3[index], scene.layer_P[index])

    def samples() -> Iterator[Samples]:
        points = torch.nonzero(front_P).flatten()
        yield of_points(uv_P2[points], points)
        for part in portions(each**2, AT_ONCE):
            yield of_points(*_squares(uv_P2, size_P, edges[part], each[part]))
        for part in portions(across * down, AT_ONCE):
            between, cell = dice(values_P6[cell_N4[part]], across[part], down[part])
            uv, z = (between[:, :3] @ k[:2].T) / between[:, 2:3], between[:, 2]
            yield Samples(uv, z, slack_N[part][cell] + SLACK * z, between[:, 3:], layer_N[part][cell])

    if int((each**2).sum() + (across * down).sum()) > AT_ONCE:
        return _resolve(samples(), samples(), height, width, scene.device)
    once = list(samples())
    return _resolve(once, once, height, width, scene.device)


def _seen(uv_P2: Tensor, front_P: Tensor, cell_N4: Tensor, height: int, width: int) -> Tensor:
    """(N,) bool: cells in front of the camera, and within the image or across its border."""
    uv = uv_P2[cell_N4]
    low, high = uv.amin(dim=1), uv.amax(dim=1)
    size = torch.tensor([width, height], dtype=uv.dtype, device=uv.device)
    return front_P[cell_N4].all(dim=1) & (high >= 0).all(dim=1) & (low <= size).all(dim=1)


def _pieces(uv_N42: Tensor) -> tuple[Tensor, Tensor]:
    """Into how many pieces to cut a cell across and down; none where its corners are near enough to each other."""

    def count(a: int, b: int, c: int, d: int) -> Tensor:
        length = torch.maximum((uv_N42[:, a] - uv_N42[:, b]).norm(dim=1), (uv_N42[:, c] - uv_N42[:, d]).norm(dim=1))
        return (length / SPACING).ceil().clamp(1, LARGEST).long()

    across, down = count(0, 1, 2, 3), count(0, 2, 1, 3)
    needed = (across > 1) | (down > 1)
    return across * needed, down * needed


def _depth_within(z_N4: Tensor, across: Tensor, down: Tensor, rim_N: Tensor) -> Tensor:
    """(N,) the depth that one piece of a cell spans: samples of one surface in one pixel differ by no more. A rim leads
    from a front to a back, which are two surfaces."""
    a, b, c, d = z_N4.unbind(1)
    to_right = torch.maximum((b - a).abs(), (d - c).abs()) / across.clamp_min(1)
    return to_right + ~rim_N * torch.maximum((c - a).abs(), (d - b).abs()) / down.clamp_min(1)


def _slack_of_points(scene: Surfaces, cell_N4: Tensor, slack_N: Tensor) -> Tensor:
    """(P,) the largest slack of the cells around a point; of a visible one, of all on its ray: what hides behind it and
    slopes towards the camera must not take its pixel."""
    every = slack_N[:, None].expand(-1, 4).flatten()
    slack_P = torch.zeros_like(scene.width_P).scatter_reduce(0, cell_N4.flatten(), every, "amax")
    pixels = int(scene.pixel_P.max()) + 1
    on_ray = torch.zeros(pixels, device=scene.device).scatter_reduce(0, scene.pixel_P, slack_P, "amax")
    return torch.where(scene.layer_P == 0, on_ray[scene.pixel_P], slack_P)


def _squares(uv_P2: Tensor, size_P: Tensor, points: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """(positions (M,2), point (M,)): samples over the square of `size` pixels about each point, `count` a side."""
    half = (size_P[points] / 2)[:, None]
    corner = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]], device=uv_P2.device)
    around = uv_P2[points][:, None] + half[:, None] * corner
    positions, owner = dice(around, count, count)
    return positions, points[owner]


class Samples(NamedTuple):
    """Of M samples: position (M,2) in the image, depth (M,), how far behind the foremost one it may lie and be of its
    surface (M,), colour (M,3), layer (M,)."""

    uv: Tensor
    z: Tensor
    slack: Tensor
    rgb: Tensor
    layer: Tensor


def _resolve(
    first: Iterable[Samples], again: Iterable[Samples], height: int, width: int, device: torch.device
) -> Frame:
    """The z-buffer in two passes over the same samples: how near the foremost sample of a pixel is, then which sample
    of that surface is nearest to the centre (the earlier one of two: a point before what lies between points, layer 0
    before others)."""
    count = height * width
    foremost = torch.full((count,), torch.inf, device=device)
    for part in first:
        _, pixel, seen, _ = _inside(part, height, width)
        foremost.scatter_reduce_(0, pixel, seen.z, "amin")
    best = torch.full((count,), torch.iinfo(torch.int64).max, device=device)
    frame_rgb = torch.zeros(count, 3, device=device)
    frame_z = torch.zeros(count, device=device)
    frame_layer = torch.full((count,), NOTHING, dtype=torch.uint8, device=device)
    before = 0
    for part in again:
        number, pixel, seen, away = _inside(part, height, width)
        surface = torch.nonzero(seen.z - seen.slack <= foremost[pixel]).flatten()
        # distance first, then number: one minimum finds both
        key = ((away[surface] * 2**20).long() << 40) | (before + number[surface])
        better = torch.scatter_reduce(best, 0, pixel[surface], key, "amin")
        pixels = torch.nonzero(better < best).flatten()
        winner = (better[pixels] & (2**40 - 1)) - before
        frame_rgb[pixels], frame_z[pixels], frame_layer[pixels] = part.rgb[winner], part.z[winner], part.layer[winner]
        best = better
        before += len(part.z)
    return Frame(
        frame_rgb.view(height, width, 3).cpu().numpy(),
        frame_z.view(height, width).cpu().numpy(),
        frame_layer.view(height, width).cpu().numpy(),
    )


def _inside(part: Samples, height: int, width: int) -> tuple[Tensor, Tensor, Samples, Tensor]:
    """Those within the image: their numbers, pixels, themselves, and their squared distance from the pixel's centre."""
    u, v = part.uv.unbind(1)
    number = torch.nonzero((u >= 0) & (u < width) & (v >= 0) & (v < height)).flatten()
    seen = Samples(*(x[number] for x in part))
    u, v = seen.uv.unbind(1)
    column, row = u.floor(), v.floor()
    away = (u - column - 0.5) ** 2 + (v - row - 0.5) ** 2
    return number, row.long() * width + column.long(), seen, away
