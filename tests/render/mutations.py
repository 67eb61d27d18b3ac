"""Damage for the loader: to the bytes of any file, to the words of a text, to the JSON and the numbers of a glTF.

And what every mesh that the loader accepts must be, however the file was damaged.
"""

import copy
import json
import struct
from typing import Any

import numpy as np

from render.mesh import Mesh, Texture

Damage = np.random.Generator

_BYTES = [0, 255, 45, 48, 57, 46, 10, 32, 34, 123]
_WORDS = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 0x7FC00000, 0x7F800000, 0xFF800000, 0x7F000000, 0x7F7FFFFF, 0x00000001]
_TEXT = [
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1e38",
    "1e308",
    "1e-320",
    "0",
    "-1",
    "-999",
    "99999999",
    str(2**31),
    str(2**63),
]
_TEXT += [
    "",
    "x",
    "1/2/3",
    "-1/-1/-1",
    "1//",
    "0x10",
    "1_0",
    "\0",
    "#",
    "\\",
    "../x.png",
    "/etc/passwd",
    "٣",
    "1e5" * 9,
]
_JSON: list[Any] = [0, 1, -1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**400, 0.5, -0.5, 1e-320]
_JSON += [1e38, -1e38, 1e308, float("inf"), True, False, None, "", "x", "x" * 1000, "../x", "data:,", "data:;base64,!"]
_JSON += [
    "SCALAR",
    "VEC2",
    "VEC3",
    "VEC4",
    "MAT4",
    "MASK",
    "BLEND",
    "STEP",
    "LINEAR",
    "CUBICSPLINE",
    5121,
    5123,
    5125,
    5126,
]
_JSON += [[], {}, [[]], [0] * 3, [0] * 16, [1e38] * 3, [-1] * 4, [0, 0, 0, 0], {"": 0}, {"extensions": {}}, [{}] * 3]
_EXTENSIONS = ["EXT_mesh_gpu_instancing", "KHR_texture_transform", "KHR_materials_pbrSpecularGlossiness"]
_EXTENSIONS += [
    "KHR_draco_mesh_compression",
    "EXT_texture_webp",
    "KHR_texture_basisu",
    "KHR_materials_emissive_strength",
]


def mutated(suffix: str, data: bytes, damage: Damage) -> bytes:
    """`data`, the content of a file with that suffix, with one to four wounds of a kind that reaches its parser."""
    kind = int(damage.integers(4))
    if suffix in (".glb", ".gltf") and kind < 3:
        return hostile_gltf(data, damage)
    if suffix in (".obj", ".mtl", ".ply", ".stl") and kind < 2 and b"\0" not in data[:2000]:
        return hostile_words(data, damage)
    if kind == 2 and suffix in (".bin", ".ply", ".stl", ".glb"):
        return hostile_numbers(data, damage)
    return damaged(data, damage)


def damaged(data: bytes, damage: Damage) -> bytes:
    """Bits turned, bytes and words overwritten, pieces cut out, doubled or cut off."""
    out = bytearray(data)
    for _ in range(int(damage.integers(1, 5))):
        if not out:
            break
        at = int(damage.integers(len(out)))
        kind = int(damage.integers(6))
        if kind == 0:
            out[at] ^= 1 << int(damage.integers(8))
        elif kind == 1:
            out[at] = int(damage.choice(_BYTES))
        elif kind == 2:
            out[at : at + 4] = int(damage.choice(_WORDS)).to_bytes(4, "little")
        elif kind == 3:
            del out[at : at + int(damage.integers(1, 9))]
        elif kind == 4:
            out[at:at] = out[at : at + int(damage.integers(1, 40))]
        else:
            del out[at:]
    return bytes(out)


def hostile_numbers(data: bytes, damage: Damage) -> bytes:
    """Aligned words of the second half of a file become what no float or index should be."""
    out = bytearray(data)
    for _ in range(int(damage.integers(1, 9))):
        at = int(damage.integers(len(out) // 8, max(len(out) // 4, len(out) // 8 + 1))) * 4
        if at + 4 <= len(out):
            out[at : at + 4] = int(damage.choice(_WORDS)).to_bytes(4, "little")
    return bytes(out)


def hostile_words(data: bytes, damage: Damage) -> bytes:
    """Words replaced, lines doubled, dropped, joined or moved."""
    lines = data.split(b"\n")
    for _ in range(int(damage.integers(1, 5))):
        at, other = (int(i) for i in damage.integers(len(lines), size=2))
        kind = int(damage.integers(6))
        if kind < 3:
            words = lines[at].split(b" ")
            words[int(damage.integers(len(words)))] = _TEXT[int(damage.integers(len(_TEXT)))].encode()
            lines[at] = b" ".join(words)
        elif kind == 3:
            lines[at] = lines[other]
        elif kind == 4:
            lines[at] = lines[at] + b" " + lines[other]
        else:
            lines[at] = b""
    return b"\n".join(lines)


def hostile_gltf(data: bytes, damage: Damage) -> bytes:
    """Values of the JSON replaced, dropped, exchanged or given extensions; half the time also numbers of the buffer."""
    is_glb = data[:4] == b"glTF"
    if is_glb:
        length = struct.unpack_from("<I", data, 12)[0]
        text, rest = data[20 : 20 + length], data[20 + length :]
    else:
        text, rest = data, b""
    try:
        root = json.loads(text)
    except ValueError:
        return damaged(data, damage)
    for _ in range(int(damage.choice([1, 1, 1, 2, 4]))):
        _wound(root, damage)
    out = json.dumps(root).replace("Infinity", "1e999").encode()
    if not is_glb:
        return out
    out += b" " * (-len(out) % 4)
    if rest and damage.integers(2):
        rest = rest[:8] + hostile_numbers(rest[8:], damage)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(out) + len(rest), len(out), 0x4E4F534A) + out + rest


def _wound(root: Any, damage: Damage) -> None:
    places: list[tuple[Any, Any]] = []
    stack = [root]
    while stack:
        at = stack.pop()
        for key in list(at) if isinstance(at, dict) else range(len(at)):
            places.append((at, key))
            if isinstance(at[key], dict | list):
                stack.append(at[key])
    if not places:
        return
    at, key = places[int(damage.integers(len(places)))]
    other, name = places[int(damage.integers(len(places)))]
    kind = int(damage.integers(8))
    if kind < 4:
        at[key] = copy.deepcopy(_JSON[int(damage.integers(len(_JSON)))])  # or the next case would find it wounded
    elif kind == 4:
        at[key] = json.loads(json.dumps(other[name]))  # a copy: a JSON is a tree
    elif kind == 5:
        del at[key]
    elif kind == 6 and isinstance(at[key], int | float) and not isinstance(at[key], bool):
        at[key] = at[key] + int(damage.choice([-1, 1, 1000]))
    elif isinstance(at[key], dict):
        extension = _EXTENSIONS[int(damage.integers(len(_EXTENSIONS)))]
        number, whole = _JSON[int(damage.integers(30))], int(damage.integers(4))
        at[key]["extensions"] = {
            extension: {
                **{"source": whole, "scale": [number, 1], "offset": [0, number], "rotation": number},
                **{"attributes": {"TRANSLATION": whole, "POSITION": 0}, "bufferView": whole},
                **{"diffuseFactor": [number] * 4, "glossinessFactor": number, "emissiveStrength": number},
                **{"diffuseTexture": {"index": whole}, "specularGlossinessTexture": {"index": 0}},
            }
        }


def unsound(mesh: Mesh) -> str:
    """What is wrong with an accepted mesh, or ""."""
    count = len(mesh.vertices)
    if mesh.vertices.shape != (count, 3) or not np.isfinite(mesh.vertices).all():
        return "vertices"
    if mesh.faces.dtype != np.int32 or not (0 <= mesh.faces.min() <= mesh.faces.max() < count):
        return "faces"
    for name, width in (("normals", 3), ("uv", 2), ("uv1", 2), ("colors", 4)):
        array = getattr(mesh, name)
        if array is not None and not (array.shape == (count, width) and np.isfinite(array).all()):
            return name
    if mesh.colors is not None and not (0 <= mesh.colors.min() <= mesh.colors.max() <= 1):
        return "colours beyond 0 and 1"
    if mesh.normals is not None and not np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-3):
        return "length of normals"
    if mesh.material.shape != (len(mesh.faces),) or not (
        mesh.material.min() >= 0 and mesh.material.max() < len(mesh.materials)
    ):
        return "material of a face"
    for material in mesh.materials:
        factors = [*material.base_color, *material.emissive, material.metallic, material.roughness]
        if not np.isfinite([*factors, material.normal_scale, material.alpha_cutoff]).all() or min(factors) < 0:
            return "factors of a material"
        if max(material.metallic, material.roughness, material.base_color[3]) > 1:
            return "factors beyond 1"
        for texture in vars(material).values():
            if isinstance(texture, Texture) and (problem := _unsound_texture(texture)):
                return problem
    if mesh.pose is not None:
        if not (np.isfinite(mesh.duration) and mesh.duration > 0):
            return "duration"
        if mesh.pose(mesh.duration / 2).shape != mesh.vertices.shape or (mesh.pose(0.0) != mesh.vertices).any():
            return "pose"
    return ""


def _unsound_texture(texture: Texture) -> str:
    pixels = texture.pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 4 or not pixels.size:
        return "pixels"
    if texture.uv_set not in (0, 1) or (texture.transform is not None and not np.isfinite(texture.transform).all()):
        return "place of a texture"
    return ""
