"""One micro-batch: its targets in the network's space, its times and noise, and the loss (paper, sections 3.1 and 3.3).

Times and noise are functions of (seed, global sample index), each sample's from a generator of its own.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from model import Loss, Normalisation, draw_times, objective, preset
from model.times import Phase
from shards import seed_of
from train.config import Config
from train.data.batch import Batch, existing

Network = Callable[..., Tensor]


def loss_of(
    network: Network, time_shift: float, normalisation: Normalisation, batch: Batch, settings: Config, phase: Phase
) -> Loss:
    """The objective of a batch on the network's device; bf16 by autocast if asked. All frames of a clip have its times,
    and noise that is correlated between them."""
    frames = batch.frames
    x0, _ = normalisation.forward(batch.xyz, batch.valid, frames)
    uniform, noise = draws(settings.seed, batch.index, x0)
    times = draw_times(uniform, phase, time_shift, settings.objective.schedule).repeat_interleave(frames, dim=0)
    half = settings.precision == "bf16"
    with torch.autocast(x0.device.type, torch.bfloat16) if half else nullcontext():
        return objective(
            network,
            batch.rgb,
            x0,
            batch.valid,
            times,
            noise,
            batch.single_layer,
            batch.weight,
            settings.objective.lambda_mono,
            frames=frames,
            correlation=settings.objective.noise_correlation,
            **of_kind(settings, batch.depth),
        )


def of_kind(settings: Config, depth_NLHW: Tensor) -> dict[str, Any]:
    """What `objective` is told beside the samples: the kind of the learning and, for masks, where layers are.

    Depth is 0 where there is none. What a jittered mask hides has one, and counts by its weight.
    """
    masks = preset(settings.model.preset, **settings.model.overrides).masks
    return {
        "exists_BLHW": existing(depth_NLHW, depth_NLHW[:, 0] > 0) if masks else None,
        "mask_weight": settings.objective.lambda_mask,
        "regression": settings.objective.kind == "regression",
    }


def draws(seed: int, index_B: Tensor, x0_NLHW3: Tensor) -> tuple[Tensor, Tensor]:
    """Uniform numbers (B,L) for the times and Gaussian noise like x0, of each global sample index by itself; of clips
    N = B * frames. The numbers are made on x0's device, so that none travel; index_B is on the CPU."""
    layers, device = x0_NLHW3.shape[1], x0_NLHW3.device
    uniform, noise = [], torch.empty_like(x0_NLHW3)
    for index, own in zip(index_B.tolist(), noise.unflatten(0, (len(index_B), -1))):
        generator = torch.Generator(device).manual_seed(seed_of(seed, "noise", index) % 2**63)
        uniform.append(torch.rand(layers, generator=generator, device=device))
        own.normal_(generator=generator)
    return torch.stack(uniform), noise
