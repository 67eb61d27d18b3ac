"""A batch is the same wherever its tensors lie, and its points are those of its views."""

import gc
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

import shards
from shards import generator
from tests.train.conftest import Settings
from train.config import Augment
from train.data import augment
from train.data.batch import Batch, Form, Unusable, joined, placed, points, size_of
from train.data.slots import Parcel, Slots
from train.data.stream import Schedule, Stream, batches

FORM = Form(6, 28, 28)


def one(dataset: Path, index: int) -> Batch:
    view = shards.open(dataset)[index]
    assert isinstance(view, shards.LayeredView)
    target = augment.prepare(view, 6, 28, Augment(), generator(0, "augment", index))
    arrays = {name: getattr(target, name) for name in ("rgb", "depth", "K", "valid", "weight")}
    return Batch(
        **{name: torch.from_numpy(array)[None] for name, array in arrays.items()},
        single_layer=torch.tensor([False]),
        index=torch.tensor([index]),
        damaged=(Unusable(index, "empty", "nothing"),),
    )


@pytest.fixture(scope="module")
def items(dataset: Path) -> list[Batch]:
    return [one(dataset, index) for index in range(5)]


def same(a: Batch, b: Batch) -> bool:
    return (
        a.tensors.keys() == b.tensors.keys()
        and all(torch.equal(tensor, b.tensors[name]) for name, tensor in a.tensors.items())
        and a.damaged == b.damaged
    )


def test_points_are_those_of_rays_in_float64(items: list[Batch]) -> None:
    batch = joined(items)
    for depth, K, found in zip(batch.depth, batch.K, batch.xyz):
        expected = shards.rays(K.numpy(), 28, 28)[None] * depth.numpy()[..., None].astype(np.float64)
        np.testing.assert_allclose(found.numpy(), expected, rtol=3e-7, atol=1e-7)
    assert not batch.xyz.permute(0, 2, 3, 1, 4)[~batch.valid].any()


def test_a_gpu_would_find_the_same_points(items: list[Batch]) -> None:
    batch = joined(items)
    torch.testing.assert_close(points(batch.depth, batch.K), batch.xyz, rtol=3e-7, atol=1e-7)


def test_a_batch_in_one_piece_of_memory_is_the_same(items: list[Batch]) -> None:
    memory = torch.full((size_of(5, FORM),), 77, dtype=torch.uint8)
    batch = joined(items, memory)
    assert same(batch, joined(items))
    assert {tensor.untyped_storage().data_ptr() for tensor in batch.tensors.values()} == {memory.data_ptr()}
    tensors = placed(memory, 5, FORM)
    assert sum(t.numel() * t.element_size() for t in tensors.values()) <= len(memory)


def test_a_slot_is_free_once_the_last_tensor_in_it_is_gone(items: list[Batch]) -> None:
    slots = Slots(1, 2, 5, FORM)
    first, second = slots.joined(items, 0), slots.joined(items[:2], 0)
    assert isinstance(first, Parcel)
    assert isinstance(second, Parcel)
    assert {first.slot, second.slot} == {0, 1}
    assert isinstance(slots.joined(items, 0), Batch), "both are taken, so it travels as torch has it"

    batch = first.open()
    assert same(batch, joined(items))
    corner = batch.depth[3, 2, 5:9]  # a view of a view
    kept = corner.clone()
    del batch
    gc.collect()
    assert isinstance(slots.joined(items[::-1], 0), Batch), "a tensor still lies there"
    assert torch.equal(corner, kept)
    del corner
    gc.collect()
    again = slots.joined(items[::-1], 0)
    assert isinstance(again, Parcel)
    assert again.slot == first.slot
    assert same(again.open(), joined(items[::-1]))


def test_workers_do_not_share_slots_and_foreign_sizes_do_not_enter_them(items: list[Batch]) -> None:
    slots = Slots(2, 1, 3, FORM)
    parcels = [slots.joined(items[:3], worker) for worker in (0, 1)]
    assert [p.slot for p in parcels if isinstance(p, Parcel)] == [0, 1]
    assert isinstance(Slots(1, 1, 3, FORM).joined(items, 0), Batch)
    assert isinstance(Slots(1, 1, 9, Form(6, 28, 29)).joined(items, 0), Batch)


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="workers inherit memory only where forked")
def test_batches_come_through_slots_and_are_not_overwritten_while_held(settings: Settings) -> None:
    """More batches are kept than there are slots; every one still holds what was read in this process."""
    config = settings(augment__enabled=True, data__workers=2, data__prefetch=1)
    stream = Stream(config.data, config.augment, 6, config.seed)
    with batches(stream, Schedule(0, 14, 4)) as found:
        held = list(found)
    storages = [batch.depth.untyped_storage().data_ptr() for batch in held]
    assert len(set(storages)) == 14
    in_slots = [not batch.rgb.is_shared() for batch in held]  # what torch sends lies in shared memory of its own
    assert 1 <= sum(in_slots) <= 6, "two workers with three slots each"
    for step, batch in enumerate(held):
        alone = joined([stream[index] for index in range(4 * step, 4 * step + 4)])
        assert same(batch, alone)


def test_points_of_cameras_with_skew_are_those_of_rays(items: list[Batch]) -> None:
    """As a shear leaves them."""
    K = items[0].K.numpy()[0] @ np.array([[1, 0.2, 0], [0.1, 0.9, 0], [0, 0, 1]])
    K = np.array([[1, 0.1, 0.5], [0, 1.1, -0.5], [0, 0, 1]]) @ K
    found = points(items[0].depth, torch.from_numpy(K)[None])[0]
    expected = shards.rays(K, 28, 28)[None] * items[0].depth[0].numpy()[..., None].astype(np.float64)
    np.testing.assert_allclose(found.numpy(), expected, rtol=3e-7, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gets_a_finished_batch_without_being_waited_for(settings: Settings) -> None:
    """From pinned memory, photometry and points included; index stays, and the numbers are those of the CPU."""
    often = {f"augment__photometric__{defect}": 0.5 for defect in ("blur", "sharpen", "noise")}
    config = settings(augment__enabled=True, augment__photometric__jpeg=0.0, data__workers=1, **often)
    stream = Stream(config.data, config.augment, 6, config.seed, on_device=True)
    cuda = torch.device("cuda")
    with batches(stream, Schedule(0, 6, 4), pin=True) as found:
        for step, batch in enumerate(found):
            assert all(tensor.is_pinned() for tensor in batch.tensors.values())
            if step == 0:
                assert batch.to(cuda).xyz.is_cuda  # what is done once may wait
            torch.cuda.set_sync_debug_mode("error")
            try:
                there = batch.to(cuda)
                xyz = there.xyz
            finally:
                torch.cuda.set_sync_debug_mode("default")
            here = batch.to(torch.device("cpu"))
            assert there.index.device.type == "cpu"
            torch.testing.assert_close(there.rgb.cpu(), here.rgb, rtol=0, atol=1e-5)
            torch.testing.assert_close(xyz.cpu(), here.xyz, rtol=3e-7, atol=1e-7)
            assert torch.equal(there.depth.cpu(), here.depth)
