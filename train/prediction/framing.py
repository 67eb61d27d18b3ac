"""From a picture to what the model takes: a square (or patch-aligned) crop, a validity mask, a background.

Objects are framed as the public release frames them: a square around the mask whose longer side fills 2/3 of the image.
Scenes keep their view and are scaled to the model's size.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

OBJECT_FILL = 2 / 3
MAX_PIXELS = 100_000_000


@dataclass(frozen=True, eq=False)
class Framed:
    """rgba (H,W,4) uint8 straight sRGB | valid A (H,W) bool | framed_from_image (3,3): pixel coordinates, affine."""

    rgba: np.ndarray
    valid: np.ndarray
    framed_from_image: np.ndarray


def read_image(path: Path, mask: Path | None = None) -> tuple[np.ndarray, bool]:
    """(rgba (h,w,4) uint8, whether it has a mask): a mask file (any picture, white = valid), or the image's alpha.

    Turned upright as the file's EXIF orientation says. Raises FileNotFoundError or ValueError with what to do.
    """
    rgba = _open(path)
    if mask is not None:
        alpha = np.asarray(Image.fromarray(_open(mask)).convert("L"))
        if alpha.shape != rgba.shape[:2]:
            raise ValueError(f"{mask}: mask is {_wxh(alpha)}, the image {path} is {_wxh(rgba)}; they must agree")
        return np.dstack([rgba[..., :3], alpha]), True
    return rgba, bool((rgba[..., 3] < 255).any())


def frame_object(rgba: np.ndarray, size: int) -> Framed:
    """Centre the masked object in a size x size image, its longer side at 2/3. ValueError where the mask is empty."""
    rows, columns = (np.flatnonzero((rgba[..., 3] > 127).any(axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        raise ValueError("the mask is empty: no pixel has alpha above one half, so there is no object to predict")
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left) / OBJECT_FILL
    return _resample(rgba, (left + right) / 2 - side / 2, (top + bottom) / 2 - side / 2, side, side, size, size)


def frame_scene(rgba: np.ndarray, size: int, patch: int) -> Framed:
    """Scale the longer side to `size`; the shorter one is cropped, about its centre, to a multiple of the patch."""
    h, w = rgba.shape[:2]
    longest = max(h, w)
    height, width = (max(patch, side * size // longest // patch * patch) for side in (h, w))
    scale = size / longest
    return _resample(
        rgba, (w - width / scale) / 2, (h - height / scale) / 2, width / scale, height / scale, width, height
    )


def _resample(rgba: np.ndarray, x: float, y: float, w: float, h: float, width: int, height: int) -> Framed:
    """Resample the box (x, y, w, h) of the image, which may reach beyond it, to width x height pixels."""
    pad = int(np.ceil(max(0, -x, -y, x + w - rgba.shape[1], y + h - rgba.shape[0]))) + 1
    padded = np.pad(rgba, ((pad, pad), (pad, pad), (0, 0)))
    box = (x + pad, y + pad, x + pad + w, y + pad + h)
    # Premultiplied ("RGBa") while averaging: the colour under a transparent pixel must not bleed into the object.
    image = Image.fromarray(padded).convert("RGBa").resize((width, height), Image.Resampling.BOX, box=box)
    framed = np.asarray(image.convert("RGBA"))
    transform = np.array([[width / w, 0, -x * width / w], [0, height / h, -y * height / h], [0, 0, 1.0]])
    return Framed(framed, framed[..., 3] > 127, transform)


def _open(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{path}: {image.width}x{image.height} pixels; at most {MAX_PIXELS} are read")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); give a PNG, JPEG or WebP") from None


def _wxh(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
