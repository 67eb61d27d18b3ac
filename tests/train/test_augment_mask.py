"""Silhouettes as other tools might have drawn them: what is in the mask, what it weighs, and whose layers it has."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from shards.randomness import generator
from tests.train.planes import plane_clip, plane_view
from train.config import MaskJitter
from train.data.augment import mask

ALWAYS = MaskJitter(probability=1, radius=0.06, boundary=0.02, thin=0.3, holes=0.3, pierced=0.3)
ONLY = {"radius": 0.0, "boundary": 0.0, "thin": 0.0, "holes": 0.0, "pierced": 0.0, "probability": 1.0}


def test_a_jittered_mask_borrows_the_nearest_layers_at_reduced_weight() -> None:
    view = plane_view()
    config = MaskJitter(probability=1, radius=0.08, boundary=0.02)
    grown = shrunk = 0
    for i in range(30):
        (drawn,) = mask.jitter([view.valid], config, generator(0, i))
        new, lost = drawn.valid & ~view.valid, view.valid & ~drawn.valid
        grown, shrunk = grown + int(new.sum()), shrunk + int(lost.sum())
        assert (drawn.weight[new] == np.float32(config.weight)).all()
        assert (drawn.weight[drawn.valid & view.valid] == 1).all()
        assert not drawn.weight[~drawn.valid].any()
        assert np.array_equal(drawn.gained, np.flatnonzero(new))
        assert view.valid.reshape(-1)[drawn.nearest].all(), "a pseudo-label must come from a valid pixel"
        depth = drawn.depth(view.depth)
        assert not depth[:, ~drawn.valid].any()
        assert np.array_equal(depth[:, drawn.valid & view.valid], view.depth[:, drawn.valid & view.valid])
        assert np.array_equal(depth[:, new], view.depth.reshape(2, -1)[:, drawn.nearest])
        vs, us = np.nonzero(view.valid)
        for pixel, nearest in zip(drawn.gained, drawn.nearest):  # brute force
            best = np.hypot(vs - pixel // 64, us - pixel % 64).min()
            assert math.isclose(np.hypot(nearest // 64 - pixel // 64, nearest % 64 - pixel % 64), best)
    assert grown > 100
    assert shrunk > 100


def jittered_plainly(valid: np.ndarray, config: MaskJitter, drawn: mask.Draw) -> np.ndarray:
    """The slow twin of the outline: distances and fields over the whole image, with room around it for the closing."""
    size = len(valid)
    radius = max(1, round(config.radius * size))
    signed = ndimage.distance_transform_edt(valid) - ndimage.distance_transform_edt(~valid)
    signed = np.where(valid, signed - 0.5, signed + 0.5)
    wobble = np.asarray(Image.fromarray(drawn.wobble).resize((size, size), Image.Resampling.BICUBIC))
    jittered = signed + (drawn.grow + wobble) * size > 0
    if drawn.drops_thin:
        jittered &= ndimage.binary_opening(valid, iterations=radius)
    if drawn.fills_holes:
        jittered |= ndimage.binary_closing(valid, iterations=radius) & ~valid
    rows, columns = (np.flatnonzero(valid.any(axis=axis)) for axis in (1, 0))
    v, u = np.mgrid[0:size, 0:size] + 0.5
    for down, across, r in drawn.pits:
        centre = (
            rows[0] + down * (rows[-1] + 1 - rows[0]),
            columns[0] + across * (columns[-1] + 1 - columns[0]),
        )
        jittered &= np.hypot(v - centre[0], u - centre[1]) >= r * size
    return np.asarray(jittered)


@pytest.mark.parametrize("place", ["middle", "corner", "wide"])
def test_an_outline_within_a_box_is_that_of_the_whole_image(place: str) -> None:
    valid = np.zeros((96, 96), bool)
    part = {"middle": valid[30:60, 40:70], "corner": valid[:40, 60:], "wide": valid[2:95, 3:94]}[place]
    part[:] = ndimage.gaussian_filter(np.random.default_rng(0).random(part.shape), 2) > 0.48
    changed = 0
    for i in range(40):
        drawn = mask.draw(ALWAYS, generator(0, i))
        assert drawn is not None
        expected = jittered_plainly(valid, ALWAYS, drawn)
        if expected.sum() < 0.5 * valid.sum():
            expected = valid
        (found,) = mask.jitter([valid], ALWAYS, generator(0, i))
        closed = MaskJitter(**{**ONLY, "radius": 0.06, "holes": 1.0})
        closing = mask.draw(closed, generator(0, i))
        assert closing is not None
        twin = jittered_plainly(valid, closed, closing)
        if twin.sum() >= 0.5 * valid.sum():
            assert np.array_equal(mask.jitter([valid], closed, generator(0, i))[0].valid, twin)
        # the field at a box's pixels differs by rounding from that of the image: at most a pixel in a thousand
        assert (found.valid != expected).sum() <= 2
        changed += int((found.valid != valid).sum())
    assert changed > 40 * 20


def test_the_frames_of_a_clip_share_the_draw() -> None:
    """Growth, the field of the outline and the pits: where silhouettes coincide, so do their outlines."""
    valid = plane_view().valid
    other = valid.copy()
    other[:20] = False
    for i in range(10):
        first, second, third = mask.jitter([valid, other, valid], ALWAYS, generator(0, i))
        assert np.array_equal(first.valid, third.valid)
        assert np.array_equal(first.valid[34:], second.valid[34:]), "far from where they differ"
        alone = mask.jitter([valid], ALWAYS, generator(0, i))[0]
        assert np.array_equal(alone.valid, first.valid)


def test_a_clip_keeps_or_loses_its_outlines_together() -> None:
    """Erosion would leave nothing of the small silhouette and most of the large one: what counts is their sum."""
    large, small = np.zeros((2, 64, 64), bool)
    large[10:54, 10:54] = small[30:33, 30:33] = True
    config = MaskJitter(**{**ONLY, "radius": 0.1})
    vanished = 0
    for i in range(30):
        both = mask.jitter([large, small], config, generator(0, i))
        vanished += not both[1].valid.any()
        assert mask.jitter([small], config, generator(0, i))[0].valid.any()
        changed = [not np.array_equal(one.valid, was) for one, was in zip(both, (large, small))]
        assert changed[0] or not changed[1]
    assert vanished > 5


def test_thin_structures_are_dropped_and_holes_are_filled() -> None:
    valid = np.zeros((64, 64), bool)
    valid[20:50, 20:50] = True
    valid[5:20, 30] = True  # a wire
    valid[35, 35] = False  # a hole
    config = MaskJitter(probability=1, radius=0.02, boundary=0, thin=1, holes=1, pierced=0)
    drawn = [mask.jitter([valid], config, generator(0, i))[0].valid for i in range(20)]
    assert all(not d[5:15, 30].any() for d in drawn)
    assert all(d[35, 35] for d in drawn)


def test_small_holes_are_pierced_and_nothing_else_changes() -> None:
    valid = np.zeros((200, 200), bool)
    valid[40:160, 30:170] = True
    config = MaskJitter(**{**ONLY, "radius": 0.02, "pierced": 1.0})
    sizes, holes = [], []
    for i in range(30):
        drawn = mask.draw(config, generator(0, i))
        assert drawn is not None
        level = mask.Draw(0.0, drawn.wobble, False, False, drawn.pits)
        (found,) = mask.jitter([valid], config, generator(0, i))
        lost = valid & ~jittered_plainly(valid, config, level)
        assert not (lost & found.valid).any(), "every pit is a hole, whatever the outline does"
        labels, count = ndimage.label(lost)
        holes.append(count)
        sizes += ndimage.sum_labels(lost, labels, range(1, count + 1)).tolist()
    assert min(holes) >= 1
    assert max(holes) <= mask.PITS
    assert max(sizes) <= mask.PITS * math.pi * (1.5 * 0.02 * 200 + 1) ** 2
    assert np.median(sizes) >= math.pi * (0.5 * 0.02 * 200 - 1) ** 2


def test_an_outline_moves_by_what_the_settings_say() -> None:
    """Dilation and erosion by at most `radius`, a wobble of deviation `boundary`: a half plane shows both."""
    valid = np.zeros((256, 256), bool)
    valid[:, :128] = True
    moved = []
    for i in range(60):
        (drawn,) = mask.jitter([valid], MaskJitter(**{**ONLY, "radius": 0.05}), generator(0, i))
        edge = drawn.valid.sum(axis=1) - 128
        assert edge.min() == edge.max()
        moved.append(edge[0] / 256)
    assert np.abs(moved).max() <= 0.05 + 0.5 / 256
    assert np.std(moved) == pytest.approx(0.05 / math.sqrt(3), rel=0.25)
    wobbles = [
        mask.jitter([valid], MaskJitter(**{**ONLY, "boundary": 0.02}), generator(1, i))[0].valid.sum(axis=1) / 256 - 0.5
        for i in range(30)
    ]
    assert np.std(wobbles) == pytest.approx(0.02, rel=0.25)


def test_an_outline_is_the_same_at_196_and_504() -> None:
    """The numbers are drawn in parts of the image side: the two stages of training see one outline."""
    config = MaskJitter(probability=1, radius=0.04, boundary=0.02, pierced=1, thin=0, holes=0)
    agree = []
    for i in range(8):
        masks = []
        for size in (196, 504):
            v, u = (np.mgrid[0:size, 0:size] + 0.5) / size
            valid = np.hypot(u - 0.5, v - 0.45) < 0.3
            (drawn,) = mask.jitter([valid], config, generator(0, i))
            masks.append(drawn.valid ^ valid)
        small = np.asarray(Image.fromarray(masks[1]).resize((196, 196), Image.Resampling.NEAREST))
        agree.append((small & masks[0]).sum() / max(1, (small | masks[0]).sum()))
    assert np.median(agree) > 0.75


def test_what_has_no_outline_stays_as_it_is() -> None:
    for valid in (np.zeros((32, 32), bool), np.ones((32, 32), bool)):
        (drawn,) = mask.jitter([valid], ALWAYS, generator(0))
        assert np.array_equal(drawn.valid, valid)
        assert np.array_equal(drawn.weight, valid.astype(np.float32))
    (drawn,) = mask.jitter([plane_view().valid], MaskJitter(probability=0), generator(0))
    assert np.array_equal(drawn.valid, plane_view().valid)
    frames = [frame.valid for frame in plane_clip(2).frames]
    assert [d.valid.any() for d in mask.jitter([frames[0], frames[1] & False], ALWAYS, generator(0))] == [True, False]
