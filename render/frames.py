"""One image with its layers: peel, alpha test, merge, fill; light, shade, develop. A stage holds what views share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from render import backends, shadows
from render.cameras import Camera
from render.hits import Hits
from render.lights import Lights
from render.mesh import Mesh
from render.rays import Rays, Shadows
from render.settings import COLOR_SLOTS, DEPTH_ERROR, RenderSettings
from render.shade import Shader
from render.surfaces import compact, merge_coincident
from render.texels import Packed, pack
from shards.contract import forward_fill


@dataclass(frozen=True, eq=False)
class Layers:
    """depth (L,H,W) float32 forward-filled, hits (H,W) uint8, facing (L,H,W) int8, and how they came about.

    `overflow` counts pixels where even `slots` surfaces were not enough to be sure of the first L.
    """

    depth: np.ndarray
    hits: np.ndarray
    facing: np.ndarray
    overflow: int
    slots: int


class Stage:
    """A mesh ready to be rendered from many cameras. Vertices (V,3) are in the world frame of the views."""

    def __init__(self, mesh: Mesh, settings: RenderSettings, seconds: dict[str, float]) -> None:
        self.seconds = seconds  # stages add theirs here
        self.settings = settings
        self.vertices = np.ascontiguousarray(mesh.vertices, np.float64)
        self.used = np.unique(mesh.faces)
        with self.clock("prepare"):
            self.packed: Packed = pack(mesh, settings.texture_limit)
            self.peeler = backends.peeler(settings.backend, self.vertices, mesh.faces)
            self.shader = Shader(self.packed, self.vertices, "cuda" if self.peeler.name == "cuda" else "cpu")
        self.backend = self.peeler.name
        self.frame_box(self.vertices[None])

    def frame_box(self, poses: np.ndarray) -> None:
        """Sets what counts as coincident from the box of poses (T,V,3): a share of its diagonal."""
        used = poses[:, self.used]
        low, high = used.min(axis=(0, 1)), used.max(axis=(0, 1))
        self.tolerance = self.settings.merge * float(np.linalg.norm(high - low))

    def move(self, vertices: np.ndarray, normals: np.ndarray | None) -> None:
        """The next pose of an animation."""
        self.vertices = np.ascontiguousarray(vertices, np.float64)
        with self.clock("prepare"):
            self.peeler.update(self.vertices)
            self.shader.move(self.vertices, normals)

    @property
    def points(self) -> np.ndarray:
        """The vertices (N,3) that faces use, world frame, in the present pose."""
        return self.vertices[self.used]

    def layers(self, camera: Camera) -> Layers:
        """The first L surfaces of every pixel. Raises ValueError where the backend cannot peel that many."""
        s = self.settings
        with self.clock("peel"):
            slots = 1 if self.backend == "pyrender" and s.layers == 1 else s.slots
            while True:
                merged, starved = self._surfaces(camera, slots)
                if starved == 0 or slots >= s.slots_limit or self.backend == "pyrender":
                    break
                slots = min(2 * slots, s.slots_limit)
            depth, count = forward_fill(merged.depth)
        return Layers(depth, count, merged.facing, starved, slots)

    def _surfaces(self, camera: Camera, slots: int) -> tuple[Hits, int]:
        s = self.settings
        hits = self.peeler.peel(camera.K, camera.height, camera.width, slots, s.near, _inverse(camera))
        full = hits.triangle[-1] >= 0  # before any hit is dropped: there may be more behind
        if self.packed.tested:
            hits = compact(hits, self.shader.keep(_rays(camera, 1), hits.triangle), slots)
        merged = merge_coincident(hits, self.tolerance, s.layers, 4 * DEPTH_ERROR)
        return merged, int(np.count_nonzero(full & ~np.isfinite(merged.depth[-1])))

    def shadows(self, lights: Lights, indoors: bool) -> Shadows:
        """Depth maps of the lights, none where the settings leave them out."""
        if not self.settings.shadows:
            return Shadows.none(len(lights.kind))
        points = self.points
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        radius = float(np.linalg.norm(points - centre, axis=1).max())
        with self.clock("shadow"):
            return shadows.cast(lights, self._first_depth, centre, radius, indoors)

    def _first_depth(self, K: np.ndarray, size: int, camera_from_world: np.ndarray, rays: Rays) -> np.ndarray:
        slots = COLOR_SLOTS if self.packed.tested and self.backend != "pyrender" else 1
        hits = self.peeler.peel(K, size, size, slots, self.settings.near, camera_from_world)
        if self.packed.tested:
            hits = compact(hits, self.shader.keep(rays, hits.triangle), 1)
        return hits.depth[0]

    def image(self, camera: Camera, lights: Lights, maps: Shadows) -> np.ndarray:
        """Premultiplied linear RGB, alpha and irradiance (H,W,5) float32, see `shade_numpy.shade`."""
        side = self.settings.samples
        K, height, width = camera.scaled(side), camera.height * side, camera.width * side
        slots = COLOR_SLOTS if self.packed.tested and self.backend != "pyrender" else 1
        rays = _rays(camera, side)
        while True:
            with self.clock("peel"):
                triangle = self.peeler.triangles(K, height, width, slots, self.settings.near, _inverse(camera))
            if slots == 1 or slots >= self.settings.slots_limit or not self.shader.unresolved(rays, triangle):
                break
            slots = min(2 * slots, self.settings.slots_limit)
        with self.clock("shade"):
            return self.shader.shade(rays, lights, maps, triangle, side)

    def coarse_depth(self, camera: Camera, longest: int = 64) -> np.ndarray:
        """Layer 0 (h,w) float32 at about `longest` pixels a side, inf where nothing is met: for accepting a camera."""
        step = max(camera.height, camera.width) / longest
        height, width = max(1, round(camera.height / step)), max(1, round(camera.width / step))
        K = np.diag([width / camera.width, height / camera.height, 1.0]) @ camera.K
        with self.clock("peel"):
            return self.peeler.peel(K, height, width, 1, self.settings.near, _inverse(camera)).depth[0]

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Adds the seconds of a `with` block to `seconds[name]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _inverse(camera: Camera) -> np.ndarray:
    """camera_from_world (4,4): the exact transpose, so that the last row stays 0, 0, 0, 1."""
    inverse = np.eye(4)
    inverse[:3, :3] = camera.world_from_camera[:3, :3].T
    inverse[:3, 3] = -inverse[:3, :3] @ camera.eye
    return inverse


def _rays(camera: Camera, side: int) -> Rays:
    return Rays(camera.eye, camera.world_from_camera[:3, :3], camera.scaled(side))
