"""Datasets that grow while a run trains on them, and what the run notes about them.

A run that is resumed on a manifest with more rows goes on from the same integer. The epoch in progress is completed
with what it has not shown yet and with what came, shuffled together; epochs over all rows follow. So no sample is lost,
none is shown twice in an epoch, and the sequence stays a pure function of (seed, generations, index). A generation says
from which index on which rows were there; the run's folder keeps them, beside what each shard held, in `data.json`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .order import Order, Windows, permuted

if TYPE_CHECKING:
    from ..reader import Dataset


class Grown(Order):
    """The order of a source that has grown: `old` before position `at`, there the rest of its epoch together with the
    rows `came`, and then the epochs of `fresh`. `old` and `fresh` give rows of one and the same manifest.
    """

    def __init__(self, old: Order, at: int, came: Order, fresh: Order) -> None:
        super().__init__(fresh.n, fresh.seed, fresh.manifest_hash)
        self.old, self.at, self.came, self.fresh = old, at, came, fresh
        epoch, end = old.epoch(at)
        begun = at > 0 and old.epoch(at - 1)[0] == epoch  # else no epoch is in progress
        self.rest = end - at if begun else 0
        self.joint = self.rest + came.n if begun else 0
        self.epochs = epoch + begun  # those before `fresh` has its first
        self._pieces = _pieces(old, came, at, end) if self.joint and isinstance(fresh, Windows) else None

    def rows(self, g: np.ndarray) -> np.ndarray:
        g = np.asarray(g)
        flat = g.ravel().astype(np.int64)
        rows = np.empty_like(flat)
        before, after = flat < self.at, flat >= self.at + self.joint
        rows[before] = self.old.rows(flat[before])
        rows[after] = self.fresh.rows(flat[after] - self.at - self.joint)
        joint = ~before & ~after
        if joint.any():
            place = self._joined(flat[joint] - self.at)
            ours = np.empty_like(place)
            left = place < self.rest
            ours[left] = self.old.rows(self.at + place[left])
            ours[~left] = self.came.rows(place[~left] - self.rest)
            rows[joint] = ours
        return rows.reshape(g.shape)

    def _joined(self, position: np.ndarray) -> np.ndarray:
        """Positions in the joint epoch -> 0..rest-1 for what is left of the old one, from `rest` on for what came."""
        if self._pieces is None:
            name = f"growth {self.seed} {self.manifest_hash} {self.at} {self.joint}"
            return permuted(position, self.joint, name)
        begins, starts = self._pieces
        piece = np.searchsorted(begins, position, side="right") - 1
        return starts[piece] + position - begins[piece]

    def substitute(self, g: int, attempt: int) -> int:
        if not isinstance(self.fresh, Windows):
            return super().substitute(g, attempt)
        if g < self.at:
            return self.old.substitute(g, attempt)
        if g >= self.at + self.joint:
            return self.fresh.substitute(g - self.at - self.joint, attempt)
        row = super().substitute(g, 0)
        return self.fresh.beside(row, 0, attempt) if attempt else row

    def epoch(self, g: int) -> tuple[int, int]:
        if g < self.at:
            number, end = self.old.epoch(g)
            return (number, end) if end <= self.at else (number, self.at + self.joint)
        if g < self.at + self.joint:
            return self.epochs - 1, self.at + self.joint
        number, end = self.fresh.epoch(g - self.at - self.joint)
        return self.epochs + number, self.at + self.joint + end

    def stretch(self, g: int) -> tuple[int, int]:
        first = self.at + self.joint
        if g >= first:
            begin, end = self.fresh.stretch(g - first)
            return first + begin, first + end
        if g < self.at:
            begin, end = self.old.stretch(g)
            return begin, min(end, self.at)
        if self._pieces is None:
            return super().stretch(g)[0], min(super().stretch(g)[1], first)
        begins = self._pieces[0]
        piece = int(np.searchsorted(begins, g - self.at, side="right")) - 1
        return self.at + int(begins[piece]), self.at + int(begins[piece + 1])


def _pieces(old: Order, came: Order, at: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """The windows of a joint epoch: where each begins in it (and the end), and where in (what is left, what came).

    What is left of the window in progress goes first, as its shards are at hand; the others are shuffled.
    """
    bounds: list[tuple[int, int]] = []
    for order, first, last, shift in ((old, at, end, -at), (came, 0, came.n, end - at)):
        while first < last:
            stop = min(order.stretch(first)[1], last)
            bounds.append((first + shift, stop + shift))
            first = stop
    name = f"growth {came.seed} {came.manifest_hash} {at} {len(bounds)}"
    shuffled = 1 + permuted(np.arange(len(bounds) - 1), len(bounds) - 1, name)
    chosen = np.array(bounds)[np.concatenate([[0], shuffled])]
    return np.concatenate([[0], np.cumsum(chosen[:, 1] - chosen[:, 0])]), chosen[:, 0]


@dataclass(frozen=True)
class Held:
    """A shard as a run found it: its rows (of the split and filter in use), a digest of them, and since when."""

    name: str
    rows: int
    digest: str
    generation: int


@dataclass(frozen=True)
class Generation:
    """From global index `first` on, source i had `rows[i]` rows of hash `hashes[i]`."""

    first: int
    hashes: tuple[str, ...]
    rows: tuple[int, ...]


def held(dataset: "Dataset", generation: int) -> list[Held]:
    """What each shard of a dataset holds now. The digest is of the hashes of its samples, which cover their keys."""
    counts = row_counts(dataset)
    ends = np.cumsum(counts)
    digests = [
        hashlib.blake2b(dataset.selection.digest[end - count : end].tobytes(), digest_size=8).hexdigest()
        for count, end in zip(counts, ends)
    ]
    return [Held(*each, generation) for each in zip(dataset.shards, counts.tolist(), digests)]


def came(path: str, before: Sequence[Held], now: Sequence[Held]) -> list[Held]:
    """The shards that were not there before. ValueError where one that was is gone, or holds other samples."""
    there = {shard.name: shard for shard in now}
    for shard in before:
        found = there.pop(shard.name, None)
        if found is None:
            flaw = f"shard {shard.name} with {shard.rows} of its samples is gone"
        elif (found.rows, found.digest) != (shard.rows, shard.digest):
            flaw = f"shard {shard.name} holds other samples than it did ({found.rows} rows, {shard.rows} before)"
        else:
            continue
        raise ValueError(
            f"{path}: {flaw}; a dataset may only grow by shards while a run trains on it: restore it, or use another "
            "out="
        )
    return list(there.values())


def row_counts(dataset: "Dataset") -> np.ndarray:
    """Rows of each shard, in the order of `dataset.shards`."""
    return np.bincount(dataset.shard_of, minlength=len(dataset.shards))
