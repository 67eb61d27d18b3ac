"""How weights change in a step: AdamW, its schedule, the moving average of the weights, and steps that are refused."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from train.config import Optimizer

RUNNING = 0.98  # decay of the running mean of the loss: about the last 50 steps
HOPELESS = 50  # refused steps in a row after which a run cannot recover by itself


def adamw(model: nn.Module, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW over the trainable weights. Weight decay on matrices only: the paper leaves the choice open, and decay on
    norms, biases, LayerScale and modulation vectors pulls them to 0 without regularising anything."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)


def learning_rate(step: int, steps: int, settings: Optimizer) -> float:
    """Of step 0, 1, ...: linear over `warmup` steps, then a cosine from `lr` to `min_lr` at the last one."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, steps - 1 - settings.warmup)
    return settings.min_lr + (settings.lr - settings.min_lr) * (1 + math.cos(math.pi * min(1.0, done))) / 2


class Ema:
    """Moving average of the trainable weights, float32: after u updates the decay is min(decay, (1 + u) / (10 + u)).

    The paper averages "after warmup"; a decay that grows with u does so smoothly, and a run of some hundred updates is
    averaged over its last tenth instead of over its random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().float().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        """Call after update number `updates` (1 is the first)."""
        named = dict(model.named_parameters())
        current = [named[name].detach().float() for name in self.weights]
        keep = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - keep)

    def load(self, weights: dict[str, Tensor]) -> None:
        for name, value in self.weights.items():
            value.copy_(weights[name])


@dataclass
class Guard:
    """Refuses steps that would corrupt Adam's statistics (App. B): spikes above 4 x the running mean, and non-finite.

    A refused loss enters the running mean cut to the limit, so a loss that rose for good is accepted after a while.
    All of it is in the checkpoint: `updates` counts the steps that were taken, `skipped` those that were not.
    """

    spike: float
    running: float | None = None
    updates: int = 0
    skipped: int = 0
    in_a_row: int = 0

    def refuse(self, loss: float, grad_norm: float, warm: bool) -> str | None:
        """Why the step is not to be taken, or None. `warm`: warm-up is over, spikes are judged.

        ValueError after 50 refused steps in a row: the weights themselves are beyond repair.
        """
        reason = self._reason(loss, grad_norm, warm)
        if reason is None:
            self.updates, self.in_a_row = self.updates + 1, 0
        else:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= HOPELESS:
            raise ValueError(f"{HOPELESS} steps in a row were refused, the last for {reason}; lower optimizer.lr")
        if math.isfinite(loss):
            running = loss if self.running is None else self.running
            self.running = RUNNING * running + (1 - RUNNING) * min(loss, self.spike * running)
        return reason

    def _reason(self, loss: float, grad_norm: float, warm: bool) -> str | None:
        if not math.isfinite(loss):
            return "a non-finite loss"
        if not math.isfinite(grad_norm):
            return "a non-finite gradient"
        if warm and self.running is not None and loss > self.spike * self.running:
            return f"a spike: loss {loss:.4g}, running mean {self.running:.4g}"
        return None

    def state(self) -> dict[str, Any]:
        return asdict(self)
