"""Anybody's images with depth and intrinsics, in folders of this layout (docs/rgbd.md):

    images/NAME.jpg             or .jpeg, .png, .webp, .bmp
    depth/NAME.png              16-bit grey; or .npy, .pfm, .exr: floats. 0, NaN and infinite: unknown
    intrinsics.json             of all frames, or intrinsics/NAME.json of one:
                                {"K": [[fx, s, cx], [0, fy, cy], [0, 0, 1]]} or {"fx":, "fy":, "cx":, "cy":}; with
                                "width" and "height" of the picture that it holds for (else: of the image),
                                "pixel_centre": 0.5 (default) or 0, where the centre of the first pixel lies,
                                "world_from_camera": [[4x4]]
    poses/NAME.txt              optional: 16 or 12 numbers, rows of world_from_camera, axes right, down, forward
    masks/NAME.png              optional: 0 where the depth is unknown

or SCENE/images, SCENE/depth, ... for several scenes; intrinsics.json may then lie above them. Images must be free of
distortion. Where depth is of another resolution, the same shape is meant: it is looked up on the grid of the image.
"""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from . import files
from .base import Frame, Scene, Unreadable, half_pixel, z_from_distance
from .geometry import aligned, rescaled
from .pixels import read_exr

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
DEPTHS = (".png", ".npy", ".pfm", ".exr")
CAMERA_KEYS = ("K", "fx", "fy", "cx", "cy", "skew", "width", "height", "pixel_centre", "world_from_camera")
MILLIMETRES = 1000.0  # per metre: what 16-bit depth holds unless it is said otherwise


@dataclass(frozen=True)
class Folder:
    """`depth_scale`: units of the files per metre (0: 1000 for PNG, 1 for floats). `depth_kind`: `z` or `distance`.
    `unknown`: one more code of unknown depth, as stored, such as 65535. `far`: metres, beyond is unknown (0: no end).
    `relative`: depth has no metric scale; `sparse`: most pixels have none (both become flags).
    """

    folder: Path
    depth_scale: float = 0.0
    depth_kind: str = "z"
    unknown: str = ""
    far: float = 0.0
    relative: bool = False
    sparse: bool = False
    licence: str = "unknown"
    name: ClassVar[str] = "folder"
    title: ClassVar[str] = "a folder of images, depth and intrinsics"
    synthetic: ClassVar[bool] = False
    layout: ClassVar[str] = "[SCENE/]{images,depth}/NAME.*, intrinsics.json or intrinsics/NAME.json"

    def __post_init__(self) -> None:
        if self.depth_kind not in ("z", "distance"):
            raise ValueError(f"option depth_kind of corpus folder is {self.depth_kind!r}: give z or distance")
        for option in ("depth_scale", "far"):
            if not 0 <= getattr(self, option) < math.inf:
                raise ValueError(f"option {option} of corpus folder is {getattr(self, option)}: give 0 or more")
        try:
            float(self.unknown or 0)
        except ValueError:
            raise ValueError(f"option unknown of corpus folder is {self.unknown!r}: give a number") from None

    def scenes(self) -> Iterator[Scene]:
        if (self.folder / "images").is_dir():
            yield Scene(self.folder.resolve().name)
            return
        for name in files.listing(self.folder):
            if (self.folder / name / "images").is_dir():
                yield Scene(name)

    def frames(self, scene: Scene) -> list[str]:
        names = files.listing(self._root(scene) / "images")
        found = [name for name in names if Path(name).suffix.lower() in IMAGES]
        if len({Path(name).stem for name in found}) < len(found):
            raise Unreadable("unreadable_scene", f"two images of {scene.name} have one name but for the extension")
        return found

    def read(self, scene: Scene, frame: str) -> Frame:
        root, stem = self._root(scene), Path(frame).stem
        image = files.read_image(self._file(root / "images" / frame))
        stored, scale = self._depth(root, stem)
        with np.errstate(invalid="ignore", over="ignore"):
            depth = stored.astype(np.float64) / scale
            usable = np.isfinite(depth) & (depth > 0) & (depth <= (self.far or math.inf))
        if self.unknown:
            usable &= stored != float(self.unknown)
        mask = root / "masks" / f"{stem}.png"
        if mask.exists():
            shown = files.read_image(self._file(mask))
            if shown.shape[:2] != depth.shape:
                raise Unreadable("size_mismatch", f"the mask of {stem} is {shown.shape[:2]}, its depth {depth.shape}")
            usable &= shown.any(axis=-1)
        depth = np.where(usable, depth, 0).astype(np.float32)
        camera = self._camera(root, stem)
        K = intrinsics_of(camera, *image.shape[:2])
        image, depth, K = self._on_one_grid(stem, image, depth, K)
        flags = tuple(flag for flag, set_ in (("relative_scale", self.relative), ("sparse", self.sparse)) if set_)
        return Frame(image, depth, K, self._pose(root, stem, camera), flags)

    def _on_one_grid(
        self, stem: str, image: np.ndarray, depth: np.ndarray, K: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        (height, width), (rows, columns) = image.shape[:2], depth.shape
        if abs(width * rows - height * columns) > max(height * columns, width * rows) // 100:
            raise Unreadable("size_mismatch", f"{stem}: the image is {height}x{width}, the depth {rows}x{columns}")
        K_depth = rescaled(K, columns / width, rows / height)
        if self.depth_kind == "distance":
            depth = z_from_distance(depth, K_depth)
        if (height, width) == (rows, columns):
            return image, depth, K
        return aligned(image, K, depth, K_depth)

    def _root(self, scene: Scene) -> Path:
        return self.folder if (self.folder / "images").is_dir() else self.folder / scene.name

    def _file(self, path: Path) -> Path:
        return files.inside(self.folder, str(path.relative_to(self.folder)))

    def _depth(self, root: Path, stem: str) -> tuple[np.ndarray, float]:
        """(H,W) as stored, units per metre."""
        found = [kind for kind in DEPTHS if (root / "depth" / f"{stem}{kind}").exists()]
        if len(found) != 1:
            raise Unreadable(
                "missing_file", f"{stem} has {len(found)} of depth/{stem}{{{','.join(DEPTHS)}}}: one is read"
            )
        path = self._file(root / "depth" / f"{stem}{found[0]}")
        match found[0]:
            case ".png":
                stored = files.read_depth_png(path)
            case ".npy":
                stored = files.read_npy(path)
            case ".pfm":
                stored = files.read_pfm(path)
            case _:
                stored = read_exr(path)
        stored = stored[..., 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
        if stored.ndim != 2 or not stored.size:
            raise Unreadable("unreadable_depth", f"{path.name} holds an array {stored.shape}, not (height, width)")
        whole_numbers = stored.dtype.kind in "iu"
        return stored, self.depth_scale or (MILLIMETRES if whole_numbers else 1.0)

    def _camera(self, root: Path, stem: str) -> Mapping[str, Any]:
        for path in (root / "intrinsics" / f"{stem}.json", root / "intrinsics.json", self.folder / "intrinsics.json"):
            if path.exists():
                camera = files.read_json(self._file(path))
                if not isinstance(camera, dict):
                    raise Unreadable("unreadable_camera", f"{path.name} is not a map")
                return camera
        raise Unreadable("missing_file", f"{stem} has no intrinsics: intrinsics.json or intrinsics/{stem}.json")

    def _pose(self, root: Path, stem: str, camera: Mapping[str, Any]) -> np.ndarray | None:
        path = root / "poses" / f"{stem}.txt"
        if path.exists():
            text = files.read_bytes(self._file(path), 1 << 16)
            count = 16 if len(text.replace(b",", b" ").split()) >= 16 else 12
            numbers = files.read_numbers(text, count, "absurd_pose").reshape(-1, 4)
            return np.vstack([numbers[:3], numbers[3:] if count == 16 else [[0, 0, 0, 1]]])
        return _matrix(camera["world_from_camera"], 4) if "world_from_camera" in camera else None


def intrinsics_of(camera: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The K (3,3) that a map of the layout above gives for a picture of `height` x `width`. Unreadable says what is
    amiss; an unknown key is refused with the nearest known one, since it may be a distortion.
    """
    for key in camera:
        if key not in CAMERA_KEYS:
            near = difflib.get_close_matches(key, CAMERA_KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(CAMERA_KEYS)}"
            raise Unreadable("unreadable_camera", f"intrinsics have a key {key[:40]!r}: {hint}")
    if ("K" in camera) == any(name in camera for name in ("fx", "fy", "cx", "cy", "skew")):
        raise Unreadable("unreadable_camera", "intrinsics give K or fx, fy, cx, cy: one of the two")
    if "K" in camera:
        K = _matrix(camera["K"], 3)
    else:
        fx, fy, cx, cy = (_number(camera, name) for name in ("fx", "fy", "cx", "cy"))
        K = np.array([[fx, _number(camera, "skew", 0.0), cx], [0, fy, cy], [0, 0, 1]])
    centre = _number(camera, "pixel_centre", 0.5)
    if centre not in (0, 0.5):
        raise Unreadable("unreadable_camera", f"pixel_centre is {centre}, not 0 or 0.5")
    K = half_pixel(K) if centre == 0 else K
    of_width, of_height = _number(camera, "width", float(width)), _number(camera, "height", float(height))
    if min(of_width, of_height) < 1:
        raise Unreadable("unreadable_camera", f"intrinsics are of {of_width}x{of_height} pixels")
    return rescaled(K, width / of_width, height / of_height)


def _number(camera: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = camera.get(name, default)
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise Unreadable("unreadable_camera", f"{name} of the intrinsics is {str(value)[:40]}, not a number")
    return number


def _matrix(rows: Any, size: int) -> np.ndarray:
    try:
        matrix = np.array(rows, np.float64)
    except (OverflowError, TypeError, ValueError):
        matrix = np.zeros(())
    if matrix.shape != (size, size):
        raise Unreadable("unreadable_camera", f"a matrix of the camera is {str(rows)[:60]}, not {size}x{size} numbers")
    return matrix
