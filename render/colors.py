"""sRGB as files hold it and linear light as the renderer wants it."""

import numpy as np


def linear(srgb: np.ndarray, white: float | None = None) -> np.ndarray:
    """sRGB (n,3) or (n,4) -> linear RGBA (n,4) float32; alpha is linear already.

    `white` is the value of full intensity. Without it the values tell: above 1 they are bytes, above 255 16-bit.
    """
    values = np.nan_to_num(np.asarray(srgb, np.float64), nan=1.0)
    if white is None:
        top = float(values.max(initial=0.0))
        white = 1.0 if top <= 1 else 255.0 if top <= 255 else 65535.0
    values = np.clip(values / white, 0, 1)
    out = np.ones((len(values), 4), np.float32)
    out[:, :3] = srgb_to_linear(values[:, :3])
    if values.shape[1] == 4:
        out[:, 3] = values[:, 3]
    return out


def srgb_to_linear(x: np.ndarray) -> np.ndarray:
    """sRGB decoding (IEC 61966-2-1) of values in [0, 1]."""
    return np.where(x <= 0.04045, x / 12.92, ((np.maximum(x, 0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(x: np.ndarray) -> np.ndarray:
    """sRGB encoding (IEC 61966-2-1) of values in [0, 1]."""
    return np.where(x <= 0.0031308, x * 12.92, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)
