"""Taskonomy: views of 537 scanned buildings, rendered from their meshes, with photographs as images.

Source: data/README.md of the repository StanfordVL/taskonomy, and the annotator of EPFL-VILAB/omnidata, which made and
distributes them. Two layouts: that of one archive per building, `BUILDING/TASK/FILE`, and that of `omnitools.download`,
`TASK/taskonomy/BUILDING/FILE`. Files of a view are

    rgb            point_P_view_V_domain_rgb.png                512x512
    depth_zbuffer  point_P_view_V_domain_depth_zbuffer.png      16 bits, z in 1/512 m; 65535: nothing there
                   (depth_euclidean holds distances and is not read)
    point_info     point_P_view_V_domain_point_info.json, or points/ and _fixatedpose.json in the older archives:
                   field_of_view_rads, camera_location (metres), camera_rotation_final_quaternion (w, x, y, z) or
                   camera_rotation_final (Blender's XYZ angles)
    mask_valid     point_P_view_V_domain_depth_zbuffer.png      optional; 0: no depth

They are cameras of Blender: x right, y up, looking along -z; the field of view is that of the longer side; the optical
axis meets the middle of the image, pixel centres lie at +0.5. There is no distortion.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from . import files
from .base import Frame, Scene, Unreadable, intrinsics
from .pose import OPENGL, from_euler_xyz, from_quaternion, rigid

DEPTH = "depth_zbuffer"
INFO = (("point_info", "point_info"), ("points", "fixatedpose"), ("points", "point_info"))  # (folder, domain)
VIEW = re.compile(r"point_(\d{1,9})_view_(\d{1,9})_domain_depth_zbuffer\.png\Z")


@dataclass(frozen=True)
class Taskonomy:
    """`folder` holds buildings, or the folders of the tasks as omnitools lays them out."""

    folder: Path
    name: ClassVar[str] = "taskonomy"
    title: ClassVar[str] = "Taskonomy"
    licence: ClassVar[str] = "Taskonomy terms of use (non-commercial)"
    synthetic: ClassVar[bool] = True
    layout: ClassVar[str] = "BUILDING/{rgb,depth_zbuffer,point_info}, or {rgb,...}/taskonomy/BUILDING"

    def scenes(self) -> Iterator[Scene]:
        by_task = self.folder / DEPTH / "taskonomy"
        for name in files.listing(by_task if by_task.is_dir() else self.folder):
            if (by_task / name).is_dir() or (self.folder / name / DEPTH).is_dir():
                yield Scene(name)

    def frames(self, scene: Scene) -> list[str]:
        found = filter(None, map(VIEW.match, files.listing(self.folder / self._place(scene, DEPTH))))
        return [match[0].split("_domain")[0] for match in sorted(found, key=lambda m: (int(m[1]), int(m[2])))]

    def read(self, scene: Scene, frame: str) -> Frame:
        image = files.read_image(self._file(scene, "rgb", f"{frame}_domain_rgb.png"))
        raw = files.read_depth_png(self._file(scene, DEPTH, f"{frame}_domain_{DEPTH}.png"))
        valid = raw != 0xFFFF
        if (mask := self.folder / self._place(scene, "mask_valid") / f"{frame}_domain_{DEPTH}.png").exists():
            shown = files.read_image(files.inside(self.folder, str(mask.relative_to(self.folder))))
            if shown.shape[:2] != raw.shape:
                raise Unreadable("size_mismatch", f"the mask of {frame} is {shown.shape[:2]}, its depth {raw.shape}")
            valid &= shown[..., 0] > 0
        info = self._info(scene, frame)
        height, width = raw.shape
        fov = info.get("field_of_view_rads")
        if not isinstance(fov, int | float) or not 0.02 < fov < 3.1:
            raise Unreadable("absurd_intrinsics", f"field_of_view_rads of {frame} is {str(fov)[:40]}")
        focal = max(height, width) / 2 / math.tan(fov / 2)
        depth = np.where(valid, raw / np.float32(512), 0).astype(np.float32)
        return Frame(image, depth, intrinsics(focal, focal, width / 2, height / 2), _pose(info))

    def _place(self, scene: Scene, task: str) -> str:
        by_task = f"{task}/taskonomy/{scene.name}"
        return by_task if (self.folder / by_task).is_dir() else f"{scene.name}/{task}"

    def _file(self, scene: Scene, task: str, name: str) -> Path:
        return files.inside(self.folder, self._place(scene, task), name)

    def _info(self, scene: Scene, frame: str) -> dict[str, Any]:
        for folder, domain in INFO:
            try:
                info = files.read_json(self._file(scene, folder, f"{frame}_domain_{domain}.json"))
            except Unreadable as error:
                if error.reason != "missing_file":
                    raise
                continue
            if not isinstance(info, dict):
                raise Unreadable("unreadable_camera", f"the camera of {frame} is not a map")
            return info
        raise Unreadable("missing_file", f"{frame} has no camera in point_info/ or points/")


def _pose(info: dict[str, Any]) -> np.ndarray | None:
    """world_from_camera, None where the file tells none."""
    try:
        location = np.array(info["camera_location"], np.float64)
        if "camera_rotation_final_quaternion" in info:
            R = from_quaternion(np.array(info["camera_rotation_final_quaternion"], np.float64))
        else:
            R = from_euler_xyz(np.array(info["camera_rotation_final"], np.float64))
        return rigid(R, location) @ OPENGL
    except KeyError:
        return None
    except (OverflowError, TypeError, ValueError):
        raise Unreadable("absurd_pose", "camera_location or camera_rotation_final are no numbers") from None
