"""NYU Depth V2, labelled: 1,449 frames of 464 rooms taken by a Kinect. The paper judges on all of them (Table 6).

Source of the format: the dataset's page (cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html) and its toolbox
(camera_params.m, get_projection_mask.m, project_depth_map.m); the exported folders as cleinc/bts makes them.

    FOLDER/nyu_depth_v2_labeled.mat     MATLAB v7.3, which is HDF5 with the axes of every array reversed:
        images (N,3,640,480) uint8, depths and rawDepths (N,640,480) float metres, scenes (1,N) references to texts
    FOLDER/splits.mat                   optional, of the same page: trainNdxs, testNdxs, counted from 1 (795 and 654)
    or FOLDER/[official_splits/](train|test)/TYPE/{rgb_NNNNN.jpg, sync_depth_NNNNN.png}     16 bits, millimetres

Scenes are rooms: `kitchen_0004`, and where splits.mat is there `test/kitchen_0004`. Parts of one room (0046a, 0046b)
are one place. The pictures are free of distortion, and depth was brought into the colour camera by the authors.

rawDepths is what was measured, 0 where nothing was; depths is the same with its holes painted in by the colours
around them (option `depth`). Undistorting left a white border, and depth reaches less far than colour: by default a
frame is the 561x427 pixels for which the toolbox says that both are there (`crop`: toolbox, border for the picture
within the white, or none).

The intrinsics are those of the toolbox, calibrated with OpenCV, whose first centre is at (0, 0): 0.5 is added. (The
toolbox itself unprojects pixels counted from 1 by the same numbers: by one pixel of 640 it is not of one mind.)
"""

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .base import Frame, Scene, Unreadable, half_pixel, intrinsics
from .files import PIXEL_LIMIT, _plainly, inside, listing, read_bytes, read_depth_png, read_image

LABELLED, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
HEIGHT, WIDTH = 480, 640
K = half_pixel(intrinsics(518.857901, 519.469611, 325.582449, 253.736166))
# rows, columns. toolbox: get_projection_mask.m, 45:471 and 41:601 counted from 1; border: what cleinc/bts keeps
CROPS = {"toolbox": (44, 471, 40, 601), "border": (7, 474, 7, 632), "none": (0, HEIGHT, 0, WIDTH)}
DEPTHS = {"raw": "rawDepths", "filled": "depths"}
EXPORTED = re.compile(r"rgb_(\d{1,6})\.(jpg|png)\Z")
FRAMES = 1 << 20
NUMBERS = {"single", "double", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}  # of MATLAB
TEXT = 256  # characters of a scene's name
TEXT_CHUNK = 1 << 12  # numbers that are unpacked to read one


@dataclass(frozen=True)
class NYU:
    """`depth`: raw (measured) or filled (holes painted in); of an exported folder it is what was exported."""

    folder: Path
    depth: str = "raw"
    crop: str = "toolbox"

    name: ClassVar[str] = "nyu"
    title: ClassVar[str] = "NYU Depth V2"
    licence: ClassVar[str] = "NYU Depth V2 (no licence is stated; research)"
    synthetic: ClassVar[bool] = False
    layout: ClassVar[str] = f"{LABELLED} (and {SPLITS}), or (train|test)/TYPE/{{rgb,sync_depth}}_NNNNN"

    def __post_init__(self) -> None:
        for option, known in (("depth", DEPTHS), ("crop", CROPS)):
            if getattr(self, option) not in known:
                raise ValueError(
                    f"option {option} of corpus nyu is {getattr(self, option)!r}: give {' or '.join(known)}"
                )

    def scenes(self) -> Iterable[Scene]:
        if not self._labelled:
            for part in ("test", "train"):
                for kind in listing(self.folder / self._exported / part):
                    if (self.folder / self._exported / part / kind).is_dir():
                        yield Scene(f"{part}/{kind}")
            return
        try:
            rooms = self._rooms()
        except Unreadable as error:
            raise ValueError(f"{self.folder / LABELLED} cannot be read: {error.message}; download it again") from None
        for name in sorted(rooms):
            yield Scene(name, re.sub(r"(?<=\d)[a-z]\Z", "", name.rpartition("/")[2]))

    def frames(self, scene: Scene) -> Sequence[str]:
        """Their numbers in the file, from 1, as the split counts them."""
        if self._labelled:
            return self._rooms().get(scene.name, ())
        return [name for name in listing(self.folder / self._exported / scene.name) if EXPORTED.match(name)]

    def read(self, scene: Scene, frame: str) -> Frame:
        top, bottom, left, right = CROPS[self.crop]
        image, depth = self._of_file(int(frame)) if self._labelled else self._of_folder(scene, frame)
        if image.shape != (HEIGHT, WIDTH, 3) or depth.shape != (HEIGHT, WIDTH):
            raise Unreadable(
                "size_mismatch", f"the image is {image.shape}, its depth {depth.shape}, not {WIDTH}x{HEIGHT}"
            )
        shifted = K - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]])
        image = np.ascontiguousarray(image[top:bottom, left:right], np.uint8)
        return Frame(image, np.ascontiguousarray(depth[top:bottom, left:right], np.float32), shifted)

    @property
    def _labelled(self) -> bool:
        return (self.folder / LABELLED).exists()

    @property
    def _exported(self) -> str:
        """Where train and test are, within the folder."""
        return "official_splits" if (self.folder / "official_splits").is_dir() else ""

    def _rooms(self) -> dict[str, tuple[str, ...]]:
        """Scene -> its frames."""
        path = inside(self.folder, LABELLED)
        splits = inside(self.folder, SPLITS) if (self.folder / SPLITS).exists() else None
        return _rooms(path, splits, path.stat().st_mtime_ns)

    def _of_file(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        path = inside(self.folder, LABELLED)
        with _opened(path) as file:
            images, depths = _dataset(file, "images", 4), _dataset(file, DEPTHS[self.depth], 3)
            if not 1 <= number <= min(len(images), len(depths)):
                raise Unreadable("truncated", f"{path.name} holds {len(images)} images, {len(depths)} depth maps")
            return np.asarray(images[number - 1]).transpose(2, 1, 0), np.asarray(depths[number - 1]).T

    def _of_folder(self, scene: Scene, frame: str) -> tuple[np.ndarray, np.ndarray]:
        number = EXPORTED.match(frame)
        if number is None:
            raise Unreadable("missing_file", f"{frame} is not rgb_NNNNN.jpg")
        root = (self._exported, scene.name)
        depth = read_depth_png(inside(self.folder, *root, f"sync_depth_{number[1]}.png"))
        return read_image(inside(self.folder, *root, frame)), depth.astype(np.float32) / np.float32(1000)


@lru_cache(maxsize=2)
def _rooms(path: Path, splits: Path | None, changed: int) -> dict[str, tuple[str, ...]]:
    """Scene -> its frames, as text. `changed`: when the file was, so that another one is read again."""
    with _opened(path) as file:
        references = _dataset(file, "scenes", 2, "O")
        if references.size > FRAMES:
            raise Unreadable("too_large", f"{path.name} claims {references.size} frames")
        names = [_text(file, reference) for reference in np.asarray(references[()]).ravel()]
    part = {} if splits is None else _parts(splits)
    found: dict[str, list[str]] = {}
    for number, name in enumerate(names, 1):
        found.setdefault(f"{part[number]}/{name}" if number in part else name, []).append(f"{number:04d}")
    return {name: tuple(numbers) for name, numbers in found.items()}


def _parts(path: Path) -> dict[int, str]:
    """Frame -> train or test."""
    import scipy.io

    keys = {"trainNdxs": "train", "testNdxs": "test"}
    data = io.BytesIO(read_bytes(path, 1 << 16))  # the real one has 2.6 kB
    with _plainly("unreadable_scene", path.name):
        # structs and cells are read element by element, as many as they claim, which takes for ever
        for name, shape, kind in scipy.io.whosmat(data):
            if name in keys and (kind not in NUMBERS or math.prod(shape) > FRAMES):
                raise Unreadable("unreadable_scene", f"{name} of {path.name} is no list of numbers, but {shape} {kind}")
        data.seek(0)
        lists = scipy.io.loadmat(data, variable_names=list(keys))
        return {int(number): part for key, part in keys.items() for number in np.asarray(lists[key]).ravel()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    with _plainly("unreadable_scene", path.name), h5py.File(path, "r", locking=False) as file:
        yield file


def _dataset(file: Any, name: str, dimensions: int, kinds: str = "uf") -> Any:
    """A dataset of the file's own, of which one frame is read at a time: 2.8 GB are not."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise Unreadable("unreadable_scene", f"{LABELLED} has no array {name!r} of its own")
    found = file[name]
    if not _of_its_own(found) or found.ndim != dimensions:
        raise Unreadable("unreadable_scene", f"{name!r} of {LABELLED} is not an array of {dimensions} dimensions")
    if found.dtype.kind not in kinds or max(math.prod(found.shape[1:]), math.prod(found.chunks or ())) > PIXEL_LIMIT:
        raise Unreadable("unreadable_scene", f"{name!r} of {LABELLED} holds {found.shape} {found.dtype}")
    return found


def _of_its_own(found: Any) -> bool:
    """Whether it is an array whose numbers are in the file itself: other files may be anywhere, and pipes."""
    import h5py

    return isinstance(found, h5py.Dataset) and not found.is_virtual and not found.external


def _text(file: Any, reference: Any) -> str:
    """A MATLAB text: a column of UTF-16 codes. Names of scenes become parts of names of files."""
    letters = file[reference]
    plain = _of_its_own(letters) and letters.dtype.kind == "u" and math.prod(letters.chunks or ()) <= TEXT_CHUNK
    if not plain or letters.size is None or not 0 < letters.size <= TEXT:
        raise Unreadable("unreadable_scene", f"the name of a scene in {LABELLED} is no text")
    text = "".join(chr(code) for code in np.asarray(letters[()]).ravel())
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise Unreadable("unreadable_scene", f"{LABELLED} names a scene {text[:40]!r}")
    return text
