"""Is the ledger that of this dataset? It differs from run to run, so no hash of it stands elsewhere; what it says was
made does not.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import ledger
from ..layout import LEDGER
from ..rewrite.inputs import digests, manifest_batches
from ..store import Store
from .verify_shard import Problem

NAMED = 3


def is_expected(config: Mapping[str, Any]) -> bool:
    """Whether what wrote a dataset of this dataset.json has written a ledger, too."""
    if config.get("complete") is not True:
        return False
    return isinstance(config.get("job"), dict) or bool(config.get("lost")) or any(map(_has_ledger, _origins(config)))


def unaccounted(store: Store, config: Mapping[str, Any]) -> list[Problem]:
    """Of a readable manifest and ledger: the ledger must have made at least the samples that the manifest has, of each
    shard where a job or an import wrote both, of each asset where they were copied from datasets that all had one.
    It may have made more: a repair or a filter leaves samples out. Holds 24 bytes for each shard or asset.
    """
    if config.get("complete") is not True:
        return []
    if isinstance(config.get("job"), dict):
        column, what = "shard", "shards"
    elif config.get("derived") and all(map(_covers, _origins(config))):
        column, what = "asset", "assets"
    else:
        return []
    by = "unit" if column == "shard" else column
    keys, balance = [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)]
    with store.reading(LEDGER) as file:
        for table in ledger.batches(file, [by, "views"]):
            made = table.group_by(by).aggregate([("views", "sum")])
            keys.append(digests(pc.fill_null(made[by], "")))
            balance.append(pc.fill_null(made["views_sum"], 0).to_numpy())
    for names, counts in _samples(store, column):
        keys.append(digests(names))
        balance.append(-counts)
    short = _negative(np.concatenate(keys), np.concatenate(balance))
    if not short:
        return []
    found: dict[str, None] = {}
    for names, _ in _samples(store, column):
        found.update(
            dict.fromkeys(name for name, key in zip(names.to_pylist(), digests(names)) if key.tobytes() in short)
        )
        if len(found) >= NAMED:
            break
    few = ", ".join(list(found)[:NAMED])
    told = f"it does not account for the samples of {len(short)} {what if len(short) > 1 else column} ({few}"
    told += ", ...)" if len(short) > NAMED else ")"
    return [Problem(LEDGER, f"{told}: it is that of another dataset, or an older one: restore it from a copy")]


def _samples(store: Store, column: str) -> Iterator[tuple[pa.ChunkedArray, np.ndarray]]:
    """(units or assets as the ledger writes them, how many samples each has), a part of the manifest at a time."""
    for table in manifest_batches(store, [column]):
        counted = table.group_by(column).aggregate([([], "count_all")])
        names = counted[column].to_pylist()
        names = [name.removesuffix(".tar") if column == "shard" else ledger.plain(name) for name in names]
        yield pa.chunked_array([pa.array(names, pa.string())]), counted["count_all"].to_numpy()


def _negative(keys: np.ndarray, balance: np.ndarray) -> set[bytes]:
    """The keys, as bytes, whose balances add up to less than nothing."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    keys, balance = keys[order], balance[order]
    first = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)])[: len(keys)])
    if not len(first):
        return set()
    short = np.add.reduceat(balance, first) < 0
    return {key.tobytes() for key in keys[first[short]]}


def _origins(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What dataset.json says of the datasets that this one was made of."""
    derived = config.get("derived")
    origins = derived.get("from") if isinstance(derived, dict) else None
    return [origin for origin in origins if isinstance(origin, dict)] if isinstance(origins, list) else []


def _has_ledger(origin: Mapping[str, Any]) -> bool:
    return origin.get("ledger") is True


def _covers(origin: Mapping[str, Any]) -> bool:
    """Whether the ledger of an input told of all of its samples."""
    return _has_ledger(origin) and (not origin.get("derived") or all(map(_covers, _origins(origin))))
