"""Each item of a glTF material against the number that the specification gives: one pixel, one formula."""

from dataclasses import replace

import numpy as np
import pytest

from render.cameras import Camera, direction, intrinsics, look_at
from render.colors import srgb_to_linear
from render.frames import Stage
from render.lights import DIRECTIONAL, Lights, environment
from render.mesh import Material, Mesh
from render.rays import Shots
from tests.render.shapes import camera_along_z, image_of, quads, small, texture

BLACK = np.zeros((9, 3), np.float32)
DARK = Lights(BLACK, np.zeros(0, np.int32), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
FURNACE = replace(DARK, sh=environment([], np.ones(3)))  # a radiance of 1 from everywhere
SUN = np.array([3.0, 2.0, 1.0])


def sunlight(towards: np.ndarray) -> Lights:
    return Lights(
        BLACK, np.array([DIRECTIONAL], np.int32), towards[None].astype(np.float32), SUN[None].astype(np.float32)
    )


def image(mesh: Mesh, lights: Lights, camera: Camera | None = None, **changes: object) -> np.ndarray:
    """Linear premultiplied image (H,W,5), without shadows, at one sample a pixel unless asked for more."""
    stage = Stage(mesh, small(**{"shadows": False, "samples": 1, **changes}), {})
    return image_of(stage, camera or camera_along_z(33), lights)


def plane(material: Material) -> Mesh:
    """A square at z = 0 that faces the camera; u to the right (+x), v down (-y)."""
    return quads([0.0], (material,))


def one(*rgba: int) -> np.ndarray:
    """A texture of one colour."""
    return np.tile(np.array(rgba, np.uint8), (4, 4, 1))


def ggx(n: np.ndarray, towards: np.ndarray, albedo: np.ndarray, metallic: float, roughness: float) -> np.ndarray:
    """Radiance (3,) towards +z of a surface with normal n under `sunlight(towards)`: glTF 2.0, appendix B, with
    Hammon's form of the height-correlated visibility, and Lambert weighted by 1 - F."""
    view = np.array([0.0, 0, 1])
    half = (towards + view) / np.linalg.norm(towards + view)
    nl, nv, nh, vh = max(n @ towards, 0.0), max(n @ view, 1e-3), n @ half, view @ half
    a = roughness**2
    f0 = 0.04 * (1 - metallic) + albedo * metallic
    fresnel = f0 + (1 - f0) * (1 - vh) ** 5
    d = a * a / (np.pi * (nh * nh * (a * a - 1) + 1) ** 2)
    visible = 0.5 / (nl * (nv * (1 - a) + a) + nv * (nl * (1 - a) + a))
    return SUN * nl * (albedo * (1 - metallic) * (1 - fresnel) / np.pi + fresnel * d * visible)


@pytest.mark.parametrize("angle", [10.0, 50.0])
@pytest.mark.parametrize(("roughness", "metallic"), [(64, 0), (128, 255), (255, 100), (90, 255)])
def test_roughness_is_the_green_and_metal_the_blue_of_their_texture(roughness, metallic, angle):
    towards = direction(angle, 20)
    found = Material(
        base_color=(0.5, 0.25, 0.75, 1.0),
        metallic=0.8,
        roughness=0.9,
        metallic_roughness_texture=texture(one(77, roughness, metallic, 13)),  # red and alpha are not looked at
    )
    expected = ggx(
        np.array([0.0, 0, 1]), towards, np.array([0.5, 0.25, 0.75]), 0.8 * metallic / 255, 0.9 * roughness / 255
    )
    np.testing.assert_allclose(image(plane(found), sunlight(towards))[16, 16, :3], expected, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("rgb", [(128, 128, 255), (200, 128, 220), (90, 180, 200), (255, 20, 128)])
@pytest.mark.parametrize("turn", [0.0, 0.7, 2.5])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_normal_map_bends_the_normal_in_the_frame_of_its_texture(rgb, scale, turn, mirrored):
    # u' grows along (cos, sin) of the turned texture; the green of the map points against v', whichever way v' goes
    c, s = np.cos(turn), np.sin(turn)
    spin = np.array([[c, s, 0.2], [-s, c, 0.4], [0, 0, 1]])
    if mirrored:
        spin[0, :2] *= -1
    material = Material(
        base_color=(0.5, 0.5, 0.5, 1.0), normal_texture=texture(one(*rgb, 255), transform=spin), normal_scale=scale
    )
    # Directions in the plane along which u' and v' grow: rows of the inverse, with v pointing down.
    along = np.linalg.inv(spin[:2, :2])
    along_u, along_v = (np.array([a[0], -a[1], 0.0]) / np.linalg.norm(a) for a in along.T)
    x, y, z = (2 * np.array(rgb) / 255 - 1) * [scale, scale, 1]
    n = x * along_u - y * along_v + np.array([0, 0, z])
    n /= np.linalg.norm(n)
    towards = direction(25, 30)
    expected = ggx(n, towards, np.full(3, 0.5), 0.0, 1.0)
    np.testing.assert_allclose(image(plane(material), sunlight(towards))[16, 16, :3], expected, rtol=2e-4)


def test_a_normal_map_is_bound_to_the_surface_and_not_to_the_world():
    material = Material(base_color=(0.5, 0.5, 0.5, 1.0), normal_texture=texture(one(200, 90, 220, 255)))
    flat = plane(material)
    towards = direction(25, 30)
    rotation = look_at(np.array([1.0, 2.0, -0.5]), np.array([0.3, 0.1, 0.2]), 0.6)[:3, :3]
    turned = replace(flat, vertices=flat.vertices @ rotation.T)
    camera = camera_along_z(33)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation @ camera.world_from_camera[:3, :3], rotation @ camera.eye
    carried = Camera(camera.K, pose, 33, 33, {})
    np.testing.assert_allclose(
        image(turned, sunlight(rotation @ towards), carried)[16, 16],
        image(flat, sunlight(towards), camera)[16, 16],
        rtol=1e-4,
    )


def test_base_colour_and_emission_are_srgb_and_multiplied_by_their_factors():
    byte = np.array([200, 100, 30])
    light = srgb_to_linear(byte / 255)
    glow = Material(
        base_color=(0, 0, 0, 1.0), metallic=1.0, emissive=(0.5, 2.0, 1.0), emissive_texture=texture(one(*byte, 0))
    )
    np.testing.assert_allclose(image(plane(glow), DARK)[16, 16, :3], light * [0.5, 2.0, 1.0], rtol=1e-5)
    paint = Material(base_color=(0.5, 1.0, 0.2, 0.3), base_color_texture=texture(one(*byte, 9)))  # OPAQUE: no alpha
    expected = ggx(np.array([0.0, 0, 1]), direction(0, 40), light * [0.5, 1.0, 0.2], 0.0, 1.0)
    found = image(plane(paint), sunlight(direction(0, 40)))[16, 16]
    np.testing.assert_allclose(found[:3], expected, rtol=1e-4)
    assert found[3] == 1.0


@pytest.mark.parametrize("red", [0, 51, 255])
@pytest.mark.parametrize("shared", [False, True])
def test_occlusion_is_the_red_of_its_texture_and_shades_the_environment_only(red, shared):
    packed = one(red, 255, 255, 255)  # as the usual image of occlusion, roughness and metal
    material = Material(
        base_color=(0.6, 0.6, 0.6, 1.0),
        occlusion_texture=texture(packed),
        metallic_roughness_texture=texture(packed if shared else packed.copy()),
    )
    if shared:
        same = material.occlusion_texture.pixels
        material = replace(
            material, metallic_roughness_texture=replace(material.metallic_roughness_texture, pixels=same)
        )
    bare = replace(material, occlusion_texture=None)
    sky, free = (image(plane(m), FURNACE)[16, 16] for m in (material, bare))
    np.testing.assert_allclose(sky[[0, 1, 2, 4]], free[[0, 1, 2, 4]] * red / 255, rtol=1e-5, atol=1e-7)
    sun = sunlight(direction(10, 30))
    np.testing.assert_allclose(image(plane(material), sun), image(plane(bare), sun), rtol=1e-6)


def test_vertex_colours_are_linear_factors_interpolated_in_perspective():
    tilt = look_at(np.zeros(3), np.array([0.0, -0.8, 0.7]))[:3, :3]
    flat = quads([0.0], (Material(base_color=(0.0, 0.0, 0.0, 1.0), roughness=1.0, metallic=0.0),), size=0.8)
    vertices = flat.vertices @ tilt.T
    # colour = a linear function of the position on the plane, so the hit's position says what is right
    gradient = np.array([[0.3, 0.1, 0.0], [0.1, 0.2, 0.1], [0.0, 0.1, 0.3]])
    colors = np.column_stack([vertices @ gradient + 0.5, np.ones(4)]).astype(np.float32)
    material = Material(base_color=(1.0, 0.5, 1.0, 1.0), metallic=1.0, roughness=1.0)
    mesh = Mesh(vertices, flat.faces, flat.material, (material,), colors=colors)
    camera = camera_along_z(41, 2.0)
    out = image(mesh, FURNACE, camera)
    v, u = np.nonzero(out[..., 3] == 1)
    ray = (
        np.stack([u + 0.5, v + 0.5, np.ones(len(u))], axis=1)
        @ np.linalg.inv(camera.K).T
        @ camera.world_from_camera[:3, :3].T
    )
    n = np.cross(vertices[1] - vertices[0], vertices[2] - vertices[0])
    hit = camera.eye + ray * (((vertices[0] - camera.eye) @ n) / (ray @ n))[:, None]
    albedo = (hit @ gradient + 0.5) * [1.0, 0.5, 1.0]
    # metal in a furnace sends back albedo * scale + bias, with the same scale and bias for one angle of view: a ratio
    facing = np.abs(ray @ n) / np.linalg.norm(ray, axis=1) / np.linalg.norm(n)
    edge = 0.0425 - 0.0275
    expected = albedo * (1.04 - 0.572 - 1.04 * edge) + max(1.04 * edge + 0.022 - 0.04, 0.0)
    assert facing.min() > 0.1
    np.testing.assert_allclose(out[v, u, :3], expected, rtol=2e-4)


@pytest.mark.parametrize(("byte", "kept"), [(127, False), (128, True)])
def test_a_mask_keeps_what_reaches_its_cutoff(byte, kept):
    cut = Material(base_color_texture=texture(one(255, 255, 255, byte)), alpha_mode="MASK", alpha_cutoff=128 / 255)
    assert (image(plane(cut), FURNACE)[..., 3] == float(kept)).all()


@pytest.mark.parametrize("mode", ["OPAQUE", "MASK", "BLEND"])
def test_alpha_is_the_product_of_factor_texture_and_vertex(mode):
    mesh = plane(
        Material(
            base_color=(1.0, 1.0, 1.0, 0.8),
            base_color_texture=texture(one(255, 255, 255, 204)),
            alpha_mode=mode,
            alpha_cutoff=0.3,
        )
    )
    colors = np.ones((4, 4), np.float32)
    colors[:, 3] = 0.5
    alpha = image(replace(mesh, colors=colors), FURNACE)[16, 16, 3]
    assert alpha == pytest.approx({"OPAQUE": 1.0, "MASK": 1.0, "BLEND": 0.8 * 0.8 * 0.5}[mode], abs=1e-6)


def test_panes_are_composited_front_to_back_until_the_first_solid_one():
    panes = [
        Material(base_color=(0, 0, 0, a), metallic=1.0, emissive=rgb, alpha_mode="BLEND")
        for a, rgb in ((0.5, (1.0, 0, 0)), (0.25, (0, 1.0, 0)))
    ]
    wall = Material(base_color=(0, 0, 0, 1.0), metallic=1.0, emissive=(0, 0, 1.0))
    # listed back to front: the order of faces must not matter
    out = image(quads([1.0, 0.0, 0.5], (wall, panes[0], panes[1]), size=3.0), DARK)[16, 16]
    np.testing.assert_allclose(out[:4], [0.5, 0.5 * 0.25, 0.5 * 0.75, 1.0], atol=1e-6)


@pytest.mark.parametrize(("alpha", "slots", "expected"), [(0.1, 3, True), (0.1, 5, False), (0.9, 3, False)])
def test_a_view_is_unresolved_while_something_could_be_seen_behind_its_last_slot(alpha, slots, expected):
    """Four panes: three of 0.1 let 73 % through, three of 0.9 less than 1/255."""
    pane = Material(base_color=(1.0, 1.0, 1.0, alpha), alpha_mode="BLEND")
    mesh = quads([0.0, 0.2, 0.4, 0.6], (pane,) * 4)
    stage = Stage(mesh, small(), {})
    away = Camera(camera_along_z(33).K, look_at(np.array([0.0, 0, 3]), np.array([0.0, 0, 9])), 33, 33, {})
    shots = Shots.of([camera_along_z(33), away])
    keys = stage.peeler.keys(shots, slots, 1e-3)
    assert stage.shader.unresolved(keys, shots.rays, shots.origins, shots.size).tolist() == [expected, False]


def stripes(period: int, size: int = 256) -> np.ndarray:
    out = np.zeros((size, size, 4), np.uint8)
    out[..., 3] = 255
    out[:, (np.arange(size) % period) < period // 2, :3] = 255
    return out


def glowing(pixels: np.ndarray) -> Mesh:
    return plane(
        Material(base_color=(0, 0, 0, 1.0), metallic=1.0, emissive=(1.0, 1.0, 1.0), emissive_texture=texture(pixels))
    )


@pytest.mark.parametrize("samples", [1, 2])
def test_stripes_finer_than_pixels_are_grey_and_coarser_ones_stay(samples):
    """256 texels over 64 pixels: a footprint of 4 texels a pixel."""
    for period in (2, 4):
        out = image(glowing(stripes(period)), DARK, camera_along_z(64), samples=samples)[..., 0]
        np.testing.assert_allclose(out, 0.5, atol=0.01)
    out = image(glowing(stripes(64)), DARK, camera_along_z(64), samples=samples)[..., 0]
    assert np.abs(out[:, 2:6] - 1).max() < 1e-6
    assert np.abs(out[:, 10:14]).max() < 1e-6


def test_checks_finer_than_pixels_show_no_moire():
    """Checks of single texels, two to sixteen of them a pixel: what does not cancel in the mean of the samples stays
    under 5 % of white, and from four on, where the mip levels have averaged them, nothing is left."""
    checks = stripes(2)
    checks[::2, :, :3] = 255 - checks[::2, :, :3]
    camera = camera_along_z(40)

    def seen(texels_a_pixel: float) -> np.ndarray:
        K = camera.K.copy()
        K[0, 0] = K[1, 1] = 256 / texels_a_pixel
        out = image(glowing(checks), DARK, replace(camera, K=K), samples=2)
        return out[out[..., 3] == 1][:, 0]

    assert seen(0.25).std() == pytest.approx(0.5 / 3, abs=0.02)  # magnified: a product of two triangle waves
    for texels_a_pixel in np.geomspace(2.0, 16.0, 25):
        out = seen(texels_a_pixel)
        assert out.mean() == pytest.approx(0.5, abs=0.005)
        assert out.std() < (0.05 if texels_a_pixel < 4 else 1e-4)


def test_a_floor_to_the_horizon_is_free_of_aliasing_but_not_blurred_at_the_feet():
    """Against the same floor with 8 x 8 samples a pixel: anti-aliased up to what half the longer side leaves."""
    tiles = np.tile(stripes(16, 64), (1, 1, 1))
    flip = (np.arange(64) % 16) < 8
    tiles[flip, :, :3] = 255 - tiles[flip, :, :3]
    material = Material(
        base_color=(0, 0, 0, 1.0), metallic=1.0, emissive=(1.0, 1.0, 1.0), emissive_texture=texture(tiles)
    )
    floor = quads([0.0], (material,), size=40.0, uv_scale=40.0)
    vertices = floor.vertices @ np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])  # laid down: y = 0
    floor = replace(floor, vertices=vertices)
    eye = np.array([0.3, 1.0, 0.1])
    camera = Camera(intrinsics(60.0, 48, 48), look_at(eye, eye + [0.2, -0.35, -1.0]), 48, 48, {})
    fine = image(floor, DARK, camera, samples=8)[..., 0]
    plain = image(floor, DARK, camera, samples=2)[..., 0]
    covered = image(floor, DARK, camera, samples=2)[..., 3] == 1
    error = np.abs(plain - fine)[covered]
    assert error.mean() < 0.04
    assert np.quantile(error, 0.99) < 0.25
    near = np.zeros_like(covered)
    near[-8:] = True
    assert plain[near & covered].std() > 0.9 * fine[near & covered].std()  # sharp where texels are large


@pytest.mark.parametrize("wrap_s", ["repeat", "clamp", "mirror"])
@pytest.mark.parametrize("wrap_t", ["repeat", "clamp", "mirror"])
def test_every_texel_is_where_its_wrap_mode_puts_it(wrap_s, wrap_t):
    """uv from -2 to 3 over 60 pixels: each texel of 4 x 4 covers 3 pixels, the middle one shows it bare."""
    pixels = np.random.default_rng(1).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    mesh = quads(
        [0.0],
        (
            Material(
                base_color=(0, 0, 0, 1.0),
                metallic=1.0,
                emissive=(1.0, 1.0, 1.0),
                emissive_texture=texture(pixels, wrap_s=wrap_s, wrap_t=wrap_t),
            ),
        ),
    )
    out = image(replace(mesh, uv=mesh.uv * 5 - 2), DARK, camera_along_z(60))
    index = np.arange(-8, 12)
    wrapped = {
        "repeat": index % 4,
        "clamp": np.clip(index, 0, 3),
        "mirror": np.where(index % 8 < 4, index % 8, 7 - index % 8),
    }
    expected = srgb_to_linear(pixels[wrapped[wrap_t]][:, wrapped[wrap_s], :3] / 255)
    np.testing.assert_allclose(out[1::3, 1::3, :3], expected, atol=2e-5)
