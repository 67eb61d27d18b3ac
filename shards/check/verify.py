"""Is a dataset what was written? Every byte of every shard, every row of the manifest, every file of the folder."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import ledger, manifest, seal
from ..amount import counted
from ..dataset_json import VERSION, parse_dataset_json
from ..layout import DATASET_JSON, FINISHED, LEDGER, MANIFEST, SHARDS, TEMPORARY, UNFINISHED
from ..parallel import in_processes
from ..rewrite.inputs import digests, manifest_batches, open_manifest
from ..store import Store, open_store, under
from ..store.local import LocalStore
from ..unfinished import REMEDY, is_unfinished
from .accounts import is_expected, unaccounted
from .verify_shard import Problem, Task, check_shard, remedy

Progress = Callable[[int, int], None]
NAMED = 5  # keys that a message names


@dataclass(frozen=True)
class Verdict:
    """`samples`, `shards` and `bytes` are those of the manifest; `lost` the keys of samples that cannot be read."""

    samples: int = 0
    shards: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def lost(self) -> list[str]:
        return sorted({key for problem in self.problems for key in problem.keys})


def verify(place: str | PathLike[str], progress: Progress | None = None) -> list[Problem]:
    """Everything that is wrong with the dataset at a path or URL; an empty list if nothing is. In this process."""
    return inspect(place, progress, workers=1).problems


def inspect(
    place: str | PathLike[str], progress: Progress | None = None, workers: int | None = None, quick: bool = False
) -> Verdict:
    """Everything that is wrong with a dataset, and how much there is of it.

    Every sample is read, hashed and decoded, and its manifest row computed anew; the rows of a shard must cover it from
    its first byte to its end mark; the tables must be those that were sealed. `workers` processes share the shards
    (None: one for each core). With `quick` shards are not read but for their sizes and ends. Memory is bounded by a
    shard's rows and a few samples for each worker, and 16 bytes for each key. `progress(samples done, in all)` is
    called after every shard. FileNotFoundError where nothing is there.
    """
    store = open_store(place)
    if isinstance(store, LocalStore) and not store.folder.is_dir():
        raise FileNotFoundError(f"{place} is not a folder: give the one that `worldtrace render --out` wrote")
    there = _listed(store)
    config, problems = _header(store)
    version = int(config.get("version", VERSION))
    told = list(_ledger(store, config))
    problems += [*_strangers(store), *told]
    begun = is_unfinished(store)
    if begun:
        problems.append(Problem(DATASET_JSON, f"the dataset is not finished: {REMEDY}"))
    try:
        facts = _facts(store, version)
    except (ValueError, FileNotFoundError) as error:
        if not begun or isinstance(error, ValueError):
            problems.append(Problem(MANIFEST, str(error)))
        return Verdict(problems=problems)
    problems += facts.problems
    if not told and store.exists(LEDGER):
        with suppress(ValueError):  # of a column of the manifest, which is told below
            problems += unaccounted(store, config)
    if there is not None:
        for shard in sorted(there - facts.shards):
            name = f"{SHARDS}/{shard}"
            problems.append(Problem(name, "is not in the manifest: foreign, or the manifest is old"))
    done = 0
    tasks = (Task(store, shard, rows, quick) for shard, rows in rows_by_shard(store, facts.ordered))
    sizes: list[int] = []

    def drawn() -> Iterator[Task]:
        for task in tasks:
            sizes.append(len(task.rows))
            yield task

    try:
        for number, found in enumerate(in_processes(check_shard, drawn(), workers, facts.bytes)):
            problems += found
            done += sizes[number]
            if progress is not None:
                progress(done, facts.samples)
    except ValueError as error:  # of a column of the manifest that was not read before
        problems.append(Problem(MANIFEST, str(error)))
    return Verdict(facts.samples, len(facts.shards), facts.bytes, _placed(store, problems))


@dataclass(frozen=True)
class _Facts:
    samples: int
    bytes: int
    shards: set[str]
    ordered: bool
    problems: list[Problem]


def _facts(store: Store, version: int) -> _Facts:
    """What one pass over a few columns of the manifest tells."""
    problems: list[Problem] = []
    with open_manifest(store) as file:
        if not seal.holds(file, version):
            what = "its seal is broken, it is not what was written: rebuild it with `verify --repair`"
            problems.append(Problem(MANIFEST, what))
    samples = size = train = 0
    shards: set[str] = set()
    keys: list[np.ndarray] = [np.zeros((0, 2), np.uint64)]
    ordered, last = True, ("", -1)
    for table in manifest_batches(store, ["key", "shard", "offset", "bytes", "split", "regime"]):
        shard, offset = table["shard"].to_pylist(), table["offset"].to_pylist()
        places = [last, *zip(shard, offset)]
        ordered = ordered and all(left < right for left, right in pairwise(places))
        last = places[-1]
        shards.update(shard)
        keys.append(digests(table["key"]))
        samples += len(table)
        size += pc.sum(table["bytes"]).as_py() or 0
        counted = pc.and_(pc.equal(table["split"], "train"), pc.not_equal(table["regime"], "scene"))
        train += pc.sum(counted).as_py() or 0
    if not ordered:
        problems.append(Problem(MANIFEST, "the rows are not in the order of (shard, offset)"))
    problems += [Problem(MANIFEST, f"key {key} comes twice") for key in _doubled(store, np.concatenate(keys))]
    problems += _statistics(store, train)
    return _Facts(samples, size, shards, ordered, problems)


def rows_by_shard(store: Store, ordered: bool = True) -> Iterator[tuple[str, pa.Table]]:
    """(shard, its manifest rows), as a stream where the rows are in order; else they are sorted in memory."""
    if ordered:
        tables = manifest_batches(store)
    else:
        whole = pa.concat_tables([manifest.SCHEMA.empty_table(), *manifest_batches(store)])
        tables = iter([whole.take(pc.sort_indices(whole, [("shard", "ascending"), ("offset", "ascending")]))])
    waiting: list[pa.Table] = []
    current: str | None = None
    for table in tables:
        if not len(table):
            continue
        shard = table["shard"].combine_chunks()
        changes = np.flatnonzero(pc.not_equal(shard[1:], shard[:-1]).to_numpy(zero_copy_only=False)) + 1
        for begin, end in zip([0, *changes], [*changes, len(table)]):
            name = shard[int(begin)].as_py()
            if current is not None and name != current:
                yield current, pa.concat_tables(waiting)
                waiting = []
            current = name
            waiting.append(table.slice(begin, end - begin))
    if current is not None:
        yield current, pa.concat_tables(waiting)


def _placed(store: Store, problems: list[Problem]) -> list[Problem]:
    """Of shards that hold nothing of their own: which other shard's content it is, and where their own lies."""
    strange = {problem.content: problem.where for problem in problems if problem.content}
    if not strange:
        return problems
    stated: dict[str, str] = {}
    for table in manifest_batches(store, ["shard", "shard_sha256"]):
        for row in table.group_by(["shard", "shard_sha256"]).aggregate([]).to_pylist():
            stated[f"{SHARDS}/{row['shard']}"] = row["shard_sha256"]
    names = {digest: name for name, digest in stated.items()}
    placed = []
    for problem in problems:
        if problem.content in names:
            what = f"holds what the manifest calls {names[problem.content]}, and none of its own "
            what += counted(len(problem.keys), "sample")
            if own := strange.get(stated.get(problem.where, "")):
                what += f", which {own} holds: nothing is lost, `verify --repair` mends it"
            else:
                what += f"; {remedy(problem.where)}"
            problem = replace(problem, what=what)
        placed.append(problem)
    return placed


def _doubled(store: Store, keys: np.ndarray) -> list[str]:
    """The keys that come more than once; a few of them, if they are many."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    again = np.flatnonzero((keys[order[1:]] == keys[order[:-1]]).all(axis=1)) + 1
    rows = np.sort(order[again])[: 10 * NAMED]
    names: list[str] = []
    begin = 0
    for table in manifest_batches(store, ["key"]) if rows.size else ():
        here = rows[(rows >= begin) & (rows < begin + len(table))] - begin
        names += table["key"].take(pa.array(here)).to_pylist()
        begin += len(table)
    return names


def _statistics(store: Store, train: int) -> list[Problem]:
    """Statistics that were taken over more or fewer samples are those of another dataset."""
    try:
        measured = parse_dataset_json(store.read(DATASET_JSON), "").get("statistics")
    except (ValueError, FileNotFoundError):
        return []  # said already
    if not isinstance(measured, dict) or measured.get("samples") == train:
        return []
    what = f"its statistics are of {measured.get('samples')} samples, the manifest has {train}: run `shards stats`"
    return [Problem(DATASET_JSON, what)]


def _header(store: Store) -> tuple[dict[str, Any], list[Problem]]:
    """(dataset.json, what is wrong with it); nothing where it cannot be read."""
    try:
        return parse_dataset_json(store.read(DATASET_JSON), under(store, DATASET_JSON)), []
    except FileNotFoundError:
        what = "is missing: restore it from a copy, or write it anew with `verify --repair`"
        return {}, [Problem(DATASET_JSON, what)]
    except ValueError as error:
        return {}, [Problem(DATASET_JSON, str(error))]


def _ledger(store: Store, config: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        with store.reading(LEDGER) as file:
            if not seal.holds(file, int(config.get("version", VERSION))):
                yield Problem(LEDGER, "its seal is broken, it is not what was written: restore it from a copy")
            file.seek(0)
            for _ in ledger.batches(file):
                pass
    except FileNotFoundError:
        if is_expected(config):  # hand-made datasets have none
            what = "is missing: restore it from a copy (samples can be read without it)"
            yield Problem(LEDGER, what)
    except (ValueError, OSError) as error:
        yield Problem(LEDGER, f"cannot be read: {error}")


def _listed(store: Store) -> set[str] | None:
    """The names of the shards that are there; None where a store does not list (https)."""
    try:
        return {name.rpartition("/")[2] for name in store.sizes(SHARDS) if name.endswith(".tar")}
    except OSError:
        return None


def _strangers(store: Store) -> Iterator[Problem]:
    """What no dataset has: foreign files, and what interrupted writes left."""
    left = "left by an interrupted write; remove it if no job is running"
    try:
        top = store.top()
    except OSError:
        return
    for name in top:
        if name.endswith(TEMPORARY):
            yield Problem(name, left)
        elif name not in FINISHED | UNFINISHED:
            yield Problem(name, "does not belong to a dataset; move it elsewhere")
    for name, is_file in _in_shards(store):
        if name.endswith(TEMPORARY):
            yield Problem(f"{SHARDS}/{name}", left)
        elif not name.endswith(".tar") or not is_file:
            yield Problem(f"{SHARDS}/{name}", "is not a shard; move it elsewhere")


def _in_shards(store: Store) -> list[tuple[str, bool]]:
    """(name, whether it is a file) of all that lies in the folder of shards."""
    if isinstance(store, LocalStore):
        folder = store.folder / SHARDS
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_file()) for entry in entries)
    return sorted((name.rpartition("/")[2], True) for name in store.sizes(SHARDS))


def as_json(place: str, verdict: Verdict) -> dict[str, Any]:
    """For other programs."""
    return {
        "dataset": place,
        "sound": not verdict.problems,
        "samples": verdict.samples,
        "shards": verdict.shards,
        "bytes": verdict.bytes,
        "lost": verdict.lost,
        "problems": [problem.as_json() for problem in verdict.problems],
    }
