"""ParallelDomain: rendered streets in the Dataset Governance Policy (DGP) format.

Source: dgp/proto/*.proto and dgp/annotations/depth_annotation.py of TRI-ML/dgp; paralleldomain/decoding/dgp and
model/annotation/depth.py of parallel-domain/pd-sdk. A scene is a folder with

    scene_HASH.json             samples: calibration_key, datum_keys; data: key, id.name (the camera), datum.image with
                                filename, pose, annotations {"6": depth file}
    calibration/KEY.json        names, intrinsics (fx, fy, cx, cy, skew and distortion), extrinsics (not needed)
    rgb/CAMERA/STAMP.png        the image
    depth/CAMERA/STAMP.npz      array `data`: metres "from the camera plane", which is z

`scene_dataset_*.json` beside the scenes says which file of a scene counts, where it has several. The pose of an image
is world_from_camera, axes right, down, forward. K is that of OpenCV, whose first pixel has its centre at (0, 0): 0.5 is
added. Fisheye and other lenses, and any distortion that is not 0, are rejected. Numbers that are 0 may be left out (as
protobuf does). Depth beyond the option `far` (metres) is sky.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from . import files
from .base import Frame, Scene, Unreadable, half_pixel, intrinsics
from .pose import from_quaternion, rigid

DEPTH = "6"  # dgp.proto.AnnotationType.DEPTH
SCENE_JSON = re.compile(r"scene(_[0-9a-f]+)?\.json\Z")
DISTORTION = "k1 k2 k3 k4 k5 k6 p1 p2 s1 s2 s3 s4 taux tauy alpha beta w xi"  # dgp.proto.CameraIntrinsics
LENS = ("fisheye", "equirectangular", *DISTORTION.split())


@dataclass(frozen=True)
class ParallelDomain:
    """`cameras`: names with commas between, or `all`. `far`: metres, beyond is sky."""

    folder: Path
    cameras: str = "all"
    far: float = 1000.0
    name: ClassVar[str] = "parallel_domain"
    title: ClassVar[str] = "ParallelDomain"
    licence: ClassVar[str] = "ParallelDomain terms (CC-BY-SA-4.0 for the published sets)"
    synthetic: ClassVar[bool] = True
    layout: ClassVar[str] = "SCENE/{scene_HASH.json,calibration,rgb,depth}, scene_dataset_*.json"

    def __post_init__(self) -> None:
        if not self.far > 0:
            raise ValueError(f"option far of corpus parallel_domain is {self.far}: give metres above 0")

    def scenes(self) -> Iterator[Scene]:
        for name in files.listing(self.folder):
            if any(map(SCENE_JSON.match, files.listing(self.folder / name))):
                yield Scene(name)

    def frames(self, scene: Scene) -> list[str]:
        return list(self._images(scene))

    def read(self, scene: Scene, frame: str) -> Frame:
        images = self._images(scene)
        if frame not in images:
            raise Unreadable("missing_file", f"{scene.name} has no image {frame}")
        image, calibration = images[frame]
        shown = files.read_image(files.inside(self.folder, scene.name, _text(image, "filename")))
        stored = files.inside(self.folder, scene.name, _text(image["annotations"], DEPTH))
        z = files.read_npz_member(stored, "data")
        if z.ndim != 2:
            raise Unreadable("unreadable_depth", f"{stored.name} holds an array {z.shape}")
        with np.errstate(invalid="ignore"):
            depth = np.where(z < self.far, z, 0).astype(np.float32)
        K = self._intrinsics(scene, calibration, frame.rsplit(".", 1)[0])
        return Frame(shown, depth, K, _pose(image.get("pose")))

    def _images(self, scene: Scene) -> dict[str, tuple[Mapping[str, Any], str]]:
        """CAMERA.NUMBER of the sample -> (datum.image, calibration key), of the images that have depth."""
        found = [name for name in files.listing(self.folder / scene.name) if SCENE_JSON.match(name)]
        if len(found) > 1:
            listed = self._listed()
            found = [name for name in found if f"{scene.name}/{name}" in listed]
        if len(found) != 1:
            raise Unreadable("unreadable_scene", f"{scene.name} has {len(found)} scene files that may count")
        wanted = None if self.cameras == "all" else frozenset(name.strip() for name in self.cameras.split(","))
        path = files.inside(self.folder, scene.name, found[0])
        images = _with_depth(path, path.stat().st_mtime_ns)
        return {name: entry for name, entry in images.items() if wanted is None or name.rsplit(".", 1)[0] in wanted}

    def _listed(self) -> frozenset[str]:
        listed: set[str] = set()
        for name in files.listing(self.folder):
            if name.startswith("scene_dataset") and name.endswith(".json"):
                whole = files.read_json(files.inside(self.folder, name), "unreadable_scene")
                try:
                    listed.update(str(file) for split in whole["scene_splits"].values() for file in split["filenames"])
                except (AttributeError, KeyError, TypeError):
                    raise Unreadable("unreadable_scene", f"{name} does not list scenes by split") from None
        return frozenset(listed)

    def _intrinsics(self, scene: Scene, key: str, camera: str) -> np.ndarray:
        if not re.fullmatch(r"[0-9a-zA-Z_-]+", key):
            raise Unreadable("unreadable_camera", f"calibration key {key[:60]!r} is not a file name")
        calibration = files.read_json(files.inside(self.folder, scene.name, "calibration", f"{key}.json"))
        try:
            lens = dict(zip(calibration["names"], calibration["intrinsics"], strict=True))[camera]
            values = {name: float(lens.get(name, 0)) for name in ("fx", "fy", "cx", "cy", "skew", *LENS)}
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            raise Unreadable("unreadable_camera", f"calibration {key} has no intrinsics of {camera}") from None
        bent = {name: values[name] for name in LENS if values[name] != 0}
        if bent:
            raise Unreadable("distorted_camera", f"{camera} has a lens with {bent}, which this reader does not undo")
        return half_pixel(intrinsics(values["fx"], values["fy"], values["cx"], values["cy"], values["skew"]))


@functools.lru_cache(maxsize=2)
def _with_depth(path: Path, changed: int) -> dict[str, tuple[Mapping[str, Any], str]]:
    """`changed`: when the file was, so that a mended one is read again."""
    scene = files.read_json(path, "unreadable_scene")
    try:
        data = {datum["key"]: datum for datum in scene["data"]}
        images = {}
        for number, sample in enumerate(scene["samples"]):
            for key in sample["datum_keys"]:
                image = data[key]["datum"].get("image") if key in data else None
                if image is not None and DEPTH in image.get("annotations", {}):
                    images[f"{data[key]['id']['name']}.{number:06d}"] = image, str(sample["calibration_key"])
        return dict(sorted(images.items()))
    except (AttributeError, KeyError, TypeError) as error:
        raise Unreadable("unreadable_scene", f"{path.name} is not a scene of DGP ({type(error).__name__})") from None


def _text(owner: Mapping[str, Any], name: str) -> str:
    value = owner.get(name)
    if not isinstance(value, str):
        raise Unreadable("missing_file", f"{name} of an image is {str(value)[:40]}, not a file")
    return value


def _pose(pose: Any) -> np.ndarray | None:
    """world_from_camera; None where none is given."""
    if not pose:
        return None
    try:
        turn, move = pose.get("rotation", {}), pose.get("translation", {})
        quaternion = [float(turn.get(name, 0)) for name in ("qw", "qx", "qy", "qz")]
        translation = [float(move.get(name, 0)) for name in ("x", "y", "z")]
    except (AttributeError, OverflowError, TypeError, ValueError):
        raise Unreadable("absurd_pose", "the pose of an image is no rotation and translation") from None
    return rigid(from_quaternion(quaternion), translation) if any(quaternion) else None
