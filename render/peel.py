"""Depth peeling: every intersection of every pixel's ray with a triangle mesh, front to back, in one pass.

Each triangle is rasterized once and each of its hits goes into the pixel's sorted list of the K nearest (a K-buffer,
Bavoil et al. 2007). `peel` is the pure function; `Scene` keeps a mesh on the device for many views: `Scene.keys` is
what the renderer is built on, many views or windows of views at once. The kernels and the reasons behind their
arithmetic are in `peel_kernels`, what runs on a CPU in `peel_simd`, a slow readable twin in `peel_numpy`.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import warp as wp

from render import peel_kernels as kernels
from render import peel_simd as simd
from render import peel_unpack
from render.hits import EMPTY, Hits

Backend = Literal["auto", "cpu", "cuda"]

# On CUDA one thread would crawl over a wall: triangles of more pixels than this are shared out by strips of rows.
LARGE_PIXELS = 256
STRIPS = 1 << 22  # of all views together, 12 bytes each; what finds no room is peeled by its own thread
STRIP_THREADS = 1 << 18
KEPT_BYTES = 2 << 30  # of freed memory of a GPU that stay with the process
BLOCK = 64  # threads: at 130 registers each 14 warps fit on an SM of an H100, and 8 in blocks of 256
PROJECT_THREADS = 1 << 12  # a view, on CUDA: each ends with atomics on the box of the view

# A float32 holds every pixel's number up to here.
LONGEST_SIDE = 1 << 24


_VIEW: Any = np.dtype(kernels.View.numpy_dtype())  # type: ignore[attr-defined]


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
        self._highest = int(faces.max()) if len(faces) else -1
        vertices = checked_vertices(vertices, self._highest)
        self._used = np.zeros(self._highest + 1, dtype=bool)
        self._used[faces.reshape(-1)] = True
        # Only what faces use is projected: a stray vertex must not widen the windows.
        number = np.cumsum(self._used, dtype=np.int32) - np.int32(1)
        self._faces: wp.array = wp.array(number[faces], dtype=wp.vec3i, device=self.device)
        self._face_count = len(faces)
        self._simd = not self.device.is_cuda  # or else the kernels of CUDA, which tests run on the CPU too
        self._room: dict[str, wp.array] = {}
        self._returned: list[wp.array] = []
        self.update(vertices)

    def update(self, vertices: np.ndarray) -> None:
        """Move the vertices (V,3), as for the next frame of an animation."""
        vertices = checked_vertices(vertices, self._highest)[: self._highest + 1][self._used]
        self._vertices: wp.array = wp.array(vertices, dtype=wp.vec3d, device=self.device)
        self._projected = b""  # the cameras and the near plane that the arrays of `_project` are of
        self._corner = np.zeros((0, 2), dtype=np.int64)

    def keys(
        self,
        K: np.ndarray,
        camera_from_world: np.ndarray,
        height: int,
        width: int,
        slots: int,
        near: float = 1e-3,
        origins: np.ndarray | None = None,
    ) -> wp.array:
        """The `slots` nearest hits of every pixel of B views, as keys (see `render.hits`), front to back.

        K (B,3,3), camera_from_world (B,4,4) rigid. Returns uint64 [view, slot, pixel] on the scene's device, `EMPTY`
        where there is no hit, with pixel = row * width + column. Given `origins` (B,2) int, the rows and columns where
        windows of height x width start in the images that K belongs to, the keys are those that the whole images have
        there, bit by bit. The strides are the scene's own affair, and the next call writes to the same memory: copy
        what must outlive it. Everything is queued on the device without waiting for it. Raises ValueError.
        """
        K, pose = checked_cameras(K, camera_from_world)
        views = len(K)
        check_view(height, width, slots, near)
        corner = checked_origins(origins, views)
        end = int(max(np.abs(corner + [height, width]).max(), np.abs(corner).max())) if views else 0
        if end > LONGEST_SIDE:
            raise ValueError(f"the image reaches pixel {end}; {LONGEST_SIDE} is the last that can be peeled.")
        if views * max(self._face_count, len(self._vertices)) > 2**30:
            raise ValueError(
                f"{views} views of {self._face_count} faces are too many for one call; peel fewer views at a time."
            )
        if views * simd.stride_of(slots) * height * width >= 2**31:
            raise ValueError(
                f"{slots} slots of {views} views of {height} x {width} are 2**31 keys or more; peel fewer at a time."
            )
        if views > 1 and simd.stride_of(slots) * height * width >= 2**28:  # Warp's strides are 32 bits of bytes
            raise ValueError(
                f"{slots} slots of {height} x {width} are 2**28 keys or more a view; peel one view at a time."
            )
        keys = self._empty_keys(views, slots, height * width)
        if views == 0 or self._face_count == 0:
            return keys
        self._project(K, pose, near, corner)
        inputs: list[object] = [self._faces, self._vertices, self._points, self._reach, self._cameras]
        inputs += [near, margin_of(end), height, width]
        if self._simd:
            self._launch(simd.raster, views, [*inputs, keys])
            return keys
        strips, count = self._array("strips", STRIPS, wp.vec3i), self._array("strip_count", 1, wp.int32)
        count.zero_()
        grid = (views, self._face_count)
        self._launch(kernels.raster, grid, [*inputs, slots, keys, LARGE_PIXELS, strips, count])
        self._launch(kernels.raster_strips, STRIP_THREADS, [*inputs, slots, keys, STRIP_THREADS, strips, count])
        return keys

    def windows(
        self, K: np.ndarray, camera_from_world: np.ndarray, height: int, width: int, near: float = 1e-3
    ) -> np.ndarray:
        """For each of B views, which part of its image the mesh can cover: (B,4) int64 row, column, height, width.

        No hit lies outside. It is the whole image where some of the mesh is beyond the near plane and some is not, and
        (0, 0, 0, 0) where nothing can be seen. K and camera_from_world as for `keys`, which then need not project the
        mesh again. Waits for the device. Raises ValueError.
        """
        K, pose = checked_cameras(K, camera_from_world)
        check_view(height, width, 1, near)
        views, count = len(K), len(self._vertices)
        result = np.zeros((views, 4), dtype=np.int64)
        if views == 0 or count == 0:
            return result
        self._project(K, pose, near, np.zeros((views, 2), dtype=np.int64))
        lowest, beyond = self._extent.numpy(), self._beyond.numpy() > 0
        margin = margin_of(max(height, width))
        # As `first_pixel` and `last_pixel` of the kernels: reach is (x, y, -x, -y) and its minimum is known.
        first = np.ceil(np.clip(lowest[:, 1::-1] - 0.5 - margin, 0, [height, width])).astype(np.int64)
        last = np.floor(np.clip(-lowest[:, :1:-1] - 0.5 + margin, -1, [height - 1, width - 1])).astype(np.int64)
        result[:, :2], result[:, 2:] = first, last - first + 1
        result[lowest[:, 0] <= kernels.BEFORE] = 0, 0, height, width
        result[~beyond | (result[:, 2:] <= 0).any(axis=1)] = 0
        return result

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
        pose = np.eye(4) if camera_from_world is None else checked_pose(camera_from_world)
        check_view(height, width, slots, near)
        shape = (slots, height, width)
        hits = DeviceHits(*(self._lent(shape, dtype) for dtype in (wp.float32, wp.int32, wp.int8)))
        if not self._simd:
            keys = self.keys(K[None], pose[None], height, width, slots, near)
            self._launch(peel_unpack.unpack, (height, width), [keys, *hits])
            return hits
        for array, nothing in zip(hits, (np.inf, -1, 0), strict=True):
            array.fill_(nothing)
        window = self.windows(K[None], pose[None], height, width, near)
        rows, columns = (int(size) for size in window[0, 2:])
        keys = self.keys(K[None], pose[None], max(rows, 1), max(columns, 1), slots, near, window[:, :2])
        self._launch(peel_unpack.unpack_in_lanes, 1, [keys, *(int(number) for number in window[0]), *hits])
        return hits

    def _lent(self, shape: tuple[int, ...], dtype: Any) -> wp.array:
        """An array that is its user's alone for as long as anything refers to it. What returns to the scene is lent
        again: on a CPU, to have the system map fresh memory would cost more than the peel."""
        if self.device.is_cuda:
            return wp.empty(shape, dtype=dtype, device=self.device)
        words = -(-math.prod(shape) * wp.types.type_size_in_bytes(dtype) // 8)
        returned = self._returned
        for i, room in enumerate(returned):
            if words <= room.size <= 2 * words:
                del returned[i]
                break
        else:
            room = wp.empty(words, dtype=wp.uint64, device=self.device)

        def give_back(*_: object) -> None:
            returned[:] = [*returned[-2:], room]  # no more than one view's

        return wp.array(ptr=room.ptr, dtype=dtype, shape=shape, device=self.device, deleter=give_back)

    def _launch(self, kernel: wp.Kernel, threads: int | tuple[int, int], inputs: list[object]) -> None:
        wp.launch(kernel, dim=threads, inputs=inputs, device=self.device, block_dim=BLOCK)

    def _array(self, name: str, size: int, dtype: Any) -> wp.array:
        """A flat array that calls share, of at least `size` elements, with what the last one left in it."""
        if name not in self._room or self._room[name].size < size:
            self._room.pop(name, None)  # or both would be held at once
            self._room[name] = wp.empty(size, dtype=dtype, device=self.device)
        return self._room[name]

    def _empty_keys(self, views: int, slots: int, pixels: int) -> wp.array:
        """uint64 [view, slot, pixel], all `EMPTY`: on the CPU the slots of a pixel lie together, on CUDA the pixels."""
        lanes = simd.stride_of(slots) if self._simd else slots
        size = views * lanes * pixels
        room = self._array("keys", size + 8, wp.uint64)
        if self.device.is_cuda:
            room[: size + 8].fill_(EMPTY)
        else:
            room.numpy()[: size + 8].view(np.uint8).fill(0xFF)  # three times as fast
        start = -(-room.ptr // 64) * 64  # a list of eight keys is one line of the cache
        strides = (8 * lanes * pixels, *((8, 8 * lanes) if self._simd else (8 * pixels, 8)))
        return wp.array(ptr=start, dtype=wp.uint64, shape=(views, slots, pixels), strides=strides, device=self.device)

    def _project(self, K: np.ndarray, pose: np.ndarray, near: float, corner: np.ndarray) -> None:
        """The cameras, and the vertices as seen from them, to the device: all but what is there from the last call."""
        views, count = len(K), len(self._vertices)
        state = K.tobytes() + pose.tobytes() + np.float64(near).tobytes()
        if state == self._projected and np.array_equal(corner, self._corner):
            return
        cameras = np.zeros(views, dtype=_VIEW)
        image = cameras["image"]
        image[:, :3] = K @ pose[:, :3]
        image[:, 3, 3] = 1.0
        cameras["mirrored"] = np.where(np.linalg.det(image[:, :3, :3]) > 0, 1, -1)
        cameras["row"], cameras["column"] = corner.T
        self._cameras = self._uploaded(cameras)
        self._corner = corner
        if state == self._projected:
            return
        size, shape = views * count, (views, count)
        self._points = self._array("points", size, wp.vec3d)[:size].reshape(shape)
        self._reach = self._array("reach", size, wp.vec4f)[:size].reshape(shape)
        self._extent: wp.array = wp.full((views, 4), 3e38, dtype=wp.float32, device=self.device)
        self._beyond: wp.array = wp.zeros(views, dtype=wp.int32, device=self.device)
        threads = min(PROJECT_THREADS, count) if self.device.is_cuda else 1
        inputs: list[object] = [self._vertices, self._cameras, near, threads]
        inputs += [self._points, self._reach, self._extent, self._beyond]
        self._launch(kernels.project, (views, threads), inputs)
        self._projected = state

    def _uploaded(self, cameras: np.ndarray) -> wp.array:
        if self.device.is_cuda:
            return wp.array(cameras, dtype=kernels.View, device=self.device)
        self._host_cameras = cameras  # which the array shares: to describe a struct to NumPy costs more than projecting
        return wp.array(ptr=cameras.ctypes.data, dtype=kernels.View, shape=len(cameras), device=self.device)


def device_of(backend: str) -> wp.Device:
    """The Warp device of "cpu", "cuda" or "auto" (CUDA where there is one). Raises ValueError, in one sentence."""
    if backend not in ("auto", "cpu", "cuda"):
        raise ValueError(f"backend is {backend!r}; choose auto, cpu or cuda.")
    has_cuda = backend != "cpu" and wp.is_cuda_available()
    if backend == "cuda" and not has_cuda:
        driver, needed = wp.get_cuda_driver_version(), wp.get_cuda_toolkit_version()
        if driver is not None and needed is not None and 0 < driver[0] < needed[0]:
            raise ValueError(
                f"--backend cuda: the driver is for CUDA {driver[0]}.{driver[1]}, but Warp needs {needed[0]}.0; "
                "update the driver, or use --backend cpu"
            )
        raise ValueError("--backend cuda: no CUDA device is visible to Warp; use --backend cpu")
    device = wp.get_device("cuda:0" if has_cuda else "cpu")
    if device.is_cuda and wp.is_mempool_enabled(device) and wp.get_mempool_release_threshold(device) < KEPT_BYTES:
        wp.set_mempool_release_threshold(device, KEPT_BYTES)  # else each batch would ask the driver for all of it again
    return device


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


def checked_cameras(K: np.ndarray, camera_from_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """K (B,3,3) and camera_from_world (B,4,4) as float64, or ValueError that names the first view that is wrong."""
    K, pose = np.asarray(K, dtype=np.float64), np.asarray(camera_from_world, dtype=np.float64)
    if K.shape[1:] != (3, 3) or pose.shape != (len(K), 4, 4):
        raise ValueError(
            f"K has shape {K.shape} and camera_from_world {pose.shape}; give (B, 3, 3) and (B, 4, 4) for B views."
        )
    if not (
        np.isfinite(K).all()
        and (K[:, 2] == (0, 0, 1)).all()
        and np.linalg.det(K).all()
        and np.isfinite(pose).all()
        and (pose[:, 3] == (0, 0, 0, 1)).all()
    ):
        for one in K:
            checked_intrinsics(one)
        for one in pose:
            checked_pose(one)
    return K, pose


def checked_origins(origins: np.ndarray | None, views: int) -> np.ndarray:
    """The first row and column of each window, (views,2) int64, zeros if left out; or ValueError."""
    if origins is None:
        return np.zeros((views, 2), dtype=np.int64)
    origins = np.asarray(origins)
    if origins.shape != (views, 2) or not np.issubdtype(origins.dtype, np.integer):
        raise ValueError(
            f"origins are {origins.dtype} of shape {origins.shape}; give integers (row, column) for {views} views."
        )
    return origins.astype(np.int64)


def margin_of(end: int) -> float:
    """By how much to widen a box of pixels up to `end`: more than float32, which corners are kept in, may round."""
    return float(2.0**-10 + 2.0**-22 * end)


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
