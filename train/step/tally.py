"""What a step came to over all of its micro-batches and all ranks: the same numbers, bit for bit, on every rank.

They stay on the device: the verdict on the step is made there (train/step/update.py), and reports read them later.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model import Loss
from train.ranks.parallel import Ranks


class Tally(NamedTuple):
    """Of the global batch, float64: means () of the losses, the gradient's norm (), and per layer (L,) the sums of
    squared errors and of weights."""

    loss: Tensor
    endpoint: Tensor
    monotonicity: Tensor
    norm: Tensor
    error_L: Tensor
    weight_L: Tensor

    @property
    def layers_L(self) -> Tensor:
        """Mean squared error per layer, NaN where no sample supervises it."""
        return self.error_L / self.weight_L


def tally(ranks: Ranks, parts: Sequence[Loss], norm: Tensor) -> Tally:
    """Exchange what this rank knows of its step.

    Ranks and micro-batches hold equally many samples and the loss is a mean over samples, so the mean of their means is
    the loss of the global batch. Layers are means over pixels, which are not equally many: their sums are added up. Of
    the norm, which all have computed, the largest counts, or NaN.
    """
    scalars = [torch.stack(column).double().mean() for column in zip(*(part[:3] for part in parts))]
    error_L, weight_L = (torch.stack(column).sum(0).double() for column in zip(*(part[3:] for part in parts)))
    all_ = ranks.gather_on_device(torch.cat([torch.stack([*scalars, norm.double()]), error_L, weight_L]))
    loss, endpoint, monotonicity = all_[:, :3].mean(0).unbind()
    errors, weights = all_[:, 4:].sum(0).chunk(2)
    return Tally(loss, endpoint, monotonicity, all_[:, 3].amax(), errors, weights)
