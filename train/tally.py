"""What a step came to over all of its micro-batches and all ranks: the same numbers, bit for bit, on every rank."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from model import Loss
from train.parallel import Ranks


@dataclass(frozen=True)
class Tally:
    """Means over the global batch; `layers` mean squared error per layer, NaN where no sample supervises it.

    `waited` seconds for data, of the rank that waited longest; `unusable` samples of all ranks; `stopped_by` a signal
    that any of them has caught.
    """

    loss: float
    endpoint: float
    monotonicity: float
    layers: list[float]
    grad_norm: float
    waited: float
    unusable: int
    stopped_by: signal.Signals | None


def tally(
    ranks: Ranks,
    parts: Sequence[Loss],
    grad_norm: float,
    waited: float,
    unusable: int,
    caught: Sequence[signal.Signals],
) -> Tally:
    """Exchange what this rank knows of its step; one small message per rank, which every decision then rests on.

    Ranks and micro-batches hold equally many samples and the loss is a mean over samples, so the mean of their means is
    the loss of the global batch. Layers are means over pixels, which are not equally many: their sums are added up.
    """
    scalars = [float(torch.stack(column).mean()) for column in zip(*(part[:3] for part in parts))]
    error_L, weight_L = (torch.stack(column).sum(0).double().cpu() for column in zip(*(part[3:] for part in parts)))
    number = int(caught[0]) if caught else 0
    own = torch.tensor([*scalars, grad_norm, waited, unusable, number], dtype=torch.float64)
    all_ = ranks.gather(torch.cat([own, error_L, weight_L]))
    loss, endpoint, monotonicity, grad_norm = all_[:, :4].mean(0).tolist()
    errors, weights = all_[:, len(own) :].sum(0).float().chunk(2)
    number = int(all_[:, 6].max())
    return Tally(
        loss,
        endpoint,
        monotonicity,
        (errors / weights).tolist(),
        grad_norm,
        float(all_[:, 4].max()),
        int(all_[:, 5].sum()),
        signal.Signals(number) if number else None,
    )
