"""Geometric augmentation (paper, App. C): affine maps of the image plane and rotations of the camera about its axis.

Exact in its camera model. A step is a pair (A, S): an affine map A of the pixel plane and a motion S of the camera
frame that keeps z (a rotation about the optical axis, or the mirror x -> -x). A view with intrinsics K becomes one with
K' = A K S^-1, and a point x that was seen at pixel u is the point S x seen at A u. Depth along the optical axis is
unchanged by every such pair, so the layers are moved by looking up the nearest source pixel (never averaged: a mean of
two surfaces is a point on neither) and XYZ is recomputed along the exact rays of K'. Crop, zoom, translation, aspect
and shear have S = 1; a flip and a rotation about the principal point leave K centred. What is not exact: the nearest
pixel is up to half a source pixel away, so on a slanted surface z is off by at most that times its slope, as it is for
any resampling of rendered layers. Under shear or unequal scale K' gains skew and fx != fy; XYZ stays a right-angled
camera frame.

A draw is one of a whole clip: its frames take the same steps, each about its own principal point.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shards.unproject import Box
from train.config import Geometric

DRAWS = 4  # of a geometry, before the image is only resized, and flipped or not


@dataclass(frozen=True, eq=False)
class View:
    """What augmentation works on: rgba (H,W,4) uint8 straight | depth (L,H,W) float32 | valid (H,W) bool | K (3,3)."""

    rgba: np.ndarray
    depth: np.ndarray
    valid: np.ndarray
    K: np.ndarray


Motion = tuple[np.ndarray, np.ndarray]  # (A, S)
Step = Callable[[np.ndarray], Motion]  # of K (3,3)


def draw(views: Sequence[View], size: int, config: Geometric, rng: np.random.Generator) -> list[Motion]:
    """Draw (A, S) to a `size` x `size` image for each frame. A draw that cuts too much of the object away, counted over
    all frames, is drawn again, for all of them; the last one leaves its flip.
    """
    shape = views[0].valid.shape
    for _ in range(DRAWS):
        plain: list[Step] = [fit(shape, size)]
        if rng.random() < config.flip:
            plain.append(flip(size))
        steps = [
            *plain,
            rotate(math.radians(rng.uniform(-config.rotate, config.rotate))),
            shear(rng.uniform(-config.shear, config.shear), size),
            scale(_aspect(rng, config.aspect), size),
            scale((_log_uniform(rng, *config.zoom),) * 2, size),
            translate(rng.uniform(-config.shift, config.shift, 2) * size),
        ]
        motions = [_composed(steps, view.K) for view in views]
        if kept([view.valid for view in views], [A for A, _ in motions], size) >= config.keep:
            return motions
    return [_composed(plain, view.K) for view in views]


def fit(shape: tuple[int, ...], size: int) -> Step:
    """Scale (H, W) so that its shorter side is `size`, and crop the longer one about its centre."""
    height, width = shape
    s = size / min(height, width)
    A = np.array([[s, 0, (size - s * width) / 2], [0, s, (size - s * height) / 2], [0, 0, 1.0]])
    return lambda K: (A, np.eye(3))


def flip(size: int) -> Step:
    """Mirror left and right: u -> W - u, x -> -x."""
    A = np.array([[-1.0, 0, size], [0, 1, 0], [0, 0, 1]])
    return lambda K: (A, np.diag([-1.0, 1, 1]))


def rotate(angle: float) -> Step:
    """Turn the camera about its optical axis by `angle` radians: the image turns about the principal point, K stays."""
    c, s = math.cos(angle), math.sin(angle)
    S = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return lambda K: (K @ S @ np.linalg.inv(K), S)


def shear(tangent: float, size: int) -> Step:
    return _about_centre(np.array([[1, tangent], [0, 1]]), size)


def scale(factors: tuple[float, float], size: int) -> Step:
    """Magnify about the image centre by (x, y) factors; above 1 it crops."""
    return _about_centre(np.diag(factors), size)


def translate(shift: np.ndarray) -> Step:
    A = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
    return lambda K: (A, np.eye(3))


def moved(K: np.ndarray, A: np.ndarray, S: np.ndarray) -> np.ndarray:
    """Intrinsics after (A, S): K' = A K S^-1, so that K' (S x) = A (K x)."""
    K = A @ K @ np.linalg.inv(S)
    return K / K[2, 2]


def resize(view: View, size: int) -> np.ndarray:
    return fit(view.valid.shape, size)(view.K)[0]


def kept(valid: Sequence[np.ndarray], A: Sequence[np.ndarray], size: int) -> float:
    """How many valid pixels of all frames have their centres inside the image under their A, in parts of those that
    `fit` alone leaves: its crop of a wide image is no loss of a draw. Above 1 where a draw shows more; 1 where `fit`
    leaves none.
    """
    inside = total = 0
    for mask, matrix in zip(valid, A):
        if (box := box_of(mask)) is None:
            continue
        total += int(np.count_nonzero(mask[_central(mask.shape)]))
        seen = mask[box].copy()
        for moved_to in _affine(matrix, box):
            seen &= (moved_to >= 0) & (moved_to < size)
        inside += int(np.count_nonzero(seen))
    return inside / total if total else 1.0


def warp(view: View, A: np.ndarray, S: np.ndarray, size: int) -> View:
    """Resample to `size` x `size` under (A, S): colour filtered (premultiplied), layers from the nearest pixel.

    Only in the boxes where the silhouette, and what is not transparent, come to lie; elsewhere there is nothing.
    """
    height, width = view.valid.shape
    inverse = np.linalg.inv(A)
    depth, valid = np.zeros((len(view.depth), size, size), np.float32), np.zeros((size, size), bool)
    source_box = box_of(view.valid)
    box = None if source_box is None else _image_of(source_box, A, size)
    if box is not None:
        source_u, source_v = (np.floor(at + 1e-9).astype(np.int32) for at in _affine(inverse, box))
        inside = (source_u >= 0) & (source_u < width) & (source_v >= 0) & (source_v < height)
        pixel = source_v.clip(0, height - 1) * np.int32(width) + source_u.clip(0, width - 1)
        valid[box] = found = view.valid.reshape(-1).take(pixel) & inside
        for layer, out in zip(view.depth, depth):
            np.multiply(layer.reshape(-1).take(pixel), found, out=out[box])
    return View(_warp_colour(view.rgba, A, size), depth, valid, moved(view.K, A, S))


def box_of(mask: np.ndarray) -> Box | None:
    """The smallest box that holds every pixel of (H,W) that is not 0, or None where there is none."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _central(shape: tuple[int, ...]) -> Box:
    """The pixels whose centres lie in what `fit` leaves of (H, W)."""
    side = min(shape)
    top, left = ((length - side) // 2 for length in shape)
    return slice(top, top + side), slice(left, left + side)


def _composed(steps: Sequence[Step], K: np.ndarray) -> Motion:
    A, S = np.eye(3), np.eye(3)
    for step in steps:
        step_A, step_S = step(K)
        A, S, K = step_A @ A, step_S @ S, moved(K, step_A, step_S)
    return A, S


def _image_of(box: Box, A: np.ndarray, size: int) -> Box | None:
    """The box of a `size` x `size` image outside which nothing lies whose nearest source pixel is in `box`."""
    (top, bottom), (left, right) = ((side.start, side.stop) for side in box)
    corners = A[:2, :2] @ np.array([[left, right, left, right], [top, top, bottom, bottom]]) + A[:2, 2:]
    low, high = np.floor(corners.min(axis=1)) - 1, np.ceil(corners.max(axis=1)) + 1
    (left, top), (right, bottom) = (each.clip(0, size).astype(int).tolist() for each in (low, high))
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _affine(matrix: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Where the centres of the pixels of a box go: x and y, (h,w) float64 each."""
    v, u = (np.arange(side.start, side.stop) + 0.5 for side in box)
    x, y = ((row[0] * u + (row[1] * v)[:, None]) + row[2] for row in matrix[:2])
    return x, y


def _warp_colour(rgba: np.ndarray, A: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, after box-averaging whole source pixels where the image shrinks, so that it does not alias."""
    inverse, moved_to = np.linalg.inv(A), np.zeros((size, size, 4), np.uint8)
    reduced = _pixels(inverse[:2, 0]), _pixels(inverse[:2, 1])
    opaque = box_of(rgba[..., 3])
    if opaque is None:
        return moved_to
    rows, columns = (slice(side.start - 2 * by, side.stop + 2 * by) for side, by in zip(opaque, reduced[::-1]))
    box = _image_of((rows, columns), A, size)  # with the pixels that are mixed with what is opaque
    if box is None:
        return moved_to
    image = Image.fromarray(rgba)
    if max(reduced) > 1:
        image = image.reduce(reduced)
        inverse = np.diag([1 / reduced[0], 1 / reduced[1], 1]) @ inverse
    inverse[:2, 2] += inverse[:2, :2] @ (box[1].start, box[0].start)
    coefficients = tuple(float(c) for c in inverse[:2].ravel())
    extent = box[1].stop - box[1].start, box[0].stop - box[0].start
    part = image.transform(extent, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    moved_to[box] = np.asarray(part)
    return moved_to


def _about_centre(matrix: np.ndarray, size: int) -> Step:
    A = np.eye(3)
    A[:2, :2] = matrix
    A[:2, 2] = size / 2 - matrix @ np.full(2, size / 2)
    return lambda K: (A, np.eye(3))


def _pixels(step: np.ndarray) -> int:
    """Source pixels that one output pixel spans along `step` (2,), at least 1."""
    return max(1, round(float(np.linalg.norm(step))))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _aspect(rng: np.random.Generator, limit: float) -> tuple[float, float]:
    """Factors (x, y) of product 1, whose ratio is within 1 +- limit."""
    root = math.sqrt(_log_uniform(rng, 1 - limit, 1 + limit))
    return root, 1 / root
