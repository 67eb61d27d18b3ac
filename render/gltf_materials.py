"""glTF materials, textures and samplers as `render.mesh.Material` and `Texture`."""

import math
from typing import Any

import numpy as np

from render.gltf_file import GltfFile, data_uri, extension, integer, json_object, number, numbers
from render.mesh import AlphaMode, Material, Rejected, Texture, Wrap
from render.textures import Textures

# glTF's own default is a metal, which without an environment map is black; viewers and exporters mean plain grey.
GREY = Material(name="default", base_color=(0.5, 0.5, 0.5, 1.0), metallic=0.0, roughness=1.0)

_WRAPS: dict[int, Wrap] = {10497: "repeat", 33071: "clamp", 33648: "mirror"}


class Materials:
    """Reads each material of a file once. `table` is what a Mesh wants; `index_of` gives the place in it."""

    def __init__(self, gltf: GltfFile, textures: Textures) -> None:
        self.gltf = gltf
        self.textures = textures
        self.table: list[Material] = []
        self._places: dict[int, int] = {}

    def index_of(self, material: Any) -> int:
        """Place in `table` of material `material` of the file; None is the default grey."""
        key = -1 if material is None else integer(material, "material", self.gltf.count("materials"))
        if key not in self._places:
            self._places[key] = len(self.table)
            self.table.append(GREY if key < 0 else self._read(self.gltf.item("materials", key)))
        return self._places[key]

    def _read(self, entry: dict[str, Any]) -> Material:
        pbr = json_object(entry.get("pbrMetallicRoughness", {}), "pbrMetallicRoughness")
        gloss = extension(entry, "KHR_materials_pbrSpecularGlossiness")
        metallic, roughness = number(pbr.get("metallicFactor", 1), "metallicFactor"), pbr.get("roughnessFactor", 1)
        color = numbers(pbr.get("baseColorFactor", [1, 1, 1, 1]), 4, "baseColorFactor")
        color_texture = self._texture(pbr.get("baseColorTexture"))
        rough_texture = self._texture(pbr.get("metallicRoughnessTexture"))
        if gloss is not None:
            # The diffuse part alone: its specular colour has no counterpart in metallic-roughness.
            color = numbers(gloss.get("diffuseFactor", [1, 1, 1, 1]), 4, "diffuseFactor")
            color_texture = self._texture(gloss.get("diffuseTexture"))
            metallic, roughness = 0.0, 1 - number(gloss.get("glossinessFactor", 1), "glossinessFactor")
            rough_texture = None
        if extension(entry, "KHR_materials_unlit") is not None:
            metallic, roughness, rough_texture = 0.0, 1.0, None
        strength = (extension(entry, "KHR_materials_emissive_strength") or {}).get("emissiveStrength", 1)
        emissive = numbers(entry.get("emissiveFactor", [0, 0, 0]), 3, "emissiveFactor") * number(strength, "strength")
        normal = entry.get("normalTexture")
        return Material(
            name=str(entry.get("name", ""))[:200],
            base_color=_finite(color),
            base_color_texture=color_texture,
            metallic=min(max(metallic, 0.0), 1.0),
            roughness=min(max(number(roughness, "roughnessFactor"), 0.0), 1.0),
            metallic_roughness_texture=rough_texture,
            emissive=_finite(emissive),
            emissive_texture=self._texture(entry.get("emissiveTexture")),
            normal_texture=self._texture(normal),
            normal_scale=number(normal.get("scale", 1), "normal scale") if isinstance(normal, dict) else 1.0,
            occlusion_texture=self._texture(entry.get("occlusionTexture")),
            alpha_mode=_alpha_mode(entry.get("alphaMode", "OPAQUE")),
            alpha_cutoff=number(entry.get("alphaCutoff", 0.5), "alphaCutoff"),
        )

    def _texture(self, info: Any) -> Texture | None:
        if info is None:
            return None
        texture = self.gltf.item("textures", json_object(info, "a texture reference").get("index"))
        pixels = self._image(texture)
        if pixels is None:
            return None
        uv_set, matrix = integer(info.get("texCoord", 0), "texCoord"), None
        moved = extension(info, "KHR_texture_transform")
        if moved is not None:
            uv_set = integer(moved.get("texCoord", uv_set), "texCoord")
            matrix = _uv_matrix(moved)
        if uv_set > 1:
            self.textures.flags.add("unsupported_uv_set")
            return None
        sampler = self.gltf.item("samplers", texture["sampler"]) if "sampler" in texture else {}
        wrap_s, wrap_t = (_WRAPS.get(integer(sampler.get(key, 10497), key), "repeat") for key in ("wrapS", "wrapT"))
        return Texture(pixels, wrap_s, wrap_t, uv_set, matrix)

    def _image(self, texture: dict[str, Any]) -> np.ndarray | None:
        webp = extension(texture, "EXT_texture_webp")
        source = webp["source"] if webp and "source" in webp else texture.get("source")
        if source is None:
            basis = extension(texture, "KHR_texture_basisu")
            self.textures.flags.add("missing_texture" if basis is None else "unsupported_texture")
            return None
        image = self.gltf.item("images", source)
        key = ("image", integer(source, "source"))
        uri = image.get("uri")
        if not isinstance(uri, str):
            return self.textures.from_bytes(key, lambda: self.gltf.view_bytes(image.get("bufferView")))
        if uri.startswith("data:"):
            return self.textures.from_bytes(key, lambda: data_uri(uri))
        return self.textures.from_file(uri, uri=True)


def _uv_matrix(moved: dict[str, Any]) -> np.ndarray:
    """(3,3) of KHR_texture_transform: translation x rotation x scale.

    Rotation is counter-clockwise as seen, with v pointing down. The GLSL in the extension's text is the transpose; its
    worked example (the lower left quadrant, turned clockwise) and the viewers agree with this one.
    """
    u, v = numbers(moved.get("offset", [0, 0]), 2, "offset")
    su, sv = numbers(moved.get("scale", [1, 1]), 2, "scale")
    angle = number(moved.get("rotation", 0), "rotation")
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c * su, s * sv, u], [-s * su, c * sv, v], [0, 0, 1]], np.float64)


def _alpha_mode(value: Any) -> AlphaMode:
    if value not in ("OPAQUE", "MASK", "BLEND"):
        raise Rejected("corrupt", f"alphaMode {str(value)[:40]!r} does not exist")
    return value


def _finite(values: np.ndarray) -> Any:
    return tuple(float(x) for x in np.maximum(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), 0.0))
