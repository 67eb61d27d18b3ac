"""The z-score statistics: those of the points a model sees, by definition and by chunks."""

import dataclasses
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import shards
from shards import Clip, Sample, encode, write_dataset_json, write_manifest, write_shard
from shards.moments import Moments, moments_of
from tests.shards.scenes import spheres_clip, spheres_view


def points(samples: list[Sample]) -> np.ndarray:
    frames = [f for s in samples for f in (s.frames if isinstance(s, Clip) else (s,))]
    return np.concatenate([f.xyz()[: 1 if f.single_layer else None, f.valid].reshape(-1, 3) for f in frames]).astype(
        float
    )


def dataset_of(root: Path, samples: list[Sample]) -> Path:
    write_manifest(root, write_shard(root / "shards" / "a.tar", map(encode, samples)))
    write_dataset_json(root, {"layers": 6, "size": [24, 24]})
    return root


def test_they_are_those_of_all_valid_layers_of_split_train(tmp_path: Path) -> None:
    samples: list[Sample] = [spheres_view(i, 24, 24) for i in range(12)]
    samples[1] = dataclasses.replace(spheres_view(1, 24, 24), single_layer=True)
    samples.append(spheres_clip(20, height=24, width=24))
    samples.append(spheres_view(30, 24, 24, regime="scene"))
    train = [s for s in samples if shards.split_of(s.origin.sha256) == "train" and s.regime != "scene"]
    assert len(train) < len(samples) - 1  # the split leaves some out
    xyz = points(train)
    result = shards.statistics(dataset_of(tmp_path, samples))
    assert result is not None
    # depth moves by up to 5e-5 of about 2
    np.testing.assert_allclose(result["mean"], xyz.mean(axis=0), atol=2e-5)
    np.testing.assert_allclose(result["std"], xyz.std(axis=0), atol=2e-5)
    assert result["points"] == len(xyz)
    assert result["samples"] == len(train)
    assert shards.statistics(shards.open(tmp_path)) == result


def test_scenes_alone_need_none(tmp_path: Path) -> None:
    assert shards.statistics(dataset_of(tmp_path, [spheres_view(0, 24, 24, regime="scene")])) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.floats(-1e4, 1e4))
def test_merged_moments_are_those_of_the_whole(sizes: list[int], far: float) -> None:
    rng = np.random.default_rng(sum(sizes))
    chunks = [rng.normal(far, 1.0, (size, 3)) for size in sizes]
    merged = Moments()
    for chunk in chunks:
        if len(chunk):
            mean = chunk.mean(axis=0)
            merged.merge(Moments(len(chunk), mean, ((chunk - mean) ** 2).sum(axis=0)))
        else:
            merged.merge(Moments())
    whole = np.concatenate(chunks)
    assert merged.count == len(whole)
    if len(whole):
        np.testing.assert_allclose(merged.mean, whole.mean(axis=0), rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(merged.std, whole.std(axis=0), rtol=1e-6, atol=1e-9)


def test_a_view_of_nothing_counts_nothing() -> None:
    assert moments_of(np.zeros((4, 4), np.uint8), np.zeros((6, 4, 4), np.float32), np.eye(3)).count == 0
