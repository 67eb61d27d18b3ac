"""The slow readable twin of the peel: every triangle against every pixel, no box, no buffer, one sort at the end.

It evaluates the same formulas in the same order as `peel_kernels`, so that the two agree bit by bit; how the kernel
finds the pixels of a triangle and keeps the nearest hits is what the comparison checks.
"""

import numpy as np

from render.hits import Hits


def peel(
    vertices: np.ndarray, faces: np.ndarray, K: np.ndarray, height: int, width: int, layers: int, near: float = 1e-3
) -> Hits:
    """As `render.peel.peel`, with the facing of each hit. Costs F x H x W."""
    vertices = np.asarray(vertices, dtype=np.float64)
    x, y, z = vertices.T
    homogeneous = np.stack([row[0] * x + row[1] * y + row[2] * z for row in np.asarray(K, dtype=np.float64)], axis=1)
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")

    found = []
    for t, corners in enumerate(np.asarray(faces)):
        a, b, c = vertices[corners]
        if not np.cross(b - a, c - a).any():
            continue
        side, depth = intersect(homogeneous[corners], u, v)
        with np.errstate(over="ignore"):
            hit = (side != 0) & (depth >= near) & np.isfinite(depth.astype(np.float32))
        pixel = np.flatnonzero(hit)
        towards = (-side if np.linalg.det(K) > 0 else side).reshape(-1)[pixel]
        found.append((pixel, depth.reshape(-1)[pixel].astype(np.float32), np.full(len(pixel), t), towards))

    hits = Hits(
        np.full((layers, height * width), np.inf, np.float32),
        np.full((layers, height * width), -1, np.int32),
        np.zeros((layers, height * width), np.int8),
    )
    if found:
        pixel, depth, triangle, towards = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.lexsort((triangle, depth, pixel))
        pixel = pixel[order]
        layer = np.arange(len(pixel)) - np.searchsorted(pixel, pixel)
        kept = layer < layers
        for target, value in zip(hits, (depth, triangle, towards), strict=True):
            target[layer[kept], pixel[kept]] = value[order][kept]
    return Hits(*(array.reshape(layers, height, width) for array in hits))


def intersect(corners: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One triangle, given by K times its corners (3,3), against the pixel centres u, v (H,W).

    Returns the sign of its sides, 0 where the pixel is outside, and z along the optical axis (meaningless outside).
    """
    w = corners[:, 2]
    px = [corners[i, 0] - u * w[i] for i in range(3)]
    py = [corners[i, 1] - v * w[i] for i in range(3)]
    sides, weights = [], []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        e = px[i] * py[j] - py[i] * px[j]
        tie_right = py[i] * w[j] - w[i] * py[j]
        tie_down = w[i] * px[j] - px[i] * w[j]
        weights.append(e)
        sides.append(np.sign(np.where(e != 0, e, np.where(tie_right != 0, tie_right, tie_down))))
    total = weights[0] + weights[1] + weights[2]
    inside = (sides[0] == sides[1]) & (sides[1] == sides[2]) & (total != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (weights[0] * w[0] + weights[1] * w[1] + weights[2] * w[2]) / total
    return np.where(inside, sides[0], 0).astype(np.int8), depth
