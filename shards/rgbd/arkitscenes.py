"""ARKitScenes: rooms filmed by an iPad, with depth of its ToF sensor and of a laser scanner.

Source of the format: DATA.md, raw/README.md, depth_upsampling/README.md and tenFpsDataLoader.py of
github.com/apple/ARKitScenes.

    FOLDER/(Training|Validation)/VIDEO/                          "raw" and "upsampling"
    FOLDER/(Training|Validation)/VIDEO/VIDEO_frames/             "3dod"
        lowres_wide/VIDEO_TIME.png      256x192   lowres_depth/VIDEO_TIME.png    confidence/VIDEO_TIME.png
        wide/VIDEO_TIME.png             1920x1440 highres_depth/VIDEO_TIME.png   (`color` instead of `wide`: upsampling)
        lowres_wide_intrinsics, wide_intrinsics: VIDEO_TIME.pincam, "width height fx fy cx cy"
        lowres_wide.traj: "time, rotation as axis times angle, translation" of world to camera, in metres

Depth is 16-bit PNG in millimetres, z, 0 where unknown. Confidence (0, 1, 2) is of the ToF depth: below the option
`confidence` it is taken as unknown. Names of the camera files may differ by a millisecond from those of the pictures.
Poses are those of the trajectory within 5 ms of the picture, at 60 Hz or less; without one the frame has none. Apple's
calibration puts no distortion into .pincam: the wide camera's pictures are rectified. Intrinsics are used as the
toolkit does, first centre at (0, 0): 0.5 is added.

    metadata.csv                    video_id, visit_id, sky_direction (Up, Left, Right or Down), ...

Where it lies in the folder, pictures of a tablet that was held upright are turned so that the sky is above, with their
depth, K and pose, as the toolkit turns them; and videos of one visit share a split. Without it pictures stay as stored.

Option `depth`: `lowres` or `highres` (laser scanner; the paper's ground truth), or `auto`: highres of the videos that
have it, else lowres.
"""

import csv
import io
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import Frame, Scene, Unreadable, half_pixel, intrinsics
from .files import inside, listing, read_bytes, read_depth_png, read_gray, read_image, read_numbers
from .geometry import aligned
from .pose import rigid
from .turn import turned

SLACK = 0.005  # seconds
FOLDS = ("Training", "Validation", "Test", "")
TURNS = {"Up": 0, "Right": 1, "Down": 2, "Left": 3}  # quarters of a circle counterclockwise
KINDS = {"highres": ("highres_depth", ("wide", "color")), "lowres": ("lowres_depth", ("lowres_wide",))}


@dataclass(frozen=True)
class ARKitScenes:
    folder: Path
    depth: str = "auto"
    confidence: int = 1

    name: ClassVar[str] = "arkitscenes"
    title: ClassVar[str] = "ARKitScenes"
    licence: ClassVar[str] = "ARKitScenes licence (Apple; LICENSE of its repository)"
    synthetic: ClassVar[bool] = False
    layout: ClassVar[str] = "(Training|Validation)/VIDEO with lowres_depth and lowres_wide, or highres_depth and wide"

    def __post_init__(self) -> None:
        if self.depth not in (*KINDS, "auto"):
            raise ValueError(f"option depth of corpus {self.name} is {self.depth!r}: give lowres, highres or auto")

    def scenes(self) -> Iterable[Scene]:
        """The name is the video. Videos of one visit are one place, where metadata.csv tells it."""
        metadata = _read_metadata(self.folder)
        for fold in FOLDS:
            for video in listing(self.folder / fold):
                if (fold or video not in FOLDS) and self._kind(f"{fold}/{video}".lstrip("/")) is not None:
                    visit = metadata.get(video, ("", ""))[0]
                    yield Scene(f"{fold}/{video}".lstrip("/"), f"visit-{visit}" if visit else video)

    def frames(self, scene: Scene) -> Sequence[str]:
        found = self._kind(scene.name)
        if found is None:
            raise Unreadable("unreadable_scene", f"{scene.name} has no depth")
        root, kind = found
        depths = set(listing(root / KINDS[kind][0]))
        names = [name for name in listing(root / _images(root, kind)) if name in depths and name.endswith(".png")]
        return sorted(names, key=lambda name: (len(name), name))  # by time: all have three decimals

    def read(self, scene: Scene, frame: str) -> Frame:
        found = self._kind(scene.name)
        if found is None:
            raise Unreadable("unreadable_scene", f"{scene.name} has no depth")
        root, kind = found
        image = read_image(inside(self.folder, str(root / _images(root, kind) / frame)))
        depth = read_depth_png(inside(self.folder, str(root / KINDS[kind][0] / frame))) / np.float32(1000)
        if kind == "lowres" and self.confidence > 0:
            sure = read_gray(inside(self.folder, str(root / "confidence" / frame)))
            if sure.shape != depth.shape:
                raise Unreadable("size_mismatch", f"the confidence is {sure.shape}, its depth {depth.shape}")
            depth = np.where(sure >= self.confidence, depth, np.float32(0))
        K, height, width = self._camera(root, kind, frame)
        if image.shape[:2] != (height, width):
            raise Unreadable("size_mismatch", f"the image is {image.shape[:2]}, its camera file of {(height, width)}")
        if abs(depth.shape[0] * width - depth.shape[1] * height) > max(width, height):
            raise Unreadable("size_mismatch", f"the image is {(height, width)}, its depth {depth.shape}")
        if depth.shape != (height, width):
            K_depth = np.diag([depth.shape[1] / width, depth.shape[0] / height, 1]) @ K
            image, depth, K = aligned(image, K, depth, K_depth)
        sky = _metadata(self.folder).get(Path(scene.name).name, ("", ""))[1]
        return turned(Frame(image, depth, K, self._pose(root, frame)), TURNS.get(sky, 0))

    def _kind(self, scene: str) -> tuple[Path, str] | None:
        """Where the assets of the video lie, and which of its depths is taken."""
        video = self.folder / scene
        for root in (video, video / f"{video.name}_frames"):
            for kind in KINDS if self.depth == "auto" else (self.depth,):
                if (root / KINDS[kind][0]).is_dir() and (root / _images(root, kind)).is_dir():
                    return root, kind
        return None

    def _camera(self, root: Path, kind: str, frame: str) -> tuple[np.ndarray, int, int]:
        stem = Path(frame).stem
        folders = [f"{name}_intrinsics" for name in KINDS[kind][1]]
        video, _, time = stem.rpartition("_")
        for folder in folders:
            for shift in (0.0, -0.001, 0.001):
                try:
                    name = f"{stem}.pincam" if not shift else f"{video}_{float(time) + shift:.3f}.pincam"
                except ValueError:
                    continue
                if (root / folder / name).is_file():
                    values = read_numbers(inside(self.folder, str(root / folder / name)), 6)
                    width, height, fx, fy, cx, cy = values
                    if not (np.isfinite(values).all() and 1 <= width <= 1 << 16 and 1 <= height <= 1 << 16):
                        raise Unreadable("unreadable_camera", f"{name} holds {values.tolist()}")
                    return half_pixel(intrinsics(fx, fy, cx, cy)), int(height), int(width)
        raise Unreadable("missing_file", f"{stem}.pincam is missing in {' and '.join(folders)}")

    def _pose(self, root: Path, frame: str) -> np.ndarray | None:
        path = root / "lowres_wide.traj"
        if not path.is_file():
            return None
        times, poses = _trajectory(inside(self.folder, str(path)))
        try:
            time = float(Path(frame).stem.rpartition("_")[2])
        except ValueError:
            return None
        at = bisect_left(times, time)
        near = [i for i in (at - 1, at) if 0 <= i < len(times) and abs(times[i] - time) <= SLACK]
        return poses[min(near, key=lambda i: abs(times[i] - time))] if near else None


def _images(root: Path, kind: str) -> str:
    names = KINDS[kind][1]
    return next((name for name in names if (root / name).is_dir()), names[0])


@lru_cache(maxsize=2)
def _trajectory(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """(times, world_from_camera of each), in the order of time."""
    found = []
    for line in read_bytes(path).splitlines():
        if line.strip():
            time, *values = read_numbers(line, 7).tolist()
            camera_from_world = rigid(rotation(np.array(values[:3])), values[3:])
            if not np.isfinite(camera_from_world).all():
                raise Unreadable("unreadable_camera", f"{path.name} holds a pose that is not finite")
            found.append((time, np.linalg.inv(camera_from_world)))
    found.sort(key=lambda each: each[0])
    return [time for time, _ in found], [pose for _, pose in found]


def rotation(axis_angle: np.ndarray) -> np.ndarray:
    """Rodrigues: axis times angle in radians (3,) -> rotation (3,3)."""
    angle = float(np.linalg.norm(axis_angle))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = axis_angle / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def _read_metadata(folder: Path) -> dict[str, tuple[str, str]]:
    """Video -> (visit, where the sky is), by the columns video_id, visit_id and sky_direction of metadata.csv; empty
    texts for what it does not say.
    """
    for name in ("metadata.csv", "raw/metadata.csv", "upsampling/metadata.csv"):
        try:
            text = read_bytes(inside(folder, name)).decode(errors="replace")
        except Unreadable:
            continue
        found = {}
        with suppress(csv.Error):  # a row that is none ends the table
            for row in csv.DictReader(io.StringIO(text)):
                visit, sky = (str(row.get(column) or "").strip() for column in ("visit_id", "sky_direction"))
                found[str(row.get("video_id"))] = ("" if visit in ("NA", "nan") else visit, sky)
        return found
    return {}


_metadata = lru_cache(maxsize=1)(_read_metadata)  # for frames; a listing looks anew
