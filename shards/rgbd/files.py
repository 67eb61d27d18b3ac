"""Reading single files of a corpus that came from elsewhere: within its folder, of bounded size, with typed failures.

Every function raises `Unreadable` alone for whatever a file holds. Sizes are known from headers before anything is
allocated.
"""

import io
import json
import math
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from PIL import Image

from .base import Reason, Unreadable

FILE_LIMIT = 256 << 20  # bytes of one image, depth map or camera file
PIXEL_LIMIT = 1 << 26  # pixels of one of them: 8192 x 8192
PFM = re.compile(rb"Pf\s+(\d+)\s+(\d+)\s+(\S+)[^\S\n]*\n")  # width, height, scale; one line end before the values
IMAGES = ("JPEG", "PNG", "WEBP", "BMP", "PPM")  # JPEG opens MPO too: a phone's, with a second picture behind


def inside(folder: Path, *parts: str) -> Path:
    """folder/parts with links followed, an existing regular file that lies in `folder`.

    Unreadable: `missing_file`, or `outside_folder` where a link or ".." leads elsewhere (a listed archive may hold
    either), or where it is a pipe or a device, which would never end.
    """
    path = folder.joinpath(*parts)
    try:
        root, real = os.path.realpath(folder), os.path.realpath(path, strict=True)
        mode = os.stat(real).st_mode
    except (OSError, ValueError):
        raise Unreadable("missing_file", f"{path} is missing") from None
    if os.path.commonpath([root, real]) != root:
        raise Unreadable("outside_folder", f"{path} leads out of the corpus, to {real}")
    if not stat.S_ISREG(mode):
        raise Unreadable("missing_file" if stat.S_ISDIR(mode) else "outside_folder", f"{path} is not a plain file")
    return Path(real)


def listing(folder: Path) -> list[str]:
    """The names in a folder, sorted, hidden ones left out; empty where it is none."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def read_bytes(path: Path, limit: int = FILE_LIMIT) -> bytes:
    """The whole file, of at most `limit` bytes."""
    with _plainly("missing_file", path.name), path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Unreadable("too_large", f"{path.name} has more than {limit >> 20} MiB")
    return data


def read_image(source: Path | bytes, name: str = "the image") -> np.ndarray:
    """(H,W,3) uint8 sRGB on the grid that is stored: EXIF turns are not applied, since depth and K are of that grid."""
    with _opened(source, "unreadable_image", name) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def image_size(source: Path | bytes, name: str = "the image") -> tuple[int, int]:
    """(height, width) from the header."""
    with _opened(source, "unreadable_image", name) as image:
        return image.height, image.width


def read_depth_png(source: Path | bytes, name: str = "the depth map") -> np.ndarray:
    """(H,W) uint16 of a grey PNG of 16 bits, as stored."""
    with _opened(source, "unreadable_depth", name, ("PNG",)) as image:
        if image.mode not in ("I;16", "I;16B", "I"):
            raise Unreadable(
                "unreadable_depth", f"{_name(source, name)} is a PNG of mode {image.mode}, not 16-bit grey"
            )
        values = np.asarray(image)
    if values.size and not (values.min() >= 0 and values.max() <= 0xFFFF):
        raise Unreadable("unreadable_depth", f"{_name(source, name)} holds values beyond 16 bits")
    return values.astype(np.uint16)


def read_gray(source: Path | bytes, name: str = "the map") -> np.ndarray:
    """(H,W) uint8 of a grey PNG of 8 bits, as stored."""
    with _opened(source, "unreadable_depth", name, ("PNG",)) as image:
        if image.mode not in ("L", "P"):
            raise Unreadable("unreadable_depth", f"{_name(source, name)} is a PNG of mode {image.mode}, not 8-bit grey")
        return np.asarray(image, np.uint8)


def read_pfm(path: Path) -> np.ndarray:
    """(H,W) float32 of a one-channel portable float map. Rows are stored from the bottom; a negative scale says little
    endian.
    """
    data = read_bytes(path)
    header = PFM.match(data[:128])
    try:
        width, height, scale = (int(header[1]), int(header[2]), float(header[3])) if header else (0, 0, 0.0)
    except ValueError:
        scale = 0.0
    if header is None or scale == 0 or not math.isfinite(scale):
        raise Unreadable("unreadable_depth", f"{path.name} is not a portable float map of one channel")
    if min(width, height) < 1 or width * height > PIXEL_LIMIT:
        raise Unreadable("too_large", f"{path.name} claims {width}x{height} pixels")
    begin = header.end()
    if len(data) - begin < 4 * width * height:
        raise Unreadable("truncated", f"{path.name} ends before its {width}x{height} pixels")
    values = np.frombuffer(data, "<f4" if scale < 0 else ">f4", width * height, begin)
    return np.ascontiguousarray(values.reshape(height, width)[::-1], np.float32)


def read_npy(source: Path | bytes, name: str = "the array", reason: Reason = "unreadable_depth") -> np.ndarray:
    """The array of a .npy file: numbers alone, of at most 4 * PIXEL_LIMIT values."""
    data = source if isinstance(source, bytes) else read_bytes(source)
    name = _name(source, name)
    shape, fortran, dtype, begin = npy_header(data, name, reason)
    count = math.prod(shape)
    if dtype.hasobject or dtype.kind not in "biuf" or not 0 <= count <= 4 * PIXEL_LIMIT:
        raise Unreadable(reason, f"{name} holds {shape} {dtype}, not a bounded array of numbers")
    if len(data) - begin < count * dtype.itemsize:
        raise Unreadable("truncated", f"{name} ends before its {shape} values")
    return np.frombuffer(data, dtype, count, begin).reshape(shape, order="F" if fortran else "C")


def npy_header(data: bytes, name: str, reason: Reason) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """(shape, whether in Fortran's order, dtype, where the values begin) of a .npy file."""
    try:
        with io.BytesIO(data) as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(file)
            begin = file.tell()
    except (ValueError, TypeError, OSError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise Unreadable(reason, f"{name} is not a .npy file ({_first_line(error)})") from None
    if min(shape, default=0) < 0:
        raise Unreadable(reason, f"{name} is not a .npy file (its shape is {shape})")
    return shape, fortran, dtype, begin


def read_npz_member(source: Path | bytes, member: str, reason: Reason = "unreadable_depth") -> np.ndarray:
    """One array of a .npz, whatever its compression claims: what it unpacks to is bounded."""
    data = source if isinstance(source, bytes) else read_bytes(source)
    with (
        _plainly(reason, _name(source, "the .npz")),
        zipfile.ZipFile(io.BytesIO(data)) as archive,
        archive.open(f"{member}.npy") as file,
    ):
        content = file.read(FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise Unreadable("too_large", f"{member} of {_name(source, 'the .npz')} unpacks to over {FILE_LIMIT >> 20} MiB")
    return read_npy(content, member, reason)


def read_h5(path: Path, dataset: str, reason: Reason = "unreadable_depth") -> np.ndarray:
    """A dataset of numbers of an HDF5 file. What lies in other files (external links, storage, virtual datasets) is
    refused, since those may lead anywhere.
    """
    import h5py

    read_size(path)
    with _plainly(reason, path.name), h5py.File(path, "r", locking=False) as file:
        group: Any = file
        for part in dataset.strip("/").split("/"):
            link = group.get(part, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise Unreadable(reason, f"{path.name} has no dataset {dataset!r} of its own")
            group = group[part]
        if not isinstance(group, h5py.Dataset) or group.is_virtual or group.external or group.dtype.kind not in "biuf":
            raise Unreadable(reason, f"{dataset!r} of {path.name} is not a plain dataset of numbers")
        if group.size is None or group.size > 4 * PIXEL_LIMIT:
            raise Unreadable("too_large", f"{dataset!r} of {path.name} has {group.shape} values")
        return np.asarray(group[()])


def read_size(path: Path, limit: int = FILE_LIMIT) -> int:
    """Bytes of the file, at most `limit`."""
    with _plainly("missing_file", path.name):
        size = path.stat().st_size
    if size > limit:
        raise Unreadable("too_large", f"{path.name} has more than {limit >> 20} MiB")
    return size


def read_numbers(source: Path | bytes, count: int, reason: Reason = "unreadable_camera") -> np.ndarray:
    """The first `count` numbers of a text, float64, separated by blanks or commas."""
    data = source if isinstance(source, bytes) else read_bytes(source, 16 << 20)
    name = _name(source, "the text")
    try:
        values = [float(word) for word in data.replace(b",", b" ").split()[:count]]
    except ValueError:
        raise Unreadable(reason, f"{name} does not hold numbers alone") from None
    if len(values) < count:
        raise Unreadable(reason, f"{name} holds {len(values)} numbers instead of {count}")
    return np.array(values, np.float64)


def read_json(source: Path | bytes, reason: Reason = "unreadable_camera") -> Any:
    """The value of a JSON text of at most 64 MiB."""
    data = source if isinstance(source, bytes) else read_bytes(source, 64 << 20)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(reason, f"{_name(source, 'the text')} is not JSON ({_first_line(error)})") from None


@contextmanager
def _opened(
    source: Path | bytes, reason: Reason, name: str, formats: tuple[str, ...] = IMAGES
) -> Iterator[Image.Image]:
    name = _name(source, name)
    data = source if isinstance(source, bytes) else read_bytes(source)
    with _plainly(reason, name), Image.open(io.BytesIO(data), formats=formats) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise Unreadable("too_large", f"{name} has {image.width}x{image.height} pixels")
        yield image


@contextmanager
def _plainly(reason: Reason, name: str) -> Iterator[None]:
    """Whatever the libraries raise for what a file holds, as Unreadable."""
    try:
        yield
    except Unreadable:
        raise
    except FileNotFoundError:
        raise Unreadable("missing_file", f"{name} is missing") from None
    except Image.DecompressionBombError as error:
        raise Unreadable("too_large", f"{name}: {_first_line(error)}") from None
    except (KeyError, MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError, EOFError) as error:
        cut = isinstance(error, EOFError) or "truncated" in str(error)
        raise Unreadable("truncated" if cut else reason, f"{name}: {_first_line(error)}") from None
    except (ArithmeticError, IndexError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise Unreadable(reason, f"{name}: {_first_line(error)}") from None


def _name(source: Path | bytes, name: str) -> str:
    return source.name if isinstance(source, Path) else name


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
