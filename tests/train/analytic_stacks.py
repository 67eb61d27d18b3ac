"""Predictions whose every point is known in closed form: a sphere, alone or in a room, seen by a pinhole camera."""

import numpy as np

from train.prediction.prediction import Prediction

LAYERS = 4


def camera(size: int, focal: float | None = None) -> np.ndarray:
    focal = 1.1 * size if focal is None else focal
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])


def rays(K: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H,W,3) with z = 1, through the pixel centres."""
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    return np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T


def sphere_depths(ray: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """(2,H,W): entry and exit, NaN where the ray misses."""
    a, b = (ray**2).sum(-1), ray @ centre
    inside = b**2 - a * (centre @ centre - radius**2)
    root = np.sqrt(np.where(inside > 0, inside, np.nan))
    return np.stack([(b - root) / a, (b + root) / a])


def stack_prediction(
    depth: np.ndarray, K: np.ndarray, rgb: np.ndarray | None = None, framed: np.ndarray | None = None, name: str = "it"
) -> Prediction:
    """depth (L,H,W), NaN where a ray meets no (further) surface -> the forward-filled prediction of one seed."""
    valid = np.isfinite(depth[0])
    filled = depth.copy()
    for layer in range(1, len(filled)):
        filled[layer] = np.where(np.isfinite(filled[layer]), filled[layer], filled[layer - 1])
    filled = np.where(valid, filled, 0)
    xyz = (filled[..., None] * rays(K, *valid.shape)).astype(np.float32)
    if rgb is None:
        rgb = np.random.default_rng(0).random((*valid.shape, 3), np.float32)
    return Prediction(rgb, valid, xyz[None], np.array(K)[None], (0,), name=name, framed_from_image=framed)


def sphere_prediction(size: int = 96, centre: tuple[float, ...] = (0, 0, 2.0), radius: float = 0.5) -> Prediction:
    """Front and back of a sphere in the first two of four layers."""
    K = camera(size)
    two = sphere_depths(rays(K, size, size), np.array(centre), radius)
    return stack_prediction(np.concatenate([two, np.full((LAYERS - 2, size, size), np.nan)]), K)
