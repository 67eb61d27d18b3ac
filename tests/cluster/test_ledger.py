"""Records: whole or absent, and the same loose, in segments, as tables and again."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shards
from cluster import segments, tables
from cluster.ledger import Attempt, Folding, Ledger, Record
from shards import layout
from shards.store import open_store


def sample(name: str) -> shards.EncodedSample:
    origin = shards.Origin(name, "test", "ab" * 32)
    rgba, hits = np.zeros((4, 4, 4), np.uint8), np.ones((4, 4), np.uint8)
    view = shards.LayeredView(
        f"{name}-v000", rgba, hits, np.ones((2, 4, 4), np.float32), np.eye(3), np.eye(4), "object", origin
    )
    return shards.encode(view)


def attempt(unit: str, asset: str, number: int = 1, **values: object) -> Attempt:
    where = {"unit": unit, "asset": asset, "source": "test", "licence": "unknown", "sha256": "ab" * 32}
    return Attempt(**where, attempt=number, **{"views": 1, **values})


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    """Two units; the second has no sample."""
    rows = shards.write_shard(tmp_path / "shards" / "000000-aa.tar", [sample("x"), sample("y")])
    book = Ledger(open_store(tmp_path))
    retried = attempt("000000-aa", "y", status="failed", reason="crashed", views=0)
    book.write(Record("000000-aa", rows, [attempt("000000-aa", "x"), retried, attempt("000000-aa", "y", 2)]))
    rejected = attempt("000001-bb", "z", status="rejected", reason="no_faces", views=0, views_rejected=["0:thin"])
    book.write(Record("000001-bb", [], [rejected]))
    return book


UNITS = ["000000-aa", "000001-bb", "000002-cc"]


def shard_of(book: Ledger) -> Path:
    return Path(book.store.text) / "shards" / "000000-aa.tar"


def finish(book: Ledger) -> dict | None:
    return tables.finish(book, UNITS[:2], lambda: None)


def test_done_is_what_has_a_record_and_its_shard(book: Ledger) -> None:
    assert book.done(UNITS) == book.units() == {"000000-aa", "000001-bb"}
    shard = shard_of(book)
    shard.write_bytes(shard.read_bytes()[:2000])
    assert book.done(UNITS) == {"000001-bb"}
    shard.unlink()
    assert book.done(UNITS) == {"000001-bb"}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"unit": "000001-bb"}',
        b'{"unit":1,"samples":[],"attempts":[{}]}',
        b'{"unit":"000001-bb","samples":[1],"attempts":[]}',
        b'{"unit":"000001-bb","samples":[{}],"attempts":[]}',
        b'{"unit":"000001-bb","samples":[{"offset":0,"bytes":1}],"attempts":[]}',
        b'{"unit":"000001-bb","samples":[{"offset":"0","bytes":[]}],"attempts":[]}',
        b'{"unit":' + b"[" * 100_000,
        b'{"unit":"000001-bb","samples":[],"attempts":[{"unit":"","asset":"","source":"","licence":"","attempt":"one"}]}',
        b'{"unit":"000001-bb","samples":[],"attempts":[{"unit":"","asset":"","source":"","licence":"","attempt":1e99}]}',
    ],
)
def test_a_damaged_record_is_none(book: Ledger, damage: bytes) -> None:
    with book.store.writing("units/000001-bb.json") as file:
        file.write(damage)
    assert book.done(UNITS) == {"000000-aa"}
    with pytest.raises(ValueError, match="lost the record of unit 000001-bb: run the same command again"):
        finish(book)


def test_what_a_record_of_another_version_lacks_or_adds_does_not_matter(book: Ledger) -> None:
    record = book.read("000001-bb")
    assert record is not None
    content = book.store.read("units/000001-bb.json")
    with book.store.writing("units/000001-bb.json") as file:
        file.write(content.replace(b'"node":""', b'"planet":"Mars"').replace(b'"peak_memory":0,', b""))
    assert book.read("000001-bb") == record


def test_records_become_tables_and_records_again(book: Ledger) -> None:
    before = list(book.records(UNITS))
    finish(book)
    book.discard()
    assert not book.units()
    assert book.store.top() == ["ledger.parquet", "manifest.parquet", "shards"]
    assert tables.stand(book.store)
    assert list(tables.attempts(book.store)) == [row for record in before for row in record.attempts]
    manifest, ledger = book.store.read(layout.MANIFEST), book.store.read(layout.LEDGER)

    tables.reopen(book.store)
    assert [(each.unit, each.attempts) for each in book.records(UNITS)] == [
        (each.unit, each.attempts) for each in before
    ]
    assert [len(each.samples) for each in book.records(UNITS)] == [2, 0]
    assert book.done(UNITS) == {"000000-aa", "000001-bb"}
    finish(book)
    assert (book.store.read(layout.MANIFEST), book.store.read(layout.LEDGER)) == (manifest, ledger)


def test_a_segment_says_what_its_records_said(book: Ledger) -> None:
    before = list(book.records(UNITS))
    finish(book)
    manifest, ledger = book.store.read(layout.MANIFEST), book.store.read(layout.LEDGER)
    book.fold(0)
    assert list(book.store.sizes("units")) == ["units/0000.parquet"]
    assert [(each.unit, each.attempts) for each in book.records(UNITS)] == [
        (each.unit, each.attempts) for each in before
    ]
    assert book.units() == book.done(UNITS) == set(UNITS[:2])
    finish(book)
    assert (book.store.read(layout.MANIFEST), book.store.read(layout.LEDGER)) == (manifest, ledger)
    shard_of(book).unlink()
    assert book.done(UNITS) == {"000001-bb"}


def test_killed_between_a_segment_and_the_removal_of_its_records(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(book)
    manifest = book.store.read(layout.MANIFEST)
    with monkeypatch.context() as patch:
        patch.setattr(type(book.store), "delete", lambda store, names: None)
        book.fold(0)
    assert len(book.store.sizes("units")) == 3
    assert len(list(book.records(UNITS))) == 2
    finish(book)
    assert book.store.read(layout.MANIFEST) == manifest
    book.fold(0)
    assert list(book.store.sizes("units")) == ["units/0000.parquet"]
    finish(book)
    assert book.store.read(layout.MANIFEST) == manifest


def test_a_later_record_counts_and_not_the_row_of_the_segment(book: Ledger) -> None:
    book.fold(0)
    later = Record("000001-bb", [], [attempt("000001-bb", "z", status="rejected", reason="flat", views=0)])
    book.write(later)
    assert book.read("000001-bb") == later
    book.fold(0)
    assert book.read("000001-bb") == later
    assert book.units() == set(UNITS[:2])


def test_a_damaged_segment_is_none(book: Ledger) -> None:
    """No damage ends the job, and none gives other rows: cut off, another's table, or with a bit that fell over."""
    book.fold(0)
    name = segments.name_of(0)
    whole, before = book.store.read(name), list(book.records(UNITS))
    foreign = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), foreign)
    chance = random.Random(5)
    damages = [b"", b"PAR1 or not", whole[:-1], whole[: len(whole) // 2], foreign.getvalue().to_pybytes()]
    for place in chance.sample(range(len(whole)), 150):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << chance.randrange(8)
        damages.append(bytes(flipped))
    gone = 0
    for damage in damages:
        with book.store.writing(name) as file:
            file.write(damage)
        fresh = Ledger(book.store)
        done, records = fresh.done(UNITS), list(fresh.records(UNITS))
        assert (done, records) in [(set(), []), (set(UNITS[:2]), before), (set(UNITS[:2]), [])]
        if done and not records:  # what resume looks at is sound, and the rest is not
            with pytest.raises(ValueError, match="run the same command again"):
                list(fresh.blocks(UNITS[:2]))
            assert Ledger(book.store).done(UNITS) == set()
        gone += not records
    assert gone > 40


def test_what_is_none_of_ours_in_the_folder_of_records_is_left_alone(book: Ledger) -> None:
    strange = ["units/chapter1.doc", "units/data.json", "units/²-x.json", "units/²²²².parquet", "units/1.parquet"]
    for name in strange:
        with book.store.writing(name) as file:
            file.write(b"precious")
    assert book.units() == set(UNITS[:2])
    book.fold(0)
    book.discard()
    assert sorted(book.store.sizes("units")) == sorted(strange)


HOSTILE = [
    "EXT_\ud800",
    "a\udcff.obj",
    "\x1b]0;pwned\x07[bold red]x[/nope]",
    "two\nlines\x00",
    "x" * 100_000,
    "\u202egnp",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("old", [False, True])
def test_no_text_of_an_asset_stops_the_job_or_reaches_the_terminal(book: Ledger, text: str, old: bool) -> None:
    """Also where a version that did not know of them has written the record."""
    texts: dict[str, object] = {"reason": text, "message": text, "views_rejected": [text], "flags": [text], "views": 0}
    hostile = attempt("000001-bb", text, status="rejected", **texts)
    if old:
        vars(hostile).update(texts, asset=text, source=text, licence=text)
    book.write(Record("000001-bb", [], [hostile]))
    book.fold(0)
    finish(book)
    for found in list(tables.attempts(book.store))[-1:]:
        for value in (found.asset, found.reason, found.message, *found.views_rejected, *found.flags):
            assert value
            assert value.isprintable()
            assert len(value.encode()) <= 10_000
    assert attempt("000001-bb", "å/日本.obj", message="a  b").asset == "å/日本.obj"


def test_records_are_folded_once_their_block_is_whole(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "UNITS", 2)
    folding = Folding(book, UNITS, {"000000-aa"})
    book.write(Record("000002-cc", [], [attempt("000002-cc", "w", status="rejected", reason="flat", views=0)]))
    folding.committed("000001-bb")
    folding.committed("000002-cc")
    folding.close()
    assert sorted(book.store.sizes("units")) == ["units/0000.parquet", "units/0001.parquet"]
    assert [each.unit for each in book.records(UNITS)] == UNITS


def test_what_folding_raises_reaches_the_driver(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(block: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(book, "fold", full)
    folding = Folding(book, UNITS[:2], UNITS[:2])
    with pytest.raises(OSError, match="the disk is full"):
        folding.close()


@pytest.mark.parametrize("folded", [False, True])
def test_a_record_does_not_stand_beside_the_shard_of_another_attempt(book: Ledger, folded: bool) -> None:
    """Asset x failed at the first attempt at the unit and not at the second, or the other way round: the shard of one
    lies beside the record of the other.
    """
    if folded:
        book.fold(0)
    for samples in ([sample("x"), sample("y"), sample("z")], [sample("y")]):
        shards.write_shard(shard_of(book), samples)
        assert book.done(UNITS) == {"000001-bb"}


@pytest.mark.parametrize("folded", [False, True])
def test_what_is_recorded_of_a_unit_is_dropped(book: Ledger, folded: bool) -> None:
    if folded:
        book.fold(0)
        book.write(Record("000000-aa", [], [attempt("000000-aa", "x", status="failed", reason="crashed", views=0)]))
    book.drop(["000000-aa", "000002-cc"])
    assert book.units() == {"000001-bb"}
    book.fold(0)
    assert book.units() == {"000001-bb"}


@pytest.mark.parametrize("folded", [False, True])
def test_units_that_ended_for_a_reason_are_forgotten(book: Ledger, folded: bool) -> None:
    if folded:
        book.fold(0)
    assert book.forget({"crashed"}) == set()  # the attempt after that one was done
    assert book.forget({"no_faces"}) == {"000001-bb"}
    assert book.done(UNITS) == {"000000-aa"}
    assert book.forget({"no_faces"}) == set()


def test_a_unit_whose_rows_the_manifest_lacks_is_to_be_done(book: Ledger) -> None:
    rows = [row for record in book.records(UNITS) for row in record.samples]
    finish(book)
    book.discard()
    shards.write_manifest(book.store.text, rows[:1])
    assert not tables.stand(book.store)
    tables.reopen(book.store)
    assert book.done(UNITS) == {"000001-bb"}


def test_tables_do_not_stand_without_their_shards(book: Ledger) -> None:
    shards.write_manifest(book.store.text, [row for record in book.records(UNITS) for row in record.samples])
    assert not tables.stand(book.store)
    finish(book)
    assert tables.stand(book.store)
    shard_of(book).unlink()
    assert not tables.stand(book.store)


def test_statistics_are_those_of_the_records_and_else_measured_from_the_shards(book: Ledger) -> None:
    """The fixture wrote no moments, as an older version; then with those that a commit would have written."""
    measured = finish(book)
    shards.write_dataset_json(book.store.text, {"layers": 2, "size": [4, 4]})
    assert measured == shards.statistics(book.store.text)
    assert measured is not None
    record = book.read("000000-aa")
    assert record is not None
    with book.store.reading("shards/000000-aa.tar") as file:
        moments = tables.packed(*shards.moments.moments_of_shard(file, record.samples))
    book.write(replace(record, attempts=[*record.attempts[:-1], replace(record.attempts[-1], moments=moments)]))
    shard_of(book).unlink()
    assert finish(book) == measured


def test_nothing_appears_where_the_claim_was_lost(book: Ledger) -> None:
    def lost() -> None:
        raise ValueError("taken over")

    with pytest.raises(ValueError, match="taken over"):
        tables.finish(book, UNITS[:2], lost)
    assert book.store.top() == ["shards", "units"]
    assert list(book.store.sizes("shards")) == ["shards/000000-aa.tar"]
