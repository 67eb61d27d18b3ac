"""BlendedMVS and BlendedMVG: rendered depth of reconstructed scenes, with photographs blended into the renderings.

Source of the format: the README of the dataset (github.com/YoYo000/BlendedMVS) and MVSNet's description of its inputs.

    FOLDER/PID/blended_images/00000000.jpg              (with 00000000_masked.jpg, which is not used)
    FOLDER/PID/cams/00000000_cam.txt                    "extrinsic", 4x4 camera from world; "intrinsic", 3x3; depths
    FOLDER/PID/rendered_depth_maps/00000000.pfm         float32, z in the units of the reconstruction; 0 where nothing

The units of a scene are those of its reconstruction: flag `relative_scale`. MVSNet projects pixel (u, v) by K without a
half, so the first centre lies at (0, 0) and 0.5 is added to cx and cy. The pictures are rendered: no distortion.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import Frame, Scene, Unreadable, half_pixel
from .files import inside, listing, read_bytes, read_image, read_pfm


@dataclass(frozen=True)
class BlendedMVS:
    folder: Path

    name: ClassVar[str] = "blendedmvs"
    title: ClassVar[str] = "BlendedMVS"
    licence: ClassVar[str] = "CC-BY-4.0"
    synthetic: ClassVar[bool] = False
    layout: ClassVar[str] = "PID/blended_images, PID/cams and PID/rendered_depth_maps"

    def scenes(self) -> Iterable[Scene]:
        for name in listing(self.folder):
            if (self.folder / name / "rendered_depth_maps").is_dir():
                yield Scene(name)

    def frames(self, scene: Scene) -> Sequence[str]:
        names = listing(self.folder / scene.name / "rendered_depth_maps")
        return [name.removesuffix(".pfm") for name in names if name.endswith(".pfm")]

    def read(self, scene: Scene, frame: str) -> Frame:
        image = read_image(inside(self.folder, scene.name, "blended_images", f"{frame}.jpg"))
        depth = read_pfm(inside(self.folder, scene.name, "rendered_depth_maps", f"{frame}.pfm"))
        if image.shape[:2] != depth.shape:
            raise Unreadable("size_mismatch", f"the image is {image.shape[:2]}, its depth {depth.shape}")
        camera_from_world, K = _camera(inside(self.folder, scene.name, "cams", f"{frame}_cam.txt"))
        try:
            pose = np.linalg.inv(camera_from_world)
        except np.linalg.LinAlgError:
            raise Unreadable("absurd_pose", "the extrinsic matrix has no inverse") from None
        return Frame(image, depth, half_pixel(K), pose, ("relative_scale",))


def _camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(camera from world (4,4), K (3,3))."""
    words = read_bytes(path, 1 << 16).decode(errors="replace").split()
    try:
        at = words.index("extrinsic"), words.index("intrinsic")
        extrinsic = np.array([float(word) for word in words[at[0] + 1 : at[0] + 17]]).reshape(4, 4)
        K = np.array([float(word) for word in words[at[1] + 1 : at[1] + 10]]).reshape(3, 3)
    except ValueError:
        raise Unreadable("unreadable_camera", f"{path.name} holds no extrinsic and intrinsic matrix") from None
    return extrinsic, K
