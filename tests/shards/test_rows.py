"""Columns that are loaded when they are asked for say the same as the whole manifest does."""

import os
import signal
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shards
from shards import key_index, manifest, rows
from shards.key_index import KeyIndex

KEYS = st.lists(st.text(max_size=40), unique=True, max_size=60)


def chunked(keys: list[str], cut: int) -> pa.ChunkedArray:
    """In two chunks, each a slice of a longer array."""
    whole = pa.array(["before", *keys, "after"], pa.string())
    cut = min(cut, len(keys))
    return pa.chunked_array([whole.slice(1, cut), whole.slice(1 + cut, len(keys) - cut)], pa.string())


@settings(max_examples=25, deadline=None)
@given(KEYS, st.integers(0, 60), st.text(max_size=40))
def test_every_key_is_found_and_no_other(keys: list[str], cut: int, other: str) -> None:
    index = KeyIndex(chunked(keys, cut))
    assert [index.find(key) for key in keys] == list(range(len(keys)))
    assert index.find(other) == (keys.index(other) if other in keys else None)


def test_keys_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index, "_hashes", lambda keys: np.zeros(len(keys), np.uint64))
    keys = [f"key-{number}" for number in range(50)]
    index = KeyIndex(chunked(keys, 20))
    assert [index.find(key) for key in keys] == list(range(50))
    assert index.find("key-50") is None


def test_hashes_of_keys_that_are_alike_differ() -> None:
    """Keys of a dataset differ in their last digits; a zero byte at the end is not nothing."""
    keys = [f"objaverse-{number:032x}-{view:03d}" for number in range(2000) for view in range(10)]
    keys += ["", "\0", "\0\0", "\0" * 8, "\0" * 9]
    assert len(np.unique(key_index._hashes(pa.array(keys)))) == len(keys)


def test_columns_say_what_the_manifest_says(dataset_on_disk: Path) -> None:
    table = shards.read_manifest(dataset_on_disk)
    middle = float(np.median(table["z_max"].to_numpy()))
    far = f"z_max > {middle!r}"
    for split, where in ((None, None), ("train", None), (None, far), ("train", f"{far} or frames > 1")):
        dataset = shards.open(dataset_on_disk, split, where=where)
        keep = np.ones(len(table), bool)
        if split is not None:
            keep &= pc.equal(table["split"], split).to_numpy()
        if where is not None:
            keep &= table["z_max"].to_numpy() > middle
        if where is not None and "frames" in where:
            keep |= (table["frames"].to_numpy() > 1) & pc.equal(table["split"], split).to_numpy()
        expected = table.filter(pa.array(keep))
        assert len(expected) > 1
        assert dataset.manifest.equals(expected)
        assert len(dataset) == len(expected)
        assert dataset.hash == manifest.hash_of(expected)
        assert dataset.keys == expected["key"].to_pylist() == [dataset.key(row) for row in range(len(dataset))]
        assert [dataset.shards[place] for place in dataset.shard_of] == expected["shard"].to_pylist()
        assert dataset.shards == sorted(set(expected["shard"].to_pylist()))
        sizes = [(dataset_on_disk / "shards" / name).stat().st_size for name in dataset.shards]
        assert dataset.shard_bytes.tolist() == sizes
        assert [digest.tobytes().hex() for digest in dataset.selection.digest] == expected["sha256"].to_pylist()
        for name in shards.SPLITS:
            assert dataset.rows(name).tolist() == np.flatnonzero(pc.equal(expected["split"], name)).tolist()
        assert pa.Table.from_batches(dataset.batches(["flags", "key"], 5)).equals(expected.select(["key", "flags"]))
        given_table = shards.Dataset(dataset_on_disk, dataset.config, expected)
        assert (given_table.hash, given_table.shards) == (dataset.hash, dataset.shards)
        assert given_table.columns(["split"]).equals(expected.select(["split"]))


def test_only_what_is_asked_for_is_read(dataset_on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = manifest.parsed

    def parsed(source: object, text: str, columns: list[str], *rest: object) -> pa.Table:
        read.extend(columns)
        return real(source, text, columns, *rest)

    monkeypatch.setattr(manifest, "parsed", parsed)
    dataset = shards.open(dataset_on_disk, "train", where="z_max > 0")
    assert sorted(read) == ["bytes", "split", "z_max"]
    dataset.load()
    assert dataset[3].key == dataset.key(3)
    _ = dataset.hash
    assert dataset.row_of(dataset.key(4)) == 4
    assert len(read) == len(set(read))  # nothing twice
    assert "members" not in read
    assert "coverage" not in read
    with pytest.raises(ValueError, match="'nothing' is no column of a manifest: it has key, shard"):
        dataset.columns(["nothing"])


@pytest.mark.parametrize("narrowed", [None, "view < 20 or frames > 1", "view = 13", "view < 0"])
def test_a_manifest_of_many_row_groups_is_read_by_parts(
    narrowed: str | None, dataset_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row groups of three rows: looked up one by one, streamed by threads, and read whole, they say the same."""
    table = shards.read_manifest(dataset_copy)
    monkeypatch.setattr(manifest, "ROW_GROUP", 3)
    shards.write_manifest(dataset_copy, table.to_pylist())
    monkeypatch.setattr(rows, "RUN", 2)
    monkeypatch.setattr(rows, "THREADS", 3)
    assert len(manifest.row_groups(dataset_copy / "manifest.parquet")) == 11
    expected = shards.Dataset(dataset_copy, {}, table)
    expected = expected if narrowed is None else expected.narrowed(narrowed)
    samples = [expected.selection.sample(row) for row in range(len(expected))]

    dataset = shards.open(dataset_copy, where=narrowed)
    read: list[object] = []
    real = manifest.parsed
    monkeypatch.setattr(manifest, "parsed", lambda *given: read.append(given[4]) or real(*given))
    backwards = [dataset.selection.sample(row) for row in reversed(range(len(dataset)))]
    assert backwards[::-1] == samples
    assert all(groups is not None and len(groups) == 1 for groups in read)  # type: ignore[arg-type]
    assert len(read) <= 11
    assert dataset.hash == expected.hash
    assert dataset.load().keys == expected.keys
    assert dataset.hash == expected.hash == shards.open(dataset_copy, where=narrowed).load().hash
    assert np.array_equal(dataset.selection.digest, expected.selection.digest)

    monkeypatch.setattr(rows, "LOOKUPS", 2)
    read.clear()
    dataset = shards.open(dataset_copy, where=narrowed)
    assert [dataset.selection.sample(row) for row in range(len(dataset))] == samples
    assert sum(groups is not None and len(groups) == 1 for groups in read) <= 2 + 2  # type: ignore[arg-type]
    monkeypatch.setattr(rows, "SORTED", 0)
    monkeypatch.setattr(rows, "SCANS", 2)
    for place in range(min(4, len(samples))):  # by scans, and then in the sorted keys
        assert dataset.row_of(samples[-1 - place][0]) == len(samples) - 1 - place
        with pytest.raises(KeyError, match="has no sample 'nothing'"):
            dataset.row_of("nothing")


@pytest.mark.parametrize("bad", ["z" * 64, "0" * 63, ""])
def test_a_hash_that_is_none_is_damage(bad: str, dataset_on_disk: Path) -> None:
    table = shards.read_manifest(dataset_on_disk)
    place = table.column_names.index("sha256")
    texts = pa.array([bad, *table["sha256"].to_pylist()[1:]])
    dataset = shards.Dataset(dataset_on_disk, {}, table.set_column(place, table.schema.field(place), texts))
    with pytest.raises(
        ValueError, match=r"manifest.parquet is damaged \(sha256 is none of 64 digits in lower case\): rebuild it"
    ):
        dataset[1]


def test_no_flipped_bit_of_a_manifest_reaches_training(dataset_copy: Path) -> None:
    path = dataset_copy / "manifest.parquet"
    content, whole = path.read_bytes(), shards.open(dataset_copy).load()
    for bit in np.random.default_rng(0).choice(8 * len(content), 60, replace=False):
        data = bytearray(content)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"manifest\.parquet (is damaged|has no column)"):
            shards.open(dataset_copy).load()
    path.write_bytes(content)
    assert shards.open(dataset_copy).load().hash == whole.hash


@pytest.mark.parametrize("split", [None, "train"])
def test_columns_of_two_manifests_are_not_mixed(split: str | None, dataset_copy: Path) -> None:
    """A dataset that grows while it is open; one that was loaded goes on as it was."""
    table = shards.read_manifest(dataset_copy)
    loaded, opened = (shards.open(dataset_copy, split) for _ in range(2))
    before = loaded.load().hash
    shards.write_manifest(dataset_copy, table.slice(0, len(table) - 1).to_pylist())
    assert loaded.hash == before
    assert loaded[2].key == loaded.key(2)
    with pytest.raises(OSError, match="was written anew while it was read: open the dataset again"):
        opened[2]


def test_a_manifest_cannot_lead_out_of_its_dataset(dataset_on_disk: Path) -> None:
    table = shards.read_manifest(dataset_on_disk)
    place = table.column_names.index("shard")
    for bad in ("../secret", "/etc/hostname", ".hidden", "..", "a/b.tar"):
        names = pa.array([bad] * len(table))
        dataset = shards.Dataset(dataset_on_disk, {}, table.set_column(place, table.schema.field(place), names))
        with pytest.raises(shards.CorruptSample, match="not the plain name of a shard"):
            dataset[0]


def test_a_child_forked_while_a_thread_loads_may_load(dataset_on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """functools.cached_property of Python 3.11 has one lock for all instances of a class (CPython issue 87634)."""
    loading, going_on = threading.Event(), threading.Event()
    slow, other = shards.open(dataset_on_disk).selection, shards.open(dataset_on_disk).selection
    real = rows.Rows._parts

    def waiting(self: rows.Rows, columns: Collection[str]) -> Iterator[pa.Table]:
        if self is slow:
            loading.set()
            going_on.wait(20)
        yield from real(self, columns)

    monkeypatch.setattr(rows.Rows, "_parts", waiting)
    thread = threading.Thread(target=lambda: slow.key)
    thread.start()
    assert loading.wait(20)
    pid = os.fork()
    if not pid:
        signal.alarm(5)  # ends a child that hangs
        try:
            os._exit(0 if len(other.key) == 31 else 2)
        finally:
            os._exit(1)
    going_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert slow.key is slow.key
