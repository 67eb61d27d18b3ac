"""A dataset that version 1 of the format wrote, byte by byte as it was: tests/shards/version1.

It holds the views 0 and 1 of scenes.py, one whose depth spans too much for the quantised codec, and a clip of two
frames; the code that wrote it is the one before version 2.
"""

import shutil
from pathlib import Path

import numpy as np

import shards
from shards import Clip, LayeredView, manifest
from shards.archive import split_part
from shards.check import verify
from shards.layers.codec import DEFAULT_BOUND, read_header
from shards.writer import write_shard
from tests.shards.scenes import spheres_clip, spheres_view

ROOT = Path(__file__).parent / "version1"


def _agree(again: LayeredView, made: LayeredView) -> None:
    visible = made.rgba[..., 3] > 0
    np.testing.assert_array_equal(again.rgba[visible], made.rgba[visible])
    np.testing.assert_array_equal(again.hits, made.hits)
    exact = made.depth.astype(np.float64)
    assert (np.abs(again.depth - exact) <= DEFAULT_BOUND * exact).all()
    np.testing.assert_array_equal(again.K, made.K)
    np.testing.assert_array_equal(again.world_from_camera, made.world_from_camera)
    assert (again.key, again.origin, again.info) == (made.key, made.origin, made.info)


def test_every_sample_is_read() -> None:
    dataset = shards.open(ROOT)
    assert dataset.config["version"] == 1
    for row in range(2):
        view = dataset[row]
        assert isinstance(view, LayeredView)
        _agree(view, spheres_view(row, 24, 28))
    assert read_header(dataset.members(2)["layers.zst"]).codec == "float32"
    assert dataset[2].key == "far"
    clip = dataset["clip-40-c000"]
    assert isinstance(clip, Clip)
    for again, made in zip(clip.frames, spheres_clip(40, frames=2, height=24, width=28).frames, strict=True):
        _agree(again, made)


def test_it_is_loaded_as_a_trainer_does() -> None:
    loaded = shards.open(ROOT).load()
    assert len(loaded) == len(shards.open(ROOT))
    assert loaded["clip-40-c000"].key == "clip-40-c000"


def test_its_hash_is_what_it_was() -> None:
    assert shards.open(ROOT).hash == "15a45275280342ceb65a66fb338df2f1a5c123f4521d863cc1a49e636083ef13"


def test_missing_columns_are_filled() -> None:
    table = shards.read_manifest(ROOT)
    assert table.schema == manifest.SCHEMA
    for row in table.to_pylist():
        assert row["shard_bytes"] == (ROOT / "shards" / row["shard"]).stat().st_size
        assert (row["shard_sha256"], row["members"], row["planes"]) == ("", [], [])
    some = shards.read_manifest(ROOT, ["shard_bytes", "key"])
    assert some == table.select(["key", "shard_bytes"])


def test_it_is_sound_and_has_statistics(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ROOT, tmp_path / "copy"))
    assert verify.verify(copy) == []
    statistics = shards.statistics(copy)
    assert statistics is not None
    assert statistics["points"] > 0


def test_its_samples_written_again_have_the_same_pixels(tmp_path: Path) -> None:
    dataset = shards.open(ROOT)
    rows = write_shard(tmp_path / "a.tar", [shards.encode(dataset[0])])
    part = (tmp_path / "a.tar").read_bytes()[: rows[0]["bytes"]]
    again = shards.decode(dataset.keys[0], split_part(dataset.keys[0], part, "it"))
    before = dataset[0]
    assert isinstance(again, LayeredView)
    assert isinstance(before, LayeredView)
    np.testing.assert_array_equal(again.hits, before.hits)
    np.testing.assert_array_equal(again.rgba, before.rgba)
