"""Diffusion times: the three densities of the noise curriculum and its two phases (paper, section 3.3 and App. B).

Every draw is a function of a uniform number, so whoever owns the uniforms (a function of seed, sample and step, in
training) owns the times. t = 0 is data, t = 1 is noise.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

Time = TypeVar("Time", float, Tensor)
Phase = Literal["independent", "shared"]


class Schedule(Protocol):
    """A distribution of times on (0, 1)."""

    def pdf(self, t: Tensor) -> Tensor:
        """Density at t, elementwise; it integrates to 1 over [0, 1]."""
        ...

    def draw(self, uniform: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) -> times with this density, elementwise."""
        ...


@dataclass(frozen=True)
class LogitNormal:
    """logit(t) ~ N(mu, sigma^2): most samples near t = 0.5, where generation is decided."""

    mu: float = 0.0
    sigma: float = 1.0

    def pdf(self, t: Tensor) -> Tensor:
        t = t.clamp(1e-7, 1 - 1e-7)
        score = (torch.logit(t) - self.mu) / self.sigma
        return torch.exp(-0.5 * score**2) / (self.sigma * math.sqrt(2 * math.pi) * t * (1 - t))

    def draw(self, uniform: Tensor) -> Tensor:
        # 1e-6 keeps the quantile finite at u = 0; it moves one draw in a million.
        return torch.sigmoid(self.mu + self.sigma * torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6)))

    def cdf(self, t: float) -> float:
        score = (math.log(t / (1 - t)) - self.mu) / self.sigma
        return 0.5 * (1 + math.erf(score / math.sqrt(2)))


@dataclass(frozen=True)
class Shifted:
    """The times of `base` moved towards noise: t -> s t / (1 + (s - 1) t), which adds ln s to logit(t)."""

    base: Schedule
    shift: float

    def pdf(self, t: Tensor) -> Tensor:
        denominator = self.shift - (self.shift - 1) * t
        return self.base.pdf(t / denominator) * self.shift / denominator**2

    def draw(self, uniform: Tensor) -> Tensor:
        return shifted(self.base.draw(uniform), self.shift)


@dataclass(frozen=True)
class PlateauedLogitNormal:
    """Constant density from t = 0 up to the logit-normal's mode, logit-normal beyond, renormalised.

    Small t, where the visible layer is reconstructed rather than generated, keeps as much weight as the mode.
    `base.sigma` is at most sqrt(2): a wider logit-normal has two modes.
    """

    base: LogitNormal = LogitNormal()

    def __post_init__(self) -> None:
        if not 0 < self.base.sigma <= math.sqrt(2):
            raise ValueError(
                f"plateaued logit-normal: sigma {self.base.sigma} must lie in (0, sqrt(2)] for a single mode"
            )

    @cached_property
    def mode(self) -> float:
        """t* with logit(t*) - mu = sigma^2 (2 t* - 1), by bisection: the difference of the two sides increases."""
        low, high = 1e-9, 1 - 1e-9
        for _ in range(80):
            t = (low + high) / 2
            if math.log(t / (1 - t)) - self.base.mu < self.base.sigma**2 * (2 * t - 1):
                low = t
            else:
                high = t
        return (low + high) / 2

    @cached_property
    def _plateau(self) -> tuple[float, float, float]:
        """(height of the plateau before renormalisation, its mass, total mass)."""
        height = float(self.base.pdf(torch.tensor(self.mode, dtype=torch.float64)))
        return height, height * self.mode, height * self.mode + 1 - self.base.cdf(self.mode)

    def pdf(self, t: Tensor) -> Tensor:
        height, _, total = self._plateau
        return torch.where(t <= self.mode, torch.full_like(t, height), self.base.pdf(t)) / total

    def draw(self, uniform: Tensor) -> Tensor:
        height, mass, total = self._plateau
        area = uniform * total
        beyond = self.base.draw(area - mass + self.base.cdf(self.mode))
        return torch.where(area <= mass, area / height, beyond)


@dataclass(frozen=True)
class Mixture:
    """One of two schedules with equal probability: the shared time of phase (ii)."""

    first: Schedule = PlateauedLogitNormal()
    second: Schedule = LogitNormal()

    def pdf(self, t: Tensor) -> Tensor:
        return (self.first.pdf(t) + self.second.pdf(t)) / 2

    def draw(self, uniform: Tensor) -> Tensor:
        """The first half of [0, 1) draws from the first schedule, the second half from the second."""
        twice = 2 * uniform
        return torch.where(twice < 1, self.first.draw(twice), self.second.draw((twice - 1).clamp(min=0)))


def shifted(t: Time, shift: float) -> Time:
    """t in [0, 1] -> s t / (1 + (s - 1) t): 0 and 1 stay, what lies between moves towards 1 for s > 1."""
    return shift * t / (1 + (shift - 1) * t)


# Of a stack's first layer and the others in phase (i), of all in phase (ii): the paper's, and those of its Table 4.
SCHEDULES: dict[str, tuple[Schedule, Schedule, Schedule]] = {
    "mixture": (PlateauedLogitNormal(), LogitNormal(), Mixture()),
    "logit_normal": (LogitNormal(), LogitNormal(), LogitNormal()),
    "plateaued": (PlateauedLogitNormal(), PlateauedLogitNormal(), PlateauedLogitNormal()),
}


def draw_times(uniform_BL: Tensor, phase: Phase, shift: float = 1.0, schedule: str = "mixture") -> Tensor:
    """Uniform numbers (B,L) in [0, 1) -> times (B,L) of the curriculum's phase, shifted (`WTConfig.time_shift`).

    "independent" is phase (i): a time per layer, plateaued for the visible layer, logit-normal for those behind it.
    "shared" is phase (ii): one time for the stack from the equal mixture, drawn from the uniforms of layer 0.
    `schedule`: "mixture", as the paper trains; "logit_normal" or "plateaued" for all layers in both phases (Table 4).
    """
    visible, behind, shared = SCHEDULES[schedule]
    if phase == "independent":
        visible_B1 = Shifted(visible, shift).draw(uniform_BL[:, :1])
        return torch.cat([visible_B1, Shifted(behind, shift).draw(uniform_BL[:, 1:])], dim=1)
    if phase == "shared":
        return Shifted(shared, shift).draw(uniform_BL[:, :1]).expand_as(uniform_BL)
    raise ValueError(f"phase of the time curriculum is {phase!r}; choose 'independent' or 'shared'")
