"""Flyers: points that hang in the air between two surfaces, where a model smears a jump in depth over a few pixels.

Viewers of other pixel-aligned models drop every pixel whose 3x3 neighbourhood spans more than some 3 or 4 % of its
depth. That takes the rims of the two surfaces with it and, where a surface recedes or the image is coarse, the surface
itself: what a pixel spans grows with its size. Here a point flies only if, along a row, a column or a diagonal of its
layer, the way from its neighbour to it and on to its other neighbour leads steeply along the line of sight in one
sense, and a few pixels to either side it does not: surface, a few points amid the air, surface.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from train.prediction.prediction import REPEAT, Prediction

STEEP = 75.0  # degrees between the way to the next pixel and what is square to the line of sight
JUMP = 0.005  # of the distance to the camera: what is steep but no longer than this is noise on a surface
CLEAR = 0.1  # of the way from surface to surface: nearer to its end a point still belongs there (the limb of a sphere)
WIDTH = 3  # pixels that a jump is smeared over at most; a longer steep way is a surface that recedes
Way = tuple[int, int]  # pixels down and right to the next one
_NOWHERE = 2  # code of a segment one of whose ends does not exist


def flyers(
    xyz_LHW3: np.ndarray, exists_LHW: np.ndarray, steep: float = STEEP, jump: float = JUMP, width: int = WIDTH
) -> np.ndarray:
    """(L,H,W) bool: existing points that hang between two surfaces of their layer. Points in any scale, camera frame.

    Each layer is judged by itself. In one that is filled (Eq. 2) the repeated points are a surface like another, so
    what a model leaves between them and the layer's own surface is found as well. Figures in docs/predicting.md.
    """
    height, width_px = exists_LHW.shape[1:]
    found = np.zeros(exists_LHW.shape, bool)
    distance = np.linalg.norm(xyz_LHW3, axis=-1)
    edge = width + 1
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        sense = np.full((len(found), height + 2 * edge, width_px + 2 * edge), _NOWHERE, np.int8)
        inner = slice(edge, edge + height), slice(edge, edge + width_px)
        rows, columns = _starts(height, down), _starts(width_px, right)
        sense[:, inner[0], inner[1]][:, rows, columns] = _sense(xyz_LHW3, exists_LHW, down, right, steep, jump)

        def at(offset: int, way: Way = (down, right), padded: np.ndarray = sense) -> np.ndarray:
            """Of each pixel the segment that leads to it (-1), away from it (0), the next one (1), and so on."""
            top, left = edge + offset * way[0], edge + offset * way[1]
            return padded[:, top : top + height, left : left + width_px]

        for run, first, last in _runs(at, width):
            l, v, u = np.nonzero(run)
            before, begin, own, end, after = (
                distance[l, v + k * down, u + k * right] for k in (first - 1, first, 0, last, last + 1)
            )
            jumped = np.abs(end - begin)
            clear = np.minimum(np.abs(own - begin), np.abs(end - own)) > CLEAR * jumped
            # Beyond its ends lie surfaces. Where the way turns back and goes further than it came, they are a limb and
            # what is beyond it: the far side of a sphere before a wall, whose points are in place.
            clear &= np.maximum(np.abs(begin - before), np.abs(after - end)) < jumped
            found[l[clear], v[clear], u[clear]] = True
    return found


def without_flyers(prediction: Prediction) -> Prediction:
    """The prediction, with no flyer in what `exists` of any seed; nor what repeats one behind it."""
    exists = np.array(prediction.exists & prediction.valid)
    for xyz, there in zip(prediction.xyz, exists):
        flying = flyers(xyz, there)
        depth = xyz[0, ..., 2][there[0]]
        tolerance = REPEAT * float(np.median(depth)) if depth.size else 0.0
        for layer in range(1, len(xyz)):  # a repeat of what was taken away must not come forth in its place
            repeats = np.linalg.norm(xyz[layer] - xyz[layer - 1], axis=-1) <= tolerance
            flying[layer] |= there[layer] & repeats & flying[layer - 1]
        there &= ~flying
    return replace(prediction, exists=exists)


def steep_segments(
    xyz: np.ndarray, there: np.ndarray, down: int, right: int, steep: float = STEEP, jump: float = JUMP
) -> np.ndarray:
    """Whether the segment from each pixel to the one `down` and `right` of it is a jump in depth; False where an end is
    not there. xyz (L,H,W,3), there (L,H,W) -> of all pixels that have such a neighbour.
    """
    return np.abs(_sense(xyz, there, down, right, steep, jump)) == 1


def _starts(count: int, step: int) -> slice:
    """The pixels of a row that have a neighbour `step` (-1, 0 or 1) further on."""
    return slice(max(0, -step), count - max(0, step))


def _sense(xyz: np.ndarray, there: np.ndarray, down: int, right: int, steep: float, jump: float) -> np.ndarray:
    """int8 per segment: +1 steeply away, -1 steeply nearer, 0 along a surface, 2 where an end is missing."""
    height, width = there.shape[1:]
    here = slice(None), _starts(height, down), _starts(width, right)
    ahead = slice(None), _starts(height, -down), _starts(width, -right)
    both = there[here] & there[ahead]
    sense = np.full(both.shape, _NOWHERE, np.int8)
    p, q = xyz[here][both], xyz[ahead][both]  # most of an object's picture is empty
    step, sight = q - p, p + q
    distance = np.sqrt(np.einsum("ni,ni->n", sight, sight))  # twice that of the segment's middle
    along = np.einsum("ni,ni->n", step, sight) / np.maximum(distance, np.finfo(np.float32).tiny)
    across = np.sqrt(np.maximum(np.einsum("ni,ni->n", step, step) - along**2, 0))
    jumps = (np.abs(along) > np.tan(np.radians(steep)) * across) & (np.abs(along) > jump / 2 * distance)
    sense[both] = np.where(jumps, np.sign(along), 0)
    return sense


def _runs(at: Callable[[int], np.ndarray], width: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Pixels amid a run of 2 to width + 1 steep segments of one sense, which begins and ends at segments that are there
    and go otherwise; with them how many pixels before (negative) and after them the run begins and ends.
    """
    own = at(-1)
    amid = (np.abs(own) == 1) & (at(0) == own)
    for before in range(1, width + 1):
        ahead = at(-1 - before)
        on = amid & (ahead != own) & (ahead != _NOWHERE)
        for after in range(1, width + 2 - before):
            behind = at(after)
            yield on & (behind != own) & (behind != _NOWHERE), -before, after
            on = on & (behind == own)
        amid = amid & (ahead == own)
