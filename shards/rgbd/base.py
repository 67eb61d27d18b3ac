"""What a reader of an RGBD corpus gives: scenes, their frames, and of each frame an image, metric depth and intrinsics.

A reader is one file of this folder and one frozen dataclass that follows `Corpus`: its first field is `folder`, further
ones are its options (text, numbers, true or false), each with a default. It is opened again in every process, so it
holds plain values; what it keeps between frames it keeps in caches of its own.

Conventions of a `Frame` are those of the contract (shards/contract.py): OpenCV axes, z along the optical axis, pixel
centres at (u + 0.5, v + 0.5). A corpus whose files put the centre of the first pixel at (0, 0), as OpenCV's own
calibration does, adds 0.5 to cx and cy (`half_pixel`).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from ..contract import LayeredView

Reason = Literal[
    "missing_file",  # a frame lacks its image, depth or camera
    "outside_folder",  # a link or a name leads out of the corpus
    "too_large",  # more bytes or pixels than any file of the corpus has
    "truncated",  # a file ends before its header says
    "unreadable_image",
    "unreadable_depth",
    "unreadable_camera",  # intrinsics, pose or calibration
    "unreadable_scene",  # a container, so that none of its frames can be listed
    "size_mismatch",  # image and depth cannot be of one camera
    "distorted_camera",  # a distortion that the reader does not undo
    "absurd_intrinsics",
    "absurd_pose",
    "no_valid_depth",
    "timed_out",  # reading took longer than allowed
    "crashed",  # the process that read it died, or the reader failed in a way that it does not foresee
]
REASONS: tuple[str, ...] = get_args(Reason)

MIN_VALID = 64  # pixels with depth, below which a frame teaches nothing
FOCAL = (0.2, 30.0)  # of the longer image side: fields of view from 2 to 136 degrees
SHIFT = 0.5  # of a side, by which the axis may miss the picture: shift lenses of Hypersim do by up to 0.27
FARTHEST = 1e5  # units; what lies beyond is an encoding of "none" that the reader missed


class Unreadable(Exception):
    """A scene or frame that cannot be used: a typed reason and one sentence for people. It ends up in the ledger."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message

    def __reduce__(self) -> tuple[type["Unreadable"], tuple[Reason, str]]:
        return type(self), (self.reason, self.message)


@dataclass(frozen=True)
class Scene:
    """`name` is unique in its corpus. Scenes that show one `place` (two scans of a room) fall into one split."""

    name: str
    place: str = ""

    def __post_init__(self) -> None:
        if not self.place:
            object.__setattr__(self, "place", self.name)


@dataclass(frozen=True, eq=False)
class Frame:
    """image (H,W,3) uint8 sRGB | depth (H,W) float32: z in metres (corpus units with flag `relative_scale`), 0 where
    unknown | K (3,3) float64 of this pixel grid | world_from_camera (4,4) float64 rigid, None where unknown.

    Flags that the rest of worldtrace knows: `sparse` (projected LiDAR: most pixels have no depth), `relative_scale`.
    """

    image: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    world_from_camera: np.ndarray | None = None
    flags: tuple[str, ...] = ()


class Corpus(Protocol):
    """`licence` is what the terms of the corpus are called, `layout` what its folder looks like, in one line each."""

    name: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    synthetic: ClassVar[bool]
    layout: ClassVar[str]

    @property
    def folder(self) -> Path: ...

    def scenes(self) -> Iterable[Scene]:
        """Those found in the folder, in the order of their names, by listings alone. None where it is not this corpus;
        ValueError in one sentence for what the user must mend first.
        """

    def frames(self, scene: Scene) -> Sequence[str]:
        """The names of its frames, in their order in time. Unreadable where the scene cannot be listed."""

    def read(self, scene: Scene, frame: str) -> Frame:
        """Unreadable where it cannot be used; never another exception for what a file holds."""


@runtime_checkable
class Layered(Protocol):
    """A corpus whose frames are samples of several layers already: it has `view` in place of `read`."""

    def view(self, scene: Scene, number: int, frame: str, layers: int) -> LayeredView:
        """Frame `number` of the scene, with its origin, regime, key and flags. Unreadable where it cannot be used."""


def checked(frame: Frame) -> Frame:
    """The frame, after the tests that hold for all corpora. Depth that is not finite and positive becomes 0."""
    height, width = frame.depth.shape
    if frame.image.shape != (height, width, 3) or frame.image.dtype != np.uint8:
        raise Unreadable(
            "size_mismatch", f"the image is {frame.image.shape} {frame.image.dtype} and the depth {height}x{width}"
        )
    check_intrinsics(frame.K, height, width)
    if frame.world_from_camera is not None:
        check_pose(frame.world_from_camera)
    with np.errstate(invalid="ignore"):
        depth = np.where((frame.depth > 0) & (frame.depth < FARTHEST), frame.depth, 0).astype(np.float32)
    if (count := int(np.count_nonzero(depth))) < MIN_VALID:
        raise Unreadable("no_valid_depth", f"{count} pixels have depth, fewer than {MIN_VALID}")
    return Frame(frame.image, depth, frame.K, frame.world_from_camera, frame.flags)


def check_intrinsics(K: np.ndarray, height: int, width: int) -> None:
    """Unreadable where K cannot be that of a camera with a `height` x `width` image and a normal lens."""
    K = np.asarray(K, np.float64)
    if K.shape != (3, 3) or not np.isfinite(K).all() or K[2].tolist() != [0, 0, 1] or K[1, 0] != 0:
        raise Unreadable(
            "absurd_intrinsics", f"K is {np.round(K, 3).tolist()}, not [[fx, s, cx], [0, fy, cy], [0, 0, 1]]"
        )
    (fx, skew, cx), (_, fy, cy) = K[0], K[1]
    longest = max(height, width)
    if not all(FOCAL[0] * longest <= f <= FOCAL[1] * longest for f in (fx, fy)) or not 0.25 <= fx / fy <= 4:
        raise Unreadable(
            "absurd_intrinsics", f"focal lengths {fx:.6g}, {fy:.6g} cannot be those of {width}x{height} pixels"
        )
    beside = max(-cx / width, cx / width - 1, -cy / height, cy / height - 1)
    if beside > SHIFT or abs(skew) > 0.1 * fx:
        raise Unreadable(
            "absurd_intrinsics", f"principal point ({cx:.6g}, {cy:.6g}), skew {skew:.3g} in {width}x{height} pixels"
        )


def check_pose(pose: np.ndarray) -> None:
    """Unreadable unless (4,4), finite and rigid: R R^T = 1 to 1 %, which scanned trajectories keep, and no mirror."""
    pose = np.asarray(pose, np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all() or np.abs(pose).max() > 1e9:
        raise Unreadable("absurd_pose", "the pose is not a finite 4x4 matrix (tracking was lost here)")
    R = pose[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > 0.01 or np.linalg.det(R) < 0 or pose[3].tolist() != [0, 0, 0, 1]:
        raise Unreadable("absurd_pose", f"the pose is no rigid motion: {np.round(pose, 3).tolist()}")


def intrinsics(fx: float, fy: float, cx: float, cy: float, skew: float = 0.0) -> np.ndarray:
    """K (3,3) float64; cx, cy with pixel centres at +0.5."""
    return np.array([[fx, skew, cx], [0, fy, cy], [0, 0, 1]], np.float64)


def half_pixel(K: np.ndarray) -> np.ndarray:
    """K of a file whose first pixel has its centre at (0, 0) -> K with that centre at (0.5, 0.5)."""
    moved = np.array(K, np.float64)
    moved[:2, 2] += 0.5 * moved[2, 2]
    return moved


def z_from_distance(distance: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Distance to the camera along each pixel's ray (H,W) -> z along the optical axis (H,W) float32."""
    height, width = distance.shape
    v, u = np.mgrid[0:height, 0:width].astype(np.float64) + 0.5
    y = (v - K[1, 2]) / K[1, 1]
    x = (u - K[0, 2] - K[0, 1] * y) / K[0, 0]
    return np.asarray(distance / np.sqrt(x * x + y * y + 1), np.float32)


def origin_sha256(corpus: str, place: str) -> str:
    """What decides the split of all frames of a place (shards/split.py)."""
    return hashlib.sha256(f"rgbd\0{corpus}\0{place}".encode(errors="surrogateescape")).hexdigest()
