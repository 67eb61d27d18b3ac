"""The small files of a dataset find any flipped bit of their own: tables by a seal, dataset.json by its digest."""

import dataclasses
import hashlib
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shards
from shards import (
    dataset_json,
    encode,
    ledger,
    parse_dataset_json,
    seal,
    write_dataset_json,
    write_manifest,
    write_shard,
)
from shards.check.verify import verify
from shards.ledger import LedgerWriter
from tests.shards.scenes import spheres_view


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


HOSTILE = {
    "digits": "worldtrace.sha256-" + "ab" * 32,
    "zeros": "worldtrace.sha256-" + "0" * 64,
    "a whole entry": "\x18\x11worldtrace.sha256\x18\x40" + "0" * 64 + "\x00",
    "half an entry": "\x18\x11worldtrace.sha256\x18\x40",
    "many": ("\x18\x11worldtrace.sha256\x18\x40" + "0" * 64 + "\x00") * 20,
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_no_name_of_an_asset_breaks_the_seal(name: str) -> None:
    """A name stands in the footer, too: in the statistics of its column. Also in one that is written at the close."""
    file = io.BytesIO()
    schema = pa.schema([("asset", pa.string())], metadata={"note": name, "zz": name})
    sealed, sink = seal.sealing(file)
    writer = pq.ParquetWriter(sink, schema)
    for _ in range(2):
        writer.write_table(pa.table({"asset": [name, "z"]}, schema=schema))
    sealed.close_sealed(writer)
    content = file.getvalue()
    assert name.encode() in content[-int.from_bytes(content[-8:-4], "little") - 8 :] or len(name) > 1000
    assert seal.check(io.BytesIO(content)) is True
    assert pq.read_table(io.BytesIO(content))["asset"].to_pylist() == [name, "z"] * 2
    for at in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        assert seal.check(io.BytesIO(damaged)) is not True, at
    file = io.BytesIO()
    with LedgerWriter(file) as rows:
        rows.write([{**dict.fromkeys(ledger.SCHEMA.names), "asset": name, "host": name, "message": name}])
    assert seal.check(file) is True


def test_a_dataset_of_hostile_names_is_sound(tmp_path: Path) -> None:
    views = [spheres_view(i, 24, 28) for i in range(len(HOSTILE))]
    named = [
        dataclasses.replace(view, origin=dataclasses.replace(view.origin, uid=name, source=name))
        for view, name in zip(views, HOSTILE.values())
    ]
    write_manifest(tmp_path, write_shard(tmp_path / "shards" / "000000-unit.tar", map(encode, named)))
    write_dataset_json(tmp_path, {"layers": 6, "size": [24, 28]})
    assert len(shards.open(tmp_path).load()) == len(HOSTILE)
    assert verify(tmp_path) == []


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


STATISTICS = {"mean": [0.0, 0.0, 2.0], "std": [1.0, 1.0, 1.0], "samples": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": None}, "layers is missing"),
        ({"layers": True}, "layers is True"),
        ({"layers": 0}, "layers is 0"),
        ({"layers": "6"}, "layers is '6'"),
        ({"size": [8]}, "size is"),
        ({"size": [8, -8]}, "size is"),
        ({"size": 8}, "size is 8"),
        ({"conventions": []}, "conventions is"),
        ({"software": {"numpy": 2}}, "software is"),
        ({"statistics": "x"}, "statistics is 'x'"),
        ({"statistics": {"mean": [0, 0]}}, "statistics.mean is"),
        ({"statistics": {**STATISTICS, "mean": [0, 0, "2"]}}, "statistics.mean is"),
        ({"statistics": {**STATISTICS, "mean": [0, 0, int("9" * 400)]}}, "statistics.mean is"),
        ({"statistics": {"mean": [0, 0, 2]}}, "statistics.std is missing"),
        ({"statistics": {**STATISTICS, "std": [-1, 1, 1]}}, "statistics.std is"),
        ({"statistics": {**STATISTICS, "points": "many"}}, "statistics.points is 'many'"),
        ({"statistics": {**STATISTICS, "samples": -1}}, "statistics.samples is -1"),
        ({"statistics": {**STATISTICS, "std": [True, 1, 1]}}, "statistics.std is"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_dataset_json_of_strangers_is_refused_in_one_sentence(
    change: dict[str, object], words: str, version: int
) -> None:
    tree = {**json.loads(dataset_json({"layers": 6, "size": [8, 8], "statistics": STATISTICS})), **change}
    with pytest.raises(ValueError, match=re.escape(words)):
        dataset_json(tree)
    tree["version"] = version
    text = json.dumps({**tree, "digest": "0" * 64}, indent=2, sort_keys=True).encode() + b"\n"
    text = text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode())
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        parse_dataset_json(text, "data/dataset.json")
    assert str(error.value).startswith("data/dataset.json is damaged")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ('{"a": ' * 200_000 + "1" + "}" * 200_000, "nested too deeply"),
        ('{"format": "worldtrace", "version": 1, "layers": NaN, "size": [8, 8]}', "NaN is no number"),
        ('{"format": "worldtrace", "version": 1, "layers": 6, "size": [8, -Infinity]}', "-Infinity is no number"),
        (
            '{"format": "worldtrace", "version": 1, "layers": 6, "size": [8, 8], "statistics": {"mean": [1e999]}}',
            "statistics.mean",
        ),
        ('{"format": "worldtrace", "version": 1, "layers": ' + "9" * 10_000 + "}", "digits"),
    ],
)
def test_json_that_is_none_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"data.*is damaged.*{words}") as error:
        parse_dataset_json(text.encode(), "data")
    assert "\n" not in str(error.value)
