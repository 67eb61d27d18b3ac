"""Masks: those given win over alpha; those found are near the truth, and are refused where none can be found."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.train.micro import disc, over
from train.prediction import masks
from train.prediction.masks import flood, masked


def overlap(found: np.ndarray, rgba: np.ndarray) -> float:
    a, b = found[..., 3] > 127, rgba[..., 3] > 127
    return float((a & b).sum() / (a | b).sum())


def test_a_mask_that_is_given_replaces_the_alpha(tmp_path: Path) -> None:
    rgba = disc()
    assert masked(rgba, None, "a")[1] == "its own alpha"
    assert masked(np.dstack([rgba[..., :3], np.full(rgba.shape[:2], 255, np.uint8)]), None, "a")[1] == ""
    mask = np.zeros(rgba.shape[:2], np.uint8)
    mask[3:9] = 200
    Image.fromarray(mask).save(tmp_path / "mask.png")
    cutout = np.dstack([np.full((*mask.shape, 3), 77, np.uint8), mask])  # a mask may be a cutout, too
    for given in (mask, mask / 255, tmp_path / "mask.png", str(tmp_path / "mask.png"), Image.fromarray(mask), cutout):
        got, how = masked(rgba, given, "a")
        assert how == "the mask given"
        assert np.array_equal(got[..., 3], mask)
        assert np.array_equal(got[..., :3], rgba[..., :3])
    with pytest.raises(ValueError, match=r"mask is 80x59, the image a.png is 80x60"):
        masked(rgba, mask[1:], "a.png")


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (128, 128, 128), (20, 180, 60)])
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_an_even_background_is_filled(colour: tuple[int, int, int], noise: float) -> None:
    rgba = disc(120, 160, (60, 80), 35)
    rng = np.random.default_rng(0)
    background = np.clip(np.array(colour) + noise * rng.normal(size=(120, 160, 3)), 0, 255)
    found = flood(over(rgba, background))
    assert overlap(found, rgba) > 0.98
    inner = np.asarray(Image.fromarray(rgba[..., 3]).point(lambda v: 255 * (v == 255))) > 0
    assert np.array_equal(found[inner][:, 3], rgba[inner][:, 3])
    rim = (rgba[..., 3] > 100) & (rgba[..., 3] < 200) & (found[..., 3] > 100)
    away = np.abs(found[rim][:, :3].astype(int) - [200, 0, 40]).min(axis=1)
    if noise == 0 and sum(colour):
        assert np.median(away) < 30  # the background's colour is taken out of the rim's


def test_a_hole_shows_the_background_and_a_spot_of_its_shade_does_not() -> None:
    ring = disc(120, 160, (60, 80), 40)
    hole = disc(120, 160, (60, 80), 15)
    ring[..., 3] = np.minimum(ring[..., 3], 255 - hole[..., 3])
    found = flood(over(ring, np.full(3, 200.0)))
    assert overlap(found, ring) > 0.97
    assert found[60, 80, 3] == 0
    solid = disc(120, 160, (60, 80), 40)
    solid[50:70, 70:90, :3] = 206  # within the tolerance, but not of the very colour
    assert flood(over(solid, np.full(3, 200.0)))[60, 80, 3] == 255


def test_a_large_picture_is_filled_at_a_smaller_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = disc(241, 323, (120, 160), 70)
    picture = rgba_over(over(rgba, np.full(3, 250.0)))
    monkeypatch.setattr(masks, "FLOOD_PIXELS", 9_000)  # a third of each side, which it does not divide
    got, _ = masked(picture, "flood", "a")
    assert got.shape == rgba.shape
    assert overlap(got, rgba) > 0.98
    assert np.array_equal(got[..., :3], picture[..., :3])


def test_an_object_may_touch_the_border_and_specks_are_no_objects() -> None:
    rgba = disc(120, 160, (60, 5), 40)
    picture = over(rgba, np.full(3, 240.0))
    picture[10, 150] = 0
    picture[100:102, 100] = 90
    found = flood(picture)
    assert overlap(found, rgba) > 0.97
    assert found[10, 150, 3] == 0


@pytest.mark.parametrize("case", ["noise", "gradient", "nothing", "all"])
def test_a_picture_without_an_even_background_is_refused(case: str) -> None:
    rgba = disc(120, 160, (60, 80), 35)
    rng = np.random.default_rng(0)
    background = {
        "noise": rng.uniform(0, 255, (120, 160, 3)),
        "gradient": np.repeat(np.linspace(0, 255, 160)[None, :, None], 120, axis=0) * np.ones(3),
    }.get(case, np.full(3, 90.0))
    picture = over(rgba, background)
    if case == "nothing":
        picture[:] = 90
    if case == "all":
        picture = np.pad(np.full((398, 398, 3), 250, np.uint8), ((1, 1), (1, 1), (0, 0)))
    with pytest.raises(ValueError, match="border") as raised:
        masked(rgba_over(picture), "flood", "photo.jpg")
    assert "photo.jpg: no mask found" in str(raised.value)
    assert "--mask MASK.png" in str(raised.value)


def rgba_over(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def test_rembg_is_used_where_it_is_and_its_network_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = disc()
    asked: list[object] = []
    fake = ModuleType("rembg")

    def remove(image: Image.Image, session: object, only_mask: bool) -> Image.Image:
        asked.append(session)
        assert only_mask
        assert image.mode == "RGB"
        return Image.fromarray(rgba[..., 3])

    fake.remove, fake.new_session = remove, object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rembg", fake)
    monkeypatch.setattr(masks, "_has_rembg", lambda: True)
    masks._session.cache_clear()
    for how in ("auto", "rembg"):
        got, said = masked(rgba_over(rgba[..., :3]), how, "a")
        assert np.array_equal(got, rgba)
        assert said == "rembg"
    assert asked[0] is asked[1]
    masks._session.cache_clear()

    def fails(*_: object, **__: object) -> None:
        raise SystemExit(1)  # as it does without a runtime

    fake.remove = fails  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="rembg failed"):
        masked(rgba_over(rgba[..., :3]), "rembg", "a")
    monkeypatch.setattr(masks, "_has_rembg", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'rembg\[cpu\]'"):
        masked(rgba_over(rgba[..., :3]), "rembg", "a")
