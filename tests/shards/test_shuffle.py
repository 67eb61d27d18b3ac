"""The shuffles of training beside a true permutation, by measures that bad shuffles fail."""

from collections.abc import Callable

import numpy as np
import pytest

from shards import Order, Windows, generator
from tests.benchmarks.shuffle import Layout, apart, noise, position_against_row, repeats, serial_correlation, steps

LAYOUT = Layout(shards=128, assets=4, views=8, batch=64)
N = LAYOUT.rows
ROWS = np.arange(N)
COUNTS = [LAYOUT.assets * LAYOUT.views] * LAYOUT.shards


def deviations(order: np.ndarray) -> dict[str, float]:
    """Of the measures whose distribution under a true permutation is known: in its standard deviations."""
    batches = N // LAYOUT.batch
    pairs = (LAYOUT.batch - 1) * (LAYOUT.views - 1) / (N - 1) / 2  # about the repeats of a true permutation
    return {
        "serial": serial_correlation(order),
        "steps": steps(order),
        "place": position_against_row(order),
        "apart": (apart(order, LAYOUT.shard(ROWS)) - 1) * np.sqrt(N / 2),
        "repeats": (repeats(order, LAYOUT.asset(ROWS), LAYOUT.batch) - pairs) / np.sqrt(pairs / LAYOUT.batch / batches),
        "noise": (noise(order, LAYOUT.asset(ROWS), LAYOUT.batch) - 1) / np.sqrt(2 / batches),
    }


def of_order(seed: int) -> np.ndarray:
    return Order(N, seed, "hash").rows(ROWS)


def of_one_window(seed: int) -> np.ndarray:
    return Windows(COUNTS, 1000, seed, "hash").rows(ROWS)


def true(seed: int) -> np.ndarray:
    return generator(seed, "true").permutation(N)


@pytest.mark.parametrize("order", [true, of_order, of_one_window])
def test_an_order_of_all_rows_is_as_good_as_a_true_permutation(order: Callable[[int], np.ndarray]) -> None:
    found = [deviations(order(seed)) for seed in range(25)]
    for name in found[0]:
        values = np.array([each[name] for each in found])
        assert np.abs(values).max() < 5, (name, values)
        assert abs(values.mean()) < 1, (name, values)


def buffered(seed: int) -> np.ndarray:
    """A shuffle buffer of 256 samples, as loaders of streams have."""
    rng, buffer, out = generator(seed, "buffer"), list(range(256)), []
    for row in range(256, N + 256):
        k = int(rng.integers(len(buffer)))
        out.append(buffer[k])
        if row < N:
            buffer[k] = row
        else:
            buffer.pop(k)
    return np.array(out)


BAD: dict[str, Callable[[int], np.ndarray]] = {
    "none": lambda seed: ROWS,
    "backwards": lambda seed: ROWS[::-1].copy(),
    "linear congruence": lambda seed: (ROWS * 1597 + seed) % N,
    "rotation": lambda seed: np.roll(ROWS, 1000 + seed),
    "one riffle": lambda seed: ROWS.reshape(2, -1).T.ravel(),
    "shuffle buffer": buffered,
    "shards alone": lambda seed: (32 * generator(seed, "shards").permutation(128)[:, None] + np.arange(32)).ravel(),
    "neighbours swapped": lambda seed: ROWS ^ 1,
}


@pytest.mark.parametrize("name", BAD)
def test_bad_shuffles_are_seen(name: str) -> None:
    found = deviations(BAD[name](1))
    assert max(abs(value) for value in found.values()) > 20, found


@pytest.mark.parametrize("window", [2, 8, 32])
def test_windows_mix_as_much_as_their_size_allows(window: int) -> None:
    """Samples of a window are as good as drawn from its W x 4 assets: the variance of a batch's mean follows."""
    asset = LAYOUT.asset(ROWS)
    expected = 1 + LAYOUT.batch / (window * LAYOUT.assets) * (1 - window / LAYOUT.shards)
    found = [noise(Windows(COUNTS, window, s, "hash").rows(ROWS), asset, LAYOUT.batch) for s in range(12)]
    tolerance = 0.2 if window > 2 else 0.5  # a batch is a whole window of two shards: each view of its assets once
    assert np.mean(found) == pytest.approx(expected, rel=tolerance)
    unshuffled = [Windows(COUNTS, window, s, "hash") for s in range(12)]
    for order in unshuffled:
        rows = np.concatenate([np.sort(order.rows(np.arange(*order.stretch(g)))) for g in _begins(order)])
        if window > 2:
            assert noise(rows, asset, LAYOUT.batch) > 1.5 * expected, "a window whose samples stay in order is seen"


def _begins(order: Windows) -> list[int]:
    return sorted({order.stretch(g)[0] for g in range(0, N, 8)})
