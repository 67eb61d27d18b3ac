"""Which triangle each layer of a rendered view is, which way it faces, and its normal: what `LayeredView` leaves out.

A view stores depth alone. Its mesh is peeled once more from the view's own camera, and each layer is the raw hit of
its depth: hits that the render dropped (cut out, merged) lie between the layers and are passed over.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from render.mesh import Mesh
from render.peel import Scene
from render.settings import RenderSettings
from shards.contract import LayeredView, rays


class LayerFaces(NamedTuple):
    """triangle (L,H,W) int32, -1 where the layer has no hit | facing (L,H,W) int8: +1 the front of the triangle, -1
    its back, 0 where there is no hit | normal (L,H,W,3) float32: unit, camera frame, of the flat triangle, turned to
    the viewer; 0 where there is no hit.
    """

    triangle: np.ndarray
    facing: np.ndarray
    normal: np.ndarray


def layer_faces(mesh: Mesh, view: LayeredView, near: float) -> LayerFaces:
    """`view` comes from `render_views` of the mesh with this `near`; its `info` has pose, normalisation and slots."""
    vertices = vertices_of(mesh, view)
    camera_from_world = np.eye(4)
    rotation = view.world_from_camera[:3, :3].T
    camera_from_world[:3, :3], camera_from_world[:3, 3] = rotation, -rotation @ view.world_from_camera[:3, 3]
    slots = max(int(view.info.get("slots", view.layers)), view.layers)
    scene = Scene(vertices, mesh.faces, "cpu")
    hits = scene.peel(view.K, *view.size, slots, near, camera_from_world).numpy()

    v, u = np.nonzero(view.valid)
    raw = hits.depth[:, v, u]
    triangle = np.full(view.depth.shape, -1, np.int32)
    facing = np.zeros(view.depth.shape, np.int8)
    after = np.full(len(v), -1)
    numbers, pixels = np.arange(slots)[:, None], np.arange(len(v))
    for l in range(view.layers):
        # Two layers may share a depth (the two sides of a sheet): the next one is always a later hit.
        with np.errstate(invalid="ignore"):
            distance = np.where(numbers > after, np.abs(raw - view.depth[l, v, u]), np.inf)
        slot = distance.argmin(axis=0)
        found = (view.hits[v, u] > l) & np.isfinite(distance[slot, pixels])
        after = np.where(found, slot, after)
        at = l, v[found], u[found]
        triangle[at] = hits.triangle[slot[found], v[found], u[found]]
        facing[at] = hits.facing[slot[found], v[found], u[found]]
    return LayerFaces(triangle, facing, _normals(vertices @ rotation.T, mesh.faces, triangle, facing))


def with_planes(mesh: Mesh, view: LayeredView, settings: RenderSettings) -> LayeredView:
    """The view with the planes that the settings ask for. `mesh` is the asset that `render_views` was given.

    Normals are those of the flat triangles, turned to the viewer; materials are numbered as in `mesh.materials`. The
    second peel runs on the CPU. A hit which it misses, at the rim of what another backend rendered, looks at the camera
    with its front and has material 0; `info` then counts these as `planes_missed`.
    """
    faces = layer_faces(mesh, view, settings.near)
    missed = view.hit & (faces.triangle < 0)
    normal = faces.normal
    if missed.any():
        towards = -rays(view.K, *view.size)
        towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
        normal = np.where(missed[..., None], towards[None], normal).astype(np.float32)
        view = replace(view, info={**view.info, "planes_missed": int(missed.sum())})
    found = {
        "normals": normal,
        "facing": np.where(missed, 1, faces.facing).astype(np.int8),
        "material": np.where(missed, 0, np.where(faces.triangle < 0, -1, mesh.material[faces.triangle])).astype(
            np.int32
        ),
    }
    return replace(view, planes={name: found[name] for name in settings.planes})


def vertices_of(mesh: Mesh, view: LayeredView) -> np.ndarray:
    """Vertices (V,3) float64 of the mesh in the pose and the world frame of the view."""
    time = view.info.get("time")
    vertices = mesh.vertices if time is None or mesh.pose is None else np.asarray(mesh.pose(float(time)), np.float64)
    normalisation = view.info["normalisation"]
    return (vertices - np.asarray(normalisation["offset"])) * normalisation["scale"]


def _normals(vertices: np.ndarray, faces: np.ndarray, triangle: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """Normals of the triangles of all hits, those seen from behind turned round; vertices in the camera's axes."""
    hit = triangle >= 0
    normal = np.zeros((*triangle.shape, 3), np.float32)
    a, b, c = (vertices[faces[triangle[hit], k]] for k in range(3))
    cross = np.cross(b - a, c - a) * facing[hit][:, None]
    normal[hit] = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-300)
    return normal
