"""Depth peeling: every intersection of every pixel's ray with a triangle mesh, front to back, in one pass.

Each triangle is rasterized once and each of its hits goes into the pixel's sorted list of the K nearest (a K-buffer,
Bavoil et al. 2007). `peel` is the pure function; `Scene` keeps a mesh on the device for many views. The kernels and
the reasons behind their arithmetic are in `peel_kernels`, a slow readable twin in `peel_numpy`.
"""

from typing import Literal, NamedTuple

import numpy as np
import warp as wp

from render import peel_kernels as kernels
from render.hits import Hits

Backend = Literal["auto", "cpu", "cuda"]

# On CUDA one thread would crawl over a wall: triangles of more pixels than this are shared out by rows.
LARGE_PIXELS = 1024
LARGE_THREADS = 1 << 16

# An image of a power of two pixels would put the slots of a pixel into one set of the cache.
SLOT_PADDING = 24


class DeviceHits(NamedTuple):
    """`Hits` as Warp arrays that stay on the device they were made on."""

    depth: wp.array
    triangle: wp.array
    facing: wp.array

    def numpy(self) -> Hits:
        """Copy to the host; on the CPU the arrays share memory with these."""
        return Hits(self.depth.numpy(), self.triangle.numpy(), self.facing.numpy())


def peel(
    vertices: np.ndarray,
    faces: np.ndarray,
    K: np.ndarray,
    height: int,
    width: int,
    layers: int,
    near: float = 1e-3,
    backend: Backend = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """Every intersection at every pixel centre, sorted by (z, triangle), nothing merged.

    vertices (V,3) in the camera frame (+x right, +y down, +z forward), any float dtype | faces (F,3), any integer dtype
    | K (3,3) pinhole intrinsics in pixels, last row (0, 0, 1), skew allowed; pixel centres are at (u + 0.5, v + 0.5).
    Returns depth (layers,H,W) float32 = z along the optical axis, inf where there is no hit, and triangle (layers,H,W)
    int32, -1 where there is none. Hits nearer than `near` do not count. Edges follow a top-left rule, so a pixel on a
    shared edge gets one hit; faces of no area get none; which way a face is wound does not matter.
    Raises ValueError for input of the wrong shape, type or range.
    """
    hits = Scene(vertices, faces, backend).peel(K, height, width, layers, near).numpy()
    return hits.depth, hits.triangle


class Scene:
    """A triangle mesh on a device, to be peeled from many cameras.

    vertices (V,3) any float dtype, in world coordinates; faces (F,3) any integer dtype. Work is done in float64.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, backend: Backend = "auto") -> None:
        self.device = device_of(backend)
        faces = checked_faces(faces)
        self._faces: wp.array = wp.array(faces, dtype=wp.vec3i, device=self.device)
        self._face_count = len(faces)
        self._highest = int(faces.max()) if len(faces) else -1
        self._slots: wp.array | None = None
        self.update(vertices)

    def update(self, vertices: np.ndarray) -> None:
        """Move the vertices (V,3), as for the next frame of an animation."""
        vertices = checked_vertices(vertices, self._highest)
        self._vertices: wp.array = wp.array(vertices, dtype=wp.vec3d, device=self.device)
        self._corners: wp.array = wp.empty(len(vertices), dtype=kernels.Corner, device=self.device)

    def peel(
        self,
        K: np.ndarray,
        height: int,
        width: int,
        slots: int,
        near: float = 1e-3,
        camera_from_world: np.ndarray | None = None,
    ) -> DeviceHits:
        """The `slots` nearest hits of every pixel. `camera_from_world` is (4,4) and rigid; the identity if left out."""
        K = checked_intrinsics(K)
        check_view(height, width, slots, near)
        pose = np.eye(4) if camera_from_world is None else checked_pose(camera_from_world)
        image_from_world = np.eye(4)
        image_from_world[:3] = K @ pose[:3]
        mirrored = 1 if np.linalg.det(K) * np.linalg.det(pose[:3, :3]) > 0 else -1

        pixels = height * width
        depth = wp.full((slots, pixels), np.inf, dtype=wp.float32, device=self.device)
        triangle = wp.full((slots, pixels), -1, dtype=wp.int32, device=self.device)
        facing = wp.zeros((slots, pixels), dtype=wp.int8, device=self.device)
        room = (slots, pixels + SLOT_PADDING)
        if self._slots is None or self._slots.shape != room:
            self._slots = wp.full(room, kernels.EMPTY, dtype=wp.uint64, device=self.device)

        def launch(kernel: wp.Kernel, threads: int, inputs: list[object]) -> None:
            wp.launch(kernel, dim=threads, inputs=inputs, device=self.device)

        # The pixel of a vertex is kept in float32 and only bounds the search: widen the box by more than its rounding.
        margin = 2.0**-10 + 2.0**-22 * max(height, width)
        shared: list[object] = [self._faces, self._vertices, self._corners]
        shared += [near, margin, height, width, mirrored, slots]
        image = wp.mat44d(*image_from_world.ravel())
        launch(kernels.project, len(self._vertices), [self._vertices, image, near, self._corners])
        if self.device.is_cuda:
            large = wp.empty(max(self._face_count, 1), dtype=wp.int32, device=self.device)
            large_count = wp.zeros(1, dtype=wp.int32, device=self.device)
            launch(kernels.raster, self._face_count, [*shared, LARGE_PIXELS, self._slots, large, large_count])
            launch(kernels.raster_large, LARGE_THREADS, [*shared, LARGE_THREADS, self._slots, large, large_count])
        else:
            launch(kernels.raster, self._face_count, [*shared, 0, self._slots, None, None])
        launch(kernels.resolve, pixels, [self._slots, slots, depth, triangle, facing])
        shape = (slots, height, width)
        return DeviceHits(depth.reshape(shape), triangle.reshape(shape), facing.reshape(shape))


def device_of(backend: str) -> wp.Device:
    """The Warp device of "cpu", "cuda" or "auto" (CUDA where there is one). Raises ValueError, in one sentence."""
    if backend not in ("auto", "cpu", "cuda"):
        raise ValueError(f"backend is {backend!r}; choose auto, cpu or cuda.")
    has_cuda = backend != "cpu" and wp.is_cuda_available()
    if backend == "cuda" and not has_cuda:
        raise ValueError("--backend cuda: no CUDA device is visible to Warp; use --backend cpu")
    return wp.get_device("cuda:0" if has_cuda else "cpu")


def checked_faces(faces: np.ndarray) -> np.ndarray:
    """faces as contiguous (F,3) int32, or ValueError."""
    faces = np.asarray(faces)
    if faces.ndim != 2 or faces.shape[1] != 3 or not np.issubdtype(faces.dtype, np.integer):
        raise ValueError(f"faces are {faces.dtype} of shape {faces.shape}; give integers of shape (F, 3).")
    if len(faces) and (int(faces.min()) < 0 or int(faces.max()) >= 2**31):
        raise ValueError(f"faces hold the index {_worst(faces)}; an index lies between 0 and 2**31 - 1.")
    return np.ascontiguousarray(faces, dtype=np.int32)


def checked_vertices(vertices: np.ndarray, highest: int) -> np.ndarray:
    """vertices as contiguous finite (V,3) float64 that the face index `highest` points into, or ValueError."""
    vertices = np.asarray(vertices)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or vertices.dtype.kind not in "fiu":
        raise ValueError(f"vertices are {vertices.dtype} of shape {vertices.shape}; give numbers of shape (V, 3).")
    if highest >= len(vertices):
        raise ValueError(f"faces hold the index {highest} but there are {len(vertices)} vertices; drop those faces.")
    vertices = np.ascontiguousarray(vertices, dtype=np.float64)
    if not np.isfinite(vertices).all():
        row = int(np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0])
        raise ValueError(f"vertex {row} is {vertices[row].tolist()}; give finite coordinates.")
    return vertices


def checked_intrinsics(K: np.ndarray) -> np.ndarray:
    """K as (3,3) float64, finite, invertible, with last row (0, 0, 1), or ValueError."""
    K = np.asarray(K, dtype=np.float64)
    if K.shape != (3, 3) or not np.isfinite(K).all():
        raise ValueError(
            f"K has shape {K.shape} or is not finite; give a finite (3, 3) matrix of intrinsics in pixels."
        )
    if K[2].tolist() != [0.0, 0.0, 1.0] or np.linalg.det(K) == 0.0:
        raise ValueError(f"K is {K.tolist()}; give an invertible matrix whose last row is 0, 0, 1.")
    return K


def check_view(height: int, width: int, layers: int, near: float) -> None:
    """ValueError unless the image, the number of layers and the near plane make sense."""
    if height < 1 or width < 1 or layers < 1:
        raise ValueError(f"height, width and layers are {height}, {width} and {layers}; give at least 1 for each.")
    if height * width * layers >= 2**31:
        raise ValueError(
            f"{layers} layers of {height} x {width} are 2**31 hits or more; peel a part of the image at a time."
        )
    if not (np.isfinite(near) and near > 0.0):
        raise ValueError(f"near is {near}; give a finite distance above 0.")


def checked_pose(camera_from_world: np.ndarray) -> np.ndarray:
    """camera_from_world as (4,4) float64, finite and affine, or ValueError."""
    pose = np.asarray(camera_from_world, dtype=np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all() or pose[3].tolist() != [0.0, 0.0, 0.0, 1.0]:
        raise ValueError(
            f"camera_from_world has shape {pose.shape} or is not affine; give a finite (4, 4) rigid transform."
        )
    return pose


def _worst(faces: np.ndarray) -> int:
    return int(faces.min()) if int(faces.min()) < 0 else int(faces.max())
