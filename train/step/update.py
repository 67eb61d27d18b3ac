"""How a step changes the weights: AdamW, the guard that refuses steps, and the moving average; all on the device.

Nothing here reads a number from the device but `counts`: the CPU runs ahead of the GPU, and a refused step is one in
which the kernels leave everything as it was. Weights may be DTensors (ranks/sharding.py); the arithmetic is over plain
tensors that share their memory, one per weight, each rank's own part.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from train.config import Config
from train.ranks.sharding import like, plain

RUNNING = 0.98  # decay of the running mean of the loss: about the last 50 steps
HOPELESS = 50  # refused steps in a row after which a run cannot recover by itself
REASONS = ("none", "a non-finite loss", "a non-finite gradient", "a spike of the loss")


class Verdict(NamedTuple):
    """On the device: `refused` 0 (the step was taken) or the index of its reason in REASONS, int64; `running`, the mean
    of the loss that it was judged against, float64, NaN before the first finite loss."""

    refused: Tensor
    running: Tensor


class Counts(NamedTuple):
    """Steps that were taken, that were refused, and that were refused one after the other until now."""

    updates: int
    skipped: int
    in_a_row: int


class Update:
    """AdamW over the trainable weights of `model`, their moving average, and the guard (App. B, "Optimizer").

    Weight decay on matrices only: the paper leaves the choice open, and decay on norms, biases, LayerScale and
    modulation vectors pulls them to 0 without regularising anything. A step whose loss or gradient is not finite, or
    whose loss exceeds `optimizer.spike` times its running mean, is refused: weights, moments, counters and average stay
    bit for bit. A refused loss enters the running mean cut to the limit, so a loss that rose for good is accepted after
    a while.

    After u updates the average's decay is min(`ema`, (1 + u) / (10 + u)). The paper averages "after warmup"; a decay
    that grows with u does so smoothly, and a run of some hundred updates is averaged over its last tenth instead of
    over its random start. Make it after the weights are where they stay (`sharding.distribute`).
    """

    def __init__(self, model: nn.Module, settings: Config) -> None:
        self.model, self.settings, self.decay = model, settings.optimizer, settings.ema
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.shards = {name: nn.Parameter(plain(p.detach())) for name, p in self.weights.items()}
        self.average = {name: shard.detach().float().clone() for name, shard in self.shards.items()}
        self.moments = {
            f"{kind}.{name}": torch.zeros_like(shard.detach())
            for kind in ("exp_avg", "exp_avg_sq")
            for name, shard in self.shards.items()
        }
        device = next(iter(self.shards.values())).device
        self.steps = torch.zeros(len(self.shards), device=device)  # updates that each weight has had, in their order
        self.running = torch.full((), torch.nan, dtype=torch.float64, device=device)
        self.updates, self.skipped, self.in_a_row, self.last = (
            torch.zeros((), dtype=torch.int64, device=device) for _ in range(4)
        )
        self.optimizer = self._adamw()

    def _adamw(self) -> torch.optim.AdamW:
        # A weight of fewer rows than ranks leaves some without a part.
        parts = {name: shard for name, shard in self.shards.items() if shard.numel()}
        # By the whole weight, not by this rank's part of it; a token of (1, 1, width) is a vector.
        tokens = {name for name, weight in self.weights.items() if weight.ndim > 2 and max(weight.shape[:-1]) == 1}
        matrices = {name for name, weight in self.weights.items() if weight.ndim >= 2} - tokens
        groups = [
            {"params": [p for n, p in parts.items() if n in matrices], "weight_decay": self.settings.weight_decay},
            {"params": [p for n, p in parts.items() if n not in matrices], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.settings.lr, betas=self.settings.betas, fused=True
        )
        steps = dict(zip(self.shards, self.steps.unbind()))
        for name, part in parts.items():  # from the start, so that a checkpoint is loaded into them
            optimizer.state[part] = {
                "step": steps[name],
                "exp_avg": self.moments[f"exp_avg.{name}"],
                "exp_avg_sq": self.moments[f"exp_avg_sq.{name}"],
            }
        return optimizer

    @torch.no_grad()
    def norm(self) -> Tensor:
        """Of the gradient of all weights over all of their parts, (), the same bits on the ranks that share them."""
        gradients = [plain(p.grad) for p in self.weights.values() if p.grad is not None]
        own = torch.nn.utils.get_total_norm([g for g in gradients if g.numel()]).to(self.running.device)
        some = next(iter(self.weights.values()))
        if not isinstance(some, DTensor):
            return own
        group = some.device_mesh.get_group("shard")
        all_ = own.new_empty(dist.get_world_size(group), 1)
        dist.all_gather(list(all_), own[None], group=group)  # not a reduction, whose order is its own affair
        return torch.linalg.vector_norm(all_)

    @torch.no_grad()
    def step(self, loss: Tensor, norm: Tensor, rate: float, warm: bool) -> Verdict:
        """Clip the gradients to `optimizer.clip` by their `norm` and take the step, or refuse it; drop the gradients.

        `loss` (), `norm` (): on the device, the same bits on every rank. `rate`: the learning rate. `warm`: warm-up is
        over, spikes are judged.
        """
        verdict = self._judge(loss.double(), norm, warm)
        refused = verdict.refused.ne(0)
        for name, shard in self.shards.items():
            gradient = self.weights[name].grad
            shard.grad = None if gradient is None or not shard.numel() else plain(gradient)
        torch.nn.utils.clip_grads_with_norm_(self.shards.values(), self.settings.clip, norm.float())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.found_inf = refused.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        keep = (1 + self.updates.double()) / (10 + self.updates.double())
        weight = torch.where(refused, 0.0, 1 - keep.clamp(max=self.decay)).float()
        for name, average in self.average.items():  # a launch each, for foreach reads its weight on the CPU
            average.lerp_(self.shards[name], weight)
        for name, shard in self.shards.items():
            self.weights[name].grad = shard.grad = None
        return verdict

    def _judge(self, loss: Tensor, norm: Tensor, warm: bool) -> Verdict:
        """The guard, and its counters. NaN compares as false, so an unknown running mean refuses nothing."""
        running, spike = self.running.clone(), self.settings.spike
        above = loss > spike * running if warm else torch.zeros_like(loss, dtype=torch.bool)
        refused = torch.where(~loss.isfinite(), 1, torch.where(~norm.isfinite(), 2, torch.where(above, 3, 0)))
        taken = refused.eq(0)
        self.updates += taken
        self.skipped += ~taken
        self.in_a_row.copy_(torch.where(taken, 0, self.in_a_row + 1))
        self.last.copy_(torch.where(taken, self.last, refused))
        before = torch.where(running.isnan(), loss, running)
        after = RUNNING * before + (1 - RUNNING) * torch.minimum(loss, spike * before)
        self.running.copy_(torch.where(loss.isfinite(), after, self.running))
        return Verdict(refused, running)

    def counts(self) -> Counts:
        """Waits for the device. ValueError after 50 refused steps in a row: the weights are beyond repair."""
        updates, skipped, in_a_row, last = torch.stack([self.updates, self.skipped, self.in_a_row, self.last]).tolist()
        if in_a_row >= HOPELESS:
            raise ValueError(
                f"{in_a_row} steps in a row were refused, the last for {REASONS[last]}; lower optimizer.lr"
            )
        return Counts(updates, skipped, in_a_row)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds, and what one is loaded into, in place, at any number of ranks.

        "model": all weights and buffers; "ema": the average of the trainable ones; "optimizer": exp_avg.NAME and
        exp_avg_sq.NAME, `step` (a number per weight, in the model's order) and the guard's running, updates, skipped,
        in_a_row and last. What lies over the ranks is a DTensor, the rest is the same on all.
        """
        guard = ("running", "updates", "skipped", "in_a_row", "last")
        return {
            "model": {name: value.detach() for name, value in self.model.state_dict().items()},
            "ema": {name: like(value, self.weights[name].detach()) for name, value in self.average.items()},
            "optimizer": {
                **{
                    name: like(value, self.weights[name.partition(".")[2]].detach())
                    for name, value in self.moments.items()
                },
                "step": self.steps,
                **{f"guard.{name}": getattr(self, name) for name in guard},
            },
        }

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model has the averaged weights within the block. Nothing may be saved or updated there."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self.average.items():
            kept = average.clone()
            average.copy_(self.shards[name])
            self.shards[name].copy_(kept)
