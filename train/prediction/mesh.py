"""A layered prediction as triangles: each layer is a grid of pixels, cut where neighbouring points are not neighbours.

The surfaces of a layer face the camera where rays enter (layers 0, 2, ...) and away from it where they leave (1, 3,
...), so that a solid's faces point outwards. What repeats the layer before it makes no triangles.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from train.prediction.edges import steep_segments
from train.prediction.prediction import HIDDEN_GREY, new_points

Hidden = Literal["grey", "image"]

# Where two neighbouring pixels are not on one surface. Always: along the line of sight, by a twentieth of the distance.
STEEP, JUMP = 85.0, 0.05
# A smaller jump is one if it stands out: thrice as long as the steps beside it. Towards the limb of a sphere, the
# steepest that a smooth surface gets, each step is at most 1 / (sqrt(2) - 1) = 2.4 times as long as the one before it.
STEEP_STEP, JUMP_STEP, STANDS_OUT = 75.0, 0.01, 3.0


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices (N,3) float32, camera frame | faces (M,3) int32, counter-clockwise from outside; of points none |
    colours (N,3) uint8 sRGB."""

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray


def triangulate(
    xyz_LHW3: np.ndarray, exists_LHW: np.ndarray, rgb: np.ndarray, hidden: Hidden = "grey", closed: bool = False
) -> Mesh:
    """One stack as one mesh; rgb (H,W,3) float in [0, 1] colours layer 0, and all others too where hidden="image".

    `closed` joins layer 0 to layer 1 by walls along the silhouette, where both end: right for solids.
    """
    layers, height, width = exists_LHW.shape
    new = new_points(xyz_LHW3, exists_LHW)
    pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    faces = [
        layer_faces(xyz_LHW3[l], new[l], pixels)[:, :: -1 if l % 2 else 1] + l * pixels.size for l in range(layers)
    ]
    if closed and layers > 1:
        faces.append(_walls(faces[0], faces[1], exists_LHW[0]))
    joined = np.concatenate(faces)
    used = np.unique(joined)
    place = np.zeros(layers * pixels.size, np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    colours = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8).reshape(-1, 3)[used % pixels.size]
    if hidden == "grey":
        colours[used >= pixels.size] = HIDDEN_GREY
    vertices = xyz_LHW3.reshape(-1, 3)[used].astype(np.float32)
    return Mesh(vertices, place[joined], colours)


def layer_faces(xyz: np.ndarray, there: np.ndarray, number: np.ndarray) -> np.ndarray:
    """(M,3) int32 of one layer (H,W,3), by the `number` (H,W) of each pixel, facing the camera.

    Of each square of four pixels two triangles, split along the shorter diagonal, or one where only three are there; a
    triangle of which a side is cut is left out.
    """
    across, down = cuts(xyz, there, 1), cuts(xyz, there, 0)
    corners = [(slice(None, -1), slice(None, -1)), (slice(1, None), slice(None, -1))]
    corners += [(slice(1, None), slice(1, None)), (slice(None, -1), slice(1, None))]  # a, below b, across c, beside d
    a, b, c, d = (number[corner] for corner in corners)
    is_a, is_b, is_c, is_d = (there[corner] for corner in corners)
    diagonal = [np.linalg.norm(xyz[corners[i]] - xyz[corners[i + 2]], axis=-1) for i in (0, 1)]
    # Of four the shorter diagonal; of three the only one.
    by_ac = np.where(is_a & is_b & is_c & is_d, diagonal[0] <= diagonal[1], is_a & is_c)
    top, bottom, left, right = across[:-1], across[1:], down[:, :-1], down[:, 1:]
    chosen = [
        (a, b, c, by_ac & is_a & is_b & is_c & ~left & ~bottom),
        (a, c, d, by_ac & is_a & is_c & is_d & ~top & ~right),
        (a, b, d, ~by_ac & is_a & is_b & is_d & ~top & ~left),
        (b, c, d, ~by_ac & is_b & is_c & is_d & ~bottom & ~right),
    ]
    return np.concatenate([np.stack([i[kept], j[kept], k[kept]], axis=1) for i, j, k, kept in chosen])


def cuts(xyz: np.ndarray, there: np.ndarray, axis: int) -> np.ndarray:
    """bool, one fewer than pixels along `axis` (0 rows, 1 columns) of a layer (H,W,3): neighbours on two surfaces."""
    down, right = (1, 0) if axis == 0 else (0, 1)
    jumps = steep_segments(xyz[None], there[None], down, right, STEEP, JUMP)[0]
    if there.shape[axis] < 2:
        return jumps
    depth = np.where(there, np.linalg.norm(xyz, axis=-1), np.nan)
    step = np.nan_to_num(np.abs(np.diff(depth, axis=axis)), nan=0.0)
    pad = [(0, 0), (0, 0)]
    pad[axis] = (1, 1)
    beside = np.pad(step, pad)
    count = step.shape[axis]
    largest = np.maximum(beside.take(range(count), axis), beside.take(range(2, count + 2), axis))
    alone = steep_segments(xyz[None], there[None], down, right, STEEP_STEP, JUMP_STEP)[0]
    return np.asarray(jumps | (alone & (step > STANDS_OUT * largest)))


def _walls(front: np.ndarray, back: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Triangles between the borders of layer 0 and layer 1 along the same two pixels, on the rim of `valid` (H,W)."""
    height, width = valid.shape
    around = np.pad(valid, 1, constant_values=True)  # the frame of the image is no silhouette
    inside = np.logical_and.reduce([around[v : v + height, u : u + width] for v in range(3) for u in range(3)])
    rim = (valid & ~inside).ravel()
    one, other = (_border(faces - l * rim.size, rim) for l, faces in enumerate((front, back)))
    shared = one[np.isin(_key(one, rim.size), _key(other[:, ::-1], rim.size))]  # layer 1 goes round the other way
    i, j = shared.T
    k, m = i + rim.size, j + rim.size
    return np.concatenate([np.stack([j, i, k], 1), np.stack([j, k, m], 1)]).astype(np.int32)


def _border(faces: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """The directed sides (K,2) of triangles, between pixels of the rim, that no other triangle shares."""
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    sides = sides[rim[sides].all(axis=1)]
    return sides[~np.isin(_key(sides, rim.size), _key(sides[:, ::-1], rim.size))]


def _key(sides: np.ndarray, count: int) -> np.ndarray:
    return sides[:, 0] * count + sides[:, 1]
