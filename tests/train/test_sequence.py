"""The sequence of samples does not depend on who reads it, or is killed (tests/benchmarks/sequence.py at length)."""

from pathlib import Path

import pytest

from tests.benchmarks.sequence import Run, dealt, digest, large_run, real, real_run

STEPS = 60


@pytest.fixture(scope="module")
def run() -> Run:
    return large_run(STEPS, 192)


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 5), (2, 1), (3, 2), (8, 3), (64, 1)])
def test_ranks_workers_and_kills_leave_the_sequence_alone(run: Run, world: int, workers: int) -> None:
    parts = [(0, 17, world, workers), (17, 41, 2, 1), (41, STEPS, world, workers)]
    assert dealt(run, parts) == digest(run.keys())


def test_a_step_more_or_another_seed_is_seen(run: Run) -> None:
    expected = digest(run.keys())
    assert dealt(run, [(0, 30, 1, 0), (31, STEPS, 1, 0)]) != expected
    assert dealt(Run(**{**run.__dict__, "seed": 6}), [(0, STEPS, 1, 0)]) != expected


def test_real_workers_and_ranks_may_be_killed(tmp_path: Path) -> None:
    """SIGKILL of a worker and then of a whole rank; other numbers of both go on, from real shards, to the same keys."""
    run = real_run(tmp_path / "data", 24, 12)
    found, kills = real(run, [(1, 2, "worker"), (2, 1, "rank"), (1, 0, "")], 4, tmp_path)
    assert kills == 2
    assert found == digest(run.keys())
