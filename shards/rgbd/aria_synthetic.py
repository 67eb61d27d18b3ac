"""Aria Synthetic Environments (ASE): walks through 100,000 made-up rooms, as the camera of Aria glasses sees them.

Source: "ASE Data Format" of facebookresearch.github.io/projectaria_tools, and AseCalibrationProvider.cpp,
FisheyeRadTanThinPrism.h and projects/ase/readers.py of facebookresearch/projectaria_tools. A scene is a number; in it

    rgb/vignetteNNNNNNN.jpg        704x704 (or 1408x1408), fisheye, as the sensor lies: turned by 90 degrees
    depth/depthNNNNNNN.png         16 bits, millimetres along the ray of the pixel ("not to be confused with ADT depth
                                   images"): converted; 0 and 65535 (the end of the range): nothing there
    trajectory.csv                 a header, then a row per frame: ..., time, ..., tx, ty, tz, qx, qy, qz, qw:
                                   world_from_device in metres (columns 3 to 9)

All have one calibration, Fisheye624, which is not in the files but in projectaria_tools and so here. Pixels have their
centres at whole numbers there; 0.5 is added.

Such images are no pinhole's: they are resampled to one of `fov` degrees and `size` x `size` pixels, upright. Colour is
bilinear. 1/distance is interpolated within a surface; at edges and beside unknown pixels the nearest pixel stands alone
(geometry.sample_depth). What the lens does not see is black and without depth.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from . import files
from .base import Frame, Scene, Unreadable, intrinsics
from .geometry import bilinear, sample_depth
from .pose import from_quaternion, rigid

# getAseRgbCalibration: focal length, principal point, k0 to k5, p0, p1 (s0 to s3 are 0) for 704 pixels
FOCAL, CENTRE = 297.6375381033778, (357.6599197217746, 349.1922497127481)
RADIAL = (
    0.3650890375644368,
    -0.1738082418112771,
    -0.7534945484033189,
    2.434788882752295,
    -2.57786220300886,
    0.8788483538598834,
)
TANGENTIAL = (0.0008005198595407136, -0.000294237814554143)
RADIUS = 1415 / 4  # of the circle about the principal point in which pixels are valid
CONE = 1.0  # radians from the axis; the polynomial is not fitted beyond
DEVICE_FROM_CAMERA = rigid(
    from_quaternion((0.9441858687689326, 0.32640934382849085, 0.029274992008313648, 0.033361059956531547)),
    (-0.007530096566173914, -0.01090854984158026, -0.003598063315542823),
)
# The sensor's image turned clockwise stands upright: right is what was up there, down what was right.
SENSOR_FROM_UPRIGHT = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])


@dataclass(frozen=True)
class AriaSynthetic:
    """`fov`: degrees across the pinhole image. `size`: its pixels; 512 keep the detail of 704 at 80 degrees."""

    folder: Path
    fov: float = 80.0
    size: int = 512
    name: ClassVar[str] = "aria_synthetic"
    title: ClassVar[str] = "Aria Synthetic Environments"
    licence: ClassVar[str] = "Project Aria dataset license agreement"
    synthetic: ClassVar[bool] = True
    layout: ClassVar[str] = "SCENE/{rgb/vignetteNNNNNNN.jpg,depth/depthNNNNNNN.png,trajectory.csv}"

    def __post_init__(self) -> None:
        if not 5 <= self.fov <= 90:
            raise ValueError(f"option fov of corpus aria_synthetic is {self.fov}: give 5 to 90 degrees")
        if not 16 <= self.size <= 4096:
            raise ValueError(f"option size of corpus aria_synthetic is {self.size}: give 16 to 4096 pixels")

    def scenes(self) -> Iterator[Scene]:
        for name in sorted(files.listing(self.folder), key=lambda name: (len(name), name)):
            if name.isdecimal() and (self.folder / name / "depth").is_dir():
                yield Scene(name)

    def frames(self, scene: Scene) -> list[str]:
        names = files.listing(self.folder / scene.name / "depth")
        numbers = (name[5:-4] for name in names if name.startswith("depth") and name.endswith(".png"))
        return [number for number in numbers if number.isascii() and number.isdecimal()]

    def read(self, scene: Scene, frame: str) -> Frame:
        image = files.read_image(files.inside(self.folder, scene.name, "rgb", f"vignette{frame}.jpg"))
        stored = files.read_depth_png(files.inside(self.folder, scene.name, "depth", f"depth{frame}.png"))
        if stored.shape not in ((704, 704), (1408, 1408)) or image.shape[:2] != stored.shape:
            raise Unreadable(
                "size_mismatch",
                f"image and depth of {frame} are {image.shape[:2]} and {stored.shape}; known are 704x704 and 1408x1408",
            )
        focal = self.size / 2 / math.tan(math.radians(self.fov) / 2)
        K = intrinsics(focal, focal, self.size / 2, self.size / 2)
        v, u = np.mgrid[0 : self.size, 0 : self.size] + 0.5
        rays = np.stack([(u - self.size / 2) / focal, (v - self.size / 2) / focal, np.ones_like(u)], axis=-1)
        at_u, at_v = project(rays @ SENSOR_FROM_UPRIGHT.T, stored.shape[0])
        metres = np.where(stored < 0xFFFF, stored / np.float32(1000), 0).astype(np.float32)
        depth = sample_depth(metres, at_u, at_v) / np.linalg.norm(rays, axis=-1)
        pose = self._pose(scene, int(frame))
        if pose is not None:
            pose = pose @ DEVICE_FROM_CAMERA @ rigid(SENSOR_FROM_UPRIGHT, (0, 0, 0))
        return Frame(bilinear(image, at_u, at_v), depth.astype(np.float32), K, pose)

    def _pose(self, scene: Scene, number: int) -> np.ndarray | None:
        """world_from_device; None where the scene comes without a trajectory."""
        for name in (
            "trajectory.csv",
            "trajectory.txt",
        ):  # the code reads the first, its documentation lists the second
            try:
                path = files.inside(self.folder, scene.name, name)
            except Unreadable as error:
                if error.reason != "missing_file":
                    raise
                continue
            lines = files.read_bytes(path).splitlines()[1:]
            if number >= len(lines):
                raise Unreadable("unreadable_camera", f"{name} has {len(lines)} rows, none for frame {number}")
            fields = b",".join(lines[number].split(b",")[3:10])
            tx, ty, tz, qx, qy, qz, qw = files.read_numbers(fields, 7)
            return rigid(from_quaternion((qw, qx, qy, qz)), (tx, ty, tz))
        return None


def project(points: np.ndarray, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (...,3) before the lens, camera frame -> (u, v), pixels with centres at +0.5; -1 where it sees nothing.

    The equations at the head of FisheyeRadTanThinPrism.h, with the calibration of ASE for 704 or 1408 pixels.
    """
    x, y = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
    r = np.hypot(x, y)
    angle = np.arctan(r)
    square = angle * angle
    series = np.ones_like(angle)
    for power, k in enumerate(RADIAL, start=1):
        series += k * square**power
    along = np.where(r > 1e-12, angle / np.maximum(r, 1e-12), 1.0) * series
    x, y = x * along, y * along
    p0, p1 = TANGENTIAL
    bend, rd2 = 2 * (p0 * x + p1 * y), x * x + y * y
    du, dv = FOCAL * (x + bend * x + rd2 * p0), FOCAL * (y + bend * y + rd2 * p1)
    seen = (points[..., 2] > 0) & (angle <= CONE) & (np.hypot(du, dv) <= RADIUS)
    scale = image_size / 704
    u, v = ((offset + centre + 0.5) * scale for offset, centre in zip((du, dv), CENTRE, strict=True))
    return np.where(seen, u, -1.0), np.where(seen, v, -1.0)
