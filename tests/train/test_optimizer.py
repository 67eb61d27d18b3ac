"""The schedule, the averaged weights and the guard, against closed forms."""

import math

import pytest
import torch
from torch import nn

from train.config import Optimizer
from train.optimizer import HOPELESS, Ema, Guard, adamw, learning_rate


def test_the_rate_warms_up_linearly_and_falls_by_a_cosine() -> None:
    o = Optimizer(lr=1e-3, min_lr=1e-4, warmup=10)
    rates = [learning_rate(k, 111, o) for k in range(111)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[60] == pytest.approx((1e-3 + 1e-4) / 2)
    assert rates[-1] == pytest.approx(1e-4)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_matrices_decay_and_vectors_do_not() -> None:
    model = nn.Linear(3, 3)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = adamw(model, Optimizer(lr=0.1, weight_decay=0.5))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.allclose(model.weight, torch.full((3, 3), 0.95))
    assert torch.equal(model.bias, torch.ones(3))


def test_the_average_of_a_short_run_forgets_its_start() -> None:
    """With w = u at update u, a fixed decay of 0.9995 would still be near the start after 200 updates."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = Ema(model, 0.9995)
    expected = 0.0
    for u in range(1, 201):
        nn.init.constant_(model.weight, u)
        ema.update(model, u)
        keep = min(0.9995, (1 + u) / (10 + u))
        expected = keep * expected + (1 - keep) * u
    average = float(ema.weights["weight"])
    assert average == pytest.approx(expected, rel=1e-5)
    assert average > 0.8 * 200


def test_spikes_and_non_finite_steps_are_refused_and_counted() -> None:
    guard = Guard(4.0)
    assert guard.refuse(100.0, 1.0, warm=False) is None, "no spikes during warm-up"
    for _ in range(300):
        assert guard.refuse(1.0, 1.0, warm=True) is None
    assert "spike" in str(guard.refuse(5.0, 1.0, warm=True))
    assert "loss" in str(guard.refuse(math.nan, 1.0, warm=True))
    assert "gradient" in str(guard.refuse(1.0, math.inf, warm=True))
    assert guard.refuse(3.0, 1.0, warm=True) is None
    assert (guard.updates, guard.skipped) == (302, 3)


def test_a_loss_that_rose_for_good_is_accepted_in_the_end() -> None:
    guard = Guard(4.0, running=1.0)
    refused = [guard.refuse(8.0, 1.0, warm=True) is not None for _ in range(HOPELESS)]
    assert refused[0]
    assert not refused[-1]


def test_a_hopeless_run_ends() -> None:
    guard = Guard(4.0)
    for _ in range(HOPELESS - 1):
        guard.refuse(math.nan, math.nan, warm=False)
    with pytest.raises(ValueError, match=r"50 steps in a row .*lower optimizer\.lr"):
        guard.refuse(math.nan, math.nan, warm=False)
