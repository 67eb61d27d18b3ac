"""`render_views`: an asset, its origin and settings in; layered views, or typed reasons why not, out.

A pure function: every number drawn for a view is keyed by (seed, asset sha256, view, purpose).
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from render import backends, verdicts
from render.cameras import Camera, object_camera, orbit, room_camera, room_faults, turned
from render.frames import Stage
from render.lights import Lights, object_lights, room_lights
from render.mesh import Mesh, Rejected
from render.motion import Creases, clip_times, posed
from render.normalise import normalise
from render.rays import Shadows
from render.settings import RenderSettings
from render.shade import develop, metered
from shards.contract import Clip, LayeredView, Origin, Sample
from shards.randomness import generator

METRES: dict[str, Any] = {"scale": 1.0, "offset": [0.0, 0.0, 0.0]}


@dataclass(frozen=True)
class Rendered:
    """`samples` in the order of the views; `rejected` as (view, reason, message); `seconds` per stage."""

    samples: list[Sample]
    rejected: list[tuple[int, str, str]]
    seconds: dict[str, float] = field(default_factory=dict)


def render_views(mesh: Mesh, origin: Origin, settings: RenderSettings) -> Rendered:
    """Renders `settings.views` views (or clips) of one asset.

    object: normalised so that the longest side of its box is 1; scene: metres, from inside; dynamic: clips of
    `settings.frames` frames, each under one normalisation (a room: metres). `info` of every view records camera,
    lights, exposure, normalisation, flags, overflow, backend and slots.
    Raises Rejected where the asset itself cannot be normalised, ValueError where the backend cannot run here.
    """
    backends.check(settings)
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    flags = verdicts.mesh_flags(mesh)
    indoors = settings.regime == "scene" or (settings.regime == "dynamic" and mesh.room is not None)
    asset, normalisation = mesh, METRES
    if not indoors:
        mesh, normalisation = _normalised(asset, ())
    seconds["normalise"] = time.perf_counter() - start
    stage = Stage(mesh, settings, seconds)
    studio = Studio(asset, mesh, origin, settings, stage, normalisation, indoors, flags)

    samples: list[Sample] = []
    rejected: list[tuple[int, str, str]] = []
    for view in range(settings.views):
        try:
            samples.append(studio.clip(view) if settings.regime == "dynamic" else studio.view(view))
        except Rejected as error:
            rejected.append((view, error.reason, error.message))
    return Rendered(samples, rejected, {name: round(value, 6) for name, value in seconds.items()})


def sample_key(origin: Origin, letter: str, view: int) -> str:
    """ "<uid-slug>-<sha8>-v003": the key of a view ("v") or a clip ("c"), of [a-z0-9_-] only and at most 80 long."""
    slug = re.sub(r"[^a-z0-9_]+", "-", origin.uid.lower()).strip("-")[:60].strip("-") or "asset"
    return f"{slug}-{origin.sha256[:8]}-{letter}{view:03d}"


def _normalised(asset: Mesh, times: Sequence[float]) -> tuple[Mesh, dict[str, Any]]:
    """The asset in a box of longest side 1 over its poses at `times`, and what `info` records of it."""
    mesh, scale, offset = normalise(asset, times)
    return mesh, {"scale": float(scale), "offset": [float(x) for x in offset]}


@dataclass(frozen=True, eq=False)
class Studio:
    """One asset, as it is and as it is rendered, with its stage: takes views and clips of it."""

    asset: Mesh
    mesh: Mesh
    origin: Origin
    settings: RenderSettings
    stage: Stage
    normalisation: dict[str, Any]
    indoors: bool
    flags: set[str]

    def view(self, view: int) -> LayeredView:
        """View number `view`; an animated asset stands in a pose of its own in every view.

        Raises Rejected where no camera can be placed or the verdict is not to keep it.
        """
        normalisation, extra = self.normalisation, {}
        if self.moves and not self.indoors:
            time = float(self._draw(view, "time").uniform(0.0, self.mesh.duration))
            poses, normalisation = self._poses(np.array([time]))
            self._move(poses[0])
            extra = {"time": time}
        camera = self._camera(view)
        lights = self._lights(view, camera)
        maps = self.stage.shadows(lights, self.indoors)
        key = sample_key(self.origin, "v", view)
        return self._take(key, view, camera, lights, maps, None, normalisation, extra)

    def clip(self, view: int) -> Clip:
        """Clip number `view`: the animation under a fixed or slowly moving camera, or the still asset on a camera path.

        Light and exposure are those of the first frame; the clip is rejected if any of its frames is.
        """
        key, frames = sample_key(self.origin, "c", view), self.settings.frames
        normalisation, poses, times = self.normalisation, None, None
        if self.moves:
            times = clip_times(self._draw(view, "time"), self.mesh.duration, self.settings)
            poses, normalisation = self._poses(times)
            self._move(poses[0])
        cameras = self._path(view, poses)
        lights = self._lights(view, cameras[0])
        maps = self.stage.shadows(lights, self.indoors)
        exposure: float | None = None
        taken: list[LayeredView] = []
        for t in range(frames):
            if poses is not None and t > 0:
                self._move(poses[t])
                maps = self.stage.shadows(lights, self.indoors)
            extra = {"frame": t, "time": None if times is None else float(times[t])}
            taken.append(self._take(key, view, cameras[t], lights, maps, exposure, normalisation, extra))
            exposure = float(taken[0].info["exposure"])
        return Clip(key, tuple(taken))

    @property
    def moves(self) -> bool:
        return self.mesh.pose is not None and self.mesh.duration > 0

    def _poses(self, times: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Vertices (T,V,3) at `times` under one normalisation, and its record for `info`; sets the merge tolerance."""
        mesh, normalisation = self.mesh, self.normalisation
        if not self.indoors:
            mesh, normalisation = _normalised(self.asset, times.tolist())
        poses = posed(mesh, times)
        self.stage.frame_box(poses)
        return poses, normalisation

    def _move(self, vertices: np.ndarray) -> None:
        self.stage.move(vertices, None if self.creases is None else self.creases.normals(vertices))

    @cached_property
    def creases(self) -> Creases | None:
        return Creases.of(self.mesh)

    def _draw(self, view: int, purpose: str) -> np.random.Generator:
        return generator(self.settings.seed, self.origin.sha256, view, purpose)

    def _inside(self) -> np.ndarray:
        room = self.mesh.room
        if room is not None:
            return np.asarray(room.inside, np.float64)
        used = self.mesh.vertices[np.unique(self.mesh.faces)]
        return np.stack([used.min(axis=0), used.max(axis=0)])

    def _camera(self, view: int) -> Camera:
        draw = self._draw(view, "camera")
        if not self.indoors:
            return object_camera(draw, self.settings, self.stage.points)
        return self._placed(draw, lambda camera: [camera])[0]

    def _placed(self, draw: np.random.Generator, path: Any) -> list[Camera]:
        """The first of `scene_tries` candidates of which every camera on its path stands."""
        inside = self._inside()
        furniture = np.zeros((0, 2, 3)) if self.mesh.room is None else self.mesh.room.furniture
        faults: list[str] = []
        for _ in range(self.settings.scene_tries):
            cameras = path(room_camera(draw, self.settings, inside))
            faults = []
            for camera in cameras:
                depth = self.stage.coarse_depth(camera)
                faults += room_faults(camera, depth, inside, furniture, self.settings)
            if not faults:
                return cameras
        why = ", ".join(sorted(set(faults)))
        raise Rejected("camera_placement", f"none of {self.settings.scene_tries} cameras stands; the last: {why}")

    def _path(self, view: int, poses: np.ndarray | None) -> list[Camera]:
        """T cameras. Indoors: a slow pan. An animation: half of the clips from a fixed camera, half on a slow arc of up
        to 30 degrees. A still object: an arc of 60 to 180 degrees."""
        draw, frames = self._draw(view, "camera"), self.settings.frames
        path = self._draw(view, "path")
        share = np.arange(frames) / max(frames - 1, 1)
        if self.indoors:
            pan = float(path.uniform(-30.0, 30.0))
            return self._placed(draw, lambda camera: [turned(camera, pan * s) for s in share])
        vertices = self.stage.points if poses is None else poses[:, self.stage.used].reshape(-1, 3)
        camera = object_camera(draw, self.settings, vertices)
        centre = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
        side = float(path.choice([-1.0, 1.0]))
        if self.moves:
            turn = side * float(path.uniform(5.0, 30.0)) if path.random() < 0.5 else 0.0
        else:
            turn = side * float(path.uniform(60.0, 180.0))
        return [orbit(camera, centre, turn * s) for s in share]

    def _lights(self, view: int, camera: Camera) -> Lights:
        draw = self._draw(view, "light")
        if self.indoors:
            openings = np.zeros((0, 2, 3)) if self.mesh.room is None else self.mesh.room.openings
            return room_lights(draw, self._inside(), openings)
        low, high = self.stage.points.min(axis=0), self.stage.points.max(axis=0)
        return object_lights(draw, camera, (low + high) / 2, float((high - low).max()))

    def _take(
        self,
        key: str,
        view: int,
        camera: Camera,
        lights: Lights,
        maps: Shadows,
        exposure: float | None,
        normalisation: dict[str, Any],
        extra: dict[str, Any],
    ) -> LayeredView:
        """One frame, developed at `exposure` or, without one, at what meters to a drawn brightness."""
        stage, settings = self.stage, self.settings
        layers = stage.layers(camera)
        if not layers.hits.any():
            raise Rejected("too_few_pixels", "no ray of the view meets a surface")
        image = stage.image(camera, lights, maps)
        with stage.clock("develop"):
            if exposure is None:
                exposure = metered(image, float(self._draw(view, "exposure").uniform(*settings.exposure)))
            rgba = develop(image, exposure, layers.hits > 0)
            numbers = verdicts.measures(layers, rgba)
            flags = self.flags | verdicts.view_flags(
                layers, rgba, numbers, camera, stage.points, settings, self.indoors
            )
        refused = verdicts.rejection(flags, numbers, settings)
        if refused is not None:
            raise Rejected(*refused)
        info = {
            "view": view,
            "seed": settings.seed,
            "camera": camera.info,
            "light": lights.info(),
            "exposure": exposure,
            "normalisation": normalisation,
            "flags": sorted(flags),
            "overflow": layers.overflow,
            "measures": numbers,
            "backend": stage.backend,
            "slots": layers.slots,
            **extra,
        }
        pose = camera.world_from_camera
        return LayeredView(
            key,
            rgba,
            layers.hits,
            layers.depth,
            camera.K,
            pose,
            settings.regime,
            self.origin,
            settings.layers == 1,
            info,
        )
