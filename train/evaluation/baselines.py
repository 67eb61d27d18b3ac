"""What a trained model is compared with: the mean of the training set, and a perfect layer 0 with nothing behind.

The mean knows no image; the repeated layer 0 knows the visible surface exactly (no model does) and no hidden one.
"""

import numpy as np
import torch

import shards
from model.normalisation import Normalisation
from train.evaluation.truth import truth_of


def mean_stack(
    dataset: shards.Dataset, layers: int, size: int, normalisation: Normalisation, limit: int, seed: int = 0
) -> np.ndarray | None:
    """(L,H,W,3) float32 camera-space points: per layer and pixel the mean over the samples valid there.

    The mean is taken in the model's normalised space over at most `limit` samples, spread over the dataset by the keyed
    order of `seed`; single-layer samples count in layer 0. Pixels that no sample covers take the layer's mean, layers
    that no sample knows repeat the one before. None where there is no sample with a valid pixel.
    """
    total, count = np.zeros((layers, size, size, 3)), np.zeros((layers, size, size, 1))
    if not len(dataset):
        return None
    order = shards.Order(len(dataset), seed, dataset.hash)
    for index in range(min(limit, len(dataset))):
        truth = truth_of(dataset[int(order[index])], layers, size, "black")
        x, _ = normalisation.forward(torch.from_numpy(truth.xyz)[None], torch.from_numpy(truth.valid)[None])
        known = slice(0, 1 if truth.single_layer else layers)
        total[known] += np.where(truth.valid[None, ..., None], x[0].numpy(), 0.0)[known]
        count[known] += truth.valid[None, ..., None]
    if not count.any():
        return None
    mean = np.zeros_like(total)
    for layer in range(layers):
        if count[layer].any():
            overall = total[layer].sum(axis=(0, 1)) / count[layer].sum()
            mean[layer] = np.where(count[layer] > 0, total[layer] / np.maximum(count[layer], 1), overall)
        else:
            mean[layer] = mean[layer - 1]
    return normalisation.inverse(torch.from_numpy(mean.astype(np.float32))[None])[0].numpy()


def repeated_layer0(true_xyz: np.ndarray) -> np.ndarray:
    """(L,H,W,3) -> the same shape: a perfect visible surface, and nothing behind it."""
    return np.repeat(true_xyz[:1], len(true_xyz), axis=0)
