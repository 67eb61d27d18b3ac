"""The mean baseline against its definition, for objects, scenes, clips and single layers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import shards
from model import LogMedian, ZScore
from model.normalisation import Normalisation
from shards import Clip, LayeredView, Sample
from tests.shards.scenes import spheres_view
from train.evaluation.baselines import mean_stack
from train.evaluation.truth import truth_of

SIZE, LAYERS = 24, 3
ZSCORE = ZScore((0.0, 0.1, 1.9), (0.2, 0.3, 0.4))


def dataset_of(folder: Path, samples: Sequence[Sample]) -> shards.Dataset:
    rows = shards.write_shard(folder / "shards" / "000000-test.tar", [shards.encode(sample) for sample in samples])
    shards.write_manifest(folder, rows)
    shards.write_dataset_json(folder, {"layers": LAYERS, "size": [SIZE, SIZE]})
    return shards.open(folder)


def views(count: int = 12) -> list[LayeredView]:
    return [spheres_view(i, SIZE, SIZE, layers=LAYERS) for i in range(count)]


def stored(dataset: shards.Dataset) -> list[LayeredView]:
    """As they are read: depth is quantised."""
    return [view for view in dataset if isinstance(view, LayeredView)]


def by_definition(frames: Sequence[LayeredView], normalisation: Normalisation) -> np.ndarray:
    """One whole stack after the other, as Eq. 5 and 6 have them, without threads and without choosing pixels."""
    total, count = np.zeros((LAYERS, SIZE, SIZE, 3)), np.zeros((LAYERS, SIZE, SIZE, 1))
    for view in frames:
        truth = truth_of(view, LAYERS, SIZE, "black")
        x, _ = normalisation.forward(torch.from_numpy(truth.xyz)[None], torch.from_numpy(truth.valid)[None])
        known = slice(0, 1 if truth.single_layer else LAYERS)
        total[known] += np.where(truth.valid[None, ..., None], x[0].numpy(), 0.0)[known]
        count[known] += truth.valid[None, ..., None]
    mean = np.zeros_like(total)
    for layer in range(LAYERS):
        if not count[layer].any():
            mean[layer] = mean[layer - 1]
            continue
        for v in range(SIZE):
            for u in range(SIZE):
                n = count[layer, v, u, 0]
                everywhere = total[layer].reshape(-1, 3).sum(axis=0) / count[layer].sum()
                mean[layer, v, u] = total[layer, v, u] / n if n else everywhere
    return normalisation.inverse(torch.from_numpy(mean.astype(np.float32))[None])[0].numpy()


@pytest.mark.parametrize("normalisation", [ZSCORE, LogMedian()])
def test_the_mean_is_the_mean_in_normalised_space(tmp_path: Path, normalisation: Normalisation) -> None:
    dataset = dataset_of(tmp_path, views())
    mean = mean_stack(dataset, LAYERS, SIZE, normalisation, limit=100)
    assert mean is not None
    assert mean.dtype == np.float32
    assert mean == pytest.approx(by_definition(stored(dataset), normalisation), abs=1e-5)


def test_scenes_count_alike_whatever_their_units(tmp_path: Path) -> None:
    """The median depth of each is its unit, so a room in centimetres changes nothing."""
    frames = views(6)
    larger = [replace(v, depth=v.depth * np.float32(100)) if i % 2 else v for i, v in enumerate(frames)]
    one = mean_stack(dataset_of(tmp_path / "a", frames), LAYERS, SIZE, LogMedian(), limit=100)
    other = mean_stack(dataset_of(tmp_path / "b", larger), LAYERS, SIZE, LogMedian(), limit=100)
    assert one == pytest.approx(other, rel=1e-3)


def test_single_layers_say_nothing_of_what_is_hidden(tmp_path: Path) -> None:
    frames = [replace(view, single_layer=True, regime="rgbd") for view in views(5)]
    mean = mean_stack(dataset_of(tmp_path / "alone", frames), LAYERS, SIZE, ZSCORE, limit=100)
    assert mean is not None
    assert np.array_equal(mean[1], mean[0])
    assert np.array_equal(mean[2], mean[0])
    mixed = dataset_of(tmp_path / "mixed", [*frames, *views(8)[5:]])
    both = mean_stack(mixed, LAYERS, SIZE, ZSCORE, limit=100)
    assert both == pytest.approx(by_definition(stored(mixed), ZSCORE), abs=1e-5)


def test_of_clips_frames_from_all_of_their_length_count(tmp_path: Path) -> None:
    clips = []
    for c in range(4):
        frames = [replace(spheres_view(4 * c + t, SIZE, SIZE, layers=LAYERS), regime="dynamic") for t in range(4)]
        of = frames[0].origin
        clips.append(Clip(f"clip-{c}", tuple(replace(f, key=f"clip-{c}", origin=of) for f in frames)))
    dataset = dataset_of(tmp_path, clips)
    order = shards.Order(len(dataset), 0, dataset.hash)
    chosen = []
    for k in range(4):
        clip = dataset[int(order[k])]
        assert isinstance(clip, Clip)
        chosen.append(clip.frames[k])
    assert mean_stack(dataset, LAYERS, SIZE, ZSCORE, limit=100) == pytest.approx(
        by_definition(chosen, ZSCORE), abs=1e-5
    )


def test_without_a_valid_pixel_there_is_no_mean(tmp_path: Path) -> None:
    empty = [replace(v, hits=v.hits * np.uint8(0), depth=v.depth * np.float32(0)) for v in views(2)]
    assert mean_stack(dataset_of(tmp_path, empty), LAYERS, SIZE, ZSCORE, limit=100) is None
