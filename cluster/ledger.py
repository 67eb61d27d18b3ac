"""What has been done: a row per asset and attempt, and a record per committed unit.

While a job runs, every committed unit has a small JSON record in `<dataset>/units/`, written after its shard. When all
units are committed the records are merged into `ledger.parquet` and `manifest.parquet` and removed. To resume is to
subtract the units that either form knows; so an unfinished and a finished dataset resume alike.

`ledger.parquet` holds times and host names and differs from run to run. Everything else in a dataset does not.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

import shards
from shards import layout

Status = Literal["done", "rejected", "failed"]

SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("asset", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("sha256", pa.string()),
        ("attempt", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("views", pa.int32()),
        ("views_rejected", pa.list_(pa.string())),
        ("flags", pa.list_(pa.string())),
        ("seconds_fetch", pa.float64()),
        ("seconds_load", pa.float64()),
        ("seconds_render", pa.float64()),
        ("seconds_encode", pa.float64()),
        ("seconds_commit", pa.float64()),
        ("peak_memory", pa.int64()),
        ("started", pa.float64()),
        ("host", pa.string()),
        ("node", pa.string()),
    ]
)


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


@dataclass(kw_only=True)
class Attempt(Outcome):
    """One attempt at one asset: a row of the ledger."""

    unit: str
    asset: str
    source: str
    licence: str
    attempt: int
    seconds_commit: float = 0.0  # of its unit; on the last attempt of the unit alone


@dataclass
class Record:
    """A committed unit: the manifest rows of its shard (none where every asset was rejected) and its attempts."""

    unit: str
    samples: list[dict[str, Any]]
    attempts: list[Attempt]


class Ledger:
    """The records of the dataset in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / layout.UNITS

    def write(self, record: Record) -> None:
        """Atomic: the record is there whole, or not at all."""
        with shards.committed(self.records / f"{record.unit}.json") as file:
            file.write(json.dumps(asdict(record), separators=(",", ":")).encode())

    def read(self, unit: str) -> Record | None:
        """The record of a unit that a running or interrupted job left; None where there is none, or a damaged one."""
        try:
            values = json.loads((self.records / f"{unit}.json").read_bytes())
            return Record(values["unit"], values["samples"], [Attempt(**attempt) for attempt in values["attempts"]])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def visible(self, unit: str) -> bool:
        """Whether the record that another node wrote is there for this one. To list a folder of NFS is to ask its
        server; to open a file that was absent a moment ago may not be.
        """
        for folder in (self.folder, self.records):
            with suppress(FileNotFoundError):
                os.listdir(folder)
        return self.read(unit) is not None

    def table(self) -> Iterator[Attempt]:
        """The rows of ledger.parquet, in the order of the plan. ValueError where it is damaged."""
        path = self.folder / layout.LEDGER
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches():
                    yield from (Attempt(**row) for row in batch.to_pylist())
        except (pa.ArrowException, OSError, TypeError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"{path} is damaged ({first}): restore it from a copy, or remove it and run the same render command "
                "again, which then renders everything anew"
            ) from None

    def tables_stand(self) -> bool:
        """Whether the dataset has its tables, every shard of which its manifest speaks, and a row of the manifest for
        every view of the ledger: a rebuilt manifest lacks those of lost shards.
        """
        if not self._has_tables():
            return False
        views: Counter[str] = Counter()
        for attempt in self.table():
            views[attempt.unit] += attempt.views
        places = shards.read_manifest(self.folder).select(["shard", "offset", "bytes"]).to_pylist()
        if Counter(Path(place["shard"]).stem for place in places) != views:
            return False
        ends = {place["shard"]: place["offset"] + place["bytes"] for place in places}  # sorted: the last one stays
        return all(self._stands(shard, end) for shard, end in ends.items())

    def reopen(self) -> None:
        """Tables back into records, where these are absent: a lost shard can then be made again as in an unfinished
        dataset. A unit whose manifest rows are not as many as its views gets none.
        """
        if not self._has_tables():
            return
        records: dict[str, Record] = {}
        for attempt in self.table():
            records.setdefault(attempt.unit, Record(attempt.unit, [], [])).attempts.append(attempt)
        for row in shards.read_manifest(self.folder).to_pylist():
            if (unit := Path(row["shard"]).stem) in records:
                records[unit].samples.append(row)
        for unit, record in records.items():
            views = sum(attempt.views for attempt in record.attempts)
            if len(record.samples) == views and self.read(unit) is None:
                self.write(record)

    def _has_tables(self) -> bool:
        return all((self.folder / name).exists() for name in (layout.LEDGER, layout.MANIFEST))

    def done(self, units: Sequence[str]) -> set[str]:
        """Those of `units` that are committed: they have a record, and the shard it speaks of is there in full."""
        return {unit for unit in units if (record := self.read(unit)) is not None and self._record_stands(record)}

    def _record_stands(self, record: Record) -> bool:
        if not record.samples:
            return True
        return self._stands(f"{record.unit}.tar", max(row["offset"] + row["bytes"] for row in record.samples))

    def _stands(self, shard: str, end: int) -> bool:
        path = self.folder / layout.SHARDS / shard
        return path.exists() and path.stat().st_size >= end

    def samples(self, units: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Manifest rows of committed units, in the order of `units`."""
        for unit in units:
            if (record := self.read(unit)) is not None:
                yield from record.samples

    def attempts(self, units: Sequence[str]) -> Iterator[Attempt]:
        for unit in units:
            if (record := self.read(unit)) is not None:
                yield from record.attempts

    def merge(self, units: Sequence[str]) -> None:
        """Write ledger.parquet from the records of `units`; `discard` removes these once all else is in place."""
        with (
            shards.committed(self.folder / layout.LEDGER) as file,
            pq.ParquetWriter(file, SCHEMA, compression="zstd") as out,
        ):
            for attempts in _batches(self.attempts(units), 1 << 16):
                out.write_table(pa.Table.from_pylist([asdict(attempt) for attempt in attempts], schema=SCHEMA))

    def discard(self) -> None:
        if self.records.is_dir():
            for path in self.records.iterdir():
                path.unlink()
            self.records.rmdir()


def _batches(rows: Iterator[Attempt], size: int) -> Iterator[list[Attempt]]:
    while batch := list(islice(rows, size)):
        yield batch
