"""The three densities of diffusion time: they integrate to one, and the samples follow them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from model.times import LogitNormal, Mixture, PlateauedLogitNormal, Shifted, draw_times

SCHEDULES = {
    "logit-normal": LogitNormal(),
    "logit-normal, shifted": LogitNormal(-0.4, 0.8),
    "plateaued": PlateauedLogitNormal(),
    "plateaued, shifted": PlateauedLogitNormal(LogitNormal(0.5, 1.2)),
    "mixture": Mixture(),
    "mixture, moved towards noise": Shifted(Mixture(), 5.0),
}
GRID = torch.linspace(0, 1, 20001, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_samples_follow_the_analytic_density(schedule):
    density = schedule.pdf(GRID)
    cdf = torch.cumulative_trapezoid(density, GRID)
    assert cdf[-1] == pytest.approx(1, abs=1e-4)
    uniform = torch.rand(20000, generator=torch.Generator().manual_seed(0))
    drawn = schedule.draw(uniform).double()
    assert ((drawn > 0) & (drawn < 1)).all()
    test = stats.kstest(drawn.numpy(), lambda t: np.interp(t, GRID[1:].numpy(), cdf.numpy()))
    assert test.pvalue > 0.01


def test_the_test_tells_the_schedules_apart():
    uniform = torch.rand(20000, generator=torch.Generator().manual_seed(0))
    drawn = LogitNormal().draw(uniform).numpy()
    cdf = torch.cumulative_trapezoid(PlateauedLogitNormal().pdf(GRID), GRID).numpy()
    assert stats.kstest(drawn, lambda t: np.interp(t, GRID[1:].numpy(), cdf)).pvalue < 1e-6


def test_plateau_is_flat_to_the_mode_continuous_there_and_logit_normal_beyond():
    schedule = PlateauedLogitNormal(LogitNormal(0.5, 1.2))
    t_star = schedule.mode
    assert math.log(t_star / (1 - t_star)) - 0.5 == pytest.approx(1.2**2 * (2 * t_star - 1), abs=1e-6)
    below = schedule.pdf(torch.linspace(0, t_star, 50, dtype=torch.float64))
    assert torch.allclose(below, below[:1].expand_as(below))
    beyond = torch.linspace(t_star, 0.999, 50, dtype=torch.float64)
    ratio = schedule.pdf(beyond) / schedule.base.pdf(beyond)
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio))
    assert schedule.pdf(beyond[:1]) == pytest.approx(float(below[0]), rel=1e-6)
    assert schedule.base.pdf(GRID).max() == pytest.approx(float(schedule.base.pdf(torch.tensor(t_star))), rel=1e-4)


def test_a_shift_adds_its_logarithm_to_the_logit():
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    torch.testing.assert_close(Shifted(LogitNormal(0.2, 0.9), 7.0).pdf(t), LogitNormal(0.2 + math.log(7), 0.9).pdf(t))
    uniform = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    for phase in ("independent", "shared"):
        moved = draw_times(uniform, phase, shift=7.0).logit() - draw_times(uniform, phase).logit()
        torch.testing.assert_close(moved, torch.full_like(moved, math.log(7)), atol=1e-3, rtol=0)


def test_standard_mode_is_a_half():
    assert PlateauedLogitNormal().mode == pytest.approx(0.5)


def test_a_schedule_with_two_modes_is_refused():
    with pytest.raises(ValueError, match=r"sigma 1\.6"):
        PlateauedLogitNormal(LogitNormal(0, 1.6))


def test_phase_one_draws_every_layer_by_itself_and_phase_two_once_for_the_stack():
    uniform = torch.rand(4000, 6, generator=torch.Generator().manual_seed(0))
    independent, shared = draw_times(uniform, "independent"), draw_times(uniform, "shared")
    assert torch.equal(independent[:, 0], PlateauedLogitNormal().draw(uniform[:, 0]))
    assert torch.equal(independent[:, 3], LogitNormal().draw(uniform[:, 3]))
    assert np.abs(np.corrcoef(independent.T.numpy()) - np.eye(6)).max() < 0.06
    assert torch.equal(shared, Mixture().draw(uniform[:, :1]).expand(-1, 6))
    assert independent[:, 0].mean() < independent[:, 1].mean()  # the visible layer sees less noise


def test_an_unknown_phase_is_named():
    with pytest.raises(ValueError, match="'later'"):
        draw_times(torch.rand(1, 6), "later")  # type: ignore[arg-type]
