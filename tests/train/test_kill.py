"""A run that is killed at random moments is the run that nobody disturbed (tests/benchmarks/kill.py at length)."""

import json
from pathlib import Path

import pytest
import torch

from tests.benchmarks.kill import case, changing, notes, same, settings_of, trace


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("world", "workers"), [(1, 2), (2, 0)])
def test_a_killed_run_takes_the_same_steps(tmp_path: Path, world: int, workers: int) -> None:
    """Augmentation, noise, times, accumulation: losses, samples, weights, moments and averages, bit for bit."""
    found = case(tmp_path, world, workers, steps=20, every=3, kills=4, seed=1)
    assert found["differing"] == []
    assert found["kills"] >= 2
    assert found["steps taken twice"] > 0, "steps that were lost have been taken again, and compared"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_other_numbers_of_ranks_see_the_same_samples(tmp_path: Path) -> None:
    """4 -> 2 -> 1: the first loss of each within 1e-5 of that of 4."""
    found = changing(tmp_path, steps=15, every=4)
    assert found["differing"] == []
    assert len(found["loss differs by"]) == 2


def write(path: Path, steps: dict[int, tuple[list[int], float]]) -> None:
    lines = [
        line for k, (i, loss) in steps.items() for line in ({"step": k, "indices": i}, {"step": k, "loss": loss.hex()})
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_what_differs_between_attempts_or_ranks_is_found(tmp_path: Path) -> None:
    """The comparison itself: a bit of a loss, an index, a rank that thinks otherwise, a step that was cut short."""
    settings = settings_of(tmp_path, "run", 4, 2, 0)
    write(notes(settings, 0, 0), {1: ([0, 1], 0.5), 2: ([4, 5], 0.25)})
    write(notes(settings, 0, 1), {1: ([2, 3], 0.5)})
    found = trace(settings, [2])
    assert found.indices == {1: [0, 1, 2, 3]}, "step 2 has not come to its end on both"
    assert found.differing == []
    write(notes(settings, 1, 0), {1: ([0, 1, 2, 3], 0.5 + 2**-53), 2: ([4, 5, 6, 7], 0.25)})
    assert len(trace(settings, [2, 1]).differing) == 1
    write(notes(settings, 1, 0), {1: ([0, 1, 2, 4], 0.5)})
    assert len(trace(settings, [2, 1]).differing) == 1
    write(notes(settings, 0, 1), {1: ([2, 3], 0.75)})
    assert len(trace(settings, [2]).differing) == 1


def test_the_same_is_the_same_bits() -> None:
    assert same(torch.tensor([torch.nan, 1.0]), torch.tensor([torch.nan, 1.0]))
    assert not same(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same(torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64))
