"""The Warp shader against its NumPy twin, with every feature of a material in play."""

from dataclasses import replace

import numpy as np
import pytest
import warp as wp

from render import shade_numpy as twin
from render import texels as tx
from render.cameras import Camera, intrinsics, look_at
from render.frames import Stage
from render.hits import hits_of
from render.lights import POINT, object_lights
from render.mesh import Material, Mesh, Texture
from render.rays import Shots
from render.texels import half, pack
from shards.randomness import generator
from tests.render.shapes import quads, small

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
    maps = stage.shadows([lights], indoors=False)
    fine = Shots.of([camera]).scaled(2)
    keys = stage.peeler.keys(fine, 8, settings.near)
    triangle = hits_of(keys.numpy()[0, :, : 96 * 80].reshape(8, 96, 80)).triangle
    assert (triangle[3] >= 0).any()  # deep enough to be worth it

    fast = stage.shader.shade(keys, fine.rays, fine.origins, fine.size, [lights], maps, 2).numpy()[0]
    on_host = replace(maps, depth=maps.depth.numpy())
    slow = twin.shade(stage.packed, stage.vertices, fine.rays[0], lights, on_host, triangle, 2)
    difference = np.abs(fast - slow)
    # float32 against float64: a texel's border or a shadow's edge may fall on the other side at very few samples
    assert np.quantile(difference, 0.995) < 1e-3
    assert difference.mean() < 2e-4

    expected = twin.keep(stage.packed, stage.vertices, fine.rays[0], triangle)
    found = stage.shader.surfaces(keys, fine.rays, fine.origins, fine.size, 8).numpy().hits[0]
    assert (found != expected.sum(axis=0)).mean() < 1e-3
    assert 0.05 < expected[triangle >= 0].mean() < 0.95


@pytest.mark.parametrize("indoors", [False, True])
def test_the_kernel_equals_its_twin_where_all_is_opaque(indoors):
    mesh = everything()
    solid = Material(base_color_texture=Texture(noise(32, 32)), normal_texture=Texture(noise(16, 16, 100)))
    mesh = replace(mesh, materials=(mesh.materials[0], mesh.materials[1], solid, mesh.materials[1]))
    stage = Stage(mesh, small(), {})
    camera = Camera(intrinsics(45.0, 48, 40), look_at(np.array([0.3, 0.4, 1.6]), np.zeros(3)), 48, 40, {})
    lights = object_lights(generator(1, "twin", 0, "light"), camera, np.zeros(3), 1.0)
    if indoors:  # a lamp among the triangles, with six maps
        one = np.ones((1, 3), np.float32)
        lights = replace(lights, kind=np.array([POINT], np.int32), vector=0.2 * one, color=one)
    maps = stage.shadows([lights], indoors)
    assert len(maps.texel) == (6 if indoors else len(lights.kind))
    fine = Shots.of([camera]).scaled(3)
    assert not stage.packed.tested
    keys = stage.peeler.keys(fine, 1, 1e-3)
    fast = stage.shader.shade(keys, fine.rays, fine.origins, fine.size, [lights], maps, 3).numpy()[0]
    triangle = hits_of(keys.numpy()[0, :, : 144 * 120].reshape(1, 144, 120)).triangle
    on_host = replace(maps, depth=maps.depth.numpy())
    slow = twin.shade(stage.packed, stage.vertices, fine.rays[0], lights, on_host, triangle, 3)
    assert np.quantile(np.abs(fast - slow), 0.995) < 1e-3


def test_windows_and_batches_shade_as_whole_images_do():
    stage = Stage(everything(), small(), {})
    cameras = [
        Camera(intrinsics(45.0, 48, 40), look_at(np.array(eye), np.zeros(3)), 48, 40, {})
        for eye in ([0.0, 0.4, 1.7], [1.7, 0.2, 0.3], [-1.0, 1.0, 1.0])
    ]
    lights = [object_lights(generator(2, "batch", v, "light"), cameras[v], np.zeros(3), 1.0) for v in range(3)]
    maps = stage.shadows(lights, indoors=False)
    whole = Shots.of(cameras).scaled(2)
    window = Shots(whole.K, whole.world_from_camera, np.array([[10, 4], [0, 0], [36, 20]]), (60, 56), whole.image)
    image, part = (
        stage.shader.shade(
            wp.clone(stage.peeler.keys(shots, 8, 1e-3)), shots.rays, shots.origins, shots.size, lights, maps, 2
        ).numpy()
        for shots in (whole, window)
    )
    for v, (row, column) in enumerate(window.origins // 2):
        assert np.array_equal(image[v, row : row + 30, column : column + 28], part[v])
        one = window[v : v + 1]
        own = stage.shadows(lights[v : v + 1], indoors=False)
        keys = stage.peeler.keys(one, 8, 1e-3)
        single = stage.shader.shade(keys, one.rays, one.origins, one.size, lights[v : v + 1], own, 2).numpy()
        assert single[0].tobytes() == part[v].tobytes()


@pytest.mark.parametrize("srgb", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (1, 9), (6, 1), (2, 2)])
def test_mip_levels_equal_their_twin_to_the_last_bit(shape, srgb, weighted):
    image = noise(*shape)
    image[0, 0, 3] = 0
    np.testing.assert_array_equal(half(image, srgb, weighted), twin.half(image, srgb, weighted))


@pytest.mark.parametrize("mode", ["OPAQUE", "MASK"])
def test_a_packed_texture_has_all_its_levels_one_behind_the_other(mode):
    image, bumps = noise(150, 71), noise(1, 40)
    material = Material(base_color_texture=Texture(image), normal_texture=Texture(bumps), alpha_mode=mode)
    mesh = quads([0.0], (material, Material(base_color_texture=Texture(image, "clamp"), alpha_mode=mode)))
    packed = pack(mesh)
    assert len(packed.texture_int) == 3
    for row, level in zip(packed.texture_int, (image, bumps, image), strict=True):
        for k in range(row[tx.LEVEL_COUNT]):
            first = row[tx.LEVELS + k]
            words = packed.texels[first : first + level.shape[0] * level.shape[1]]
            np.testing.assert_array_equal(words.view(np.uint8).reshape(level.shape), level)
            level = twin.half(level, row[tx.SRGB] == 1, row[tx.WEIGHTED] == 1)
        assert level.shape[:2] == (1, 1)
    assert packed.texture_int[0, tx.LEVELS] == packed.texture_int[2, tx.LEVELS]  # one image is stored once
    assert len(packed.texels) == packed.texture_int[1, tx.LEVELS + packed.texture_int[1, tx.LEVEL_COUNT] - 1] + 1


def test_a_mip_level_of_one_colour_is_that_colour():
    for value in (0, 1, 77, 254, 255):
        image = np.full((4, 4, 4), value, np.uint8)
        for srgb in (False, True):
            for weighted in (False, True):
                np.testing.assert_array_equal(half(image, srgb, weighted), image[:2, :2])
