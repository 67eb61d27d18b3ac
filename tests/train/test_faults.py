"""Four ranks through all that may befall a long run: they stay alike, nothing that was saved is lost, and it goes on.

Two and two hold the same shards, so replicas and shards are both among them. Losses and weights are compared with those
of four ranks that were left in peace.
"""

import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.train import ranks
from tests.train.conftest import Settings
from tests.train.runs import final, losses, same_tensors
from train import checkpoints
from train.config import Config
from train.reports import log

WORLD = 4
STEPS = 12
SAME = 1e-5  # relative, between sums in another order


def texts(c: Config) -> str:
    return "\n".join(ranks.said(c, rank) for rank in range(WORLD))


def alike(c: Config, shards: int) -> None:
    """Whoever holds the same shard holds the same bits: of weights, average, moments and the guard."""
    held = ranks.held(c, WORLD)
    assert Counter(each["shard"] for each in held) == {str(k): WORLD // shards for k in range(shards)}
    assert len({tuple(each.items()) for each in held}) == shards, held
    assert len({each["model"] for each in held}) == shards


@pytest.fixture
def four(settings: Settings) -> Any:
    """four(**changes): a run for four ranks, two of which hold a replica."""

    def make(**changes: Any) -> Config:
        common = {"steps": STEPS, "data__batch": 4, "augment__enabled": True, "parallel__shard": 2}
        return settings(**{**common, **changes})

    return make


PEACE: list[Config] = []


@pytest.fixture
def peace(four: Any, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The run that nothing befalls; once for all tests."""
    if not PEACE:
        c = four(out=str(tmp_path_factory.mktemp("peace") / "run"))
        assert ranks.run(c, WORLD) == [0] * WORLD, texts(c)
        alike(c, 2)
        PEACE.append(c)
    return PEACE[0]


@pytest.mark.parametrize("shards", [2, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 4))])
def test_steps_that_one_rank_cannot_take_and_a_full_disk_leave_all_alike(four: Any, shards: int) -> None:
    """NaN on one, a spike on another, no room for a checkpoint on a third; and SIGTERM to the last in an evaluation."""
    c = four(
        steps=100,
        checkpoint__every=2,
        checkpoint__keep=9,
        optimizer__warmup=2,
        objective__shared_times_from=0,
        evaluation__every=9,
        evaluation__split="all",
        evaluation__samples=8,
        evaluation__pictures=0,
        parallel__shard=shards,
    )
    faults = {0: [("full disk", 6)], 1: [("nan", 4)], 2: [("spike", 7)], 3: [("term while evaluating", 9)]}
    assert ranks.run(c, WORLD, faults=faults) == [0] * WORLD, texts(c)
    alike(c, shards)
    lines = [line for line in log.read(Path(c.out)) if "loss" in line]
    assert [line["skipped"] for line in lines] == [0] * 3 + [1] * 3 + [2] * 3
    assert [ranks.said(c, rank).splitlines()[-1] for rank in range(WORLD)] == ["ended at 9, 15"] * WORLD
    said = ranks.said(c, 0)
    assert "step 4 skipped: a non-finite loss" in said
    assert "step 7 skipped: a spike" in said
    assert "No space left on device" in said
    assert "training goes on" in said
    assert [path.name for path in checkpoints.steps(Path(c.out))] == [f"step-{k:06d}" for k in (2, 4, 8, 9)]
    found = {k: checkpoints.find(Path(c.out) / "checkpoints" / f"step-{k:06d}") for k in (8, 9)}
    assert found[9].step == 9, "the signal found its checkpoint, and the evaluation was dropped"
    assert not any("evaluation" in line for line in log.read(Path(c.out)) if line["step"] == 9)


def test_a_killed_rank_and_a_damaged_checkpoint_cost_steps_and_not_a_bit(four: Any, peace: Config) -> None:
    c = four(checkpoint__every=2, checkpoint__keep=9)
    assert ranks.run(c, WORLD, "kill", rank=2, step=9) == [2, 2, -signal.SIGKILL, 2], texts(c)
    for rank in (0, 1, 3):
        assert "rank 2 of 4, on " in ranks.said(c, rank)
        assert "as one that was killed" in ranks.said(c, rank)
        assert "Traceback" not in ranks.said(c, rank)
    newest = final(c.out)
    assert newest.step in (6, 8), "the last one may still have been on its way to the disk"
    damage(newest)
    assert ranks.run(c, WORLD) == [0] * WORLD, texts(c)
    said = ranks.said(c, 0)
    assert newest.path.name in said, "says which it passed over"
    assert f"goes on at step {newest.step - 2}" in said
    alike(c, 2)
    assert losses(c.out) == losses(peace.out)
    assert same_tensors(final(c.out), final(peace.out))


def damage(found: checkpoints.Found) -> None:
    """One bit of one file, as a disk may lose it."""
    file = max(found.path.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


@pytest.mark.slow
def test_an_error_of_one_rank_is_named_by_all_and_nothing_is_lost(four: Any, peace: Config) -> None:
    c = four(checkpoint__every=2)
    assert ranks.run(c, WORLD, "error", rank=3, step=8) == [2] * WORLD, texts(c)
    assert "worldtrace train: a fault of this rank alone" in ranks.said(c, 3)
    for rank in range(3):
        assert "rank 3 of 4, on " in ranks.said(c, rank)
        assert "a fault of this rank alone; the same command goes on" in ranks.said(c, rank)
    assert final(c.out).step >= 4
    assert ranks.run(c, WORLD) == [0] * WORLD, texts(c)
    alike(c, 2)
    assert losses(c.out) == losses(peace.out)
    assert same_tensors(final(c.out), final(peace.out))


@pytest.mark.slow
def test_a_full_disk_at_the_last_checkpoint_ends_all_with_one_sentence(four: Any) -> None:
    c = four(checkpoint__every=5)
    assert ranks.run(c, WORLD, "full disk", rank=1, step=STEPS) == [2] * WORLD, texts(c)
    for rank in range(WORLD):
        assert ranks.said(c, rank).count("worldtrace train: ") == 1
        assert "No space left on device" in ranks.said(c, rank)
    assert final(c.out).step == 10


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_by_all_four(four: Any) -> None:
    c = four(parallel__timeout=3.0)
    assert ranks.run(c, WORLD, "hang", rank=2, step=5) == [2] * WORLD, texts(c)
    for rank in range(WORLD):
        assert "rank 2 of 4, on " in ranks.said(c, rank).splitlines()[-1]
        assert "at step 5 it computes, in train/ranks.py:" in ranks.said(c, rank).splitlines()[-1]


@pytest.mark.slow  # two ranks to one and back are in test_parallel
def test_four_two_and_one_rank_go_on_with_the_same_samples(four: Any, peace: Config) -> None:
    """The loss of the first step after each change is that of the same samples on four ranks."""
    common = {"checkpoint__every": 1, "checkpoint__keep": 99, "parallel__shard": "all"}
    c = four(**common)
    alone = losses(peace.out)
    for world, first, last in ((4, 0, 3), (2, 3, 6), (1, 6, 8), (4, 8, STEPS)):
        stop = {0: [("term", last - first)]} if last < STEPS else {}
        assert ranks.run(c, world, faults=stop) == [0] * world, texts(c)
        assert final(c.out).step == last
        assert losses(c.out)[:last] == pytest.approx(alone[:last], rel=2e-4)
        if last == 3:
            shutil.copytree(c.out, f"{c.out}-one")
    for world in (2, 1):
        after = four(**common, out=f"{c.out}-one") if world == 1 else c
        if world == 1:
            assert ranks.run(after, 1, faults={0: [("term", 1)]}) == [0]
        assert losses(after.out)[3] == pytest.approx(alone[3], rel=SAME), f"four ranks to {world}"
