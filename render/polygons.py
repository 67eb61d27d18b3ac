"""Polygons as triangles: a fan where the polygon is convex, the other diagonal or ear clipping where it is not."""

import numpy as np

# Ear clipping may look at every corner for every corner; this bounds its time to seconds. Beyond, a fan must do.
_WORK = 500_000


def triangulate(sizes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of P polygons given corner after corner.

    sizes (P,) corners of each polygon, fewer than three make no triangle | points (C,3) positions of all corners.
    Returns triangles (T,3) int64 into the corners, and the polygon (T,) of each; both in the order of the polygons.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if len(sizes) else np.zeros(0, np.int64)
    work = _WORK
    found, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    by_size = np.argsort(sizes, kind="stable")  # once: thousands of different sizes would each look at every polygon
    distinct, first = np.unique(sizes[by_size], return_index=True)
    for n, members in zip(distinct.tolist(), np.split(by_size, first[1:]), strict=True):
        if n < 3:
            continue
        local = _fan(n)
        if n > 3:
            corner_points = points[starts[members, None] + np.arange(n)]
            local, work = _shaped(local, corner_points, work)
        else:
            local = np.broadcast_to(local, (len(members), 1, 3))
        found.append((local + starts[members, None, None]).reshape(-1, 3))
        owners.append(np.repeat(members, n - 2))
    triangles, owner = np.concatenate(found), np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return triangles[order], owner[order]


def _fan(n: int) -> np.ndarray:
    return np.stack([np.zeros(n - 2, np.int64), np.arange(1, n - 1), np.arange(2, n)], axis=1)


def _shaped(fan: np.ndarray, points: np.ndarray, work: int) -> tuple[np.ndarray, int]:
    """(M,n-2,3) triangles of M polygons (M,n,3) with n corners each, and what is left of the work allowed."""
    out = np.broadcast_to(fan, (len(points), *fan.shape)).copy()
    with np.errstate(all="ignore"):  # NaN corners keep the fan and are refused later
        a, b, c = (points[:, fan[:, i]] for i in range(3))
        across = np.cross(b - a, c - a)
        normal = across.sum(axis=1)  # twice the area vector of the polygon, convex or not
        concave = (np.einsum("mti,mi->mt", across, normal) < 0).any(axis=1)
    n = points.shape[1]
    if n == 4:
        out[concave] = [[1, 2, 3], [1, 3, 0]]
        return out, work
    for m in np.flatnonzero(concave).tolist():
        work -= n * n
        if work < 0:
            break
        out[m] = _clipped(points[m], normal[m])
    return out, work


def _clipped(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Ear clipping of one polygon (n,3), seen along its normal."""
    drop = int(np.abs(normal).argmax())
    flat = np.delete(points, drop, axis=1)
    if (normal[drop] < 0) != (drop == 1):
        flat = flat * [-1.0, 1.0]  # counter-clockwise in the plane
    left = np.arange(len(points))
    triangles = []
    while len(left) > 3:
        before, after = np.roll(left, 1), np.roll(left, -1)
        corners = _turn(flat[before], flat[left], flat[after]) > 0
        ear = 1  # crossing edges may have no ear
        for k in np.flatnonzero(corners).tolist():
            i, j, m = before[k], left[k], after[k]
            others = flat[left[(left != i) & (left != j) & (left != m)]]
            sides = [_turn(flat[p], flat[q], others) >= 0 for p, q in ((i, j), (j, m), (m, i))]
            if not np.logical_and.reduce(sides).any():
                ear = k
                break
        triangles.append([before[ear], left[ear], after[ear]])
        left = np.delete(left, ear)
    return np.array([*triangles, left], np.int64)


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Twice the signed area of triangles in the plane, (...,2) each; positive is counter-clockwise."""
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
