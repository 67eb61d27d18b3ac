"""The sequence of samples of a run: which row of which dataset global index i is, for any i >= 0.

`Sequence` puts a mixture (mixture.py), the order of each source (order.py) and the generations of growing datasets
(growth.py) together. It is a function of (seed, generations, index); ranks and workers do not enter.
`History` is what a run's folder keeps of it in `data.json`, for the run to go on and for `worldtrace shards order`.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.cache import Cache
from ..commit import committed
from ..reader import Dataset
from ..reader import open as open_dataset
from . import mixture
from .growth import Generation, Grown, Held, came, held, row_counts
from .mixture import Mixed, Mixture, Source
from .order import Order, Windows

DATA_JSON = "data.json"
FORMAT, VERSION = "worldtrace sequence", 1
_TOGETHER = 4096  # indices that are looked up at a time


@dataclass(frozen=True)
class Located:
    """Where a sample of a run comes from."""

    index: int
    epoch: int  # of its source
    source: int
    place: int  # how many samples of that source came before it
    row: int


class Sequence:
    """`sequence[i]` is (source, place in its order) of global index i; `row` finds the row."""

    def __init__(self, mixed: Mixed, datasets: Items[Dataset], seed: int, history: "History | None" = None) -> None:
        self.mixed, self.datasets, self.seed = mixed, list(datasets), seed
        self.sources = mixture.leaves(mixed)
        now = Generation(0, identities(self.sources, self.datasets), tuple(len(d) for d in self.datasets))
        self.generations = history.generations if history else (now,)
        if self.generations[-1].hashes != now.hashes:
            raise ValueError("the datasets are not those of the newest generation: open them, and `History.resumed`")
        self._mixtures, self._begins = self._mixed_by_generation()
        self.orders = [self._order(s, history.shards[s] if history else []) for s in range(len(self.sources))]

    def __getitem__(self, index: int) -> tuple[int, int]:
        g = self._generation(index)
        source, place = self._mixtures[g][index]
        return source, place + int(self._begins[g][source])

    def row(self, source: int, place: int) -> int:
        return int(self.orders[source].rows(np.array([place]))[0])

    def located(self, first: int, count: int) -> Iterator[Located]:
        """Where the samples at global indices `first` to `first + count` - 1 come from."""
        for begin in range(first, first + count, _TOGETHER):
            found = np.array([self[i] for i in range(begin, min(begin + _TOGETHER, first + count))])
            rows = np.empty(len(found), np.int64)
            for s in np.unique(found[:, 0]):
                rows[found[:, 0] == s] = self.orders[s].rows(found[found[:, 0] == s, 1])
            for i, ((s, place), row) in enumerate(zip(found.tolist(), rows.tolist())):
                yield Located(begin + i, self.orders[s].epoch(place)[0], s, place, row)

    @property
    def hash(self) -> str:
        """Of the newest generation and the mixture: the same hash, seed and generations give the same samples."""
        return _hash(self.generations[-1].hashes, self.mixed, self.shares)

    @property
    def shares(self) -> np.ndarray:
        """Part of the samples that each source gets now, of sum 1."""
        return mixture.shares(self.mixed, self.generations[-1].rows)

    def ahead(self, source: int, place: int) -> tuple[int, list[str]]:
        """What a reader with a cache should fetch when it is at `place` of a source: the shards of the rest of this
        stretch of its order and of the next one, in the order of first need; and where this stretch ends.
        """
        order, dataset = self.orders[source], self.datasets[source]
        end = order.stretch(place)[1]
        shards = dataset.shard_of[order.rows(np.arange(place, order.stretch(end)[1]))]
        first = np.sort(np.unique(shards, return_index=True)[1])
        return end, [dataset.shards[i] for i in shards[first]]

    def needed_bytes(self, source: int) -> int:
        """The most that two windows of a source may take in a cache; without windows, all its shards."""
        order, sizes = self.orders[source], np.sort(self.datasets[source].shard_bytes)[::-1]
        newest = order.fresh if isinstance(order, Grown) else order
        most = 2 * -(-len(sizes) // newest.number) if isinstance(newest, Windows) else len(sizes)
        return int(sizes[:most].sum())

    def _generation(self, index: int) -> int:
        return bisect_right(self.generations, index, key=lambda g: g.first) - 1

    def _mixed_by_generation(self) -> tuple[list[Mixture], list[np.ndarray]]:
        """Of each generation its mixture, and the place in each source at which that mixture begins."""
        mixtures: list[Mixture] = []
        begins: list[np.ndarray] = []
        for g in self.generations:
            mixed = Mixture(self.mixed, g.rows, self.seed, g.first)
            if mixtures and np.array_equal(mixed.counts, mixtures[-1].counts):
                mixed, begin = mixtures[-1], begins[-1]  # growth that leaves the shares alone leaves the mixture alone
            else:
                begin = np.zeros(len(self.sources), np.int64)
                if mixtures:
                    begin = begins[-1] + mixtures[-1].before(g.first)
            mixtures.append(mixed)
            begins.append(begin)
        return mixtures, begins

    def _order(self, s: int, shards: Items[Held]) -> Order:
        grown = [k for k, g in enumerate(self.generations) if k and g.hashes[s] != self.generations[k - 1].hashes[s]]
        if not grown:
            return self._of_shards(s, 0, None)
        since = {shard.name: shard.generation for shard in shards}
        born = np.array([since[name] for name in self.datasets[s].shards])
        order = self._of_shards(s, 0, born == 0)
        for k in grown:
            place = self._begins[k][s] + self._mixtures[k].before(self.generations[k].first)[s]
            order = Grown(order, int(place), self._of_shards(s, k, born == k), self._of_shards(s, k, born <= k))
        return order

    def _of_shards(self, s: int, generation: int, which: np.ndarray | None) -> Order:
        """The order over the rows of some shards of source s, keyed by the hash that it had in a generation."""
        dataset, window = self.datasets[s], self.sources[s].window
        key = self.generations[generation].hashes[s]
        among = None if which is None else np.flatnonzero(which[dataset.shard_of])
        if window is None:
            return Order(len(dataset) if among is None else len(among), self.seed, key, among)
        counts = row_counts(dataset)
        return Windows(counts if which is None else counts[which], window, self.seed, key, among)


def opened(mixed: Mixed, cache: Cache | None = None) -> list[Dataset]:
    """The datasets of a mixture, with all that is needed of their manifests in memory, which forked processes share.

    The ValueError or OSError that says what is wrong with one names it.
    """
    found = []
    for source in mixture.leaves(mixed):
        split = None if source.split == "all" else source.split
        try:
            dataset = open_dataset(source.path, split, where=source.where, cache=cache).load()
        except (ValueError, OSError) as error:
            if source.path in str(error):
                raise
            kind = next(k for k in (FileNotFoundError, OSError, ValueError) if isinstance(error, k))
            # the condition is a key here, and no option of a command
            said = str(error).replace("--where", "where", 1) if source.where is not None else str(error)
            raise kind(f"{source.path}: {said}") from None
        if not len(dataset):
            which = f"split {source.split!r}" + (f" where {source.where}" if source.where else "")
            raise ValueError(f"{source.path}: no samples in {which}; render more or choose another split (all: every)")
        found.append(dataset)
    return found


def identities(sources: Items[Source], datasets: Items[Dataset]) -> tuple[str, ...]:
    """What the order of each source is a function of, beside the seed: the manifest's hash, and the rows of each shard
    where there are windows.
    """
    found = []
    for source, dataset in zip(sources, datasets):
        counts = "" if source.window is None else f" {row_counts(dataset).tolist()}"
        found.append(hashlib.sha256((dataset.hash + counts).encode()).hexdigest() if counts else dataset.hash)
    return tuple(found)


def _hash(hashes: Items[str], mixed: Mixed, shares: np.ndarray) -> str:
    # Numbers alone are hashed as they always were: runs from before there was more go on.
    flat = [
        entry.weight
        for entry in mixed
        if isinstance(entry, Source) and type(entry.weight) is float and entry.boost == 1 and entry.window is None
    ]
    what = list(zip(hashes, flat)) if len(flat) == len(mixed) else [hashes, mixture.placeless(mixed), shares.tolist()]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class History:
    """What a run has noted about its data: the mixture, the generations, and what each shard of each source held."""

    mixed: Mixed
    seed: int
    batch: int
    generations: tuple[Generation, ...]
    shards: tuple[tuple[Held, ...], ...]

    @classmethod
    def begun(cls, mixed: Mixed, datasets: Items[Dataset], seed: int, batch: int) -> "History":
        """Of a run that starts with these datasets."""
        first = Generation(0, identities(mixture.leaves(mixed), datasets), tuple(len(d) for d in datasets))
        return cls(mixed, seed, batch, (first,), tuple(tuple(held(d, 0)) for d in datasets))

    def resumed(self, mixed: Mixed, datasets: Items[Dataset], index: int) -> "History":
        """Of the same run that goes on at global index `index`, with the datasets as they are now.

        ValueError, one sentence, where the mixture is another one, or a dataset has not just grown.
        """
        if odd := _differing(self.mixed, mixed):
            raise ValueError(f"{odd}; the samples would be others: use another out=")
        sources = mixture.leaves(mixed)
        hashes = identities(sources, datasets)
        if hashes == self.generations[-1].hashes:
            return replace(self, mixed=mixed)  # a dataset may have moved
        kept = tuple(g for g in self.generations if g.first < index)  # of the others no sample counts
        if not kept:
            return History.begun(mixed, datasets, self.seed, self.batch)
        shards = [tuple(s for s in of_source if s.generation < len(kept)) for of_source in self.shards]
        for i, (source, dataset) in enumerate(zip(sources, datasets)):
            if hashes[i] != kept[-1].hashes[i]:
                shards[i] += tuple(came(source.path, shards[i], held(dataset, len(kept))))
        if hashes != kept[-1].hashes:
            kept += (Generation(index, hashes, tuple(len(d) for d in datasets)),)
        return replace(self, mixed=mixed, generations=kept, shards=tuple(shards))

    def without_later(self, datasets: Items[Dataset]) -> list[Dataset]:
        """The datasets less the shards that have come since, of which the run knows nothing yet."""
        known = [{shard.name for shard in shards} for shards in self.shards]
        masks = [np.array([name in names for name in d.shards], bool)[d.shard_of] for d, names in zip(datasets, known)]
        return [
            d if mask.all() else Dataset(d.store, d.config, d.selection.narrowed(mask), d.cache)
            for d, mask in zip(datasets, masks)
        ]

    def hash_at(self, g: int) -> str:
        """`Sequence.hash` as it was in generation g."""
        generation = self.generations[g]
        return _hash(generation.hashes, self.mixed, mixture.shares(self.mixed, generation.rows))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; `from_dict` reads it back."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "seed": self.seed,
            "batch": self.batch,
            "path": mixture.plain(self.mixed),
            "generations": [asdict(g) for g in self.generations],
            "shards": [[list(astuple(shard)) for shard in shards] for shards in self.shards],
        }

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "History":
        """ValueError, TypeError or KeyError where it is not what `to_dict` gave."""
        if tree["format"] != FORMAT or tree["version"] != VERSION:
            raise ValueError(f"format {tree['format']!r}, version {tree['version']}")
        return cls(
            mixture.parse(tree["path"], "path"),
            int(tree["seed"]),
            int(tree["batch"]),
            tuple(Generation(int(g["first"]), tuple(g["hashes"]), tuple(g["rows"])) for g in tree["generations"]),
            tuple(tuple(Held(*shard) for shard in shards) for shards in tree["shards"]),
        )

    def write(self, folder: Path) -> None:
        """FOLDER/data.json, whole or not at all; nothing where it is there already."""
        text = json.dumps(self.to_dict()).encode()
        path = folder / DATA_JSON
        if not path.is_file() or path.read_bytes() != text:
            with committed(path) as file:
                file.write(text)

    @classmethod
    def read(cls, folder: Path) -> "History | None":
        """What `write` wrote, or None where there is nothing. ValueError where it is damaged."""
        path = folder / DATA_JSON
        if not path.is_file():
            return None
        try:
            return cls.from_dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}): restore it from a copy, or use another out=") from None


def _differing(old: Mixed, new: Mixed, at: str = "data.path") -> str | None:
    """The first difference between two mixtures but for where their datasets lie."""
    if len(old) != len(new):
        return f"{at}: has {len(new)} entries, and had {len(old)}"
    for i, (before, now) in enumerate(zip(old, new)):
        if type(before) is not type(now):
            return f"{at}.{i}: is a {type(now).__name__.lower()}, and was a {type(before).__name__.lower()}"
        for field in fields(before):
            was, is_now = getattr(before, field.name), getattr(now, field.name)
            if field.name == "of":
                if odd := _differing(was, is_now, f"{at}.{i}.of"):
                    return odd
            elif field.name != "path" and was != is_now:
                return f"{at}.{i}.{field.name}: is {is_now}, and was {was}"
    return None
