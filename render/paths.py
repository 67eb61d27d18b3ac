"""From where the frames of a clip are taken: a camera carried along a path, one pose for each frame."""

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from render.cameras import UP, Camera, orbit, storey, turned
from render.settings import RenderSettings

RoomMove = Literal["dolly", "strafe", "orbit", "pan"]
ROOM_MOVES: tuple[RoomMove, ...] = get_args(RoomMove)


def object_path(
    generator: np.random.Generator, camera: Camera, centre: np.ndarray, settings: RenderSettings, moves: bool
) -> list[Camera]:
    """T cameras around `centre` (3,), from `camera` on, at one distance and with the centre at one pixel.

    An animation (`moves`) is seen by a fixed camera in half of the clips, else from a slow arc of 5 to 30 degrees; a
    still object from an arc of 60 to 180 degrees that rises or sinks by up to 20, within `settings.elevation`.
    """
    g = generator
    side, still_arc, slow_arc = float(g.choice([-1.0, 1.0])), float(g.uniform(60.0, 180.0)), float(g.uniform(5.0, 30.0))
    fixed, rise = bool(g.random() < 0.5), float(g.uniform(-20.0, 20.0))
    if moves:
        arc, rise = 0.0 if fixed else slow_arc, 0.0
    else:
        away = camera.eye - centre
        elevation = float(np.degrees(np.arcsin(away[1] / np.linalg.norm(away))))
        low, high = settings.elevation
        arc, rise = still_arc, float(np.clip(elevation + rise, min(low, elevation), max(high, elevation))) - elevation
    return [orbit(camera, centre, side * arc * s, rise * s) for s in _shares(settings.frames)]


def room_path(
    generator: np.random.Generator, camera: Camera, settings: RenderSettings, inside: np.ndarray
) -> list[Camera]:
    """T cameras from `camera` on, at its height and pitch, in a room whose box is `inside` (2,3) in metres,
    or the boxes (N,2,3) of air over its floors.

    One move of ROOM_MOVES: dolly (along the view), strafe (across it), orbit (around a place 1.5 to 3 m ahead, which
    stays at its pixel), each over 0.3 to 1.5 m or a third of the room's shorter side, whichever is less; or pan (on the
    spot, by 10 to 30 degrees). `info` of each camera records the move and how far along it is, in metres or degrees.
    Whether the cameras stand is for `cameras.room_faults` to say.
    """
    g = generator
    move = ROOM_MOVES[int(g.integers(0, len(ROOM_MOVES)))]
    side, ahead = float(g.choice([-1.0, 1.0])), float(g.uniform(1.5, 3.0))
    low, high = storey(camera.eye, np.reshape(inside, (-1, 2, 3)))
    shorter = float((high - low)[[0, 2]].min())
    longest = max(0.3, min(1.5, shorter / 3))
    reach, angle = side * float(g.uniform(0.3, longest)), side * float(g.uniform(10.0, 30.0))
    rotation = camera.world_from_camera[:3, :3]
    forward = _horizontal(rotation[:, 2])
    across = np.cross(forward, UP)
    path = []
    for share in _shares(settings.frames):
        if move == "pan":
            here, along = turned(camera, angle * share), angle * share
        elif move == "orbit":
            along = reach * share
            here = orbit(camera, camera.eye + ahead * forward, float(np.degrees(along / ahead)))
        else:
            along = reach * share
            here = moved(camera, along * (forward if move == "dolly" else across))
        gaze = here.world_from_camera[:3, 2]
        yaw = float(np.degrees(np.arctan2(gaze[0], gaze[2])))
        path.append(replace(here, info={**camera.info, "yaw": yaw, "move": move, "along": along}))
    return path


def moved(camera: Camera, by: np.ndarray) -> Camera:
    """The camera carried by (3,) without turning."""
    pose = camera.world_from_camera.copy()
    pose[:3, 3] += by
    return replace(camera, world_from_camera=pose)


def _horizontal(vector: np.ndarray) -> np.ndarray:
    """Unit vector of the horizontal part; rooms are looked at with at most 20 degrees of pitch."""
    flat = vector * [1.0, 0.0, 1.0]
    return np.asarray(flat / np.linalg.norm(flat))


def _shares(frames: int) -> list[float]:
    """0 at the first frame, 1 at the last."""
    return [float(s) for s in np.arange(frames) / max(frames - 1, 1)]
