"""What has been done: a row per asset and attempt, and a record per committed unit.

While a job runs, every committed unit has a small JSON record in `<dataset>/units/`, written after its shard. Once all
units of a block have one, the driver folds them into a segment (segments.py) and removes them: however large the job,
a resume lists two folders and reads some hundred files. When all units are committed the records become
`ledger.parquet` and `manifest.parquet` (tables.py) and are removed. To resume is to subtract the units that any form
knows; so an unfinished and a finished dataset resume alike. Where a unit has a record and a row in a segment, the
record counts: it is either the same or the later one.

`ledger.parquet` holds times and host names and differs from run to run. Everything else in a dataset does not.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby, islice
from typing import Any

import pyarrow as pa

from cluster import segments
from shards import layout, manifest
from shards.archive import END
from shards.ledger import Status, plain
from shards.store import Store, naming

READ_AHEAD = 256  # records, each with the manifest rows of a unit


@dataclass
class Outcome:
    """What an attempt came to. `views` counts the samples written; `views_rejected` has "view:reason" of others."""

    status: Status = "done"
    reason: str | None = None
    message: str | None = None
    views: int = 0
    views_rejected: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    sha256: str | None = None  # of the asset's main file; None where it was never had
    seconds_fetch: float = 0.0
    seconds_load: float = 0.0
    seconds_render: float = 0.0
    seconds_encode: float = 0.0
    peak_memory: int = 0  # bytes, of the worker's private memory
    started: float = 0.0  # seconds since 1970 by the clock of `host`; 0 where unknown
    host: str = ""
    node: str = ""  # Ray's id of it

    def __post_init__(self) -> None:
        """Texts that any table, terminal and file can hold, whatever an asset or a source put into them."""
        for name, value in vars(self).items():
            if isinstance(value, str):
                setattr(self, name, plain(value))
            elif isinstance(value, list) and value and isinstance(value[0], str):
                setattr(self, name, [plain(each) for each in value])


@dataclass(kw_only=True)
class Attempt(Outcome):
    """One attempt at one asset: a row of the ledger.

    The last one of a unit carries what belongs to the unit: the seconds of its commit, and the moments of its samples
    as (samples measured, points, mean xyz, squares xyz), for shards/moments.py.
    """

    unit: str
    asset: str
    source: str
    licence: str
    attempt: int
    seconds_commit: float = 0.0
    moments: list[float] | None = None


_FIELDS = {entry.name for entry in fields(Attempt)}


@dataclass
class Record:
    """A committed unit: the manifest rows of its shard (none where every asset was rejected) and its attempts."""

    unit: str
    samples: list[dict[str, Any]]
    attempts: list[Attempt]

    @property
    def seconds_commit(self) -> float:
        return self.attempts[-1].seconds_commit if self.attempts else 0.0


def attempt_of(row: dict[str, Any]) -> Attempt:
    """From a row of a table or a record, which an older or a later version may have written."""
    return Attempt(**{name: value for name, value in row.items() if name in _FIELDS and value is not None})


class Ledger:
    """The records of an unfinished dataset."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._ends: dict[tuple[str, int], dict[str, int]] = {}  # of segments that were read, by name and size

    def write(self, record: Record) -> None:
        """Atomic: the record is there whole, or not at all."""
        samples = [manifest.to_json_row(row) for row in record.samples]
        attempts = [asdict(attempt) for attempt in record.attempts]
        values = {"unit": record.unit, "samples": samples, "attempts": attempts}
        with self.store.writing(_name(record.unit)) as file:
            file.write(json.dumps(values, separators=(",", ":")).encode())

    def read(self, unit: str) -> Record | None:
        """The record of a unit; None where there is none, or a damaged one."""
        return next(self.records([unit]), None)

    def visible(self, unit: str) -> bool:
        """Whether the record that another node has written is there for this one; asks nobody where it must be."""
        return self.store.consistent or (self.store.exists(_name(unit)) and self._parsed(unit) is not None)

    def units(self) -> set[str]:
        """Those that have a record, by one listing and the names in segments. Their shards are not looked at."""
        loose, folded = self._listing()
        return {*loose, *(unit for name, size in folded.items() for unit in self._segment_ends(name, size))}

    def done(self, units: Collection[str]) -> set[str]:
        """Those of `units` that are committed: they have a record, and the shard it speaks of is there in full."""
        loose, folded = self._listing()
        ends: dict[str, int] = {}
        for name, size in folded.items():
            ends.update(self._segment_ends(name, size))
        for record in self._all_loose(loose):
            ends[record.unit] = segments.end_of(record.samples)
        shards = self.store.sizes(layout.SHARDS) if any(ends.values()) else {}
        return {unit for unit in units if (end := ends.get(unit)) is not None and stands(shards, unit, end)}

    def records(self, units: Iterable[str], samples: bool = True) -> Iterator[Record]:
        """The records of `units` that have one, in the order given as far as it is that of blocks; a block's segment is
        read once. Without `samples` these are left empty, which is quicker by far.
        """
        loose, folded = self._listing()
        columns = None if samples else ["unit", "attempts"]
        for block, of_block in groupby(units, segments.block_of):
            wanted = list(of_block)
            found = {record.unit: record for record in self._all_loose([unit for unit in wanted if unit in loose])}
            name = segments.name_of(block)
            if name in folded and any(unit not in found for unit in wanted):
                for row in self._segment(name, columns).to_pylist():
                    attempts = [attempt_of(attempt) for attempt in row["attempts"]]
                    found.setdefault(row["unit"], Record(row["unit"], row.get("samples") or [], attempts))
            for unit in wanted:
                if (record := found.get(unit)) is not None:
                    yield record if samples else Record(unit, [], record.attempts)

    def blocks(self, units: Sequence[str]) -> Iterator[pa.Table]:
        """Tables of segments.SCHEMA that hold `units` in their order, block by block. ValueError naming the first unit
        that has no record, which the next run makes: the tables of a dataset have no silent gap.
        """
        loose, folded = self._listing()
        by_block: dict[int, list[str]] = defaultdict(list)
        for unit in loose:
            by_block[segments.block_of(unit)].append(unit)
        for block, of_block in groupby(units, segments.block_of):
            wanted = list(of_block)
            table = self._block(block, by_block[block], segments.name_of(block) in folded)
            place = {unit: index for index, unit in enumerate(table["unit"].to_pylist())}
            if missing := [unit for unit in wanted if unit not in place]:
                name = segments.name_of(block)
                if name in folded and not len(self._segment(name, None)):
                    self.store.delete([name])  # `done` looks at two of its columns, and would find it sound once more
                raise ValueError(
                    f"{self.store.text} has lost the record of unit {missing[0]}: run the same command again, which "
                    "makes it anew"
                )
            yield table.take([place[unit] for unit in wanted])

    def fold(self, block: int) -> None:
        """The records of a block into its segment. Killed in between, both are there and say the same."""
        loose, folded = self._listing()
        units = [unit for unit in loose if segments.block_of(unit) == block]
        if not units:
            return
        name = segments.name_of(block)
        table = self._block(block, units, name in folded)
        with self.store.writing(name) as file:
            segments.write(file, table)
        there = set(table["unit"].to_pylist())
        self.store.delete(_name(unit) for unit in units if unit in there)

    def forget(self, reasons: Collection[str]) -> set[str]:
        """Drop the records of the units in which an asset ended rejected or failed for one of `reasons`, so that they
        are made again; returns their names.
        """
        dropped: set[str] = set()
        loose, folded = self._listing()
        for record in self._all_loose(loose):
            if _ended_in(record.attempts, reasons):
                dropped.add(record.unit)
        for name in folded:
            for row in self._segment(name, ["unit", "attempts"]).to_pylist():
                if _ended_in([attempt_of(each) for each in row["attempts"]], reasons):
                    dropped.add(row["unit"])
        self.drop(dropped)
        return dropped

    def drop(self, units: Collection[str]) -> None:
        """Remove what is recorded of `units`. Call it before they are made again: assets may end otherwise this time,
        and a record that outlives its shard would speak of bytes that are not there.
        """
        loose, folded = self._listing()
        for name in {segments.name_of(segments.block_of(unit)) for unit in units} & folded.keys():
            table = self._segment(name, None)
            rest = segments.without(table, units)
            if len(rest) < len(table):
                with self.store.writing(name) as file:
                    segments.write(file, rest)
        self.store.delete([_name(unit) for unit in units if unit in loose])
        self._ends.clear()

    def discard(self) -> None:
        """Remove the records, and no file of another's; `tables.finish` has made them needless."""
        loose, folded = self._listing()
        self.store.delete([*map(_name, loose), *folded])

    def waiting(self) -> list[int]:
        """The blocks that have records which are not folded yet."""
        loose, _ = self._listing()
        return sorted({segments.block_of(unit) for unit in loose})

    def _listing(self) -> tuple[dict[str, int], dict[str, int]]:
        """(units with a record of their own, segments), each with their bytes."""
        listed = self.store.sizes(layout.UNITS)
        loose, folded = {}, {}
        for name, size in listed.items():
            if naming.is_record(name):
                loose[name.rpartition("/")[2].removesuffix(".json")] = size
            elif naming.is_segment(name):
                folded[name] = size
        return loose, folded

    def _loose(self, unit: str) -> Record | None:
        """The record of its own that a unit has; None where it is damaged in whatever way."""
        record = self._parsed(unit)
        try:
            return record if record is not None and segments.is_sound(_table([record])) else None
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, pa.ArrowException):
            return None

    def _parsed(self, unit: str) -> Record | None:
        """That record as far as it is JSON of this form: what its rows hold is not looked at."""
        try:
            content = self.store.read(_name(unit))
        except FileNotFoundError:
            return None
        try:
            values = json.loads(content)
            samples = [manifest.from_json_row(row) for row in values["samples"]]
            record = Record(values["unit"], samples, [attempt_of(each) for each in values["attempts"]])
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            return None
        return record if record.unit == unit else None

    def _all_loose(self, units: Iterable[str]) -> Iterator[Record]:
        """The records of their own that `units` have; some hundred are held at a time."""
        units = iter(units)
        with ThreadPoolExecutor(self.store.concurrency) as pool:
            while some := list(islice(units, READ_AHEAD)):
                found = pool.map(self._loose, some) if self.store.concurrency > 1 else map(self._loose, some)
                yield from (record for record in found if record is not None)

    def _block(self, block: int, loose: Collection[str], folded: bool) -> pa.Table:
        records = list(self._all_loose(loose))
        table = _table(records)
        if folded:
            rest = segments.without(self._segment(segments.name_of(block), None), [record.unit for record in records])
            table = pa.concat_tables([rest, table])
        return table.sort_by("unit")

    def _segment(self, name: str, columns: list[str] | None) -> pa.Table:
        """Its table; an empty one where it is gone, damaged or none of ours, so that its units are made again. A store
        that cannot be read raises: of its segments nothing is known.
        """
        try:
            return segments.parsed(self.store.read(name), columns)
        except FileNotFoundError:
            return segments.schema_of(columns).empty_table()

    def _segment_ends(self, name: str, size: int) -> dict[str, int]:
        if (name, size) not in self._ends:
            table = self._segment(name, ["unit", "end"])
            self._ends[name, size] = dict(zip(table["unit"].to_pylist(), table["end"].to_pylist()))
        return self._ends[name, size]


class Folding:
    """Folds the records of a block as soon as all its units are committed, beside the driver, in a thread of its own.

    `names` are the units of the job, `done` those that are committed already.
    """

    def __init__(self, ledger: Ledger, names: Sequence[str], done: Collection[str]) -> None:
        self.ledger = ledger
        self.left: Counter[int] = Counter(segments.block_of(name) for name in names if name not in done)
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="fold")
        self.folding: list[Future[None]] = []
        for block in ledger.waiting():
            self._fold(block)  # of a job that was killed before it did so

    def committed(self, unit: str) -> None:
        """Call it once for each. Raises what the folding of an earlier block raised."""
        block = segments.block_of(unit)
        self.left[block] -= 1
        self._fold(block)
        self._raise(self.folding[:1] if self.folding and self.folding[0].done() else [])

    def close(self) -> None:
        self.pool.shutdown(wait=True)
        self._raise(self.folding)

    def _fold(self, block: int) -> None:
        if not self.left[block]:
            self.folding.append(self.pool.submit(self.ledger.fold, block))

    def _raise(self, futures: Sequence[Future[None]]) -> None:
        for future in futures:
            future.result()
            self.folding.remove(future)


def stands(shards: dict[str, int], unit: str, end: int) -> bool:
    """Whether the shard of a unit is the one that its record speaks of, by a listing of all: of exactly its size. One
    in which other assets failed has another.
    """
    return not end or shards.get(f"{layout.SHARDS}/{unit}.tar", -1) == end + len(END)


def _ended_in(attempts: Sequence[Attempt], reasons: Collection[str]) -> bool:
    """Whether the last attempt at any of the assets is none that was done, for one of `reasons`."""
    following = [*attempts[1:], None]
    return any(
        attempt.status != "done" and attempt.reason in reasons
        for attempt, after in zip(attempts, following)
        if after is None or after.attempt == 1
    )


def _table(records: Iterable[Record]) -> pa.Table:
    return segments.table_of(
        {"unit": each.unit, "samples": each.samples, "attempts": [asdict(attempt) for attempt in each.attempts]}
        for each in records
    )


def _name(unit: str) -> str:
    return f"{layout.UNITS}/{unit}.json"
