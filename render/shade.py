"""The shader of a scene: which hits are surfaces, and what colour the image has. Deferred, from the peel's triangles."""

from dataclasses import replace
from typing import Any

import numpy as np

from render import shade_numpy
from render.lights import Lights
from render.shade_numpy import Rays, Shadows
from render.texels import ALPHA_MODE, MASK, OPAQUE, Packed, linear_to_srgb

SHOULDER = 0.8  # linear values above are rolled off towards 1 instead of being cut


class Shader:
    """A packed mesh with vertices (V,3) in the world frame."""

    def __init__(self, packed: Packed, vertices: np.ndarray) -> None:
        self.packed = packed
        self.vertices = vertices

    def move(self, vertices: np.ndarray, normals: np.ndarray | None) -> None:
        """The next pose of an animation: vertices (V,3) and, unless it is shaded flat, normals (V,3) float32."""
        self.vertices = vertices
        self.packed = replace(self.packed, normals=np.zeros((0, 3), np.float32) if normals is None else normals)

    def unresolved(self, rays: Rays, triangle: Any) -> bool:
        """Whether some column of hits (S,H,W) is full and holds nothing that ends it, so that more may be seen behind:
        no OPAQUE hit, and no MASK hit that is a surface. Panes of glass do not end a column."""
        triangle = _on_host(triangle)
        taken = triangle >= 0
        mode = np.where(taken, self.packed.material_int[self.packed.material[triangle], ALPHA_MODE], OPAQUE)
        unsure = taken[-1] & ~(taken & (mode == OPAQUE)).any(axis=0)
        if not unsure.any():
            return False
        masked = np.where((mode == MASK) & unsure, triangle, -1).astype(np.int32)
        return bool((unsure & ~self.keep(rays, masked).any(axis=0)).any())

    def keep(self, rays: Rays, triangle: np.ndarray) -> np.ndarray:
        return shade_numpy.keep(self.packed, self.vertices, rays, triangle)

    def shade(self, rays: Rays, lights: Lights, shadows: Shadows, triangle: Any, side: int) -> np.ndarray:
        return shade_numpy.shade(self.packed, self.vertices, rays, lights, shadows, _on_host(triangle), side)


def metered(image: np.ndarray, target: float) -> float:
    """Exposure that brings the mean irradiance of the lit pixels of image (H,W,5) to `target`.

    Irradiance and not brightness: a black piano stays black. Four digits, so that another machine's summation order
    cannot change a byte of the picture.
    """
    weight = float(image[..., 3].sum(dtype=np.float64))
    mean = float(image[..., 4].sum(dtype=np.float64)) / max(weight, 1e-9)
    return float(f"{target / max(mean, 1e-4):.4g}")


def develop(image: np.ndarray, exposure: float) -> np.ndarray:
    """Premultiplied linear image (H,W,5) -> straight sRGB rgba (H,W,4) uint8: exposure, a soft shoulder, one encoding."""
    rgba = np.zeros((*image.shape[:2], 4), np.uint8)
    alpha = image[..., 3]
    rgba[..., 3] = np.floor(alpha * 255 + 0.5)
    seen = rgba[..., 3] > 0
    color = image[seen][:, :3] * (exposure / alpha[seen])[:, None]
    bright = SHOULDER + (1 - SHOULDER) * (1 - np.exp((SHOULDER - np.maximum(color, SHOULDER)) / (1 - SHOULDER)))
    rgba[seen, :3] = np.round(linear_to_srgb(np.where(color > SHOULDER, bright, np.maximum(color, 0))) * 255)
    return rgba


def _on_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.numpy()
