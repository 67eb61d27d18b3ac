"""Mixing: exact shares in every block, nothing repeated, nothing remembered; a wrong entry is named by its place."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import generator
from shards.order import mixture
from shards.order.mixture import BLOCK, Mixture, parse

PAPER = [
    {"path": "s3://b/objects", "weight": 0.6},
    {
        "weight": 0.4,
        "of": [
            {"path": "scannet", "weight": "sqrt(rows)", "boost": 1.5},
            {"path": "hypersim", "weight": "sqrt(rows)", "where": "L1 > 0.01", "window": 64},
        ],
    },
]


def weighted(*weights: float) -> mixture.Mixed:
    return parse([{"path": str(i), "weight": w} for i, w in enumerate(weights)])


def test_a_mixture_keeps_its_shares_and_repeats_nothing() -> None:
    mixed = weighted(0.6, 0.25, 0.15)
    ours = Mixture(mixed, [1, 1, 1], seed=1)
    drawn = [ours[i] for i in range(3 * BLOCK)]
    for source, share in enumerate((600, 250, 150)):
        assert [place for s, place in drawn if s == source] == list(range(3 * share))
        assert all(Counter(s for s, _ in drawn[b : b + BLOCK])[source] == share for b in (0, BLOCK, 2 * BLOCK))
    early = np.bincount([s for s, _ in drawn[:200]], minlength=3) / 200
    assert np.abs(early - [0.6, 0.25, 0.15]).max() < 0.12, "shuffled inside a block"
    fresh = Mixture(mixed, [1, 1, 1], seed=1)
    assert [fresh[i] for i in (2500, 17, 999)] == [drawn[i] for i in (2500, 17, 999)], "no memory"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.02, 5), min_size=2, max_size=6), st.integers(0, 2**31), st.integers(0, 10**9))
def test_flat_weights_give_the_sequence_that_they_always_gave(weights: list[float], seed: int, index: int) -> None:
    """The twin is what runs before the groups were trained with."""
    share = np.asarray(weights, np.float64) / np.sum(weights) * 1000
    counts = np.floor(share).astype(np.int64)
    counts[np.argsort(counts - share, kind="stable")[: 1000 - counts.sum()]] += 1
    block, at = divmod(index, 1000)
    sources = generator(seed, "mixture", block).permutation(np.repeat(np.arange(len(counts)), counts))
    source = int(sources[at])
    place = int(block * counts[source] + np.count_nonzero(sources[:at] == source))
    assert Mixture(weighted(*weights), [1] * len(weights), seed)[index] == (source, place)


def test_the_mixture_of_the_paper() -> None:
    """App. C: 0.6 of 3D assets and 0.4 of RGBD, in that sqrt(rows), real photographs 1.5 times."""
    mixed = parse(PAPER)
    np.testing.assert_allclose(mixture.shares(mixed, [10, 400, 900]), [0.6, 0.2, 0.2])  # 1.5 x 20 : 30
    ours = Mixture(mixed, [10, 400, 900], 0)
    assert ours.counts.tolist() == [600, 200, 200]
    corpora = [{"path": str(i), "weight": "sqrt(rows)", "boost": 1.5 if i < 6 else 1} for i in range(12)]
    rows = [int(10 ** (4 + i / 5)) for i in range(12)]
    mixed = parse([{"path": "objects", "weight": 0.6}, {"weight": 0.4, "of": corpora}])
    expected = np.sqrt(rows) * np.array([1.5] * 6 + [1] * 6)
    np.testing.assert_allclose(mixture.shares(mixed, [17_000_000, *rows])[1:], 0.4 * expected / expected.sum())
    counts = Mixture(mixed, [17_000_000, *rows], 0).counts
    assert counts[0] == 600, "groups are exact, whatever is rounded within them"
    assert np.abs(counts[1:] - 400 * expected / expected.sum()).max() < 1


def test_a_group_may_be_weighted_by_all_its_rows() -> None:
    mixed = parse([{"path": "a", "weight": "rows"}, {"weight": "rows", "of": [{"path": "b"}, {"path": "c"}]}])
    np.testing.assert_allclose(mixture.shares(mixed, [100, 250, 50]), [0.25, 0.375, 0.375])


def test_a_small_source_gets_longer_blocks_and_is_not_left_out() -> None:
    ours = Mixture(weighted(1, 1e-4), [1, 1], 0)
    assert ours.block == 10_000
    assert ours.counts.tolist() == [9999, 1]
    assert sum(ours[i][0] for i in range(20_000)) == 2
    with pytest.raises(ValueError, match="1: its weight gives it less than one sample in 1000000"):
        Mixture(weighted(1, 1e-8), [1, 1], 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 10**6), st.sampled_from([(1.0,), (2.0, 1.0, 4.0)]))
def test_what_came_before_an_index_is_counted(index: int, first: int, weights: tuple[float, ...]) -> None:
    ours = Mixture(weighted(*weights), [1] * len(weights), 3, first)
    drawn = Counter(ours[i][0] for i in range(first, first + index))
    assert ours.before(first + index).tolist() == [drawn[s] for s in range(len(weights))]


def test_what_is_written_is_read_back() -> None:
    mixed = parse(PAPER)
    assert mixture.plain(mixed) == PAPER
    assert parse(mixture.plain(mixed)) == mixed
    assert [source.path for source in mixture.leaves(mixed)] == ["s3://b/objects", "scannet", "hypersim"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], r"data\.path: expected a folder, a URL, or a list"),
        ([3], r"data\.path\.0: expected a source such as"),
        ([{"path": "a", "wieght": 2}], r"data\.path\.0\.wieght: unknown; did you mean data\.path\.0\.weight\?"),
        ([{"of": [{"path": "a", "zzz": 2}]}], r"data\.path\.0\.of\.0\.zzz: unknown; a source has path, weight"),
        ([{"weight": 1}], r"data\.path\.0\.path: not set"),
        ([{"path": "a", "weight": 0}], r"data\.path\.0\.weight: .*; found 0"),
        ([{"path": "a", "weight": True}], r"data\.path\.0\.weight: .*; found True"),
        ([{"path": "a", "weight": float("nan")}], r"data\.path\.0\.weight: .*; found nan"),
        ([{"path": "a", "weight": "sqrt"}], r"`sqrt\(rows\)`; found 'sqrt'"),
        ([{"path": "a", "boost": -1}], r"data\.path\.0\.boost: .*; found -1"),
        ([{"path": "a"}, {"path": "b", "weight": "rows"}], r"data\.path\.1\.weight: rows stands beside numbers"),
        ([{"path": "a", "split": "dev"}], r"data\.path\.0\.split: .*; found 'dev'"),
        ([{"path": "a", "window": 0}], r"data\.path\.0\.window: .*; found 0"),
        ([{"path": "a", "where": " "}], r"data\.path\.0\.where: .*; found ' '"),
        ([{"path": 1}], r"data\.path\.0\.path: .*; found 1"),
        ([{"weight": 1, "of": []}], r"data\.path\.0\.of: expected"),
    ],
)
def test_a_wrong_entry_is_named(entries: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse(entries)
    assert "\n" not in str(error.value)
