"""The manifest: digests of members and shards, columns on demand, parts copied undecoded, and its hash."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shards
from shards import manifest
from shards.archive import END
from shards.writer import parts_into


def test_every_member_and_every_shard_has_its_digest(dataset_on_disk: Path) -> None:
    rows = shards.read_manifest(dataset_on_disk).to_pylist()
    for path in sorted((dataset_on_disk / "shards").iterdir()):
        found: dict[str, list[tuple[str, int, bytes]]] = {}
        with tarfile.open(path) as archive:
            for info in archive:
                member = archive.extractfile(info)
                assert member is not None
                key, _, name = info.name.partition(".")
                content = member.read()
                found.setdefault(key, []).append((name, len(content), hashlib.sha256(content).digest()[:16]))
        for row in (row for row in rows if row["shard"] == path.name):
            assert [tuple(member.values()) for member in row["members"]] == found.pop(row["key"])
            assert row["shard_bytes"] == path.stat().st_size
            assert row["shard_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert row["planes"] == []
        assert not found


def test_columns_are_read_on_demand_and_as_dictionaries(dataset_on_disk: Path) -> None:
    whole = shards.read_manifest(dataset_on_disk)
    assert whole.schema == manifest.SCHEMA
    some = shards.read_manifest(dataset_on_disk, ["sha256", "key"])
    assert some == whole.select(["key", "sha256"])
    path = dataset_on_disk / "manifest.parquet"
    compact = manifest.parsed(path, "it", dictionary=manifest.REPEATED)
    assert pa.types.is_dictionary(compact["shard"].type)
    assert compact["shard"].to_pylist() == whole["shard"].to_pylist()
    assert manifest.parsed(pa.BufferReader(path.read_bytes()), "it") == whole


def test_any_flipped_bit_of_a_page_is_found(dataset_on_disk: Path) -> None:
    content = (dataset_on_disk / "manifest.parquet").read_bytes()
    group = pq.ParquetFile(pa.BufferReader(content)).metadata.row_group(0)
    rng = shards.generator(1, "bits")
    for column in range(group.num_columns):
        chunk = group.column(column)
        end = chunk.data_page_offset + chunk.total_compressed_size
        damaged = bytearray(content)
        damaged[end - 1 - int(rng.integers(4))] ^= 1 << int(rng.integers(8))
        if chunk.dictionary_page_offset is None:
            with pytest.raises(ValueError, match=r"it is damaged .*--repair"):
                manifest.parsed(pa.BufferReader(bytes(damaged)), "it")


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_hash_is_that_of_the_lines_however_the_table_is_cut(pieces: int) -> None:
    keys = [f"ключ-{i}" if i % 7 == 0 else f"key-{i}" for i in range(1000)]
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    expected = hashlib.sha256("".join(f"{k} {d}\n" for k, d in zip(keys, digests)).encode()).hexdigest()
    table = pa.table({"key": keys, "sha256": digests})
    size = -(-len(table) // pieces)
    cut = pa.concat_tables(table.slice(begin, size) for begin in range(0, len(table), size))
    assert manifest.hash_of(cut) == expected
    assert manifest.hash_of(table.slice(0, 0)) == hashlib.sha256().hexdigest()
    assert manifest.hash_of(table.slice(10, 500)) == manifest.hash_of(table.take(np.arange(10, 510)))


def test_parts_are_copied_into_another_shard_byte_by_byte(dataset_on_disk: Path) -> None:
    rows = shards.read_manifest(dataset_on_disk).to_pylist()
    chosen = [rows[20], rows[3], rows[30]]

    def part(row: dict) -> bytes:
        content = (dataset_on_disk / "shards" / row["shard"]).read_bytes()
        return content[row["offset"] : row["offset"] + row["bytes"]]

    out = io.BytesIO()
    again = parts_into(out, "000000-new.tar", ((row, part(row)) for row in chosen))
    assert out.getvalue() == b"".join(map(part, chosen)) + END
    for before, after in zip(chosen, again, strict=True):
        place = {"shard", "offset", "shard_bytes", "shard_sha256"}
        assert {k: v for k, v in after.items() if k not in place} == {k: v for k, v in before.items() if k not in place}
        assert out.getvalue()[after["offset"] :].startswith(part(before))
        assert after["shard_sha256"] == hashlib.sha256(out.getvalue()).hexdigest()
    older = {name: value for name, value in chosen[0].items() if name not in manifest.ADDED}
    assert parts_into(io.BytesIO(), "a.tar", [(older, part(chosen[0]))])[0]["members"] == chosen[0]["members"]
    with pytest.raises(ValueError, match="sha256 differs"):
        parts_into(io.BytesIO(), "a.tar", [(rows[0], part(rows[1]))])


def test_a_row_survives_json(dataset_on_disk: Path) -> None:
    row = shards.read_manifest(dataset_on_disk).to_pylist()[0]
    assert manifest.from_json_row(manifest.to_json_row(row)) == row
