"""How a unit becomes durable: the shard, then the record. Imports no renderer, since its process does not render."""

from pathlib import Path
from typing import Any

import ray

import shards
from cluster.ledger import Attempt, Ledger, Record


def commit_unit(folder: str, unit: str, attempts: list[Attempt], batches: list[ray.ObjectRef]) -> None:
    """Write both, atomically each. `batches` refer to lists of samples, which are fetched one at a time.

    A unit without a sample has a record and no shard.
    """
    rows: list[dict[str, Any]] = []
    if batches:
        samples = (sample for batch in batches for sample in ray.get(batch))
        rows = shards.write_shard(Path(folder) / "shards" / f"{unit}.tar", samples)
    Ledger(Path(folder)).write(Record(unit, rows, attempts))
