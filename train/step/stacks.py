"""What a trained network makes of images: normalised stacks, sampled or regressed, and where their layers are."""

from typing import NamedTuple

import torch
from torch import Tensor

from model import Solver, WTDiT, regress, sample
from model.sampler import Generators
from train.config.settings import Objective


class Normalised(NamedTuple):
    """x0 (B,L,H,W,3) float32, normalised points | exists (B,L,H,W) bool: where a layer is there.

    A model that fills (Eq. 2) has all layers at all valid pixels; one with masks has those whose logit is positive, and
    the first, which is there by definition.
    """

    x0: Tensor
    exists: Tensor


def stacks_of(
    model: WTDiT,
    objective: Objective,
    rgb_B3HW: Tensor,
    valid_BHW: Tensor,
    generators: Generators,
    steps: int = 20,
    frames: int = 1,
    solver: Solver = "euler",
) -> Normalised:
    """One stack per image; as `model.sample`, or, of a regression, without generators, steps and solver."""
    if objective.kind == "regression":
        answer = regress(model, rgb_B3HW, valid_BHW, frames)
    else:
        rho = objective.noise_correlation
        answer = sample(model, rgb_B3HW, valid_BHW, generators, steps, frames, rho, solver)
    exists = valid_BHW.bool()[:, None].expand(answer.shape[:-1])
    if model.config.masks:
        exists = exists & torch.cat([torch.ones_like(exists[:, :1]), answer[:, 1:, ..., 3] > 0], dim=1)
    return Normalised(answer[..., :3].float(), exists)
