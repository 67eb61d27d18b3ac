"""The shader of a scene: which hits are surfaces, and the colour of the image; deferred, from the peel's triangles."""

from dataclasses import replace
from typing import Any

import numpy as np
import warp as wp

from render import shade_kernels as kernels
from render.colors import linear_to_srgb
from render.lights import Lights
from render.peel import device_of
from render.rays import Rays, Shadows
from render.texels import SRGB_LINEAR, Packed

SHOULDER = 0.8  # linear values above are rolled off towards 1 instead of being cut


class Shader:
    """A packed mesh with vertices (V,3) in the world frame, on "cpu" or "cuda"; `shade_numpy` is its slow twin."""

    def __init__(self, packed: Packed, vertices: np.ndarray, device: str = "cpu") -> None:
        self.packed = packed
        self.device = device_of(device)
        scene: Any = kernels.Scene()
        scene.faces = self._array(packed.faces, wp.vec3i)
        scene.material = self._array(packed.material, wp.int32)
        scene.uv = self._array(_one_row(packed.uv), wp.vec2)
        scene.uv1 = self._array(_one_row(packed.uv1), wp.vec2)
        scene.colors = self._array(_one_row(packed.colors), wp.vec4)
        scene.texels = self._array(packed.texels, wp.uint32)
        scene.texture_int = self._array(_one_row(packed.texture_int), wp.int32)
        scene.texture_uv = self._array(_one_row(packed.texture_uv), wp.float32)
        scene.material_int = self._array(packed.material_int, wp.int32)
        scene.material_float = self._array(packed.material_float, wp.float32)
        scene.linear = self._array(SRGB_LINEAR, wp.float32)
        scene.has_colors = int(len(packed.colors) > 0)
        self.scene = scene
        self.move(vertices, packed.normals if len(packed.normals) else None)

    def move(self, vertices: np.ndarray, normals: np.ndarray | None) -> None:
        """The next pose of an animation: vertices (V,3) and, unless it is shaded flat, normals (V,3) float32."""
        self.packed = replace(self.packed, normals=np.zeros((0, 3), np.float32) if normals is None else normals)
        self.scene.vertices = self._array(np.asarray(vertices, np.float32), wp.vec3)
        self.scene.normals = self._array(_one_row(self.packed.normals), wp.vec3)
        self.scene.has_normals = int(normals is not None)

    def unresolved(self, rays: Rays, triangle: Any) -> bool:
        """Whether some column of hits (S,H,W) is full and what is behind its last hit would still be seen."""
        hits = self._hits(triangle)
        count = wp.zeros(1, dtype=wp.int32, device=self.device)
        inputs = [self.scene, _view(rays), hits, count]
        wp.launch(kernels.unresolved, dim=hits.shape[1:], inputs=inputs, device=self.device)
        return int(count.numpy()[0]) > 0

    def keep(self, rays: Rays, triangle: Any) -> np.ndarray:
        """Which hits (S,H,W) are surfaces, bool: OPAQUE always, MASK above its cutoff, BLEND from alpha 0.5 on."""
        hits = self._hits(triangle)
        out = wp.zeros(hits.shape, dtype=wp.uint8, device=self.device)
        inputs = [self.scene, _view(rays), hits, out]
        wp.launch(kernels.keep, dim=hits.shape[1:], inputs=inputs, device=self.device)
        return out.numpy().view(np.bool_)

    def shade(self, rays: Rays, lights: Lights, shadows: Shadows, triangle: Any, side: int) -> np.ndarray:
        """Hits (S, H*side, W*side) -> premultiplied linear RGB, alpha, irradiance (H,W,5), as `shade_numpy.shade`."""
        hits = self._hits(triangle)
        light: Any = kernels.Lighting()
        light.sh = self._array(lights.sh, wp.vec3)
        light.kind = self._array(lights.kind, wp.int32)
        light.vector = self._array(lights.vector, wp.vec3)
        light.color = self._array(lights.color, wp.vec3)
        light.first = self._array(shadows.first, wp.int32)
        light.depth = self._array(_one_row(shadows.depth), wp.float32)
        light.matrix = self._array(_one_row(shadows.matrix.reshape(-1, 12)), wp.float32)
        light.texel = self._array(_one_row(shadows.texel), wp.float32)
        size = (hits.shape[1] // side, hits.shape[2] // side)
        out = wp.empty((*size, 5), dtype=wp.float32, device=self.device)
        inputs = [self.scene, _view(rays), light, hits, side, out]
        wp.launch(kernels.shade, dim=size, inputs=inputs, device=self.device)
        return out.numpy()

    def _hits(self, triangle: Any) -> Any:
        """The hits where this shader works; those that the peel left there are not copied."""
        if isinstance(triangle, np.ndarray):
            return self._array(triangle, wp.int32)
        return triangle if triangle.device == self.device else triangle.to(self.device)

    def _array(self, values: np.ndarray, dtype: Any) -> Any:
        return wp.array(np.ascontiguousarray(values), dtype=dtype, device=self.device)


def _one_row(values: np.ndarray) -> np.ndarray:
    """values, or a row of zeros in place of none: a kernel's array must not be empty."""
    return values if len(values) else np.zeros((1, *values.shape[1:]), values.dtype)


def _view(rays: Rays) -> Any:
    view: Any = kernels.View()
    view.eye = wp.vec3(*(float(x) for x in rays.eye))
    view.rotation = wp.mat33(*(float(x) for x in rays.rotation.ravel()))
    view.fx, view.fy = float(rays.K[0, 0]), float(rays.K[1, 1])
    view.cx, view.cy = float(rays.K[0, 2]), float(rays.K[1, 2])
    return view


def metered(image: np.ndarray, target: float) -> float:
    """Exposure that brings the mean irradiance of the lit pixels of image (H,W,5) to `target`.

    Irradiance and not brightness: a black piano stays black. Four digits, so that the last bits of a sum, which differ
    between devices, rarely reach the picture; where the mean lies at the edge of a digit they still do.
    """
    weight = float(image[..., 3].sum(dtype=np.float64))
    mean = float(image[..., 4].sum(dtype=np.float64)) / max(weight, 1e-9)
    return float(f"{target / max(mean, 1e-4):.4g}")


def develop(image: np.ndarray, exposure: float, valid: np.ndarray) -> np.ndarray:
    """Premultiplied linear image (H,W,5) -> straight sRGB (H,W,4) uint8: exposure, a soft shoulder, one encoding.

    Where exactly half of a pixel is covered its alpha leans to the side of `valid` (H,W), hard validity A.
    """
    rgba = np.zeros((*image.shape[:2], 4), np.uint8)
    alpha = image[..., 3]
    rgba[..., 3] = np.floor(alpha * 255 + 0.5)
    rgba[(rgba[..., 3] == 128) & ~valid, 3] = 127
    seen = rgba[..., 3] > 0
    color = image[seen][:, :3] * (exposure / alpha[seen])[:, None]
    bright = SHOULDER + (1 - SHOULDER) * (1 - np.exp((SHOULDER - np.maximum(color, SHOULDER)) / (1 - SHOULDER)))
    rgba[seen, :3] = np.round(linear_to_srgb(np.where(color > SHOULDER, bright, np.maximum(color, 0))) * 255)
    return rgba
