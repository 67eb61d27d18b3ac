"""Cameras and poses in COLMAP's text files (colmap.github.io/format.html), and where its lenses put a ray.

COLMAP's image plane starts at the corner of the first pixel, whose centre is at (0.5, 0.5), as ours.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .base import Unreadable
from .files import read_bytes
from .pose import from_quaternion, rigid

# model -> how many parameters: f cx cy | fx fy cx cy | fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1
PINHOLES = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4}
MODELS = {**PINHOLES, "THIN_PRISM_FISHEYE": 12}


@dataclass(frozen=True)
class Lens:
    """A camera of `cameras.txt`: fx, fy, cx, cy, and k1, k2, p1, p2, k3, k4, sx1, sy1 or nothing (a pinhole)."""

    model: str
    width: int
    height: int
    focal: tuple[float, float]
    centre: tuple[float, float]
    distortion: tuple[float, ...] = ()

    def project(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rays (x, y, 1), arrays of one shape -> (u, v) in pixels.

        THIN_PRISM_FISHEYE (eth3d.net/documentation, "Camera models"; COLMAP, sensor/models.h): the ray's direction at
        the angle from the axis, in place of its tangent, then radial, tangential and thin-prism terms of it.
        """
        if self.distortion:
            k1, k2, p1, p2, k3, k4, sx, sy = self.distortion
            r = np.hypot(x, y)
            shrink = np.divide(np.arctan(r), r, out=np.ones_like(r), where=r > 1e-12)
            x, y = x * shrink, y * shrink
            xx, xy, yy = x * x, x * y, y * y
            t2 = xx + yy
            radial = t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))
            x, y = (
                x + x * radial + 2 * p1 * xy + p2 * (t2 + 2 * xx) + sx * t2,
                y + y * radial + 2 * p2 * xy + p1 * (t2 + 2 * yy) + sy * t2,
            )
        return self.focal[0] * x + self.centre[0], self.focal[1] * y + self.centre[1]

    def folds(self, angle: float) -> bool:
        """Whether two rays within `angle` radians of the axis fall on one pixel, so that nothing can be undone."""
        if not self.distortion:
            return False
        k1, k2, _, _, k3, k4, _, _ = self.distortion
        t2 = np.linspace(0, angle, 64) ** 2
        return bool((1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))).min() <= 0)


@lru_cache(maxsize=4)
def lenses(path: Path) -> dict[str, Lens]:
    """Camera -> its lens, of lines CAMERA_ID MODEL WIDTH HEIGHT PARAMS..."""
    found = {}
    for line in _lines(path):
        words = line.split()
        try:
            model, width, height = words[1], int(words[2]), int(words[3])
            values = [float(word) for word in words[4:]]
        except (IndexError, ValueError):
            raise Unreadable("unreadable_camera", f"{path.name} has the line {line[:80]!r}") from None
        if len(values) != MODELS.get(model) or min(width, height) < 1:
            raise Unreadable("distorted_camera", f"{path.name} has a camera of model {model[:40]}: undistort it first")
        fx, fy, cx, cy, *rest = [values[0], *values] if model == "SIMPLE_PINHOLE" else values
        found[words[0]] = Lens(model, width, height, (fx, fy), (cx, cy), tuple(rest))
    return found


@lru_cache(maxsize=4)
def images(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Name of the photograph -> (camera, world_from_camera), of lines IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME,
    each followed by a line of points.
    """
    found = {}
    for line in _lines(path)[::2]:
        words = line.split(maxsplit=9)
        try:
            w, x, y, z, *t = (float(word) for word in words[1:8])
            camera, name = words[8], words[9]
        except (IndexError, ValueError):
            raise Unreadable("unreadable_camera", f"{path.name} has the line {line[:80]!r}") from None
        camera_from_world = rigid(from_quaternion((w, x, y, z)), t)
        if not np.isfinite(camera_from_world).all():
            raise Unreadable("unreadable_camera", f"{path.name} has no finite pose for {name}")
        found[Path(name).name] = camera, np.linalg.inv(camera_from_world)
    return found


def _lines(path: Path) -> list[str]:
    text = read_bytes(path).decode(errors="replace")
    # the line of points of an image may be empty, and then still stands for one
    lines = [line for line in text.split("\n") if not line.startswith("#")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
