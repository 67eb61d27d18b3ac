"""Meshes of known geometry and the settings to render them quickly."""

import hashlib

import numpy as np
import trimesh

from render.cameras import Camera, intrinsics, look_at
from render.frames import Layers, Stage
from render.lights import Lights
from render.mesh import Material, Mesh, Texture
from render.rays import Shots
from render.settings import RenderSettings
from shards.contract import Origin


def origin(name: str) -> Origin:
    return Origin(name, "test", hashlib.sha256(name.encode()).hexdigest(), "CC0-1.0")


def small(**changes: object) -> RenderSettings:
    """Settings for one small view, on the CPU."""
    return RenderSettings(**{"views": 1, "height": 64, "width": 64, "backend": "cpu", **changes})


def mesh_of(shape: trimesh.Trimesh, material: Material | None = None, smooth: bool = False) -> Mesh:
    return Mesh(
        np.asarray(shape.vertices, np.float64),
        np.asarray(shape.faces, np.int32),
        np.zeros(len(shape.faces), np.int32),
        (material or Material(),),
        normals=np.asarray(shape.vertex_normals, np.float32) if smooth else None,
    )


def sphere(subdivisions: int = 4, material: Material | None = None) -> Mesh:
    return mesh_of(trimesh.creation.icosphere(subdivisions=subdivisions), material, smooth=True)


def box(extents: tuple[float, float, float] = (1.0, 0.6, 0.8), material: Material | None = None) -> Mesh:
    return mesh_of(trimesh.creation.box(extents=extents), material)


def quads(depths: list[float], materials: tuple[Material, ...], size: float = 1.0, uv_scale: float = 1.0) -> Mesh:
    """Squares of half-side `size` across the z axis at z = -depth, facing +z, one material each; uv (0,0) top left."""
    vertices, faces, uv = [], [], []
    for k, depth in enumerate(depths):
        vertices += [[-size, size, -depth], [-size, -size, -depth], [size, -size, -depth], [size, size, -depth]]
        faces += [[4 * k, 4 * k + 1, 4 * k + 2], [4 * k, 4 * k + 2, 4 * k + 3]]
        uv += [[0, 0], [0, uv_scale], [uv_scale, uv_scale], [uv_scale, 0]]
    material = np.repeat(np.arange(len(depths), dtype=np.int32), 2)
    return Mesh(
        np.array(vertices, np.float64), np.array(faces, np.int32), material, materials, uv=np.array(uv, np.float32)
    )


def camera_along_z(size: int = 32, distance: float = 2.0, fov: float = 53.13010235415598) -> Camera:
    """On the +z axis, looking along -z; by default a square of half-side 1 at z = 0 fills the image."""
    eye = np.array([0.0, 0.0, distance])
    return Camera(intrinsics(fov, size, size), look_at(eye, np.zeros(3)), size, size, {})


def layers_of(stage: Stage, camera: Camera) -> Layers:
    """The layers of one camera's view."""
    return stage.layers(stage.framed([camera]))[0]


def image_of(stage: Stage, camera: Camera, lights: Lights, indoors: bool = False) -> np.ndarray:
    """The linear premultiplied image (H,W,5) of one camera's whole view."""
    shots = Shots.of([camera])
    return np.asarray(stage.image(shots, [lights], stage.shadows([lights], indoors)).numpy()[0])


def texture(rgba: np.ndarray, **changes: object) -> Texture:
    return Texture(np.ascontiguousarray(rgba, np.uint8), **changes)  # type: ignore[arg-type]
