"""Texture coordinates that name a texel."""

import numpy as np

FARTHEST = 1e6  # texture repeats; farther out a float32 has no fraction left


def sound_uv(uv: np.ndarray) -> tuple[np.ndarray, bool]:
    """uv (n,2) as float32, and whether any was NaN, infinite or farther out than `FARTHEST`: those become zero."""
    with np.errstate(all="ignore"):
        bad = ~(np.abs(uv) <= FARTHEST).all(axis=1)
    if not bad.any():
        return uv.astype(np.float32), False
    return np.where(bad[:, None], 0, uv).astype(np.float32), True
