"""An image over a background of one colour."""

import numpy as np


def background(kind: str, rng: np.random.Generator | None) -> np.ndarray:
    """(3,) float32. The random background is one colour; without a generator it is black."""
    if kind == "random" and rng is not None:
        return rng.random(3, dtype=np.float32)
    return np.full(3, 1 if kind == "white" else 0, np.float32)


def composite(rgba: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Straight RGBA (H,W,4) uint8 over a colour (3,) -> (H,W,3) float32 in [0,1]."""
    image = rgba.astype(np.float32) / 255
    return colour + (image[..., :3] - colour) * image[..., 3:]


def composite_planes(rgba: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """`composite` as (3,H,W), within [0,1]: by planes, and only in the box of what is not transparent."""
    rgb = np.empty((3, *rgba.shape[:2]), np.float32)
    rgb[:] = colour[:, None, None]
    pixels = np.ascontiguousarray(rgba).view("<u4")[..., 0]  # alpha is the highest byte
    rows, columns = (np.flatnonzero(pixels.max(axis=axis, initial=0) >= 1 << 24) for axis in (1, 0))
    if rows.size:
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        red, green, blue, alpha = np.divide(rgba[box].transpose(2, 0, 1), np.float32(255), dtype=np.float32, order="C")
        for plane, tint, out in zip((red, green, blue), colour, rgb):
            plane -= tint
            plane *= alpha
            plane += tint
            np.clip(plane, 0, 1, out=out[box])
    return rgb
