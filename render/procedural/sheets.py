"""Surfaces with openings and edges: thick sheets, perforated plates, walls with windows, lattices and cages."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from render.normals import vertex_normals
from render.procedural.piece import Piece, join
from render.procedural.shapes import grid, rod

Opening = tuple[float, float, float, float]


def thick(points: np.ndarray, thickness: float, close_columns: bool = False) -> Piece:
    """A closed shell of constant thickness: `points` (n,m,3) on its front, and a back that lies behind the normals."""
    front = grid(points, close_columns=close_columns)
    n, m = points.shape[0], points.shape[1] + close_columns
    back = front.vertices - thickness * front.normals
    back_points, front_points = back.reshape(n, m, 3), front.vertices.reshape(n, m, 3)
    # The border of a closed sheet is its two rims; of an open one, one loop around.
    edges: list[tuple[Any, Any]] = [(0, slice(None)), (n - 1, slice(None, None, -1))]
    if not close_columns:
        edges += [(slice(None, None, -1), 0), (slice(None), m - 1)]
    rims = []
    for rows, columns in edges:
        f, b = front_points[rows, columns], back_points[rows, columns]
        if np.ptp(f, axis=0).max() > 1e-9:
            rims.append(grid(np.stack([b, f])))
    backside = Piece(back, front.faces[:, ::-1], -front.normals, front.uv)
    return join([front, backside, *rims])


def perforated(columns: int, rows: int, cell: float, hole: float, thickness: float, sides: int = 8) -> Piece:
    """A plate in the xy plane (centred in x, from y = 0) with a hole in each square cell, front at z = +thickness / 2.

    `hole` is the hole's radius as a fraction of half a cell, `sides` (a multiple of 4) its corners.
    """
    quarter = sides // 4
    edge = np.arange(quarter) / quarter * 2 - 1
    square = np.concatenate(
        [
            np.stack([edge, -np.ones(quarter)], 1),
            np.stack([np.ones(quarter), edge], 1),
            np.stack([-edge, np.ones(quarter)], 1),
            np.stack([-np.ones(quarter), -edge], 1),
        ]
    )
    angle = np.arctan2(square[:, 1], square[:, 0])
    circle = hole * np.stack([np.cos(angle), np.sin(angle)], 1)
    ring = np.concatenate([square, circle]) * (cell / 2)
    x = (np.arange(columns) - (columns - 1) / 2) * cell
    y = (np.arange(rows) + 0.5) * cell
    centres = np.stack(np.broadcast_arrays(x[None], y[:, None]), -1).reshape(-1, 1, 2)
    flat = (centres + ring[None]).reshape(-1, 2)
    cells = len(centres)
    k = np.arange(sides)
    after = (k + 1) % sides
    around = np.concatenate([np.stack([k, after, after + sides], 1), np.stack([k, after + sides, k + sides], 1)])
    faces = (np.arange(cells)[:, None, None] * (2 * sides) + around[None]).reshape(-1, 3)
    uv = np.stack([flat[:, 0] / (columns * cell) + 0.5, 1 - flat[:, 1] / (rows * cell)], 1)

    def layer(z: float) -> np.ndarray:
        return np.concatenate([flat, np.full((len(flat), 1), z)], axis=1)

    front, back = layer(thickness / 2), layer(-thickness / 2)
    inner = (np.arange(cells)[:, None] * (2 * sides) + sides + k[None]).reshape(-1)
    walls = np.concatenate([front[inner], back[inner]])
    a = (np.arange(cells)[:, None] * sides + k[None]).reshape(-1)
    b = (np.arange(cells)[:, None] * sides + after[None]).reshape(-1)
    count = cells * sides
    wall_faces = np.concatenate([np.stack([a, b, b + count], 1), np.stack([a, b + count, a + count], 1)])
    outline = _outline(columns, rows, cell, quarter)
    border = np.stack([np.c_[outline, np.full(len(outline), z)] for z in (-thickness / 2, thickness / 2)])
    parts = [(front, faces, uv), (back, faces[:, ::-1], uv), (walls, wall_faces, np.tile(uv[inner], (2, 1)))]
    pieces = [Piece(at, triangles, vertex_normals(at, triangles), where) for at, triangles, where in parts]
    return join([*pieces, *_border_strips(border, columns * quarter, rows * quarter)])


def _outline(columns: int, rows: int, cell: float, per_cell: int) -> np.ndarray:
    """The border of the plate, (N,2), counter-clockwise from its lower left corner."""
    w, h = columns * cell / 2, rows * cell
    x, y = np.linspace(-w, w, columns * per_cell + 1)[:-1], np.linspace(0, h, rows * per_cell + 1)[:-1]
    return np.concatenate(
        [np.c_[x, 0 * x], np.c_[0 * y + w, y], np.c_[-x, 0 * x + h], np.c_[0 * y - w, h - y], [[-w, 0.0]]]
    )


def _border_strips(border: np.ndarray, across: int, up: int) -> list[Piece]:
    starts = np.cumsum([0, across, up, across, up])
    return [grid(border[:, a : b + 1]).inside_out() for a, b in pairwise(starts)]


def rolled(radius: float) -> Callable[[np.ndarray], np.ndarray]:
    """The warp that bends a plate in the xy plane about the y axis, front outwards; lengths are kept at `radius`."""

    def warp(points: np.ndarray) -> np.ndarray:
        angle, r = points[:, 0] / radius, radius + points[:, 2]
        return np.stack([r * np.sin(angle), points[:, 1], r * np.cos(angle)], axis=1)

    return warp


def panel(width: float, height: float, openings: Sequence[Opening] = (), uv_unit: float = 1.0) -> Piece:
    """A single sheet in the xy plane facing +z, from (0, 0) to (width, height), without the rectangles `openings`.

    An opening is (x0, y0, x1, y1). Texture coordinates are metres / `uv_unit`.
    """
    xs = sorted({0.0, width, *(v for o in openings for v in (o[0], o[2]))})
    ys = sorted({0.0, height, *(v for o in openings for v in (o[1], o[3]))})
    quads = []
    for x0, x1 in pairwise(xs):
        for y0, y1 in pairwise(ys):
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            if not any(o[0] < x < o[2] and o[1] < y < o[3] for o in openings):
                quads.append([[x0, y0, 0], [x1, y0, 0], [x1, y1, 0], [x0, y1, 0]])
    return quad_sheet(np.array(quads, float), uv_unit)


def quad_sheet(quads: np.ndarray, uv_unit: float = 1.0) -> Piece:
    """Flat quadrilaterals (Q,4,3), counter-clockwise; texture coordinates measure them from their first corner."""
    across, up = quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0]
    normal = np.cross(across, up)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    right = across / np.linalg.norm(across, axis=1, keepdims=True)
    above = np.cross(normal, right)
    start = np.arange(len(quads))[:, None, None] * 4
    faces = (start + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    # Measured along the quad's own axes from the world's origin, so that neighbouring quads continue each other.
    u, v = np.einsum("qkc,qc->qk", quads, right), -np.einsum("qkc,qc->qk", quads, above)
    uv = np.stack([u, v], -1).reshape(-1, 2) / uv_unit
    return Piece(quads.reshape(-1, 3), faces, np.repeat(normal, 4, axis=0), uv)


def reveal(opening: Opening, depth: float, uv_unit: float = 1.0) -> Piece:
    """The four faces inside an opening of a wall that goes from z = 0 back to z = -depth."""
    x0, y0, x1, y1 = opening
    ring = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    quads = []
    for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1]):
        quads.append([[ax, ay, 0], [bx, by, 0], [bx, by, -depth], [ax, ay, -depth]])
    return quad_sheet(np.array(quads, float), uv_unit)


def cage(x: float, y: float, z: float, bars: tuple[int, int, int], radius: float, segments: int = 6) -> Piece:
    """A box of bars, floor at y = 0: `bars` of them along each axis' two neighbours, edges included."""
    half = np.array([x / 2, y / 2, z / 2])
    pieces = []
    for axis in range(3):
        b, c = (axis + 1) % 3, (axis + 2) % 3
        nb, nc = bars[b], bars[c]
        for i in range(nb):
            for j in range(nc):
                if 0 < i < nb - 1 and 0 < j < nc - 1:
                    continue
                start = np.zeros(3)
                start[b], start[c] = half[b] * (2 * i / (nb - 1) - 1), half[c] * (2 * j / (nc - 1) - 1)
                end = start.copy()
                # Slightly different overhang per axis, so that the caps at a corner do not lie in one plane.
                start[axis], end[axis] = -half[axis] - radius * (0.2 + 0.1 * axis), half[axis] + radius * 0.3
                pieces.append(rod(start, end, radius * (1 - 0.04 * axis), segments))
    return join(pieces).moved(y=y / 2)


def lattice(points: np.ndarray, pairs: np.ndarray, radius: float, segments: int = 5) -> Piece:
    """Struts of `radius` between `points` (N,3) joined by `pairs` (M,2), all built at once (no caps)."""
    a, b = points[pairs[:, 0]], points[pairs[:, 1]]
    y = b - a
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    side = np.where(np.abs(y[:, 2:]) < 0.9, np.array([0.0, 0, 1]), np.array([1.0, 0, 0]))
    x = np.cross(y, side)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    z = np.cross(x, y)
    angle = np.arange(segments + 1) * (2 * math.pi / segments)
    normals = np.cos(angle)[None, :, None] * x[:, None] - np.sin(angle)[None, :, None] * z[:, None]
    ends = np.stack([a[:, None] + radius * normals, b[:, None] + radius * normals], axis=1)
    count = segments + 1
    k = np.arange(segments)
    one = np.concatenate([np.stack([k, k + 1, k + 1 + count], 1), np.stack([k, k + 1 + count, k + count], 1)])
    faces = (np.arange(len(pairs))[:, None, None] * (2 * count) + one[None]).reshape(-1, 3)
    around = np.stack(np.broadcast_arrays(np.linspace(0, 1, count)[None], np.array([[1.0], [0.0]])), -1)
    uv = np.tile(around.reshape(-1, 2), (len(pairs), 1))
    return Piece(ends.reshape(-1, 3), faces, np.tile(normals[:, None], (1, 2, 1, 1)).reshape(-1, 3), uv)
