"""Mean and standard deviation of camera-space XYZ, for the z-score map of objects and clips (paper, Eq. 5).

They are taken over what the model is trained on: all L forward-filled layers of every valid pixel (hits > 0) of split
train; layer 0 alone of samples that know no other. Scenes use the log-median map (Eq. 6), scaled by the sample's own
median: they need none, and are left out.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from .codec import decode_layers
from .contract import rays
from .reader import Dataset, open
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
    """hits (H,W), forward-filled depth (L,H,W), K (3,3) -> Moments of XYZ over all layers of the valid pixels."""
    valid = hits > 0
    z = depth[:, valid].astype(np.float64)
    if not z.size:
        return Moments()
    xyz = rays(K, *hits.shape)[valid] * z[..., None]
    mean = xyz.mean(axis=(0, 1))
    return Moments(z.size, mean, ((xyz - mean) ** 2).sum(axis=(0, 1)))


def measure(dataset: Dataset, threads: int = 4) -> Iterator[tuple[int, int, Moments]]:
    """Yield (samples done, samples in all, Moments so far) after each sample of split train whose regime is not scene.

    The last one is the result; it does not depend on `threads`, because samples are merged in manifest order.
    """
    regimes = dataset.manifest["regime"].to_pylist()
    rows = [int(row) for row in dataset.rows("train") if regimes[int(row)] != "scene"]
    so_far = Moments()
    with ThreadPoolExecutor(threads) as pool:
        for done, moments in enumerate(_in_order(pool, dataset, rows, 4 * threads), start=1):
            so_far.merge(moments)
            yield done, len(rows), so_far


def statistics(
    dataset: Dataset | str | PathLike[str], progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any] | None:
    """What `dataset.json` holds under "statistics", a function of the samples alone; None without objects in train.

    `progress` is called with (samples done, samples in all) after each.
    """
    result = None
    for done, total, moments in measure(open(dataset) if isinstance(dataset, str | PathLike) else dataset):
        result = (done, moments)
        progress(done, total)
    return as_json(result[1], result[0]) if result and result[1].count else None


def as_json(moments: Moments, samples: int) -> dict[str, Any]:
    return {
        "mean": moments.mean.tolist(),
        "std": moments.std.tolist(),
        "points": moments.count,
        "samples": samples,
        "split": "train",
    }


def _in_order(pool: ThreadPoolExecutor, dataset: Dataset, rows: list[int], ahead: int) -> Iterable[Moments]:
    for begin in range(0, len(rows), ahead):  # bounded: decoded samples never pile up
        yield from pool.map(lambda row: _of_row(dataset, row), rows[begin : begin + ahead])


def _of_row(dataset: Dataset, row: int) -> Moments:
    key, members = dataset.manifest["key"][row].as_py(), dataset.members(row)
    meta = read_meta(key, members)
    total = Moments()
    for t, frame in enumerate(meta["frames"]):
        hits, depth = decode_layers(members[frame_prefix(t, meta["clip"]) + "layers.zst"])
        known = depth[:1] if frame["single_layer"] else depth
        total.merge(moments_of(hits, known, np.asarray(frame["K"], np.float64)))
    return total
