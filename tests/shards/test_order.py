"""The order of samples: a bijection per epoch, indistinguishable from a true shuffle, with no state."""

import hashlib
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import Order, generator


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(-5, 2**63), st.integers(0, 10**6))
def test_every_epoch_visits_every_row_once(n: int, seed: int, epoch: int) -> None:
    rows = Order(n, seed, "hash").rows(np.arange(n * epoch, n * (epoch + 1)))
    np.testing.assert_array_equal(np.sort(rows), np.arange(n))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 500), st.lists(st.integers(0, 10**12), min_size=1, max_size=40))
def test_any_position_is_answered_alone(n: int, positions: list[int]) -> None:
    order = Order(n, 3, "hash")
    alone = [order[g] for g in positions]
    np.testing.assert_array_equal(order.rows(np.array(positions)), alone)
    np.testing.assert_array_equal(order.rows(np.array(positions * 70)), alone * 70)  # so many that arrays are used


def test_the_slow_twin_agrees() -> None:
    """The definition of docs/format.md in plain integers."""
    n, seed, name = 1000, 5, "abc"
    order = Order(n, seed, name)
    half, mask64 = 5, (1 << 64) - 1

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask64
        return x ^ (x >> 31)

    def row(g: int) -> int:
        epoch, x = divmod(g, n)
        digest = hashlib.blake2b(f"order {seed} {name} {n} {epoch}".encode(), digest_size=64).digest()
        keys = [int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(8)]
        while True:
            left, right = x >> half, x & 31
            for key in keys:
                left, right = right, left ^ (mix(right ^ key) & 31)
            x = left << half | right
            if x < n:
                return x

    positions = [0, 1, 999, 1000, 12345, 10**9]
    assert [order[g] for g in positions] == [row(g) for g in positions]


def test_batches_of_any_number_of_ranks_are_the_same_sequence() -> None:
    order = Order(77, 0, "hash")
    whole = order.rows(np.arange(240))
    for size in (1, 4, 60):
        np.testing.assert_array_equal(np.concatenate([order.batch(step, size) for step in range(240 // size)]), whole)


def test_seed_hash_and_epoch_each_give_another_order() -> None:
    n = 4096
    base = Order(n, 0, "a").rows(np.arange(n))
    others = [
        Order(n, 1, "a").rows(np.arange(n)),
        Order(n, 0, "b").rows(np.arange(n)),
        Order(n, 0, "a").rows(n + np.arange(n)),
    ]
    for other in others:
        # two independent permutations agree in about one place (Poisson of mean 1)
        assert (other == base).sum() < 10
        assert abs(np.corrcoef(other, base)[0, 1]) < 0.06


def chi_square(counts: np.ndarray, expected: np.ndarray | None = None) -> float:
    """How many standard deviations Pearson's statistic lies above its mean, if `counts` are drawn from `expected`."""
    share = np.ones(counts.size) if expected is None else expected.ravel()
    expected = share / share.sum() * counts.sum()
    statistic = ((counts.ravel() - expected) ** 2 / expected).sum()
    return float((statistic - (counts.size - 1)) / np.sqrt(2 * (counts.size - 1)))


def test_all_permutations_of_few_rows_come_equally_often() -> None:
    for n in (2, 3, 4, 5):
        epochs = Order(n, 0, "hash").rows(np.arange(n * 2400)).reshape(-1, n)
        counts = Counter(map(tuple, epochs.tolist()))
        assert chi_square(np.array([counts[p] for p in permutations(range(n))])) < 4


def test_rows_and_neighbours_are_as_uniform_as_in_a_true_shuffle() -> None:
    n, epochs = 61, 400
    ours = Order(n, 1, "hash").rows(np.arange(n * epochs)).reshape(epochs, n)
    rng = generator(1, "true-shuffle")
    truth = np.stack([rng.permutation(n) for _ in range(epochs)])
    coarse = np.arange(n) * 8 // n
    cells = np.histogram2d(coarse.repeat(n), np.tile(coarse, n), bins=8)[0] - np.diag(np.bincount(coarse))
    for p in (truth, ours):  # the true shuffle shows that the yardstick is right
        at = np.zeros((n, n))
        np.add.at(at, (np.broadcast_to(np.arange(n), p.shape), p), 1)
        assert chi_square(at) < 4, "a row is equally often at every position"
        assert chi_square(np.bincount((np.diff(p) % n).ravel(), minlength=n)[1:]) < 4, "steps are equally long"
        pairs = np.histogram2d(coarse[p[:, :-1]].ravel(), coarse[p[:, 1:]].ravel(), bins=8)[0]
        assert chi_square(pairs, cells) < 4, "any row follows any other"
        late = np.corrcoef(p[:-1].ravel(), p[1:].ravel())[0, 1]
        assert abs(late) < 4 / np.sqrt(p.size), "an epoch says nothing about the next"


def test_the_millionth_step_of_a_large_dataset_is_immediate() -> None:
    order = Order(17_000_000, 0, "hash")
    rows = order.batch(10**6, 512)
    assert rows.shape == (512,)
    assert len(set(rows.tolist())) == 512
    assert rows.max() < 17_000_000


def test_what_is_no_position_is_refused() -> None:
    with pytest.raises(ValueError, match="split empty"):
        Order(0, 0, "hash")
    for bad in (np.array([-1]), np.array([0.5])):
        with pytest.raises(ValueError, match="from 0 on"):
            Order(3, 0, "hash").rows(bad)
    with pytest.raises(ValueError, match="batches"):
        Order(3, 0, "hash").batch(0, 0)
    assert Order(3, 0, "hash").rows(np.zeros((0,), int)).shape == (0,)
