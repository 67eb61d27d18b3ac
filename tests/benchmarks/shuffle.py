"""How good the shuffles of training are, beside a true permutation: PYTHONPATH=. python tests/benchmarks/shuffle.py

A dataset of shards in which an asset's views lie together, as the render job writes them; one epoch of each order.
A true permutation (numpy's, from a Philox stream) is measured the same way, so the yardstick is seen to be right, and
so is the order of the manifest, which is no shuffle at all. docs/order.md shows the table and says what follows.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shards import Order, Windows, generator

BINS = 32


@dataclass(frozen=True)
class Layout:
    """`shards` shards of `assets` assets of `views` views each; training in batches of `batch`."""

    shards: int = 1280
    assets: int = 8
    views: int = 56
    batch: int = 512

    @property
    def rows(self) -> int:
        return self.shards * self.assets * self.views

    def asset(self, row: np.ndarray) -> np.ndarray:
        return row // self.views

    def shard(self, row: np.ndarray) -> np.ndarray:
        return row // (self.views * self.assets)


def excess(counts: np.ndarray, expected: np.ndarray | float) -> float:
    """Standard deviations by which Pearson's chi-square of a table lies above its mean, if nothing is wrong."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    free = (counts.shape[0] - 1) * (counts.shape[1] - 1) if counts.ndim == 2 else counts.size - 1
    return (statistic - free) / np.sqrt(2 * free)


def position_against_row(order: np.ndarray) -> float:
    """`excess` of (place in the epoch, row) over a grid of 32 x 32: are all rows equally likely everywhere?"""
    n = len(order)
    table = np.histogram2d(np.arange(n) * BINS // n, order * BINS // n, bins=BINS)[0]
    # places and rows are each used once, which fixes the margins and leaves the table (b - 1)^2 free numbers
    return excess(table, n / BINS**2)


def steps(order: np.ndarray) -> float:
    """`excess` of the differences between neighbours modulo n: does a row say anything about the next?"""
    n = len(order)
    return excess(np.bincount((np.diff(order) % n) * BINS // n, minlength=BINS), (n - 1) / BINS)


def serial_correlation(order: np.ndarray) -> float:
    """Of rows and the next rows, in standard deviations of a true permutation's, 1 / sqrt(n)."""
    return float(np.corrcoef(order[:-1], order[1:])[0, 1] * np.sqrt(len(order)))


def apart(order: np.ndarray, group: np.ndarray) -> float:
    """Mean distance in the sequence between two members of a group, as a part of a true permutation's n / 3."""
    n = len(order)
    sequence = group[order]
    by_group = np.argsort(sequence, kind="stable")
    places = by_group.reshape(-1, np.count_nonzero(group == group[0]))  # (groups, members), places ascending
    m = places.shape[1]
    weights = 2 * np.arange(m) - m + 1  # sum over pairs of differences, from sorted values
    return float((places @ weights).mean() / (m * (m - 1) / 2) / (n / 3))


def repeats(order: np.ndarray, group: np.ndarray, batch: int) -> float:
    """Mean share of a batch's samples that are not the first of their group in it."""
    whole = group[order[: len(order) // batch * batch]].reshape(-1, batch)
    return float(np.mean([1 - len(np.unique(b)) / batch for b in whole]))


def noise(order: np.ndarray, group: np.ndarray, batch: int) -> float:
    """Variance of the mean over a batch of a value that each group has for itself, as a multiple of that over
    independent samples: by how much larger the noise of a gradient becomes that depends on the asset alone.
    """
    value = generator(0, "value of a group").normal(size=int(group.max()) + 1)
    whole = value[group[order[: len(order) // batch * batch]]].reshape(-1, batch)
    return float(whole.mean(axis=1).var() / (value[group].var() / batch))


def measures(order: np.ndarray, layout: Layout) -> dict[str, float]:
    rows = np.arange(layout.rows)
    asset, shard = layout.asset(rows), layout.shard(rows)
    return {
        "repeats": repeats(order, asset, layout.batch),
        "noise": noise(order, asset, layout.batch),
        "noise, shard": noise(order, shard, layout.batch),
        "apart": apart(order, shard),
        "serial": serial_correlation(order),
        "steps": steps(order),
        "place": position_against_row(order),
    }


def orders(layout: Layout) -> dict[str, Callable[[], np.ndarray]]:
    n, counts = layout.rows, [layout.assets * layout.views] * layout.shards
    found: dict[str, Callable[[], np.ndarray]] = {"manifest order": lambda: np.arange(n)}
    for window in (1, 8, 64, 512):
        if window < layout.shards:
            found[f"window {window}"] = lambda w=window: Windows(counts, w, 0, "hash").rows(np.arange(n))
    found["no window"] = lambda: Order(n, 0, "hash").rows(np.arange(n))
    found["true permutation"] = lambda: generator(0, "true").permutation(n)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=Layout.shards)
    layout = Layout(shards=parser.parse_args().shards)
    print(
        f"{layout.shards} shards x {layout.assets} assets x {layout.views} views = {layout.rows} samples, batches of "
        f"{layout.batch}"
    )
    names: list[str] = []
    for name, order in orders(layout).items():
        found = measures(order(), layout)
        if not names:
            names = list(found)
            print(f"{'':18}" + "".join(f"{n:>14}" for n in names))
        print(f"{name:18}" + "".join(f"{found[n]:14.4g}" for n in names), flush=True)


if __name__ == "__main__":
    main()
