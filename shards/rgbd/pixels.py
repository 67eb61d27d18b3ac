"""Pixels that few corpora need: with alpha, the raw channels of an RGBA PNG, and a channel of an OpenEXR file."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from .base import Reason, Unreadable
from .files import PIXEL_LIMIT, _opened, _plainly, read_bytes

DEPTH_CHANNELS = ("Z", "depth", "Depth", "V", "Y", "R")  # where there are several, the first of these that is there


def read_rgba(path: Path, reason: Reason = "unreadable_image") -> np.ndarray:
    """(H,W,4) uint8 of an RGBA PNG, as stored."""
    with _opened(path, reason, path.name, ("PNG",)) as image:
        if image.mode != "RGBA":
            raise Unreadable(reason, f"{path.name} is a PNG of mode {image.mode}, not RGBA")
        return np.asarray(image)


def read_image_alpha(path: Path) -> np.ndarray:
    """(H,W,4) uint8 straight sRGB; alpha 255 where the file has none."""
    with _opened(path, "unreadable_image", path.name) as image:
        return np.asarray(image.convert("RGBA"), np.uint8)


def read_exr(path: Path, reason: Reason = "unreadable_depth") -> np.ndarray:
    """(H,W) float32 of the one channel of an OpenEXR file, or of Z, depth, V, Y or R, the first that is there."""
    import OpenEXR

    data = read_bytes(path)
    with _plainly(reason, path.name):
        header: Any = OpenEXR.File(io.BytesIO(data), separate_channels=True, header_only=True).header()
        low, high = (np.asarray(corner, np.int64) for corner in header["dataWindow"])
        width, height = (int(side) for side in high - low + 1)
        count = len(header["channels"])
        if min(width, height, count) < 1 or width * height * count > PIXEL_LIMIT:
            raise Unreadable("too_large", f"{path.name} has {height}x{width} pixels of {count} channels")
        channels: Any = OpenEXR.File(io.BytesIO(data), separate_channels=True).channels()
    named = next((name for name in DEPTH_CHANNELS if name in channels), None)
    name = next(iter(channels)) if len(channels) == 1 else named
    if name is None:
        raise Unreadable(reason, f"{path.name} has channels {', '.join(sorted(channels))[:80]}: none is a depth")
    pixels = np.asarray(channels[name].pixels)
    if pixels.shape != (height, width) or pixels.dtype.kind not in "fu":
        raise Unreadable("truncated", f"the pixels of {path.name} could not be read")
    return pixels.astype(np.float32)
