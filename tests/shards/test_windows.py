"""The order by windows of shards: a bijection that keeps few shards in use and shuffles as well as that allows."""

import hashlib
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import Windows, generator

COUNTS = st.lists(st.integers(1, 30), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(1, 45), st.integers(-5, 2**63), st.integers(0, 10**6))
def test_every_epoch_visits_every_row_once(counts: list[int], window: int, seed: int, epoch: int) -> None:
    order = Windows(counts, window, seed, "hash")
    rows = order.rows(np.arange(order.n * epoch, order.n * (epoch + 1)))
    np.testing.assert_array_equal(np.sort(rows), np.arange(order.n))


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.integers(1, 45), st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_any_position_is_answered_alone(counts: list[int], window: int, positions: list[int]) -> None:
    order = Windows(counts, window, 3, "hash")
    alone = [order[g] for g in positions]
    np.testing.assert_array_equal(order.rows(np.array(positions)), alone)
    np.testing.assert_array_equal(order.rows(np.array(positions * 70)), alone * 70)  # so many that arrays are used


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(1, 45), st.integers(0, 3000))
def test_no_more_shards_than_the_window_are_in_use(counts: list[int], window: int, g: int) -> None:
    order = Windows(counts, window, 1, "hash")
    begin, end = order.stretch(g)
    assert begin <= g < end
    assert order.epoch(begin)[0] == order.epoch(end - 1)[0] == order.epoch(g)[0]
    assert {order.stretch(x) for x in (begin, g, end - 1)} == {(begin, end)}
    rows = order.rows(np.arange(begin, end))
    used = np.unique(np.searchsorted(order.first, rows, side="right") - 1)
    assert len(used) <= window
    assert end - begin == order.counts[used].sum(), "whole shards: none is needed again in this epoch"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 80))
def test_windows_are_as_equal_as_can_be(shards: int, window: int) -> None:
    order = Windows([1] * shards, window, 0, "hash")
    sizes = [end - begin for begin, end in {order.stretch(g) for g in range(shards)}]
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-shards // window)


def test_a_window_of_all_shards_is_a_permutation_of_all_rows() -> None:
    order = Windows([3, 1, 4, 1, 5], 5, 0, "hash")
    assert order.stretch(3) == (0, 14)
    assert {tuple(order.rows(14 * e + np.arange(14)).tolist()) for e in range(50)}.__len__() == 50


def test_the_slow_twin_agrees() -> None:
    """The definition of docs/format.md in plain integers, without tables."""
    counts, window, seed, name = [4, 1, 7, 2, 9, 3, 3], 3, 5, "abc"

    def bijection(x: int, n: int, text: str) -> int:
        half = max(1, -(-(n - 1).bit_length() // 2))
        mask, mask64 = (1 << half) - 1, (1 << 64) - 1
        digest = hashlib.blake2b(text.encode(), digest_size=64).digest()
        while True:
            left, right = x >> half, x & mask
            for i in range(8):
                v = right ^ int.from_bytes(digest[8 * i : 8 * i + 8], "little")
                v = ((v ^ (v >> 30)) * 0xBF58476D1CE4E5B9) & mask64
                v = ((v ^ (v >> 27)) * 0x94D049BB133111EB) & mask64
                left, right = right, left ^ ((v ^ (v >> 31)) & mask)
            x = left << half | right
            if x < n:
                return x

    def row(g: int) -> int:
        n, size = sum(counts), len(counts)
        epoch, x = divmod(g, n)
        order = [bijection(i, size, f"shards {seed} {name} {size} {epoch}") for i in range(size)]
        number = -(-size // window)
        for w in range(number):
            held = order[w * size // number : (w + 1) * size // number]
            rows = [sum(counts[:s]) + k for s in held for k in range(counts[s])]
            if x < len(rows):
                return rows[bijection(x, len(rows), f"window {seed} {name} {epoch} {w}")]
            x -= len(rows)
        raise AssertionError

    positions = [0, 1, 28, 29, 12345, 10**9]
    order = Windows(counts, window, seed, name)
    assert [order[g] for g in positions] == [row(g) for g in positions]


def test_seed_hash_and_epoch_each_give_other_windows() -> None:
    counts = [7] * 200
    base = Windows(counts, 8, 0, "a").rows(np.arange(1400))
    others = [
        Windows(counts, 8, 1, "a").rows(np.arange(1400)),
        Windows(counts, 8, 0, "b").rows(np.arange(1400)),
        Windows(counts, 8, 0, "a").rows(1400 + np.arange(1400)),
    ]
    for other in others:
        assert (other == base).sum() < 10  # Poisson of mean 1
        assert abs(np.corrcoef(other, base)[0, 1]) < 0.12


def test_rows_are_as_uniform_as_in_a_true_shuffle() -> None:
    """Chi-square of (position, row) over many epochs: a shuffle that moves only within shards fails."""
    order, epochs = Windows([4] * 12, 3, 1, "hash"), 600
    n = order.n
    ours = order.rows(np.arange(n * epochs)).reshape(epochs, n)

    def deviation(p: np.ndarray) -> float:
        at = np.zeros((n, n))
        np.add.at(at, (np.broadcast_to(np.arange(n), p.shape), p), 1)
        statistic = ((at - epochs / n) ** 2 / (epochs / n)).sum()
        return float((statistic - (n - 1) ** 2) / np.sqrt(2 * (n - 1) ** 2))

    rng = generator(1, "true-shuffle")
    true = np.stack([rng.permutation(n) for _ in range(epochs)])
    only_within = 4 * (np.arange(n) // 4) + rng.permuted(np.tile(np.arange(4), (epochs, 12, 1)), axis=2).reshape(-1, n)
    # rows of one shard move together, so their places are not independent: the deviation of whole shards is 2 wider
    assert abs(deviation(true)) < 4
    assert abs(deviation(ours)) < 8
    assert deviation(only_within) > 100


def test_late_steps_of_many_shards_are_immediate_and_survive_pickling() -> None:
    order = Windows([425] * 40_000, 64, 0, "hash")
    began = time.process_time()
    rows = order.batch(10**6, 512)
    assert time.process_time() - began < 1
    assert len(set(rows.tolist())) == 512
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(order)).batch(10**6, 512), rows)


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(1, 45), st.integers(0, 3000), st.lists(st.integers(0, 29), max_size=10))
def test_substitutes_lie_in_other_windows_or_at_least_other_shards(
    counts: list[int], window: int, g: int, others: list[int]
) -> None:
    """However unequal the shards are; and different ones for the rows of a shard, where there are so many."""
    counts = [*counts, *(50 * other + 1 for other in others)]
    order = Windows(counts, window, 1, "hash")
    shard = np.repeat(np.arange(len(counts)), counts)
    number_of = np.empty(len(counts), np.int64)
    for w in range(order.number):
        number_of[order.shards_of(g // order.n, w)] = w
    parts = number_of if order.number > 1 else np.arange(len(counts))
    assert order.substitute(g, 0) == order[g]
    own, rows = parts[shard[order[g]]], [order.substitute(g, k) for k in range(1, 9)]
    if len(set(parts.tolist())) > 1:
        assert own not in {parts[shard[row]] for row in rows}
        assert len({parts[shard[row]] for row in rows}) == min(8, len(set(parts.tolist())) - 1)
    elif order.n > 8:
        assert order[g] not in rows
        assert len(set(rows)) == 8
    moved = Windows(counts, window, 1, "hash", 3 * np.arange(order.n) + 5)
    assert [moved.substitute(g, k) for k in range(1, 9)] == [3 * row + 5 for row in rows]


def test_the_rows_of_a_lost_shard_get_different_substitutes() -> None:
    order = Windows([100] * 10, 3, 0, "hash")
    lost = [g for g in range(order.n) if order[g] // 100 == 4]
    assert len({order.substitute(g, 1) for g in lost}) == len(lost) == 100


def test_what_is_no_window_is_refused() -> None:
    for counts, window in (([1, 2], 0), ([1, 0], 1)):
        with pytest.raises(ValueError, match="at least one"):
            Windows(counts, window, 0, "hash")
    with pytest.raises(ValueError, match="empty"):
        Windows([], 1, 0, "hash")
