"""Which rows go where: (n,) int16 for each input, the number of an output, or -1 for none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from ..manifest import SCHEMA
from ..randomness import seed_of
from ..where import columns_used, select
from .inputs import Input, digests
from .plan import Cut

GROUPS = (
    "split",
    "regime",
    "source",
    "licence",
    "asset",
    "single_layer",
    "frames",
    "height",
    "width",
    "layers",
    "view",
)
LARGEST = 256  # datasets that one is split into
NAMED = 5  # keys that an error names


def everything(source: Input) -> np.ndarray:
    return np.zeros(source.samples, np.int16)


def where(source: Input, condition: str) -> np.ndarray:
    """Output 0 has the rows for which the SQL condition holds (where.py)."""
    chosen = select(source.table(columns_used(condition, SCHEMA)), condition)
    return np.where(chosen, 0, -1).astype(np.int16)


def by_column(source: Input, column: str) -> tuple[list[str], np.ndarray]:
    """(the name of each output, rows): one output for each value of a column of GROUPS, in the order of values."""
    if column not in GROUPS:
        raise ValueError(f"--by {column}: a dataset is split by one of {', '.join(GROUPS)}, or by --where and `filter`")
    values = _encoded(source, column)
    texts = [str(value).lower() for value in values.dictionary.to_pylist()]
    names = [re.sub(r"[^a-z0-9_.-]+", "-", text).strip("-.") or "none" for text in texts]
    if len(names) > LARGEST:
        raise ValueError(f"--by {column}: {len(names)} values would make as many datasets, at most {LARGEST} are made")
    if len(set(names)) < len(names):
        raise ValueError(f"--by {column}: two of its values would have the same name: split with `filter` instead")
    order = sorted(range(len(names)), key=lambda place: values.dictionary[place].as_py())
    place_of = np.empty(len(names), np.int16)
    place_of[order] = np.arange(len(names))
    return [names[place] for place in order], place_of[values.indices.to_numpy()]


def by_asset(source: Input, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Outputs get these shares of the assets, drawn by each asset's hash and `seed`: all views of an asset stay
    together, whatever else the dataset holds.
    """
    positive = all(share > 0 for share in fractions) and abs(sum(fractions) - 1) <= 1e-6  # of NaN neither is true
    if not 0 < len(fractions) <= LARGEST or not positive:
        raise ValueError(f"the fractions {', '.join(f'{share:g}' for share in fractions)} are not positive with sum 1")
    assets = _encoded(source, "asset_sha256")
    ends = np.array(list(accumulate(fractions)))[:-1]
    drawn = [seed_of(seed, "split", sha256) / 2.0**128 for sha256 in assets.dictionary.to_pylist()]
    return np.searchsorted(ends, np.array(drawn), "right").astype(np.int16)[assets.indices.to_numpy()]


def _encoded(source: Input, column: str) -> pa.DictionaryArray:
    """A column as numbers and their meaning; encoded before it is one array, whose texts might exceed 2 GB."""
    encoded = source.table([column])[column].dictionary_encode().unify_dictionaries()
    return encoded.combine_chunks() if encoded.num_chunks else pa.array([], encoded.type)


@dataclass(frozen=True)
class Merged:
    """`to` of each input; `equal` samples were left out because an earlier dataset has them; `conflicts` name keys
    that two datasets have with other bytes, and of which one sample was kept.
    """

    to: list[np.ndarray]
    equal: int
    conflicts: int


def together(inputs: Sequence[Input], keep: str | None) -> Merged:
    """All rows of all inputs, equal ones once. ValueError naming them where keys come with different bytes, unless
    `keep` says which to take: of the "first" or the "last" dataset that has the key.
    """
    keys, contents = [], []
    for source in inputs:
        for table in source.batches(["key", "sha256"]):
            keys.append(digests(table["key"]))
            contents.append(digests(table["sha256"]))
    empty = np.zeros((0, 2), np.uint64)
    key, content = np.concatenate([empty, *keys]), np.concatenate([empty, *contents])
    order = np.lexsort((key[:, 1], key[:, 0]))  # stable: of equal keys that of the first dataset comes first
    again = np.zeros(len(order), bool)
    again[1:] = (key[order[1:]] == key[order[:-1]]).all(axis=1)
    group = np.cumsum(~again) - 1
    first = order[~again]  # row of the first sample of each key
    equal = (content[order] == content[first[group]]).all(axis=1)
    differing = np.unique(group[~equal])
    if differing.size and keep is None:
        raise ValueError(_conflict(inputs, first[differing]))
    to = np.full(len(order), -1, np.int16)
    if keep == "last":
        final = np.append(~again[1:], True) if len(order) else again
        to[order[final]] = 0
    else:
        to[first] = 0
    ends = list(accumulate(source.samples for source in inputs))
    return Merged(np.split(to, ends[:-1]), int(again.sum() - (~equal).sum()), int(differing.size))


def _conflict(inputs: Sequence[Input], rows: np.ndarray) -> str:
    """`rows` count through all inputs."""
    names: list[str] = []
    wanted = np.sort(rows)[:NAMED]
    begin = 0
    for source in inputs:
        for table in source.batches(["key"]):
            here = wanted[(wanted >= begin) & (wanted < begin + len(table))] - begin
            names += table["key"].take(pa.array(here)).to_pylist()
            begin += len(table)
    more = f" and {len(rows) - len(names)} more" if len(rows) > len(names) else ""
    return (
        f"{len(rows)} keys come with different bytes in two of the datasets ({', '.join(names)}{more}): look at them "
        "with `worldtrace shards diff`, and choose with --keep first or --keep last, or drop them with `... filter`"
    )


def same_settings(inputs: Sequence[Input], mixed: bool) -> dict[str, Any]:
    """layers, size, conventions and software of the merged dataset. ValueError where they may not be mixed.

    Conventions must be equal. Image sizes and numbers of layers may differ if `mixed`: the manifest has them for each
    sample, and dataset.json then states the largest. Regimes may always be mixed: each sample has its own.
    """
    first = inputs[0]
    for other in inputs[1:]:
        theirs, ours = other.config.get("conventions", {}), first.config.get("conventions", {})
        if differing := [name for name in theirs if theirs[name] != ours.get(name, theirs[name])]:
            raise ValueError(
                f"{other.text} has another convention of {differing[0]} than {first.text}: they cannot be merged"
            )
        for name in ("layers", "size"):
            if other.config[name] != first.config[name] and not mixed:
                there, here = other.config[name], first.config[name]
                raise ValueError(
                    f"{other.text} has {name} {there}, {first.text} {here}: give --mixed if one dataset shall hold both"
                )
    conventions: dict[str, str] = {}
    software: dict[str, set[str]] = {}
    for source in inputs:
        conventions = {**source.config.get("conventions", {}), **conventions}
        for name, version in source.config.get("software", {}).items():
            software.setdefault(name, set()).add(version)
    return {
        "layers": max(source.config["layers"] for source in inputs),
        "size": [max(source.config["size"][axis] for source in inputs) for axis in (0, 1)],
        "conventions": conventions,
        "software": {name: " or ".join(sorted(versions)) for name, versions in software.items()},
    }


def header(command: str, inputs: Sequence[Input], cut: Cut, mixed: bool = False, **options: Any) -> dict[str, Any]:
    """What dataset.json says of a dataset that `command` makes: how, and from which samples."""
    told = {"command": command, **options, "shards": {"samples": cut.samples, "bytes": cut.bytes}}
    return {**same_settings(inputs, mixed), "derived": {**told, "from": [source.origin() for source in inputs]}}
