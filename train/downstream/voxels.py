"""A stack as the sparse structure that TRELLIS-style decoders take (paper, section 5.3): occupied voxels of a cube.

TRELLIS (its data toolkit, and `sample_sparse_structure` of its pipeline) and TRELLIS.2 agree: the cube [-0.5, 0.5]^3,
z up, the object's box centred and its longest side 1, the voxel of index i centred at (i + 0.5) / resolution - 0.5, and
only voxels that the surface passes through. `coords` is int32 (N,4), [batch, x, y, z], ascending. TRELLIS takes 64
voxels a side, TRELLIS.2 takes 32 (its 512 model and its cascades) or 64 (its 1024 model).

A single view does not say where up is: the camera is taken as level unless told otherwise. Both directions of the
transform are kept, so that a decoded mesh can be put back where the image saw the object.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from shards import committed, write_points
from train.downstream.cells import cells_of, dice, portions
from train.downstream.splat import slopes
from train.downstream.stack import Stack
from train.prediction.prediction import HIDDEN_GREY

RESOLUTIONS = (8, 256)
STRAY = 1e-3  # of the points: an island of fewer is not the object
ISLANDS = 32  # voxels a side to look for islands in
ROUNDS = 8  # a far stray point makes the voxels coarse; without it they are fine enough to see the next one
PER_VOXEL = 2  # samples along each side of a voxel
AT_ONCE = 1 << 21  # samples held in memory, 28 bytes each and some copies
MOST_SAMPLES = 1 << 28  # an object at 504 pixels has some 2 million; minutes of work

# What the exporters of TRELLIS and TRELLIS.2 do to a mesh before they write a .glb, which is y-up: (x, z, -y).
GLB_FROM_CANONICAL = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])

Fill = Literal["surface", "solid"]


@dataclass(frozen=True, eq=False)
class SparseStructure:
    """coords (N,4) int32, [0, x, y, z], ascending | rgb (N,3) uint8, mean colour of the points in a voxel (grey where
    only hidden ones are) | canonical_from_camera (4,4) float64: a similarity, rotation times one scale, and a shift."""

    coords: np.ndarray
    rgb: np.ndarray
    resolution: int
    canonical_from_camera: np.ndarray

    @property
    def camera_from_canonical(self) -> np.ndarray:
        return np.asarray(np.linalg.inv(self.canonical_from_camera))

    @property
    def camera_from_glb(self) -> np.ndarray:
        """(4,4): from a decoded mesh as its exporter writes it to the camera frame (+x right, +y down, +z forward)."""
        return np.asarray(self.camera_from_canonical @ np.linalg.inv(GLB_FROM_CANONICAL))

    @property
    def centres(self) -> np.ndarray:
        """(N,3) float64: centres of the voxels in the canonical cube."""
        return (self.coords[:, 1:] + 0.5) / self.resolution - 0.5


def voxelize(
    stack: Stack,
    resolution: int = 64,
    elevation: float = 0.0,
    azimuth: float = 0.0,
    up: np.ndarray | None = None,
    fill: Fill = "surface",
) -> SparseStructure:
    """Voxels of a stack's surfaces. elevation, azimuth, up: see `upright`.

    fill: `surface` takes every voxel that a point, or the surface between neighbouring points, falls into. `solid` adds
    the voxels between a ray's entry and its exit (layers 0 and 1, 2 and 3, ...), which takes the object for closed.
    Points are put on the rays of the recovered camera at their own depth, as guidance and insertion have them.
    ValueError for a resolution outside 8 to 256, or surfaces too torn to be filled.
    """
    low, high = RESOLUTIONS
    if not low <= resolution <= high:
        raise ValueError(f"--resolution {resolution}: give {low} to {high} (TRELLIS takes 64, TRELLIS.2 32 or 64)")
    rotation = upright(elevation, azimuth, up)
    stack = _on_rays(stack)
    turned_LHW3 = stack.xyz @ rotation.T.astype(np.float32)
    there = stack.there & _without_strays(turned_LHW3, stack.there)
    transform = _into_cube(turned_LHW3[there], resolution)
    transform[:3, :3] = transform[:3, :3] @ rotation
    occupied, seen, colour = _collected(_samples(stack, there, transform, resolution), resolution)
    if fill == "solid":
        occupied |= _between(stack, transform, resolution).ravel()
    coords = np.argwhere(occupied.reshape((resolution,) * 3))
    batch = np.zeros((len(coords), 1), np.int64)
    mean = np.divide(colour, seen[:, None], out=np.full(colour.shape, HIDDEN_GREY / 255), where=seen[:, None] > 0)
    return SparseStructure(
        np.hstack([batch, coords]).astype(np.int32),
        np.round(np.clip(mean[occupied], 0, 1) * 255).astype(np.uint8),
        resolution,
        transform,
    )


def upright(elevation: float = 0.0, azimuth: float = 0.0, up: np.ndarray | None = None) -> np.ndarray:
    """(3,3) rotation from the camera frame to an upright one: z up, and the camera on the side of -y, looking along +y.

    elevation, degrees: by how much the camera looks down. azimuth, degrees: the camera stands so far counter-clockwise,
    seen from above, from the object's front, which faces -y in the frames of TRELLIS. up (3,): the upward direction in
    the camera frame instead of an elevation, for a camera that is rolled too.
    ValueError for an up that is no direction, or that the camera looks along.
    """
    if up is None:
        angle = np.radians(elevation)
        up = np.array([0.0, -np.cos(angle), -np.sin(angle)])
    up = np.asarray(up, np.float64)
    length = np.linalg.norm(up)
    if up.shape != (3,) or not np.isfinite(length) or length < 1e-9:
        raise ValueError(f"--up {up.tolist()} is no direction; give x,y,z in the camera frame, such as 0,-1,0")
    z = up / length
    y = np.array([0.0, 0.0, 1.0]) - z[2] * z
    if np.linalg.norm(y) < 1e-6:
        raise ValueError("the camera looks straight along the upward direction, so it stands on no side of the object")
    y /= np.linalg.norm(y)
    cos, sin = np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth))
    about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    return np.asarray(about_z @ np.stack([np.cross(y, z), y, z]))


def write_sparse(path: Path, structure: SparseStructure) -> Path:
    """.npz: coords, resolution, canonical_from_camera, camera_from_canonical, camera_from_glb. .ply: the centres of the
    voxels in the canonical cube, with colours, as TRELLIS's data toolkit keeps them in `voxels/`."""
    if path.suffix.lower() == ".ply":
        return write_points(path, structure.centres, structure.rgb)
    with committed(path) as file:
        np.savez_compressed(
            file,
            coords=structure.coords,
            resolution=np.int32(structure.resolution),
            canonical_from_camera=structure.canonical_from_camera,
            camera_from_canonical=structure.camera_from_canonical,
            camera_from_glb=structure.camera_from_glb,
        )
    return path


def _into_cube(points: np.ndarray, resolution: int) -> np.ndarray:
    """(4,4): centres the box of points (N,3), and scales it so that its ends lie in the centres of the outermost
    voxels: half a voxel of margin, so that all of the cube is used and nothing falls out. One point is left its size.
    """
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    side = float((high - low).max())
    scale = (1 - 1 / resolution) / side if side > 0 else 1.0
    transform = np.diag([scale, scale, scale, 1.0])
    transform[:3, 3] = -scale * (low + high) / 2
    return transform


def _without_strays(xyz_LHW3: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(L,H,W) bool: points that are not on a small island, which would shrink the object in its cube."""
    kept = there.copy()
    for _ in range(ROUNDS):
        points = xyz_LHW3[kept]
        low, high = points.min(axis=0), points.max(axis=0)
        side = float((high - low).max())
        if side == 0:
            break
        index = np.minimum(((points - low) / side * ISLANDS).astype(np.int64), ISLANDS - 1)
        grid = np.zeros((ISLANDS,) * 3, bool)
        grid[tuple(index.T)] = True
        islands, _ = ndimage.label(grid, structure=np.ones((3, 3, 3)))
        island = islands[tuple(index.T)]
        stray = np.bincount(island)[island] < STRAY * len(points)
        if not stray.any():
            break
        kept[kept] = ~stray
    return kept


def _on_rays(stack: Stack) -> Stack:
    x, y = slopes(stack.K, *stack.there.shape[1:])
    z = stack.xyz[..., 2]
    return replace(stack, xyz=np.stack([z * x, z * y, z], axis=-1))


def _samples(stack: Stack, there: np.ndarray, transform: np.ndarray, resolution: int) -> Iterator[np.ndarray]:
    """Points and the surface between them, two to a voxel's side, some at a time: (M,7) canonical positions, colours in
    [0,1], and weights, 0 for what is hidden, so that it does not colour a voxel that is seen."""
    layers, height, width = there.shape
    xyz = np.concatenate([stack.xyz, np.ones((*there.shape, 1), np.float32)], axis=-1) @ transform[:3].T
    rgb = np.broadcast_to(stack.rgb, (layers, height, width, 3))
    seen = np.broadcast_to((np.arange(layers) == 0)[:, None, None, None], (layers, height, width, 1))
    values = np.concatenate([xyz, rgb, seen], axis=-1).astype(np.float32).reshape(-1, 7)
    corners, _ = cells_of(
        torch.from_numpy(np.ascontiguousarray(stack.xyz[..., 2])),
        torch.from_numpy(np.ascontiguousarray(there)),
        float(np.sqrt(stack.K[0, 0] * stack.K[1, 1])),
    )
    grid = torch.from_numpy(values)
    corners_N4C = grid[corners]
    a, b, c, d = corners_N4C[..., :3].unbind(1)

    def pieces(*edges: torch.Tensor) -> torch.Tensor:
        longest = torch.stack([edge.norm(dim=1) for edge in edges]).amax(dim=0)
        return (longest * resolution * PER_VOXEL).ceil().clamp_min(1).long()

    across, down = pieces(b - a, d - c), pieces(c - a, d - b)
    count = across * down
    total = int(count.sum())
    if total > MOST_SAMPLES:
        raise ValueError(
            f"{stack.name}: its surfaces are so torn that they take {total:.1e} samples, and at most "
            f"{MOST_SAMPLES:.1e} are taken; give a smaller --resolution than {resolution}"
        )
    yield values[there.ravel()]
    for part in portions(count, AT_ONCE):
        yield dice(corners_N4C[part], across[part], down[part])[0].numpy()


def _collected(parts: Iterable[np.ndarray], resolution: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of R^3 voxels: is there a sample, the number of visible ones (both R^3,), their summed colour (R^3,3)."""
    voxels = resolution**3
    occupied, seen, colour = np.zeros(voxels, bool), np.zeros(voxels), np.zeros((voxels, 3))
    for part in parts:
        index = np.clip(np.floor((part[:, :3] + 0.5) * resolution).astype(np.int64), 0, resolution - 1)
        flat = np.ravel_multi_index(tuple(index.T), (resolution,) * 3)
        occupied[flat] = True
        seen += np.bincount(flat, part[:, 6], voxels)
        for channel in range(3):
            colour[:, channel] += np.bincount(flat, part[:, 6] * part[:, 3 + channel], voxels)
    return occupied, seen, colour


def _between(stack: Stack, transform: np.ndarray, resolution: int) -> np.ndarray:
    """(R,R,R) bool: voxels whose centre is seen through a pixel and lies between its entry and exit of one body."""
    side = (np.arange(resolution) + 0.5) / resolution - 0.5
    centres = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    inverse = np.linalg.inv(transform)
    xyz = centres @ inverse[:3, :3].T + inverse[:3, 3]
    layers, height, width = stack.there.shape
    front = xyz[:, 2] > 0
    pixel = np.floor((xyz @ stack.K[:2].T) / np.where(front, xyz[:, 2], 1)[:, None])
    column, row = np.nan_to_num(pixel, nan=-1, posinf=-1, neginf=-1).T
    inside = front & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row, z = column[inside].astype(np.int64), row[inside].astype(np.int64), xyz[inside, 2]
    filled = np.zeros(len(z), bool)
    for layer in range(0, layers - 1, 2):
        both = stack.there[layer, row, column] & stack.there[layer + 1, row, column]
        filled |= both & (stack.xyz[layer, row, column, 2] <= z) & (z <= stack.xyz[layer + 1, row, column, 2])
    occupied = np.zeros(resolution**3, bool)
    occupied[inside] = filled
    return occupied.reshape((resolution,) * 3)
