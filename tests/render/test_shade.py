"""Shading against formulas: light, texture, alpha, colour encoding."""

import numpy as np
import pytest

from render.cameras import Camera, direction
from render.colors import linear_to_srgb, srgb_to_linear
from render.develop import develop, exposure_of
from render.frames import Stage
from render.lights import DIRECTIONAL, POINT, Lights, environment, irradiance, object_lights, room_lights
from render.mesh import Material, Mesh
from render.rays import Shadows
from shards.randomness import generator
from tests.render.shapes import camera_along_z, image_of, quads, small, sphere, texture

BLACK = np.zeros((9, 3), np.float32)
MATTE = Material(base_color=(0.5, 0.25, 0.75, 1.0), roughness=1.0)


def lamp(kind: int, vector: list[float], color: list[float]) -> Lights:
    return Lights(BLACK, np.array([kind], np.int32), np.array([vector], np.float32), np.array([color], np.float32))


def image(
    mesh: Mesh, lights: Lights, camera: Camera | None = None, indoors: bool = False, **changes: object
) -> np.ndarray:
    """Linear premultiplied image (H,W,5) without shadows unless asked for."""
    stage = Stage(mesh, small(**{"shadows": False, "samples": 1, **changes}), {})
    return image_of(stage, camera or camera_along_z(), lights, indoors)


def metered(out: np.ndarray) -> float:
    """Mean irradiance of what is covered in an image (H,W,5)."""
    return float(out[..., 4].sum(dtype=np.float64) / out[..., 3].sum(dtype=np.float64))


def glow(rgb: tuple[float, float, float] = (1.0, 1.0, 1.0), **changes: object) -> Material:
    """A material that sends exactly its emission, so that the image shows textures and not light."""
    return Material(base_color=(0.0, 0.0, 0.0, 1.0), emissive=rgb, metallic=1.0, **changes)  # type: ignore[arg-type]


DARK = Lights(BLACK, np.zeros(0, np.int32), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))


@pytest.mark.parametrize("angle", [0.0, 30.0, 60.0, 85.0])
def test_a_matte_plane_under_a_directional_light(angle):
    towards = direction(angle, 0)
    out = image(quads([0.0], (MATTE,)), lamp(DIRECTIONAL, towards.tolist(), [3.0, 2.0, 1.0]), camera_along_z(33))
    middle = out[16, 16]  # seen along the normal
    n = v = np.array([0.0, 0, 1])
    h = (towards + v) / np.linalg.norm(towards + v)
    nl, vh = float(n @ towards), float(v @ h)
    albedo, strength = np.array(MATTE.base_color[:3]), np.array([3.0, 2.0, 1.0]) * nl
    fresnel = 0.04 + 0.96 * (1 - vh) ** 5
    # roughness 1: the GGX lobe is 1 / pi, and Hammon's visibility 0.5 / (nl + nv) with nv = 1
    expected = strength * (albedo * (1 - fresnel) / np.pi + fresnel / np.pi * 0.5 / (nl + 1))
    np.testing.assert_allclose(middle[:3], expected, rtol=2e-5)
    assert middle[3] == 1.0
    assert middle[4] == pytest.approx(strength @ [0.2126, 0.7152, 0.0722] / np.pi, rel=1e-5)


def test_a_point_light_falls_off_with_the_square_of_the_distance():
    for distance in (0.5, 1.0, 4.0):
        out = image(quads([0.0], (MATTE,)), lamp(POINT, [0, 0, distance], [1, 1, 1]), camera_along_z(33))
        assert out[16, 16, 4] == pytest.approx(1 / distance**2 / np.pi, rel=1e-4)


def test_both_sides_of_a_plane_are_lit_alike():
    front = image(quads([0.0], (MATTE,)), lamp(DIRECTIONAL, direction(30, 20).tolist(), [1, 1, 1]))
    flipped = quads([0.0], (MATTE,))
    flipped = Mesh(flipped.vertices, flipped.faces[:, ::-1].copy(), flipped.material, flipped.materials)
    np.testing.assert_allclose(
        image(flipped, lamp(DIRECTIONAL, direction(30, 20).tolist(), [1, 1, 1])), front, atol=1e-6
    )


def test_light_from_behind_reaches_nothing():
    out = image(quads([0.0], (MATTE,)), lamp(DIRECTIONAL, [0, 0, -1], [1, 1, 1]))
    assert not out[..., :3].any()


def test_normals_that_point_inwards_are_turned_to_the_viewer():
    good, bad = sphere(), sphere()
    bad = Mesh(bad.vertices, bad.faces, bad.material, bad.materials, normals=-bad.normals)
    lights = lamp(DIRECTIONAL, direction(40, 30).tolist(), [1, 1, 1])
    camera = camera_along_z(32, 4.0)
    np.testing.assert_allclose(image(bad, lights, camera), image(good, lights, camera), atol=1e-5)


@pytest.mark.parametrize("metallic", [0.0, 1.0])
@pytest.mark.parametrize("roughness", [0.3, 1.0])
def test_a_white_sphere_in_a_white_furnace_gives_back_no_more_than_it_gets(metallic, roughness):
    furnace = Lights(environment([], np.ones(3)), DARK.kind, DARK.vector, DARK.color)
    out = image(sphere(4, Material(metallic=metallic, roughness=roughness)), furnace, camera_along_z(32, 4.0))
    seen = out[out[..., 3] > 0]
    assert seen[:, :3].max() <= 1.0 + 1e-4
    assert seen[:, :3].min() >= (0.4 if metallic else 0.9)  # single scattering loses half of the light on rough metal
    np.testing.assert_allclose(seen[:, 4], 1.0, rtol=1e-4)  # a radiance of 1 from everywhere is an irradiance of pi


def test_environment_irradiance_equals_the_integral_over_the_sphere():
    towards, color = direction(30, 40), np.array([1.0, 0.5, 0.2])
    sh = environment([(towards, color)], np.array([0.1, 0.1, 0.1])).astype(np.float64)
    rng = np.random.default_rng(0)
    d = rng.normal(size=(400_000, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    radiance = np.maximum(d @ towards, 0)[:, None] * color + 0.1
    for n in (towards, direction(200, 10), np.array([0.0, -1, 0])):
        expected = 4 * np.pi * np.mean(np.maximum(d @ n, 0)[:, None] * radiance, axis=0)
        # nine coefficients hold a cosine lobe's irradiance to a few percent of its peak
        np.testing.assert_allclose(irradiance(sh, n), expected, atol=0.06)


RED, GREEN, BLUE, WHITE = [255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [255, 255, 255, 255]
QUARTERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def quarters(out: np.ndarray) -> list[list[int]]:
    """Colours (0 or 1) well inside the four quarters of an image, row by row."""
    q = out.shape[0] // 4
    return [np.round(out[y, x, :3]).astype(int).tolist() for y in (q, 3 * q) for x in (q, 3 * q)]


def test_a_texture_is_upright():
    out = image(quads([0.0], (glow(emissive_texture=texture(QUARTERS)),)), DARK)
    assert quarters(out) == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]


def test_the_texture_transform_is_applied_to_uv():
    quarter_turn = np.array([[0.0, 1, 0], [-1, 0, 1], [0, 0, 1]])  # u' = v, v' = 1 - u
    out = image(quads([0.0], (glow(emissive_texture=texture(QUARTERS, transform=quarter_turn)),)), DARK)
    # the pixel at (u, v) = (1/4, 1/4) reads (1/4, 3/4): blue
    assert quarters(out) == [[0, 0, 1], [1, 0, 0], [1, 1, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        # uv runs to 2: the first quarter of the image shows the whole texture, and these are (3/2 +- 1/4, 1/4)
        ("repeat", ([1, 0, 0], [0, 1, 0])),
        ("mirror", ([0, 1, 0], [1, 0, 0])),
        ("clamp", ([0, 1, 0], [0, 1, 0])),
    ],
)
def test_wrap_modes(wrap, expected):
    material = glow(emissive_texture=texture(QUARTERS, wrap_s=wrap, wrap_t=wrap))
    out = image(quads([0.0], (material,), uv_scale=2.0), DARK, camera_along_z(64))
    row = out[8, :, :3]  # v = 1/4
    assert (np.round(row[40]).astype(int).tolist(), np.round(row[56]).astype(int).tolist()) == expected


def test_huge_texture_coordinates_do_no_harm():
    material = glow(emissive_texture=texture(QUARTERS))
    mesh = quads([0.0], (material,))
    wild = Mesh(mesh.vertices, mesh.faces, mesh.material, mesh.materials, uv=mesh.uv * np.float32(3e38))
    assert np.isfinite(image(wild, DARK)).all()


def test_a_texture_seen_from_afar_is_averaged_in_linear_light():
    checks = np.zeros((256, 256, 4), np.uint8)
    checks[..., 3] = 255
    checks[(np.add.outer(np.arange(256), np.arange(256)) % 2) == 0, :3] = 255
    out = image(quads([0.0], (glow(emissive_texture=texture(checks)),)), DARK, camera_along_z(16))
    np.testing.assert_allclose(out[..., :3], 0.5, atol=0.01)  # 0.5 of the light, sRGB 188; not sRGB 128


def test_the_second_uv_set_is_used_where_a_texture_asks_for_it():
    mesh = quads([0.0], (glow(emissive_texture=texture(QUARTERS, uv_set=1)),))
    flipped = Mesh(mesh.vertices, mesh.faces, mesh.material, mesh.materials, uv=mesh.uv, uv1=1 - mesh.uv)
    assert quarters(image(flipped, DARK)) == [[1, 1, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_the_green_of_a_normal_map_points_up_and_the_red_to_the_right():
    for rgb, towards in (([255, 128, 128, 255], direction(90, 0)), ([128, 255, 128, 255], direction(0, 90))):
        bumps = texture(np.array([[rgb]], np.uint8))
        material = Material(normal_texture=bumps)
        lights = [lamp(DIRECTIONAL, (s * towards + [0, 0, 0.3]).tolist(), [1, 1, 1]) for s in (1, -1)]
        bright, dim = (image(quads([0.0], (material,)), light)[16, 16, 4] for light in lights)
        assert bright > 5 * dim


def test_hidden_colours_of_clear_texels_do_not_bleed():
    leaf = np.zeros((32, 32, 4), np.uint8)
    leaf[...] = [255, 0, 255, 0]
    leaf[8:24, 8:24] = [0, 255, 0, 255]
    material = Material(base_color_texture=texture(leaf), alpha_mode="MASK")
    light = lamp(DIRECTIONAL, [0, 0, 1], [3, 3, 3])
    for size in (8, 40, 200):  # minified, about one to one, magnified
        out = image(quads([0.0], (material,)), light, camera_along_z(size))
        seen = out[out[..., 3] > 0]
        assert len(seen)
        assert seen[:, 0].max() < 0.2 * seen[:, 1].min()  # what red there is, is the white of the gloss


def test_glass_in_front_of_a_wall_is_composited():
    glass = glow((1.0, 0.0, 0.0), alpha_mode="BLEND")
    glass = Material(**{**glass.__dict__, "base_color": (0.0, 0.0, 0.0, 0.25)})
    wall = glow((0.0, 1.0, 0.0))
    out = image(quads([0.0, 1.0], (glass, wall), size=2.0), DARK)
    np.testing.assert_allclose(out[..., :3], np.broadcast_to([0.25, 0.75, 0.0], (32, 32, 3)), atol=1e-5)
    np.testing.assert_allclose(out[..., 3], 1.0)


def test_anti_aliasing_is_the_mean_of_the_samples():
    mesh = quads([0.0], (glow((0.2, 0.4, 0.8)),), size=0.7)
    fine = image(mesh, DARK, camera_along_z(64))
    coarse = image(mesh, DARK, camera_along_z(32), samples=2)
    np.testing.assert_allclose(coarse, fine.reshape(32, 2, 32, 2, 5).mean(axis=(1, 3)), atol=1e-6)


def test_straight_alpha_keeps_the_colour_of_a_half_covered_pixel():
    mesh = quads([0.0], (glow((0.2, 0.4, 0.8)),), size=0.77)
    out = image(mesh, DARK, samples=4)
    assert ((out[..., 3] > 0.1) & (out[..., 3] < 0.9)).any()
    rgba = develop(out, 0.9, out[..., 3] > 0.5)
    seen = rgba[rgba[..., 3] > 0][:, :3].astype(int)
    expected = np.round(linear_to_srgb(np.array([0.18, 0.36, 0.72])) * 255)
    assert np.abs(seen - expected).max() <= 1


def test_the_encoding_is_srgb_and_its_inverse():
    x = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(srgb_to_linear(linear_to_srgb(x)), x, atol=1e-9)
    assert srgb_to_linear(np.array(128 / 255)) == pytest.approx(0.21586, abs=1e-5)


def test_the_shoulder_is_continuous_monotone_and_never_clips_to_more_than_one():
    ramp = np.zeros((1, 4000, 5), np.float32)
    ramp[..., :3] = np.linspace(0, 20, 4000)[None, :, None]
    ramp[..., 3] = 1
    out = develop(ramp, 1.0, np.ones((1, 4000), bool))[0, :, 0].astype(int)
    assert np.all(np.diff(out) >= 0)
    assert out[-1] == 255
    at = int(0.8 / 20 * 3999)
    assert abs(out[at] - round(float(linear_to_srgb(np.array(0.8))) * 255)) <= 1


def test_exposure_follows_the_light_and_not_the_paint():
    light = lamp(DIRECTIONAL, [0, 0, 1], [1, 1, 1])
    exposures = [
        exposure_of(metered(image(quads([0.0], (Material(base_color=(c, c, c, 1.0)),)), light)), 0.7)
        for c in (0.02, 0.5, 1.0)
    ]
    assert len(set(exposures)) == 1
    assert exposures[0] == pytest.approx(0.7 * np.pi, rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "vector", "indoors"),
    [
        (DIRECTIONAL, [0.0, 0, 1], False),
        (DIRECTIONAL, [0.6, 0, 0.8], False),
        (POINT, [0.1, -0.2, 1.5], False),
        (POINT, [0.1, -0.2, 1.5], True),
    ],
)
def test_a_shadow_falls_where_the_ray_to_the_light_is_blocked(kind, vector, indoors):
    mesh = quads([1.0], (Material(),), size=2.0)  # a floor at z = -1, and a lid of half-side 0.5 at z = 0
    lid = quads([0.0], (Material(),), size=0.5)
    vertices, faces = np.vstack([mesh.vertices, lid.vertices]), np.vstack([mesh.faces, lid.faces + 4])
    mesh = Mesh(vertices, faces, np.zeros(4, np.int32), (Material(),))
    camera, light = camera_along_z(101, 8.0, 40.0), np.array(vector)
    lights = lamp(kind, vector, [1, 1, 1])
    lit, free = (image(mesh, lights, camera, indoors, shadows=s)[..., 4] for s in (True, False))

    v, u = np.mgrid[:101, :101] + 0.5
    floor = np.stack([(u - 50.5) / camera.K[0, 0] * 9, -(v - 50.5) / camera.K[0, 0] * 9], axis=-1)
    # where the way from the floor to the light crosses the plane of the lid
    crossing = floor + light[:2] / light[2] if kind == DIRECTIONAL else floor + (light[:2] - floor) / (light[2] + 1)
    seen = (np.abs(floor).max(axis=-1) > 0.5 * 9 / 8 + 0.05) & (np.abs(floor).max(axis=-1) < 1.9)
    beside = np.abs(crossing).max(axis=-1)
    dark, bright = seen & (beside < 0.46), seen & (beside > 0.56)
    assert bright.any()
    assert dark.any() or vector == [0.0, 0, 1]  # straight from above the lid hides its own shadow
    assert lit[dark].max(initial=0.0) == 0.0
    np.testing.assert_allclose(lit[bright], free[bright], rtol=1e-4)


def test_the_edge_of_a_shadow_in_a_room_is_straight():
    """A square's edge at 20 degrees to the pixels of the map: what is half lit stays within a third of a pixel of the
    map's of one line, while with 2x2 pixels it follows the stairs."""
    floor, lid = quads([1.0], (Material(),), size=2.0), quads([0.0], (Material(),), size=0.3)
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    turned = lid.vertices @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    mesh = Mesh(np.vstack([floor.vertices, turned]), np.vstack([floor.faces, lid.faces + 4]), np.zeros(4, np.int32),
                (Material(),))  # fmt: skip
    camera, lights = camera_along_z(301, 8.0, 20.0), lamp(POINT, [0.6, 0, 1.0], [1, 1, 1])
    lit, free = (image(mesh, lights, camera, True, shadows=s)[..., 4] for s in (True, False))
    share = np.divide(lit, free, out=np.ones_like(lit), where=free > 0)
    crossings = []
    for row in range(120, 180):  # the far edge of the shadow, on the left
        left = share[row, :100]
        at = int(np.flatnonzero(left < 0.5)[0])
        crossings.append(at - 1 + (left[at - 1] - 0.5) / (left[at - 1] - left[at]))
    rows = np.arange(len(crossings))
    residual = np.abs(np.array(crossings) - np.polyval(np.polyfit(rows, crossings, 1), rows)).max()
    pixel = camera.K[0, 0] / 9 * 2 / 126  # of the map, on the floor 2 below the lamp
    assert residual < 0.33 * pixel
    assert share[120:180, :10].min() == 1.0
    assert np.diff(share[150, :60]).max() < 1e-6  # and it only gets darker on the way in


def test_a_convex_body_casts_no_shadow_on_its_lit_side():
    lights = lamp(DIRECTIONAL, direction(35, 25).tolist(), [1, 1, 1])
    camera = camera_along_z(64, 4.0)
    lit, free = (image(sphere(5), lights, camera, shadows=s)[..., 4] for s in (True, False))
    facing = free > 0.25 * free.max()  # away from the terminator, where the map's resolution ends
    assert np.abs(lit[facing] - free[facing]).max() < 0.02 * free.max()


def test_lights_of_objects_and_rooms_are_what_they_promise():
    for view in range(30):
        drawn = generator(0, "a", view, "light")
        lights = object_lights(drawn, camera_along_z(), np.zeros(3), 1.0)
        assert 1 <= len(lights.kind) <= 3
        assert (lights.color > 0).all()
        inside = np.array([[-2.0, 0, -3], [2, 2.6, 3]])
        openings = np.array([[[-2.1, 1.0, -0.5], [-1.9, 2.0, 0.5]]])
        indoors = room_lights(drawn, inside, openings)
        lamps = indoors.vector[:-1]
        assert (indoors.kind == POINT).all()
        assert np.all((indoors.vector > inside[0]) & (indoors.vector < inside[1]))
        assert (lamps[:, 1] > 2.4).all()  # under the ceiling
        assert np.linalg.norm(indoors.vector[-1] - openings[0].mean(axis=0)) < 0.2  # at the window


def test_no_shadow_maps_mean_full_light():
    assert Shadows.none(3).first.tolist() == [0, 0, 0, 0]
