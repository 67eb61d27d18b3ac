"""What lights the objects: where its lights stand, how bright they are there, and what the environment sends."""

import json

import numpy as np

from render.cameras import Camera, direction, intrinsics, look_at
from render.lights import (
    DIRECTIONAL,
    POINT,
    Lights,
    environment,
    irradiance,
    object_lights,
    room_lights,
    sh_basis,
)
from shards.randomness import generator

CENTRE = np.array([0.3, -0.2, 0.5])


def drawn(azimuth: float = 65.0, count: int = 200) -> list[Lights]:
    eye = CENTRE + 2.5 * direction(azimuth, 20.0)
    camera = Camera(intrinsics(50.0, 64, 64), look_at(eye, CENTRE), 64, 64, {})
    return [object_lights(generator(0, "l", k), camera, CENTRE, 1.0) for k in range(count)]


def towards(lights: Lights) -> np.ndarray:
    """Unit vectors from CENTRE to the lights."""
    out = np.where((lights.kind == POINT)[:, None], lights.vector - CENTRE, lights.vector).astype(np.float64)
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True))


def side(d: np.ndarray, azimuth: float) -> float:
    """Degrees around the vertical from `azimuth`, -180 to 180."""
    return float((np.degrees(np.arctan2(d[0], d[2])) - azimuth + 180.0) % 360.0 - 180.0)


def sphere_points(count: int = 40_000) -> np.ndarray:
    """Directions (N,3) of equal area: a Fibonacci lattice."""
    k = np.arange(count) + 0.5
    y, turn = 1 - 2 * k / count, k * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - y * y)
    return np.stack([r * np.cos(turn), y, r * np.sin(turn)], axis=1)


def test_there_are_one_to_three_lights_of_both_kinds() -> None:
    all_lights = drawn()
    counts = np.bincount([len(lights.kind) for lights in all_lights], minlength=4)
    assert counts[0] == 0
    assert counts[1:].min() > 40
    kinds = np.concatenate([lights.kind for lights in all_lights])
    assert 0.6 < np.mean(kinds == DIRECTIONAL) < 0.8


def test_the_key_light_is_on_the_camera_s_side_and_the_rim_behind() -> None:
    for azimuth in (65.0, -170.0):
        for lights in drawn(azimuth):
            d = towards(lights)
            assert abs(side(d[0], azimuth)) <= 100 + 1e-4
            assert 15 - 1e-4 <= np.degrees(np.arcsin(d[0, 1])) <= 75 + 1e-4
            if len(d) == 3:
                assert abs(side(d[2], azimuth)) >= 130 - 1e-4


def test_point_lights_are_as_bright_at_the_object_as_directional_ones() -> None:
    key = {DIRECTIONAL: [], POINT: []}
    for lights in drawn():
        distance = np.linalg.norm(lights.vector[0] - CENTRE) if lights.kind[0] == POINT else 1.0
        assert lights.kind[0] == DIRECTIONAL or 1.5 <= distance <= 3.0
        key[int(lights.kind[0])].append(float(lights.color[0].mean()) / distance**2)
    for values in key.values():
        assert np.pi * 0.8 * (1 - 1e-5) <= min(values)
        assert max(values) <= np.pi * 2.2 * (1 + 1e-5)


def test_info_holds_every_number_of_the_light() -> None:
    for lights in drawn(count=20):
        info = json.loads(json.dumps(lights.info()))
        np.testing.assert_allclose(info["sh"], lights.sh, atol=1e-6)
        assert [light["kind"] for light in info["lights"]] == [("directional", "point")[k] for k in lights.kind]
        np.testing.assert_allclose([light["vector"] for light in info["lights"]], lights.vector, atol=1e-6)
        np.testing.assert_allclose([light["color"] for light in info["lights"]], lights.color, atol=1e-5)


def test_the_harmonics_are_orthonormal() -> None:
    basis = sh_basis(sphere_points())
    np.testing.assert_allclose(4 * np.pi * basis.T @ basis / len(basis), np.eye(9), atol=1e-4)


def test_a_uniform_sky_gives_pi_times_its_radiance() -> None:
    sh = environment([], np.array([0.2, 0.5, 1.0])).astype(np.float64)
    np.testing.assert_allclose(
        irradiance(sh, sphere_points(50)), np.tile(np.pi * np.array([0.2, 0.5, 1.0]), (50, 1)), rtol=1e-5
    )


def test_irradiance_is_the_cosine_weighted_integral_of_the_environment() -> None:
    """Of its part that nine coefficients hold: convolving with the cosine acts on each band by itself."""
    d, rng = sphere_points(), np.random.default_rng(3)
    lobe = direction(40.0, 35.0)
    sh = environment([(lobe, np.array([0.7, 0.4, 0.9]))], np.array([0.3, 0.2, 0.1])).astype(np.float64)
    radiance = np.array([0.3, 0.2, 0.1]) + np.maximum(d @ lobe, 0.0)[:, None] * [0.7, 0.4, 0.9]
    basis = sh_basis(d)
    held = basis @ (4 * np.pi * basis.T @ radiance / len(d))  # the radiance, without bands above 2
    for n in rng.normal(size=(12, 3)):
        n /= np.linalg.norm(n)
        expected = 4 * np.pi * (np.maximum(d @ n, 0.0)[:, None] * held).mean(axis=0)
        np.testing.assert_allclose(irradiance(sh, n), np.maximum(expected, 0), atol=2e-3)


def test_lamps_of_a_flat_hang_over_its_floor_and_under_the_ceiling_there() -> None:
    """An L of two boxes of air, one higher than the other, in a square that is half outside."""
    air = np.array([[[0.0, 0.0, 0.0], [8.0, 2.4, 2.0]], [[0.0, 0.0, 2.0], [2.0, 3.0, 8.0]]])
    inside = np.array([[0.0, 0.0, 0.0], [8.0, 3.0, 8.0]])
    heights = set()
    for view in range(60):
        found = room_lights(generator(0, "flat", view, "light"), inside, np.zeros((0, 2, 3)), air=air)
        for lamp in found.vector[found.kind == POINT].astype(np.float64):
            within = np.all((lamp >= air[:, 0]) & (lamp <= air[:, 1]), axis=1)
            assert within.any()
            heights.add(round(float(lamp[1]), 3))
    assert heights == {2.28, 2.88}
