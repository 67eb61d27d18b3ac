"""Stacks of spheres and planes as a perfect model would predict them, from their equations."""

import numpy as np

FOCAL = 500 / 512  # of the picture's size: the camera of the rendered objects


def rays(size: int) -> np.ndarray:
    """(H,W,3): through pixel centres, z = 1."""
    u = (np.arange(size) + 0.5 - size / 2) / (FOCAL * size)
    x, y = np.meshgrid(u, u)
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def sphere(size: int, centre: tuple[float, float, float] = (0, 0, 2), radius: float = 0.5) -> np.ndarray:
    """(2,H,W) float64: z where each ray enters and leaves; nan where it misses."""
    d, c = rays(size), np.asarray(centre, float)
    along, square = d @ c, (d**2).sum(-1)
    inside = along**2 - square * (c @ c - radius**2)
    root = np.sqrt(np.where(inside >= 0, inside, np.nan))
    return np.stack([along - root, along + root]) / square


def stack(hits: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """hits (N,H,W), nan for a miss -> xyz (layers,H,W,3) float32, sorted and filled (Eq. 2), and valid (H,W)."""
    depth = np.sort(hits, axis=0)  # nan comes last
    depth = np.concatenate([depth, np.full((max(0, layers - len(depth)), *depth.shape[1:]), np.nan)])[:layers]
    for l in range(1, layers):
        depth[l] = np.where(np.isnan(depth[l]), depth[l - 1], depth[l])
    valid = ~np.isnan(depth[0])
    xyz = rays(depth.shape[-1]) * np.where(valid, depth, 0)[..., None]
    return xyz.astype(np.float32), valid
