"""TartanAir v2: renderings of 65 environments with twelve pinhole cameras at a time.

Source: docs/modalities.rst, tartanair/reader.py and examples/accumulate_pointcloud.py of castacks/tartanairpy.
In ENVIRONMENT/Data_{easy,hard}/PNNN/, for CAMERA of lcam_front, lcam_left, ..., rcam_bottom:

    image_CAMERA/IIIIII_CAMERA.png          640x640
    depth_CAMERA/IIIIII_CAMERA_depth.png    z in metres, along the optical axis: the four bytes of a little-endian
                                            float32 are the channels blue, green, red, alpha
    pose_CAMERA.txt                         line I: x y z qx qy qz qw, in metres; axes forward, right, down (NED),
                                            those of the world as those of the camera

The focal length is half of the width (90 degrees), the principal point the middle, pixel centres lie at +0.5; there is
no distortion. "The far pixels pointing to the sky usually return a very large value": depth beyond the option `far`
(metres) is unknown depth here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from . import files
from .base import Frame, Scene, Unreadable, intrinsics
from .pixels import read_rgba
from .pose import NED, from_quaternion, rigid

PINHOLES = tuple(f"{side}cam_{way}" for side in "lr" for way in ("front", "right", "back", "left", "top", "bottom"))
# The same place at another time, or in the settings of another camera.
VARIANT = re.compile(r"(Autumn|Day|Exposure|Fall|IntExt|Night|Spring|Summer|Winter)+\Z")


@dataclass(frozen=True)
class TartanAir:
    """`cameras`: names with commas between, or `all` (the twelve pinholes). `far`: metres, beyond is sky."""

    folder: Path
    cameras: str = "lcam_front"
    far: float = 1000.0
    name: ClassVar[str] = "tartanair"
    title: ClassVar[str] = "TartanAir v2"
    licence: ClassVar[str] = "CC-BY-4.0"
    synthetic: ClassVar[bool] = True
    layout: ClassVar[str] = "ENVIRONMENT/Data_{easy,hard}/PNNN/{image,depth}_CAMERA, pose_CAMERA.txt"

    def __post_init__(self) -> None:
        for camera in self._cameras:
            if camera not in PINHOLES:
                raise ValueError(f"option cameras of corpus tartanair: {camera!r} is none of {', '.join(PINHOLES)}")
        if not self.far > 0:
            raise ValueError(f"option far of corpus tartanair is {self.far}: give metres above 0")

    @property
    def _cameras(self) -> tuple[str, ...]:
        return PINHOLES if self.cameras == "all" else tuple(name.strip() for name in self.cameras.split(","))

    def scenes(self) -> Iterator[Scene]:
        for environment in files.listing(self.folder):
            place = VARIANT.sub("", environment) or environment
            for level in ("Data_easy", "Data_hard"):
                for run in files.listing(self.folder / environment / level):
                    name = f"{environment}/{level}/{run}"
                    if any((self.folder / name / f"depth_{camera}").is_dir() for camera in self._cameras):
                        yield Scene(name, place)

    def frames(self, scene: Scene) -> list[str]:
        return [
            name.removesuffix("_depth.png")
            for camera in self._cameras
            for name in files.listing(self.folder / scene.name / f"depth_{camera}")
            if re.fullmatch(rf"\d{{6}}_{camera}_depth\.png", name)
        ]

    def read(self, scene: Scene, frame: str) -> Frame:
        number, camera = frame.split("_", 1)
        where = self.folder / scene.name
        image = files.read_image(files.inside(self.folder, scene.name, f"image_{camera}", f"{frame}.png"))
        stored = files.inside(self.folder, scene.name, f"depth_{camera}", f"{frame}_depth.png")
        rgba = read_rgba(stored, "unreadable_depth")
        z = np.ascontiguousarray(rgba[..., [2, 1, 0, 3]]).view("<f4")[..., 0]
        height, width = z.shape
        if height != width:
            raise Unreadable("size_mismatch", f"{stored.name} is {height}x{width}, not a square of 90 degrees")
        with np.errstate(invalid="ignore"):
            depth = np.where(z < self.far, z, 0).astype(np.float32)
        K = intrinsics(width / 2, width / 2, width / 2, height / 2)
        return Frame(image, depth, K, _pose(where, self.folder, camera, int(number)))


def _pose(where: Path, folder: Path, camera: str, number: int) -> np.ndarray:
    path = files.inside(folder, str((where / f"pose_{camera}.txt").relative_to(folder)))
    lines = files.read_bytes(path, 64 << 20).splitlines()
    if number >= len(lines):
        raise Unreadable("unreadable_camera", f"{path.name} has {len(lines)} lines, none for frame {number}")
    x, y, z, qx, qy, qz, qw = files.read_numbers(lines[number], 7)
    return rigid(from_quaternion((qw, qx, qy, qz)), (x, y, z)) @ NED
