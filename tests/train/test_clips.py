"""Clips of T frames through the stream: which frames, in which order, changed alike, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shards
from shards import generator
from tests.shards.scenes import spheres_clip, spheres_view
from tests.train.conftest import Settings, write_dataset
from train.data import augment
from train.data.batch import Batch, joined
from train.data.stream import Schedule, Stream, batches
from train.run import normalisation_for


def stream_of(settings: Settings, on_device: bool = False, **changes: object) -> Stream:
    c = settings(**{"augment__enabled": True, **changes})
    return Stream(c.data, c.augment, 6, c.seed, on_device=on_device)


def same(a: Batch, b: Batch) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(torch.equal(t, b.tensors[n]) for n, t in a.tensors.items())


@pytest.fixture(scope="module")
def long_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of seven frames, 32x40."""
    samples: list[shards.Sample] = [spheres_clip(i, 7, height=32, width=40) for i in range(3)]
    return write_dataset(tmp_path_factory.mktemp("long") / "dataset", samples, 32)


def test_a_sample_is_a_window_of_consecutive_frames(settings: Settings, long_clips: Path) -> None:
    stream = stream_of(settings, data__path=str(long_clips), data__frames=3)
    begins = []
    for i in range(40):
        views, unusable = stream.views(i)
        times = [int(view.key.rpartition("-t")[2]) for view in views]
        assert times == list(range(times[0], times[0] + 3))
        assert len({view.key.rpartition("-t")[0] for view in views}) == 1
        assert not unusable
        begins.append(times[0])
    assert sorted(set(begins)) == [0, 1, 2, 3, 4], "every window comes"
    again = stream_of(settings, data__path=str(long_clips), data__frames=3)
    assert [again.view(i)[0].key for i in range(40)] == [stream.view(i)[0].key for i in range(40)]
    keys = [stream.views(i)[0][0].key.rpartition("-t")[0] for i in range(9)]
    assert all(len(set(keys[epoch : epoch + 3])) == 3 for epoch in (0, 3, 6)), "every clip once an epoch"


def test_a_batch_holds_the_frames_of_a_sample_side_by_side(settings: Settings, long_clips: Path) -> None:
    stream = stream_of(settings, data__path=str(long_clips), data__frames=3, augment__enabled=False)
    with batches(stream, Schedule(0, 1, 4)) as found:
        batch = next(found)
    assert batch.frames == 3
    assert batch.rgb.shape == (12, 3, 28, 28)
    assert batch.depth.shape == (12, 6, 28, 28)
    assert batch.xyz.shape == (12, 6, 28, 28, 3)
    assert batch.valid.shape == batch.weight.shape == (12, 28, 28)
    assert batch.K.shape == (12, 3, 3)
    assert batch.single_layer.shape == (12,)
    assert batch.index.tolist() == [0, 1, 2, 3]
    for i in range(4):
        for t, view in enumerate(stream.views(i)[0]):
            target = augment.prepare(view, 6, 28, stream.augmentation, None)
            assert np.array_equal(batch.rgb[3 * i + t].numpy(), target.rgb)
            assert np.array_equal(batch.depth[3 * i + t].numpy(), target.depth)


@pytest.mark.parametrize("on_device", [False, True])
def test_workers_and_slots_do_not_change_clips(settings: Settings, long_clips: Path, on_device: bool) -> None:
    changes: dict[str, Any] = {"data__path": str(long_clips), "data__frames": 3}
    alone = stream_of(settings, on_device, **changes)
    with batches(stream_of(settings, on_device, data__workers=2, **changes), Schedule(0, 5, 4)) as found:
        held = list(found)
    assert all(
        same(batch, joined([alone[i] for i in range(4 * k, 4 * k + 4)])) and batch.frames == 3
        for k, batch in enumerate(held)
    )


def test_photometry_on_the_device_gives_the_same_batch(settings: Settings, long_clips: Path) -> None:
    """`to` changes images as the workers would have, leaves the batch that it was given alone, and is done after."""
    often = {f"augment__photometric__{defect}": 0.5 for defect in ("blur", "sharpen", "noise", "jpeg")}
    changes: dict[str, Any] = {"data__path": str(long_clips), "data__frames": 2, **often}
    now, later = stream_of(settings, **changes), stream_of(settings, True, **changes)
    for i in range(8):
        here, deferred = now[i], later[i]
        assert here.shown is None
        before = deferred.rgb.clone()
        there = deferred.to(torch.device("cpu"))
        assert same(there, here)
        assert torch.equal(deferred.rgb, before)
        assert not torch.equal(before, there.rgb)
        assert same(there.to(torch.device("cpu")), there)
        alone = joined([deferred, later[i + 1]]).to(torch.device("cpu"))
        assert torch.equal(alone.rgb[:2], here.rgb), "whatever else is in the batch"


def test_one_frame_is_what_it_was_before_there_were_clips(settings: Settings, clips: Path) -> None:
    """The frame that (seed, "frame", index) draws, and the target of a view, bit for bit."""
    for enabled in (True, False):
        stream = stream_of(settings, data__path=str(clips), augment__enabled=enabled)
        for i in range(12):
            sample = stream.sources[0][int(stream.sequence.row(*stream.sequence[i]))]
            assert isinstance(sample, shards.Clip)
            view = sample.frames[int(generator(stream.seed, "frame", i).integers(len(sample.frames)))]
            target = augment.prepare(view, 6, 28, stream.augmentation, generator(stream.seed, "augment", i))
            batch = stream[i]
            assert batch.frames == 1
            for name in ("rgb", "depth", "K", "valid", "weight"):
                assert np.array_equal(getattr(batch, name)[0].numpy(), getattr(target, name)), name


def test_what_is_shorter_than_a_clip_is_refused_and_counted(settings: Settings, tmp_path: Path) -> None:
    samples: list[shards.Sample] = [
        *(spheres_view(i, 32, 32) for i in range(2)),
        spheres_clip(10, 2, height=32, width=32),
        *(spheres_clip(i, 4, height=32, width=32) for i in (11, 12)),
    ]
    path = write_dataset(tmp_path / "mixed", samples, 32)
    with pytest.raises(ValueError, match=r"data\.frames is 3") as error:
        stream_of(settings, data__path=str(path), data__frames=3)
    assert str(error.value) == (
        f"{path}: data.frames is 3, but 3 of its 5 samples have fewer frames (2 are still views, 1 shorter clips); "
        'leave them out with data.where="frames >= 3"'
    )
    stream = stream_of(settings, data__path=str(path), data__frames=3, data__where="frames >= 3")
    assert stream.samples == 2
    with pytest.raises(ValueError, match=r'data\.where="\(layers = 6\) and frames >= 3"'):
        stream_of(settings, data__path=str(path), data__frames=3, data__where="layers = 6")
    several = [{"path": str(path), "split": "all"}, {"path": str(path), "split": "all", "where": "frames > 2"}]
    with pytest.raises(ValueError, match=r'leave them out with where="frames >= 3" in this source$'):
        stream_of(settings, data__path=several, data__frames=3)
    with pytest.raises(ValueError, match=r"5 of its 5 .*; its longest has 4: give data.frames=4, or longer clips$"):
        stream_of(settings, data__path=str(path), data__frames=16)
    with pytest.raises(ValueError, match=r"2 of its 2 .*; give clips, or data.frames=1$"):
        stream_of(settings, data__path=str(path), data__frames=2, data__where="frames = 1")


def test_a_clip_that_is_empty_in_part_is_used_and_one_that_is_empty_is_replaced(
    settings: Settings, tmp_path: Path
) -> None:
    clip, other, third = (spheres_clip(i, 2, height=32, width=32) for i in range(3))

    def emptied(view: shards.LayeredView) -> shards.LayeredView:
        return replace(view, hits=np.zeros_like(view.hits), depth=np.zeros_like(view.depth))

    samples: list[shards.Sample] = [
        replace(clip, frames=(clip.frames[0], emptied(clip.frames[1]))),
        replace(other, frames=tuple(map(emptied, other.frames))),
        third,
    ]
    path = write_dataset(tmp_path / "some", samples, 32)
    stream = stream_of(settings, data__path=str(path), data__frames=2)
    lines = [line for i in range(3) for line in stream.views(i)[1]]
    assert {(line.reason, line.message) for line in lines} == {
        ("empty", f"{other.key}: no valid pixel, so nothing to learn from")
    }
    seen = {stream.views(i)[0][0].key.rpartition("-t")[0]: stream[i] for i in range(3)}
    assert seen[clip.key].valid.flatten(1).any(1).tolist() == [True, False]


def test_rendered_and_photographed_sources_arrive_in_their_parts(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    """0.6 rendered and 0.4 rgbd (App. C): Eq. 4's flag, one layer repeated; masks are jittered for the first alone."""
    rgbd: list[shards.Sample] = [
        replace(v, regime="rgbd", single_layer=True, depth=v.depth[:1], hits=np.minimum(v.hits, 1))
        for v in (spheres_view(i, 40, 60) for i in range(20, 30))
    ]
    other = write_dataset(tmp_path / "rgbd", rgbd, 60)
    sources = [
        {"path": str(dataset), "weight": 0.6, "split": "all"},
        {"path": str(other), "weight": 0.4, "split": "all"},
    ]
    stream = stream_of(settings, data__path=sources, augment__mask__probability=1.0, augment__mask__radius=0.05)
    assert np.mean([stream.sequence[i][0] for i in range(3000)]) == pytest.approx(0.4, abs=0.03)
    with batches(stream, Schedule(0, 2, 25)) as found:
        parts = list(found)
    for batch in parts:
        single = batch.single_layer
        assert single.any()
        assert not single.all()
        regimes = ["rgbd" if flag else "object" for flag in single.tolist()]
        assert regimes == [stream.view(i)[0].regime for i in batch.index.tolist()]
        assert (batch.depth[single] == batch.depth[single][:, :1]).all()
        assert (batch.depth[~single] != batch.depth[~single][:, :1]).any()
        assert set(batch.weight[single].unique().tolist()) == {0.0, 1.0}
        assert 0.25 in batch.weight[~single].unique().tolist()
    assert type(normalisation_for(stream)).__name__ == "LogMedian"


def test_the_second_stage_goes_on_with_the_same_views(settings: Settings, long_clips: Path) -> None:
    """Of 196 and 504 (here 28 and 56): an index is the same frames, moved in the same way, at both sizes."""
    small, large = (
        stream_of(settings, data__path=str(long_clips), data__frames=2, data__size=size) for size in (28, 56)
    )
    for i in range(8):
        assert [view.key for view in small.views(i)[0]] == [view.key for view in large.views(i)[0]]
        np.testing.assert_allclose(small[i].K, torch.tensor([[0.5], [0.5], [1.0]]) * large[i].K, atol=1e-9)
