"""Materials and texture coordinates of the real glTF assets, as an independent reader (trimesh) sees them."""

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree
from trimesh.visual.material import PBRMaterial

from render.limits import DEFAULT
from render.load import read
from render.mesh import Material, Mesh
from tests.render.test_load import ASSETS, manifest, needs_assets

TEXTURES = {
    "base_color_texture": "baseColorTexture",
    "metallic_roughness_texture": "metallicRoughnessTexture",
    "normal_texture": "normalTexture",
    "emissive_texture": "emissiveTexture",
    "occlusion_texture": "occlusionTexture",
}
# Strips are turned otherwise there, so that corners do not pair; instances are millions of triangles.
LEFT_OUT = ("triangle_strips_mode5", "gpu_instancing_teapots")
STATIC = [row for row in manifest() if row["path"].endswith((".glb", ".gltf")) and row["animated"] != "y"]


@needs_assets
@pytest.mark.parametrize("row", [r for r in STATIC if r["name"] not in LEFT_OUT], ids=lambda row: row["name"])
def test_trimesh_sees_the_same_materials(row: dict[str, str]) -> None:
    mesh = read(ASSETS / row["path"], DEFAULT)
    corners = mesh.vertices[mesh.faces]
    scale = float(np.ptp(corners.reshape(-1, 3), axis=0).max())
    places = cKDTree(corner_key(corners, scale))
    compared = 0
    for part in trimesh.load(ASSETS / row["path"], process=False, force="scene").dump():
        distance, faces = places.query(corner_key(part.vertices[part.faces], scale))
        assert distance.max() < 1e-5
        twin = getattr(part.visual, "material", None)
        if not isinstance(twin, PBRMaterial):
            continue  # vertex colours
        found = [mesh.materials[m] for m in np.unique(mesh.material[faces])]
        own = next((material for material in found if material.name == (twin.name or "")), found[0])
        same_material(own, twin)
        compared += 1
        if own.base_color_texture is not None and own.base_color_texture.uv_set == 0:
            same_uv(mesh, faces, np.asarray(part.visual.uv)[part.faces])
    if not compared:
        pytest.skip("trimesh keeps no material where there are no texture coordinates")


def corner_key(corners: np.ndarray, scale: float) -> np.ndarray:
    """(F,6): what tells a triangle (F,3,3) from others, and from itself with another first corner."""
    return np.concatenate([corners.sum(axis=1), corners[:, 0]], axis=1) / scale


def same_material(own: Material, twin: PBRMaterial) -> None:
    white = [255] * 4
    factor = white if twin.baseColorFactor is None else twin.baseColorFactor
    np.testing.assert_allclose(own.base_color, np.asarray(factor) / 255, atol=1 / 254)  # it rounds to bytes
    assert own.metallic == pytest.approx(1 if twin.metallicFactor is None else twin.metallicFactor)
    assert own.roughness == pytest.approx(1 if twin.roughnessFactor is None else twin.roughnessFactor)
    emissive = np.zeros(3) if twin.emissiveFactor is None else np.asarray(twin.emissiveFactor)
    strength = max(own.emissive) / max(float(emissive.max()), 1e-9)  # it does not read emissive_strength
    np.testing.assert_allclose(own.emissive, emissive * strength, atol=1e-5)
    assert own.alpha_mode == (twin.alphaMode or "OPAQUE")
    for name, other in TEXTURES.items():
        texture, image = getattr(own, name), getattr(twin, other)
        assert (texture is None) == (image is None), name
        if texture is not None:
            np.testing.assert_array_equal(texture.pixels, np.asarray(image.convert("RGBA")), err_msg=name)


def same_uv(mesh: Mesh, faces: np.ndarray, uv: np.ndarray) -> None:
    """uv (F,3,2), v upwards. Some triangles lie upon each other and pair with the wrong one."""
    assert mesh.uv is not None
    own = mesh.uv[mesh.faces[faces]]
    differs = np.abs(np.stack([own[..., 0], 1 - own[..., 1]], axis=-1) - uv).max(axis=(1, 2)) > 1e-4
    assert differs.mean() < 0.02
