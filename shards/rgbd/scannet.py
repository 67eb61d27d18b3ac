"""ScanNet v2: rooms scanned by an iPad with a structured-light depth sensor.

Source of the format: SensReader/README.md, sensorData.h and SensorData.py of github.com/ScanNet/ScanNet.

    FOLDER/[scans/]sceneNNNN_NN/sceneNNNN_NN.sens      as downloaded, or as SensReader exports it:
    FOLDER/[scans/]sceneNNNN_NN/{color/N.jpg, depth/N.png, pose/N.txt, intrinsic/intrinsic_{color,depth}.txt,
                                intrinsic/extrinsic_{color,depth}.txt}

Depth is 16 bits, `depth_shift` counts a metre (1000 where exported), z, 0 where unknown. Colour (1296x968) and depth
(640x480) have intrinsics of their own; the depth was brought into the colour camera's place when it was recorded, so
their extrinsics are the identity, and depth is looked up on the grid of the shrunk picture. Where they are not, the
points move from one camera to the other. The pose is world from camera; it is -inf where tracking was lost: such
frames are kept with the flag `no_pose`. 4x4 intrinsics as a pinhole, first centre at (0, 0): 0.5 is added. The colour
camera's small distortion is not in the published files: what is known as undistorted is taken as such.
"""

import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from .base import Frame, Scene, Unreadable, half_pixel
from .files import inside, listing, read_depth_png, read_image, read_numbers
from .geometry import DETAIL, aligned, area_resized, reprojected, rescaled

SCENE = re.compile(r"scene\d{4}_\d{2}")
HEADER = struct.Struct("<16f16f16f16fiiIIIIfQ")
OF_FRAME = struct.Struct("<16fQQQQ")  # camera to world, two times, bytes of colour and depth
COLOUR, DEPTH = {1, 2}, {0, 1}  # PNG and JPEG; plain and zlib
FRAMES, BYTES = 1 << 20, 64 << 20  # of a scene; of one of its pictures


@dataclass(frozen=True)
class ScanNet:
    folder: Path

    name: ClassVar[str] = "scannet"
    title: ClassVar[str] = "ScanNet v2"
    licence: ClassVar[str] = "ScanNet Terms of Use (non-commercial research)"
    synthetic: ClassVar[bool] = False
    layout: ClassVar[str] = "sceneNNNN_NN/sceneNNNN_NN.sens, or sceneNNNN_NN/color, depth, pose and intrinsic"

    @property
    def _root(self) -> Path:
        return self.folder / "scans" if (self.folder / "scans").is_dir() else self.folder

    def scenes(self) -> Iterable[Scene]:
        """Scans of one room (scene0000_00, scene0000_01) are one place."""
        for name in listing(self._root):
            if SCENE.fullmatch(name) and (self._sens(name).exists() or (self._root / name / "depth").is_dir()):
                yield Scene(name, name[:9])

    def frames(self, scene: Scene) -> Sequence[str]:
        if self._sens(scene.name).exists():
            return [str(index) for index in range(len(_index(self._file(scene)).offsets))]
        colours = {Path(name).stem for name in listing(self._root / scene.name / "color")}
        names = (Path(name).stem for name in listing(self._root / scene.name / "depth") if name.endswith(".png"))
        return sorted((name for name in names if name in colours and name.isdecimal()), key=int)

    def read(self, scene: Scene, frame: str) -> Frame:
        parts = self._from_sens(scene, int(frame)) if self._sens(scene.name).exists() else self._exported(scene, frame)
        image, depth, K_colour, K_depth, colour_from_depth, pose = parts
        K_colour, K_depth = half_pixel(K_colour), half_pixel(K_depth)
        if min(K_colour[0, 0], K_depth[0, 0], K_colour[1, 1], K_depth[1, 1]) <= 0 or not np.isfinite(K_depth).all():
            raise Unreadable("absurd_intrinsics", "a focal length is not positive")
        if np.allclose(colour_from_depth, np.eye(4), atol=1e-4):
            image, depth, K = aligned(image, K_colour, depth, K_depth)
        else:
            scale = min(1.0, DETAIL * K_depth[0, 0] / K_colour[0, 0])
            height, width = round(image.shape[0] * scale), round(image.shape[1] * scale)
            K = rescaled(K_colour, width / image.shape[1], height / image.shape[0])
            depth = reprojected(depth, K_depth, colour_from_depth, K, height, width)
            image = area_resized(image, height, width)
        return Frame(image, depth, K, pose if np.isfinite(pose).all() else None)

    def _sens(self, scene: str) -> Path:
        return self._root / scene / f"{scene}.sens"

    def _file(self, scene: Scene) -> Path:
        return inside(self.folder, str(self._sens(scene.name)))

    def _from_sens(self, scene: Scene, number: int) -> tuple[np.ndarray, ...]:
        path = self._file(scene)
        index = _index(path)
        with path.open("rb") as file:
            file.seek(index.offsets[number])
            pose, colour_bytes, depth_bytes = _of_frame(file)
            colour, packed = _exactly(file, colour_bytes), _exactly(file, depth_bytes)
        height, width = index.depth_size
        if index.zipped:
            unpack = zlib.decompressobj()
            try:
                packed = unpack.decompress(packed, 2 * height * width + 1)
            except zlib.error as error:
                raise Unreadable("unreadable_depth", f"frame {number}: {error}") from None
        if len(packed) != 2 * height * width:
            raise Unreadable("truncated", f"frame {number}: the depth holds {len(packed)} bytes, not {width}x{height}")
        raw = np.frombuffer(packed, "<u2").reshape(height, width)
        image = read_image(colour, f"the picture of frame {number}")
        if image.shape[:2] != index.colour_size:
            raise Unreadable("size_mismatch", f"the picture is {image.shape[:2]}, the header says {index.colour_size}")
        depth = raw.astype(np.float32) / np.float32(index.shift)
        return image, depth, index.K_colour, index.K_depth, index.colour_from_depth, pose

    def _exported(self, scene: Scene, frame: str) -> tuple[np.ndarray, ...]:
        root = str(self._root / scene.name)
        colours = [name for name in (f"{frame}.jpg", f"{frame}.png") if Path(root, "color", name).exists()]
        image = read_image(inside(self.folder, root, "color", colours[0] if colours else f"{frame}.jpg"))
        depth = read_depth_png(inside(self.folder, root, "depth", f"{frame}.png")) / np.float32(1000)
        pose = read_numbers(inside(self.folder, root, "pose", f"{frame}.txt"), 16).reshape(4, 4)

        def matrix(name: str) -> np.ndarray:
            return read_numbers(inside(self.folder, root, "intrinsic", f"{name}.txt"), 16).reshape(4, 4)

        motion = np.eye(4)
        if Path(root, "intrinsic", "extrinsic_depth.txt").exists():
            motion = _motion(matrix("extrinsic_color"), matrix("extrinsic_depth"))
        return image, depth, matrix("intrinsic_color")[:3, :3], matrix("intrinsic_depth")[:3, :3], motion, pose


@dataclass(frozen=True, eq=False)
class _Index:
    """The header of a .sens file, and where its frames begin."""

    K_colour: np.ndarray
    K_depth: np.ndarray
    colour_from_depth: np.ndarray
    colour_size: tuple[int, int]
    depth_size: tuple[int, int]
    zipped: bool
    shift: float
    offsets: tuple[int, ...]


@lru_cache(maxsize=1)
def _index(path: Path) -> _Index:
    """Seeks from frame to frame. A file that ends early keeps the frames that are whole; one of other kinds of pictures
    is refused.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        version, letters = struct.unpack("<IQ", _exactly(file, 12))
        if version != 4 or letters > 4096:
            raise Unreadable("unreadable_scene", f"{path.name} is no .sens file of version 4")
        _exactly(file, letters)
        *numbers, colour, depth, cw, ch, dw, dh, shift, count = HEADER.unpack(_exactly(file, HEADER.size))
        matrices = np.array(numbers, np.float64).reshape(4, 4, 4)
        if colour not in COLOUR or depth not in DEPTH or not (0 < dw * dh <= 1 << 24 and 0 < cw * ch <= 1 << 26):
            raise Unreadable("unreadable_scene", f"{path.name} holds pictures of kinds or sizes that ScanNet has not")
        if not (shift > 0 and np.isfinite(shift)) or count > FRAMES:
            raise Unreadable("unreadable_scene", f"{path.name} claims {count} frames with {shift} units a metre")
        offsets = []
        here = file.tell()
        for _ in range(count):
            file.seek(here)
            try:
                _, colour_bytes, depth_bytes = _of_frame(file)
            except Unreadable:
                break
            if here + OF_FRAME.size + colour_bytes + depth_bytes > size:
                break
            offsets.append(here)
            here += OF_FRAME.size + colour_bytes + depth_bytes
    if not offsets:
        raise Unreadable("truncated", f"{path.name} ends before its first frame")
    motion = _motion(matrices[1], matrices[3])
    K_colour, K_depth = matrices[0, :3, :3], matrices[2, :3, :3]
    return _Index(K_colour, K_depth, motion, (ch, cw), (dh, dw), depth == 1, float(shift), tuple(offsets))


def _motion(colour: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Colour camera from depth camera, of two extrinsics, each from its camera to a common frame."""
    try:
        motion = np.linalg.inv(colour) @ depth
    except np.linalg.LinAlgError:
        motion = np.full((4, 4), np.nan)
    if not np.isfinite(motion).all():
        raise Unreadable("unreadable_camera", "the extrinsics of colour and depth are no motion")
    return motion


def _of_frame(file: BinaryIO) -> tuple[np.ndarray, int, int]:
    *pose, _, _, colour_bytes, depth_bytes = OF_FRAME.unpack(_exactly(file, OF_FRAME.size))
    if max(colour_bytes, depth_bytes) > BYTES:
        raise Unreadable("too_large", f"a frame claims {max(colour_bytes, depth_bytes)} bytes")
    return np.array(pose, np.float64).reshape(4, 4), colour_bytes, depth_bytes


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise Unreadable("truncated", f"{Path(file.name).name} ends before what it claims to hold")
    return data
