"""What a trained model is compared with: the mean of the training set, and a perfect layer 0 with nothing behind.

The mean knows no image; the repeated layer 0 knows the visible surface exactly (no model does) and no hidden one.
"""

import numpy as np
import torch

import shards
from model.normalisation import Normalisation
from shards import Clip
from train import augment
from train.config import Augment


def mean_stack(
    dataset: shards.Dataset, layers: int, size: int, normalisation: Normalisation, limit: int, seed: int = 0
) -> np.ndarray:
    """(L,H,W,3) float32 camera-space points: per layer and pixel the mean over the training samples valid there.

    The mean is taken in the model's normalised space over at most `limit` samples, spread over the dataset by the keyed
    order of `seed`. Pixels that no sample covers take the layer's mean. ValueError where the dataset is empty.
    """
    if not len(dataset):
        raise ValueError(f"{dataset.directory}: no samples to take the mean of")
    order = shards.Order(len(dataset), seed, dataset.hash)
    total, count = np.zeros((layers, size, size, 3)), np.zeros((1, size, size, 1))
    for index in range(min(limit, len(dataset))):
        sample = dataset[int(order[index])]
        view = sample.frames[0] if isinstance(sample, Clip) else sample
        target = augment.prepare(view, layers, size, Augment(enabled=False), None)
        if view.single_layer or not target.valid.any():
            continue
        valid = torch.from_numpy(target.valid)[None]
        x, _ = normalisation.forward(torch.from_numpy(target.xyz)[None], valid)
        total += np.where(target.valid[None, ..., None], x[0].numpy(), 0.0)
        count += target.valid[None, ..., None]
    if not count.any():
        raise ValueError(f"{dataset.directory}: no sample with hidden layers to take the mean of")
    overall = total.sum(axis=(1, 2), keepdims=True) / count.sum()
    mean = np.where(count > 0, total / np.maximum(count, 1), overall)
    return normalisation.inverse(torch.from_numpy(mean.astype(np.float32))[None])[0].numpy()


def repeated_layer0(true_xyz: np.ndarray) -> np.ndarray:
    """(L,H,W,3) -> the same shape: a perfect visible surface, and nothing behind it."""
    return np.repeat(true_xyz[:1], len(true_xyz), axis=0)
