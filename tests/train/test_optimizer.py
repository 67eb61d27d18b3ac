"""The schedule, against its closed form."""

import pytest

from train.config import Optimizer
from train.step.rate import learning_rate


def test_the_rate_warms_up_linearly_and_falls_by_a_cosine() -> None:
    o = Optimizer(lr=1e-3, min_lr=1e-4, warmup=10)
    rates = [learning_rate(k, 111, o) for k in range(111)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[60] == pytest.approx((1e-3 + 1e-4) / 2)
    assert rates[-1] == pytest.approx(1e-4)
    assert rates[10:] == sorted(rates[10:], reverse=True)
