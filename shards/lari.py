"""LaRI's layered depth images as multilayer samples: `worldtrace shards from-lari`.

Source: dataset_curation/ and src/datasets/ of the repository ruili3/lari, which made the published sets. A view has

    NAME_ldi.npz    `ldi` (H,W,N) float16: z along the optical axis, front to back, N = 10 or 15; -1: no surface
                    (its loader: what is not > 0 is not valid)

and beside it, which tells the kind:

    blender   ROOM/NNN.png with NNN.npy: objects (Objaverse, GSO: camera_from_world (3,4) of Blender; lens 35 mm on a
              sensor of 32 mm) and rooms (3D-FRONT: a map of that matrix, T_b_w2cam, and of cam_len in mm, pickled,
              which is read without unpickling: shards/lari_cameras.py)
    scannetpp SCENE/dslr/ldi/ with NAME.npz (K, Tr_w2c_cv) and dslr/downscaled_undistorted_images/NAME.JPG
    scrream   SCENE/ldi/ with ../camera_pose/NAME.txt (world_from_camera), ../intrinsics.txt and ../rgb/NAME.png

Rule of the layers: surfaces of a ray are its valid depths in ascending order. Where a layer is missing before a valid
one (PyTorch3D, which drew these, leaves no such hole) those behind move up, since the contract knows no hole: flag
`lari_holes`; where they are not ascending: flag `lari_unordered`. Faces that coincide stay two surfaces, for a file
does not tell which way they face. What lies beyond layer L is dropped; where the file itself has fewer layers than L,
`overflow` counts the rays that use all of them. Half floats are exact to 2^-11: `info.depth_precision` names the type.

Objects are normalised as ours (longest side 1, centred at 0) before they were drawn; rooms and scans are in metres:
`info.normalisation` is scale 1, offset 0 in all. Pixel centres lie at +0.5, as PyTorch3D draws them, whatever K. Images
without alpha get 255.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from . import ledger
from .contract import LayeredView, Origin, Regime, forward_fill
from .lari_cameras import OBJECT_LENS, SENSOR, blender_camera
from .rgbd import files
from .rgbd.base import FARTHEST, MIN_VALID, Scene, Unreadable, check_intrinsics, check_pose, intrinsics, origin_sha256
from .rgbd.convert import key_of
from .rgbd.pixels import read_image_alpha

LDI = "_ldi.npz"
DEPTH_LIMIT = 64  # layers that a file may have
NESTED = 5  # folders below the given one in which views are looked for
LICENCES = {
    "object": "unknown",  # that of the asset, which LaRI's files do not tell
    "room": "3D-FRONT terms of use",
    "scannetpp": "ScanNet++ terms of use",
    "scrream": "SCRREAM terms of use",
}


@dataclass(frozen=True)
class LaRI:
    """A reader in the sense of shards/rgbd/base.py: a scene is a folder of views (an object, a room, a scan)."""

    folder: Path
    name: ClassVar[str] = "lari"
    title: ClassVar[str] = "LaRI"
    licence: ClassVar[str] = "of its sources"
    synthetic: ClassVar[bool] = True
    layout: ClassVar[str] = "folders of NAME_ldi.npz (key ldi) with images and cameras"

    def scenes(self) -> Iterator[Scene]:
        """Every folder with views, at most NESTED levels down; NAME/. is the given one itself, in which a folder of the
        same NAME may lie. Views of one house, object or scan share a place.
        """
        for where in _folders_of_views(self.folder):
            name = where.relative_to(self.folder).as_posix() if where != self.folder else f"{where.resolve().name}/."
            yield Scene(name, _place(where))

    def frames(self, scene: Scene) -> list[str]:
        return [name.removesuffix(LDI) for name in files.listing(self._where(scene)) if name.endswith(LDI)]

    def view(self, scene: Scene, number: int, frame: str, layers: int) -> LayeredView:
        where = self._where(scene)
        stored = files.read_npz_member(self._file(where / f"{frame}{LDI}"), "ldi")
        if stored.ndim != 3 or stored.dtype.kind != "f" or not 1 <= stored.shape[2] <= DEPTH_LIMIT:
            raise Unreadable("unreadable_depth", f"ldi of {frame} is {stored.shape} {stored.dtype}, not (H, W, layers)")
        depth, hits, about = layers_of(stored, layers)
        if (count := int(np.count_nonzero(hits))) < MIN_VALID:
            raise Unreadable("no_valid_depth", f"{count} pixels have depth, fewer than {MIN_VALID}")
        kind, image, K, pose = self._camera(where, frame)
        if image.shape[:2] != hits.shape:
            raise Unreadable("size_mismatch", f"{frame}: the image is {image.shape[:2]}, its layers {hits.shape}")
        check_intrinsics(K, *hits.shape)
        check_pose(pose)
        regime: Regime = "object" if kind == "object" else "scene"
        info = {"view": number, "frame": ledger.plain(frame), "depth_precision": stored.dtype.name, **about}
        return LayeredView(
            key=key_of(self.name, scene.name, frame),
            rgba=image,
            hits=hits,
            depth=depth,
            K=K,
            world_from_camera=pose,
            regime=regime,
            origin=Origin(
                ledger.plain(f"{self.name}/{scene.name}"),
                f"lari-{kind}",
                origin_sha256(self.name, scene.place),
                LICENCES[kind],
            ),
            info={**info, "normalisation": {"scale": 1.0, "offset": [0.0, 0.0, 0.0]}},
        )

    def _camera(self, where: Path, frame: str) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
        """(kind, image (H,W,4), K, world_from_camera) of a view."""
        if where.name == "ldi" and where.parent.name == "dslr":
            return "scannetpp", *self._scannetpp(where, frame)
        if where.name == "ldi":
            return "scrream", *self._scrream(where.parent, frame)
        image = read_image_alpha(self._file(where / f"{frame}.png"))
        pose, lens = blender_camera(self._file(where / f"{frame}.npy"))
        height, width = image.shape[:2]
        focal = (OBJECT_LENS if lens is None else lens) * width / SENSOR
        return "object" if lens is None else "room", image, intrinsics(focal, focal, width / 2, height / 2), pose

    def _scannetpp(self, where: Path, frame: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        camera = self._file(where / f"{frame}.npz")
        K = _square(files.read_npz_member(camera, "K", "unreadable_camera"), 3, camera.name)
        camera_from_world = _square(files.read_npz_member(camera, "Tr_w2c_cv", "unreadable_camera"), 4, camera.name)
        photographs = where.parent / "downscaled_undistorted_images"
        path = next(
            (p for suffix in (".JPG", ".jpg", ".png") if (p := photographs / f"{frame}{suffix}").exists()), None
        )
        if path is None:
            raise Unreadable("missing_file", f"{frame} has no image in {photographs.name}")
        return read_image_alpha(self._file(path)), K, _inverse(camera_from_world, camera.name)

    def _scrream(self, scan: Path, frame: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        K = files.read_numbers(self._file(scan / "intrinsics.txt"), 9).reshape(3, 3)
        pose = files.read_numbers(self._file(scan / "camera_pose" / f"{frame}.txt"), 16).reshape(4, 4)
        return read_image_alpha(self._file(scan / "rgb" / f"{frame}.png")), K, pose

    def _where(self, scene: Scene) -> Path:
        return self.folder if scene.name.endswith("/.") else self.folder / scene.name

    def _file(self, path: Path) -> Path:
        return files.inside(self.folder, path.relative_to(self.folder).as_posix())


def layers_of(stored: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """ldi (H,W,N) -> (depth (layers,H,W) float32 forward-filled, hits (H,W) uint8, {"flags", "overflow"} of info), by
    the rule above.
    """
    depth = np.moveaxis(stored, 2, 0).astype(np.float32)
    with np.errstate(invalid="ignore"):
        valid = (depth > 0) & (depth < FARTHEST)
    depth = np.where(valid, depth, np.float32(np.inf))
    flags = []
    if np.any(~valid[:-1] & valid[1:]):
        flags.append("lari_holes")
    # the farthest valid depth before each layer, to be no farther than it
    before = np.maximum.accumulate(np.where(valid, depth, -np.inf), axis=0)[:-1]
    if np.any(valid[1:] & (depth[1:] < before)):
        flags.append("lari_unordered")
    if flags:
        depth = np.sort(depth, axis=0)
    present = depth.shape[0]
    overflow = int(np.count_nonzero(np.isfinite(depth[-1]))) if present < layers else 0
    missing = np.full((max(0, layers - present), *depth.shape[1:]), np.inf, np.float32)
    filled, hits = forward_fill(np.concatenate([depth[:layers], missing]))
    return filled, hits, {"flags": flags, "overflow": overflow}


def _folders_of_views(root: Path, level: int = 0) -> Iterator[Path]:
    """In the order of their names. Links to folders are not followed: they may lead out, or round."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name.endswith(LDI) for entry in entries):
        yield root
    for entry in entries:
        if level < NESTED and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from _folders_of_views(root / entry.name, level + 1)


def _place(where: Path) -> str:
    """What the views of a folder show: the scan that `ldi/` is of, the house of a room HOUSE_NUMBER, the object."""
    where = where.resolve()
    if where.name == "ldi" and where.parent.name == "dslr":
        return where.parent.parent.name
    if where.name == "ldi":
        return where.parent.name.split("_")[0]  # scene01_full_00 and scene01_reduced_00 are the same rooms
    house, _, room = where.name.rpartition("_")
    return house if room.isdecimal() and _is_uuid(house) else where.name


def _is_uuid(text: str) -> bool:
    return [len(part) for part in text.split("-")] == [8, 4, 4, 4, 12]


def _square(matrix: np.ndarray, size: int, name: str) -> np.ndarray:
    if matrix.shape != (size, size) or not np.isfinite(matrix).all():
        raise Unreadable("unreadable_camera", f"{name} holds a matrix {matrix.shape}, not {size}x{size} numbers")
    return matrix.astype(np.float64)


def _inverse(matrix: np.ndarray, name: str) -> np.ndarray:
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        raise Unreadable("absurd_pose", f"the pose of {name} cannot be inverted") from None
    inverse[3] = 0, 0, 0, 1
    return inverse
