"""A studio takes views and clips of one asset: it draws their cameras and lights, and judges what comes out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from render import verdicts
from render.cameras import Camera, object_camera, room_camera, room_faults, storey
from render.floors import standing_room
from render.frames import Layers, Stage
from render.lights import Lights, object_lights, room_lights
from render.mesh import Mesh, Rejected
from render.motion import Creases, clip_times, posed
from render.normalise import normalise
from render.paths import object_path, room_path
from render.settings import RenderSettings
from shards.contract import LayeredView, Origin
from shards.randomness import generator

METRES: dict[str, Any] = {"scale": 1.0, "offset": [0.0, 0.0, 0.0]}


@dataclass(frozen=True, eq=False)
class Shot:
    """A view about to be taken. `view` is its number, `extra` what its `info` has beside the usual."""

    key: str
    view: int
    camera: Camera
    lights: Lights
    normalisation: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)


def normalised(asset: Mesh, times: Sequence[float]) -> tuple[Mesh, dict[str, Any]]:
    """The asset in a box of longest side 1 over its poses at `times`, and what `info` records of it."""
    mesh, scale, offset = normalise(asset, times)
    return mesh, {"scale": float(scale), "offset": [float(x) for x in offset]}


@dataclass(frozen=True, eq=False)
class Studio:
    """One asset, as it is and as it is rendered, with its stage. `indoors`: a room, in metres, seen from inside."""

    asset: Mesh
    mesh: Mesh
    origin: Origin
    settings: RenderSettings
    stage: Stage
    normalisation: dict[str, Any]
    indoors: bool
    flags: set[str]

    def views(self, keys: Sequence[str]) -> list[LayeredView | Rejected]:
        """The views 0, 1, ... with these keys, or why not; an animated asset stands in a pose of its own in each."""
        together = 1 if self._poses_itself else self.stage.batch
        taken: list[LayeredView | Rejected] = []
        for part in _parts(range(len(keys)), together):
            planned = [self._planned(keys[view], view) for view in part]
            images = iter(self._take([shot for shot in planned if isinstance(shot, Shot)]))
            taken += [next(images) if isinstance(shot, Shot) else shot for shot in planned]
        return taken

    def clip(self, key: str, view: int) -> list[LayeredView]:
        """The frames of clip number `view`: the animation under a fixed or slowly moving camera, or the still asset on
        a camera path. Light and exposure are those of the first frame. Raises Rejected if any frame is.
        """
        poses, times, normalisation = None, None, self.normalisation
        if self.moves:
            times = clip_times(self._draw(view, "time"), self.mesh.duration, self.settings)
            poses, normalisation = self._poses(times)
            self._move(poses[0])
        cameras = self._path(view, poses)
        lights = self._lights(view, cameras[0])
        shots = []
        for t, camera in enumerate(cameras):
            extra = {"frame": t, "time": None if times is None else float(times[t])}
            shots.append(Shot(key, view, camera, lights, normalisation, extra))
        frames = [_kept(self._take(shots[:1]))]
        exposure = float(frames[0][0].info["exposure"])
        for part in _parts(range(1, len(shots)), 1 if poses is not None else self.stage.batch):
            if poses is not None:
                self._move(poses[part[0]])
            frames.append(_kept(self._take([shots[t] for t in part], exposure)))
        return [frame for part in frames for frame in part]

    @property
    def moves(self) -> bool:
        return self.mesh.pose is not None and self.mesh.duration > 0

    @property
    def _poses_itself(self) -> bool:
        return self.moves and not self.indoors

    def _planned(self, key: str, view: int) -> Shot | Rejected:
        normalisation, extra = self.normalisation, {}
        try:
            if self._poses_itself:
                time = float(self._draw(view, "time").uniform(0.0, self.mesh.duration))
                poses, normalisation = self._poses(np.array([time]))
                self._move(poses[0])
                extra = {"time": time}
            camera = self._camera(view)
        except Rejected as error:
            return error
        return Shot(key, view, camera, self._lights(view, camera), normalisation, extra)

    def _poses(self, times: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Vertices (T,V,3) at `times` under one normalisation, and its record for `info`; sets the merge tolerance."""
        mesh, normalisation = self.mesh, self.normalisation
        if not self.indoors:
            mesh, normalisation = normalised(self.asset, times.tolist())
        poses = posed(mesh, times)
        self.stage.frame_box(self.stage.extent_of(poses))
        return poses, normalisation

    def _move(self, vertices: np.ndarray) -> None:
        self.stage.move(vertices, None if self.creases is None else self.creases.normals(vertices))

    @cached_property
    def creases(self) -> Creases | None:
        return Creases.of(self.mesh)

    def _draw(self, view: int, purpose: str) -> np.random.Generator:
        return generator(self.settings.seed, self.origin.sha256, view, purpose)

    @cached_property
    def _stands(self) -> np.ndarray:
        """Boxes (N,2,3) in metres in which a camera may be: the room, or the air over the floors of a mesh without one.

        Raises Rejected where a mesh has no floor.
        """
        room = self.mesh.room
        return standing_room(self.mesh) if room is None else np.asarray(room.inside, np.float64).reshape(-1, 2, 3)

    def _furniture(self) -> np.ndarray:
        return np.zeros((0, 2, 3)) if self.mesh.room is None else self.mesh.room.furniture

    def _camera(self, view: int) -> Camera:
        draw = self._draw(view, "camera")
        if not self.indoors:
            return object_camera(draw, self.settings, self.stage.extent)
        return self._placed(draw, lambda camera: [camera])[0]

    def _placed(self, draw: np.random.Generator, path: Callable[[Camera], list[Camera]]) -> list[Camera]:
        """The first of `scene_tries` candidates of which every camera on its path stands."""
        stands, furniture = self._stands, self._furniture()
        faults: list[str] = []
        for _ in range(self.settings.scene_tries):
            cameras = path(room_camera(draw, self.settings, stands))
            depth = self.stage.coarse_depth(cameras)
            faults = []
            for camera, seen in zip(cameras, depth):
                faults += room_faults(camera, seen, stands, furniture, self.settings)
            if not faults:
                return cameras
        why = ", ".join(sorted(set(faults)))
        raise Rejected("camera_placement", f"none of {self.settings.scene_tries} cameras stands; the last: {why}")

    def _path(self, view: int, poses: np.ndarray | None) -> list[Camera]:
        """T cameras: see `render.paths`."""
        draw, path = self._draw(view, "camera"), self._draw(view, "path")
        if self.indoors:
            return self._placed(draw, lambda camera: room_path(path, camera, self.settings, self._stands))
        extent = self.stage.extent if poses is None else self.stage.extent_of(poses)
        camera, centre = object_camera(draw, self.settings, extent), extent.centre
        return object_path(path, camera, centre, self.settings, self.moves)

    def _lights(self, view: int, camera: Camera) -> Lights:
        draw = self._draw(view, "light")
        if self.indoors:
            openings = np.zeros((0, 2, 3)) if self.mesh.room is None else self.mesh.room.openings
            around = storey(camera.eye, self._stands)
            low, high = self._stands[:, 0, 1], self._stands[:, 1, 1]
            level = self._stands[(low >= around[0, 1]) & (high <= around[1, 1])]
            return room_lights(draw, around, openings, self._furniture(), level)
        return object_lights(draw, camera, self.stage.extent.centre, self.stage.extent.longest)

    def _take(self, shots: Sequence[Shot], exposure: float | None = None) -> list[LayeredView | Rejected]:
        """Views of the mesh as it stands, developed at `exposure` or, without one, each at what meters to a drawn
        brightness."""
        stage = self.stage
        if not shots:
            return []
        framed = stage.framed([shot.camera for shot in shots])
        layers = stage.layers(framed)
        lights = [shot.lights for shot in shots]
        maps = stage.shadows(lights, self.indoors)
        image = stage.image(framed, lights, maps)
        missed = stage.fill(framed, image, layers, lights, maps)
        if exposure is None:
            targets = [float(self._draw(shot.view, "exposure").uniform(*self.settings.exposure)) for shot in shots]
            exposures = stage.metered(image, targets)
        else:
            exposures = [exposure] * len(shots)
        pictures, moved = stage.develop(framed, image, exposures, layers)
        moved[:, [0, 2]] += missed[:, None]
        return [self._judged(*each) for each in zip(shots, layers, pictures, moved, exposures)]

    def _judged(
        self, shot: Shot, layers: Layers, rgba: np.ndarray, moved: np.ndarray, exposure: float
    ) -> LayeredView | Rejected:
        stage, settings = self.stage, self.settings
        if not layers.hits.any():
            return Rejected("too_few_pixels", "no ray of the view meets a surface")
        with stage.clock("judge"):
            part, seen = layers.cropped(), rgba[layers.window]
            numbers = verdicts.measures(part, moved)
            flags = self.flags | verdicts.view_flags(
                part, seen, numbers, shot.camera, stage.extent, settings, self.indoors
            )
        refused = verdicts.rejection(flags, numbers, settings)
        if refused is not None:
            return Rejected(*refused)
        info = {
            "view": shot.view,
            "seed": settings.seed,
            "camera": shot.camera.info,
            "light": shot.lights.info(),
            "exposure": exposure,
            "normalisation": shot.normalisation,
            "flags": sorted(flags),
            "overflow": layers.overflow,
            "measures": numbers,
            "backend": stage.backend,
            "slots": layers.slots,
            **shot.extra,
        }
        return LayeredView(
            shot.key,
            rgba,
            layers.hits,
            layers.depth,
            shot.camera.K,
            shot.camera.world_from_camera,
            settings.regime,
            self.origin,
            settings.layers == 1,
            info,
        )


def _kept(taken: Sequence[LayeredView | Rejected]) -> list[LayeredView]:
    """`taken` if nothing in it was rejected, else the first rejection is raised."""
    kept = []
    for frame in taken:
        if isinstance(frame, Rejected):
            raise frame
        kept.append(frame)
    return kept


def _parts(numbers: range, size: int) -> Iterator[range]:
    """`numbers` in runs of `size`, the last perhaps shorter."""
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
