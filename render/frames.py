"""Images with their layers, a batch at a time: peel, alpha test, merge, fill; light, shade, develop.

A `Stage` holds what the views of a mesh share. From the triangles to the finished bytes the work stays on the device of
the backend; what comes back is the windows, placed into whole images.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import warp as wp

from render import backends, shadows
from render.cameras import Camera
from render.develop import exposure_of
from render.extent import Extent
from render.lights import Lights
from render.mesh import Mesh
from render.rays import Shadows, Shots
from render.settings import COLOR_SLOTS, DEPTH_ERROR, RenderSettings
from render.shade import Shader
from render.texels import Packed, pack

# On a GPU views are rendered together: as many as fit into this, for each of the processes that share the GPU.
BATCH = 64
BATCH_BYTES = 3 << 30
CORNER_BYTES = 40  # of a vertex projected into one view
PEELED_FACES = 1 << 30  # of all views of one call of the peel

# Where materials are cut out: among how many hits of a light's ray a surface is looked for, up to four times as many
# while more than this share of the rays of a map have all theirs cut out.
CUT_SLOTS = 8
STARVED_SHARE = 5e-3


@dataclass(frozen=True, eq=False)
class Layers:
    """depth (L,H,W) float32 forward-filled, hits (H,W) uint8, facing (L,H,W) int8, and how they came about.

    `window` (rows, columns) is the part of the image outside of which there is nothing. `overflow` counts the pixels
    where even `slots` surfaces were not enough to be sure of the first L.
    """

    depth: np.ndarray
    hits: np.ndarray
    facing: np.ndarray
    overflow: int
    slots: int
    window: tuple[slice, slice]

    def cropped(self) -> "Layers":
        """Only the window: all that is valid at a fraction of the pixels."""
        depth, hits, facing = (array[..., *self.window] for array in (self.depth, self.hits, self.facing))
        return replace(self, depth=depth, hits=hits, facing=facing)


class Stage:
    """A mesh ready to be rendered from many cameras. Vertices (V,3) are in the world frame of the views."""

    def __init__(self, mesh: Mesh, settings: RenderSettings, seconds: dict[str, float]) -> None:
        self.seconds = seconds  # stages add theirs here
        self.settings = settings
        self.vertices = np.ascontiguousarray(mesh.vertices, np.float64)
        used = np.zeros(len(self.vertices), bool)
        used[mesh.faces] = True
        self.used = np.flatnonzero(used)
        with self.clock("prepare"):
            self.packed: Packed = pack(mesh, settings.texture_limit)
            self.peeler = backends.peeler(settings.backend, self.vertices, mesh.faces)
            self.shader = Shader(self.packed, self.vertices, "cuda" if self.peeler.device.is_cuda else "cpu")
        self.backend = self.peeler.name
        self.color_slots = COLOR_SLOTS if self.packed.tested and self.backend != "pyrender" else 1
        self.extent = Extent.of(self.vertices[self.used])
        self.frame_box(self.extent)
        # The frames of a still asset share their lights, and so the maps of those.
        self._cast: tuple[list[Lights], Shadows | None] = [], None

    def extent_of(self, poses: np.ndarray) -> Extent:
        """How far the vertices that faces use reach in poses (T,V,3)."""
        return Extent.of(poses[:, self.used].reshape(-1, 3))

    def frame_box(self, extent: Extent) -> None:
        """Sets what counts as coincident: a share of the diagonal of `extent`, that of all frames of a clip."""
        self.tolerance = self.settings.merge * extent.diagonal

    def move(self, vertices: np.ndarray, normals: np.ndarray | None) -> None:
        """The next pose of an animation."""
        self.vertices = np.ascontiguousarray(vertices, np.float64)
        self.extent = Extent.of(self.vertices[self.used])
        self._cast = [], None
        with self.clock("prepare"):
            self.peeler.update(self.vertices)
            self.shader.move(self.vertices, normals)

    @property
    def batch(self) -> int:
        """How many views to render together: on a CPU one, whose arrays stay in the cache."""
        s = self.settings
        if not self.peeler.device.is_cuda:
            return 1
        # Both peels write their keys to the same place; few views need more slots than four times the first try has.
        most = 1 if self.color_slots == 1 else min(4 * self.color_slots, s.slots_limit)
        pixels = s.height * s.width * (8 * max(s.slots, s.samples**2 * most) + 5 * s.layers + 30)
        return min(BATCH, self._most_together(pixels))

    def _most_together(self, bytes_of_pixels: int) -> int:
        """How many views to work on at once that need so many bytes for their pixels, beside those for vertices."""
        if not self.peeler.device.is_cuda:
            return 1
        numbered = PEELED_FACES // max(len(self.packed.faces), len(self.used), 1)
        return max(1, min(BATCH_BYTES // (bytes_of_pixels + CORNER_BYTES * len(self.used)), numbered))

    def _runs(self, views: np.ndarray, size: tuple[int, int], slots: int) -> Iterator[np.ndarray]:
        """`views` in runs that are peeled at once."""
        most = self._most_together(8 * slots * size[0] * size[1])
        for start in range(0, len(views), most):
            yield views[start : start + most]

    def framed(self, cameras: Sequence[Camera]) -> Shots:
        """Views of one size, cut to the part of the image that the mesh can reach."""
        shots = Shots.of(cameras)
        with self.clock("peel"):
            # The boxes are those of pixel centres; the samples of a pixel lie around its centre.
            return shots.within(self.peeler.windows(shots, self.settings.near), border=1)

    def layers(self, shots: Shots) -> list[Layers]:
        """The first L surfaces of every pixel. Raises ValueError where the backend cannot peel that many."""
        s = self.settings
        slots = 1 if self.backend == "pyrender" and s.layers == 1 else s.slots
        found: dict[int, Layers] = {}
        remaining = np.arange(len(shots))
        with self.clock("peel"):
            while len(remaining):
                last = slots >= s.slots_limit or self.backend == "pyrender"
                for run in self._runs(remaining, shots.size, slots):
                    part = shots[run]
                    keys = self.peeler.keys(part, slots, s.near)
                    surfaces = self.shader.surfaces(
                        keys, part.rays, part.origins, part.size, s.layers, self.tolerance, 4 * DEPTH_ERROR
                    ).numpy()
                    for i in np.flatnonzero((surfaces.starved == 0) | last):
                        found[int(run[i])] = _placed(part, surfaces, int(i), slots)
                remaining = np.array([view for view in remaining if int(view) not in found], np.int64)
                slots = min(2 * slots, s.slots_limit)
        return [found[i] for i in range(len(shots))]

    def shadows(self, lights: Sequence[Lights], indoors: bool) -> Shadows:
        """Depth maps of the lights of the views of a batch, none where the settings leave them out."""
        if not self.settings.shadows:
            return Shadows.none(sum(len(light.kind) for light in lights))
        known, maps = self._cast
        if maps is None or len(known) != len(lights) or any(a is not b for a, b in zip(known, lights)):
            with self.clock("shadow"):
                maps = shadows.cast(lights, self._first_depth, self.extent, indoors)
            self._cast = list(lights), maps
        return maps

    def _first_depth(self, shots: Shots) -> Any:
        """Layer 0 of whole images (M,h,w) float32, inf where there is none, as a Warp array."""
        slots = CUT_SLOTS if self.color_slots > 1 else 1
        most = min(4 * CUT_SLOTS, self.settings.slots_limit)
        depth: wp.array = wp.empty((len(shots), *shots.size), dtype=wp.float32, device=self.peeler.device)
        remaining = np.arange(len(shots))
        while len(remaining):
            again = []
            for run in self._runs(remaining, shots.size, slots):
                part = shots[run]
                keys = self.peeler.keys(part, slots, self.settings.near)
                found, starved = self.shader.first_depth(keys, part.rays, part.origins, part.size)
                settled = (starved <= STARVED_SHARE * found[0].size) | (slots == 1) | (slots >= most)
                if settled.all() and len(run) == len(shots):
                    return found  # the usual case on a GPU, where copies of hundreds of maps take longer than the peel
                for i in np.flatnonzero(settled):
                    wp.copy(depth[int(run[i])], found[int(i)])
                again += run[~settled].tolist()
            remaining = np.array(again, np.int64)
            slots = min(2 * slots, most)
        return depth

    def image(self, shots: Shots, lights: Sequence[Lights], maps: Shadows) -> Any:
        """Premultiplied linear RGB, alpha and irradiance of the windows (B,h,w,5) float32, on the device; see
        `shade_numpy.shade`."""
        return self._shaded(shots, self.settings.samples, lights, maps)

    def fill(self, shots: Shots, image: Any, layers: Sequence[Layers], lights: Sequence[Lights], maps: Shadows) -> Any:
        """Give the pixels of `image` whose surface all samples missed what is seen at their centres. Returns their
        number (B,) in each view."""
        if self.settings.samples == 1:
            return np.zeros(len(shots), np.int32)
        valid = self._valid(layers)
        missed = self.shader.missed(image, valid)
        if missed.any():
            self.shader.fill(image, self._shaded(shots, 1, lights, maps), valid)
        return missed

    def _shaded(self, shots: Shots, side: int, lights: Sequence[Lights], maps: Shadows) -> Any:
        fine, limit = shots.scaled(side), max(self.settings.slots, self.settings.slots_limit)
        rays, slots = fine.rays, self.color_slots
        while True:
            with self.clock("peel"):
                keys = self.peeler.keys(fine, slots, self.settings.near)
                if slots == 1 or slots >= limit:
                    break
                if not self.shader.unresolved(keys, rays, fine.origins, fine.size).any():
                    break
            slots = min(2 * slots, limit)
        with self.clock("shade"):
            return self.shader.shade(keys, rays, fine.origins, fine.size, lights, maps, side)

    def metered(self, image: Any, targets: Sequence[float]) -> list[float]:
        """The exposures that bring the mean irradiance of each window of `image` to its target."""
        with self.clock("develop"):
            means = self.shader.meter(image)
            return [exposure_of(float(mean), target) for mean, target in zip(means, targets)]

    def develop(
        self, shots: Shots, image: Any, exposures: Sequence[float], layers: Sequence[Layers]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Straight sRGB (H,W,4) uint8 of each view, whose alpha is held at the side of A; and (B,3), at how many pixels
        that changed it, see `Shader.develop`."""
        with self.clock("develop"):
            windows, moved = self.shader.develop(image, np.asarray(exposures), self._valid(layers))
            pictures = []
            for each, window in zip(layers, windows):
                rgba = np.zeros((*shots.image, 4), np.uint8)
                rgba[each.window] = window
                pictures.append(rgba)
        return pictures, moved

    def _valid(self, layers: Sequence[Layers]) -> Any:
        """The hits of the windows (B,h,w) uint8 on the device."""
        hits = np.stack([each.hits[each.window] for each in layers])
        return wp.array(hits, dtype=wp.uint8, device=self.peeler.device)

    def coarse_depth(self, cameras: Sequence[Camera], longest: int = 64) -> np.ndarray:
        """Layer 0 (B,h,w) float32 at about `longest` pixels a side, inf where nothing is met: to accept cameras by."""
        first = cameras[0]
        step = max(first.height, first.width) / longest
        height, width = max(1, round(first.height / step)), max(1, round(first.width / step))
        scale = np.diag([width / first.width, height / first.height, 1.0])
        whole = Shots.of(cameras)
        shots = Shots.whole(scale @ whole.K, whole.world_from_camera, (height, width))
        with self.clock("peel"):
            depth = self._first_depth(shots)
        return np.asarray(depth.numpy())

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Adds the seconds of a `with` block to `seconds[name]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _placed(shots: Shots, surfaces: Any, i: int, slots: int) -> Layers:
    """Window i of `surfaces` in whole images."""
    (row, column), (height, width) = shots.origins[i], shots.size
    window = slice(row, row + height), slice(column, column + width)
    depth = np.zeros((surfaces.depth.shape[1], *shots.image), np.float32)
    hits = np.zeros(shots.image, np.uint8)
    facing = np.zeros(depth.shape, np.int8)
    depth[:, *window] = surfaces.depth[i]
    hits[window] = surfaces.hits[i]
    facing[:, *window] = surfaces.facing[i]
    return Layers(depth, hits, facing, int(surfaces.starved[i]), slots, window)
