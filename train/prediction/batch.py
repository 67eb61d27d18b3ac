"""Many stacks at once: framed images and seeds in, points in the camera's frame out."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch

from model import Solver
from shards import seed_of
from train.ranks import sharding
from train.run import Run
from train.step import compute
from train.step.stacks import stacks_of

COMPILED_FROM = 32  # batches of a few stacks each; estimated, not measured


class Stacks(NamedTuple):
    """xyz (S,L,H,W,3) float32, camera frame, 0 where not valid | exists (S,L,H,W) bool: where a layer is there."""

    xyz: np.ndarray
    exists: np.ndarray


def predict_batch(
    run: Run,
    rgb_NHW3: np.ndarray,
    valid_NHW: np.ndarray,
    draws: Sequence[tuple[int, str]],
    steps: int,
    frames: int = 1,
    solver: Solver = "euler",
) -> Stacks:
    """One stack per draw (seed, name) and frame, S = draws * frames, the frames of a draw side by side.

    rgb (N,H,W,3) float32 in [0, 1], valid (N,H,W) bool; N is S, or `frames` to share one image or clip among all draws.
    The noise is a function of (seed, name) alone. A regression has none: its stacks of one image are all the same.
    ValueError without a valid pixel.
    """
    if not valid_NHW.reshape(-1, frames, *valid_NHW.shape[1:]).any(axis=(1, 2, 3)).all():
        raise ValueError("an image has no valid pixel, so there is nothing to predict")
    device = next(run.model.parameters()).device
    rgb = torch.from_numpy(np.ascontiguousarray(rgb_NHW3)).permute(0, 3, 1, 2).to(device)
    valid = torch.from_numpy(np.ascontiguousarray(valid_NHW)).to(device)
    times = len(draws) * frames // len(rgb)
    rgb, valid = (x if times == 1 else x.repeat(times, *(1,) * (x.ndim - 1)) for x in (rgb, valid))
    generators = [torch.Generator().manual_seed(seed_of(seed, "sample", name) % 2**63) for seed, name in draws]
    # On a GPU as it was trained; half precision saves a CPU nothing. The sampler keeps the points in float32.
    half = device.type == "cuda" and run.config.precision == "bf16"
    with compute.arithmetic(run.config), torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
        x0, exists = stacks_of(run.model, run.config.objective, rgb, valid, generators, steps, frames, solver)
    xyz = torch.where(valid[:, None, :, :, None], run.normalisation.inverse(x0), 0.0)
    return Stacks(xyz.cpu().numpy(), exists.cpu().numpy())


def compile_for(run: Run, batches: int) -> bool:
    """Compile the model's blocks on CUDA, unless the run has compute.compile=false, where so many batches of one shape
    pay for the minutes that it takes; says whether it did.
    """
    device = next(run.model.parameters()).device
    pays = device.type == "cuda" and batches >= COMPILED_FROM and compute.compiles(run.config.compute, device)
    if pays:
        compute.compile_blocks(sharding.blocks_of(run.model))
    return pays
