"""What a sample becomes: image, layers, camera and mask change together, seeded per sample."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from shards.randomness import generator
from tests.train.planes import PLANES, as_view, plane_clip, plane_view
from train.config import Augment, Geometric, MaskJitter, Photometric
from train.data import augment
from train.data.augment import compositing, geometry, photometric, target

STILL = Geometric(flip=0, zoom=(1, 1), shift=0, rotate=0, aspect=0, shear=0)
PLAIN = Photometric(**dict.fromkeys(Photometric.model_fields, 0.0))


def test_evaluation_at_the_own_size_changes_nothing() -> None:
    view = plane_view()
    target = augment.prepare(view, 2, 64, Augment(), None)
    np.testing.assert_allclose(target.xyz, view.xyz(), rtol=1e-6)
    assert np.array_equal(target.xyz[..., 2], view.xyz()[..., 2])
    assert np.array_equal(target.valid, view.valid)
    np.testing.assert_allclose(target.rgb * 255, view.rgba[..., :3].transpose(2, 0, 1) * view.valid, atol=1e-4)


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


def test_missing_layers_repeat_the_last_one() -> None:
    target = augment.prepare(plane_view(), 4, 64, Augment(), None)
    assert np.array_equal(target.xyz[1], target.xyz[3])
    assert not np.array_equal(target.xyz[0], target.xyz[1])


@pytest.mark.parametrize("enabled", [True, False])
def test_a_clip_of_one_frame_is_the_view(enabled: bool) -> None:
    config = Augment(enabled=enabled, background="random")
    for i in range(5):
        alone = augment.prepare(plane_view(), 6, 56, config, generator(3, i))
        (clip,) = augment.prepare_clip([plane_view()], 6, 56, config, generator(3, i))
        for name in ("rgb", "depth", "valid", "weight", "K"):
            assert np.array_equal(getattr(alone, name), getattr(clip, name)), name


def test_the_first_frame_of_a_clip_is_changed_as_a_view_is() -> None:
    """Where no draw is rejected, the number of frames moves none: neither of geometry, nor mask, nor colour."""
    config = Augment(geometric=Geometric(keep=0), mask=MaskJitter(probability=1), background="random")
    clip = plane_clip(3).frames
    for i in range(8):
        one = augment.prepare(clip[0], 2, 56, config, generator(3, i))
        several = augment.prepare_clip(clip, 2, 56, config, generator(3, i))
        assert np.array_equal(one.K, several[0].K)
        both = (one.weight == 1) & (several[0].weight == 1)
        assert np.array_equal(one.depth[:, both], several[0].depth[:, both])
        same = one.valid == several[0].valid  # pits lie in the box of all frames
        assert same.mean() > 0.95
        first, _, last = (t.rgb[:, 0, 0] for t in several)
        assert np.array_equal(first, last), "one background"


def test_photometry_drifts_mildly_over_a_clip() -> None:
    """Values stay near those of the first frame, within their range; noise is each frame's own, quality is shared."""
    config = Photometric(noise=1, jpeg=1, blur=1)
    for i in range(20):
        looks = photometric.draw(config, 16, generator(0, i))
        (alone,) = photometric.draw(config, 1, generator(0, i))
        assert looks[0] == alone
        assert len({(look.quality, look.blur, look.noise, look.sharpen) for look in looks}) == 1
        assert len({(look.key_low, look.key_high) for look in looks}) == 16
        stops = np.array([look.exposure for look in looks])
        assert np.abs(stops).max() <= config.exposure
        assert np.abs(stops - stops[0]).max() <= 2 * config.drift * config.exposure + 1e-12
        assert 0 < np.abs(np.diff(stops)).max() <= config.drift * config.exposure * 2 * np.pi / 8
    steady = photometric.draw(config.model_copy(update={"drift": 0.0}), 4, generator(0))
    assert len({look[:9] for look in steady}) == 1


def test_the_two_stages_of_training_see_the_same_changes() -> None:
    """196 and 504 pixels: the same flip, turn and crop, the same colours; K differs by the scale alone."""
    view = plane_view(504, np.array([[500.0, 0, 250], [0, 500, 255], [0, 0, 1]]))
    config = Augment(mask=MaskJitter(probability=1), background="random")
    for i in range(6):
        small, large = (
            augment.prepare_clip([view], 2, size, config, generator(0, i), deferred=True)[0] for size in (196, 504)
        )
        np.testing.assert_allclose(small.K, np.diag([196 / 504, 196 / 504, 1]) @ large.K, atol=1e-9)
        assert small.look is not None
        assert large.look is not None
        assert small.look[:-4] == large.look[:-4]
        assert abs(small.valid.mean() - large.valid.mean()) < 0.01


@pytest.mark.parametrize("background", ["black", "random"])
def test_deferred_photometry_gives_the_same_image(background: str) -> None:
    defects = Photometric(blur=0.5, sharpen=0.5, noise=0.5, jpeg=0.5)
    config = Augment(background=background, photometric=defects)  # type: ignore[arg-type]
    for i in range(12):
        now = augment.prepare(plane_view(), 2, 70, config, generator(0, i))
        (later,) = augment.prepare_clip([plane_view()], 2, 70, config, generator(0, i), deferred=True)
        assert later.shown is not None
        assert later.look is not None
        assert not np.array_equal(now.rgb, later.rgb)
        (look,) = photometric.unpacked(photometric.packed([later.look]))
        found = photometric.finished(torch.from_numpy(later.rgb), torch.from_numpy(later.shown), look)
        assert np.array_equal(found.numpy(), now.rgb)
        outside = now.rgb[:, ~later.shown]
        assert (outside == np.array(look[-7:-4], np.float32)[:, None]).all(), "the background is exact"


def test_what_leaves_the_mask_leaves_the_image_and_nothing_else_does() -> None:
    """Only the mask is jittered: a translucent patch outside it stays visible, pixels that were dropped do not."""
    view = plane_view()
    view.rgba[2:8, 2:8] = (255, 255, 255, 100)  # no surface there
    config = Augment(geometric=STILL, photometric=PLAIN, mask=MaskJitter(probability=1, radius=0.08))
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


def test_background_shows_only_where_alpha_lets_it() -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [255, 0, 0, 51]]], np.uint8)
    out = augment.composite(rgba, np.array([0, 1, 0], np.float32))
    np.testing.assert_allclose(out[0], np.array([[1, 0, 0], [0, 1, 0], [0.2, 0.8, 0]]), atol=1e-6)


@pytest.mark.parametrize("colour", [(0, 0, 0), (1, 1, 1), (0.3, 0.7, 0.1)])
@pytest.mark.parametrize("box", [(slice(0, 64), slice(0, 64)), (slice(7, 8), slice(5, 60)), (slice(9, 9), slice(0, 4))])
def test_planes_are_those_of_the_plain_composite(colour: tuple[float, ...], box: tuple[slice, slice]) -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    part = rgba[box]
    part[:] = np.random.default_rng(1).integers(0, 256, part.shape)
    part[..., 3] = np.where(part[..., 3] < 80, 0, part[..., 3])
    tint = np.array(colour, np.float32)
    expected = np.clip(augment.composite(rgba, tint), 0, 1).transpose(2, 0, 1)
    found = compositing.composite_planes(rgba, tint)
    assert np.array_equal(found, expected)
    assert found.flags.c_contiguous


def test_without_augmentation_a_view_of_the_right_size_is_what_warping_by_nothing_gives() -> None:
    view = plane_view()
    target = augment.prepare(view, 2, 64, Augment(enabled=False, background="white"), generator(0))
    warped = geometry.warp(as_view(view), np.eye(3), np.eye(3), 64)
    assert np.array_equal(target.rgb, compositing.composite_planes(warped.rgba, np.ones(3, np.float32)))
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
    changed = 0
    for i in range(10):
        one, other = (
            augment.prepare(
                replace(view, regime="rgbd", single_layer=True),
                2,
                64,
                Augment(geometric=STILL, mask=MaskJitter(probability=probability)),
                generator(0, i),
            )
            for probability in (1, 0)
        )
        assert np.array_equal(one.valid, view.valid)
        assert np.array_equal(one.weight, view.valid.astype(np.float32))
        assert np.array_equal(one.depth, other.depth)
        assert np.array_equal(one.rgb, other.rgb)
        config = Augment(geometric=STILL, mask=MaskJitter(probability=1))
        changed += not np.array_equal(augment.prepare(view, 2, 64, config, generator(0, i)).valid, view.valid)
    assert changed > 5


def test_no_purpose_shares_its_numbers_with_another() -> None:
    config = Augment(background="random", geometric=Geometric(flip=0), mask=MaskJitter(probability=1, boundary=0))
    drawn = []
    for i in range(60):
        (made,) = augment.prepare_clip([plane_view()], 2, 64, config, generator(0, i), deferred=True)
        assert made.look is not None
        drawn.append([made.look.exposure, made.look.gain_r, made.look.red, made.look.green, made.K[0, 1], made.K[0, 2]])
    related = np.abs(np.corrcoef(np.array(drawn).T) - np.eye(6))
    assert related.max() < 0.5


def test_the_rim_of_what_left_the_mask_leaves_the_image_with_it() -> None:
    """The slow twin dilates the whole image."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        valid, now = (ndimage.gaussian_filter(rng.random((40, 50)), 2) > 0.5 for _ in range(2))
        opaque = ndimage.binary_dilation(valid, iterations=2)
        cut = ndimage.binary_dilation(valid & ~now) & ~now
        assert np.array_equal(target._shown(opaque, valid, now), opaque & ~cut)
    assert target._shown(opaque, valid, valid) is opaque
