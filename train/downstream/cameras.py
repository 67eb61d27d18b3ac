"""Camera paths through a prediction: around it, towards it, or read from a file.

The world is the frame of the camera that the prediction was made for (OpenCV: +x right, +y down, +z forward), so the
first camera of every named path is that camera itself.
"""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards import committed
from train.downstream.stack import Stack

LARGEST_FILE = 64 << 20
MOST_FRAMES = 10_000
LARGEST_SIDE = 8192
LARGEST_NUMBER = 1e12  # frames are made in float32
RIGID = 1e-4  # how far R^T R may be from the identity: six decimals, written by others, are enough
AMOUNTS = {"orbit": 360.0, "dolly": 0.5, "spiral": 0.15}  # what --amount is without being given
TURNS = 2  # of a spiral


@dataclass(frozen=True, eq=False)
class Cameras:
    """world_from_camera (N,4,4) float64 rigid motions | K (3,3) in pixels of frames of height x width."""

    world_from_camera: np.ndarray
    K: np.ndarray
    height: int
    width: int


def cameras(path: str, stack: Stack, frames: int = 49, amount: float | None = None, elevation: float = 0.0) -> Cameras:
    """The cameras of `orbit`, `dolly`, `spiral`, or of a file FILE.json, with the intrinsics of the prediction.

    orbit: about the middle of the points, around the upward axis; amount in degrees (360), so that the last frame is
    the first one again. dolly: straight on, by a part of the way to the middle (0.5; negative: back). spiral: looking
    at the middle, two turns of a growing circle in the image plane, whose radius ends at a part of the distance to it
    (0.15). elevation: by how many degrees the source camera looks down (see voxels.upright).
    ValueError for an unknown path; of a file, see `read_cameras`.
    """
    if path.lower().endswith(".json"):
        return read_cameras(Path(path), stack)
    if path not in AMOUNTS:
        near = difflib.get_close_matches(path, AMOUNTS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"--path {path} is none of {', '.join(AMOUNTS)}, FILE.json{hint}")
    amount = AMOUNTS[path] if amount is None else amount
    middle = centre_of(stack.points)
    made = {"orbit": _orbit, "dolly": _dolly, "spiral": _spiral}[path]
    part = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    height, width = stack.there.shape[1:]
    return Cameras(made(part, amount, middle, elevation), stack.K, height, width)


def centre_of(points: np.ndarray) -> np.ndarray:
    """(3,) middle of the box of points (N,3), less one percent on each side, so that a stray point does not move it."""
    return np.asarray(np.percentile(points, [1, 99], axis=0).mean(axis=0), np.float64)


def read_cameras(path: Path, stack: Stack) -> Cameras:
    """{"world_from_camera": [N times 4x4], "K": 3x3, "height": H, "width": W}; without the last three, the camera of
    the prediction. The folder of frames that `worldtrace guidance` writes has such a file.

    FileNotFoundError, or ValueError in a sentence, for a file that is not so.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of cameras")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; cameras are read from at most {LARGEST_FILE:,}")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(told, dict) or "world_from_camera" not in told:
        raise ValueError(f'{path} is no object with a list "world_from_camera" of 4x4 matrices')
    poses = _numbers(path, "world_from_camera", told["world_from_camera"])
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not 1 <= len(poses) <= MOST_FRAMES:
        raise ValueError(f"{path}: world_from_camera is {poses.shape}, not (N,4,4) with N from 1 to {MOST_FRAMES}")
    turn = poses[:, :3, :3]
    off = np.abs(turn.transpose(0, 2, 1) @ turn - np.eye(3)).max(axis=(1, 2)) + (np.linalg.det(turn) < 0)
    off = np.maximum(off, np.abs(poses[:, 3] - [0, 0, 0, 1]).max(axis=1))
    if (off > RIGID).any():
        raise ValueError(f"{path}: camera {int(off.argmax())} is no rotation and translation with the last row 0 0 0 1")
    if not {"K", "height", "width"} & set(told):
        return Cameras(poses, stack.K, *stack.there.shape[1:])
    if missing := [name for name in ("K", "height", "width") if name not in told]:
        raise ValueError(f"{path} has no {missing[0]}; give K, height and width together, or none of them")
    K = _numbers(path, "K", told["K"])
    if K.shape != (3, 3) or K[0, 0] <= 0 or K[1, 1] <= 0 or np.abs(K[2] - [0, 0, 1]).max() > 1e-9:
        raise ValueError(f"{path}: K is no 3x3 matrix of intrinsics with the last row 0 0 1")
    sides = [told["height"], told["width"]]
    if not all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in sides):
        raise ValueError(f"{path}: height and width must be whole numbers of pixels from 1 to {LARGEST_SIDE}")
    return Cameras(poses, K, *sides)


def write_cameras(path: Path, cameras: Cameras, **more: object) -> Path:
    """What `read_cameras` reads, with further entries for people and programs."""
    told = {
        "height": cameras.height,
        "width": cameras.width,
        "K": cameras.K.tolist(),
        **more,
        "world_from_camera": cameras.world_from_camera.tolist(),
    }
    with committed(path) as file:
        file.write(json.dumps(told, indent=1).encode())
    return path


def _numbers(path: Path, name: str, told: object) -> np.ndarray:
    try:
        array = np.array(told, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{path}: {name} is no matrix of numbers") from None
    if not (np.abs(array) <= LARGEST_NUMBER).all():
        raise ValueError(f"{path}: {name} has a number that is not finite, or beyond {LARGEST_NUMBER:.0e}")
    return array


def _orbit(part: np.ndarray, degrees: float, middle: np.ndarray, elevation: float) -> np.ndarray:
    """Turns of the source camera about the upward axis through the middle: counter-clockwise, seen from above."""
    tilt = np.radians(elevation)
    x, y, z = 0.0, -np.cos(tilt), -np.sin(tilt)  # upward, in the camera frame
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees * part)[:, None, None]
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return _motions(turn, middle - turn @ middle)


def _dolly(part: np.ndarray, amount: float, middle: np.ndarray, elevation: float) -> np.ndarray:
    steps = np.zeros((len(part), 3))
    steps[:, 2] = part * amount * middle[2]
    return _motions(np.broadcast_to(np.eye(3), (len(part), 3, 3)), steps)


def _spiral(part: np.ndarray, amount: float, middle: np.ndarray, elevation: float) -> np.ndarray:
    """Positions on a spiral in the image plane; each looks at what the source camera sees at the middle's depth."""
    angle = 2 * np.pi * TURNS * part
    radius = amount * middle[2] * part
    position = np.stack([radius * np.sin(angle), radius * (np.cos(angle) - 1), np.zeros_like(part)], axis=1)
    forward = np.array([0.0, 0.0, middle[2]]) - position
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(np.array([0.0, 1.0, 0.0]), forward)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return _motions(np.stack([right, np.cross(forward, right), forward], axis=2), position)


def _motions(turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
    poses = np.zeros((len(shift), 4, 4))
    poses[:, :3, :3], poses[:, :3, 3], poses[:, 3, 3] = turn, shift, 1
    return poses
