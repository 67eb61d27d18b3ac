"""Height maps (`map_Bump` of an MTL) as tangent-space normal maps."""

import numpy as np


def is_normal_map(pixels: np.ndarray) -> bool:
    """Whether an image (h,w,4) uint8 holds normals rather than heights: exporters write either as `map_Bump`.

    Normals point out of the surface (blue), and lean to every side alike (half red, half green). Heights are grey.
    """
    sample = (
        pixels[:: max(1, len(pixels) // 64), :: max(1, pixels.shape[1] // 64), :3].reshape(-1, 3).astype(np.float64)
    )
    red, green, blue = sample.mean(axis=0)
    return bool(blue > 160 and abs(red - 128) < 32 and abs(green - 128) < 32)


def normals_from_heights(pixels: np.ndarray, strength: float, rows: int = 256) -> np.ndarray:
    """Normal map (h,w,4) uint8 in glTF's convention (+y is up in the image) of the brightness of `pixels` (h,w,4).

    MTL does not say how high white is above black. Here it is `strength` (the option -bm, or 1) texels: the slope is
    strength times the central difference, n = (-dh/du, -dh/dup, 1). The image repeats. A block of `rows` at a time.
    """
    height, width = pixels.shape[:2]
    out = np.full((height, width, 4), 255, np.uint8)
    for start in range(0, height, rows):
        at = np.arange(start - 1, min(start + rows, height) + 1) % height
        h = pixels[at, :, :3].mean(axis=2, dtype=np.float32) / 255 * np.float32(strength)
        right = (np.roll(h, -1, axis=1) - np.roll(h, 1, axis=1))[1:-1] / 2
        down = (h[2:] - h[:-2]) / 2
        scale = 1 / np.sqrt(right**2 + down**2 + 1)
        normal = np.stack([-right * scale, down * scale, scale], axis=2)
        out[start : start + rows, :, :3] = np.round((normal + 1) * 127.5)
    return out
