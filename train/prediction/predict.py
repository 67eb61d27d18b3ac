"""From an image to a layered point cloud in the camera's frame (paper, section 3.1; sampler: App. B, "Inference")."""

from collections.abc import Sequence

import numpy as np
import torch

from model import fit_intrinsics
from train.prediction.batch import Stacks, compile_for, predict_batch
from train.prediction.prediction import HIDDEN_GREY, Prediction, point_cloud, typical
from train.run import Run

__all__ = ["HIDDEN_GREY", "Prediction", "Stacks", "compile_for", "point_cloud", "predict", "predict_batch", "typical"]


def predict(
    run: Run, rgb: np.ndarray, valid: np.ndarray, seeds: Sequence[int] = (0,), steps: int = 20, name: str = "predict"
) -> Prediction:
    """Sample one stack per seed.

    rgb (H,W,3) float32 in [0, 1], both sides multiples of the model's patch; valid (H,W) bool. The noise is a function
    of (seed, name) alone, so a prediction does not depend on what it is batched with. ValueError without a valid pixel.
    """
    xyz, exists = predict_batch(run, rgb[None], valid[None], [(seed, name) for seed in seeds], steps)
    try:
        K = fit_intrinsics(torch.from_numpy(xyz[:, 0]), torch.from_numpy(np.repeat(valid[None], len(seeds), 0))).numpy()
    except ValueError:
        K = None  # fewer than ten pixels, or all on one line of sight: no camera is determined by them
    return Prediction(rgb, valid, xyz, K, tuple(seeds), exists, name)
