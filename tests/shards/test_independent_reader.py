"""docs/format.md is complete: a reader written from it finds in every kind of sample what ours finds, bit for bit."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import shards
from shards import Clip, LayeredView, Order, decode, encode, write_dataset_json, write_manifest, write_shard
from shards.layers.codec import read_header
from shards.layers.planes import PLANES, planes_in
from shards.order.order import Windows
from tests.shards import independent_reader, test_codec
from tests.shards.scenes import spheres_clip, spheres_view
from tests.shards.test_planes import with_planes
from tests.shards.test_version1 import ROOT


def _agree(folder: Path) -> set[tuple[str, str, str]]:
    """Compares both readers sample by sample; -> the (codec, predictor, packing) that were met."""
    dataset = shards.open(folder)
    kinds = set()
    found = list(independent_reader.samples(folder))
    assert [key for key, _ in found] == dataset.keys
    for row, (key, frames) in enumerate(found):
        members = dataset.members(row)
        sample = decode(key, members, planes_in(members))
        kinds |= {
            (header.codec, header.predictor, header.packing)
            for header in (read_header(data) for name, data in members.items() if name.endswith("layers.zst"))
        }
        ours = sample.frames if isinstance(sample, Clip) else (sample,)
        for mine, theirs in zip(ours, frames, strict=True):
            np.testing.assert_array_equal(theirs["hits"], mine.hits)
            np.testing.assert_array_equal(theirs["depth"].view(np.uint32), mine.depth.view(np.uint32))
            np.testing.assert_array_equal(theirs["rgba"], mine.rgba)
            assert (theirs["K"], theirs["world_from_camera"]) == (mine.K.tolist(), mine.world_from_camera.tolist())
            assert (theirs["key"], theirs["info"], theirs["single_layer"]) == (mine.key, mine.info, mine.single_layer)
            for name in mine.planes:
                np.testing.assert_array_equal(theirs[name], mine.planes[name])
            assert set(mine.planes) == set(theirs) & set(PLANES)
    return kinds


def _sensor_view(key: str, noise: float, step: float) -> LayeredView:
    hits, depth = test_codec._sensor(noise, step)
    hits, depth = hits[:24, :28], depth[:, :24, :28]
    view = spheres_view(0, 24, 28, key=key)
    return dataclasses.replace(view, hits=hits, depth=np.repeat(depth, 6, 0), regime="rgbd", single_layer=True)


def test_every_codec_predictor_packing_clip_and_plane(tmp_path: Path) -> None:
    smooth = _sensor_view("smooth", 0.0, 0.0)
    samples = [
        *(encode(spheres_view(i, 24, 28, key=f"{codec}-{i}"), codec) for codec in ("inverse", "log") for i in range(2)),
        encode(spheres_view(2, 24, 28, key="exact"), "float32"),
        encode(smooth),
        encode(_sensor_view("steps", 0.0, 1e-3)),
        encode(_sensor_view("noisy", 0.02, 0.0)),
        encode(with_planes(spheres_view(3, 24, 28, key="planes"))),
        encode(spheres_clip(40, frames=3, height=12, width=14)),
        encode(Clip("clip-planes", tuple(map(with_planes, spheres_clip(41, frames=2, height=9, width=9).frames)))),
    ]
    rows = write_shard(tmp_path / "shards" / "000000-a.tar", samples[:6])
    rows += write_shard(tmp_path / "shards" / "000001-b.tar", samples[6:])
    write_manifest(tmp_path, rows)
    write_dataset_json(tmp_path, {"layers": 6, "size": [24, 28]})
    kinds = _agree(tmp_path)
    assert {codec for codec, _, _ in kinds} == {"inverse", "float32", "log", "steps"}
    assert {predictor for _, predictor, _ in kinds} == {"plane", "left"}
    assert {packing for _, _, packing in kinds} == {"words", "nibbles"}


def test_version_1() -> None:
    assert _agree(ROOT) == {("inverse", "plane", "words"), ("float32", "none", "words")}


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1000])
def test_the_order_of_training(n: int) -> None:
    order = Order(n, 5, "abc")
    positions = [*range(min(2 * n, 200)), 10**9]
    assert [independent_reader.row_at(g, n, 5, "abc") for g in positions] == [order[g] for g in positions]


@pytest.mark.parametrize("window", [1, 3, 4, 20])
def test_the_order_of_training_by_windows(window: int) -> None:
    counts = [5, 1, 9, 4, 4, 2, 7]
    order = Windows(counts, window, 5, "abc")
    positions = [*range(2 * sum(counts)), 10**6]
    found = [independent_reader.row_at_windows(g, counts, window, 5, "abc") for g in positions]
    assert found == [order[g] for g in positions]
    assert sorted(found[: sum(counts)]) == list(range(sum(counts)))


def test_it_shares_no_code_with_ours() -> None:
    text = Path(independent_reader.__file__).read_text()
    assert not re.search(r"^\s*(from|import) +(shards|tests|render|cluster|train)\b", text, re.MULTILINE)


def test_damage_is_refused(tmp_path: Path) -> None:
    view = spheres_view(1, 12, 14)
    data = bytearray(encode(view).members["layers.zst"])
    data[80] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        independent_reader.layers(bytes(data))
