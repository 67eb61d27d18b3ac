"""Exposure and encoding: sums that do not depend on their order, bytes that do not depend on the machine."""

import numpy as np
import pytest
import warp as wp

from render.colors import linear_to_srgb
from render.develop import develop, encoded, exposure_of, thresholds
from render.mesh import Material
from render.shade import Shader
from render.texels import pack
from tests.render.shapes import quads


@pytest.fixture(scope="module")
def shader() -> Shader:
    mesh = quads([0.0], (Material(),))
    return Shader(pack(mesh), mesh.vertices)


def image_of(rng: np.random.Generator, views: int, height: int, width: int) -> np.ndarray:
    """Premultiplied: alpha of four samples, colours from black to far beyond white, and empty pixels."""
    alpha = rng.integers(0, 5, (views, height, width, 1)) / 4
    color = 10 ** rng.uniform(-4, 1.5, (views, height, width, 4)) * alpha
    return np.concatenate([color[..., :3], alpha, color[..., 3:]], axis=-1).astype(np.float32)


def device(image: np.ndarray):
    return wp.array(np.ascontiguousarray(image), dtype=wp.float32, device="cpu")


def test_the_thresholds_are_the_borders_of_the_formula():
    borders = thresholds()
    assert borders.shape == (255,)
    assert (np.diff(borders) > 0).all()
    below = np.nextafter(borders, np.float32(0))
    for x, at_least in ((borders, True), (below, False)):
        assert np.array_equal(encoded(x.astype(np.float64)) >= np.arange(255) + 0.5, np.full(255, at_least))
    linear = borders[borders < 0.8].astype(np.float64)
    np.testing.assert_allclose(linear_to_srgb(linear) * 255, np.arange(len(linear)) + 0.5, atol=1e-4)


def test_bytes_equal_the_formula_except_at_its_borders(shader):
    image = image_of(np.random.default_rng(0), 3, 40, 50)
    exposures, hits = np.array([0.3, 1.0, 2.7]), np.random.default_rng(1).integers(0, 3, (3, 40, 50), dtype=np.uint8)
    found, moved = shader.develop(device(image), exposures, wp.array(hits, dtype=wp.uint8, device="cpu"))
    expected = np.stack([develop(i, float(e), h > 0) for i, e, h in zip(image, exposures, hits, strict=True)])
    assert np.array_equal(found[..., 3], expected[..., 3])
    differ = np.flatnonzero((found != expected).any(axis=-1))
    for at in differ:  # only where the value is within rounding of a border between two bytes
        view = at // 2000
        pixel = image.reshape(-1, 5)[at].astype(np.float64)
        value = encoded(pixel[:3] / pixel[3] * exposures[view])
        assert np.abs(value % 1 - 0.5)[found.reshape(-1, 4)[at, :3] != expected.reshape(-1, 4)[at, :3]].max() < 1e-3
    assert len(differ) < 5
    contradicts = (np.floor(image[..., 3] * 255 + 0.5) > 127) != (hits > 0)
    assert moved[:, 0].tolist() == (contradicts & (hits > 0)).sum(axis=(1, 2)).tolist()
    assert moved[:, 1].tolist() == (contradicts & (hits == 0)).sum(axis=(1, 2)).tolist()
    assert moved[:, 2].tolist() == (contradicts & np.isin(image[..., 3], [0, 1])).sum(axis=(1, 2)).tolist()
    assert not (((found[..., 3] > 127) != (hits > 0)) & (image[..., 3] > 0)).any()
    assert found[image[..., 3] == 0].max() == 0


def test_each_byte_is_reached_and_decodes_to_itself(shader):
    ramp = np.zeros((1, 1, 200_001, 5), np.float32)
    ramp[..., :3] = np.linspace(0, 0.8, 200_001)[:, None]
    ramp[..., 3] = 1
    found = shader.develop(device(ramp), np.ones(1))[0][0, 0]
    assert np.array_equal(found[:, 0], np.round(linear_to_srgb(ramp[0, 0, :, 0].astype(np.float64)) * 255))
    assert np.array_equal(np.unique(found[:, 0]), np.arange(232))  # sRGB of 0.8 is 231
    ramp[..., :3] = np.geomspace(0.8, 50, 200_001)[:, None]
    assert np.array_equal(np.unique(shader.develop(device(ramp), np.ones(1))[0][..., 0]), np.arange(231, 256))


def test_alpha_is_held_to_the_side_of_validity_but_nothing_stays_nothing(shader):
    image = np.full((1, 1, 10, 5), 0.5, np.float32)
    image[0, 0, :, 3] = [0, 0.25, 0.5, 0.75, 1] * 2
    hits = np.array([[[0] * 5 + [1] * 5]], np.uint8)
    found, moved = shader.develop(device(image), np.ones(1), wp.array(hits, dtype=wp.uint8, device="cpu"))
    assert found[0, 0, :, 3].tolist() == [0, 64, 127, 127, 127, 0, 128, 128, 191, 255]
    assert moved.tolist() == [[2, 3, 2]]  # 0 and 0.25 where there is a surface; a half and more where there is none
    free, moved = shader.develop(device(image), np.ones(1))
    assert free[0, 0, :, 3].tolist() == [0, 64, 128, 191, 255] * 2
    assert moved.tolist() == [[0, 0, 0]]
    assert np.array_equal(found[..., :3], free[..., :3])  # the colour is divided by the true alpha


def test_what_only_the_centre_of_a_pixel_meets_is_taken_from_there_as_half_covered(shader):
    rng = np.random.default_rng(3)
    image, centres = image_of(rng, 2, 9, 11), rng.uniform(0.1, 1, (2, 9, 11, 5)).astype(np.float32)
    centres[..., 3] = rng.choice([0.6, 1.0], (2, 9, 11))
    hits = wp.array(rng.integers(0, 2, (2, 9, 11), dtype=np.uint8), dtype=wp.uint8, device="cpu")
    thin = (image[..., 3] == 0) & (hits.numpy() > 0)
    filled = device(image)
    assert shader.missed(filled, hits).tolist() == thin.sum(axis=(1, 2)).tolist()
    shader.fill(filled, device(centres), hits)
    assert shader.missed(filled, hits).tolist() == [0, 0]
    assert np.array_equal(filled.numpy()[~thin], image[~thin])
    np.testing.assert_allclose(filled.numpy()[thin, 3], 128 / 255)
    share = filled.numpy()[thin] / centres[thin]
    np.testing.assert_allclose(share, np.broadcast_to(share[:, 3:4], share.shape), rtol=1e-6)  # the colour is the same
    rgba, _ = shader.develop(filled, np.ones(2), hits)
    assert np.array_equal(rgba[..., 3] > 127, hits.numpy() > 0)


def test_the_meter_reads_the_mean_of_what_is_lit_in_any_order_and_company(shader):
    rng = np.random.default_rng(4)
    image = image_of(rng, 3, 31, 17)
    found = shader.meter(device(image))
    expected = image[..., 4].sum(axis=(1, 2), dtype=np.float64) / image[..., 3].sum(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    shuffled = image.reshape(3, -1, 5)[:, rng.permutation(31 * 17)].reshape(3, 17, 31, 5)
    assert shader.meter(device(shuffled)).tobytes() == found.tobytes()
    for view in range(3):
        assert shader.meter(device(image[view : view + 1])).tobytes() == found[view : view + 1].tobytes()


def test_the_meter_survives_what_no_image_should_hold(shader):
    image = np.zeros((3, 4, 4, 5), np.float32)
    image[1, ..., 3], image[1, ..., 4] = 1, [np.nan, np.inf, -1.0, 1.0]
    image[2, ..., 3], image[2, ..., 4] = 1, 1e30
    assert shader.meter(device(image)).tolist() == [0.0, (2**16 + 1) / 4, 2**16]


def test_exposure_has_four_digits_and_a_limit():
    assert exposure_of(0.3, 0.7) == 2.333
    assert exposure_of(0.0, 0.7) == 7000.0
