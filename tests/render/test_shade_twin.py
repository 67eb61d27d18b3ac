"""The Warp shader against its NumPy twin, with every feature of a material in play."""

import numpy as np
import pytest

from render import shade_numpy as twin
from render.cameras import Camera, intrinsics, look_at
from render.frames import Stage, _rays
from render.lights import object_lights
from render.mesh import Material, Mesh, Texture
from render.texels import half
from shards.randomness import generator
from tests.render.shapes import small

RNG = np.random.default_rng(5)


def noise(height: int, width: int, low: int = 0) -> np.ndarray:
    return RNG.integers(low, 256, (height, width, 4), dtype=np.uint8)


def everything(count: int = 60) -> Mesh:
    """Triangles at random, smooth normals, two UV sets, vertex colours, and a material for every branch."""
    vertices = RNG.uniform(-0.5, 0.5, (3 * count, 3))
    faces = np.arange(3 * count, dtype=np.int32).reshape(-1, 3)
    turn = np.array([[0.8, -0.6, 0.1], [0.6, 0.8, 0.4], [0, 0, 1]])
    bumps = noise(16, 16, 100)
    materials = (
        Material(base_color=(0.9, 0.4, 0.2, 1.0), metallic=0.7, roughness=0.4),
        Material(
            base_color_texture=Texture(noise(33, 20), "mirror", "clamp", 1, turn),
            metallic_roughness_texture=Texture(noise(8, 8)),
            metallic=1.0,
            occlusion_texture=Texture(noise(8, 8)),
            normal_texture=Texture(bumps, transform=turn),
            normal_scale=0.7,
        ),
        Material(base_color_texture=Texture(noise(17, 16)), alpha_mode="MASK", alpha_cutoff=0.45),
        Material(
            base_color=(1.0, 1.0, 1.0, 0.8),
            base_color_texture=Texture(noise(16, 64), "clamp", "mirror"),
            alpha_mode="BLEND",
            emissive=(0.3, 0.2, 0.1),
            emissive_texture=Texture(noise(4, 4), uv_set=1),
        ),
    )
    return Mesh(
        vertices,
        faces,
        (np.arange(count) % 4).astype(np.int32),
        materials,
        normals=RNG.normal(size=vertices.shape).astype(np.float32),
        uv=RNG.uniform(-2, 3, (len(vertices), 2)).astype(np.float32),
        uv1=RNG.uniform(-2, 3, (len(vertices), 2)).astype(np.float32),
        colors=RNG.uniform(0.2, 1, (len(vertices), 4)).astype(np.float32),
    )


@pytest.mark.parametrize("view", range(3))
def test_the_kernel_equals_its_twin(view):
    mesh = everything()
    settings = small(height=48, width=40, samples=2)
    stage = Stage(mesh, settings, {})
    eye = np.array([np.sin(view), 0.4, np.cos(view)]) * 1.7
    camera = Camera(intrinsics(45.0, 48, 40, 21.0, 23.0), look_at(eye, np.zeros(3), 0.1), 48, 40, {})
    lights = object_lights(generator(1, "twin", view, "light"), camera, np.zeros(3), 1.0)
    shadows = stage.shadows(lights, indoors=False)
    rays = _rays(camera, 2)
    hits = stage.peeler.peel(rays.K, 96, 80, 8, settings.near, np.linalg.inv(camera.world_from_camera))
    assert (hits.triangle[3] >= 0).any()  # deep enough to be worth it

    fast = stage.shader.shade(rays, lights, shadows, hits.triangle, 2)
    slow = twin.shade(stage.packed, stage.vertices, rays, lights, shadows, hits.triangle, 2)
    difference = np.abs(fast - slow)
    # float32 against float64: a texel's border or a shadow's edge may fall on the other side at very few samples
    assert np.quantile(difference, 0.995) < 1e-3
    assert difference.mean() < 2e-4

    kept, expected = (
        stage.shader.keep(rays, hits.triangle),
        twin.keep(stage.packed, stage.vertices, rays, hits.triangle),
    )
    assert not kept[hits.triangle < 0].any()
    assert (kept != expected).mean() < 1e-4
    assert 0.05 < kept[hits.triangle >= 0].mean() < 0.95


@pytest.mark.parametrize("srgb", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (1, 9), (6, 1), (2, 2)])
def test_mip_levels_equal_their_twin_to_the_last_bit(shape, srgb, weighted):
    image = noise(*shape)
    image[0, 0, 3] = 0
    np.testing.assert_array_equal(half(image, srgb, weighted), twin.half(image, srgb, weighted))


def test_a_mip_level_of_one_colour_is_that_colour():
    for value in (0, 1, 77, 254, 255):
        image = np.full((4, 4, 4), value, np.uint8)
        for srgb in (False, True):
            for weighted in (False, True):
                np.testing.assert_array_equal(half(image, srgb, weighted), image[:2, :2])
