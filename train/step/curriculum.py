"""When the time curriculum goes from a time per layer to one time for the stack (paper, section 3.3 and App. B).

The paper switches "once all layers have stabilized" and gives no rule. Ours, for `objective.shared_times_from: stable`,
looks at the run's own losses per layer, a mean over all ranks at every step:

- Steps after the warm-up are cut into windows of `WINDOW` steps. A window goes on for as many more times `WINDOW` as it
  takes to know the mean of every layer within `KNOWN` (standard error over the mean), so that a small batch waits
  longer instead of deciding by chance. The error comes from the differences of successive steps: the scatter about the
  mean would take a loss that falls fast for a noisy one, and wait for ever.
- A layer is stable where its mean fell from one window to the next by less than `FALL` for every `WINDOW` steps between
  the middles of the two.
- Once all layers that are supervised were stable in two comparisons in a row, the next step is the first of phase (ii).

Why these numbers: a loss that falls as step^-a falls by a WINDOW / step in a window, so with exponents of 0.3 to 0.5,
as they are common, the rule switches after 17,000 to 27,000 steps of the paper's 100,000 if the loss has no noise
(later where windows must grow), and soon after a real plateau. 0.02 is four times what a mean may be wrong by; two in a
row, because one fall may look small by chance and a second look costs 1,000 steps. The first switch that can be comes 3
windows after the warm-up: the paper's step 5,000.

The sums stay on the device and are read once a window: no step waits for them. All of it is in the checkpoint.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from model.times import Phase

WINDOW = 1000  # steps
FALL = 0.02  # of the mean of the window before, for every WINDOW steps
KNOWN = 0.005  # relative standard error within which a window's mean is known
IN_A_ROW = 2  # comparisons


class Curriculum:
    """Which phase a step is in. Feed every step to `note`, in order; the same on every rank."""

    def __init__(
        self,
        shared_from: int | Literal["stable"],
        layers: int,
        warmup: int,
        device: torch.device | str = "cpu",
        window: int = WINDOW,
    ) -> None:
        """`shared_from` is `objective.shared_times_from`: the last step with independent times, or "stable".

        `warmup`: steps that are not looked at. Steps are counted from 1.
        """
        self.switched_at: int | None = None if shared_from == "stable" else shared_from
        self._watching, self._window, self._begun = shared_from == "stable", window, warmup
        # of each layer in this window: steps that supervise it, the sum of their losses, differences between successive
        # ones, the sum of their squares; and the loss before, NaN where there was none
        self._sums_4L = torch.zeros(4, layers, dtype=torch.float64, device=device)
        self._last_L = torch.full((layers,), torch.nan, dtype=torch.float64, device=device)
        self._before: tuple[float, list[float | None]] | None = None  # the window before: its middle, its means
        self._compared: dict[str, Any] = {}  # what the last comparison was of
        self._in_a_row = 0

    def phase(self, step: int) -> Phase:
        """Of step 1, 2, ...: "shared" after `switched_at`, the last step of phase (i)."""
        return "independent" if self.switched_at is None or step <= self.switched_at else "shared"

    @torch.no_grad()
    def note(self, step: int, error_L: Tensor, weight_L: Tensor, taken: Tensor | None = None) -> bool:
        """What step `step` came to: squared error and weight per layer, each summed over the whole batch of all ranks,
        on the device. True where this step is the last one of phase (i).

        A layer without weight is not looked at, and neither is a step that was not `taken` (0-dim bool) or whose loss
        is not finite.
        """
        if not self._watching:
            return step == self.switched_at
        if self.switched_at is not None or step <= self._begun:
            return False
        loss_L = error_L.double() / weight_L.double()  # 0 / 0 is not finite either
        counted_L = loss_L.isfinite() if taken is None else loss_L.isfinite() & taken
        change_L = loss_L - self._last_L
        compared_L = counted_L & ~self._last_L.isnan()
        self._sums_4L += torch.stack(
            [
                counted_L.double(),
                torch.where(counted_L, loss_L, 0.0),
                compared_L.double(),
                torch.where(compared_L, change_L.square(), 0.0),
            ]
        )
        self._last_L = torch.where(counted_L, loss_L, self._last_L)
        if (step - self._begun) % self._window:
            return False
        return self._judge(step)

    def cause(self) -> dict[str, Any]:
        """Why the phase ended, once `note` has said so, as JSON: {"cause": "fixed"}, the config gave the step; or
        {"cause": "stable", "from": the first step of the last window, "before" and "means": the losses of each layer in
        the window before and in the last one, None where nothing supervised it}."""
        return {"cause": "stable", **self._compared} if self._watching else {"cause": "fixed"}

    def _judge(self, step: int) -> bool:
        """Close the window if its means are known well enough, and compare it with the one before."""
        found = [_mean(*sums) for sums in zip(*self._sums_4L.tolist())]
        if not any(found) or any(each is not None and each[1] > KNOWN * each[0] for each in found):
            return False
        middle, means = (self._begun + step) / 2, [None if each is None else each[0] for each in found]
        if self._before is not None:
            older, before = self._before
            allowed = FALL * (middle - older) / self._window
            stable = all(
                now is None or (old is not None and old - now <= allowed * old) for now, old in zip(means, before)
            )
            self._in_a_row = self._in_a_row + 1 if stable else 0
            self._compared = {"from": self._begun + 1, "before": before, "means": means}
        self._before, self._begun = (middle, means), step
        self._sums_4L.zero_()
        if self._in_a_row == IN_A_ROW:
            self.switched_at = step
        return self.switched_at is not None

    def state(self) -> dict[str, Any]:
        """JSON for a checkpoint; waits for the device. A run that goes on from it switches at the same step."""
        return {
            "switched_at": self.switched_at,
            "begun": self._begun,
            "sums": self._sums_4L.tolist(),
            "last": [None if math.isnan(loss) else loss for loss in self._last_L.tolist()],
            "before": None if self._before is None else [self._before[0], self._before[1]],
            "in_a_row": self._in_a_row,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`, ValueError where it is none. A step that the config gives stays the config's."""
        if not self._watching:
            return
        try:
            switched, begun, in_a_row = state["switched_at"], state["begun"], state["in_a_row"]
            counts = [begun, in_a_row] if switched is None else [switched, begun, in_a_row]
            if not all(type(count) is int and count >= 0 for count in counts):
                raise ValueError(f"it counts {counts}")
            sums_4L = torch.tensor(state["sums"], dtype=torch.float64).reshape_as(self._sums_4L)
            last_L = _numbers(state["last"]).reshape_as(self._last_L)
            before = state["before"]
            if before is not None:
                middle, means = before
                _numbers([middle, *means]).reshape(1 + len(last_L))
                before = (middle, list(means))
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            text = " ".join(str(error).split())[:200]
            raise ValueError(f"checkpoint: what it says of the time curriculum cannot be understood: {text}") from None
        self.switched_at, self._begun, self._in_a_row, self._before = switched, begun, in_a_row, before
        self._sums_4L.copy_(sums_4L)
        self._last_L.copy_(last_L)


def _numbers(values: Sequence[float | None]) -> Tensor:
    """NaN where there is none."""
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)


def _mean(count: float, total: float, compared: float, squares: float) -> tuple[float, float] | None:
    """(mean, its standard error) of `count` numbers, whose `compared` successive differences squared sum to `squares`;
    None of no number. The difference of two has twice the variance of one."""
    if not count:
        return None
    return total / count, math.sqrt(squares / (2 * compared * count)) if compared else math.inf
