"""KHR_materials_pbrSpecularGlossiness as metallic-roughness, by the conversion that Khronos publishes with it.

A surface with diffuse colour d and specular colour s is taken for a mixture of a dielectric (which reflects 4 %) and a
metal: its metallic share m solves 0.04 m^2 + b m + 0.04 - |s| = 0 with b = |d| (1 - max s) / 0.96 + |s| - 0.08, where
|.| is perceived brightness. Exact for greys and for pure metals and dielectrics, a compromise between them.
"""

import numpy as np
from PIL import Image

from render.colors import linear_to_srgb, srgb_to_linear

DIELECTRIC = 0.04
_DECODED = srgb_to_linear(np.arange(256) / 255).astype(np.float32)
_ROWS = 128  # of an image at a time: the arrays between are ten times its size


def metallic_base(diffuse: np.ndarray, specular: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Base colour (...,3) and metallic (...) in [0, 1] of diffuse and specular (...,3), all linear."""
    strength = 1 - specular.max(axis=-1)
    bright, shiny = _brightness(diffuse), _brightness(specular)
    b = bright * strength / (1 - DIELECTRIC) + shiny - 2 * DIELECTRIC
    root = np.sqrt(np.maximum(b * b - 4 * DIELECTRIC * (DIELECTRIC - shiny), 0))
    metallic = np.where(shiny < DIELECTRIC, 0, np.clip((root - b) / (2 * DIELECTRIC), 0, 1))
    m = metallic[..., None]
    from_diffuse = diffuse * strength[..., None] / (1 - DIELECTRIC) / np.maximum(1 - m, 1e-6)
    from_specular = (specular - DIELECTRIC * (1 - m)) / np.maximum(m, 1e-6)
    base = from_diffuse + (from_specular - from_diffuse) * m * m
    return np.clip(base, 0, 1), metallic


def is_dielectric(specular: np.ndarray) -> bool:
    """Whether nothing with this specular colour (3,) is a metal: its base colour is then diffuse times a constant."""
    return bool(_brightness(specular) < DIELECTRIC)


def baked(
    diffuse: np.ndarray | None,
    diffuse_factor: np.ndarray,
    shine: np.ndarray | None,
    specular_factor: np.ndarray,
    glossiness: float,
) -> np.ndarray:
    """(2,h,w,4) uint8: the base colour image (sRGB, alpha kept) and that of roughness (green) and metallic (blue).

    Images (h,w,4) uint8: `diffuse`, and `shine` with the specular colour (sRGB) and the glossiness as its alpha. At
    least one is given; the second is resized to the first. Factors are linear; the alpha of the first stays a factor.
    """
    first = diffuse if diffuse is not None else shine
    assert first is not None
    height, width = first.shape[:2]
    if diffuse is not None and shine is not None and shine.shape != diffuse.shape:
        shine = np.asarray(Image.fromarray(shine).resize((width, height)))
    out = np.full((2, height, width, 4), 255, np.uint8)
    for start in range(0, height, _ROWS):
        rows = slice(start, min(start + _ROWS, height))
        size = (rows.stop - start, width)
        d = np.broadcast_to(diffuse_factor[:3].astype(np.float32), (*size, 3))
        s = np.broadcast_to(specular_factor.astype(np.float32), (*size, 3))
        gloss = np.full(size, glossiness, np.float32)
        if diffuse is not None:
            d = d * _DECODED[diffuse[rows, :, :3]]
            out[0, rows, :, 3] = diffuse[rows, :, 3]
        if shine is not None:
            s = s * _DECODED[shine[rows, :, :3]]
            gloss = gloss * shine[rows, :, 3] / np.float32(255)
        base, metallic = metallic_base(d, s)
        out[0, rows, :, :3] = np.round(linear_to_srgb(base) * 255)
        out[1, rows, :, 1] = np.round((1 - gloss) * 255)
        out[1, rows, :, 2] = np.round(metallic * 255)
    return out


def _brightness(color: np.ndarray) -> np.ndarray:
    return np.sqrt(color**2 @ np.array([0.299, 0.587, 0.114], color.dtype))
