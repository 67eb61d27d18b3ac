"""RGBA as WebP: lossy colour, lossless alpha; where alpha is 0 the colour is free and costs nothing."""

import io

import numpy as np
from PIL import Image

from .errors import CorruptSample

QUALITY = 92
METHOD = 4


def encode_rgba(rgba: np.ndarray) -> bytes:
    """rgba (H,W,4) uint8 straight sRGB -> WebP. Alpha survives exactly, colour nearly (docs/format.md has the
    figures).
    """
    out = io.BytesIO()
    Image.fromarray(rgba, "RGBA").save(
        out, "WEBP", quality=QUALITY, method=METHOD, alpha_quality=100, exact=False, use_sharp_yuv=True
    )
    return out.getvalue()


def decode_rgba(data: bytes, height: int, width: int) -> np.ndarray:
    """WebP -> (H,W,4) uint8. CorruptSample where it cannot be decoded or has another size than (height, width)."""
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            if image.size != (width, height):  # known from its header: nothing is allocated for a foreign size
                found = f"{image.size[1]}x{image.size[0]}"
                raise CorruptSample(f"image: it is {found}, the layers are {height}x{width}")
            return np.asarray(image.convert("RGBA"))
    except CorruptSample:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise CorruptSample(f"image: {error}") from None
