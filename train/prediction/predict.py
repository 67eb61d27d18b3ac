"""From an image to a layered point cloud in the camera's frame (paper, section 3.1; sampler: App. B, "Inference")."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from model import fit_intrinsics, sample
from shards import seed_of
from train.ranks import sharding
from train.run import Run
from train.step import compute

HIDDEN_GREY = 150
COMPILED_FROM = 32  # batches of a few stacks each; estimated, not measured
REPEAT = 0.005  # of the median depth: 0.01 at the released objects' mean depth of 1.9, the smaller F-score threshold


@dataclass(frozen=True, eq=False)
class Prediction:
    """S seeds of a layered stack for one image of H x W pixels.

    rgb (H,W,3) float32 as the model saw it | valid (H,W) bool | xyz (S,L,H,W,3) float32 camera frame (+x right, +y
    down, +z forward), in units of the training data (scenes: of the median depth), zero where not valid | K (S,3,3),
    fitted to layer 0 in pixels of that image, None where the fit is not determined.
    """

    rgb: np.ndarray
    valid: np.ndarray
    xyz: np.ndarray
    K: np.ndarray | None
    seeds: tuple[int, ...]


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
    return Prediction(rgb, valid, xyz, K, tuple(seeds))


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


def point_cloud(xyz: np.ndarray, rgb: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One stack (L,H,W,3) -> (points (N,3) float32, colours (N,3) uint8): visible ones from the image, hidden grey.

    A deeper point within 0.5 % of the median depth of the last one kept on its ray repeats it (that is how a stack says
    that the ray has ended, Eq. 2) and is left out, so that grey does not cover the colours.
    """
    depth = xyz[0, ..., 2][valid]
    tolerance = REPEAT * float(np.median(depth)) if depth.size else 0.0
    points = [xyz[0][valid]]
    colours = [np.round(rgb[valid] * 255).astype(np.uint8)]
    last = xyz[0].copy()
    for layer in xyz[1:]:
        new = valid & (np.linalg.norm(layer - last, axis=-1) > tolerance)
        last = np.where(new[..., None], layer, last)
        points.append(layer[new])
        colours.append(np.full((int(new.sum()), 3), HIDDEN_GREY, np.uint8))
    return np.concatenate(points).astype(np.float32), np.concatenate(colours)


def typical(xyz: np.ndarray, valid: np.ndarray) -> int:
    """Of the stacks (S,L,H,W,3) the one nearest to all others in mean point distance: what to show without a truth.

    Generated hidden surfaces differ from seed to seed; their mean would be a surface of none of them.
    """
    points = xyz[:, :, valid]
    return int(np.argmin([np.linalg.norm(points - each, axis=-1).mean() for each in points]))
