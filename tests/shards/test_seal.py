"""The small files of a dataset find any flipped bit of their own: tables by a seal, dataset.json by its digest."""

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shards import dataset_json, ledger, parse_dataset_json, seal
from shards.ledger import LedgerWriter


def sealed_ledger(count: int = 3) -> bytes:
    file = io.BytesIO()
    with LedgerWriter(file) as writer:
        for index in range(count):
            row = ledger.row(
                unit="000000-a", asset=f"asset-{index}", source="s", licence="CC0-1.0", status="done", views=2
            )
            writer.write([row])
    return file.getvalue()


def test_a_sealed_table_is_a_parquet_file_and_holds_what_was_written() -> None:
    content = sealed_ledger()
    assert seal.check(io.BytesIO(content)) is True
    assert pq.read_table(io.BytesIO(content))["asset"].to_pylist() == ["asset-0", "asset-1", "asset-2"]
    assert [row["views"] for row in ledger.rows(io.BytesIO(content))] == [2, 2, 2]
    assert sealed_ledger() == content


def test_any_flipped_bit_breaks_the_seal() -> None:
    content = sealed_ledger(1)
    for at in range(0, len(content)):
        for bit in (1 << at % 8, 1 << (at + 3) % 8):
            damaged = bytearray(content)
            damaged[at] ^= bit
            assert seal.check(io.BytesIO(damaged)) is not True, at
    for size in (0, 5, 11, 12, len(content) // 2, len(content) - 1):
        assert seal.check(io.BytesIO(content[:size])) is not True


def test_a_table_of_another_writer_has_no_seal(tmp_path: Path) -> None:
    pq.write_table(ledger.SCHEMA.empty_table(), tmp_path / "plain.parquet")
    with (tmp_path / "plain.parquet").open("rb") as file:
        assert seal.check(file) is None


def test_a_writer_that_fails_leaves_its_own_error() -> None:
    def write() -> None:
        with LedgerWriter(io.BytesIO()) as writer:
            writer.write([ledger.row(unit="u", asset="a", source="s", licence="l", status="failed", reason="x")])
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write()


def test_a_ledger_of_an_older_version_is_read_with_empty_columns(tmp_path: Path) -> None:
    old = ledger.SCHEMA.empty_table().select(["unit", "asset", "status"])
    old = old.from_pylist([{"unit": "000000-a", "asset": "x", "status": "done"}], schema=old.schema)
    pq.write_table(old, tmp_path / "old.parquet")
    with (tmp_path / "old.parquet").open("rb") as file:
        (row,) = ledger.rows(file)
    assert (row["asset"], row["moments"]) == ("x", None)
    (tmp_path / "old.parquet").write_bytes(b"PAR1")
    with (tmp_path / "old.parquet").open("rb") as file, pytest.raises(ValueError, match="ledger is damaged"):
        list(ledger.rows(file))


def test_any_flipped_bit_of_dataset_json_is_refused() -> None:
    text = dataset_json({"layers": 6, "size": [8, 8], "job": {"digest": "0" * 64}, "software": {}})
    config = parse_dataset_json(text, "x")
    assert dataset_json(config) == text
    for at in range(len(text)):
        damaged = bytearray(text)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(ValueError, match="x"):
            parse_dataset_json(bytes(damaged), "x")
