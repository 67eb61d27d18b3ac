"""Records on disk: whole or absent, and the same as records or as tables."""

from pathlib import Path

import numpy as np
import pytest

import shards
from cluster.ledger import Attempt, Ledger, Record


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
    book = Ledger(tmp_path)
    retried = attempt("000000-aa", "y", status="failed", reason="crashed", views=0)
    book.write(Record("000000-aa", rows, [attempt("000000-aa", "x"), retried, attempt("000000-aa", "y", 2)]))
    rejected = attempt("000001-bb", "z", status="rejected", reason="no_faces", views=0, views_rejected=["0:thin"])
    book.write(Record("000001-bb", [], [rejected]))
    return book


UNITS = ["000000-aa", "000001-bb", "000002-cc"]


def test_done_is_what_has_a_record_and_its_shard(book: Ledger) -> None:
    assert book.done(UNITS) == {"000000-aa", "000001-bb"}
    shard = book.folder / "shards" / "000000-aa.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    assert book.done(UNITS) == {"000001-bb"}
    shard.unlink()
    assert book.done(UNITS) == {"000001-bb"}


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"unit": "000001-bb"}', b'{"unit":1,"samples":[],"attempts":[{}]}']
)
def test_a_damaged_record_is_none(book: Ledger, damage: bytes) -> None:
    (book.records / "000001-bb.json").write_bytes(damage)
    assert book.done(UNITS) == {"000000-aa"}


def test_records_become_tables_and_records_again(book: Ledger) -> None:
    before = [book.read(unit) for unit in UNITS[:2]]
    shards.write_manifest(book.folder, book.samples(UNITS))
    book.merge(UNITS)
    book.discard()
    assert not book.records.exists()
    assert book.tables_stand()
    assert list(book.table()) == [row for record in before if record for row in record.attempts]

    book.reopen()
    after = [book.read(unit) for unit in UNITS[:2]]
    assert [record and record.attempts for record in after] == [record and record.attempts for record in before]
    shards.write_manifest(book.folder / "again", book.samples(UNITS))
    assert (book.folder / "again" / "manifest.parquet").read_bytes() == (book.folder / "manifest.parquet").read_bytes()


def test_a_unit_whose_rows_the_manifest_lacks_is_to_be_done(book: Ledger) -> None:
    rows = list(book.samples(UNITS))
    book.merge(UNITS)
    book.discard()
    shards.write_manifest(book.folder, rows[:1])
    assert not book.tables_stand()
    book.reopen()
    assert book.done(UNITS) == {"000001-bb"}


def test_tables_do_not_stand_without_their_shards(book: Ledger) -> None:
    shards.write_manifest(book.folder, book.samples(UNITS))
    assert not book.tables_stand()
    book.merge(UNITS)
    assert book.tables_stand()
    (book.folder / "shards" / "000000-aa.tar").unlink()
    assert not book.tables_stand()
