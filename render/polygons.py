"""Polygons as triangles: a fan where the polygon is convex, the other diagonal or ear clipping where it is not.

Files hold polygons twice, once for each side. Fans from the first corner of each copy would cut them along different
diagonals, and two copies that share no triangle make layers that are not there. So polygons with the same corners are
cut in the same way, wherever their lists begin and whichever way they run.
"""

import numpy as np

# Ear clipping may look at every corner for every corner; this bounds its time to seconds. Beyond, a fan must do.
_WORK = 500_000


def triangulate(sizes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of P polygons given corner after corner.

    sizes (P,) corners of each polygon, fewer than three make no triangle | points (C,3) positions of all corners.
    Returns triangles (T,3) int64 into the corners, wound as their polygon is, and the polygon (T,) of each; both in the
    order of the polygons.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if len(sizes) else np.zeros(0, np.int64)
    repeated = _repeated(starts, sizes, points)
    work = _WORK
    found, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    by_size = np.argsort(sizes, kind="stable")  # once: thousands of different sizes would each look at every polygon
    distinct, first = np.unique(sizes[by_size], return_index=True)
    for n, members in zip(distinct.tolist(), np.split(by_size, first[1:]), strict=True):
        if n < 3:
            continue
        corners = starts[members, None] + np.arange(n)
        if n > 3:
            again = np.flatnonzero(repeated[members])
            order, turned = _canonical(points[corners[again]])
            corners[again] = np.take_along_axis(corners[again], order, axis=1)
            local, work = _shaped(_fan(n), points[corners], work)
            turned = again[turned]
            local[turned] = local[turned][..., [0, 2, 1]]
            cut = np.take_along_axis(corners[:, None], local, axis=2)
        else:
            cut = corners[:, None]
        found.append(cut.reshape(-1, 3))
        owners.append(np.repeat(members, n - 2))
    triangles, owner = np.concatenate(found), np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return triangles[order], owner[order]


def _fan(n: int) -> np.ndarray:
    return np.stack([np.zeros(n - 2, np.int64), np.arange(1, n - 1), np.arange(2, n)], axis=1)


def _repeated(starts: np.ndarray, sizes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which polygons (P,) have the corners of another, in whatever order; it may hold for one too many."""
    if not (sizes > 3).any():
        return np.zeros(len(sizes), dtype=bool)
    bits = np.ascontiguousarray(points + 0.0, np.float64).view(np.uint64)  # -0 and 0 are one position
    mixed = np.zeros(len(bits), np.uint64)
    for column in bits.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    digest = np.zeros(len(sizes), np.uint64)
    filled = sizes > 0
    digest[filled] = np.add.reduceat(mixed, starts[filled])  # a sum, for the order of the corners does not matter
    ordered = np.sort(digest[sizes > 3])
    return np.isin(digest, ordered[1:][ordered[1:] == ordered[:-1]])


def _canonical(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Another order (M,n) of the corners of M polygons (M,n,3), and which of them (M,) then run the other way round.

    First the corner with the least position (by x, then y, then z), next the lesser of its two neighbours. Of corners
    in one place, the first is the one with the lesser neighbours.
    """
    m, n, _ = points.shape
    first = _least(points, np.ones((m, n), dtype=bool))
    tied = np.flatnonzero(first.sum(axis=1) > 1)
    if len(tied):
        sides = np.stack([np.roll(points[tied], 1, axis=1), np.roll(points[tied], -1, axis=1)], axis=2)  # (T,n,2,3)
        lesser = _least(sides.reshape(-1, 2, 3), np.ones((len(tied) * n, 2), dtype=bool)).argmax(axis=1)
        for side in (lesser, 1 - lesser):
            key = sides.reshape(-1, 2, 3)[np.arange(len(side)), side].reshape(len(tied), n, 3)
            first[tied] = _least(key, first[tied])
    start = first.argmax(axis=1)
    beside = (start[:, None] + [1, -1]) % n
    turned = _least(points[np.arange(m)[:, None], beside], np.ones((m, 2), dtype=bool)).argmax(axis=1) == 1
    order = (start[:, None] + np.where(turned, -1, 1)[:, None] * np.arange(n)) % n
    return order, turned


def _least(points: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Those `among` (M,n) bool the points (M,n,3) that no other of them precedes; none in a row with a NaN."""
    for k in range(3):
        x = np.where(among, points[..., k], np.inf)
        among = among & (x == x.min(axis=1, keepdims=True))
    return among


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
