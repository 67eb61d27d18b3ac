"""Datasets made of datasets: what goes in comes out, byte by byte, however it is cut and wherever it lies."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

import shards
from shards import parallel
from shards.check.verify import inspect
from shards.rewrite import choice, rewrite
from shards.rewrite.inputs import open_input
from shards.rewrite.plan import Cut
from shards.store import lease, open_store
from tests import s3
from tests.shards.rewrite.rewriting import contents, made, samples
from tests.shards.web import serving


@pytest.mark.parametrize("cut", [Cut(1, None), Cut(7, None), Cut(1000, None), Cut(None, 30_000), Cut(4, 20_000), Cut()])
def test_resharding_keeps_samples_order_and_hash(source: Path, tmp_path: Path, cut: Cut) -> None:
    one = open_input(source)
    (there,) = made("reshard", [one], [choice.everything(one)], tmp_path / "a", cut=cut)
    assert there.hash == shards.open(tmp_path / "a").hash == shards.open(source).hash == one.hash
    for path in (tmp_path / "a" / "shards").iterdir():
        with tarfile.open(path) as archive:
            held = len({name.partition(".")[0] for name in archive.getnames()})
        assert held <= (cut.samples or held)
        assert path.stat().st_size <= (cut.bytes or np.inf) or held == 1
    two = open_input(tmp_path / "a")
    (back,) = made("reshard", [two], [choice.everything(two)], tmp_path / "b", cut=Cut(12, None))
    assert (back.samples, back.hash) == (31, one.hash)
    for left, right in zip(shards.open(source), shards.open(tmp_path / "b"), strict=True):
        assert left.key == right.key
    assert not (tmp_path / "b" / "units").exists()


def test_plain_webdataset_reads_what_was_written(source: Path, tmp_path: Path) -> None:
    one = open_input(source)
    made("reshard", [one], [choice.everything(one)], tmp_path / "a")
    paths = sorted(str(path) for path in (tmp_path / "a" / "shards").iterdir())
    read = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in read] == list(samples(source))


def test_the_bytes_do_not_depend_on_the_number_of_threads(source: Path, tmp_path: Path) -> None:
    one = open_input(source)
    for workers in (1, 2, 9):
        made("filter", [one], [choice.where(one, "view % 2 = 0")], tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "9")


def test_version_1_is_read_and_version_2_written(tmp_path: Path) -> None:
    old = Path(__file__).parents[1] / "version1"
    one = open_input(old)
    (there,) = made("reshard", [one], [choice.everything(one)], tmp_path / "new")
    assert there.hash == shards.open(old).hash
    table = shards.open(tmp_path / "new").manifest
    assert all(members for members in table["members"].to_pylist())
    assert all(len(sha256) == 64 for sha256 in table["shard_sha256"].to_pylist())
    assert shards.read_dataset_json(tmp_path / "new")["version"] == 2


def test_places_that_are_not_free_are_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = open_input(source)
    to = [choice.everything(one)]
    (tmp_path / "link").symlink_to(source)
    for out in (source, source / "inside", source.parent, tmp_path / "link"):
        with pytest.raises(ValueError, match="read or written too: give another --out"):
            made("reshard", [one], to, out)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"holds 'notes\.txt'"):
        made("reshard", [one], to, tmp_path / "taken")
    assert contents(tmp_path / "taken") == {"notes.txt": b"precious"}
    monkeypatch.setattr(rewrite.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 70_000_000}))
    monkeypatch.setattr(rewrite, "SPARE", 69_990_000)
    with pytest.raises(OSError, match=r"needs [\d.]+ KB and 69.99 MB to spare, .* has 70 MB free: make room"):
        made("reshard", [one], to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_a_dataset_comes_from_is_told_without_a_path(source: Path, tmp_path: Path) -> None:
    one = open_input(source)
    made("filter", [one], [choice.everything(one)], tmp_path / "a", where="true")
    config = shards.read_dataset_json(tmp_path / "a")
    assert config["derived"]["where"] == "true"
    assert config["derived"]["from"][0]["hash"] == one.hash
    assert config["derived"]["from"][0]["job"] == {"seed": 0}
    assert "job" not in config  # a render job that is run again must not take it for its own
    assert str(tmp_path) not in json.dumps(config)
    assert str(source) not in json.dumps(config)


def test_a_bucket_serves_as_a_folder_does(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE", 0.0)
    one = open_input(source)
    to = [choice.where(one, "split = 'train'")]
    made("filter", [one], to, tmp_path / "local")
    (there,) = made("filter", [one], to, "memory://rewritten")  # type: ignore[arg-type]
    two = open_input("memory://rewritten")
    assert (two.hash, two.samples) == (there.hash, there.samples)
    made("filter", [two], [choice.everything(two)], tmp_path / "back")
    assert samples(tmp_path / "back") == samples(tmp_path / "local")
    names = {"dataset.json", "manifest.parquet", "ledger.parquet", "shards"}
    assert set(open_store("memory://rewritten").top()) == names


def test_a_web_server_serves_as_input(source: Path, tmp_path: Path) -> None:
    with serving(source) as server:
        assert inspect(server.url, workers=1).problems == []
        one = open_input(server.url)
        made("filter", [one], [choice.where(one, "view < 20")], tmp_path / "web")
    two = open_input(source)
    made("filter", [two], [choice.where(two, "view < 20")], tmp_path / "local")
    assert contents(tmp_path / "web") == contents(tmp_path / "local")


@pytest.mark.slow
def test_s3_gives_the_bytes_that_a_folder_gives(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WORTH", 0)
    one = open_input(source)
    to = [np.arange(31, dtype=np.int16) % 2]
    made("split", [one], to, tmp_path / "0", tmp_path / "1")
    with s3.serving():
        urls = [f"s3://{s3.BUCKET}/parts/{number}" for number in range(2)]
        made("split", [one], to, *urls)  # type: ignore[arg-type]
        for number, url in enumerate(urls):
            assert inspect(url, workers=2).problems == []
            assert shards.statistics(url, workers=2) == shards.statistics(tmp_path / str(number))
            store = open_store(url)
            assert store.top() == ["dataset.json", "ledger.parquet", "manifest.parquet", "shards"]
            there = {name: store.read(name) for name in [*store.sizes("shards"), *store.top()[:3]]}
            assert there == contents(tmp_path / str(number))
        inputs = [open_input(url) for url in urls]
        made("merge", inputs, choice.together(inputs, None).to, tmp_path / "whole")
    assert samples(tmp_path / "whole") == samples(source)
