"""Waymo Open Dataset, perception, version 2: street scenes with LiDAR range images, as sparse depth of five cameras.

Source of the format: `waymo_open_dataset/v2/perception` (components and their columns) and `utils/range_image_utils.py`
of github.com/waymo-research/waymo-open-dataset. Version 1 (tfrecord) is converted to it by Waymo's own tools.

    FOLDER/[training|validation|testing/]COMPONENT/SEGMENT.parquet, with the components camera_image,
    camera_calibration, lidar, lidar_calibration, lidar_camera_projection, vehicle_pose and lidar_pose

A range image (rows: inclination, columns: azimuth; range in metres, <= 0 where nothing came back) becomes points in
the vehicle's frame by Waymo's formulas: beams from above to below, columns from azimuth +pi to -pi, corrected by the
scanner's yaw. The top scanner's points move by the pose of the vehicle at each pixel (lidar_pose), others by that of
the frame; then to the vehicle at the time of the picture, and to the camera (x forward, y left, z up there), whose x is
our z.

Where a point falls in the picture is taken from lidar_camera_projection, which knows the rolling shutter: whole numbers
of pixels, and pixel 0 begins at the picture's left edge, so the point is taken to lie in the pixel's middle. The
pictures are distorted (k1, k2, p1, p2, k3 as in OpenCV): picture and projections are undistorted with K kept, and a
lens whose model folds over is rejected. Intrinsics follow the same convention, so nothing is added to c_u and c_v. Both
returns are used; the nearest point in a pixel stays, and what only the scanner on the roof sees is dropped. Frames have
the flag `sparse`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .base import Frame, Reason, Scene, Unreadable, check_intrinsics, check_pose, intrinsics
from .files import inside, listing, read_image
from .geometry import ideal, undistorted, unhidden, z_buffer

CAMERAS = {1: "front", 2: "front_left", 3: "front_right", 4: "side_left", 5: "side_right"}
TOP = 1
PARTS = ("", "training", "validation", "testing")
BATCH = 4  # rows that are in memory at a time, for each component; a row of the top scanner takes 8 MB
TIME, CAMERA, LASER = "key.frame_timestamp_micros", "key.camera_name", "key.laser_name"
# our axes (right, down, forward) of a camera whose axes are forward, left, up
OURS_FROM_WAYMO = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])


@dataclass(frozen=True)
class Waymo:
    folder: Path

    name: ClassVar[str] = "waymo"
    title: ClassVar[str] = "Waymo Open Dataset v2"
    licence: ClassVar[str] = "Waymo Dataset License Agreement (non-commercial)"
    synthetic: ClassVar[bool] = False
    layout: ClassVar[str] = (
        "[training|validation|testing/]camera_image/SEGMENT.parquet, lidar/SEGMENT.parquet and others"
    )

    def scenes(self) -> Iterable[Scene]:
        for part in PARTS:
            for name in listing(self.folder / part / "camera_image"):
                if name.endswith(".parquet"):
                    yield Scene(f"{part}/{name[:-8]}".lstrip("/"), name[:-8])

    def frames(self, scene: Scene) -> Sequence[str]:
        """MICROSECONDS/CAMERA, in the order of time."""
        found: set[tuple[int, int]] = set()
        for times, cameras in _keys(self._file(scene, "camera_image"), CAMERA):
            found.update(zip(times, cameras))
        return [f"{time}/{CAMERAS[camera]}" for time, camera in sorted(found) if camera in CAMERAS]

    def read(self, scene: Scene, frame: str) -> Frame:
        text, _, camera_name = frame.partition("/")
        time, camera = int(text), next(number for number, name in CAMERAS.items() if name == camera_name)
        rows = [row for row in self._rows(scene, "camera_image", time) if row.get(CAMERA) == camera]
        if not rows:
            raise Unreadable("missing_file", f"camera_image has no picture of {frame}")
        picture = _Columns(rows[0], "CameraImageComponent", "camera_image")
        lens = self._lens(scene, camera)
        image = read_image(picture.bytes("image"), f"the picture {frame}")
        if image.shape[:2] != lens.size:
            raise Unreadable("size_mismatch", f"the picture is {image.shape[:2]}, its calibration {lens.size}")
        check_intrinsics(lens.K, *lens.size)
        straight = undistorted(image, lens.K, lens.radial, lens.tangential)
        if straight is None:
            raise Unreadable("distorted_camera", f"the lens of {camera_name} folds over within its picture")
        world_from_camera = picture.matrix("pose.transform") @ lens.vehicle_from_camera
        check_pose(world_from_camera)
        with np.errstate(invalid="ignore", over="ignore"):  # of ranges that are no numbers; z_buffer drops them
            depth = self._depth(scene, time, camera, lens, np.linalg.inv(world_from_camera))
        return Frame(straight, depth, lens.K, world_from_camera, ("sparse",))

    def _depth(self, scene: Scene, time: int, camera: int, lens: "_Lens", camera_from_world: np.ndarray) -> np.ndarray:
        parts: list[np.ndarray] = [np.zeros((0, 3))]
        for where, points in _returns(self, scene, time):
            for first in (0, 3):  # a point falls into two cameras at most
                mine = where[:, first] == camera
                z = points[mine] @ camera_from_world[2, :3] + camera_from_world[2, 3]
                parts.append(np.column_stack([where[mine, first + 1 : first + 3] + 0.5, z]))
        u, v, z = np.concatenate(parts).T
        K = lens.K
        x, y = ideal((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], lens.radial, lens.tangential)
        depth = z_buffer(K[0, 0] * x + K[0, 2], K[1, 1] * y + K[1, 2], z, *lens.size)
        return unhidden(depth, reach=max(8, lens.size[1] // 40))

    def returns(self, scene: Scene, time: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each scanner and return: (cameras and places (N,6) as in lidar_camera_projection, points (N,3) in the
        world) of what came back and is seen by a camera.
        """
        vehicle = self._one(scene, "vehicle_pose", time, "VehiclePoseComponent").matrix("world_from_vehicle.transform")
        projections = {row[LASER]: row for row in self._rows(scene, "lidar_camera_projection", time)}
        poses = {row[LASER]: row for row in self._rows(scene, "lidar_pose", time)}
        found = []
        for row in self._rows(scene, "lidar", time):
            laser = row[LASER]
            if laser not in projections:
                continue
            scanner = self._scanner(scene, laser)
            pose = _Columns(poses[laser], "LiDARPoseComponent", "lidar_pose") if laser in poses else None
            for name in ("range_image_return1", "range_image_return2"):
                ranges = _Columns(row, "LiDARComponent", "lidar").image(name, 4)
                seen = _Columns(projections[laser], "LiDARCameraProjectionComponent", "lidar_camera_projection")
                where = seen.image(name, 6)
                if ranges is None or where is None:
                    continue
                if ranges.shape[:2] != where.shape[:2]:
                    raise Unreadable("size_mismatch", f"range image {ranges.shape} and projections {where.shape}")
                of_pixels = pose.image("range_image_return1", 6) if pose else None
                points = world_points(ranges[..., 0], scanner, vehicle, of_pixels)
                kept = (ranges[..., 0] > 0) & ((where[..., 0] > 0) | (where[..., 3] > 0))
                found.append((where[kept], points[kept]))
        return found

    def _lens(self, scene: Scene, camera: int) -> "_Lens":
        rows = _table(self._file(scene, "camera_calibration"))
        found = [row for row in rows if row.get(CAMERA) == camera]
        if not found:
            raise Unreadable("unreadable_camera", f"camera_calibration does not know camera {camera}")
        columns = _Columns(found[0], "CameraCalibrationComponent", "camera_calibration")
        f_u, f_v, c_u, c_v, k1, k2, p1, p2, k3 = (
            columns.number(f"intrinsic.{name}") for name in ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")
        )
        size = int(columns.number("height")), int(columns.number("width"))
        vehicle_from_camera = columns.matrix("extrinsic.transform") @ OURS_FROM_WAYMO.T
        return _Lens(intrinsics(f_u, f_v, c_u, c_v), size, (k1, k2, k3), (p1, p2), vehicle_from_camera)

    def _scanner(self, scene: Scene, laser: int) -> "_Columns":
        for row in _table(self._file(scene, "lidar_calibration")):
            if row.get(LASER) == laser:
                return _Columns(row, "LiDARCalibrationComponent", "lidar_calibration")
        raise Unreadable("unreadable_camera", f"lidar_calibration does not know laser {laser}")

    def _file(self, scene: Scene, component: str) -> Path:
        part, _, segment = scene.name.rpartition("/")
        return inside(self.folder, part, component, f"{segment}.parquet")

    def _rows(self, scene: Scene, component: str, time: int) -> list[dict[str, Any]]:
        stream = _stream(self._file(scene, component))
        return stream.rows(stream.numbers.get(time, []))

    def _one(self, scene: Scene, component: str, time: int, prefix: str) -> "_Columns":
        rows = self._rows(scene, component, time)
        if not rows:
            raise Unreadable("missing_file", f"{component} has nothing at {time}")
        return _Columns(rows[0], prefix, component)


@lru_cache(maxsize=1)
def _returns(corpus: Waymo, scene: Scene, time: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Once for the five cameras."""
    return corpus.returns(scene, time)


@dataclass(frozen=True, eq=False)
class _Lens:
    K: np.ndarray
    size: tuple[int, int]
    radial: tuple[float, float, float]
    tangential: tuple[float, float]
    vehicle_from_camera: np.ndarray


@dataclass(frozen=True)
class _Columns:
    """A row of a component, by the names of its fields."""

    row: dict[str, Any]
    prefix: str
    component: str

    def get(self, name: str) -> Any:
        value = self.row.get(f"[{self.prefix}].{name}")
        if isinstance(value, pa.Array):
            return value.to_numpy(zero_copy_only=False)
        return value

    def need(self, name: str) -> Any:
        if (value := self.get(name)) is None:
            raise Unreadable("unreadable_camera", f"{self.component} has no {name}")
        return value

    def number(self, name: str) -> float:
        value = float(self.need(name))
        if not np.isfinite(value):
            raise Unreadable("unreadable_camera", f"{name} of {self.component} is {value}")
        return value

    def bytes(self, name: str) -> bytes:
        value = self.need(name)
        if not isinstance(value, bytes):
            raise Unreadable("unreadable_image", f"{name} of {self.component} holds no bytes")
        return value

    def matrix(self, name: str) -> np.ndarray:
        values = np.asarray(self.need(name), np.float64)
        if values.shape != (16,) or not np.isfinite(values).all():
            raise Unreadable("unreadable_camera", f"{name} of {self.component} is no finite 4x4 matrix")
        return values.reshape(4, 4)

    def image(self, name: str, channels: int) -> np.ndarray | None:
        """(H,W,channels) float32; None where there is none."""
        values, shape = self.get(f"{name}.values"), self.get(f"{name}.shape")
        if values is None or shape is None or not len(values):
            return None
        shape = tuple(int(side) for side in shape)
        if len(shape) != 3 or shape[2] != channels or min(shape) < 1 or int(np.prod(shape)) != len(values):
            raise Unreadable("unreadable_depth", f"{name} of {self.component}: {len(values)} values of shape {shape}")
        return np.asarray(values, np.float32).reshape(shape)


def world_points(
    ranges: np.ndarray, scanner: _Columns, world_from_vehicle: np.ndarray, poses: np.ndarray | None
) -> np.ndarray:
    """A range image (H,W) -> points (H,W,3) float64 in the world. `poses` (H,W,6), roll, pitch, yaw and position of the
    vehicle at each pixel, or None: then it stood at `world_from_vehicle`.
    """
    height, width = ranges.shape
    mounting = scanner.matrix("extrinsic.transform")
    inclination = scanner.get("beam_inclination.values")
    if inclination is None or not len(inclination):
        low, high = scanner.number("beam_inclination.min"), scanner.number("beam_inclination.max")
        inclination = low + (np.arange(height) + 0.5) / height * (high - low)
    inclination = np.asarray(inclination, np.float64)[::-1]  # the first row looks up
    if inclination.shape != (height,):
        raise Unreadable("unreadable_depth", f"{inclination.size} beams for a range image of {height} rows")
    azimuth = ((np.arange(width, 0, -1) - 0.5) / width * 2 - 1) * np.pi - np.arctan2(mounting[1, 0], mounting[0, 0])
    flat, up = np.cos(inclination)[:, None], np.sin(inclination)[:, None]
    directions = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.broadcast_to(up, (height, width))], -1)
    points = (directions * ranges[..., None].astype(np.float64)) @ mounting[:3, :3].T + mounting[:3, 3]
    if poses is None:
        return np.asarray(points @ world_from_vehicle[:3, :3].T + world_from_vehicle[:3, 3])
    if poses.shape[:2] != ranges.shape:
        raise Unreadable("size_mismatch", f"range image {ranges.shape} and its poses {poses.shape}")
    turn = poses[..., :3].astype(np.float64)
    (cx, cy, cz), (sx, sy, sz) = np.moveaxis(np.cos(turn), -1, 0), np.moveaxis(np.sin(turn), -1, 0)
    x, y, z = np.moveaxis(points, -1, 0)
    y, z = cx * y - sx * z, sx * y + cx * z  # roll about x, pitch about y, yaw about z, in this order
    x, z = cy * x + sy * z, -sy * x + cy * z
    x, y = cz * x - sz * y, sz * x + cz * y
    return np.asarray(np.stack([x, y, z], -1) + poses[..., 3:])


def _plainly(path: Path, reason: Reason, error: BaseException) -> Unreadable:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return Unreadable(reason, f"{path.name}: {first[:200]}")


_ERRORS = (pa.ArrowException, OSError, KeyError, TypeError, ValueError, MemoryError)


def _keys(path: Path, other: str | None) -> list[tuple[list[int], list[int]]]:
    """Of every row group: its times, and the values of another key."""
    found = []
    try:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=[TIME, *([other] if other else [])])
                found.append((table[TIME].to_pylist(), table[other].to_pylist() if other else []))
    except _ERRORS as error:
        raise _plainly(path, "unreadable_scene", error) from None
    return found


class _Stream:
    """Rows of a component by their number, BATCH of them in memory. A file may be one row group of a gigabyte: to
    read on is cheap, to go back is to begin the row group again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers: dict[int, list[int]] = {}  # time -> rows
        self.begins: list[int] = []  # first row of each row group
        count = 0
        for times, _ in _keys(path, None):
            self.begins.append(count)
            for time in times:
                self.numbers.setdefault(time, []).append(count)
                count += 1
        self.file = pq.ParquetFile(path)
        self.group = -1
        self.batches: Iterator[pa.RecordBatch] = iter(())
        self.first, self.batch = 0, pa.table({})
        self.last: tuple[list[int], list[dict[str, Any]]] = [], []  # five cameras ask for the same

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Of these rows, in rising order."""
        try:
            if self.last[0] != list(numbers):
                self.last = list(numbers), [self._row(number) for number in numbers]
            return self.last[1]
        except (*_ERRORS, StopIteration) as error:
            self.group = -1
            raise _plainly(self.path, "unreadable_depth", error) from None

    def _row(self, number: int) -> dict[str, Any]:
        group = bisect_right(self.begins, number) - 1
        if group != self.group or number < self.first:
            self.group, self.first, self.batch = group, self.begins[group], pa.table({})
            self.batches = self.file.iter_batches(BATCH, row_groups=[group], use_threads=False)
        while number >= self.first + len(self.batch):
            self.first += len(self.batch)
            self.batch = next(self.batches)
        at = number - self.first
        return {name: _value(self.batch[name][at]) for name in self.batch.schema.names}


@lru_cache(maxsize=8)
def _stream(path: Path) -> _Stream:
    try:
        return _Stream(path)
    except _ERRORS as error:
        raise _plainly(path, "unreadable_scene", error) from None


@lru_cache(maxsize=8)
def _table(path: Path) -> list[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > 1 << 12:
                raise Unreadable("too_large", f"{path.name} has {file.metadata.num_rows} rows")
            return _as_rows(file.read())
    except _ERRORS as error:
        raise _plainly(path, "unreadable_camera", error) from None


def _as_rows(table: pa.Table) -> list[dict[str, Any]]:
    return [{name: _value(table[name][row]) for name in table.column_names} for row in range(len(table))]


def _value(scalar: pa.Scalar) -> Any:
    return scalar.values if isinstance(scalar, pa.ListScalar | pa.FixedSizeListScalar) else scalar.as_py()
