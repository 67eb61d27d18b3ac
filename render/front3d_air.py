"""Where one can be in a room of 3D-FRONT: the air over its floor meshes, under its ceiling."""

from collections.abc import Sequence

import numpy as np

from render.front3d import Part
from render.mesh import Rejected

CELL = 0.25  # metres, of the plan of a floor that is no rectangle
MOST_CELLS = 64  # along its longer side
MOST_TRIANGLES = 5000  # of a floor whose plan is drawn; of a larger one the box must do
RECTANGLE = 0.995  # of its box that a floor covers
HEIGHT = 2.8  # metres, of a room without walls and ceiling
HEADROOM = 1.9  # metres: what hangs lower than this is no ceiling to hang a lamp under
SIDES = (1.0, 100.0)  # metres that a floor may be long and wide: a camera keeps 0.5 m to every wall
HEIGHTS = (1.5, 30.0)  # metres between floor and ceiling


def air_over(parts: Sequence[Part]) -> np.ndarray:
    """The inside of a room: (2,3) where its floor is a rectangle along the axes, else (N,2,3), a box over each cell of
    the floor.

    It ends at the lowest of what hangs from the ceiling, so that a lamp placed under it is not shut into a cove; at the
    top of the walls where there is no ceiling. Raises Rejected: no_floor, degenerate_room.
    """
    floors = [part for part in parts if part.is_floor]
    triangles = (
        np.concatenate([part.vertices[part.faces] for part in floors]) if floors else np.zeros((0, 3, 3), np.float64)
    )
    plan = triangles[:, :, [0, 2]]
    u, v = plan[:, 1] - plan[:, 0], plan[:, 2] - plan[:, 0]
    areas = np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) / 2
    triangles, plan, areas = triangles[areas > 1e-9], plan[areas > 1e-9], areas[areas > 1e-9]
    if not len(areas):
        raise Rejected("no_floor", f"the room has {len(floors)} floors and none with an area")
    order = np.argsort(triangles[:, :, 1].mean(axis=1), kind="stable")
    half = int(np.searchsorted(np.cumsum(areas[order]), areas.sum() / 2))
    level = float(triangles[order[half], :, 1].mean())
    low, high = plan.min(axis=(0, 1)), plan.max(axis=(0, 1))
    top = _top(parts, level)
    sides = high - low
    if not (SIDES[0] <= sides.min() and sides.max() <= SIDES[1] and HEIGHTS[0] <= top - level <= HEIGHTS[1]):
        size = " x ".join(f"{side:.3g}" for side in (*sides, top - level))
        raise Rejected("degenerate_room", f"the room measures {size} m")
    whole = np.array([[low[0], level, low[1]], [high[0], top, high[1]]])
    if len(plan) > MOST_TRIANGLES:
        return whole
    cells = _cells(plan, low, high)
    if cells is None:
        return whole
    boxes = np.empty((len(cells), 2, 3))
    boxes[:, :, [0, 2]] = cells
    boxes[:, 0, 1], boxes[:, 1, 1] = level, top
    return boxes


def box_of(points: np.ndarray) -> np.ndarray:
    """(2,3) around points (N,3)."""
    return np.stack([points.min(axis=0), points.max(axis=0)])


def _top(parts: Sequence[Part], level: float) -> float:
    lowest = [float(part.vertices[np.unique(part.faces), 1].min()) for part in parts if part.is_ceiling]
    ceilings = [height for height in lowest if height >= level + HEADROOM]
    if ceilings:
        return min(ceilings)
    walls = [float(part.vertices[np.unique(part.faces), 1].max()) for part in parts if part.is_wall]
    return max(walls) if walls else level + HEIGHT


def _cells(plan: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """Squares (N,2,2) of a grid that the triangles (T,3,2) cover wholly; None where they cover the whole box, or not a
    single square."""
    cell = max(CELL, float((high - low).max()) / MOST_CELLS)
    counts = np.maximum(1, np.ceil((high - low) / cell - 1e-9).astype(int))
    size = (high - low) / counts
    i, j = (grid.reshape(-1) for grid in np.meshgrid(*map(np.arange, counts), indexing="ij"))
    start = low + np.stack([i, j], axis=1) * size
    inset = 1e-3  # of a square: its corners may lie on the edge of the floor
    covered = np.ones(len(start), bool)
    for x, y in ((0.5, 0.5), (inset, inset), (inset, 1 - inset), (1 - inset, inset), (1 - inset, 1 - inset)):
        covered[covered] = _within(start[covered] + size * [x, y], plan)
    if covered.mean() >= RECTANGLE or not covered.any():
        return None
    return np.stack([start[covered], start[covered] + size], axis=1)


def _within(points: np.ndarray, plan: np.ndarray) -> np.ndarray:
    """Which of points (P,2) lie in a triangle (T,3,2), edges included."""
    found = np.zeros(len(points), bool)
    for triangle in plan:
        a, b, c = triangle
        sides = [
            (q[0] - p[0]) * (points[:, 1] - p[1]) - (q[1] - p[1]) * (points[:, 0] - p[0])
            for p, q in ((a, b), (b, c), (c, a))
        ]
        slack = 1e-9
        found |= np.all([side >= -slack for side in sides], axis=0) | np.all([s <= slack for s in sides], axis=0)
    return found
