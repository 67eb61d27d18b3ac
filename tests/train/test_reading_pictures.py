"""Pictures of every mode are read as the same colours; what cannot be read is told in a sentence, before memory is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.prediction import reading
from train.prediction.reading import name_of, rgba_of

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12


def opaque(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def test_arrays_of_all_kinds_are_the_same_picture() -> None:
    expected = opaque(RGB)
    for array in (
        RGB,
        RGB / 255,
        (RGB / 255).astype(np.float32),
        RGB.astype(np.uint16) * 257,
        expected,
        expected / 255,
    ):
        assert np.array_equal(rgba_of(array), expected)
    grey = opaque(np.repeat(GREY[..., None], 3, axis=2))
    for array in (GREY, GREY[..., None], GREY / 255):
        assert np.array_equal(rgba_of(array), grey)
    assert np.array_equal(rgba_of(GREY > 100)[..., 0], np.where(GREY > 100, 255, 0))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (RGB.astype(np.float32), "floats from 0 to 236"),
        (np.full((2, 2, 3), np.nan), "floats from nan"),
        (RGB.astype(np.int32), "array of int32"),
        (RGB[None], r"shape \(1, 4, 5, 3\)"),
        (RGB[..., :2], r"shape \(4, 5, 2\)"),
        (RGB[:0], "nothing to see"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(array: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rgba_of(array)


def test_every_mode_of_a_file_is_read(tmp_path: Path) -> None:
    grey3 = np.repeat(GREY[..., None], 3, axis=2)
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray((GREY / 255).astype(np.float32)).save(tmp_path / "float.tiff")
    for name in ("grey.png", "sixteen.png", "float.tiff"):
        assert np.array_equal(rgba_of(tmp_path / name), opaque(grey3)), name
    palette = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5), "P")
    palette.putpalette([value for k in range(20) for value in (k, 2 * k, 255 - k)])
    palette.save(tmp_path / "palette.png", transparency=7)
    read = rgba_of(tmp_path / "palette.png")
    assert read[0, 3].tolist() == [3, 6, 252, 255]
    assert (read[..., 3] == 0).sum() == 1
    Image.fromarray(RGB).save(tmp_path / "keyed.png", transparency=tuple(int(c) for c in RGB[2, 2]))
    assert np.argwhere(rgba_of(tmp_path / "keyed.png")[..., 3] == 0).tolist() == [[2, 2]]
    flat = np.full((16, 16, 3), (250, 10, 10), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(rgba_of(tmp_path / "cmyk.jpg").astype(int) - opaque(flat)).max() <= 6
    Image.fromarray(GREY > 100).save(tmp_path / "bits.png")
    assert set(np.unique(rgba_of(tmp_path / "bits.png")[..., :3])) == {0, 255}
    both = np.dstack([GREY, GREY])
    Image.fromarray(both, "LA").save(tmp_path / "la.png")
    assert np.array_equal(rgba_of(tmp_path / "la.png")[..., 3], GREY)


def test_a_pil_image_is_turned_upright_and_has_a_name(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert np.array_equal(rgba_of(image), rgba_of(tmp_path / "turned.png"))
        assert name_of(image) == "turned.png" == name_of(tmp_path / "turned.png")
    assert np.array_equal(rgba_of(tmp_path / "turned.png")[..., :3], np.rot90(RGB, -1))
    assert name_of(RGB) == name_of(Image.fromarray(RGB)) == "image"


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(RGB).save(tmp_path / "large.png")
    (tmp_path / "large.png").write_bytes((tmp_path / "large.png").read_bytes()[:60])  # the size, and no pixel
    monkeypatch.setattr(reading, "MAX_PIXELS", 19)
    with pytest.raises(ValueError, match=r"large.png: 5x4 pixels; at most 19 are read"):
        rgba_of(tmp_path / "large.png")


def test_what_is_no_picture_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    for path, error, said in (
        (tmp_path / "none.png", FileNotFoundError, "no such image"),
        (tmp_path / "text.png", ValueError, "not a readable image"),
        (tmp_path, ValueError, "not a file"),
    ):
        with pytest.raises(error, match=said) as raised:
            rgba_of(path)
        assert str(path) in str(raised.value)
    Image.fromarray(RGB).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:50])
    with pytest.raises(ValueError, match="not a readable image"):
        rgba_of(tmp_path / "cut.png")


def test_a_program_that_calls_itself_a_picture_is_not_run(tmp_path: Path) -> None:
    """PIL gives PostScript to Ghostscript, if it is there."""
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "photo.png").write_text(text)
    with pytest.raises(ValueError, match=r"photo\.png: not a readable image \(cannot identify"):
        rgba_of(tmp_path / "photo.png")
