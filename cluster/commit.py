"""How a unit becomes durable: the shard, then the record. Imports no renderer, since its process does not render."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray

import shards
from cluster.ledger import Attempt, Ledger, Record
from cluster.tables import packed
from shards import EncodedSample, Moments, layout
from shards.store import Store


def commit_unit(store: Store, unit: str, attempts: list[Attempt], batches: list[ray.ObjectRef]) -> None:
    """Write both, atomically each. `batches` refer to lists of samples, which are fetched one at a time.

    A unit without a sample has a record and no shard. The samples are measured on their way, so that the statistics
    of the dataset need no second pass over it.

    Doing it twice, or in two places, writes the same where the attempts ended the same. Where they did not (a worker
    crashed, a host was down) the two may leave the shard of one and the record of the other: `ledger.stands` tells it
    by the size of the shard, and the unit is made again.
    """
    began = time.perf_counter()
    rows: list[dict[str, Any]] = []
    measured = _Measured()
    if batches:
        samples = (sample for batch in batches for sample in ray.get(batch))
        name = f"{unit}.tar"
        with store.writing(f"{layout.SHARDS}/{name}") as file:
            rows = shards.shard_into(file, name, measured.through(samples))
    took = time.perf_counter() - began
    last = replace(attempts[-1], seconds_commit=took, moments=packed(measured.samples, measured.moments))
    Ledger(store).write(Record(unit, rows, [*attempts[:-1], last]))


class _Measured:
    """The moments of the samples that pass through: of split train, in their order (shards/moments.py)."""

    def __init__(self) -> None:
        self.samples, self.moments = 0, Moments()

    def through(self, samples: Iterator[EncodedSample]) -> Iterator[EncodedSample]:
        for sample in samples:
            if shards.moments.counts(sample.row):
                self.moments.merge(shards.moments_of_sample(sample.key, sample.members))
                self.samples += 1
            yield sample
