"""Hypersim: photorealistic renderings of indoor scenes.

Source: README.md and contrib/mikeroberts3000 of the repository apple/ml-hypersim. A scene is `ai_VVV_NNN/`; in it

    images/scene_cam_XX_geometry_hdf5/frame.IIII.depth_meters.hdf5   distance to the optical centre in metres, along
                                                                     the ray: converted; NaN or infinite: nothing there
    images/scene_cam_XX_final_hdf5/frame.IIII.color.hdf5             linear colour, high dynamic range
    images/scene_cam_XX_geometry_hdf5/frame.IIII.render_entity_id.hdf5    -1: nothing there (for the tone mapping)
    images/scene_cam_XX_final_preview/frame.IIII.tonemap.jpg         taken where the colour is missing; flag `preview`
    _detail/cam_XX/camera_keyframe_{positions,orientations}.hdf5     asset units; axes x right, y up, looking along -z
    _detail/metadata_scene.csv                                       meters_per_asset_unit

Every HDF5 file holds one array, `dataset`. The colour is tone mapped as scene_generate_images_tonemap.py does.

Over half of the scenes were rendered by a shifted or tilted lens. `metadata_camera_parameters.csv` (of the repository,
to be copied into the folder) gives the matrix from image to camera rays of every scene. It is split here into a
rotation and a K: the camera whose axis is perpendicular to the tilted image plane sees the same rays, so nothing is
approximated. Pixel centres lie at +0.5. There is no distortion.
"""

import csv
import functools
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from . import files
from .base import Frame, Reason, Scene, Unreadable, z_from_distance
from .pose import OPENGL, rigid

CAMERAS = "metadata_camera_parameters.csv"
GEOMETRY = re.compile(r"scene_(cam_\d{1,6})_geometry_hdf5\Z", re.ASCII)
DEPTH = re.compile(r"frame\.(\d{1,9})\.depth_meters\.hdf5\Z", re.ASCII)


@dataclass(frozen=True)
class Hypersim:
    """`folder` holds the scenes and metadata_camera_parameters.csv."""

    folder: Path
    name: ClassVar[str] = "hypersim"
    title: ClassVar[str] = "Hypersim"
    licence: ClassVar[str] = "CC-BY-SA-3.0 (Hypersim dataset)"
    synthetic: ClassVar[bool] = True
    layout: ClassVar[str] = "ai_VVV_NNN/{images,_detail}, metadata_camera_parameters.csv"

    def scenes(self) -> Iterator[Scene]:
        found = [name for name in files.listing(self.folder) if name.startswith("ai_")]
        if found and not (self.folder / CAMERAS).is_file():
            raise ValueError(
                f"{self.folder / CAMERAS} is missing: copy it there from contrib/mikeroberts3000 of the repository "
                "apple/ml-hypersim, for half of the scenes have lenses that nothing else describes"
            )
        for name in found:
            if (self.folder / name / "images").is_dir():
                yield Scene(name)

    def frames(self, scene: Scene) -> list[str]:
        images = self.folder / scene.name / "images"
        return [
            f"{camera[1]}.{depth[1]}"
            for camera in filter(None, map(GEOMETRY.match, files.listing(images)))
            for depth in filter(None, map(DEPTH.match, files.listing(images / camera[0])))
        ]

    def read(self, scene: Scene, frame: str) -> Frame:
        camera, number = frame.split(".")
        images = f"{scene.name}/images/scene_{camera}"
        distance = self._h5(f"{images}_geometry_hdf5/frame.{number}.depth_meters.hdf5").astype(np.float64)
        if distance.ndim != 2:
            raise Unreadable("unreadable_depth", f"the distances of {frame} are an array {distance.shape}")
        image, flags = self._image(images, number, np.isfinite(distance))
        table = files.inside(self.folder, CAMERAS)
        row = _cameras(table, table.stat().st_mtime_ns).get(scene.name)
        if row is None:
            raise Unreadable("unreadable_camera", f"{CAMERAS} has no row for {scene.name}")
        K, camera_from_ours = split_rays(_numbers(row, "M_cam_from_uv", 3), *distance.shape)
        pose = self._pose(scene, camera, int(number), row) @ rigid(camera_from_ours, (0, 0, 0))
        depth = z_from_distance(np.where(np.isfinite(distance), distance, 0), K)
        return Frame(image, depth, K, pose, flags)

    def _image(self, images: str, number: str, seen: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        try:
            color = self._h5(f"{images}_final_hdf5/frame.{number}.color.hdf5", "unreadable_image")
        except Unreadable as error:
            if error.reason != "missing_file":
                raise
            path = files.inside(self.folder, f"{images}_final_preview/frame.{number}.tonemap.jpg")
            return files.read_image(path), ("preview",)
        if color.shape != (*seen.shape, 3):
            raise Unreadable("size_mismatch", f"the colour is an array {color.shape}, the distances {seen.shape}")
        try:
            seen = self._h5(f"{images}_geometry_hdf5/frame.{number}.render_entity_id.hdf5") != -1
        except Unreadable as error:
            if error.reason != "missing_file":
                raise
        if seen.shape != color.shape[:2]:
            raise Unreadable("size_mismatch", f"the entities are an array {seen.shape}, the colour {color.shape}")
        return tone_mapped(color, seen), ()

    def _pose(self, scene: Scene, camera: str, number: int, row: Mapping[str, str]) -> np.ndarray:
        """world_from_camera in metres, in the camera axes of the files turned to OpenCV's."""
        detail = f"{scene.name}/_detail/{camera}/camera_keyframe"
        positions = self._h5(f"{detail}_positions.hdf5", "unreadable_camera")
        orientations = self._h5(f"{detail}_orientations.hdf5", "unreadable_camera")
        if positions.shape[1:] != (3,) or orientations.shape != (len(positions), 3, 3) or number >= len(positions):
            raise Unreadable("unreadable_camera", f"{camera} has no pose number {number}: {positions.shape} positions")
        return rigid(orientations[number], positions[number] * self._metres(scene, row)) @ OPENGL

    def _metres(self, scene: Scene, row: Mapping[str, str]) -> float:
        """Metres per asset unit; of the scene's own file where it is there, else of the table of the cameras."""
        try:
            table = _rows(files.inside(self.folder, scene.name, "_detail", "metadata_scene.csv"))
            text = next(r["parameter_value"] for r in table if r["parameter_name"] == "meters_per_asset_unit")
        except (Unreadable, StopIteration, KeyError):
            text = row.get("settings_units_info_meters_scale", "")
        return float(_number(text, "meters_per_asset_unit"))

    def _h5(self, path: str, reason: Reason = "unreadable_depth") -> np.ndarray:
        return files.read_h5(files.inside(self.folder, path), "dataset", reason)


def split_rays(camera_from_uv: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """M (3,3), rays = M (u, v, 1) with u, v in [-1, 1] and v upwards, in a camera that looks along -z -> (K (3,3),
    camera_from_ours (3,3)): the rays are camera_from_ours K^-1 (column + 0.5, row + 0.5, 1), in OpenCV's axes.

    By a QR decomposition: where the image plane is tilted, ours is the camera that looks at it squarely.
    """
    uv_from_pixel = np.array([[2 / width, 0, -1], [0, -2 / height, 1], [0, 0, 1]])
    rays = OPENGL[:3, :3] @ camera_from_uv @ uv_from_pixel
    if not np.isfinite(rays).all() or np.linalg.det(rays) <= 0:
        raise Unreadable("absurd_intrinsics", f"M_cam_from_uv is {np.round(camera_from_uv, 4).tolist()}")
    R, inverse_K = np.linalg.qr(rays)
    signs = np.sign(np.diag(inverse_K))
    K = np.linalg.inv(signs[:, None] * inverse_K)
    K = np.triu(K / K[2, 2])
    K[0, 1] = 0.0 if abs(K[0, 1]) < 1e-9 * K[0, 0] else K[0, 1]
    return K, R * signs


def tone_mapped(color: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Linear colour (H,W,3), `seen` (H,W) bool -> uint8: the 90th percentile of the brightness of what is seen becomes
    0.8, gamma is 2.2 (scene_generate_images_tonemap.py).
    """
    linear = np.nan_to_num(color.astype(np.float32), nan=0.0, posinf=65504.0, neginf=0.0)
    brightness = (linear @ np.array([0.3, 0.59, 0.11], np.float32))[seen]
    scale = 1.0
    if brightness.size:
        now = float(np.percentile(brightness, 90))
        scale = 0.8**2.2 / now if now >= 1e-4 else 0.0
    shown = np.clip(np.maximum(linear * np.float32(scale), 0) ** np.float32(1 / 2.2), 0, 1)
    return np.asarray(np.rint(shown * 255), np.uint8)


@functools.lru_cache(maxsize=4)
def _cameras(path: Path, changed: int) -> dict[str, dict[str, str]]:
    """Scene name -> its row. `changed`: when the file was, so that a mended one is read again."""
    return {row["scene_name"]: row for row in _rows(path) if "scene_name" in row}


def _rows(path: Path) -> list[dict[str, str]]:
    text = files.read_bytes(path, 16 << 20).decode("utf-8", "replace")
    try:
        return [{k: v or "" for k, v in row.items() if isinstance(k, str)} for row in csv.DictReader(io.StringIO(text))]
    except csv.Error as error:
        raise Unreadable(
            "unreadable_camera", f"{path.name} is not a table of comma-separated values ({error})"
        ) from None


def _numbers(row: Mapping[str, str], name: str, size: int) -> np.ndarray:
    """The columns NAME_00, NAME_01, ... as a matrix (size, size)."""
    texts = [row.get(f"{name}_{i}{j}", "") for i in range(size) for j in range(size)]
    return np.array([_number(text, name) for text in texts]).reshape(size, size)


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Unreadable("unreadable_camera", f"{what} is {text[:40]!r}, not a number") from None
