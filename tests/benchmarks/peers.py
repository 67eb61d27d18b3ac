"""Scenes of known size, and the peers that the peel is compared with, each as fast as its interface allows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh

import render
from render.mesh import Rejected
from render.normalise import normalise

MERGED = 1e-5  # of z: hits closer than this are one, where peers are compared that lose some of those

# Past the last hit by this share of z before the next cast: hits closer than that are lost, nearer steps hit again.
STEP = 2e-6


@dataclass(frozen=True, eq=False)
class Case:
    """A mesh in the frame of one camera: vertices (V,3) float64, faces (F,3) int32, K (3,3) for a square image."""

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    K: np.ndarray

    def scaled(self, factor: float) -> "Case":
        return Case(self.name, self.vertices, self.faces, np.diag([factor, factor, 1.0]) @ self.K)


def intrinsics(size: int, fov: float = 45.0) -> np.ndarray:
    focal = size / 2 / np.tan(np.radians(fov) / 2)
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])


def nested_spheres(subdivisions: int, size: int) -> Case:
    """Three icospheres of 20 * 4^subdivisions triangles each, which fill half of the image."""
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions)
    vertices = np.concatenate([sphere.vertices * radius for radius in (1.0, 0.7, 0.4)]) + [0.0, 0.0, 3.0]
    faces = np.concatenate([sphere.faces + i * len(sphere.vertices) for i in range(3)])
    return Case(f"spheres {len(faces)}", vertices, faces.astype(np.int32), intrinsics(size))


def forest(size: int, trees: int = 24, leaves: int = 5000, seed: int = 0) -> Case:
    """Trees of leaf triangles, no two connected, in rows behind each other: dozens of hits a pixel."""
    draw = np.random.default_rng(seed)
    vertices, faces, count = [], [], 0
    for tree in range(trees):
        place = np.array([(tree % 6 - 2.5) * 0.8, 0.6, 4.0 + 0.7 * (tree // 6)]) + draw.normal(0, 0.1, 3)
        crown = draw.normal(0, 1, (leaves, 3))
        crown *= draw.random((leaves, 1)) ** (1 / 3) / np.linalg.norm(crown, axis=1, keepdims=True)
        corners = (crown * [0.5, 0.8, 0.5] - [0, 0.8, 0])[:, None] + draw.normal(0, 0.02, (leaves, 3, 3))
        trunk = trimesh.creation.cylinder(radius=0.06, height=1.2, sections=24)
        upright = np.asarray(trunk.vertices)[:, [0, 2, 1]]
        vertices += [corners.reshape(-1, 3) + place, upright + place]
        faces += [np.arange(3 * leaves).reshape(-1, 3) + count, np.asarray(trunk.faces) + count + 3 * leaves]
        count += 3 * leaves + len(upright)
    joined = np.concatenate(faces)
    return Case(f"forest {len(joined)}", np.concatenate(vertices), joined.astype(np.int32), intrinsics(size))


def room(size: int, pieces: int = 40, seed: int = 0) -> Case:
    """A room seen from within, walls of two triangles each, with boxes in it: a few triangles cover many pixels."""
    draw = np.random.default_rng(seed)
    shapes = [trimesh.creation.box(extents=(6.0, 3.0, 8.0))]
    shapes[0].apply_translation([0, 0, 3.5])  # the camera is inside
    for _ in range(pieces):
        piece = trimesh.creation.box(extents=draw.uniform(0.1, 1.2, 3))
        piece.apply_translation(draw.uniform([-2.8, -1.2, 1.5], [2.8, 1.4, 7.0]))
        shapes.append(piece)
    joined = trimesh.util.concatenate(shapes)
    return Case(f"room {len(joined.faces)}", joined.vertices, joined.faces.astype(np.int32), intrinsics(size, 70.0))


def real_asset(path: Path, size: int, most: int) -> Case | str:
    """The asset as the renderer loads and normalises it, seen from 1.9 away, or why not."""
    try:
        mesh, _, _ = normalise(render.load(path), ())
    except Rejected as error:
        return f"rejected: {error.reason}"
    if len(mesh.faces) > most:
        return f"{len(mesh.faces)} faces"
    turn = trimesh.transformations.euler_matrix(np.pi - 0.35, 0.6, 0.05)[:3, :3]
    return Case(path.stem, mesh.vertices @ turn.T + [0, 0, 1.9], mesh.faces, intrinsics(size, 38.0))


def pixel_rays(K: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """(height*width,3) float32 directions through the pixel centres of a window (row, column, height, width), with
    z = 1, so that the ray parameter is depth."""
    row, column, height, width = window
    v, u = np.mgrid[row : row + height, column : column + width] + 0.5
    d = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3) @ np.linalg.inv(K).T
    return np.ascontiguousarray(d, np.float32)


def merged(depth: np.ndarray) -> np.ndarray:
    """depth (S,P) sorted, inf where empty; a hit closer than MERGED to the one before is dropped, the rest move up."""
    with np.errstate(invalid="ignore"):
        close = np.diff(depth, axis=0) < MERGED * depth[:-1]
    depth = depth.copy()
    depth[1:][close] = np.inf
    return np.sort(depth, axis=0)


def open3d_hits(case: Case, d: np.ndarray) -> Callable[[], np.ndarray]:
    """Open3D's list_intersections on one thread -> z of all hits of every ray d (N,3), in no order of depth."""
    import open3d as o3d

    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(case.vertices.astype(np.float32), case.faces.astype(np.uint32))
    rays = o3d.core.Tensor(np.concatenate([np.zeros_like(d), d], axis=1))
    return lambda: scene.list_intersections(rays, nthreads=1)["t_hit"].numpy()


def embree_hits(
    case: Case, directions: np.ndarray, layers: int, triangles: bool, robust: bool = False
) -> Callable[[], np.ndarray]:
    """Embree cast again behind every hit, through embreex -> depth (layers,N) float32 of directions (N,3), inf if none.

    One ray at a time (rtcIntersect1, which is all that embreex offers: no packets, no streams), on one thread, in a
    static scene. Only the rays that hit are cast again, from their hit moved on by STEP of z. With `triangles` the
    triangle of each hit is asked for too; without, the distance alone, which embreex returns fastest.
    """
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene(robust=robust)
    TriangleMesh(scene, case.vertices.astype(np.float32), case.faces.astype(np.int32))
    count = len(directions)
    scene.run(np.zeros((1, 3), np.float32), directions[:1])  # the first call builds the tree

    def run() -> np.ndarray:
        depth = np.full((layers, count), np.inf, np.float32)
        triangle = np.full((layers, count), -1, np.int32)
        live = np.arange(count)
        d, begin = directions, np.zeros(count, np.float32)
        origin = np.zeros_like(directions)
        for layer in range(layers):
            if triangles:
                found = scene.run(origin, d, output=1)
                hit, t = found["primID"] >= 0, found["tfar"]
                triangle[layer, live[hit]] = found["primID"][hit]
            else:
                t = scene.run(origin, d, query="DISTANCE")
                hit = t < 1e30
            live = live[hit]
            if not live.size:
                break
            z = begin[hit] + t[hit]
            depth[layer, live] = z
            d, begin = d[hit], z * np.float32(1 + STEP)
            origin = d * begin[:, None]
        return depth

    return run
