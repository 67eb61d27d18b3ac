"""What a trained model is compared with: the mean of the training set, and a perfect layer 0 with nothing behind.

The mean knows no image; the repeated layer 0 knows the visible surface exactly (no model does) and no hidden one.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

import shards
from model.normalisation import Normalisation
from train.evaluation.truth import Truth, truth_of


def mean_stack(
    dataset: shards.Dataset, layers: int, size: int, normalisation: Normalisation, limit: int, seed: int = 0
) -> np.ndarray | None:
    """(L,H,W,3) float32 camera-space points: per layer and pixel the mean over the samples valid there.

    The mean is taken in the model's normalised space (scenes: of logarithms in units of each sample's median depth)
    over at most `limit` samples, spread over the dataset by the keyed order of `seed`; of a clip over one frame, the
    first of one, the second of the next. Single-layer samples count in layer 0. Pixels that no sample covers take the
    layer's mean, layers that no sample knows repeat the one before. None where there is no sample with a valid pixel.
    """
    if not len(dataset):
        return None
    total, count = np.zeros((layers, size * size, 3)), np.zeros((layers, size * size, 1))
    for truth in _spread(dataset, layers, size, limit, seed):
        pixels = np.flatnonzero(truth.valid)
        if not len(pixels):
            continue
        points = torch.from_numpy(truth.xyz.reshape(layers, -1, 3)[:, pixels])
        x, _ = normalisation.forward(points[None, :, None], torch.ones(1, 1, len(pixels), dtype=torch.bool))
        known = 1 if truth.single_layer else layers
        total[:known, pixels] += x[0, :known, 0].numpy()
        count[:known, pixels] += 1
    if not count.any():
        return None
    mean = np.zeros((layers, size, size, 3), np.float32)
    for layer in range(layers):
        if count[layer].any():
            overall = total[layer].sum(axis=0) / count[layer].sum()
            of_pixels = np.where(count[layer] > 0, total[layer] / np.maximum(count[layer], 1), overall)
            mean[layer] = of_pixels.reshape(size, size, 3)
        else:
            mean[layer] = mean[layer - 1]
    return normalisation.inverse(torch.from_numpy(mean)[None])[0].numpy()


def _spread(dataset: shards.Dataset, layers: int, size: int, limit: int, seed: int) -> Iterator[Truth]:
    """Truths of at most `limit` samples in the keyed order, read and framed by threads ahead of their use."""
    order = shards.Order(len(dataset), seed, dataset.hash)

    def truth(index: int) -> Truth:
        sample = dataset[int(order[index])]
        if isinstance(sample, shards.Clip):
            sample = sample.frames[index % len(sample.frames)]
        return truth_of(sample, layers, size, "black")

    threads = min(4, os.cpu_count() or 1)
    waiting: deque[Future[Truth]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="mean") as pool:
        for index in range(min(limit, len(dataset))):
            waiting.append(pool.submit(truth, index))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def repeated_layer0(true_xyz: np.ndarray) -> np.ndarray:
    """(L,H,W,3) -> the same shape: a perfect visible surface, and nothing behind it."""
    return np.repeat(true_xyz[:1], len(true_xyz), axis=0)
