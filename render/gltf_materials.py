"""glTF materials, textures and samplers as `render.mesh.Material` and `Texture`."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from render.gloss import baked, is_dielectric, metallic_base
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
        gloss = extension(entry, "KHR_materials_pbrSpecularGlossiness")
        look = self._metallic(entry) if gloss is None else self._glossy(gloss)
        if extension(entry, "KHR_materials_unlit") is not None:
            look = replace(look, metallic=0.0, roughness=1.0, metallic_roughness_texture=None)
        strength = (extension(entry, "KHR_materials_emissive_strength") or {}).get("emissiveStrength", 1)
        emissive = numbers(entry.get("emissiveFactor", [0, 0, 0]), 3, "emissiveFactor") * number(strength, "strength")
        normal = entry.get("normalTexture")
        return replace(
            look,
            name=str(entry.get("name", ""))[:200],
            emissive=_finite(emissive),
            emissive_texture=self._texture(entry.get("emissiveTexture")),
            normal_texture=self._texture(normal),
            normal_scale=number(normal.get("scale", 1), "normal scale") if isinstance(normal, dict) else 1.0,
            occlusion_texture=self._texture(entry.get("occlusionTexture")),
            alpha_mode=_alpha_mode(entry.get("alphaMode", "OPAQUE")),
            alpha_cutoff=number(entry.get("alphaCutoff", 0.5), "alphaCutoff"),
        )

    def _metallic(self, entry: dict[str, Any]) -> Material:
        pbr = json_object(entry.get("pbrMetallicRoughness", {}), "pbrMetallicRoughness")
        return Material(
            base_color=_finite(np.minimum(numbers(pbr.get("baseColorFactor", [1] * 4), 4, "baseColorFactor"), 1)),
            base_color_texture=self._texture(pbr.get("baseColorTexture")),
            metallic=_share(pbr.get("metallicFactor", 1), "metallicFactor"),
            roughness=_share(pbr.get("roughnessFactor", 1), "roughnessFactor"),
            metallic_roughness_texture=self._texture(pbr.get("metallicRoughnessTexture")),
        )

    def _glossy(self, gloss: dict[str, Any]) -> Material:
        """Specular-glossiness, converted: its images into two new ones, unless the colour alone keeps its image."""
        diffuse = np.clip(numbers(gloss.get("diffuseFactor", [1] * 4), 4, "diffuseFactor"), 0, 1)
        specular = np.clip(numbers(gloss.get("specularFactor", [1] * 3), 3, "specularFactor"), 0, 1)
        glossiness = _share(gloss.get("glossinessFactor", 1), "glossinessFactor")
        colored = self._texture(gloss.get("diffuseTexture"))
        shine = self._texture(gloss.get("specularGlossinessTexture"))
        if colored is not None and shine is not None and not _lie_alike(colored, shine):
            shine = None  # one image cannot hold both
        base, metallic = metallic_base(diffuse[:3], specular)
        plain = Material(
            base_color=_finite(np.append(base, diffuse[3])), metallic=float(metallic), roughness=1 - glossiness
        )
        if shine is None and (colored is None or is_dielectric(specular)):
            return replace(plain, base_color_texture=colored)  # then base is diffuse times a constant
        place = shine if colored is None else colored
        assert place is not None
        first, second = (None if t is None else t.pixels for t in (colored, shine))
        key = ("gloss", id(first), id(second), *diffuse[:3], *specular, glossiness)
        count = 2 * place.pixels.shape[0] * place.pixels.shape[1]
        images = self.textures.baked(key, count, lambda: baked(first, diffuse, second, specular, glossiness))
        if images is None:
            return replace(plain, base_color_texture=colored)
        return Material(
            base_color=(1.0, 1.0, 1.0, float(diffuse[3])),
            base_color_texture=replace(place, pixels=images[0]),
            metallic=1.0,
            metallic_roughness_texture=replace(place, pixels=images[1]),
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


def _lie_alike(a: Texture, b: Texture) -> bool:
    """Whether two textures show their texels at the same places of a surface."""
    if (a.wrap_s, a.wrap_t, a.uv_set) != (b.wrap_s, b.wrap_t, b.uv_set):
        return False
    turns = [np.eye(3) if t.transform is None else t.transform for t in (a, b)]
    return bool((turns[0] == turns[1]).all())


def _share(value: Any, what: str) -> float:
    return min(max(number(value, what), 0.0), 1.0)


def _alpha_mode(value: Any) -> AlphaMode:
    if value not in ("OPAQUE", "MASK", "BLEND"):
        raise Rejected("corrupt", f"alphaMode {str(value)[:40]!r} does not exist")
    return value


def _finite(values: np.ndarray) -> Any:
    return tuple(float(x) for x in np.maximum(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), 0.0))
