"""Views whose layers are slanted planes: depth is known in closed form at any pixel of any camera."""

import numpy as np

from shards import Clip, LayeredView, Origin, rays
from train.data.augment.geometry import View

K = np.array([[70.0, 0, 31.0], [0, 66.0, 33.5], [0, 0, 1]])
PLANES = (np.array([0.2, -0.1, 1.0, 2.0]), np.array([-0.15, 0.2, 1.0, 3.0]))  # n . x = d


def plane_view(
    size: int | tuple[int, int] = 64, K: np.ndarray = K, mask: str = "disc", shift: float = 0
) -> LayeredView:
    """Two planes behind a disc (`shift` to the right, in parts of the width), or in all of the image."""
    height, width = (size, size) if isinstance(size, int) else size
    directions = rays(K, height, width)
    depth = np.stack([d / (directions @ n) for *n, d in PLANES]).astype(np.float32)
    v, u = np.mgrid[0:height, 0:width] + 0.5
    valid = np.hypot(u - (0.55 + shift) * width, v - 0.45 * height) < 0.33 * min(height, width)
    if mask != "disc":
        valid[:] = True
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[..., 0], rgba[..., 1], rgba[..., 3] = u * 255 / width, v * 255 / height, valid * 255
    return LayeredView(
        "plane-00000000-v000",
        rgba,
        valid.astype(np.uint8) * 2,
        depth * valid,
        K,
        np.eye(4),
        "object",
        Origin("plane", "test", "0" * 64),
    )


def plane_clip(frames: int = 4, size: int | tuple[int, int] = 64, mask: str = "disc") -> Clip:
    """The disc moves to the right, and the camera zooms in."""
    zoom = [np.diag([1 + 0.02 * t, 1 + 0.02 * t, 1]) for t in range(frames)]
    views = (plane_view(size, K @ zoom[t], mask, 0.03 * t) for t in range(frames))
    return Clip("plane-00000000-c000", tuple(views))


def as_view(view: LayeredView) -> View:
    return View(view.rgba, view.depth, view.valid, np.asarray(view.K))
