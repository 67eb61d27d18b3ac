"""Framing: where the object lands, what happens to its colours, and what bad input is told."""

import numpy as np
import pytest

from train.prediction.framing import frame_object, frame_objects, frame_scene


def picture(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A red rectangle (top, bottom, left, right) on transparent green."""
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[..., 1] = 255
    top, bottom, left, right = box
    rgba[top:bottom, left:right] = (200, 0, 0, 255)
    return rgba


@pytest.mark.parametrize("box", [(10, 50, 30, 50), (0, 40, 0, 20), (60, 100, 60, 120)])
def test_an_object_fills_two_thirds_and_is_centred_wherever_it_was(box: tuple[int, int, int, int]) -> None:
    framed = frame_object(picture(100, 120, box), 84)
    rows, columns = np.nonzero(framed.valid)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(56, abs=1)
    assert rows.mean() == pytest.approx(41.5, abs=0.5)
    assert columns.mean() == pytest.approx(41.5, abs=0.5)
    corner = framed.framed_from_image @ np.array([box[2], box[0], 1.0])
    assert corner[:2] == pytest.approx([columns.min(), rows.min()], abs=1.0)


def test_transparent_colour_does_not_bleed_into_the_object() -> None:
    framed = frame_object(picture(100, 120, (13, 51, 31, 50)), 70)
    shown = framed.rgba[framed.rgba[..., 3] > 8]
    assert shown[:, 1].max() <= 2  # the green lies under alpha 0


def test_a_scene_keeps_its_aspect_in_whole_patches() -> None:
    rgba = np.full((300, 400, 4), 255, np.uint8)
    framed = frame_scene(rgba, 112, 14)
    assert framed.rgba.shape == (84, 112, 4)
    assert framed.valid.all()
    centre = framed.framed_from_image @ np.array([200, 150, 1.0])
    assert centre[:2] == pytest.approx([56, 42])


@pytest.mark.parametrize("longer", [1440, 3000, 4032, 6000])
def test_a_scene_loses_no_patch_to_rounding(longer: int) -> None:
    for size in (112, 196, 504):
        assert frame_scene(np.zeros((30, longer, 4), np.uint8), size, 14).rgba.shape[1] == size


def test_an_empty_mask_is_an_error() -> None:
    with pytest.raises(ValueError, match="mask is empty"):
        frame_object(np.zeros((8, 8, 4), np.uint8), 28)


def test_frames_of_a_clip_are_framed_alike_around_all_that_they_show() -> None:
    boxes = [(10, 40, 10, 40), (20, 60, 50, 90), (0, 0, 0, 0)]
    framed = frame_objects([picture(100, 120, box) for box in boxes], 84)
    alone = frame_object(picture(100, 120, (10, 60, 10, 90)), 84)  # the box around both
    for each in framed:
        assert np.array_equal(each.framed_from_image, alone.framed_from_image)
    assert not (framed[0].valid & framed[1].valid).any()
    assert not framed[2].valid.any()
    with pytest.raises(ValueError, match="frame 1 is 120x90, the first one 120x100"):
        frame_objects([picture(100, 120, boxes[0]), picture(90, 120, boxes[0])], 84)


def test_a_large_picture_is_framed_as_its_reduction_is() -> None:
    rng = np.random.default_rng(0)
    small = np.kron(rng.integers(0, 255, (20, 30, 3), np.uint8), np.ones((3, 3, 1), np.uint8))
    rgba = np.dstack([small, np.full(small.shape[:2], 255, np.uint8)])
    rgba[:9, :, 3] = rgba[50:, :, 3] = 0
    large = np.kron(rgba, np.ones((16, 16, 1), np.uint8))  # 960 x 1440: averaged by whole factors first
    one, other = frame_object(rgba, 56), frame_object(large, 56)
    assert np.allclose(one.framed_from_image @ np.diag([1 / 16, 1 / 16, 1]), other.framed_from_image)
    assert (one.valid == other.valid).mean() > 0.98
    both = one.valid & other.valid
    assert np.abs(one.rgba.astype(int) - other.rgba)[both].mean() < 12  # BOX counts whole pixels, at either size


@pytest.mark.parametrize("box", [(50, 51, 60, 61), (0, 1, 0, 1), (0, 100, 0, 120), (0, 100, 60, 65)])
def test_extremes_of_objects_are_framed(box: tuple[int, int, int, int]) -> None:
    framed = frame_object(picture(100, 120, box), 28)
    assert framed.rgba.shape == (28, 28, 4)
    assert framed.valid.any()
    side = max(box[1] - box[0], box[3] - box[2])
    rows, columns = np.nonzero(framed.valid)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(28 * 2 / 3, abs=3)
    assert framed.framed_from_image[0, 0] == pytest.approx(28 * 2 / 3 / side)


def test_an_enlarged_picture_is_interpolated() -> None:
    rgba = np.zeros((10, 10, 4), np.uint8)
    rgba[..., 0] = np.arange(0, 100, 10)[None]
    rgba[..., 3] = 255
    shown = frame_scene(rgba, 70, 14).rgba[35, :, 0].astype(int)
    assert len(np.unique(shown)) > 30  # ten steps would be ten values
    assert (np.diff(shown) >= 0).all()
    assert (frame_scene(rgba, 70, 14).rgba[..., 3] == 255).all()  # nothing from beyond its edge is mixed in


def test_a_stretched_scene_shows_all_of_the_picture() -> None:
    rgba = np.full((300, 400, 4), 255, np.uint8)
    framed = frame_scene(rgba, 112, 14, stretch=True)
    assert framed.rgba.shape == (112, 112, 4)
    for corner, there in (((0, 0), (0, 0)), ((400, 300), (112, 112))):
        assert (framed.framed_from_image @ np.array([*corner, 1.0]))[:2] == pytest.approx(there)
