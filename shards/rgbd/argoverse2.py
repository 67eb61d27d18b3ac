"""Argoverse 2, sensor dataset: street scenes with LiDAR sweeps, brought into the cameras as sparse depth.

Source of the format: the user guide (argoverse.github.io) and `av2` of github.com/argoverse/av2-api.

    FOLDER/[sensor/](train|val|test)/LOG/
        sensors/cameras/CAMERA/NANOSECONDS.jpg
        sensors/lidar/NANOSECONDS.feather          x, y, z in metres in the vehicle's frame at the time of the name
        calibration/intrinsics.feather             sensor_name, fx_px, fy_px, cx_px, cy_px, k1..k3, height_px, width_px
        calibration/egovehicle_SE3_sensor.feather  sensor_name, qw..qz, tx_m..tz_m: vehicle from sensor
        city_SE3_egovehicle.feather                timestamp_ns, qw..qz, tx_m..tz_m: city from vehicle

The pictures are published undistorted; k1 to k3 are of the lens as it was and must not be applied (av2-api issue 219,
and its own projection uses K alone). Camera axes are OpenCV's. The first centre lies at (0, 0): 0.5 is added.

The sweep next to the picture in time (at most 60 ms away) is moved by the vehicle's motion between the two, projected
and z-buffered. The scanner stands above the cameras and sees behind near things: such points are dropped (geometry.py).
Frames have the flag `sparse`. Option `cameras`: names to take, separated by commas; default: the seven of the ring.
"""

import io
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.feather

from .base import Frame, Reason, Scene, Unreadable, half_pixel, intrinsics
from .files import inside, listing, read_bytes, read_image
from .geometry import splat, unhidden
from .pose import from_quaternion, rigid

RING = (
    "ring_front_center,ring_front_left,ring_front_right,ring_side_left,ring_side_right,ring_rear_left,ring_rear_right"
)
APART = 60_000_000  # nanoseconds between a picture and its sweep, which come at 20 and 10 Hz
POSE_APART = 5_000_000  # nanoseconds from a sensor's time to that of the vehicle's pose
POINTS = 1 << 22  # of a sweep
POSE = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")


@dataclass(frozen=True)
class Argoverse2:
    folder: Path
    cameras: str = RING

    name: ClassVar[str] = "argoverse2"
    title: ClassVar[str] = "Argoverse 2 sensor"
    licence: ClassVar[str] = "CC-BY-NC-SA-4.0 (Argoverse 2 terms of use)"
    synthetic: ClassVar[bool] = False
    layout: ClassVar[str] = "(train|val|test)/LOG with sensors/cameras, sensors/lidar and calibration"

    @property
    def _root(self) -> Path:
        return self.folder / "sensor" if (self.folder / "sensor").is_dir() else self.folder

    def scenes(self) -> Iterable[Scene]:
        for part in ("", "test", "train", "val"):
            for log in listing(self._root / part):
                if (self._root / part / log / "sensors" / "lidar").is_dir():
                    yield Scene(f"{part}/{log}".lstrip("/"), log)

    def frames(self, scene: Scene) -> Sequence[str]:
        """CAMERA/NANOSECONDS, in the order of time."""
        found = []
        for camera in self.cameras.split(","):
            for name in listing(self._root / scene.name / "sensors" / "cameras" / camera):
                if name.endswith(".jpg") and name[:-4].isdecimal():
                    found.append((int(name[:-4]), f"{camera}/{name[:-4]}"))
        return [name for _, name in sorted(found)]

    def read(self, scene: Scene, frame: str) -> Frame:
        root = self._root / scene.name
        camera, _, text = frame.partition("/")
        time = int(text)
        image = read_image(inside(self.folder, str(root / "sensors" / "cameras" / camera / f"{text}.jpg")))
        K, height, width = self._intrinsics(root, camera)
        if image.shape[:2] != (height, width):
            raise Unreadable("size_mismatch", f"the image is {image.shape[:2]}, its calibration {(height, width)}")
        vehicle_from_camera = self._mounting(root, camera)
        poses = _poses(inside(self.folder, str(root / "city_SE3_egovehicle.feather")))
        times = _times(root / "sensors" / "lidar")
        sweep = _nearest(times, time, APART, "no LiDAR sweep")
        city_from_camera = _pose_at(poses, time) @ vehicle_from_camera
        camera_from_sweep = np.linalg.inv(city_from_camera) @ _pose_at(poses, sweep)
        points = _points(inside(self.folder, str(root / "sensors" / "lidar" / f"{sweep}.feather")))
        moved = points @ camera_from_sweep[:3, :3].T + camera_from_sweep[:3, 3]
        depth = unhidden(splat(moved, K, height, width), reach=max(8, width // 40))
        return Frame(image, depth, K, city_from_camera, ("sparse",))

    def _intrinsics(self, root: Path, camera: str) -> tuple[np.ndarray, int, int]:
        columns = ("fx_px", "fy_px", "cx_px", "cy_px", "height_px", "width_px")
        values = _row(inside(self.folder, str(root / "calibration" / "intrinsics.feather")), camera, columns)
        fx, fy, cx, cy, height, width = values
        return half_pixel(intrinsics(fx, fy, cx, cy)), int(height), int(width)

    def _mounting(self, root: Path, camera: str) -> np.ndarray:
        path = inside(self.folder, str(root / "calibration" / "egovehicle_SE3_sensor.feather"))
        values = _row(path, camera, POSE)
        return rigid(from_quaternion(values[:4]), values[4:])


def feather(path: Path, columns: Sequence[str], reason: Reason) -> pa.Table:
    """These columns of a feather file. Unreadable where it is none, or one is missing or holds nothing."""
    data = read_bytes(path)
    try:
        table = pa.feather.read_table(io.BytesIO(data), columns=list(columns), memory_map=False)
    except (pa.ArrowException, OSError, KeyError, ValueError, MemoryError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unreadable(reason, f"{path.name}: {first[:200]}") from None
    if any(table[name].null_count for name in columns):
        raise Unreadable(reason, f"{path.name} has rows without a value")
    return table


def _row(path: Path, sensor: str, columns: Sequence[str]) -> list[float]:
    """The values of one sensor."""
    table = feather(path, ("sensor_name", *columns), "unreadable_camera")
    names = [str(name) for name in table["sensor_name"].to_pylist()]
    if sensor not in names:
        raise Unreadable("unreadable_camera", f"{path.name} does not know {sensor}")
    values = [_numbers(table, name, path)[names.index(sensor)] for name in columns]
    if not np.isfinite(values).all():
        raise Unreadable("unreadable_camera", f"{path.name} has no finite values of {sensor}")
    return values


def _numbers(table: pa.Table, name: str, path: Path) -> np.ndarray:
    try:
        return table[name].cast(pa.float64()).to_numpy()
    except pa.ArrowException:
        raise Unreadable("unreadable_camera", f"{path.name}: column {name} holds no numbers") from None


@lru_cache(maxsize=2)
def _poses(path: Path) -> tuple[list[int], np.ndarray]:
    """(times in the order, (n,7) of POSE)."""
    table = feather(path, ("timestamp_ns", *POSE), "unreadable_camera")
    try:
        times = table["timestamp_ns"].cast(pa.int64()).to_numpy()
    except pa.ArrowException:
        raise Unreadable("unreadable_camera", f"{path.name}: timestamp_ns holds no whole numbers") from None
    order = np.argsort(times, kind="stable")
    values = np.stack([_numbers(table, name, path) for name in POSE], axis=1)[order]
    return times[order].tolist(), values


def _pose_at(poses: tuple[list[int], np.ndarray], time: int) -> np.ndarray:
    """City from vehicle."""
    times, values = poses
    found = values[times.index(_nearest(times, time, POSE_APART, "no pose of the vehicle"))]
    if not np.isfinite(found).all():
        raise Unreadable("absurd_pose", f"the vehicle's pose at {time} ns is not finite")
    return rigid(from_quaternion(found[:4]), found[4:])


@lru_cache(maxsize=2)
def _times(folder: Path) -> list[int]:
    names = (name.removesuffix(".feather") for name in listing(folder))
    return sorted(int(name) for name in names if name.isdecimal())


def _nearest(times: Sequence[int], time: int, apart: int, what: str) -> int:
    at = bisect_left(times, time)
    near = min(times[max(0, at - 1) : at + 1], key=lambda each: abs(each - time), default=None)
    if near is None or abs(near - time) > apart:
        raise Unreadable("missing_file", f"{what} within {apart / 1e6:.0f} ms of {time} ns")
    return near


@lru_cache(maxsize=2)
def _points(path: Path) -> np.ndarray:
    """(N,3) float64, in the vehicle's frame."""
    table = feather(path, ("x", "y", "z"), "unreadable_depth")
    if len(table) > POINTS:
        raise Unreadable("too_large", f"{path.name} holds {len(table)} points")
    return np.stack([_numbers(table, name, path) for name in ("x", "y", "z")], axis=1)
