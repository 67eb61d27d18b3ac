"""What a trained network makes of images: normalised stacks, sampled or regressed, and where their layers are."""

from typing import NamedTuple

from torch import Tensor

from model import Solver, WTDiT, regress, sample
from model.flow import layers_there
from model.sampler import Generators
from train.config.settings import Objective


class Normalised(NamedTuple):
    """x0 (B,L,H,W,3) float32, normalised points | exists (B,L,H,W) bool: where a layer is there (`layers_there`)."""

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
    return Normalised(answer[..., :3].float(), layers_there(answer, valid_BHW))
