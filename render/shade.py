"""The shader of a scene: which hits are surfaces, and the colour of the image; deferred, from the keys of the peel.

Everything takes the keys of B views (`render.hits`) as they lie on the device, each view through its own window of one
common size, and leaves its result there. Index arithmetic is 64-bit; what Warp keeps in 32 bits are the number of
pixels of a window, of texels, of all shadow maps (8191 of 512 x 512), and the bytes of one view of an array (2 GiB:
256 slots of 1008 x 1008 keys).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import warp as wp

from render import develop_kernels, shade_inputs, shade_kernels, surface_kernels
from render.develop import THRESHOLDS
from render.lights import Lights
from render.peel import BLOCK, device_of
from render.rays import Rays, Shadows
from render.texels import Packed

METER_THREADS = 1024  # a view on CUDA; one suffices a CPU, and the sums are the same


class HostSurfaces(NamedTuple):
    """`Surfaces` on the host."""

    depth: np.ndarray
    hits: np.ndarray
    facing: np.ndarray
    starved: np.ndarray


class Surfaces(NamedTuple):
    """The first L surfaces of every pixel of B windows, as Warp arrays on the device of the shader.

    depth (B,L,h,w) float32 forward-filled, 0 where there is none | hits (B,h,w) uint8 | facing (B,L,h,w) int8, 0 beyond
    the hits | starved (B,) int32: pixels whose slots were all full and which still ended with fewer than L surfaces, so
    that more may be behind.
    """

    depth: Any
    hits: Any
    facing: Any
    starved: Any

    def numpy(self) -> HostSurfaces:
        """Copies to the host; on the CPU the arrays share memory with these."""
        return HostSurfaces(*(array.numpy() for array in self))


class Shader:
    """A packed mesh with vertices (V,3) in the world frame, on "cpu" or "cuda"; `shade_numpy` is its slow twin.

    keys (B,S,P) uint64 are those of windows of `size` (h, w), pixel = row * w + column, P >= h * w. origins (B,2) holds
    (row, column) of each window's first pixel in the image of its view, and `rays` the rays of those images.
    """

    def __init__(self, packed: Packed, vertices: np.ndarray, device: str = "cpu") -> None:
        self.packed = packed
        self.device = device_of(device)
        self.scene = shade_inputs.scene_of(packed, self.device)
        self.thresholds: Any = wp.array(THRESHOLDS, dtype=wp.float32, device=self.device)
        self.move(vertices, packed.normals if len(packed.normals) else None)

    def move(self, vertices: np.ndarray, normals: np.ndarray | None) -> None:
        """The next pose of an animation: vertices (V,3) and, unless it is shaded flat, normals (V,3) float32."""
        self.packed = replace(self.packed, normals=np.zeros((0, 3), np.float32) if normals is None else normals)
        shade_inputs.move(self.scene, vertices, normals, self.device)

    def surfaces(
        self,
        keys: Any,
        rays: Sequence[Rays],
        origins: np.ndarray,
        size: tuple[int, int],
        layers: int,
        tolerance: float = 0.0,
        relative: float = 0.0,
    ) -> Surfaces:
        """The first `layers` surfaces of every pixel.

        A hit counts if its material is OPAQUE, or MASK and not cut out there, or BLEND and alpha is 0.5 or more; and if
        it is max(tolerance, relative * depth) or more behind the last one that counted and faces the same way.
        Raises ValueError for keys of another shape and negative or NaN tolerances.
        """
        if not (tolerance >= 0 and relative >= 0):
            raise ValueError(f"tolerance is {tolerance} and relative is {relative}; give 0 or more for each.")
        views, pixels = self._views(keys, rays, origins, size), size[0] * size[1]
        if not 1 <= layers <= 255:
            raise ValueError(f"layers is {layers}; a pixel's hits are counted in 8 bits, ask for 1 to 255.")
        b = len(rays)
        depth = wp.empty((b, layers, pixels), dtype=wp.float32, device=self.device)
        hits = wp.empty((b, pixels), dtype=wp.uint8, device=self.device)
        facing = wp.empty((b, layers, pixels), dtype=wp.int8, device=self.device)
        starved = wp.zeros(b, dtype=wp.int32, device=self.device)
        inputs = [self.scene, views, keys, size[1], tolerance, relative, layers, depth, hits, facing, starved]
        self._launch(surface_kernels.surfaces, (b, pixels), inputs)
        stack = (b, layers, *size)
        return Surfaces(
            depth.reshape(stack),
            hits.reshape((b, *size)),
            facing.reshape(stack),
            starved,
        )

    def first_depth(
        self, keys: Any, rays: Sequence[Rays], origins: np.ndarray, size: tuple[int, int]
    ) -> tuple[Any, np.ndarray]:
        """Depth (B,h,w) float32 of the first surface, inf where there is none, as a Warp array; and starved (B,) int32,
        pixels whose slots were all full and held no surface, so that one may be behind."""
        views, pixels = self._views(keys, rays, origins, size), size[0] * size[1]
        depth = wp.empty((len(rays), pixels), dtype=wp.float32, device=self.device)
        starved = wp.zeros(len(rays), dtype=wp.int32, device=self.device)
        self._launch(surface_kernels.first_depth, depth.shape, [self.scene, views, keys, size[1], depth, starved])
        return depth.reshape((len(rays), *size)), starved.numpy()

    def unresolved(self, keys: Any, rays: Sequence[Rays], origins: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(B,) bool: whether some pixel's slots are full and what is behind its last hit would still be seen."""
        views, pixels = self._views(keys, rays, origins, size), size[0] * size[1]
        seen = wp.zeros(len(rays), dtype=wp.int32, device=self.device)
        self._launch(shade_kernels.unresolved, (len(rays), pixels), [self.scene, views, keys, size[1], seen])
        return np.asarray(seen.numpy() > 0)

    def shade(
        self,
        keys: Any,
        rays: Sequence[Rays],
        origins: np.ndarray,
        size: tuple[int, int],
        lights: Sequence[Lights],
        shadows: Shadows,
        side: int,
    ) -> Any:
        """Premultiplied linear RGB, alpha, irradiance: (B,h/side,w/side,5) float32 as a Warp array; `shade_numpy.shade`
        says what they are.

        `size` and `origins` count samples, side x side of them a pixel, and `rays` are those of the samples. `lights`
        has one for each view; light n of all of them in order owns the maps shadows.first[n] .. shadows.first[n + 1],
        whose depth may be NumPy or a Warp array.
        """
        views = self._views(keys, rays, origins, size)
        if size[0] % side or size[1] % side or len(lights) != len(rays):
            raise ValueError(
                f"{size[0]} x {size[1]} samples, {side} x {side} a pixel, and {len(lights)} lights for {len(rays)} "
                "views; give whole pixels and lights for each view."
            )
        height, width = size[0] // side, size[1] // side
        out = wp.empty((len(rays), height * width, 5), dtype=wp.float32, device=self.device)
        inputs = [self.scene, views, shade_inputs.lighting_of(lights, shadows, self.device), keys, width, side, out]
        self._launch(shade_kernels.shade, (len(rays), height * width), inputs)
        return out.reshape((len(rays), height, width, 5))

    def meter(self, image: Any) -> np.ndarray:
        """Mean irradiance (B,) float64 of the lit pixels of image (B,h,w,5), the same bits in any batch."""
        b = image.shape[0]
        flat = _flat(image)
        threads = METER_THREADS if self.device.is_cuda else 1
        sums = wp.zeros((b, 2), dtype=wp.int64, device=self.device)
        self._launch(develop_kernels.meter, (b, threads), [flat, threads, sums])
        alpha, light = sums.numpy().T / develop_kernels.STEPS
        return np.asarray(light / np.maximum(alpha, 1e-9))

    def missed(self, image: Any, hits: Any) -> np.ndarray:
        """In how many pixels of image (B,h,w,5) there is nothing although `hits` (B,h,w) uint8 says that a surface is
        met at their centres: (B,) int32. It is thinner than a pixel."""
        flat, valid = _flat(image), hits.reshape((len(hits), -1))
        count = wp.zeros(len(hits), dtype=wp.int32, device=self.device)
        self._launch(develop_kernels.missed, valid.shape, [flat, valid, count])
        return np.asarray(count.numpy())

    def fill(self, image: Any, centres: Any, hits: Any) -> None:
        """Write to those pixels what `centres` (B,h,w,5), shaded at one sample a pixel, has there, as half covered."""
        flat, valid = _flat(image), hits.reshape((len(hits), -1))
        self._launch(develop_kernels.fill, valid.shape, [flat, _flat(centres), valid])

    def develop(self, image: Any, exposures: np.ndarray, hits: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Image (B,h,w,5) -> straight sRGB (B,h,w,4) uint8 on the host, each view at its own of exposures (B,).

        Given `hits` (B,h,w) uint8 on the device, alpha is held to the side of one half that hard validity A, hits > 0,
        is on: at most 127, or at least 128; but where there is nothing it stays 0. Also returns moved (B,3) int64: in
        how many pixels with A = 1, and with A = 0, alpha was on the other side, and in how many of these it was 0 or
        255; 0 without `hits`.
        """
        b, h, w = image.shape[:3]
        out = wp.empty((b, h * w), dtype=wp.uint32, device=self.device)
        valid = wp.empty((b, 1), dtype=wp.uint8, device=self.device) if hits is None else hits.reshape((b, h * w))
        exposure: Any = wp.array(np.asarray(exposures, np.float32), dtype=wp.float32, device=self.device)
        moved = wp.zeros((b, 3), dtype=wp.int32, device=self.device)
        inputs = [_flat(image), exposure, self.thresholds, valid, int(hits is not None), out, moved]
        self._launch(develop_kernels.develop, (b, h * w), inputs)
        return out.numpy().view(np.uint8).reshape(b, h, w, 4), moved.numpy().astype(np.int64)

    def _views(self, keys: Any, rays: Sequence[Rays], origins: np.ndarray, size: tuple[int, int]) -> Any:
        """The rays of the windows on the device; ValueError unless everything has the shape that it should."""
        b, (h, w) = len(rays), size
        if keys.ndim != 3 or keys.shape[0] != b or keys.shape[2] < h * w or np.shape(origins) != (b, 2):
            raise ValueError(
                f"keys of shape {tuple(keys.shape)} and origins of shape {np.shape(origins)} do not go with {b} views "
                f"of {h} x {w} pixels; give (views, slots, pixels) and (views, 2)."
            )
        return shade_inputs.views_of(rays, origins, self.device)

    def _launch(self, kernel: wp.Kernel, dim: tuple[int, ...], inputs: list[Any]) -> None:
        wp.launch(kernel, dim=dim, inputs=inputs, device=self.device, block_dim=BLOCK)


def _flat(image: Any) -> Any:
    """(B,h,w,5) -> (B,h*w,5)."""
    return image.reshape((image.shape[0], -1, 5))
