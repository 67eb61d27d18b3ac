"""The frames of a clip: a folder of pictures, an animated picture or a video, in order, every so many."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from train.prediction.reading import MAX_PIXELS, Picture, check_pixels, open_picture, rgba_of

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
CONTAINERS = "mov,matroska,avi"  # what FFmpeg may take a file for: its lists and playlists open other files
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # a TIFF has pages, and the second picture in a phone's JPEG is no frame
CLIP_PIXELS = 4 * MAX_PIXELS  # of all frames that are held at once: 1.6 GB of RGBA


@dataclass(frozen=True, eq=False)
class Frames:
    """rgba: T arrays (h,w,4) uint8 | names of the frames | more: whether the clip goes on after them."""

    rgba: list[np.ndarray]
    names: list[str]
    more: bool


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by name, numbers in names by value (2 before 10). ValueError where there is none."""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURES and not path.name.startswith(".") and path.is_file()
    ]
    if not found:
        raise ValueError(f"{folder}: no picture in this folder; {', '.join(PICTURES)} are looked for")
    return sorted(found, key=_natural)


def is_clip(picture: Picture | Sequence[Picture]) -> bool:
    """Whether there are several frames: a list, a folder, a video, or a GIF, WebP, PNG or AVIF that moves."""
    if isinstance(picture, list | tuple):
        return True
    if not isinstance(picture, str | Path):
        return False
    path = Path(picture)
    if path.is_dir() or path.suffix.lower() in VIDEOS:
        return True
    try:
        with open_picture(path) as image:
            return image.format in ANIMATED and bool(getattr(image, "is_animated", False))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False  # whoever reads it says why


def frames_of(clip: Picture | Sequence[Picture], count: int, stride: int = 1) -> Frames:
    """Frames 0, stride, 2 stride, ... of a clip, at most `count`.

    FileNotFoundError, or ValueError for what cannot be read, has no frame, or whose frames are more pixels together
    than are held. A video needs PyAV: ModuleNotFoundError says so.
    """
    if count < 1 or stride < 1:
        raise ValueError(f"a clip of {count} frames, every {stride}: both must be at least 1")
    rgba: list[np.ndarray] = []
    names: list[str] = []
    pixels = 0
    wanted = islice(_every(clip, stride), count + 1)
    for index, (name, frame) in enumerate(wanted):
        if index == count:
            return Frames(rgba, names, True)
        pixels += frame.shape[0] * frame.shape[1]
        if pixels > CLIP_PIXELS:
            raise ValueError(
                f"{name}: with it the clip has {pixels} pixels, and {CLIP_PIXELS} are held at once; take fewer --frames"
                " or scale it down"
            )
        rgba.append(frame)
        names.append(name)
    if not rgba:
        raise ValueError(f"{clip}: has no frame")
    return Frames(rgba, names, False)


def _every(clip: Picture | Sequence[Picture], stride: int) -> Iterator[tuple[str, np.ndarray]]:
    """(name, rgba) of every `stride`-th frame; those between are not decoded where that can be spared."""
    if isinstance(clip, list | tuple):
        for index in range(0, len(clip), stride):
            yield f"frame {index}", rgba_of(clip[index], f"frame {index}")
        return
    if not isinstance(clip, str | Path):
        raise ValueError(
            f"a {type(clip).__name__} is no clip; give a list of pictures, a folder, a video or an animation"
        )
    path = Path(clip)
    if path.is_dir():
        for each in pictures_in(path)[::stride]:
            yield each.name, rgba_of(each)
    elif path.suffix.lower() in VIDEOS:
        yield from _of_video(path, stride)
    elif is_clip(path):
        yield from _of_animation(path, stride)
    else:
        yield path.name, rgba_of(path)


def _of_animation(path: Path, stride: int) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with open_picture(path) as image:
            check_pixels(image.width, image.height, str(path))
            for index, frame in enumerate(ImageSequence.Iterator(image)):
                if index % stride == 0:
                    yield f"{path.name} [{index}]", rgba_of(frame, str(path))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable animation ({error})") from None


def _of_video(path: Path, stride: int) -> Iterator[tuple[str, np.ndarray]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video")
    try:
        import av
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path}: videos are read by PyAV, which is not installed; pip install 'worldtrace[video]', or give a "
            "folder of frames"
        ) from None
    try:
        with av.open(
            f"file:{path}",  # a colon in a name is no protocol
            container_options={"format_whitelist": CONTAINERS},
            metadata_errors="ignore",
        ) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: no video in this file")
            stream = container.streams.video[0]
            check_pixels(stream.width, stream.height, str(path))
            stream.thread_type = "AUTO"
            for index, frame in enumerate(container.decode(stream)):
                if index % stride == 0:
                    check_pixels(frame.width, frame.height, str(path))
                    yield f"{path.name} [{index}]", _upright(frame)
    except av.FFmpegError as error:
        raise ValueError(f"{path}: not a readable video ({error.strerror})") from None


def _upright(frame: Any) -> np.ndarray:
    """(h,w,4) uint8, turned as a phone's video says that it was held; opaque but where the video has an alpha."""
    turns = round(getattr(frame, "rotation", 0) / 90)
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgba"), turns))


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], path.name
