"""A layered prediction as triangles: each layer is a grid of pixels, cut where neighbouring points are not neighbours.

The surfaces of a layer face the camera where rays enter (layers 0, 2, ...) and away from it where they leave (1, 3,
...), so that a solid's faces point outwards. What repeats the layer before it makes no triangles, nor do flyers.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from train.prediction.edges import flyers, steep_segments
from train.prediction.prediction import HIDDEN_GREY, new_points

Hidden = Literal["grey", "image"]

# Two neighbouring pixels are on two surfaces where the way between them leads steeply (degrees) and far (part of the
# distance) along the line of sight, and stands out: its step in 1/z, which is even along a plane however it recedes, is
# so many times those beside it. Towards the limb of a sphere, the steepest that a smooth surface gets, each step is at
# most 1 / (sqrt(2) - 1) = 2.4 times the one before, and none is as steep and far as the second rule asks.
CUTS = ((75.0, 0.01, 3.0), (85.0, 0.05, 1.5))


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
    # A smeared jump has no one step that stands out; without its flyers there is a gap that no triangle spans.
    new = new_points(xyz_LHW3, exists_LHW) & ~flyers(xyz_LHW3, exists_LHW)
    closed = closed and layers > 1
    if closed:  # at the very limb a sphere's far side is so near that it seems to repeat its near side
        new[1] |= _rim(exists_LHW[0]) & exists_LHW[1] & new[0]
    pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    faces = [
        layer_faces(xyz_LHW3[l], new[l], pixels)[:, :: -1 if l % 2 else 1] + l * pixels.size for l in range(layers)
    ]
    if closed:
        faces.append(_walls(faces[0], faces[1], _rim(exists_LHW[0]).ravel()))
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
    z = np.where(there, xyz[..., 2], np.nan).astype(np.float64)
    inverse = np.where(z > 0, 1 / np.where(z > 0, z, 1), np.nan)
    step = np.nan_to_num(np.abs(np.diff(inverse, axis=axis)), nan=0.0)
    pad = [(0, 0), (0, 0)]
    pad[axis] = (1, 1)
    beside, count = np.pad(step, pad), step.shape[axis]
    largest = np.maximum(beside.take(range(count), axis), beside.take(range(2, count + 2), axis))
    found = np.zeros(step.shape, bool)
    for steep, jump, stands_out in CUTS:
        found |= steep_segments(xyz[None], there[None], down, right, steep, jump)[0] & (step > stands_out * largest)
    return found


def _rim(valid: np.ndarray) -> np.ndarray:
    """Valid pixels beside one that is not; the frame of the image is no silhouette."""
    height, width = valid.shape
    around = np.pad(valid, 1, constant_values=True)
    inside = np.logical_and.reduce([around[v : v + height, u : u + width] for v in range(3) for u in range(3)])
    return np.asarray(valid & ~inside)


def _walls(front: np.ndarray, back: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """Triangles between the borders of layer 0 and layer 1 along the same two pixels of the `rim` (H*W,)."""
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
