"""A mesh packed for shading: flat arrays only, so that the NumPy twin and the Warp kernel read the same bytes.

All textures lie in one buffer of RGBA8 words, each with its mip levels one after the other. Colour textures stay sRGB
encoded and are averaged in linear light.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import warp as wp

from render import texel_kernels as kernels
from render.colors import linear_to_srgb, srgb_to_linear
from render.mesh import AlphaMode, Material, Mesh, Texture

OPAQUE, MASK, BLEND = 0, 1, 2
_MODES: dict[AlphaMode, int] = {"OPAQUE": OPAQUE, "MASK": MASK, "BLEND": BLEND}
REPEAT, CLAMP, MIRROR = 0, 1, 2
_WRAPS = {"repeat": REPEAT, "clamp": CLAMP, "mirror": MIRROR}
LEAST_WEIGHT = 1e-4  # of a clear texel's colour among `weighted` ones: where all are clear there is a colour still

# Columns of `texture_int`; the first word of each mip level follows from LEVELS on.
WIDTH, HEIGHT, LEVEL_COUNT, WRAP_S, WRAP_T, UV_SET, SRGB, WEIGHTED, LEVELS = range(9)
MAX_LEVELS = 15
SMALL = 32  # the levels of an image of this side are made in one launch
UV_LIMIT = 1e6  # farther out a float32 coordinate has no fraction left that could name a texel
# Columns of `material_int` and `material_float`.
BASE_TEX, ROUGH_TEX, EMISSIVE_TEX, NORMAL_TEX, OCCLUSION_TEX, ALPHA_MODE = range(6)
BASE, METALLIC, ROUGHNESS, EMISSIVE, NORMAL_SCALE, CUTOFF = 0, 4, 5, 6, 9, 10

SRGB_LINEAR = srgb_to_linear(np.arange(256) / 255).astype(np.float32)  # decodes one byte
DECODE = np.concatenate([(np.arange(256) / 255).astype(np.float32), SRGB_LINEAR])  # of data, and of sRGB from 256 on
TO_16 = np.round(SRGB_LINEAR.astype(np.float64) * 65535).astype(np.uint32)
TO_8 = np.round(linear_to_srgb(np.arange(65536) / 65535) * 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Packed:
    """T textures, M materials, F faces, V vertices.

    texels (N,) uint32 RGBA8, red in the low byte | texture_int (T, LEVELS + MAX_LEVELS) int32 |
    texture_uv (T,6) float32, the first two rows of the UV transform | material_int (M,6) int32, -1 is no texture |
    material_float (M,11) float32 | faces (F,3) int32 | material (F,) int32 |
    normals (V,3), uv (V,2), uv1 (V,2), colors (V,4) float32, of no rows where the mesh has none.
    `tested`: some material in use is MASK or BLEND, so that not every hit is a surface.
    """

    texels: np.ndarray
    texture_int: np.ndarray
    texture_uv: np.ndarray
    material_int: np.ndarray
    material_float: np.ndarray
    faces: np.ndarray
    material: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    uv1: np.ndarray
    colors: np.ndarray
    tested: bool


class _Textures:
    """Collects the textures in use, each image once for every way it is read."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.images: list[tuple[int, np.ndarray, bool, bool]] = []  # with the word each begins at
        self.count = 0
        self.rows: list[np.ndarray] = []
        self.transforms: list[np.ndarray] = []
        self.packed: dict[tuple[int, bool, bool], list[int]] = {}
        self.known: dict[tuple[object, ...], int] = {}

    def add(self, texture: Texture | None, srgb: bool, weighted: bool, uv_sets: tuple[bool, bool]) -> int:
        """Row of `texture`, or -1 where there is none or the mesh lacks the UV set that it asks for."""
        if texture is None or not uv_sets[texture.uv_set if texture.uv_set in (0, 1) else 0]:
            return -1
        transform = np.eye(3)[:2] if texture.transform is None else np.asarray(texture.transform)[:2]
        wraps = (_WRAPS[texture.wrap_s], _WRAPS[texture.wrap_t])
        known = (id(texture.pixels), srgb, weighted, wraps, texture.uv_set, transform.tobytes())
        if known not in self.known:
            self.known[known] = len(self.rows)
            levels = self._pixels(texture.pixels, srgb, weighted)
            row = np.zeros(LEVELS + MAX_LEVELS, np.int32)
            row[[WIDTH, HEIGHT, LEVEL_COUNT]] = levels[0], levels[1], len(levels) - 2
            row[[WRAP_S, WRAP_T, UV_SET]] = *wraps, texture.uv_set
            row[[SRGB, WEIGHTED]] = srgb, weighted
            row[LEVELS : LEVELS + len(levels) - 2] = levels[2:]
            self.rows.append(row)
            self.transforms.append(transform)
        return self.known[known]

    def _pixels(self, pixels: np.ndarray, srgb: bool, weighted: bool) -> list[int]:
        """[width, height, first word of level 0, of level 1, ...]; an image shared by materials is stored once."""
        known = (id(pixels), srgb, weighted)
        if known not in self.packed:
            image = np.ascontiguousarray(pixels)
            while max(image.shape[:2]) > self.limit:
                image = half(image, srgb, weighted)
            self.images.append((self.count, image, srgb, weighted))
            height, width = image.shape[:2]
            entry = [width, height]
            while True:
                entry.append(self.count)
                self.count += height * width
                if height == width == 1:
                    break
                height, width = max(1, height // 2), max(1, width // 2)
            self.packed[known] = entry
        return self.packed[known]

    def texels(self) -> np.ndarray:
        """All images, each with its mip levels behind it, in one buffer of words."""
        words = np.empty(max(self.count, 1), np.uint32)
        for first, image, srgb, weighted in self.images:
            words[first : first + image.shape[0] * image.shape[1]] = image.view(np.uint32).ravel()
            _add_levels(words, first, image.shape[:2], srgb, weighted)
        return words


def half(image: np.ndarray, srgb: bool, weighted: bool) -> np.ndarray:
    """One mip level up: image (h,w,4) uint8 -> (max(1,h//2), max(1,w//2), 4) uint8.

    Colour is averaged in linear light, and by alpha where `weighted`, so that the hidden colour of clear texels does
    not bleed into foliage. An odd last row or column is dropped. Integers throughout: the same bytes everywhere.
    """
    height, width = image.shape[:2]
    h, w = max(1, height // 2), max(1, width // 2)
    words = np.empty(height * width + h * w, np.uint32)
    words[: height * width] = image.view(np.uint32).ravel()
    _launch(kernels.halve, h, words, 0, (height, width), srgb, weighted)
    return words[height * width :].view(np.uint8).reshape(h, w, 4)


def _add_levels(words: np.ndarray, first: int, size: tuple[int, int], srgb: bool, weighted: bool) -> None:
    """Writes the mip levels of the image of `size` (h, w) at words[first] behind it, one after the other."""
    (height, width) = size
    while max(height, width) > SMALL:
        _launch(kernels.halve, max(1, height // 2), words, first, (height, width), srgb, weighted)
        first += height * width
        height, width = max(1, height // 2), max(1, width // 2)
    _launch(kernels.finish, 1, words, first, (height, width), srgb, weighted)


def _launch(
    kernel: wp.Kernel, threads: int, words: np.ndarray, first: int, size: tuple[int, int], srgb: bool, weighted: bool
) -> None:
    texels: Any = wp.array(words, dtype=wp.uint32, device="cpu", copy=False)
    wp.launch(kernel, dim=threads, inputs=[texels, first, *size, int(srgb), int(weighted), *_tables()], device="cpu")


@cache
def _tables() -> tuple[Any, Any]:
    return wp.array(TO_16, dtype=wp.uint32, device="cpu"), wp.array(TO_8, dtype=wp.uint8, device="cpu")


def pack(mesh: Mesh, texture_limit: int = 2048) -> Packed:
    """Everything of `mesh` but its vertices, ready to be shaded from any number of views (and poses)."""
    textures = _Textures(texture_limit)
    sets = (mesh.uv is not None, mesh.uv1 is not None)
    materials = mesh.materials or (Material(),)
    ints = np.full((len(materials), 6), -1, np.int32)
    floats = np.zeros((len(materials), 11), np.float32)
    for m, material in enumerate(materials):
        mode = _MODES[material.alpha_mode]
        ints[m, BASE_TEX] = textures.add(material.base_color_texture, True, mode != OPAQUE, sets)
        ints[m, ROUGH_TEX] = textures.add(material.metallic_roughness_texture, False, False, sets)
        ints[m, EMISSIVE_TEX] = textures.add(material.emissive_texture, True, False, sets)
        ints[m, NORMAL_TEX] = textures.add(material.normal_texture, False, False, sets)
        ints[m, OCCLUSION_TEX] = textures.add(material.occlusion_texture, False, False, sets)
        ints[m, ALPHA_MODE] = mode
        floats[m] = (*material.base_color, material.metallic, material.roughness, *material.emissive,
                     material.normal_scale, material.alpha_cutoff)  # fmt: skip
    return Packed(
        texels=textures.texels(),
        texture_int=np.array(textures.rows, np.int32).reshape(-1, LEVELS + MAX_LEVELS),
        texture_uv=np.clip(textures.transforms, -UV_LIMIT, UV_LIMIT).astype(np.float32).reshape(-1, 6),
        material_int=ints,
        material_float=floats,
        faces=np.ascontiguousarray(mesh.faces, np.int32),
        material=np.ascontiguousarray(mesh.material, np.int32),
        normals=_rows(mesh.normals, 3),
        uv=np.clip(_rows(mesh.uv, 2), -UV_LIMIT, UV_LIMIT),
        uv1=np.clip(_rows(mesh.uv1, 2), -UV_LIMIT, UV_LIMIT),
        colors=_rows(mesh.colors, 4),
        tested=bool(np.any(ints[np.unique(mesh.material), ALPHA_MODE] != OPAQUE)),
    )


def _rows(values: np.ndarray | None, columns: int) -> np.ndarray:
    if values is None:
        return np.zeros((0, columns), np.float32)
    return np.nan_to_num(np.ascontiguousarray(values, np.float32))
