"""The darkroom: exposure, a soft shoulder, sRGB; what turns linear light into the bytes of an image."""

import numpy as np

from render.colors import linear_to_srgb

SHOULDER = 0.8  # linear values above are rolled off towards 1 instead of being cut


def exposure_of(mean: float, target: float) -> float:
    """The exposure that brings a mean irradiance to `target`.

    Irradiance and not brightness: a black piano stays black. Four digits, so that the last bits of the shading, which
    differ between devices, rarely reach the picture; where the mean lies at the edge of a digit they still do.
    """
    return float(f"{target / max(mean, 1e-4):.4g}")


def encoded(x: np.ndarray) -> np.ndarray:
    """Exposed linear light -> sRGB in 0 .. 255, not yet rounded; monotone, and below 255 whatever x is."""
    bright = SHOULDER + (1 - SHOULDER) * (1 - np.exp((SHOULDER - np.maximum(x, SHOULDER)) / (1 - SHOULDER)))
    return np.asarray(linear_to_srgb(np.where(x > SHOULDER, bright, np.maximum(x, 0.0))) * 255)


def thresholds() -> np.ndarray:
    """(255,) float32: the k-th is the least float32 that is encoded as byte k + 1. Found by bisecting the bits."""
    low, high = np.zeros(255, np.int64), np.full(255, 0x7F000000, np.int64)  # bits of positive floats sort as they do
    wanted = np.arange(255) + 0.5
    while (low < high).any():
        middle = (low + high) // 2
        reached = encoded(middle.astype(np.int32).view(np.float32).astype(np.float64)) >= wanted
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return low.astype(np.int32).view(np.float32)


THRESHOLDS = thresholds()


def develop(image: np.ndarray, exposure: float, valid: np.ndarray) -> np.ndarray:
    """Premultiplied linear image (H,W,5) -> straight sRGB (H,W,4) uint8: exposure, a soft shoulder, one encoding.

    Alpha is held to the side of one half, at most 127 or at least 128, that `valid` (H,W), hard validity A, is on; but
    where there is nothing it stays 0. The twin of `develop_kernels.develop`, which differs where a value is within the
    rounding of a byte's border.
    """
    rgba = np.zeros((*image.shape[:2], 4), np.uint8)
    alpha = image[..., 3]
    raw = np.floor(alpha * 255 + 0.5).astype(np.uint8)
    held = np.where(valid, np.maximum(raw, 128), np.minimum(raw, 127))
    rgba[..., 3] = np.where(raw > 0, held, 0)
    seen = raw > 0
    color = image[seen][:, :3] * (exposure / alpha[seen])[:, None]
    rgba[seen, :3] = np.round(encoded(color))
    return rgba
