"""Which dataset each sample of a run comes from: sources with weights, in groups, and exact shares of every block.

A mixture is written as a list of sources and groups (in a training config, under `data.path`):

    - {path: s3://bucket/objects, weight: 0.6}
    - weight: 0.4
      of:
        - {path: s3://bucket/scannet, weight: sqrt(rows), boost: 1.5}
        - {path: s3://bucket/hypersim, weight: sqrt(rows), where: "coverage[1] > 0.01"}

`weight` is a number, or `rows` or `sqrt(rows)` of the source (of a group: of all its sources); `boost` multiplies it.
Weights count against those beside them, so they are all numbers or all of rows. This is how App. C of the paper mixes.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

import numpy as np
import yaml

from ..randomness import generator
from ..split import SPLITS

BATCH = 512  # samples of a step, unless a config says otherwise: as in App. B of the paper
BLOCK = 1000  # indices within which every source has its exact share
LARGEST_BLOCK = 1_000_000
OF_ROWS: dict[str, Callable[[float], float]] = {"rows": float, "sqrt(rows)": math.sqrt}


@dataclass(frozen=True)
class Source:
    """One dataset of a mixture. `where` is SQL over its manifest; `window` (shards) as in shards/order/order.py."""

    path: str
    weight: float | str = 1.0
    boost: float = 1.0
    split: str = "train"  # or "all"
    where: str | None = None
    window: int | None = None


@dataclass(frozen=True)
class Group:
    """Sources that share one weight among them."""

    of: tuple["Source | Group", ...]
    weight: float | str = 1.0
    boost: float = 1.0


Mixed = tuple[Source | Group, ...]


def parse(entries: Any, at: str = "data.path") -> Mixed:
    """A list of maps, as YAML or JSON holds it. ValueError, one sentence, names the entry by its place under `at`."""
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ValueError(f"{at}: expected a folder, a URL, or a list of sources; found {entries!r}")
    parsed = tuple(_entry(entry, f"{at}.{i}") for i, entry in enumerate(entries))
    if len({isinstance(entry.weight, str) for entry in parsed}) > 1:
        odd = next(i for i, entry in enumerate(parsed) if isinstance(entry.weight, str))
        raise ValueError(
            f"{at}.{odd}.weight: {parsed[odd].weight} stands beside numbers, which have no common measure; put the "
            "sources that are weighted by rows into a group of their own (`of:`)"
        )
    return parsed


def plain(mixed: Mixed) -> list[dict[str, Any]]:
    """The list of maps that `parse` reads back; what has its default is left out."""
    found = []
    for entry in mixed:
        values = {f.name: getattr(entry, f.name) for f in fields(entry)}
        if isinstance(entry, Group):
            values["of"] = plain(entry.of)
        found.append({f.name: values[f.name] for f in fields(entry) if values[f.name] != f.default})
    return found


def placeless(mixed: Mixed) -> list[dict[str, Any]]:
    """`plain` without the paths: of a mixture all that decides the samples, but for the datasets."""
    return plain(changed(mixed, lambda source: replace(source, path="")))


def leaves(mixed: Mixed) -> list[Source]:
    """The sources, those of groups included, in the order in which they are written."""
    return [leaf for entry in mixed for leaf in ([entry] if isinstance(entry, Source) else leaves(entry.of))]


def changed(mixed: Mixed, change: Callable[[Source], Source]) -> Mixed:
    """The same mixture with `change` applied to every source."""
    return tuple(
        change(entry) if isinstance(entry, Source) else replace(entry, of=changed(entry.of, change)) for entry in mixed
    )


def shares(mixed: Mixed, rows: Sequence[int]) -> np.ndarray:
    """Part of the samples that each source gets, (sources,) float64 of sum 1; `rows` are the sources' rows."""
    return np.array(list(_shares(_weighted(mixed, iter(rows)))))


class Mixture:
    """Which source global index i (from `first` on) comes from, and its place among that source's samples.

    In every block of 1000 indices each group and each source has a fixed count, its weight to a thousandth, at
    shuffled places; where a source would get none, blocks are longer. So the shares hold exactly, each source is
    visited without repetition, and nothing has to be remembered.
    """

    def __init__(self, mixed: Mixed, rows: Sequence[int], seed: int, first: int = 0) -> None:
        weighted = _weighted(mixed, iter(rows))
        self.block = BLOCK
        while (counts := np.array(list(_apportioned(weighted, self.block)))).min() < 1:
            if self.block == LARGEST_BLOCK:
                least = leaves(mixed)[int(counts.argmin())]
                raise ValueError(f"{least.path}: its weight gives it less than one sample in {LARGEST_BLOCK}")
            self.block *= 10
        self.counts, self.seed, self.first = counts, seed, first
        self._block: tuple[int, np.ndarray, np.ndarray] = (-1, np.zeros(0), np.zeros(0))

    def __getitem__(self, index: int) -> tuple[int, int]:
        """(source, its place: how many of its samples came since `first`)."""
        index -= self.first
        if len(self.counts) == 1:
            return 0, index
        block, at = divmod(index, self.block)
        source, place = self._drawn(block)
        return int(source[at]), int(block * self.counts[source[at]] + place[at])

    def before(self, index: int) -> np.ndarray:
        """(sources,) how many samples each source gave to the indices `first` to `index` - 1."""
        block, at = divmod(index - self.first, self.block)
        drawn = self._drawn(block)[0][:at] if len(self.counts) > 1 else np.zeros(at, np.int64)
        return block * self.counts + np.bincount(drawn, minlength=len(self.counts))

    def _drawn(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Source of each index of a block, and how many of that source came before it in the block."""
        if self._block[0] != block:
            names: list[str | int] = ["mixture", block] if self.first == 0 else ["mixture", self.first, block]
            source = generator(self.seed, *names).permutation(np.repeat(np.arange(len(self.counts)), self.counts))
            place = np.empty_like(source)
            place[np.argsort(source, kind="stable")] = np.concatenate([np.arange(n) for n in self.counts])
            self._block = block, source, place
        return self._block[1], self._block[2]


class Yaml(yaml.SafeLoader):
    """PyYAML reads 1e-4 as a string (YAML 1.1 wants 1.0e-4); everybody who writes a number so means it."""


Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)

_Weighted = tuple[float, "list[_Weighted] | None"]  # a weight among its neighbours, and what it is shared out to


def _weighted(mixed: Mixed, rows: Iterator[int]) -> list[_Weighted]:
    found: list[_Weighted] = []
    for entry in mixed:
        own = list(islice(rows, 1 if isinstance(entry, Source) else len(leaves(entry.of))))
        weight = OF_ROWS[entry.weight](sum(own)) if isinstance(entry.weight, str) else entry.weight
        found.append((weight * entry.boost, _weighted(entry.of, iter(own)) if isinstance(entry, Group) else None))
    return found


def _shares(weighted: Sequence[_Weighted], whole: float = 1.0) -> Iterator[float]:
    parts = whole * np.array([weight for weight, _ in weighted]) / np.sum([weight for weight, _ in weighted])
    for part, (_, below) in zip(parts, weighted):
        yield from [float(part)] if below is None else _shares(below, float(part))


def _apportioned(weighted: Sequence[_Weighted], block: int) -> Iterator[int]:
    """Counts of sum `block` by the largest remainder, first among the groups, then within each."""
    weights = np.array([weight for weight, _ in weighted], np.float64)
    share = weights / np.sum(weights) * block
    counts = np.floor(share).astype(np.int64)
    counts[np.argsort(counts - share, kind="stable")[: block - counts.sum()]] += 1
    for count, (_, below) in zip(counts, weighted):
        yield from [int(count)] if below is None else _apportioned(below, int(count))


def _entry(entry: Any, at: str) -> Source | Group:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{at}: expected a source such as {{path: DIR, weight: 0.6}}, found {entry!r}")
    kind = Group if "of" in entry else Source
    known = [f.name for f in fields(kind)]
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {at}.{near[0]}?" if near else f"a {kind.__name__.lower()} has {', '.join(known)}"
            raise ValueError(f"{at}.{key}: unknown; {hint}")
    weight = entry.get("weight", 1.0)
    if not _positive(weight) and not (isinstance(weight, str) and weight in OF_ROWS):
        raise ValueError(f"{at}.weight: expected a number above 0, `rows` or `sqrt(rows)`; found {weight!r}")
    boost = entry.get("boost", 1.0)
    if not _positive(boost):
        raise ValueError(f"{at}.boost: expected a number above 0; found {boost!r}")
    weight, boost = weight if isinstance(weight, str) else float(weight), float(boost)
    if kind is Group:
        return Group(parse(entry["of"], f"{at}.of"), weight, boost)
    if "path" not in entry:
        raise ValueError(f"{at}.path: not set; a source needs the folder or URL of a dataset, a group needs `of`")
    return source(at, **{**entry, "weight": weight, "boost": boost})


def source(at: str, path: Any, split: Any = "train", where: Any = None, window: Any = None, **weights: Any) -> Source:
    """A source of checked values; `at` is where they stand, for the ValueError."""
    if not isinstance(path, str) or not path:
        raise ValueError(f"{at}.path: expected a folder or a URL; found {path!r}")
    if split not in (*SPLITS, "all"):
        raise ValueError(f"{at}.split: expected one of {', '.join(SPLITS)}, all; found {split!r}")
    if where is not None and not (isinstance(where, str) and where.strip()):
        raise ValueError(f"{at}.where: expected SQL over the manifest, such as \"regime = 'object'\"; found {where!r}")
    if window is not None and (type(window) is not int or window < 1):
        raise ValueError(f"{at}.window: expected a number of shards from 1 on; found {window!r}")
    return Source(path, split=split, where=where, window=window, **weights)


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf
