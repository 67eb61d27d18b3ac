"""Where one can stand in an interior that nobody has described: a mesh in metres without a `Room`.

Its bounding box says little: a flat is not a rectangle, a ground slab has a thickness, and beside the walls there is
nothing to stand on. A plan does: all surfaces along vertical lines, seen from far above.
"""

import numpy as np

from render.cameras import STOREY, Camera, intrinsics
from render.mesh import Mesh, Rejected
from render.peel import Scene

CELLS = 64  # of the plan, along its longer side
SURFACES = 32  # along one line; what is below is not stood on
HEADROOM = 1.9  # metres of air over a floor: the tallest camera is at 1.8
HIGHEST = 30.0  # metres between floor and ceiling, beyond which the units of the asset cannot be metres
OPEN = 3.0  # metres of air that count over a floor without a ceiling
COVERED = 0.1  # as many covered places, of open ones, make it a building with roofs, on which nobody stands
SHARE = 0.25  # of the most common level, for a level to be a floor and not a table
AREA = 4.0  # square metres of a storey: on less, all views end at a wall or have left the floor


def standing_room(mesh: Mesh) -> np.ndarray:
    """Boxes of air (N,2,3) over the floors of `mesh`: a cell of the plan each, from the floor up to what is above it.

    A floor faces up; the air above it ends at a ceiling, which faces down, or does not end. Only levels with area
    enough are floors. Where ceilings cover enough of them only what is covered counts, and where they do not only the
    lowest level: the others are roofs and the tops of walls. Raises Rejected("camera_placement") where no floor is
    found, as in an asset that is not +y up, or the ceiling is higher than HIGHEST.
    """
    used = mesh.vertices[np.unique(mesh.faces)]
    plan = plan_camera(used.min(axis=0), used.max(axis=0))
    inverse = np.eye(4)
    inverse[:3, :3] = plan.world_from_camera[:3, :3].T
    inverse[:3, 3] = -inverse[:3, :3] @ plan.eye
    hits = (
        Scene(mesh.vertices, mesh.faces, "cpu").peel(plan.K, plan.height, plan.width, SURFACES, 1e-3, inverse).numpy()
    )
    boxes, covered = places(plan, hits.depth, hits.facing)
    indoors = covered.sum() >= COVERED * (~covered).sum()
    boxes = boxes[covered == indoors]
    boxes = boxes[common_levels(boxes)]
    if not len(boxes):
        raise Rejected("camera_placement", f"no floor of {AREA:.0f} m2 faces up (+y) with {HEADROOM} m of air above it")
    high = float(np.median(boxes[:, 1, 1] - boxes[:, 0, 1]))
    if high > HIGHEST:
        raise Rejected("camera_placement", f"the ceiling is {high:.0f} m above the floor: scenes are read in metres")
    return boxes if indoors else boxes[boxes[:, 0, 1] <= boxes[:, 0, 1].min() + STOREY]


def plan_camera(low: np.ndarray, high: np.ndarray) -> Camera:
    """A camera so far above the box (3,), (3,) that its rays are vertical within 1 in 200; +x right, +z down."""
    size, top = np.maximum(high - low, 1e-6), float(high[1])
    longest = float(size[[0, 2]].max())
    away = 100 * max(longest, float(size[1]))
    width, height = (max(1, int(np.ceil(CELLS * side / longest))) for side in (size[0], size[2]))
    focal = CELLS * away / longest
    K = intrinsics(90.0, height, width)
    K[0, 0] = K[1, 1] = focal
    pose = np.eye(4)
    pose[:3, :3] = [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]
    pose[:3, 3] = [(low[0] + high[0]) / 2, top + away, (low[2] + high[2]) / 2]
    return Camera(K, pose, height, width, {})


def places(plan: Camera, depth: np.ndarray, facing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of air (N,2,3) over what faces up, and whether each has a ceiling (N,), from a plan.

    depth (S,h,w), inf where nothing is met, and facing (S,h,w) are peeled from above. Air lies above a surface that
    faces up, if what is next above it faces down, or nothing is: between one that faces up and one that faces down it
    would be the inside of a solid.
    """
    floor = np.isfinite(depth) & (facing > 0)
    above = np.concatenate([np.full_like(depth[:1], -np.inf), depth[:-1]])
    covered = np.concatenate([np.zeros_like(floor[:1]), facing[:-1] < 0])
    first = np.zeros_like(floor)
    first[0] = True
    with np.errstate(invalid="ignore"):
        stood = floor & (first | covered) & (depth - above >= HEADROOM)
    s, v, u = np.nonzero(stood)
    z = depth[s, v, u].astype(np.float64)
    has_ceiling = covered[s, v, u]
    clear = np.where(has_ceiling, z - np.where(has_ceiling, above[s, v, u], 0.0), OPEN)
    rotation = plan.world_from_camera[:3, :3]
    corners = []
    for side in (0.0, 1.0):
        pixel = np.stack([u + side, v + side, np.ones_like(z)], axis=1)
        corners.append((pixel @ np.linalg.inv(plan.K).T * z[:, None]) @ rotation.T + plan.eye)
    boxes = np.stack(corners, axis=1)
    boxes = np.stack([boxes.min(axis=1), boxes.max(axis=1)], axis=1)
    boxes[:, 1, 1] = boxes[:, 0, 1] + clear
    return boxes, has_ceiling


def common_levels(boxes: np.ndarray) -> np.ndarray:
    """Which of the boxes (N,2,3) have a level (their floor, give or take STOREY) of AREA at least, and of SHARE of the
    largest level's."""
    if not len(boxes):
        return np.zeros(0, bool)
    width = boxes[:, 1] - boxes[:, 0]
    order = np.argsort(boxes[:, 0, 1])
    height = boxes[order, 0, 1]
    total = np.concatenate([[0.0], np.cumsum((width[:, 0] * width[:, 2])[order])])
    last = np.searchsorted(height, boxes[:, 0, 1] + STOREY, side="right")
    first = np.searchsorted(height, boxes[:, 0, 1] - STOREY, side="left")
    area = total[last] - total[first]
    return np.asarray(area >= max(AREA, SHARE * float(area.max())))
