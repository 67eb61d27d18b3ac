"""Mean and standard deviation of camera-space XYZ, for the z-score map of objects and clips (paper, Eq. 5).

They are taken over what the model is trained on: all L forward-filled layers of every valid pixel (hits > 0) of split
train; layer 0 alone of samples that know no other. Scenes use the log-median map (Eq. 6), scaled by the sample's own
median: they need none, and are left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from .archive import split_part
from .layers.codec import decode_layers
from .sample import frame_prefix, read_meta

RELEASED = {"mean": [-0.002366, -0.004008, 1.904278], "std": [0.280865, 0.315927, 0.706423]}  # of 500K object samples


@dataclass
class Moments:
    """Count, mean (3,) and sum of squared deviations (3,), float64: merging loses no precision at any count."""

    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(3))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def merge(self, other: "Moments") -> None:
        """Chan's parallel update."""
        total = self.count + other.count
        if total == 0:
            return
        delta = other.mean - self.mean
        self.mean = self.mean + delta * (other.count / total)
        self.squares = self.squares + other.squares + delta**2 * (self.count * other.count / total)
        self.count = total

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.squares / max(self.count, 1))


def moments_of(hits: np.ndarray, depth: np.ndarray, K: np.ndarray) -> Moments:
    """hits (H,W), forward-filled depth (L,H,W), K (3,3) -> Moments of XYZ over all layers of the valid pixels.

    A pixel's points lie on one ray r, so their sums are r * sum(z) and r^2 * sum(z^2): float64 keeps what cancels in
    sum(x^2) - n * mean^2 to some 1e-13 of it. Only valid pixels are touched, and no sum is left to BLAS, whose order
    depends on the number of its threads.
    """
    at = np.flatnonzero(hits)
    if not at.size:
        return Moments()
    v, u = np.divmod(at, hits.shape[1])
    x, y, w = (row[0] * (u + 0.5) + row[1] * (v + 0.5) + row[2] for row in np.linalg.inv(K))
    total, squared = np.zeros(at.size), np.zeros(at.size)
    for layer in depth:
        z = layer.reshape(-1)[at].astype(np.float64)
        total += z
        squared += z * z
    count = at.size * len(depth)
    directions = (x / w, y / w, np.ones(at.size))
    mean = np.array([(direction * total).sum() for direction in directions]) / count
    squares = np.array([(direction * direction * squared).sum() for direction in directions]) - count * mean**2
    return Moments(count, mean, np.maximum(squares, 0.0))


def moments_of_sample(key: str, members: Mapping[str, bytes]) -> Moments:
    """Of an encoded sample, over all its frames: of what a reader will decode, and not of what was rendered."""
    meta = read_meta(key, members)
    total = Moments()
    for t, frame in enumerate(meta["frames"]):
        hits, depth = decode_layers(members[frame_prefix(t, meta["clip"]) + "layers.zst"])
        known = depth[:1] if frame["single_layer"] else depth
        total.merge(moments_of(hits, known, np.asarray(frame["K"], np.float64)))
    return total


def moments_of_shard(file: BinaryIO, rows: Iterable[Mapping[str, Any]]) -> tuple[int, Moments]:
    """(samples measured, Moments) of one shard, open for reading, whose manifest rows are `rows`."""
    measured, total = 0, Moments()
    for row in filter(counts, rows):
        file.seek(row["offset"])
        members = split_part(row["key"], file.read(row["bytes"]), f"{row['key']} in {row['shard']}")
        total.merge(moments_of_sample(row["key"], members))
        measured += 1
    return measured, total


def counts(row: Mapping[str, Any]) -> bool:
    """Whether the sample of a manifest row is one that is measured."""
    return bool(row["split"] == "train" and row["regime"] != "scene")


def as_json(moments: Moments, samples: int) -> dict[str, Any] | None:
    """What dataset.json holds of `samples` samples; None where no point was measured."""
    if not moments.count:
        return None
    return {
        "mean": moments.mean.tolist(),
        "std": moments.std.tolist(),
        "points": moments.count,
        "samples": samples,
        "split": "train",
    }
