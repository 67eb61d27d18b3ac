"""Depth layers -> points: along separable rays in float32, and only within the box around the silhouette.

Most of an object's image is empty, and most of a deeper layer repeats the one before it; both cost a copy at most.
The twin in tests/shards/test_unproject.py multiplies every ray of the image in float64.
"""

import numpy as np

Box = tuple[slice, slice]


def unproject(depth: np.ndarray, hits: np.ndarray, K: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """depth (L,H,W) float32, forward-filled; hits (H,W) uint8; K (3,3) -> points (L,H,W,3) float32, camera frame.

    z is the depth itself, x and y are those of float64 within one rounding more; all are 0 where hits = 0. The last row
    of K is 0, 0, 1, as every reader demands. `out` holds zeros beforehand, if it is given.
    """
    layers, height, width = depth.shape
    xyz = np.zeros((layers, height, width, 3), np.float32) if out is None else out
    x, y = slopes(K, height, width)
    across, down = hits.max(axis=0, initial=0), hits.max(axis=1, initial=0)
    whole = _box(across, down, 0)
    if whole is None:
        return xyz
    for l in range(layers):
        box = _box(across, down, l)
        if l > 0 and box != whole:
            xyz[l][whole] = xyz[l - 1][whole]
        if box is None:
            continue
        z, points = depth[l][box], xyz[l][box]
        np.multiply(z, x[box if len(x) > 1 else (slice(None), box[1])], out=points[..., 0])
        np.multiply(z, y[box if y.shape[1] > 1 else (box[0], slice(None))], out=points[..., 1])
        points[..., 2] = z
    return xyz


def slopes(K: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x / z and y / z, float32, of the rays through the pixel centres: K^-1 (u + 0.5, v + 0.5, 1), in closed form.

    Without skew x is (1,W) and y (H,1); with skew both are (H,W).
    """
    (a, b, c), (d, e, f) = np.asarray(K, np.float64)[:2]
    u, v = np.arange(width)[None] + 0.5 - c, np.arange(height)[:, None] + 0.5 - f
    if b == 0 and d == 0:
        return (u / a).astype(np.float32), (v / e).astype(np.float32)
    determinant = a * e - b * d
    return ((e * u - b * v) / determinant).astype(np.float32), ((a * v - d * u) / determinant).astype(np.float32)


def _box(across: np.ndarray, down: np.ndarray, l: int) -> Box | None:
    """The smallest box with every pixel of more than l hits, from the most hits in each column and row."""
    columns, rows = np.flatnonzero(across > l), np.flatnonzero(down > l)
    if not rows.size:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
