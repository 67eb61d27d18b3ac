"""From an image to a layered point cloud in the camera's frame (paper, section 3.1; sampler: App. B, "Inference")."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch

from model import fit_intrinsics, sample
from shards import seed_of
from train.prediction.prediction import HIDDEN_GREY, Prediction, point_cloud, typical
from train.ranks import sharding
from train.run import Run
from train.step import compute

__all__ = ["HIDDEN_GREY", "Prediction", "compile_for", "point_cloud", "predict", "predict_batch", "typical"]

COMPILED_FROM = 32  # batches of a few stacks each; estimated, not measured


def predict(
    run: Run, rgb: np.ndarray, valid: np.ndarray, seeds: Sequence[int] = (0,), steps: int = 20, name: str = "predict"
) -> Prediction:
    """Sample one stack per seed.

    rgb (H,W,3) float32 in [0, 1], both sides multiples of the model's patch; valid (H,W) bool. The noise is a function
    of (seed, name) alone, so a prediction does not depend on what it is batched with. ValueError without a valid pixel.
    """
    xyz = predict_batch(run, rgb[None], valid[None], [(seed, name) for seed in seeds], steps)
    try:
        K = fit_intrinsics(torch.from_numpy(xyz[:, 0]), torch.from_numpy(np.repeat(valid[None], len(seeds), 0))).numpy()
    except ValueError:
        K = None  # fewer than ten pixels, or all on one line of sight: no camera is determined by them
    return Prediction(rgb, valid, xyz, K, tuple(seeds), name=name)


def compile_for(run: Run, batches: int) -> bool:
    """Compile the model's blocks on CUDA, unless the run has compute.compile=false, where so many batches of one shape
    pay for the minutes that it takes; says whether it did.
    """
    device = next(run.model.parameters()).device
    pays = device.type == "cuda" and batches >= COMPILED_FROM and compute.compiles(run.config.compute, device)
    if pays:
        compute.compile_blocks(sharding.blocks_of(run.model))
    return pays


def predict_batch(
    run: Run, rgb_NHW3: np.ndarray, valid_NHW: np.ndarray, draws: Sequence[tuple[int, str]], steps: int
) -> np.ndarray:
    """(S,L,H,W,3) float32, one stack per draw (seed, name); N is S, or 1 to share one image among all draws."""
    if not valid_NHW.any(axis=(1, 2)).all():
        raise ValueError("an image has no valid pixel, so there is nothing to predict")
    device = next(run.model.parameters()).device
    rgb = torch.from_numpy(np.ascontiguousarray(rgb_NHW3)).permute(0, 3, 1, 2).to(device)
    valid = torch.from_numpy(np.ascontiguousarray(valid_NHW)).to(device)
    rgb, valid = (x.expand(len(draws), *x.shape[1:]) for x in (rgb, valid))
    generators = [torch.Generator().manual_seed(seed_of(seed, "sample", name) % 2**63) for seed, name in draws]
    # On a GPU as it was trained; half precision saves a CPU nothing. The sampler keeps the points in float32.
    half = device.type == "cuda" and run.config.precision == "bf16"
    with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
        x0 = sample(run.model, rgb, valid, generators, steps)
    xyz = run.normalisation.inverse(x0)
    return torch.where(valid[:, None, :, :, None], xyz, 0.0).cpu().numpy()
