"""The statistics of a dataset (moments.py), in one pass over its shards, by as many processes as there are cores."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..archive import split_part
from ..errors import CorruptSample
from ..layout import SHARDS
from ..moments import Moments, as_json, moments_of_sample
from ..parallel import in_processes
from ..reader import Dataset, open
from ..store import Store, under
from .verify_shard import parts

UNMEASURED = "unmeasured"  # in dataset.json while a repair has yet to measure statistics anew
COLUMNS = ("key", "shard", "offset", "bytes", "sha256", "split", "regime")


def statistics(
    dataset: Dataset | str | PathLike[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = 1,
) -> dict[str, Any] | None:
    """What `dataset.json` holds under "statistics", a function of the samples alone; None without objects in train.

    Of samples of split train whose regime is not scene. They are merged in the order of the manifest into one Moments a
    shard, and these in the order of shards: so the result does not depend on `workers`, the number of processes (None:
    one for each core), and is that of shards which were measured one by one. `progress(samples done, in all)` is
    called after each shard. CorruptSample where the bytes of a sample are not those of the manifest.
    """
    if not isinstance(dataset, Dataset):
        dataset = open(dataset)
    table = dataset.columns(COLUMNS)
    table = table.filter(is_measured(table))
    total, done, whole = len(table), 0, Moments()
    tasks = list(_tasks(dataset.store, table))
    for task, moments in zip(tasks, in_processes(measure_shard, tasks, workers, pc.sum(table["bytes"]).as_py() or 0)):
        whole.merge(moments)
        done += len(task.rows)
        progress(done, total)
    return as_json(whole, total)


def is_measured(table: pa.Table) -> pa.ChunkedArray:
    """(n,) bool: the rows whose samples statistics are of."""
    return pc.and_(pc.equal(table["split"], "train"), pc.not_equal(table["regime"], "scene"))


@dataclass(frozen=True)
class Task:
    """A shard and the rows of its samples that are measured."""

    store: Store
    shard: str
    rows: pa.Table


def measure_shard(task: Task) -> Moments:
    """Of one shard. CorruptSample or FileNotFoundError where it is not what the manifest says."""
    whole = Moments()
    name = f"{SHARDS}/{task.shard}"
    if not task.store.exists(name):
        raise FileNotFoundError(f"{under(task.store, name)} is missing: see `worldtrace shards verify`")
    for row, part in parts(task.store, name, task.rows.to_pylist()):
        where = f"{row['key']} in {under(task.store, name)}"
        if hashlib.sha256(part).hexdigest() != row["sha256"]:
            raise CorruptSample(
                f"{where}: the bytes are not those of the manifest (sha256 differs): see what is damaged with "
                "`worldtrace shards verify`"
            )
        whole.merge(moments_of_sample(row["key"], split_part(row["key"], part, where)))
    return whole


def _tasks(store: Store, table: pa.Table) -> Iterator[Task]:
    """One for each run of rows of one shard."""
    table = table.combine_chunks()
    if not len(table):
        return
    codes = table["shard"].combine_chunks().dictionary_encode()
    indices = codes.indices.to_numpy()
    begins = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist()]
    for begin, end in zip(begins, [*begins[1:], len(table)]):
        yield Task(store, codes.dictionary[int(indices[begin])].as_py(), table.slice(begin, end - begin))
