"""Polygons as triangles: a fan where the polygon is convex, the other diagonal or ear clipping where it is not."""

import numpy as np

_MOST_CLIPPED = 256  # ear clipping is cubic in the corners; a larger concave polygon keeps its fan


def triangulate(sizes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of P polygons given corner after corner.

    sizes (P,) corners of each polygon, fewer than three make no triangle | points (C,3) positions of all corners.
    Returns triangles (T,3) int64 into the corners, and the polygon (T,) of each; both in the order of the polygons.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if len(sizes) else np.zeros(0, np.int64)
    found, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for n in np.unique(sizes).tolist():
        if n < 3:
            continue
        members = np.flatnonzero(sizes == n)
        local = _fan(n)
        if n > 3:
            corner_points = points[starts[members, None] + np.arange(n)]
            local = _shaped(local, corner_points)
        else:
            local = np.broadcast_to(local, (len(members), 1, 3))
        found.append((local + starts[members, None, None]).reshape(-1, 3))
        owners.append(np.repeat(members, n - 2))
    triangles, owner = np.concatenate(found), np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return triangles[order], owner[order]


def _fan(n: int) -> np.ndarray:
    return np.stack([np.zeros(n - 2, np.int64), np.arange(1, n - 1), np.arange(2, n)], axis=1)


def _shaped(fan: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(M,n-2,3) triangles of M polygons (M,n,3) with n corners each."""
    out = np.broadcast_to(fan, (len(points), *fan.shape)).copy()
    with np.errstate(all="ignore"):  # NaN corners keep the fan and are refused later
        a, b, c = (points[:, fan[:, i]] for i in range(3))
        across = np.cross(b - a, c - a)
        normal = across.sum(axis=1)  # twice the area vector of the polygon, convex or not
        concave = (np.einsum("mti,mi->mt", across, normal) < 0).any(axis=1)
    for m in np.flatnonzero(concave).tolist():
        if points.shape[1] <= _MOST_CLIPPED:
            out[m] = _clipped(points[m], normal[m])
    return out


def _clipped(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Ear clipping of one polygon (n,3), seen along its normal."""
    drop = int(np.abs(normal).argmax())
    flat = np.delete(points, drop, axis=1)
    if (normal[drop] < 0) != (drop == 1):
        flat = flat * [-1.0, 1.0]  # counter-clockwise in the plane
    left = list(range(len(points)))
    triangles = []
    while len(left) > 3:
        for k in range(len(left)):
            i, j, m = left[k - 1], left[k], left[(k + 1) % len(left)]
            others = [flat[o] for o in left if o not in (i, j, m)]
            if _turn(flat[i], flat[j], flat[m]) > 0 and not any(_inside(p, flat[i], flat[j], flat[m]) for p in others):
                break
        else:
            k = 1  # crossing edges have no ear
            i, j, m = left[0], left[1], left[2]
        triangles.append((i, j, m))
        del left[k]
    return np.array([*triangles, left], np.int64)


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _inside(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> bool:
    return _turn(a, b, p) >= 0 and _turn(b, c, p) >= 0 and _turn(c, a, p) >= 0
