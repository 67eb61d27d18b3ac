"""The viewer as people meet it: in headless Chromium, by what is on the page and in the picture."""

import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shards
from shards import encode, write_dataset_json, write_manifest, write_shard
from shards.viewer import Predictions, serve
from tests.shards.chromium import browser, messages
from tests.shards.scenes import spheres_clip, spheres_view

pytest.importorskip("viser", reason="the extra `view` is not installed")

HOSTILE = "<img src=x onerror=\"document.title='owned'\">**bold** {1+1}"
PANEL = 480  # pixels at the right of the window that may be controls
SAME = 4000  # pixels of 446,400: on a slow machine viser's client draws coarser for a while, which moves edges
NOTICE = 180  # pixels at its top that may be notices


def make(root: Path, seed: int = 0) -> Path:
    """Three views, of which the second is of a hostile name, a clip, and a damaged view."""
    views = [spheres_view(i, 64, 64, key=f"view-{i}") for i in (0, 1, 2)]
    views[1] = replace(views[1], origin=replace(views[1].origin, uid=HOSTILE, licence=HOSTILE))
    broken = spheres_view(9, 64, 64, key="wreck")
    samples = [*views, spheres_clip(3, height=64, width=64), broken]
    path = root / "shards" / "000000-unit.tar"
    rows = list(write_shard(path, (encode(sample) for sample in samples)))
    write_manifest(root, rows)
    write_dataset_json(root, {"layers": 6, "size": [64, 64], "job": {}})
    content = bytearray(path.read_bytes())
    content[rows[-1]["offset"] + 1500] ^= 1
    path.write_bytes(content)
    return root


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> shards.Dataset:
    return shards.open(make(tmp_path_factory.mktemp("data")))


@contextmanager
def served(dataset: shards.Dataset, **options: Any) -> Iterator[str]:
    server = serve(dataset, "127.0.0.1", 18080, **options)  # viser takes the next free port
    try:
        yield f"http://127.0.0.1:{server.get_port()}/"
    finally:
        server.stop()


@pytest.fixture(scope="module")
def address(dataset: shards.Dataset) -> Iterator[str]:
    with served(dataset) as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


class Window:
    """One page of the viewer, with what a test looks at."""

    def __init__(self, chromium: Any, url: str) -> None:
        self.page = chromium.new_page(viewport={"width": 1200, "height": 800})
        self.said = messages(self.page)
        self.page.goto(url)

    def reads(self, text: str) -> None:
        """Wait until the page shows `text`."""
        try:
            self.page.get_by_text(text).first.wait_for(timeout=30_000)
        except Exception as error:
            raise AssertionError(f"{text!r} is not on the page: {self.page.inner_text('body')}") from error

    def picture(self) -> np.ndarray:
        """The scene without controls and notices, (H,W,3)."""
        image = Image.open(BytesIO(self.page.screenshot())).convert("RGB")
        return np.asarray(image).astype(int)[NOTICE:, : 1200 - PANEL]

    def until(self, holds: Callable[[np.ndarray], bool], seconds: float = 40) -> np.ndarray:
        """The first picture for which it holds and which has come to rest: textures come later than points."""
        end, before, still = time.monotonic() + seconds, self.picture(), 0
        while time.monotonic() < end:
            time.sleep(0.25)
            picture = self.picture()
            still = still + 1 if differs(picture, before) == 0 else 0
            if holds(picture) and still >= 2:
                return picture
            before = picture
        raise AssertionError(f"not within {seconds} s; {drawn(before)} pixels are drawn; the page said {self.said}")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def write(self, label: str, text: str) -> Any:
        """Into the text field beside a label; as slowly as people: viser's client sends one change in 50 ms."""
        field = self.page.locator(f"xpath=//label[normalize-space()='{label}']/following::input[1]")
        field.fill(text)
        self.page.wait_for_timeout(400)
        return field

    def errors(self) -> list[str]:
        return [line for line in self.said if not line.startswith("warning")]


def drawn(picture: np.ndarray) -> int:
    """Pixels that are not the background, which is what most are."""
    values, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    return int((np.abs(picture - values[counts.argmax()]).max(axis=-1) > 24).sum())


def differs(picture: np.ndarray, other: np.ndarray) -> int:
    return int((np.abs(picture - other).max(axis=-1) > 24).sum())


def test_it_serves_its_page(address: str) -> None:
    with urllib.request.urlopen(address, timeout=20) as page:
        assert page.status == 200
        assert b"<html" in page.read()


def test_an_unknown_key_is_told_before_a_page_is_served(dataset: shards.Dataset) -> None:
    with pytest.raises(ValueError, match="no sample 'nothing'"):
        serve(dataset, "127.0.0.1", 18080, key="nothing")


@pytest.mark.slow
def test_samples_layers_and_damage(chromium: Any, address: str) -> None:
    window = Window(chromium, address)
    window.reads("view-0")
    first = window.until(lambda p: drawn(p) > 3000)
    layer = window.page.get_by_label("L0", exact=True)
    layer.uncheck(force=True)
    without = window.until(lambda p: differs(p, first) > 2 * SAME)
    layer.check(force=True)
    window.until(lambda p: differs(p, first) < SAME)
    window.page.get_by_label("show the camera").uncheck(force=True)
    assert drawn(window.until(lambda p: differs(p, first) > 2 * SAME)) < drawn(first)
    window.page.get_by_label("show the camera").check(force=True)
    window.until(lambda p: differs(p, first) < SAME)
    window.press("as the camera")
    window.until(lambda p: differs(p, first) > 2 * SAME)
    window.press("from aside")
    window.until(lambda p: differs(p, first) < SAME)

    window.press("next")
    window.reads("view-1")
    second = window.until(lambda p: differs(p, first) > 2 * SAME)
    assert drawn(second) > 3000
    assert HOSTILE in window.page.inner_text("body")  # as text
    assert window.page.title() != "owned"

    window.press("previous")
    window.reads("view-0")
    window.until(lambda p: differs(p, first) < SAME)
    window.press("previous")  # before the first comes the last, which is damaged
    window.reads("sha256 differs")
    window.until(lambda p: drawn(p) < 1000)  # the axes in the corner
    window.press("previous")
    window.reads("clip-3-c000-t0")
    assert drawn(window.until(lambda p: drawn(p) > 2000)) > 2000
    assert "sha256 differs" not in window.page.inner_text("body")
    assert window.errors() == []
    assert differs(without, first) > 2 * SAME


@pytest.mark.slow
def test_clips_play(chromium: Any, address: str) -> None:
    window = Window(chromium, address)
    window.reads("view-0")
    window.press("previous")
    window.reads("sha256 differs")
    window.press("previous")
    window.reads("clip-3-c000-t0")
    still = window.until(lambda p: drawn(p) > 2000)
    window.page.get_by_label("play").check(force=True)
    for name in ("t1", "t2", "t0"):
        window.reads(f"clip-3-c000-{name}")
    window.page.get_by_label("play").uncheck(force=True)
    assert still.shape == window.picture().shape
    assert window.errors() == []


@pytest.mark.slow
def test_pages_choose_for_themselves(chromium: Any, address: str) -> None:
    one, two = Window(chromium, address), Window(chromium, address)
    one.reads("view-0")
    two.reads("view-0")
    two.press("next")
    two.reads("view-1")
    assert "view-0" in one.page.inner_text("body")
    two.page.get_by_text("Choose", exact=True).click()
    two.write("where", "frames > 1")
    two.press("choose")
    two.reads("number 0 of 1;")
    two.write("where", "nonsense >")
    two.press("choose")
    two.reads("is not understood")
    two.write("where", "")
    two.write("key", "view-2").press("Enter")
    two.reads("number 2 of 5;")
    one.press("next")
    one.reads("number 1 of 5;")
    two.page.close()
    one.press("next")
    one.reads("number 2 of 5;")
    assert one.errors() == []


@pytest.mark.slow
def test_predictions_lie_beside_the_truth(chromium: Any, dataset: shards.Dataset, tmp_path: Path) -> None:
    view = dataset["view-0"]
    assert isinstance(view, shards.LayeredView)
    bent = view.xyz() * np.array([1, 1, 1.0]) + np.array([0, 0, 0.1]) * (np.arange(6)[:, None, None, None] > 0)
    xyz = np.stack([view.xyz(), bent * view.valid[None, ..., None]]).astype(np.float32)
    np.savez(
        tmp_path / "view-0.npz", xyz=xyz, rgb=(view.rgba[..., :3] / 255).astype(np.float32), valid=view.valid,
        seeds=np.arange(2),
    )  # fmt: skip
    (tmp_path / "view-1.npz").write_bytes(b"broken")
    with served(dataset, predictions=Predictions(tmp_path)) as url:
        window = Window(chromium, url)
        window.reads("Seed 0, aligned")
        both = window.until(lambda p: drawn(p) > 3000)
        assert "0.0000" in window.page.inner_text("body")
        chosen = window.page.get_by_label("show", exact=True)
        chosen.click()
        window.page.get_by_role("option", name="truth", exact=True).click()
        alone = window.until(lambda p: differs(p, both) > 500)
        assert drawn(alone) < drawn(both)
        window.press("next")
        window.reads("view-1.npz is no prediction")
        window.press("next")
        window.reads("There is no prediction of this sample.")
        assert window.errors() == []
