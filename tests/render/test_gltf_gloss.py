"""Specular-glossiness becomes the metallic-roughness that it says in other words."""

from pathlib import Path

import numpy as np
import pytest

from render.colors import linear_to_srgb, srgb_to_linear
from render.gloss import metallic_base
from render.limits import DEFAULT, Limits
from render.load import load
from render.mesh import Material
from tests.render.gltf_files import File
from tests.render.test_gltf import png


def in_other_words(base: np.ndarray, metallic: float) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse and specular colour of a metallic-roughness surface, by the definition of both models."""
    specular = 0.04 * (1 - metallic) + base * metallic
    return base * 0.96 * (1 - metallic) / max(1 - specular.max(), 1e-9), specular


@pytest.mark.parametrize("metallic", [0, 0.1, 0.5, 0.9, 1])
@pytest.mark.parametrize("color", [[0.5, 0.5, 0.5], [0.05] * 3, [0.9] * 3, [0.8, 0.1, 0.3], [0.02, 0.5, 0.2]])
def test_what_was_metallic_roughness_comes_back(color: list[float], metallic: float) -> None:
    if len(set(color)) > 1 and 0 < metallic < 1:
        pytest.skip("the brightness of a mixture of two colours is not the mixture of their brightnesses")
    base, share = metallic_base(*in_other_words(np.array(color), metallic))
    np.testing.assert_allclose(share, metallic, atol=2e-6)
    np.testing.assert_allclose(base, color, atol=2e-6)


def glossy(folder: Path, gloss: dict, images: list[np.ndarray], limits: Limits = DEFAULT) -> Material:
    file = File()
    file.mesh(attributes={"TEXCOORD_0": file.array([[0, 0], [1, 0], [1, 1], [0, 1]])}, material=0)
    file.json["images"] = [{"bufferView": file.view(png(image))} for image in images]
    file.json["textures"] = [{"source": i} for i in range(len(images))]
    file.json["materials"] = [{"extensions": {"KHR_materials_pbrSpecularGlossiness": gloss}, "alphaMode": "MASK"}]
    mesh = load(file.write(folder), limits)
    assert mesh.flags <= {"texture_too_large"}
    return mesh.materials[0]


def test_factors_alone(tmp_path: Path) -> None:
    diffuse, specular = in_other_words(np.array([0.6, 0.6, 0.6]), 0.3)
    gloss = {"diffuseFactor": [*diffuse, 0.5], "specularFactor": specular.tolist(), "glossinessFactor": 0.75}
    material = glossy(tmp_path, gloss, [])
    np.testing.assert_allclose(material.base_color, [0.6, 0.6, 0.6, 0.5], atol=1e-6)
    assert material.metallic == pytest.approx(0.3)
    assert (material.roughness, material.alpha_mode) == (0.25, "MASK")


def test_a_dielectric_keeps_its_colour_image(tmp_path: Path) -> None:
    image = np.arange(2 * 2 * 4, dtype=np.uint8).reshape(2, 2, 4) * 10
    gloss = {"diffuseTexture": {"index": 0}, "specularFactor": [0.02, 0.02, 0.02], "glossinessFactor": 0}
    material = glossy(tmp_path, gloss, [image])
    assert material.base_color_texture is not None
    np.testing.assert_array_equal(material.base_color_texture.pixels, image)
    assert (material.metallic, material.roughness, material.metallic_roughness_texture) == (0, 1, None)
    np.testing.assert_allclose(material.base_color, [1, 1, 1, 1])  # 0.98 / 0.96, which a colour cannot be


def test_two_images_become_two_others(tmp_path: Path) -> None:
    """A row each of metal and of plastic, whose gloss rises to the right; the second image is smaller."""
    gold, plastic = np.array([0.9, 0.6, 0.2]), np.array([0.3, 0.1, 0.6])
    colored, shine = np.zeros((4, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    for rows, base, metallic in ((slice(0, 2), gold, 1), (slice(2, 4), plastic, 0)):
        diffuse, specular = in_other_words(base, metallic)
        colored[rows, :, :3] = np.round(linear_to_srgb(diffuse) * 255)
        shine[rows.start // 2, :, :3] = np.round(linear_to_srgb(specular) * 255)
    colored[..., 3] = np.arange(16).reshape(4, 4)
    shine[..., 3] = [0, 85, 170, 255]
    gloss = {"diffuseTexture": {"index": 0}, "specularGlossinessTexture": {"index": 1}}
    material = glossy(tmp_path, gloss, [colored, np.repeat(shine, 2, axis=0)])
    base, rough = material.base_color_texture, material.metallic_roughness_texture
    assert base is not None
    assert rough is not None
    np.testing.assert_allclose(srgb_to_linear(base.pixels[0, 0, :3] / 255), gold, atol=0.01)
    np.testing.assert_allclose(srgb_to_linear(base.pixels[3, 0, :3] / 255), plastic, atol=0.01)
    np.testing.assert_array_equal(base.pixels[..., 3], colored[..., 3])
    np.testing.assert_array_equal(rough.pixels[..., 1], [[255, 170, 85, 0]] * 4)
    assert rough.pixels[:2, :, 2].min() == 255
    assert rough.pixels[2:, :, 2].max() <= 3
    assert (material.metallic, material.roughness, material.base_color) == (1, 1, (1, 1, 1, 1))
    smaller = glossy(tmp_path, gloss, [colored, shine])
    assert smaller.base_color_texture is not None
    assert smaller.base_color_texture.pixels.shape == (4, 4, 4)


def test_images_that_lie_differently_or_cost_too_much_leave_the_colour(tmp_path: Path) -> None:
    image = np.full((4, 4, 4), 200, np.uint8)
    moved = {"index": 1, "extensions": {"KHR_texture_transform": {"scale": [2, 2]}}}
    gloss = {"diffuseTexture": {"index": 0}, "specularGlossinessTexture": moved, "specularFactor": [0, 0, 0]}
    material = glossy(tmp_path, gloss, [image, image])
    assert material.base_color_texture is not None
    assert material.metallic_roughness_texture is None
    gloss["specularGlossinessTexture"] = {"index": 1}
    material = glossy(tmp_path, gloss, [image, image], Limits(textures_pixels=63))
    assert material.base_color_texture is not None
    assert material.metallic_roughness_texture is None
