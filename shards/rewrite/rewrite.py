"""New datasets out of old ones: samples are copied byte by byte, checked against their hashes, and never decoded.

What a plan (plan.py) puts into a shard depends on manifests alone, and a shard is named after its contents. So
the bytes do not depend on the number of threads, and a run that was killed goes on where it stood: beside each shard a
record with its manifest rows is kept in `units/` until all are there and become the tables of a finished dataset.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import ledger
from ..amount import sized
from ..archive import split_part
from ..check.verify_shard import healed
from ..dataset_json import dataset_json, parse_dataset_json
from ..errors import CorruptSample
from ..layout import DATASET_JSON, LEDGER, LOCK, MANIFEST, SHARDS, UNITS
from ..ledger import LedgerWriter
from ..manifest import ManifestWriter, members_of
from ..parallel import cores
from ..store import Store, under
from ..store.local import LocalStore
from ..store.naming import is_left_over
from ..writer import parts_into
from . import records
from .inputs import Input, open_input
from .plan import INPUT, Cut, Planned, planned

RUN = 32 << 20  # bytes that are read at once, where samples lie side by side
SPARE = 64 << 20  # bytes that must be left on a disk
ROW = 400  # bytes that a sample may take in the tables, twice for a moment
REMOTE = 16  # threads for a bucket
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Output:
    """Where a dataset is written, and what its dataset.json says: layers, size, derived, ... (no path, no time)."""

    store: Store
    header: Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """A finished dataset. `lost` names what was left out as damaged: shard, asset and why."""

    text: str
    samples: int
    bytes: int
    shards: int
    hash: str
    lost: list[dict[str, str]] = field(default_factory=list)


def rewrite(
    inputs: Sequence[Input],
    to: Sequence[np.ndarray],
    outputs: Sequence[Output],
    cut: Cut | None = None,
    *,
    skip_damaged: bool = False,
    workers: int | None = None,
    advance: Advance = lambda done, total: None,
) -> list[Made]:
    """Write `outputs`; `to[i]` (n,) says into which of them each row of input i goes, negative: into none.

    Whole or not at all: a dataset.json that says `complete` comes last. Where outputs were begun by the same call they
    are gone on with, and what was left out as damaged is looked at again; ValueError where another dataset is there,
    OSError where the disk is too small, CorruptSample where the bytes of a sample are not those of its manifest row
    (with `skip_damaged` it is left out and told).
    `advance(samples done, samples in all)`.
    """
    _refuse_overlap(inputs, outputs)
    counts, sizes = _totals(inputs, to, len(outputs))
    with ExitStack() as stack:
        claims = [stack.enter_context(output.store.claim()) for output in outputs]
        finished = [_is_finished(output, skip_damaged) for output in outputs]
        _refuse_full_disk(outputs, sizes, finished)
        for output in outputs:
            if not output.store.exists(DATASET_JSON):
                _write_header(output.store, {**output.header, "statistics": None, "complete": False})
        there = [{} if done else output.store.sizes(SHARDS) for output, done in zip(outputs, finished)]
        job = _Job(inputs, outputs, there, skip_damaged)
        shards = [0] * len(outputs)
        total = sum(counts)
        done = sum(count for count, was in zip(counts, finished) if was)
        advance(done, total)

        def plan() -> Iterator[Planned]:
            for each in planned(inputs, to, cut or Cut()):
                if not finished[each.output]:
                    shards[each.output] += 1
                    yield each

        for count in _in_threads(job.commit, plan(), workers or _threads(inputs, outputs)):
            done += count
            advance(done, total)
            for claim in claims:
                if claim.lost:
                    claim.check()
        made = []
        for output, claim, was, count in zip(outputs, claims, finished, shards):
            claim.check()
            if not was:
                _finish(inputs, output, count, claim.check)
            output.store.sweep()
            output.store.delete([name for name in output.store.sizes(UNITS) if records.is_record(name)])
            made.append(_made(output))
    return made


@dataclass(frozen=True)
class _Job:
    inputs: Sequence[Input]
    outputs: Sequence[Output]
    there: Sequence[Mapping[str, int]]  # of each output, the shards that an earlier run has written, and their bytes
    skip_damaged: bool

    def commit(self, plan: Planned) -> int:
        """Write a shard and then its record, unless both stand; -> its samples, lost ones included."""
        store, name = self.outputs[plan.output].store, f"{plan.stem}.tar"
        if not records.stands(store, plan.index, name, self.there[plan.output]):
            lost: list[dict[str, str]] = []
            rows: list[dict[str, Any]] = []
            parts = self._parts(plan.table, lost)
            if (first := next(parts, None)) is not None:
                with store.writing(f"{SHARDS}/{name}") as file:
                    rows = parts_into(file, name, _chained(first, parts))
            else:
                store.delete([f"{SHARDS}/{name}"])  # an earlier run may have found some of it sound
            records.write(store, plan.index, name, rows, lost)
        return len(plan.table)

    def _parts(self, table: pa.Table, lost: list[dict[str, str]]) -> Iterator[tuple[dict[str, Any], bytes]]:
        for run in _runs(table.to_pylist()):
            source = self.inputs[run[0].pop(INPUT)]
            begin, end = run[0]["offset"], run[-1]["offset"] + run[-1]["bytes"]
            name = f"{SHARDS}/{run[0]['shard']}"
            size = source.shard_size(run[0]["shard"])
            content = b""
            if size is not None and begin < size:
                content = source.store.part(name, begin, min(end, size) - begin)
            for row in run:
                row.pop(INPUT, None)
                part = content[row["offset"] - begin :][: row["bytes"]]
                where = f"{row['key']} in {under(source.store, name)}"
                try:
                    if size is None:
                        raise CorruptSample(f"{where}: the shard is missing")
                    if hashlib.sha256(part).hexdigest() != row["sha256"]:
                        part = healed(row, part) or b""  # only headers or padding of the archive are damaged
                    if not part:
                        raise CorruptSample(f"{where}: the bytes are not those of the manifest (sha256 differs)")
                    if not row["members"]:  # version 1
                        row["members"] = members_of(split_part(row["key"], part, where))
                except CorruptSample as error:
                    if not self.skip_damaged:
                        remedy = "restore the shard from a copy, or leave the sample out with --skip-damaged"
                        raise CorruptSample(f"{error}: {remedy}") from None
                    told = {name: row[name] for name in ("key", "shard", "asset", "source", "licence", "asset_sha256")}
                    lost.append({**told, "why": str(error)})
                else:
                    yield row, part


def _runs(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows that follow each other in one shard of one input, as many as RUN bytes hold."""
    run: list[dict[str, Any]] = []
    for row in rows:
        if run:
            last = run[-1]
            follows = (row[INPUT], row["shard"], row["offset"]) == (
                last[INPUT],
                last["shard"],
                last["offset"] + last["bytes"],
            )
            if not follows or row["offset"] + row["bytes"] - run[0]["offset"] > RUN:
                yield run
                run = []
        run.append(row)
    if run:
        yield run


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _in_threads(work: Callable[[Planned], int], plans: Iterator[Planned], workers: int) -> Iterator[int]:
    """work(plan) of all plans, a few ahead. Reading, hashing and writing leave Python's lock, so threads serve."""
    waiting: deque[Future[int]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="rewrite")
    try:
        for plan in plans:
            waiting.append(pool.submit(work, plan))
            while len(waiting) > workers or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _threads(inputs: Sequence[Input], outputs: Sequence[Output]) -> int:
    """One for each core, and more where each waits for a network."""
    stores = [*(source.store for source in inputs), *(output.store for output in outputs)]
    return max(cores(), REMOTE if any(store.concurrency > 1 for store in stores) else 1)


def _totals(inputs: Sequence[Input], to: Sequence[np.ndarray], outputs: int) -> tuple[list[int], list[int]]:
    """Samples of each output, and the bytes that it takes on a disk."""
    counts, sizes = np.zeros(outputs, np.int64), np.zeros(outputs, np.int64)
    for source, into in zip(inputs, to, strict=True):
        begin = 0
        for table in source.batches(["bytes"]):
            here = into[begin : begin + len(table)]
            begin += len(table)
            np.add.at(counts, here[here >= 0], 1)
            np.add.at(sizes, here[here >= 0], table["bytes"].to_numpy()[here >= 0] + ROW)
    return counts.tolist(), sizes.tolist()


def _refuse_overlap(inputs: Sequence[Input], outputs: Sequence[Output]) -> None:
    places = [_place(output.store) for output in outputs]
    for number, place in enumerate(places):
        for other in [*(_place(source.store) for source in inputs), *places[:number]]:
            if place == other or place.startswith(f"{other}/") or other.startswith(f"{place}/"):
                raise ValueError(
                    f"{outputs[number].store.text} is, holds or lies in {other}, which is read or written too: give "
                    "another --out"
                )


def _place(store: Store) -> str:
    if isinstance(store, LocalStore):
        return os.path.realpath(store.text)
    return store.text.rstrip("/").replace("gcs://", "gs://").replace("abfs://", "az://")  # two names of one scheme


def _refuse_full_disk(outputs: Sequence[Output], sizes: Sequence[int], finished: Sequence[bool]) -> None:
    """OSError where a disk has less room than what is to be copied onto it."""
    needed: dict[int, int] = {}
    where: dict[int, Path] = {}
    for output, size, was in zip(outputs, sizes, finished):
        if isinstance(output.store, LocalStore) and not was:
            disk = output.store.folder.stat().st_dev  # the claim has made the folder
            left = size - sum(output.store.sizes(SHARDS).values())
            needed[disk] = needed.get(disk, 0) + max(left, 0)
            where[disk] = output.store.folder
    for disk, size in needed.items():
        free = shutil.disk_usage(where[disk]).free
        if size + SPARE > free:
            raise OSError(
                f"{where[disk]} needs {sized(size)} and {sized(SPARE)} to spare, but its disk has {sized(free)} free: "
                "make room, or give another --out"
            )


def _is_finished(output: Output, skip_damaged: bool) -> bool:
    """Whether the dataset is there already, finished. ValueError where the place holds anything but what an earlier run
    of the same call has left, or less than this one asks for.
    """
    store = output.store
    text = under(store, DATASET_JSON)
    try:
        stored = parse_dataset_json(store.read(DATASET_JSON), text)
    except FileNotFoundError:
        strangers = [name for name in store.top() if name != LOCK and not is_left_over(name)]
        if strangers:
            raise ValueError(f"{store.text} holds {strangers[0]!r}: give an empty or a new place as --out") from None
        return False
    ours = json.loads(dataset_json(output.header))
    for name in ("derived", "layers", "size"):
        if stored.get(name) != ours.get(name):
            raise ValueError(
                f"{store.text} holds another dataset ({name} differs): give an empty or a new place as --out"
            )
    complete = bool(stored.get("complete"))
    if complete and stored.get("lost") and not skip_damaged:
        raise ValueError(
            f"{store.text} holds this dataset without {stored['lost']} damaged samples: give --skip-damaged if it "
            "shall stay so, or another --out"
        )
    return complete


def _write_header(store: Store, header: Mapping[str, Any]) -> None:
    with store.writing(DATASET_JSON) as file:
        file.write(dataset_json(header))


def _finish(inputs: Sequence[Input], output: Output, shards: int, check: Callable[[], None]) -> None:
    """Tables from the records, then dataset.json."""
    store = output.store
    lost: list[dict[str, str]] = []
    with store.writing(MANIFEST) as file, ManifestWriter(file) as writer:
        for index in range(shards):
            rows, gone = records.read(store, index)
            writer.write(rows)
            lost += gone
        check()
    if lost or any(source.store.exists(LEDGER) for source in inputs):
        with store.writing(LEDGER) as file, LedgerWriter(file) as rows_of_ledger:
            for table in _ledgers(inputs):
                rows_of_ledger.write(table)
            rows_of_ledger.write(map(_lost_row, lost))
            check()
    statistics = None if lost else output.header.get("statistics")
    told = {"lost": len(lost)} if lost else {}
    _write_header(store, {**output.header, **told, "statistics": statistics, "complete": True})


def _ledgers(inputs: Sequence[Input]) -> Iterator[pa.Table]:
    """Their rows one after the other; a row that an earlier input has, too, comes once: parts of one dataset all have
    its ledger.
    """
    before: set[bytes] = set()
    for source in inputs:
        own: list[bytes] = []
        if not source.store.exists(LEDGER):
            continue
        with source.store.reading(LEDGER) as file:
            for table in ledger.batches(file):
                if len(inputs) > 1:
                    of = [hashlib.blake2b(repr(row).encode(), digest_size=16).digest() for row in table.to_pylist()]
                    own += of
                    table = table.filter(pa.array([digest not in before for digest in of], pa.bool_()))
                yield table
        before.update(own)


def _lost_row(lost: Mapping[str, str]) -> dict[str, Any]:
    return ledger.row(
        unit=lost["shard"].removesuffix(".tar"),
        asset=lost["asset"],
        source=lost["source"],
        licence=lost["licence"],
        sha256=lost["asset_sha256"],
        status="failed",
        reason="damaged",
        message=lost["why"],
    )


def _made(output: Output) -> Made:
    """As it lies there."""
    store = output.store
    whole = open_input(store.text)
    lost: list[dict[str, str]] = []
    if whole.config.get("lost"):
        with store.reading(LEDGER) as file:
            for table in ledger.batches(file, ["unit", "asset", "reason", "message"]):
                damaged = table.filter(pc.equal(table["reason"], "damaged")).to_pylist()
                lost += [{"shard": row["unit"], "asset": row["asset"], "why": row["message"]} for row in damaged]
    return Made(store.text, whole.samples, whole.bytes, len(store.sizes(SHARDS)), whole.hash, lost)
