"""Augmentation moves image, layers and camera together: every property is checked through the projection K' X."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from shards import LayeredView, Origin, rays
from shards.randomness import generator
from train import augment
from train.augment import View
from train.config import Augment, Geometric, MaskJitter, Photometric

K = np.array([[70.0, 0, 31.0], [0, 66.0, 33.5], [0, 0, 1]])
PLANES = (np.array([0.2, -0.1, 1.0, 2.0]), np.array([-0.15, 0.2, 1.0, 3.0]))  # n . x = d


def plane_view(size: int = 64, K: np.ndarray = K, mask: str = "disc") -> LayeredView:
    """Two slanted planes behind a disc: depth is known in closed form at any pixel of any camera."""
    directions = rays(K, size, size)
    depth = np.stack([d / (directions @ n) for *n, d in PLANES]).astype(np.float32)
    v, u = np.mgrid[0:size, 0:size] + 0.5
    valid = np.hypot(u - 0.55 * size, v - 0.45 * size) < 0.33 * size if mask == "disc" else np.ones((size, size), bool)
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[..., 0], rgba[..., 1], rgba[..., 3] = u * 255 / size, v * 255 / size, valid * 255
    return LayeredView(
        "plane-00000000-v000",
        rgba,
        valid.astype(np.uint8) * 2,
        depth * valid,
        K,
        np.eye(4),
        "object",
        Origin("plane", "test", "0" * 64),
    )


def as_view(view: LayeredView) -> View:
    return View(view.rgba, view.depth, view.valid, np.asarray(view.K))


STEPS = {
    "fit": augment.fit((64, 64), 48),
    "flip": augment.flip(64),
    "rotate": augment.rotate(0.3),
    "shear": augment.shear(0.1, 64),
    "aspect": augment.scale((1.1, 1 / 1.1), 64),
    "zoom in": augment.scale((1.5, 1.5), 64),
    "zoom out": augment.scale((0.6, 0.6), 64),
    "translate": augment.translate(np.array([5.3, -7.1])),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_moved_point_is_seen_where_its_pixel_went(name: str) -> None:
    """K' (S x) = A (K x) for points anywhere in front of the camera: the definition of a consistent (A, S)."""
    A, S = STEPS[name](K)
    points = np.random.default_rng(0).uniform([-1, -1, 0.5], [1, 1, 4], (100, 3))
    pixels = points @ K.T
    pixels /= pixels[:, 2:]
    seen = (points @ S.T) @ augment.moved(K, A, S).T
    np.testing.assert_allclose(seen / seen[:, 2:], pixels @ A.T, atol=1e-9)
    assert np.allclose((points @ S.T)[:, 2], points[:, 2]), "z must not change"


@pytest.mark.parametrize("name", STEPS)
def test_warped_layers_lie_on_the_moved_planes(name: str) -> None:
    """After the warp XYZ is on its own pixel's ray and, within the nearest-pixel error, on the plane moved by S."""
    view = as_view(plane_view(mask="full"))
    size = 48 if name == "fit" else 64
    A, S = STEPS[name](K)
    warped = augment.warp(view, A, S, size)
    xyz = rays(warped.K, size, size)[None] * warped.depth[..., None]
    projected = xyz[:, warped.valid] @ warped.K.T
    v, u = np.nonzero(warped.valid)
    np.testing.assert_allclose(projected[..., 0] / projected[..., 2], np.broadcast_to(u + 0.5, projected.shape[:2]))
    np.testing.assert_allclose(projected[..., 1] / projected[..., 2], np.broadcast_to(v + 0.5, projected.shape[:2]))
    assert warped.valid.mean() > 0.3
    for layer, (*n, d) in enumerate(PLANES):
        on_plane = xyz[layer][warped.valid] @ (S @ np.array(n))
        # half a source pixel is 0.5/66 of a ray; times the slope and the depth of the planes, below 1 %
        np.testing.assert_allclose(on_plane, d, rtol=0.01)


def test_evaluation_at_the_own_size_changes_nothing() -> None:
    view = plane_view()
    target = augment.prepare(view, 2, 64, Augment(), None)
    np.testing.assert_allclose(target.xyz, view.xyz(), rtol=1e-6)
    assert np.array_equal(target.xyz[..., 2], view.xyz()[..., 2])
    assert np.array_equal(target.valid, view.valid)
    np.testing.assert_allclose(target.rgb * 255, view.rgba[..., :3].transpose(2, 0, 1) * view.valid, atol=1e-4)


def test_flipping_twice_is_the_identity() -> None:
    view = as_view(plane_view(mask="full"))
    once = augment.warp(view, *augment.flip(64)(view.K), 64)
    assert np.array_equal(once.depth, view.depth[:, :, ::-1])
    twice = augment.warp(once, *augment.flip(64)(once.K), 64)
    for name in ("rgba", "depth", "valid"):
        assert np.array_equal(getattr(twice, name), getattr(view, name)), name
    np.testing.assert_allclose(twice.K, view.K)


def test_colour_and_layers_move_together() -> None:
    """Red encodes u of the source: the colour found at a pixel must name the source pixel whose depth it carries."""
    view = as_view(plane_view(mask="full"))
    A, S = STEPS["rotate"](K)
    warped = augment.warp(view, A, S, 64)
    inner = warped.rgba[..., 3] == 255
    source = np.linalg.inv(A) @ np.stack([*(np.mgrid[0:64, 0:64][::-1] + 0.5).reshape(2, -1), np.ones(4096)])
    expected = source[0].reshape(64, 64)[inner]
    assert np.abs(warped.rgba[..., 0][inner] / 255 * 64 - expected).max() < 1.0


def test_shrinking_averages_colour_but_never_depth() -> None:
    view = plane_view(mask="full")
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    rgba = view.rgba.copy()
    rgba[..., :3] = checker[..., None]
    depth = np.where(checker > 0, np.float32(1), np.float32(5))[None].repeat(2, 0)
    warped = augment.warp(View(rgba, depth, view.valid, K), *augment.fit((64, 64), 16)(K), 16)
    assert np.abs(warped.rgba[..., :3].astype(int) - 127).max() <= 2
    assert set(np.unique(warped.depth)) <= {1.0, 5.0}


def test_every_draw_is_consistent_and_replays() -> None:
    view = plane_view()
    for i in range(20):
        first, again = (augment.prepare(view, 6, 56, Augment(), generator(3, "augment", i)) for _ in range(2))
        for name in ("rgb", "xyz", "valid", "weight", "K"):
            assert np.array_equal(getattr(first, name), getattr(again, name)), name
        assert first.xyz.shape == (6, 56, 56, 3)
        assert first.rgb.dtype == first.xyz.dtype == np.float32
        assert first.rgb.min() >= 0
        assert first.rgb.max() <= 1
        v, u = np.nonzero(first.valid)
        projected = first.xyz[0, v, u] @ first.K.T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], np.stack([u, v], 1) + 0.5, atol=1e-3)
        assert not first.weight[~first.valid].any()
        assert not first.xyz[:, ~first.valid].any()
    other = augment.prepare(view, 6, 56, Augment(), generator(3, "augment", 99))
    assert not np.array_equal(other.rgb, first.rgb)


def test_a_draw_that_loses_the_object_is_not_used() -> None:
    view = as_view(plane_view())
    config = Geometric(shift=1.0, zoom=(2.0, 3.0), keep=0.9)
    for i in range(20):
        A, _ = augment.draw_geometry(view, 64, config, generator(0, i))
        assert augment.kept(view.valid, A, 64) >= 0.9


def test_missing_layers_repeat_the_last_one() -> None:
    target = augment.prepare(plane_view(), 4, 64, Augment(), None)
    assert np.array_equal(target.xyz[1], target.xyz[3])
    assert not np.array_equal(target.xyz[0], target.xyz[1])


def test_jittered_mask_borrows_the_nearest_layers_at_reduced_weight() -> None:
    view = plane_view()
    config = MaskJitter(probability=1, radius=0.08, boundary=0.02)
    grown = shrunk = 0
    for i in range(30):
        valid, weight, source = augment.jitter_mask(view.valid, config, generator(0, i))
        new, lost = valid & ~view.valid, view.valid & ~valid
        grown, shrunk = grown + int(new.sum()), shrunk + int(lost.sum())
        assert (weight[new] == np.float32(config.weight)).all()
        assert (weight[valid & view.valid] == 1).all()
        assert not weight[~valid].any()
        assert view.valid[source[0], source[1]][valid].all(), "a pseudo-label must come from a valid pixel"
        own = np.indices(valid.shape)
        assert np.array_equal(source[:, ~new], own[:, ~new])
        for v, u in zip(*np.nonzero(new)):  # brute-force nearest
            vs, us = np.nonzero(view.valid)
            best = np.hypot(vs - v, us - u).min()
            assert math.isclose(np.hypot(source[0, v, u] - v, source[1, v, u] - u), best)
    assert grown > 100
    assert shrunk > 100


def test_what_leaves_the_mask_leaves_the_image_and_nothing_else_does() -> None:
    """Only the mask is jittered: a translucent patch outside it stays visible, pixels that were dropped do not."""
    view = plane_view()
    view.rgba[2:8, 2:8] = (255, 255, 255, 100)  # no surface there
    still = Geometric(flip=0, zoom=(1, 1), shift=0, rotate=0, aspect=0, shear=0)
    zero = Photometric(**dict.fromkeys(Photometric.model_fields, 0.0))
    config = Augment(geometric=still, photometric=zero, mask=MaskJitter(probability=1, radius=0.08))
    plain = augment.prepare(view, 2, 64, config, None)
    lost = 0
    for i in range(20):
        target = augment.prepare(view, 2, 64, config, generator(0, i))
        dropped = view.valid & ~target.valid
        lost += int(dropped.sum())
        assert not target.rgb[:, dropped].any()
        np.testing.assert_allclose(target.rgb[:, 2:8, 2:8], 100 / 255, atol=1e-6)
        both = view.valid & target.valid
        np.testing.assert_allclose(target.rgb[:, both], plain.rgb[:, both], atol=1e-6)
    assert lost > 100


def test_mask_jitter_drops_thin_structures_and_closes_holes() -> None:
    valid = np.zeros((64, 64), bool)
    valid[20:50, 20:50] = True
    valid[5:20, 30] = True  # a wire
    valid[35, 35] = False  # a hole
    config = MaskJitter(probability=1, radius=0.02, boundary=0, thin=1, holes=1)
    drawn = [augment.jitter_mask(valid, config, generator(0, i))[0] for i in range(20)]
    assert all(not d[5:15, 30].any() for d in drawn)
    assert any(d[35, 35] for d in drawn)


def test_photometry_at_zero_strength_is_the_identity() -> None:
    zero = Photometric(**dict.fromkeys(Photometric.model_fields, 0.0))
    rgb = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    np.testing.assert_allclose(augment.photometric(rgb, zero, generator(0)), rgb, atol=1e-6)


def test_photometric_operations_do_what_they_say() -> None:
    rgb = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32) * 0.4 + 0.2
    grey = rgb.mean(-1, keepdims=True)
    np.testing.assert_allclose(augment.hue_saturation(rgb, 0.0, 0.0), np.broadcast_to(grey, rgb.shape), atol=1e-6)
    np.testing.assert_allclose(augment.hue_saturation(rgb, 1 / 3, 1.0), rgb[..., [2, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(augment.exposure(rgb, 1.0) ** 2.2, np.minimum(2 * rgb**2.2, 1), rtol=1e-4)
    assert augment.contrast(rgb, 1.5).std() == pytest.approx(1.5 * rgb.std(), rel=1e-4)
    assert augment.blur(rgb, 1.0).std() < rgb.std() < augment.sharpen(rgb, 1.0).std()
    assert np.abs(augment.jpeg(rgb, 95) - rgb).mean() < 0.1


def test_background_shows_only_where_alpha_lets_it() -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [255, 0, 0, 51]]], np.uint8)
    out = augment.composite(rgba, np.array([0, 1, 0], np.float32))
    np.testing.assert_allclose(out[0], [[1, 0, 0], [0, 1, 0], [0.2, 0.8, 0]], atol=1e-6)


@pytest.mark.parametrize("colour", [(0, 0, 0), (1, 1, 1), (0.3, 0.7, 0.1)])
@pytest.mark.parametrize("box", [(slice(0, 64), slice(0, 64)), (slice(7, 8), slice(5, 60)), (slice(9, 9), slice(0, 4))])
def test_planes_are_those_of_the_plain_composite(colour: tuple[float, ...], box: tuple[slice, slice]) -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    part = rgba[box]
    part[:] = np.random.default_rng(1).integers(0, 256, part.shape)
    part[..., 3] = np.where(part[..., 3] < 80, 0, part[..., 3])
    tint = np.array(colour, np.float32)
    expected = np.clip(augment.composite(rgba, tint), 0, 1).transpose(2, 0, 1)
    found = augment.composite_planes(rgba, tint)
    assert np.array_equal(found, expected)
    assert found.flags.c_contiguous


def test_without_augmentation_a_view_of_the_right_size_is_what_warping_by_nothing_gives() -> None:
    view = plane_view()
    target = augment.prepare(view, 2, 64, Augment(enabled=False, background="white"), generator(0))
    warped = augment.warp(as_view(view), np.eye(3), np.eye(3), 64)
    assert np.array_equal(target.rgb, augment.composite_planes(warped.rgba, np.ones(3, np.float32)))
    assert np.array_equal(target.depth, warped.depth)
    assert np.array_equal(target.valid, warped.valid)
    assert np.array_equal(target.weight, warped.valid.astype(np.float32))
    assert np.array_equal(target.K, warped.K)


def test_sparse_depth_is_neither_turned_nor_given_another_outline() -> None:
    """Where the camera is not turned, the points stay on the plane that they were on."""
    view = plane_view()
    sparse = replace(view, regime="rgbd", single_layer=True, info={"flags": ["sparse"]})
    config = Augment(geometric=Geometric(rotate=90, flip=0), mask=MaskJitter(probability=1))
    *normal, distance = PLANES[0]
    left = []
    for i in range(10):
        dense, still = (augment.prepare(v, 2, 64, config, generator(0, i)) for v in (view, sparse))
        assert set(np.unique(still.weight)) == {0, 1}
        off = [np.abs(t.xyz[0, t.weight == 1] @ np.array(normal) - distance).max() for t in (dense, still)]
        assert off[1] < 0.02  # half a pixel, times the slope of the plane
        left.append(off[0] > 0.04)
    assert sum(left) > 6


def test_a_photograph_keeps_what_its_depth_does_not_know() -> None:
    """A hole in measured depth is no outline: no pixel of the picture is painted over, and none gets its neighbour's
    depth. The same view as an object is given other outlines.
    """
    view = plane_view()
    view = replace(view, rgba=np.dstack([view.rgba[..., :3], np.full(view.hits.shape, 255, np.uint8)]))
    still = Geometric(flip=0, rotate=0, shear=0, aspect=0, zoom=(1, 1), shift=0)
    changed = 0
    for i in range(10):
        one, other = (
            augment.prepare(
                replace(view, regime="rgbd", single_layer=True),
                2,
                64,
                Augment(geometric=still, mask=MaskJitter(probability=probability)),
                generator(0, i),
            )
            for probability in (1, 0)
        )
        assert np.array_equal(one.valid, view.valid)
        assert np.array_equal(one.weight, view.valid.astype(np.float32))
        assert np.array_equal(one.depth, other.depth)
        assert np.array_equal(one.rgb, other.rgb)
        config = Augment(geometric=still, mask=MaskJitter(probability=1))
        changed += not np.array_equal(augment.prepare(view, 2, 64, config, generator(0, i)).valid, view.valid)
    assert changed > 5


def test_pillow_samples_at_pixel_centres() -> None:
    """`_warp_colour` relies on Image.transform mapping centres (u + 0.5): a shift by one pixel must be lossless."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    moved = Image.fromarray(pixels).transform(
        (8, 8), Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0), Image.Resampling.BILINEAR
    )
    assert np.array_equal(np.asarray(moved)[:, :7], pixels[:, 1:])
