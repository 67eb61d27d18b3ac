"""The tables of a finished dataset: written from its records as streams, checked, and turned into records again."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import shards
from cluster import segments
from cluster.ledger import Attempt, Ledger, attempt_of, stands
from shards import Moments, layout, manifest
from shards.ledger import LedgerWriter, with_columns
from shards.store import Store, under

ROWS = 1 << 14  # of a table that are looked at together


def finish(
    ledger: Ledger,
    units: Sequence[str],
    check: Callable[[], None],
    advance: Callable[[int, int | None], None] = lambda done, total: None,
) -> dict[str, Any] | None:
    """Write manifest.parquet and ledger.parquet from the records of `units`, in their order; -> the statistics.

    Memory is bounded by a block of units, and 16 bytes for each sample. `check` raises where the dataset is not ours
    any more: it is asked before anything appears. `advance(units done, units in all)`.
    """
    store = ledger.store
    measured, whole, done = 0, Moments(), 0
    with ExitStack() as stack:
        samples_file = stack.enter_context(store.writing(layout.MANIFEST))
        attempts_file = stack.enter_context(store.writing(layout.LEDGER))
        samples = stack.enter_context(shards.ManifestWriter(samples_file))
        attempts = stack.enter_context(LedgerWriter(attempts_file))
        for table in ledger.blocks(units):
            samples.write(segments.samples_of(table))
            attempts.write(segments.attempts_of(table))
            for count, moments in _moments(store, table):
                measured += count
                whole.merge(moments)
            done += len(table)
            advance(done, len(units))
        check()
    return shards.moments.as_json(whole, measured)


def attempts(store: Store) -> Iterator[Attempt]:
    """The rows of ledger.parquet, in the order of the plan. ValueError where it is damaged."""
    with _table(store, layout.LEDGER) as file:
        for batch in file.iter_batches(ROWS):
            yield from (attempt_of(row) for row in batch.to_pylist())


def exist(store: Store) -> bool:
    return {layout.LEDGER, layout.MANIFEST} <= set(store.top())


def stand(store: Store) -> bool:
    """Whether the dataset has its tables, every shard of which its manifest speaks, and a row of the manifest for
    every view of the ledger: a rebuilt manifest lacks those of lost shards.
    """
    if not exist(store):
        return False
    views: Counter[str] = Counter()
    with _table(store, layout.LEDGER) as file:
        for batch in file.iter_batches(ROWS, columns=["unit", "views"]):
            for row in _grouped(batch, "unit", [("views", "sum")]):
                views[row["unit"]] += row["views_sum"]
    found: Counter[str] = Counter()
    ends: dict[str, int] = {}
    with _table(store, layout.MANIFEST) as file:
        for batch in file.iter_batches(ROWS, columns=["shard", "offset", "bytes"]):
            end = pc.add(batch["offset"], batch["bytes"])
            table = pa.table({"shard": batch["shard"], "end": end})
            for row in _grouped(table, "shard", [("end", "max"), ("end", "count")]):
                unit = PurePosixPath(row["shard"]).stem
                found[unit] += row["end_count"]
                ends[unit] = max(ends.get(unit, 0), row["end_max"])
    if found != +views:
        return False
    there = store.sizes(layout.SHARDS) if ends else {}
    return all(stands(there, unit, end) for unit, end in ends.items())


def reopen(store: Store) -> None:
    """Tables back into segments: a lost shard can then be made again as in an unfinished dataset. A unit whose manifest
    rows are not as many as its views gets none.
    """
    if not exist(store):
        return
    with _table(store, layout.LEDGER) as ledger_file, _table(store, layout.MANIFEST) as manifest_file:
        rows = _blocks(manifest_file, "shard", manifest.SCHEMA)
        block, samples = next(rows, (-1, manifest.SCHEMA.empty_table()))
        for wanted, attempts in _blocks(ledger_file, "unit", shards.ledger.SCHEMA):
            while block != -1 and block < wanted:
                block, samples = next(rows, (-1, samples))
            here = samples if block == wanted else samples.slice(0, 0)
            with store.writing(segments.name_of(wanted)) as file:
                segments.write(file, segments.of_tables(attempts, here))


def _moments(store: Store, table: pa.Table) -> Iterator[tuple[int, Moments]]:
    """(samples measured, Moments) of each unit; from its shard where an older version recorded none."""
    for row, unit in enumerate(table["unit"].to_pylist()):
        attempts = table["attempts"][row].values
        kept = attempts.field("moments")[len(attempts) - 1].as_py() if len(attempts) else None
        if kept is not None:
            yield unpacked(kept)
        elif samples := table["samples"][row].as_py():
            with store.reading(f"{layout.SHARDS}/{unit}.tar") as file:
                yield shards.moments.moments_of_shard(file, samples)


def packed(samples: int, moments: Moments) -> list[float]:
    """As an attempt holds them: float64 holds the counts, too, which stay below 2^53."""
    return [float(samples), float(moments.count), *moments.mean.tolist(), *moments.squares.tolist()]


def unpacked(values: Sequence[float]) -> tuple[int, Moments]:
    samples, count, *rest = values
    return int(samples), Moments(int(count), np.array(rest[:3]), np.array(rest[3:]))


def _blocks(file: pq.ParquetFile, column: str, schema: pa.Schema) -> Iterator[tuple[int, pa.Table]]:
    """(block, its rows) of a table whose rows are in the order of units."""
    waiting: list[pa.Table] = []
    current = -1
    for batch in file.iter_batches(ROWS):
        table = with_columns(pa.Table.from_batches([batch]), schema)
        numbers = [segments.block_of(name) for name in table[column].to_pylist()]
        begin = 0
        while begin < len(numbers):
            end = begin
            while end < len(numbers) and numbers[end] == numbers[begin]:
                end += 1
            if numbers[begin] != current:
                if waiting:
                    yield current, pa.concat_tables(waiting)
                waiting, current = [], numbers[begin]
            waiting.append(table.slice(begin, end - begin))
            begin = end
    if waiting:
        yield current, pa.concat_tables(waiting)


def _grouped(batch: Any, by: str, what: list[tuple[str, str]]) -> list[dict[str, Any]]:
    table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
    return list(table.group_by(by).aggregate(what).to_pylist())


@contextmanager
def _table(store: Store, name: str) -> Iterator[pq.ParquetFile]:
    try:
        with store.reading(name) as file, pq.ParquetFile(file) as table:
            yield table
    except (pa.ArrowException, TypeError, KeyError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = (
            "restore it from a copy, or remove it and run the same render command again, which then renders everything "
            "anew"
        )
        if name == layout.MANIFEST:
            remedy = "restore it from a copy, or rebuild it with `worldtrace shards verify DIR --repair`"
        raise ValueError(f"{under(store, name)} is damaged ({first}): {remedy}") from None
