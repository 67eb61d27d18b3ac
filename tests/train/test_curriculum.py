"""When the times of all layers become one: on losses whose answer is known, and the same after any interruption."""

import json
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from model import draw_times
from train.step.curriculum import FALL, Curriculum

W, WARMUP = 50, 30
Curve = Callable[[int], list[float]]  # step -> loss per layer


def switch(curve: Curve, steps: int, stop: int | None = None, layers: int = 3) -> int | None:
    """The step at which a run with these losses switches; at `stop` it is interrupted and goes on from its state."""
    curriculum = Curriculum("stable", layers, WARMUP, window=W)
    told = []
    for step in range(1, steps + 1):
        weight = torch.full((layers,), 7.0)
        if curriculum.note(step, torch.tensor(curve(step), dtype=torch.float64) * weight, weight):
            told.append(step)
        if step == stop:
            state = json.loads(json.dumps(curriculum.state()))
            curriculum = Curriculum("stable", layers, WARMUP, window=W)
            curriculum.load(state)
    assert told == ([] if curriculum.switched_at is None else [curriculum.switched_at]), "told once, and truly"
    return curriculum.switched_at


def noisy(curve: Curve, deviation: float) -> Curve:
    """Each loss times 1 + Gaussian noise that belongs to its step."""

    def at(step: int) -> list[float]:
        clean = torch.tensor(curve(step), dtype=torch.float64)
        noise = torch.randn(len(clean), generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        return (clean * (1 + deviation * noise)).tolist()

    return at


def test_a_plateau_switches_at_the_first_step_that_can_be() -> None:
    """Three windows after the warm-up: two comparisons. Whatever the loss did in the warm-up does not count."""
    assert switch(lambda step: [0.3, 0.2, 0.1] if step > WARMUP else [100.0 / step] * 3, 500) == WARMUP + 3 * W
    assert switch(noisy(lambda _: [0.3, 0.2, 0.1], 0.01), 500) == WARMUP + 3 * W


def test_the_switch_names_its_cause() -> None:
    """The two windows whose means were compared last; a layer that nothing supervises has none."""
    curriculum = Curriculum("stable", 2, WARMUP, window=W)
    weight = torch.tensor([1.0, 0.0])
    for step in range(1, WARMUP + 3 * W + 1):
        loss = 0.5 if step <= WARMUP + 2 * W else 0.499
        told = curriculum.note(step, torch.tensor([loss, 0.0], dtype=torch.float64), weight)
    assert told
    found = curriculum.cause()
    assert json.loads(json.dumps(found)) == found
    assert (found["cause"], found["from"]) == ("stable", WARMUP + 2 * W + 1)
    assert found["before"] == [pytest.approx(0.5), None]
    assert found["means"] == [pytest.approx(0.499), None]
    assert Curriculum(5, 2, WARMUP).cause() == {"cause": "fixed"}


def test_a_loss_that_rises_is_stable() -> None:
    """It has stopped falling; the guard is there for losses that explode."""
    assert switch(lambda step: [1 + step / 1000] * 3, 500) == WARMUP + 3 * W


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_one_late_layer_holds_all_back(layer: int) -> None:
    """It falls until step 430 and is flat from then on: the first window that is wholly flat begins at 480."""

    def curve(step: int) -> list[float]:
        losses = [0.5, 0.4, 0.3]
        losses[layer] *= math.exp(-min(step, 430) / 1000)
        return losses

    # [430, 480) against the window before is the last fall, [480, 530) the first flat one, [530, 580) the second
    assert switch(curve, 1000) == 580
    assert switch(noisy(curve, 0.01), 1000) == 580


def test_a_steady_fall_is_told_from_a_slow_one() -> None:
    """Just above the threshold never, just below at once, with noise a hundredth of the loss."""
    for factor, expected in ((1.3, None), (0.7, WARMUP + 3 * W)):
        fall = 1 - FALL * factor
        assert switch(noisy(lambda step, fall=fall: [fall ** (step / W)] * 3, 0.005), 2000) == expected


@pytest.mark.parametrize(("exponent", "low", "high"), [(0.3, 17, 17), (0.5, 27, 27), (1.0, 50, 53)])
def test_a_power_law_switches_where_the_documentation_says(exponent: float, low: int, high: int) -> None:
    """In windows; warm-up 2 windows long, as in the paper's recipe."""
    curriculum = Curriculum("stable", 3, 2 * W, window=W)
    for step in range(1, 60 * W):
        if curriculum.note(step, torch.full((3,), step**-exponent), torch.ones(3)):
            break
    assert curriculum.switched_at is not None
    assert low * W <= curriculum.switched_at <= high * W


def test_a_noisy_loss_waits_until_its_means_are_known() -> None:
    """The scatter of a small batch: 10 % from step to step takes 400 steps for a mean within 0.5 %."""
    steady = noisy(lambda _: [1.0, 0.5, 0.25], 0.1)
    found = switch(steady, 3000)
    assert found is not None
    assert 3 * 350 < found < 3 * 500
    assert switch(noisy(lambda step: [math.exp(-3 * FALL * step / W)] * 3, 0.1), 3000) is None


@pytest.mark.parametrize("stop", [1, WARMUP, WARMUP + 1, WARMUP + W, 333, 479, 480, 579, 580, 581])
def test_an_interrupted_run_switches_at_the_same_step(stop: int) -> None:
    curve = noisy(lambda step: [0.5 * math.exp(-min(step, 430) / 1000), 0.4, 0.3], 0.01)
    assert switch(curve, 800, stop=stop) == switch(curve, 800) == 580


def test_layers_without_supervision_do_not_hold_back() -> None:
    """A single-layer mix: layer 0 at every step, layer 1 at some, layer 2 never."""
    curriculum = Curriculum("stable", 3, WARMUP, window=W)
    for step in range(1, 1000):
        weight = torch.tensor([5.0, 5.0 * (step % 3 == 0), 0.0])
        if curriculum.note(step, weight * torch.tensor([0.3, 0.2, 9.9]), weight):
            break
    assert curriculum.switched_at == WARMUP + 3 * W


def test_a_layer_that_comes_late_has_to_prove_itself() -> None:
    curriculum = Curriculum("stable", 2, WARMUP, window=W)
    for step in range(1, 1000):
        weight = torch.tensor([5.0, 5.0 * (step > WARMUP + 2 * W)])
        if curriculum.note(step, weight * 0.3, weight):
            break
    assert curriculum.switched_at == WARMUP + 5 * W  # first seen in the third window, compared in the fourth and fifth


def test_steps_without_a_finite_loss_and_refused_ones_do_not_count() -> None:
    curriculum = Curriculum("stable", 2, WARMUP, window=W)
    for step in range(1, 1000):
        weight, loss = torch.ones(2), 0.3
        taken = torch.tensor(step % 7 != 0)
        if step % 5 == 0:
            loss = math.nan if step % 10 else math.inf
        elif step % 7 == 0:
            loss = 1e9
        if curriculum.note(step, weight * loss, weight, taken):
            break
    assert curriculum.switched_at == WARMUP + 3 * W


def test_nothing_supervised_never_switches() -> None:
    curriculum = Curriculum("stable", 2, 0, window=10)
    assert not any(curriculum.note(step, torch.zeros(2), torch.zeros(2)) for step in range(1, 200))


def test_the_phase_of_a_step_that_the_config_gives() -> None:
    for given in (0, 1, 5):
        curriculum = Curriculum(given, 3, WARMUP)
        told = [step for step in range(1, 9) if curriculum.note(step, torch.ones(3), torch.ones(3))]
        assert told == ([given] if given else [])
        assert [curriculum.phase(step) for step in range(1, 9)] == ["independent"] * given + ["shared"] * (8 - given)
        curriculum.load({**curriculum.state(), "switched_at": 99})
        assert curriculum.switched_at == given, "the config decides"


def test_the_phase_changes_once_and_the_step_after_the_switch() -> None:
    curriculum = Curriculum("stable", 3, WARMUP, window=W)
    phases = []
    for step in range(1, 400):
        phases.append(curriculum.phase(step))
        curriculum.note(step, torch.ones(3), torch.ones(3))
    changes = [step + 2 for step, (a, b) in enumerate(pairwise(phases)) if a != b]
    assert changes == [WARMUP + 3 * W + 1]
    uniform = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    assert all(len(set(row)) == 1 for row in draw_times(uniform, curriculum.phase(399)).tolist())


def test_steps_between_windows_read_nothing_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a read would wait for the whole step; here every way to read a tensor is counted."""
    reads = []
    for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__", "numpy"):
        sound = getattr(Tensor, name)

        def counted(self: Tensor, *args: object, _sound: Callable = sound, _name: str = name) -> object:
            reads.append(_name)
            return _sound(self, *args)

        monkeypatch.setattr(Tensor, name, counted)
    curriculum = Curriculum("stable", 3, WARMUP, window=W)
    when = []
    for step in range(1, WARMUP + 2 * W + 1):
        curriculum.note(step, torch.ones(3), torch.ones(3), torch.tensor(True))
        if reads:
            when.append(step)
            reads.clear()
    assert when == [WARMUP + W, WARMUP + 2 * W]


@pytest.mark.parametrize(
    "change",
    [
        {"switched_at": "x"},
        {"begun": -1},
        {"begun": True},
        {"in_a_row": None},
        {"sums": [[0.0] * 3] * 3},
        {"sums": "none"},
        {"last": [0.0]},
        {"last": None},
        {"before": [1.0]},
        {"before": [1.0, [1.0, "x", 1.0]]},
        {"before": [None, None]},
    ],
)
def test_a_strange_state_is_refused_and_nothing_is_taken_from_it(change: dict) -> None:
    curriculum = Curriculum("stable", 3, WARMUP, window=W)
    before = curriculum.state()
    with pytest.raises(ValueError, match="says of the time curriculum cannot be understood"):
        curriculum.load({**before, "switched_at": 7, **change})
    with pytest.raises(ValueError, match="cannot be understood: 'begun'"):
        curriculum.load({"switched_at": 7})
    assert curriculum.state() == before
