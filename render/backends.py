"""Who peels: Warp on the CPU or on CUDA, nvdiffrast, or pyrender as a reference; one small interface for all.

A backend asked for by name runs or says in one sentence why it cannot; only `auto` chooses (CUDA where there is one).
"""

import os
from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import warp as wp

from render.hits import Hits, keys_of
from render.peel import Backend, Scene, device_of
from render.rays import Shots
from render.settings import BackendName, RenderSettings


class Peeler(Protocol):
    """Peels one mesh for batches of views. `update` moves the vertices (V,3), world frame, to the next pose."""

    name: str
    device: wp.Device

    def keys(self, shots: Shots, slots: int, near: float) -> Any:
        """The `slots` nearest hits of every pixel of every window: a Warp array of uint64 [view, slot, pixel] on
        `device`, see `render.hits`; it may be overwritten by the next call."""

    def windows(self, shots: Shots, near: float) -> np.ndarray:
        """The part of each whole image that the mesh can reach: (B,4) row, column, height, width."""

    def update(self, vertices: np.ndarray) -> None: ...


class WarpPeeler:
    """The project's own peel, `render.peel.Scene`, on "cpu" or "cuda"."""

    def __init__(self, name: Backend, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.scene = Scene(vertices, faces, name)
        self.device = self.scene.device
        self.name = "cuda" if self.device.is_cuda else "cpu"

    def keys(self, shots: Shots, slots: int, near: float) -> Any:
        return self.scene.keys(shots.K, shots.camera_from_world, *shots.size, slots, near, shots.origins)

    def windows(self, shots: Shots, near: float) -> np.ndarray:
        return self.scene.windows(shots.K, shots.camera_from_world, *shots.size, near)

    def update(self, vertices: np.ndarray) -> None:
        self.scene.update(vertices)


class ReferencePeeler(ABC):
    """What nvdiffrast and pyrender share: they raster whole images, one by one, from vertices in the camera's frame."""

    name: str

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, device: str) -> None:
        self.device = wp.get_device(device)
        self.faces = np.ascontiguousarray(faces, np.int32)
        self.update(vertices)

    def update(self, vertices: np.ndarray) -> None:
        self.vertices = np.asarray(vertices, np.float64)

    def windows(self, shots: Shots, near: float) -> np.ndarray:
        return np.tile([0, 0, *shots.size], (len(shots), 1))

    def keys(self, shots: Shots, slots: int, near: float) -> Any:
        views = []
        for K, pose, (row, column) in zip(shots.K, shots.camera_from_world, shots.origins):
            height, width = row + shots.size[0], column + shots.size[1]
            keys = keys_of(self.peel(K, int(height), int(width), slots, near, pose))
            # In order again: their depths are those of the planes now, and not what the hits were sorted by.
            views.append(np.sort(keys[:, row:, column:].reshape(slots, -1), axis=0))
        return wp.array(np.stack(views), dtype=wp.uint64, device=self.device)

    @abstractmethod
    def peel(
        self, K: np.ndarray, height: int, width: int, slots: int, near: float, camera_from_world: np.ndarray
    ) -> Hits:
        """The `slots` nearest hits of every pixel of an image as arrays on the host."""

    def in_camera(self, camera_from_world: np.ndarray) -> np.ndarray:
        return self.vertices @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]


def clip_from_camera(K: np.ndarray, height: int, width: int, near: float, far: float) -> np.ndarray:
    """OpenGL projection (4,4) of an OpenCV camera: x right, y *down* the rows, depth near..far to -1..1."""
    return np.array(
        [
            [2 * K[0, 0] / width, 2 * K[0, 1] / width, 2 * K[0, 2] / width - 1, 0],
            [0, 2 * K[1, 1] / height, 2 * K[1, 2] / height - 1, 0],
            [0, 0, (far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, 1, 0],
        ]
    )


def on_planes(
    vertices: np.ndarray, faces: np.ndarray, K: np.ndarray, triangle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Depth and facing of hits (S,H,W) from ray and plane: what a depth buffer snaps, this states exactly."""
    depth = np.full(triangle.shape, np.inf, np.float32)
    facing = np.zeros(triangle.shape, np.int8)
    s, v, u = np.nonzero(triangle >= 0)
    a, b, c = (vertices[faces[triangle[s, v, u], k]] for k in range(3))
    n = np.cross(b - a, c - a)
    ray = np.stack([u + 0.5, v + 0.5, np.ones(len(u))], axis=1) @ np.linalg.inv(K).T
    slope = np.sum(n * ray, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.sum(n * a, axis=1) / slope
    # Seen edge-on the plane says nothing: stay between the corners.
    lowest, highest = np.minimum(np.minimum(a, b), c)[:, 2], np.maximum(np.maximum(a, b), c)[:, 2]
    depth[s, v, u] = np.clip(np.nan_to_num(z, nan=np.inf), lowest, highest)
    facing[s, v, u] = np.where(slope < 0, 1, -1)
    return depth, facing


class NvdiffrastPeeler(ReferencePeeler):
    """NVIDIA's rasterizer through its DepthPeeler: CUDA, built from its own source, research and evaluation only.

    Images are padded to multiples of 8; depth is recomputed by ray and plane; there is one context per process, because
    rasterizing on a context whose DepthPeeler is active misbehaves.
    """

    name = "nvdiffrast"
    _context: Any = None

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.dr, self.torch = _nvdiffrast()
        device_of("cuda")  # which says in one sentence why Warp cannot shade there
        if NvdiffrastPeeler._context is None:
            NvdiffrastPeeler._context = self.dr.RasterizeCudaContext()
        super().__init__(vertices, faces, "cuda")

    def peel(
        self, K: np.ndarray, height: int, width: int, slots: int, near: float, camera_from_world: np.ndarray
    ) -> Hits:
        h, w = -(-height // 8) * 8, -(-width // 8) * 8
        camera = self.in_camera(camera_from_world)
        ahead = camera[camera[:, 2] > near, 2]
        close = max(near, 0.99 * float(ahead.min())) if (camera[:, 2] > near).all() else near  # depth is float32 there
        far = max(float(camera[:, 2].max()) * 1.01, 2 * close)
        position = np.concatenate([camera, np.ones((len(camera), 1))], axis=1) @ clip_from_camera(K, h, w, close, far).T
        with self.torch.no_grad():
            clip = self.torch.from_numpy(position.astype(np.float32)).cuda()[None].contiguous()
            faces = self.torch.from_numpy(self.faces).cuda()
            triangle = np.full((slots, height, width), -1, np.int32)
            with self.dr.DepthPeeler(NvdiffrastPeeler._context, clip, faces, (h, w)) as peeler:
                for s in range(slots):
                    raster, _ = peeler.rasterize_next_layer()
                    found = raster[0, :height, :width, 3].int().cpu().numpy() - 1  # 0 is "no triangle"
                    if not (found >= 0).any():
                        break
                    triangle[s] = found
        depth, facing = on_planes(camera, self.faces, K, triangle)
        return Hits(depth, triangle, facing)


class PyrenderPeeler(ReferencePeeler):
    """OpenGL through pyrender and EGL: a reference for layer 0, which is all that a depth buffer holds.

    The triangle behind each pixel is read back by drawing every face in its own flat colour; depth is then recomputed
    by ray and plane.
    """

    name = "pyrender"

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.pyrender = _pyrender()
        super().__init__(vertices, faces, "cpu")

    def peel(
        self, K: np.ndarray, height: int, width: int, slots: int, near: float, camera_from_world: np.ndarray
    ) -> Hits:
        if slots > 1:
            raise ValueError(
                f"--backend pyrender: a depth buffer holds one surface, but {slots} are asked for; use --backend cpu"
            )
        import trimesh

        camera = self.in_camera(camera_from_world)
        corners = camera[self.faces].reshape(-1, 3) * [1, -1, -1]  # OpenGL looks along -z with +y up
        number = np.arange(1, len(self.faces) + 1, dtype=np.uint32)
        color = np.stack([(number >> np.uint32(8 * k)) & np.uint32(255) for k in range(3)], axis=1).astype(np.uint8)
        opaque = np.concatenate([color, np.full((len(color), 1), 255, np.uint8)], axis=1)
        drawn = trimesh.Trimesh(
            corners, np.arange(len(corners)).reshape(-1, 3), vertex_colors=np.repeat(opaque, 3, axis=0), process=False
        )
        scene = self.pyrender.Scene(bg_color=[0, 0, 0, 0])
        scene.add(self.pyrender.Mesh.from_trimesh(drawn, smooth=False))
        far = max(float(camera[:, 2].max()) * 1.01, 2 * near)
        scene.add(
            self.pyrender.IntrinsicsCamera(K[0, 0], K[1, 1], K[0, 2], K[1, 2], znear=near, zfar=far), pose=np.eye(4)
        )
        try:
            renderer = self.pyrender.OffscreenRenderer(width, height)
        except Exception as error:  # whatever the OpenGL loader raises where there is no driver
            raise ValueError(
                f"--backend pyrender: no OpenGL context ({error}); install EGL, or use --backend cpu"
            ) from None
        flags = self.pyrender.RenderFlags.FLAT | self.pyrender.RenderFlags.SKIP_CULL_FACES
        # Its frame buffers have four samples a pixel, whose mean would name a triangle that is not there.
        gl = self.pyrender.renderer
        multisample = gl.glRenderbufferStorageMultisample
        gl.glRenderbufferStorageMultisample = lambda target, _, *size: multisample(target, 0, *size)
        try:
            image, _ = renderer.render(scene, flags=flags)
        finally:
            gl.glRenderbufferStorageMultisample = multisample
            renderer.delete()
        found = image[..., :3].astype(np.int64) @ np.array([1, 256, 65536]) - 1
        triangle = np.where(found < len(self.faces), found, -1).astype(np.int32)[None]
        depth, facing = on_planes(camera, self.faces, K, triangle)
        return Hits(depth, triangle, facing)


def check(settings: RenderSettings) -> None:
    """Raises ValueError, in one sentence, if the backend of `settings` cannot run here or cannot do what they ask."""
    if settings.backend == "pyrender" and settings.layers > 1:
        raise ValueError(
            f"--backend pyrender: a depth buffer holds layer 0 only, but {settings.layers} layers are asked for; "
            "use --layers 1, or --backend cpu"
        )
    if settings.backend == "nvdiffrast":
        _nvdiffrast()
    elif settings.backend == "pyrender":
        _pyrender()
    else:
        device_of(settings.backend)


def _nvdiffrast() -> tuple[Any, Any]:
    """nvdiffrast.torch and torch, or ValueError."""
    try:
        import nvdiffrast.torch as dr
    except ImportError:
        raise ValueError(
            "--backend nvdiffrast: the package nvdiffrast is not installed; build it from its source with nvcc, "
            "or use --backend cuda"
        ) from None
    import torch

    if not torch.cuda.is_available():
        raise ValueError("--backend nvdiffrast: torch finds no CUDA device; use --backend cpu")
    return dr, torch


def _pyrender() -> Any:
    """pyrender, set to draw off-screen through EGL, or ValueError."""
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    try:
        import pyrender
    except ImportError as error:
        raise ValueError(
            f"--backend pyrender: pyrender cannot be imported ({error}); pip install 'worldtrace[gl]', "
            "or use --backend cpu"
        ) from None
    return pyrender


def peeler(name: BackendName, vertices: np.ndarray, faces: np.ndarray) -> Peeler:
    """A peeler of the mesh vertices (V,3), faces (F,3) on backend `name`. Raises ValueError as `check` does."""
    if name == "nvdiffrast":
        return NvdiffrastPeeler(vertices, faces)
    if name == "pyrender":
        return PyrenderPeeler(vertices, faces)
    return WarpPeeler(name, vertices, faces)
