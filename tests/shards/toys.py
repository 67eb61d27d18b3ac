"""A dataset of names alone, as the order of training sees one: shards, how many rows each has, and their hashes."""

import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np

import shards


class Toy:
    """`counts`: shard name -> rows. Row k of shard S holds the sample "S/k"; `changed` shards hold other bytes."""

    def __init__(self, counts: dict[str, int], changed: tuple[str, ...] = ()) -> None:
        self.shards = sorted(counts)
        self.shard_of = np.repeat(np.arange(len(counts), dtype=np.int32), [counts[name] for name in self.shards])
        self.samples = [f"{name}/{k}" for name in self.shards for k in range(counts[name])]
        texts = [f"{sample} changed" if sample.split("/")[0] in changed else sample for sample in self.samples]
        digests = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
        self.selection = SimpleNamespace(digest=np.frombuffer(digests, np.uint8).reshape(-1, 32))
        self.shard_bytes = np.array([1000 * counts[name] for name in self.shards], np.int64)
        self.hash = hashlib.sha256(digests).hexdigest()
        self.directory = "toy"

    def __len__(self) -> int:
        return len(self.samples)


def toys(*counts: dict[str, int]) -> Any:
    return [Toy(each) for each in counts]


def named(sequence: "shards.Sequence", indices: Any) -> list[str]:
    """The samples at these global indices."""
    found = [sequence[int(i)] for i in indices]
    return [sequence.datasets[s].samples[sequence.row(s, place)] for s, place in found]  # type: ignore[attr-defined]
