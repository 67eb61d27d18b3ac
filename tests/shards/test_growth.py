"""Datasets that grow under a run: nothing lost, nothing shown twice in an epoch, and still a function of the index."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import History, Sequence
from shards.order import mixture
from tests.shards.toys import Toy, named, toys

OLD = {"b": 5, "d": 7, "f": 4}
NEW = {**OLD, "a": 3, "e": 6}  # what comes may sort before what was there
LATER = {**NEW, "c": 2, "g": 9}


def single(window: int | None = None) -> mixture.Mixed:
    return mixture.parse([{"path": "toy", **({"window": window} if window else {})}])


def grown(mixed: mixture.Mixed, at: list[int], *steps: dict[str, int], seed: int = 0) -> Sequence:
    """A run that began with the first of `steps` and met each other one at its index."""
    history = History.begun(mixed, toys(steps[0]), seed, 4)
    for index, counts in zip(at, steps[1:]):
        history = history.resumed(mixed, toys(counts), index)
    return Sequence(mixed, toys(steps[-1]), seed, history)


@pytest.mark.parametrize("window", [None, 1, 2, 9])
@pytest.mark.parametrize("at", [1, 5, 15, 16, 17, 40])
def test_the_epoch_in_progress_is_completed_with_what_came(window: int | None, at: int) -> None:
    before = Sequence(single(window), toys(OLD), 0)
    ours = grown(single(window), [at], OLD, NEW)
    n, m = 16, 25
    assert named(ours, range(at)) == named(before, range(at)), "what was shown stays as it was"
    begin = at // n * n  # of the epoch in progress
    end = begin + m if at % n else at
    everything = sorted(Toy(NEW).samples)
    if at % n:
        assert sorted(named(ours, range(begin, end))) == everything
        came = [i for i, name in enumerate(named(ours, range(at, end))) if name[0] in "ae"]
        assert len(came) == 9
        if at - begin < 8 and window is None:
            assert came[0] < end - at - 9, "shuffled among what was left, not put at its end"
    for epoch in range(3):
        assert sorted(named(ours, range(end + epoch * m, end + (epoch + 1) * m))) == everything
    order = ours.orders[0]
    numbers = [order.epoch(g)[0] for g in range(end + 2 * m)]
    assert numbers == sorted(numbers)
    expected = [n] * (begin // n) + [m] * ((end - begin) // m) + [m, m]
    assert [Counter(numbers)[e] for e in range(len(expected))] == expected
    assert all(g < order.epoch(g)[1] and order.epoch(order.epoch(g)[1] - 1) == order.epoch(g) for g in range(end + m))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 60), st.sampled_from([None, 1, 2, 3]), st.integers(0, 99))
def test_growing_again_in_the_same_epoch_or_later_loses_nothing(
    first: int, more: int, window: int | None, seed: int
) -> None:
    ours = grown(single(window), [first, first + more], OLD, NEW, LATER, seed=seed)
    shown = named(ours, range(first + more + 4 * 36))
    order = ours.orders[0]
    seen: Counter[tuple[int, str]] = Counter((order.epoch(g)[0], name) for g, name in enumerate(shown))
    assert max(seen.values()) == 1, "no sample comes twice in an epoch"
    last = order.epoch(len(shown) - 1)[0]
    complete = [epoch for epoch in range(1, last) if order.epoch(first + more)[0] <= epoch]
    for epoch in complete:
        assert sum(1 for e, _ in seen if e == epoch) == 36, "every epoch from the last growth on has all"
    assert named(ours, range(7, 50, 3)) == shown[7:50:3], "any index alone"


@pytest.mark.parametrize("window", [None, 2])
def test_stretches_cover_the_joint_epoch(window: int | None) -> None:
    ours = grown(single(window), [6], OLD, NEW)
    g, bounds = 0, []
    while g < 60:
        begin, end = ours.orders[0].stretch(g)
        assert begin <= g < end
        bounds.append((max(begin, g), end))
        if window:
            rows = ours.orders[0].rows(np.arange(max(begin, g), end))
            assert len(set(ours.datasets[0].shard_of[rows])) <= window
        g = end
    assert [b for b, _ in bounds[1:]] == [e for _, e in bounds[:-1]]
    end, ahead = ours.ahead(0, 6)
    assert end == ours.orders[0].stretch(6)[1]
    assert ahead[0] == named(ours, [6])[0].split("/")[0] or window is None
    assert set(ahead) >= {name.split("/")[0] for name in named(ours, range(6, end))}


@pytest.mark.parametrize("window", [1, 2])
def test_substitutes_lie_in_other_shards_before_and_after_growth(window: int) -> None:
    """Before it in those that were there, so that what was trained on is repeated exactly; then in all."""
    old, new = {"a": 40, "b": 3, "c": 5}, {"a": 40, "b": 3, "c": 5, "d": 2}
    at = 70
    after, before = grown(single(window), [at], old, new), Sequence(single(window), toys(old), 0)
    order, shard = after.orders[0], after.datasets[0].shard_of
    for g in range(200):
        rows = [order.substitute(g, k) for k in range(4)]
        assert rows[0] == order[g]
        assert all(shard[row] != shard[rows[0]] for row in rows[1:])
        if g < at:
            assert rows == [before.orders[0].substitute(g, k) for k in range(4)]


def test_the_hash_of_numbers_alone_is_that_of_older_runs_and_all_else_enters_it() -> None:
    """The twin is what runs before windows and groups were saved with."""
    data, other = toys(OLD, NEW), [0.5, 2.0]
    flat = [{"path": "a", "weight": 0.5}, {"path": "b", "weight": 2.0}]
    hashes = [dataset.hash for dataset in data]
    text = json.dumps([[name, weight] for name, weight in zip(hashes, other)])
    assert Sequence(mixture.parse(flat), data, 0).hash == hashlib.sha256(text.encode()).hexdigest()[:16]
    alone = json.dumps([[hashes[0], 1.0]])
    assert Sequence(single(), data[:1], 0).hash == hashlib.sha256(alone.encode()).hexdigest()[:16]
    several: list[list[dict[str, object]]] = [
        flat,
        [{**flat[0], "window": 1}, flat[1]],
        [{**flat[0], "window": 4}, flat[1]],
        [{**flat[0], "window": 4}, {**flat[1], "window": 4}],
        [{"weight": 0.5, "of": [{"path": "a"}]}, flat[1]],
        [{"weight": 0.5, "of": [{"path": "a", "window": 1}]}, flat[1]],
        [{**flat[0], "boost": 2.0}, flat[1]],
    ]
    found = [Sequence(mixture.parse(each), data, 0).hash for each in several]
    assert len(set(found)) == len(several)
    moved = [{**several[1][0], "path": "elsewhere"}, flat[1]]
    assert Sequence(mixture.parse(moved), data, 0).hash == found[1]
    assert len({Sequence(single(window), data[:1], 0).hash for window in (None, 1, 4)}) == 3


def test_a_grown_source_leaves_the_other_sources_alone() -> None:
    mixed = mixture.parse([{"path": "a", "weight": 2}, {"path": "b", "weight": 1}])
    other = {"x": 50, "y": 30}
    history = History.begun(mixed, toys(OLD, other), 0, 4).resumed(mixed, toys(NEW, other), 1010)
    ours, before = Sequence(mixed, toys(NEW, other), 0, history), Sequence(mixed, toys(OLD, other), 0)
    shown, was = named(ours, range(3000)), named(before, range(3000))
    assert shown[:1010] == was[:1010]
    kept = [i for i, name in enumerate(was) if name[0] in "xy"]
    assert [shown[i] for i in kept] == [was[i] for i in kept], "same places, same samples"
    assert {name[0] for name in shown[1010:]} == set("abdefxy")


def test_weights_of_rows_follow_the_growth_and_nothing_is_repeated() -> None:
    mixed = mixture.parse([{"path": "a", "weight": "rows"}, {"path": "b", "weight": "rows"}])
    small, large = {f"s{i}": 400 for i in range(4)}, {f"s{i}": 400 for i in range(12)}
    other = {"x": 1600}
    history = History.begun(mixed, toys(small, other), 0, 4).resumed(mixed, toys(large, other), 1500)
    ours = Sequence(mixed, toys(large, other), 0, history)
    shown = named(ours, range(3500))
    assert Counter(name[0] for name in shown[:1000]) == {"s": 500, "x": 500}
    assert Counter(name[0] for name in shown[1500:2500]) == {"s": 750, "x": 250}
    assert max(Counter(shown).values()) == 1


def test_a_run_goes_on_from_what_its_folder_says(tmp_path: Path) -> None:
    mixed = single(2)
    first = History.begun(mixed, toys(OLD), 5, 4)
    first.write(tmp_path)
    again = History.read(tmp_path)
    assert again == first
    assert again.resumed(mixed, toys(OLD), 400) == first, "the same data: nothing to note"
    second = again.resumed(mixed, toys(NEW), 20)
    assert [(g.first, g.rows) for g in second.generations] == [(0, (16,)), (20, (25,))]
    second.write(tmp_path)
    assert History.read(tmp_path) == second
    assert [second.hash_at(0), second.hash_at(1)] == [Sequence(mixed, toys(counts), 5).hash for counts in (OLD, NEW)], (
        "what a checkpoint notes"
    )
    third = second.resumed(mixed, toys(LATER), 12)
    assert [g.first for g in third.generations] == [0, 12], "set back before the growth: no sample of it stands"
    assert {s.name: s.generation for s in third.shards[0]} == {"b": 0, "d": 0, "f": 0, "a": 1, "c": 1, "e": 1, "g": 1}
    assert [g.first for g in second.resumed(mixed, toys(LATER), 0).generations] == [0]
    assert second.resumed(mixed, toys(NEW), 12) == second, "set back with the same data: the same samples again"
    assert History.read(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (Toy({"b": 5, "d": 7, "z": 40}), "toy: shard f with 4 of its samples is gone"),
        (Toy(NEW, changed=("d",)), "toy: shard d holds other samples than it did"),
        (Toy({**NEW, "d": 8}), "shard d holds other samples than it did .8 rows, 7 before."),
        (Toy({"b": 5, "d": 7}), "shard f with 4"),
    ],
)
def test_what_has_not_just_grown_is_refused_by_name(now: Toy, message: str) -> None:
    history = History.begun(single(), toys(OLD), 0, 4)
    with pytest.raises(ValueError, match=message) as error:
        history.resumed(single(), [now], 8)  # type: ignore[list-item]
    assert "\n" not in str(error.value)
    assert "may only grow by shards" in str(error.value)


def test_another_mixture_is_refused_and_a_moved_dataset_is_not() -> None:
    mixed = mixture.parse([{"path": "a", "weight": 0.6}, {"weight": 0.4, "of": [{"path": "b"}, {"path": "c"}]}])
    data = toys(OLD, OLD, OLD)
    history = History.begun(mixed, data, 0, 4)
    moved = mixture.changed(mixed, lambda s: mixture.source("at", f"s3://{s.path}", weight=s.weight))
    assert [s.path for s in mixture.leaves(history.resumed(moved, data, 8).mixed)] == ["s3://a", "s3://b", "s3://c"]
    plain = mixture.plain(mixed)
    for change, message in (
        ([{**plain[0], "weight": 0.5}, plain[1]], r"data\.path\.0\.weight: is 0\.5, and was 0\.6"),
        ([plain[0], {**plain[1], "of": [{"path": "b", "window": 3}, {"path": "c"}]}], r"path\.1\.of\.0\.window: is 3"),
        (plain[:1], "has 1 entries, and had 2"),
        ([plain[0], plain[0]], "is a source, and was a group"),
    ):
        with pytest.raises(ValueError, match=message):
            history.resumed(mixture.parse(change), data, 8)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "other", "version": 1}', b'{"format": 3}'])
def test_damaged_notes_are_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.json is damaged") as error:
        History.read(tmp_path)
    assert "\n" not in str(error.value)
