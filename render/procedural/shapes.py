"""Solid shapes: boxes, surfaces of revolution, tubes, ellipsoids. Texture coordinates run over 0..1 on each."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from render.normals import unit
from render.procedural.piece import Piece, along, join

# The 24 vertices of a box: corner (8) x face axis (3), and its 6 sides, 12 bevelled edges and 8 cut corners.
_SIGNS: np.ndarray = np.repeat(
    np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float), 3, axis=0
)
_AXES: np.ndarray = np.tile(np.eye(3), (8, 1))


def _outward(polygon: list[int], middle: np.ndarray) -> list[list[int]]:
    points = (_SIGNS * (1 + _AXES))[polygon]
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    ordered = polygon if normal @ middle > 0 else polygon[::-1]
    return [[ordered[0], ordered[k], ordered[k + 1]] for k in range(1, len(ordered) - 1)]


def _box_faces() -> tuple[np.ndarray, np.ndarray]:
    def vertex(signs: Sequence[int], axis: int) -> int:
        return 3 * sum((s > 0) << (2 - k) for k, s in enumerate(signs)) + axis

    sides: list[list[int]] = []
    bevels: list[list[int]] = []
    for axis in range(3):
        b, c = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1, 1):
            ring = []
            for sb, sc in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                signs = [0, 0, 0]
                signs[axis], signs[b], signs[c] = sign, sb, sc
                ring.append(vertex(signs, axis))
            sides += _outward(ring, np.eye(3)[axis] * sign)
        for sb, sc in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            low, high = [0, 0, 0], [0, 0, 0]
            low[axis], low[b], low[c] = -1, sb, sc
            high[axis], high[b], high[c] = 1, sb, sc
            middle = np.eye(3)[b] * sb + np.eye(3)[c] * sc
            bevels += _outward([vertex(low, b), vertex(high, b), vertex(high, c), vertex(low, c)], middle)
    for corner in range(8):
        bevels += _outward([3 * corner, 3 * corner + 1, 3 * corner + 2], _SIGNS[3 * corner])
    return np.array(sides), np.array(sides + bevels)


_SIDES, _BEVELLED = _box_faces()


def box(x: float, y: float, z: float, bevel: float = 0.0) -> Piece:
    """Of size (x, y, z), its floor at y = 0 and centred on the y axis; `bevel` rounds its edges (44 faces, not 12)."""
    size = np.array([x, y, z], float)
    bevel = min(bevel, 0.45 * float(size.min()))
    vertices = _SIGNS * (size / 2 - bevel * (1 - _AXES))
    across = np.where(_AXES[:, :1] > 0, vertices[:, 2:3], vertices[:, 0:1])
    up = np.where(_AXES[:, 1:2] > 0, vertices[:, 2:3], vertices[:, 1:2])
    uv = np.concatenate([across, -up], axis=1) / size.max() + 0.5
    return Piece(vertices + np.array([0, y / 2, 0]), _BEVELLED if bevel > 0 else _SIDES, _SIGNS * _AXES, uv)


def slab(low: Sequence[float], high: Sequence[float], bevel: float = 0.0) -> Piece:
    """The box between two corners."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    return box(x1 - x0, y1 - y0, z1 - z0, bevel).moved((x0 + x1) / 2, y0, (z0 + z1) / 2)


def grid(points: np.ndarray, close_rows: bool = False, close_columns: bool = False) -> Piece:
    """Surface through `points` (n,m,3): u runs along columns, v along rows, normal = d/drow x d/dcolumn.

    A closed direction joins last to first (the seam has two texture coordinates). Triangles that collapse, as at a
    pole, are left out. Normals are smooth, also across seams and at poles.
    """
    if close_rows:
        points = np.concatenate([points, points[:1]], axis=0)
    if close_columns:
        points = np.concatenate([points, points[:, :1]], axis=1)
    n, m = points.shape[:2]
    cell = np.cross(points[1:, 1:] - points[:-1, :-1], points[:-1, 1:] - points[1:, :-1])
    normals = np.zeros((n, m, 3))
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            normals[rows, columns] += cell
    if close_rows:
        normals[0] = normals[-1] = normals[0] + normals[-1]
    if close_columns:
        normals[:, 0] = normals[:, -1] = normals[:, 0] + normals[:, -1]
    for row in (0, -1):
        if np.ptp(points[row], axis=0).max() < 1e-12:
            normals[row] = normals[row].sum(axis=0)
    uv = np.stack(np.broadcast_arrays(np.linspace(0, 1, m)[None], np.linspace(1, 0, n)[:, None]), axis=-1)
    index = np.arange(n * m).reshape(n, m)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], axis=2).reshape(-1, 3)
    flat = points.reshape(-1, 3)
    corners = flat[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    faces = faces[area > 1e-9 * float(np.ptp(flat, axis=0).max()) ** 2]
    return Piece(flat, faces, unit(normals.reshape(-1, 3)), uv.reshape(-1, 2))


def revolve(profile: np.ndarray, segments: int = 32, sharp: float = 40.0, arc: float = 2 * math.pi) -> Piece:
    """Surface of revolution of `profile` (N,2) of (radius, y) about +y; outside is on the right of the way upwards.

    A closed thick shell starts on the axis below, goes up its outer wall, over the rim, down the inner wall and ends
    on the axis. Corners of more than `sharp` degrees are creases. `arc` < 2 pi leaves it open.
    """
    profile = np.asarray(profile, float)
    step = np.diff(profile, axis=0)
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    crease = np.flatnonzero(np.abs(np.diff(heading)) > math.radians(sharp)) + 1
    # Rows of vertices: those at a crease come twice, with the normal of the segment before and of that after.
    rows = np.sort(np.concatenate([np.arange(len(profile)), crease]))
    length = np.hypot(step[:, 0], step[:, 1])
    slant = np.stack([step[:, 1], -step[:, 0]], axis=1)
    before, after = np.concatenate([slant[:1], slant]), np.concatenate([slant, slant[-1:]])
    normal = (before + after)[rows]
    first = np.searchsorted(rows, crease)
    normal[first], normal[first + 1] = before[crease], after[crease]
    normal = normal / np.hypot(normal[:, 0], normal[:, 1])[:, None].clip(1e-12)
    whole = arc >= 2 * math.pi - 1e-9
    angle = np.linspace(0, arc, segments + 1)
    around = np.stack([np.cos(angle), np.zeros_like(angle), -np.sin(angle)], axis=-1)
    if whole:
        around[-1] = around[0]
    height = np.array([0.0, 1.0, 0.0])
    vertices = profile[rows, 0, None, None] * around + profile[rows, 1, None, None] * height
    normals = normal[:, 0, None, None] * around + normal[:, 1, None, None] * height
    v = (1 - np.concatenate([[0], np.cumsum(length)]) / length.sum())[rows]
    uv = np.stack(np.broadcast_arrays(angle[None] / (2 * math.pi), v[:, None]), axis=-1)
    low = np.setdiff1d(np.arange(len(rows) - 1), first)
    start = low[:, None] * (segments + 1) + np.arange(segments)[None]
    above = start + segments + 1
    keep_low, keep_high = profile[rows[low], 0] > 1e-12, profile[rows[low + 1], 0] > 1e-12
    faces = np.concatenate(
        [
            np.stack([start, start + 1, above + 1], -1)[keep_low].reshape(-1, 3),
            np.stack([start, above + 1, above], -1)[keep_high].reshape(-1, 3),
        ]
    )
    return Piece(vertices.reshape(-1, 3), faces, normals.reshape(-1, 3), uv.reshape(-1, 2))


def cylinder(radius: float, height: float, segments: int = 24, top: float | None = None, bevel: float = 0.0) -> Piece:
    """Closed, from y = 0 upwards; `top` is the radius above when it differs (0 makes a cone)."""
    top = radius if top is None else top
    bevel = min(bevel, 0.4 * height, 0.4 * max(radius, top))
    foot: list[list[float]] = [[0, 0], [radius - bevel, 0], [radius, bevel]]
    head: list[list[float]] = [[top, height - bevel], [top - bevel, height], [0, height]]
    if bevel == 0:
        foot, head = [[0, 0], [radius, 0]], [[top, height], [0, height]] if top > 0 else [[0, height]]
    elif top <= bevel:
        head = [[0, height]]
    profile = foot + head
    return revolve(np.array(profile), segments, sharp=50.0)


def ellipsoid(x: float, y: float, z: float, segments: int = 20, rings: int = 12) -> Piece:
    """Semi-axes x, y, z, centred on the origin."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, rings + 1)
    profile = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    profile[[0, -1], 0] = 0
    return revolve(profile, segments, sharp=180.0).scaled(x, y, z)


def superquadric(x: float, y: float, z: float, east: float, north: float, segments: int = 32, rings: int = 20) -> Piece:
    """Semi-axes x, y, z; exponents `north` (profile) and `east` (section): 1 round, < 1 boxy, > 1 pinched."""
    lat = np.linspace(-math.pi / 2, math.pi / 2, rings + 1)[:, None]
    lon = (np.arange(segments) * (2 * math.pi / segments))[None]

    def power(value: np.ndarray, exponent: float) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** exponent

    ring = power(np.cos(lat), north)
    ring[[0, -1]] = 0
    points = [x * ring * power(np.cos(lon), east), y * power(np.sin(lat), north), -z * ring * power(np.sin(lon), east)]
    return grid(np.stack(np.broadcast_arrays(*points), axis=-1), close_columns=True).inside_out()


def capsule(start: np.ndarray, end: np.ndarray, r0: float, r1: float, segments: int = 16, rings: int = 4) -> Piece:
    """From `start` to `end`, with round ends of radius r0 and r1."""
    length = float(np.linalg.norm(np.asarray(end) - np.asarray(start)))
    angle = np.linspace(0, math.pi / 2, rings + 1)
    low = np.stack([r0 * np.sin(angle), -r0 * np.cos(angle)], axis=1)
    high = np.stack([r1 * np.cos(angle), length + r1 * np.sin(angle)], axis=1)
    profile = np.concatenate([low, high])
    profile[[0, -1], 0] = 0
    return revolve(profile, segments, sharp=180.0).transformed(along(start, end))


def rod(start: ArrayLike, end: ArrayLike, radius: float, segments: int = 10, taper: float = 1.0) -> Piece:
    """A cylinder between two points; its radius at the end is `taper` times that at the start."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    return cylinder(radius, float(np.linalg.norm(b - a)), segments, radius * taper).transformed(along(a, b))


def tube(path: np.ndarray, radius: float | np.ndarray, segments: int = 12, closed: bool = False) -> Piece:
    """A round tube along `path` (N,3), `radius` a number or (N,); open ends are capped."""
    path = np.asarray(path, float)
    forward = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)
    if not closed:
        forward[0], forward[-1] = path[1] - path[0], path[-1] - path[-2]
    forward = unit(forward)
    side = _transported(forward, closed)
    other = np.cross(forward, side)
    angle = np.arange(segments) * (2 * math.pi / segments)
    section = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * other[:, None]
    radii = np.broadcast_to(np.asarray(radius, float), (len(path),))
    points = path[:, None] + radii[:, None, None] * section
    skin = grid(points, close_rows=closed, close_columns=True).inside_out()
    if closed:
        return skin
    start = grid(np.stack([np.broadcast_to(path[0], points[0].shape), points[0]]), close_columns=True).inside_out()
    end = grid(np.stack([points[-1], np.broadcast_to(path[-1], points[-1].shape)]), close_columns=True).inside_out()
    return join([skin, start, end])


def torus(ring: float, thickness: float, segments: int = 36, sides: int = 14) -> Piece:
    """In the xz plane, centred on the origin: `ring` and `thickness` are its two radii."""
    angle = np.arange(segments) * (2 * math.pi / segments)
    path = ring * np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], axis=1)
    return tube(path, thickness, sides, closed=True)


def _transported(forward: np.ndarray, closed: bool) -> np.ndarray:
    """Normals (N,3) carried along unit tangents without twist; on a closed path the leftover twist is spread evenly."""
    seed = np.eye(3)[int(np.argmin(np.abs(forward).sum(axis=0)))]
    x, y, z = (seed - forward[0] * (seed @ forward[0])).tolist()
    sides = []
    for fx, fy, fz in [*forward.tolist(), *(forward[:1].tolist() if closed else [])]:
        dot = x * fx + y * fy + z * fz
        x, y, z = x - dot * fx, y - dot * fy, z - dot * fz
        norm = math.sqrt(x * x + y * y + z * z) or 1.0
        x, y, z = x / norm, y / norm, z / norm
        sides.append((x, y, z))
    if not closed:
        return np.array(sides)
    last, side = np.array(sides[-1]), np.array(sides[:-1])
    twist = math.atan2(float(np.cross(last, side[0]) @ forward[0]), float(last @ side[0]))
    angle = np.linspace(0, twist, len(side) + 1)[:-1, None]
    return np.cos(angle) * side + np.sin(angle) * np.cross(forward, side)
