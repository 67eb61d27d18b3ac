"""MTL material libraries as metallic-roughness materials.

Choices where files in the wild disagree with the format: with a colour texture `Kd` is ignored (exporters write 0.8, or
0, beside it); `d 0` and `Tr 1` mean opaque (they are written by mistake far more often than meant).
"""

import re
from collections.abc import Container
from dataclasses import replace

import numpy as np
from PIL import Image

from render.bump import is_normal_map, normals_from_heights
from render.colors import srgb_to_linear
from render.lines import lines
from render.mesh import Material, Texture, Wrap
from render.textures import Textures

# How many arguments each option of a texture line takes; -o, -s and -t take one to three numbers.
_OPTIONS = {"-blendu": 1, "-blendv": 1, "-boost": 1, "-mm": 2, "-texres": 1, "-clamp": 1, "-bm": 1, "-imfchan": 1}
_OPTIONS |= {"-type": 1, "-cc": 1}
_VECTORS = ("-o", "-s", "-t")
TEXTURES = {"map_kd", "map_ke", "map_d", "map_pm", "map_pr", "map_bump", "bump", "norm"}  # lines that name a file
_KEYS = {"kd", "d", "tr", "ke", "ks", "ns", "pm", "pr"} | TEXTURES
_BUMP_STRENGTH = re.compile(r"-bm\s+(\S+)")


def read_mtl(data: bytes, textures: Textures, used: Container[str]) -> dict[str, Material]:
    """The materials of a library by name; only those in `used` are kept. Damaged lines are skipped, and so is whatever
    is no property: a library cannot include another one.
    """
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for raw in lines(data.removeprefix(b"\xef\xbb\xbf"), textures.limits):
        words = raw.decode("utf-8", "replace").split(None, 1)
        if len(words) < 2:
            continue
        key = words[0].lower()
        if key == "newmtl":
            name = words[1].strip()
            current = found.setdefault(name, {}) if name in used else {}
        elif key in _KEYS:
            current[key] = words[1].strip()
    return {name: _material(name, said, textures) for name, said in found.items()}


def _material(name: str, said: dict[str, str], textures: Textures) -> Material:
    color = _texture(said.get("map_kd"), textures)
    diffuse = np.ones(3) if color is not None else srgb_to_linear(np.clip(_numbers(said.get("kd"), 3, 0.5), 0, 1))
    opacity = float(_numbers(said.get("d", "").removeprefix("-halo"), 1, -1)[0])
    if opacity < 0 and "tr" in said:
        opacity = 1 - float(_numbers(said["tr"], 1, 0)[0])
    opacity = opacity if 0 < opacity <= 1 else 1.0
    glowing = _texture(said.get("map_ke"), textures)
    emissive = np.ones(3) if glowing is not None else srgb_to_linear(np.clip(_numbers(said.get("ke"), 3, 0.0), 0, 1))
    material = Material(
        name=name[:200],
        base_color=(float(diffuse[0]), float(diffuse[1]), float(diffuse[2]), opacity),
        base_color_texture=color,
        metallic=float(np.clip(_numbers(said.get("pm"), 1, 0.0)[0], 0, 1)),
        roughness=_roughness(said),
        emissive=(float(emissive[0]), float(emissive[1]), float(emissive[2])),
        emissive_texture=glowing,
        normal_texture=_normals(said, textures),
        alpha_mode="BLEND" if opacity < 1 else "OPAQUE",
    )
    material = _metal(
        material, _texture(said.get("map_pm"), textures), _texture(said.get("map_pr"), textures), textures
    )
    cut = _texture(said.get("map_d"), textures)
    return material if cut is None else _cut_out(material, cut, textures)


def _cut_out(material: Material, cut: Texture, textures: Textures) -> Material:
    """`map_d` as alpha of the colour texture: its alpha channel if it has one, else its brightness."""
    base = material.base_color_texture
    height, width = (base or cut).pixels.shape[:2]

    def combined() -> np.ndarray:
        alpha = cut.pixels[..., 3]
        if int(alpha.min()) == 255:
            alpha = cut.pixels[..., 0]
        pixels = np.full((height, width, 4), 255, np.uint8) if base is None else base.pixels.copy()
        pixels[..., 3] = _resized(alpha, height, width)
        return pixels

    key = ("cut", None if base is None else id(base.pixels), id(cut.pixels))
    pixels = textures.baked(key, height * width, combined)
    if pixels is None:
        return material
    return replace(material, base_color_texture=replace(base or cut, pixels=pixels), alpha_mode="MASK")


def _metal(material: Material, metal: Texture | None, rough: Texture | None, textures: Textures) -> Material:
    """`map_Pm` and `map_Pr` in the channels of one image, as glTF has them: roughness is green, metallic is blue."""
    first = rough or metal
    if first is None:
        return material
    height, width = first.pixels.shape[:2]

    def combined() -> np.ndarray:
        pixels = np.full((height, width, 4), 255, np.uint8)
        for channel, texture in ((1, rough), (2, metal)):
            if texture is not None:
                pixels[..., channel] = _resized(texture.pixels[..., 0], height, width)
        return pixels

    pixels = textures.baked(("metal", *(t and id(t.pixels) for t in (metal, rough))), height * width, combined)
    if pixels is None:
        return material
    return replace(
        material,
        metallic_roughness_texture=replace(first, pixels=pixels),
        roughness=material.roughness if rough is None else 1.0,
        metallic=material.metallic if metal is None else 1.0,
    )


def _normals(said: dict[str, str], textures: Textures) -> Texture | None:
    """`norm`, or what `map_Bump` comes to; it may hold normals as well."""
    if "norm" in said:
        return _texture(said["norm"], textures)
    line = said.get("map_bump") or said.get("bump")
    texture = _texture(line, textures)
    if line is None or texture is None or is_normal_map(texture.pixels):
        return texture
    given = _BUMP_STRENGTH.search(line)
    strength = float(np.clip(_numbers(given[1] if given else None, 1, 1.0)[0], -100, 100))
    heights = texture.pixels
    height, width = heights.shape[:2]
    key = ("bump", id(heights), strength)
    pixels = textures.baked(key, height * width, lambda: normals_from_heights(heights, strength))
    return None if pixels is None else replace(texture, pixels=pixels)


def _resized(channel: np.ndarray, height: int, width: int) -> np.ndarray:
    if channel.shape == (height, width):
        return channel
    return np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize((width, height)))


def _roughness(said: dict[str, str]) -> float:
    """`Pr`, or what Blinn's exponent `Ns` means: alpha = sqrt(2 / (Ns + 2)), roughness = sqrt(alpha)."""
    if "pr" in said:
        return float(np.clip(_numbers(said["pr"], 1, 1.0)[0], 0, 1))
    shines = float(_numbers(said.get("ks"), 3, 0.0).max()) > 0
    exponent = max(float(_numbers(said.get("ns"), 1, 0.0)[0]), 0.0)
    return float((2 / (exponent + 2)) ** 0.25) if shines else 1.0


def _numbers(text: str | None, count: int, default: float) -> np.ndarray:
    """(count,) float64; one number stands for all, and what cannot be read is the default."""
    try:
        values = [float(word) for word in (text or "").split()[:count]]
    except ValueError:
        values = []
    if not values or not np.isfinite(values).all():
        return np.full(count, default)
    return np.array(values if len(values) == count else values[:1] * count)


def _texture(line: str | None, textures: Textures) -> Texture | None:
    """A texture line: options, then a file name that may hold spaces."""
    if not line:
        return None
    options, name = texture_line(line)
    scale, offset, clamped = np.ones(2), np.zeros(2), False
    for option, given in options:
        if option == "-clamp":
            clamped = given == ["on"]
        if option == "-s" and given:
            scale = np.array([float(x) for x in (given * 2)[:2]]) if len(given) == 1 else np.array(given[:2], float)
        if option == "-o" and given:
            offset = np.array([float(given[0]), float(given[1]) if len(given) > 1 else 0.0])
    pixels = textures.from_file(name, uri=False)
    if pixels is None:
        return None
    wrap: Wrap = "clamp" if clamped else "repeat"
    if (scale == 1).all() and (offset == 0).all():
        return Texture(pixels, wrap, wrap)
    # In an OBJ v points up: u' = su u + ou and (1 - v') = sv (1 - v) + ov.
    matrix = np.array([[scale[0], 0, offset[0]], [0, scale[1], 1 - scale[1] - offset[1]], [0, 0, 1]], np.float64)
    return Texture(pixels, wrap, wrap, 0, matrix)


def texture_line(line: str) -> tuple[list[tuple[str, list[str]]], str]:
    """The options of a texture line with what they are given, and the file name, which may hold spaces."""
    options, rest = [], line
    while rest.startswith("-"):
        option, _, rest = rest.partition(" ")
        rest = rest.lstrip()
        given: list[str] = []
        limit = 3 if option in _VECTORS else _OPTIONS.get(option, 0)
        while len(given) < limit:
            word = rest.split(None, 1)
            if len(word) < 2 or (option in _VECTORS and not _is_number(word[0])):
                break
            given.append(word[0])
            rest = word[1]
        options.append((option, given))
    return options, rest


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False
