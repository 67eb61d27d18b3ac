"""Framing: where the object lands, what happens to its colours, and what bad input is told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.prediction.framing import frame_object, frame_scene, read_image


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


def test_reading(tmp_path: Path) -> None:
    rgba = picture(20, 30, (5, 15, 5, 15))
    Image.fromarray(rgba).save(tmp_path / "a.png")
    read, masked = read_image(tmp_path / "a.png")
    assert masked
    assert np.array_equal(read, rgba)
    Image.fromarray(rgba[..., :3]).save(tmp_path / "b.png")
    assert not read_image(tmp_path / "b.png")[1]
    Image.fromarray(rgba[..., 3]).save(tmp_path / "mask.png")
    assert np.array_equal(read_image(tmp_path / "b.png", tmp_path / "mask.png")[0], rgba)
    Image.fromarray(rgba[:10, :, 3]).save(tmp_path / "short.png")
    with pytest.raises(ValueError, match="30x10"):
        read_image(tmp_path / "b.png", tmp_path / "short.png")
    Image.fromarray(rgba[..., :3]).save(tmp_path / "turned.jpg", exif=_turned())
    assert read_image(tmp_path / "turned.jpg")[0].shape == (30, 20, 4)
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / "all.png")
    assert read_image(tmp_path / "b.png", tmp_path / "all.png")[1]
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match="not a readable image"):
        read_image(tmp_path / "text.png")


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90 degrees
    return exif
