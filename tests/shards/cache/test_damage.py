"""What is damaged, missing, out of reach or hostile costs no more than it must.

Where a test is about a way in which another library fails, it names the report.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import shards
from shards.cache.cache import Cache
from shards.store import web
from tests.shards.cache.folder import copies_in, files, filled, flip
from tests.shards.web import Server


def test_a_damaged_copy_is_replaced(server: Server, many: Path, tmp_path: Path) -> None:
    """webdataset 226: a cached file that is not what it should be ends the run."""
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20))
    dataset.members(5)
    flip(dataset.copies.path(5), 700)
    expected = shards.open(many).members(5)
    assert dataset.members(5) == expected
    assert not dataset.copies.path(5).exists()
    assert dataset.members(5) == expected
    assert dataset.copies.path(5).read_bytes() == (many / "shards" / dataset.shards[5]).read_bytes()


def test_what_was_damaged_on_its_way_is_fetched_again(
    server: Server, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20))
    real, count = web.WebStore.pieces, [0]

    def flipped(self: web.WebStore, name: str, patience: float | None = None) -> Iterator[bytes]:
        count[0] += 1
        for piece in real(self, name, patience):
            yield bytes([piece[0] ^ 1]) + piece[1:] if count[0] == 1 else piece

    monkeypatch.setattr(web.WebStore, "pieces", flipped)
    dataset.members(5)
    assert count == [2]
    assert dataset.copies.path(5).read_bytes() == (many / "shards" / dataset.shards[5]).read_bytes()


@pytest.mark.parametrize("damage", ["flip", "truncate", "longer"])
def test_damage_in_the_store_costs_its_samples_alone(damage: str, dataset_copy: Path, tmp_path: Path) -> None:
    """webdataset 142: one truncated tar ends the run."""
    whole = [shards.open(dataset_copy).members(row) for row in range(31)]
    dataset = shards.open(dataset_copy, cache=Cache(tmp_path / "cache", 10 << 20))
    last = int(np.flatnonzero(dataset.shard_of == 1)[-1])
    path = dataset_copy / "shards" / dataset.shards[1]
    begin = int(dataset.selection.offset[last])
    if damage == "flip":
        flip(path, begin + 600)
    elif damage == "truncate":
        os.truncate(path, begin + 600)
    else:
        path.write_bytes(path.read_bytes() + b"more")
    for row in range(31):
        if row == last and damage != "longer":
            for _ in range(2):
                with pytest.raises(shards.CorruptSample, match=r"sha256 differs|truncated"):
                    dataset.members(row)
        else:
            assert dataset.members(row) == whole[row]
    assert dataset.copies.path(1).exists()
    kept = dataset.copies.path(1).read_bytes()
    expected = path.read_bytes()
    assert kept[: len(expected)] == expected[: len(kept)]


def test_a_missing_shard_is_told_of(dataset_copy: Path, tmp_path: Path) -> None:
    dataset = shards.open(dataset_copy, cache=Cache(tmp_path / "cache", 10 << 20))
    (dataset_copy / "shards" / dataset.shards[2]).unlink()
    with pytest.raises(FileNotFoundError, match=r"is missing, but the manifest names it"):
        dataset.members(30)
    assert not files(tmp_path / "cache", "*.part")
    dataset.members(0)


def test_a_missing_shard_costs_no_sound_copies(server: Server, tmp_path: Path) -> None:
    limit = int(shards.open(server.url).shard_bytes[:6].sum())
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", limit))
    for row in range(6):
        dataset.members(row)
    before = copies_in(tmp_path)
    server.misbehave = lambda path, count: "404" if path.endswith(dataset.shards[20]) else ""
    with pytest.raises(FileNotFoundError, match="is missing"):
        dataset.members(20)
    assert copies_in(tmp_path) == before


def test_a_manifest_of_version_1_knows_no_hashes_of_shards(server: Server, tmp_path: Path) -> None:
    whole = shards.open(server.url)
    table = whole.manifest
    place = table.column_names.index("shard_sha256")
    table = table.set_column(place, table.schema.field(place), pa.repeat(pa.scalar(""), len(table)))
    dataset = shards.Dataset(server.url, whole.config, table, Cache(tmp_path / "cache", 10 << 20))
    assert [dataset.members(row) for row in (0, 9)] == [whole.members(row) for row in (0, 9)]
    flip(dataset.copies.path(9), 700)
    assert dataset.members(9) == whole.members(9)


def test_a_store_that_was_written_anew_is_not_mistaken(dataset_copy: Path, tmp_path: Path) -> None:
    """The same names and sizes, and other contents: the copy of before is not used."""
    cache = Cache(tmp_path / "cache", 10 << 20)
    filled(shards.open(dataset_copy, cache=cache))
    views = [shards.open(dataset_copy)[row] for row in (1, 0)]
    shutil.rmtree(dataset_copy)
    rows = shards.write_shard(dataset_copy / "shards" / "000000-unit.tar", map(shards.encode, views))
    shards.write_manifest(dataset_copy, rows)
    shards.write_dataset_json(dataset_copy, {"layers": 6, "size": [24, 28]})
    dataset = shards.open(dataset_copy, cache=cache)
    assert [dataset[row].key for row in (0, 1)] == [view.key for view in views]


def test_a_store_that_is_out_of_reach_is_told_of_after_patience(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20, patience=300.0))
    dataset.members(0)

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(web, "_sleep", sleep)
    monkeypatch.setattr(web.time, "monotonic", lambda: clock[0])
    server.misbehave = lambda path, before: "503"
    with pytest.raises(OSError, match=r"the server fails or cannot be reached .*was asked for 300 s"):
        dataset.members(1)
    assert 200 < clock[0] <= 300
    assert dataset.members(0)  # what is here is read without the network
    assert not files(tmp_path, "*.part")


# a hostile manifest ------------------------------------------------------------------------------------------------


def test_a_manifest_cannot_lead_out_of_the_cache(many: Path, tmp_path: Path) -> None:
    """Nor ask for memory or room that nothing justifies."""
    table = shards.read_manifest(many)

    def changed(name: str, value: object) -> shards.Dataset:
        place = table.column_names.index(name)
        column = pa.array([value] * len(table), table.schema.field(name).type)
        new = table.set_column(place, table.schema.field(name), column)
        return shards.Dataset(many, {}, new, Cache(tmp_path / "cache", 10 << 20))

    for name in ("../../out.tar", "/out.tar", "..", ".hidden", "a\0b", "", "x" * 300):
        dataset = changed("shard", name)
        with pytest.raises(ValueError, match=r"its manifest names .* which is no shard"):
            dataset.expect(dataset.shards)
        with pytest.raises(shards.CorruptSample):
            dataset.members(0)
    for sha256 in ("/../../../out", "A" * 64, "abc"):
        with pytest.raises(ValueError, match="is no shard"):
            changed("shard_sha256", sha256).members(0)
    for size in (-1, 0, 2**62):
        with pytest.raises(ValueError, match=r"is no shard|raise its limit"):
            changed("shard_bytes", size).members(0)
    for name in ("bytes", "offset"):
        for value in (-1, 2**40, 2**62):
            with pytest.raises(shards.CorruptSample):
                changed(name, value).members(0)
            with pytest.raises(shards.CorruptSample):
                shards.Dataset(many, {}, changed(name, value).manifest).members(0)
    assert {path.relative_to(tmp_path).parts[0] for path in files(tmp_path)} == {"cache"}
