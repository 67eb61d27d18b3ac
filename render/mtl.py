"""MTL material libraries as metallic-roughness materials.

Choices where files in the wild disagree with the format: with a colour texture `Kd` is ignored (exporters write 0.8, or
0, beside it); `d 0` and `Tr 1` mean opaque (they are written by mistake far more often than meant).
"""

from dataclasses import replace

import numpy as np
from PIL import Image

from render.colors import srgb_to_linear
from render.mesh import Material, Texture, Wrap
from render.textures import Textures

# How many arguments each option of a texture line takes; -o, -s and -t take one to three numbers.
_OPTIONS = {"-blendu": 1, "-blendv": 1, "-boost": 1, "-mm": 2, "-texres": 1, "-clamp": 1, "-bm": 1, "-imfchan": 1}
_OPTIONS |= {"-type": 1, "-cc": 1}
_VECTORS = ("-o", "-s", "-t")


def read_mtl(data: bytes, textures: Textures, used: set[str]) -> dict[str, Material]:
    """The materials of a library by name; only those in `used` load their textures. Damaged lines are skipped."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in data.decode("utf-8-sig", "replace").replace("\r", "\n").split("\n"):
        words = line.split(None, 1)
        if len(words) < 2 or words[0].startswith("#"):
            continue
        if words[0].lower() == "newmtl":
            current = found.setdefault(words[1].strip(), {})
        else:
            current[words[0].lower()] = words[1].strip()
    return {name: _material(name, lines, textures) for name, lines in found.items() if name in used}


def _material(name: str, lines: dict[str, str], textures: Textures) -> Material:
    color = _texture(lines.get("map_kd"), textures)
    diffuse = np.ones(3) if color is not None else srgb_to_linear(np.clip(_numbers(lines.get("kd"), 3, 0.5), 0, 1))
    opacity = float(_numbers(lines.get("d", "").removeprefix("-halo"), 1, -1)[0])
    if opacity < 0 and "tr" in lines:
        opacity = 1 - float(_numbers(lines["tr"], 1, 0)[0])
    opacity = opacity if 0 < opacity <= 1 else 1.0
    glowing = _texture(lines.get("map_ke"), textures)
    emissive = np.ones(3) if glowing is not None else srgb_to_linear(np.clip(_numbers(lines.get("ke"), 3, 0.0), 0, 1))
    material = Material(
        name=name[:200],
        base_color=(float(diffuse[0]), float(diffuse[1]), float(diffuse[2]), opacity),
        base_color_texture=color,
        metallic=float(np.clip(_numbers(lines.get("pm"), 1, 0.0)[0], 0, 1)),
        roughness=_roughness(lines),
        emissive=(float(emissive[0]), float(emissive[1]), float(emissive[2])),
        emissive_texture=glowing,
        normal_texture=_texture(lines.get("norm"), textures),
        alpha_mode="BLEND" if opacity < 1 else "OPAQUE",
    )
    cut = _texture(lines.get("map_d"), textures)
    return material if cut is None else _cut_out(material, cut)


def _cut_out(material: Material, cut: Texture) -> Material:
    """`map_d` as alpha of the colour texture: its alpha channel if it has one, else its brightness."""
    alpha = cut.pixels[..., 3]
    if int(alpha.min()) == 255:
        alpha = cut.pixels[..., 0]
    base = material.base_color_texture or replace(cut, pixels=np.full_like(cut.pixels, 255))
    height, width = base.pixels.shape[:2]
    if alpha.shape != (height, width):
        alpha = np.asarray(Image.fromarray(alpha).resize((width, height)))
    pixels = base.pixels.copy()
    pixels[..., 3] = alpha
    return replace(material, base_color_texture=replace(base, pixels=pixels), alpha_mode="MASK")


def _roughness(lines: dict[str, str]) -> float:
    """`Pr`, or what Blinn's exponent `Ns` means: alpha = sqrt(2 / (Ns + 2)), roughness = sqrt(alpha)."""
    if "pr" in lines:
        return float(np.clip(_numbers(lines["pr"], 1, 1.0)[0], 0, 1))
    shines = float(_numbers(lines.get("ks"), 3, 0.0).max()) > 0
    exponent = max(float(_numbers(lines.get("ns"), 1, 0.0)[0]), 0.0)
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
    scale, offset, clamped, rest = np.ones(2), np.zeros(2), False, line
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
        if option == "-clamp":
            clamped = given == ["on"]
        if option == "-s" and given:
            scale = np.array([float(x) for x in (given * 2)[:2]]) if len(given) == 1 else np.array(given[:2], float)
        if option == "-o" and given:
            offset = np.array([float(given[0]), float(given[1]) if len(given) > 1 else 0.0])
    pixels = textures.from_file(rest, uri=False)
    if pixels is None:
        return None
    wrap: Wrap = "clamp" if clamped else "repeat"
    if (scale == 1).all() and (offset == 0).all():
        return Texture(pixels, wrap, wrap)
    # In an OBJ v points up: u' = su u + ou and (1 - v') = sv (1 - v) + ov.
    matrix = np.array([[scale[0], 0, offset[0]], [0, scale[1], 1 - scale[1] - offset[1]], [0, 0, 1]], np.float64)
    return Texture(pixels, wrap, wrap, 0, matrix)


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False
