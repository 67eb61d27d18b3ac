"""The stream is a function of the global index: nothing about how it is read may show in what is read."""

import errno
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

import shards
from tests.shards.scenes import spheres_view
from tests.train.conftest import Settings, write_dataset
from train.data import readers
from train.data import stream as stream_module
from train.data.batch import Batch, Unusable
from train.data.readers import Reader
from train.data.stream import Damage, Schedule, Stream, batches
from train.run import pooled


def stream_of(settings: Settings, **changes: object) -> Stream:
    c = settings(augment__enabled=True, **changes)
    return Stream(c.data, c.augment, 6, c.seed)


def read(stream: Stream, schedule: Schedule) -> list[Batch]:
    with batches(stream, schedule) as found:
        return list(found)


def equal(a: Batch, b: Batch) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for name in ("rgb", "xyz", "valid", "weight", "single_layer", "index")
    )


def test_a_sample_is_what_the_network_expects(settings: Settings) -> None:
    batch = read(stream_of(settings), Schedule(0, 1, 4))[0]
    assert batch.rgb.shape == (4, 3, 28, 28)
    assert batch.xyz.shape == (4, 6, 28, 28, 3)
    assert (batch.rgb.dtype, batch.xyz.dtype, batch.valid.dtype) == (torch.float32, torch.float32, torch.bool)
    assert batch.index.tolist() == [0, 1, 2, 3]
    z = batch.xyz[..., 2]
    assert (z[:, 1:] >= z[:, :-1]).all(), "layers are front to back"
    assert (z[:, 0] > 0).equal(batch.valid)
    assert ((batch.weight > 0) == batch.valid).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_samples(settings: Settings, workers: int) -> None:
    alone = read(stream_of(settings), Schedule(2, 6, 4))
    shared = read(stream_of(settings, data__workers=workers), Schedule(2, 6, 4))
    assert len(alone) == len(shared) == 4
    assert all(equal(a, b) for a, b in zip(alone, shared))


@pytest.mark.parametrize(("world", "accumulation"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_ranks_and_accumulation_share_out_the_same_global_batches(world: int, accumulation: int) -> None:
    whole = list(Schedule(3, 7, 8))
    ranks = [list(Schedule(3, 7, 8, accumulation, rank, world)) for rank in range(world)]
    for step, expected in enumerate(whole):
        dealt = [index for part in range(accumulation) for rank in ranks for index in rank[step * accumulation + part]]
        assert dealt == expected == list(range((3 + step) * 8, (4 + step) * 8))


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        Schedule(0, 1, 6, accumulation=2, world=2)


def test_an_epoch_shows_every_sample_once_and_epochs_differ(settings: Settings) -> None:
    stream = stream_of(settings)
    keys = [stream.view(i)[0].key for i in range(24)]
    assert all(sorted(keys[e : e + 8]) == sorted(shards.open(stream.data.path).keys) for e in (0, 8, 16))  # type: ignore[arg-type]
    assert len({tuple(keys[e : e + 8]) for e in (0, 8, 16)}) > 1
    first, later = stream[0], next(stream[i] for i in range(8, 16) if keys[i] == keys[0])
    assert not torch.equal(first.rgb, later.rgb), "the same view is augmented differently in another epoch"


def test_other_seeds_give_other_orders(settings: Settings) -> None:
    orders = {tuple(stream_of(settings, seed=seed).view(i)[0].key for i in range(8)) for seed in range(4)}
    assert len(orders) == 4


def test_runs_from_before_there_were_groups_keep_their_samples(settings: Settings, dataset: Path) -> None:
    """Their checkpoints hold this hash; their samples are those of the plain order at the source's own place."""

    def as_it_was(weights: list[float]) -> str:
        parts = [[shards.open(dataset).hash, weight] for weight in weights]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    one = stream_of(settings)
    assert one.hash == as_it_was([1.0])
    order = shards.Order(8, 0, one.sources[0].hash)
    assert [one.view(i)[0].key for i in range(20)] == [one.sources[0].keys[order[i]] for i in range(20)]
    sources = [{"path": str(dataset), "weight": w, "split": "all"} for w in (3, 1)]  # as config.yaml of old runs has it
    two = stream_of(settings, data__path=sources)
    assert two.hash == as_it_was([3.0, 1.0])
    for i in range(20):
        source, place = two.sequence[i]
        assert two.view(i)[0].key == two.sources[source].keys[order[place]]


def test_single_layer_sources_mix_in(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    rgbd: list[shards.Sample] = [
        replace(v, regime="rgbd", single_layer=True, depth=v.depth[:1], hits=np.minimum(v.hits, 1))
        for v in (spheres_view(i, 40, 60) for i in range(20, 24))
    ]
    other = write_dataset(tmp_path / "rgbd", rgbd, 60)
    sources = [{"path": str(dataset), "weight": 3, "split": "all"}, {"path": str(other), "weight": 1, "split": "all"}]
    stream = stream_of(settings, data__path=sources)
    batch = read(stream, Schedule(0, 1, 40))[0]
    assert 3 <= int(batch.single_layer.sum()) <= 18
    assert batch.xyz.shape == (40, 6, 28, 28, 3)
    assert (batch.xyz[batch.single_layer] == batch.xyz[batch.single_layer][:, :1]).all()


def test_a_clip_is_read_as_one_of_its_frames(settings: Settings, clips: Path) -> None:
    stream = stream_of(settings, data__path=str(clips))
    keys = [stream.view(i)[0].key for i in range(30)]
    assert len(set(keys)) > 5, "frames vary from epoch to epoch"
    assert keys == [stream_of(settings, data__path=str(clips)).view(i)[0].key for i in range(30)]


@pytest.fixture
def damaged(dataset: Path, tmp_path: Path) -> Path:
    """The dataset with one byte of its third sample flipped."""
    copy = tmp_path / "damaged"
    shutil.copytree(dataset, copy)
    manifest = shards.read_manifest(copy).to_pylist()
    shard = copy / "shards" / manifest[2]["shard"]
    content = bytearray(shard.read_bytes())
    content[manifest[2]["offset"] + manifest[2]["bytes"] // 2] ^= 1
    shard.write_bytes(content)
    return copy


def test_a_damaged_sample_is_replaced_by_the_next_in_order(settings: Settings, dataset: Path, damaged: Path) -> None:
    whole, hurt = stream_of(settings), stream_of(settings, data__path=str(damaged))
    keys = [whole.view(i)[0].key for i in range(9)]
    bad = next(i for i in range(8) if keys[i] == whole.sources[0].keys[2])
    for i in range(8):
        view, lines = hurt.view(i)
        if i == bad:
            assert view.key == whole.view(i + 1)[0].key
            assert len(lines) == 1
            assert lines[0].reason == "damaged"
            assert keys[bad] in lines[0].message
        else:
            assert view.key == keys[i]
            assert not lines


def test_workers_end_with_the_block_even_while_its_iterator_is_held(settings: Settings) -> None:
    with batches(stream_of(settings, data__workers=2), Schedule(0, 50, 4)) as held:
        next(held)
        assert len(multiprocessing.active_children()) == 2
    assert held
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_a_worker_outlives_no_trainer_that_is_killed(
    settings: Settings, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where it waits for a file that never comes, or where the processes are forked by a server."""
    monkeypatch.setattr(readers, "EVERY", 0.1)  # a server that forks has its own
    said, told = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context(method)
    trainer = context.Process(  # type: ignore[attr-defined]
        target=trains_for_ever, args=(stream_of(settings, data__workers=1), method, told)
    )
    trainer.start()
    told.close()
    (worker,) = said.recv()
    began = readers.since(worker)
    assert began
    time.sleep(0.3)
    assert readers.since(worker) == began, "nothing ends it as long as its trainer lives"
    trainer.kill()
    trainer.join()
    until = time.monotonic() + 20
    while readers.since(worker) == began and time.monotonic() < until:
        time.sleep(0.02)
    assert readers.since(worker) != began


def trains_for_ever(stream: Stream, method: str, told: Connection) -> None:
    multiprocessing.set_start_method(method, force=True)
    with batches(_Hangs(stream), Schedule(0, 50, 4)) as found:  # type: ignore[arg-type]
        told.send([child.pid for child in multiprocessing.active_children()])
        list(found)


class _Hangs:
    """A stream on a file system that does not answer."""

    def __init__(self, stream: Stream) -> None:
        self.data, self.form = stream.data, stream.form

    def __getitem__(self, index: int) -> Batch:
        time.sleep(1000)
        raise AssertionError


def test_a_worker_goes_with_its_trainer_though_its_parent_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a server forks both. One whose trainer had gone before it began has nothing to wait for."""
    monkeypatch.setattr(readers, "EVERY", 0.1)
    trainer = subprocess.Popen(["sleep", "1000"])
    told = Reader(trainer.pid, readers.since(trainer.pid) or "")
    workers = [os.fork(), 0]
    if workers[0] == 0:
        reads_for_ever(told)
    time.sleep(0.3)
    assert os.waitpid(workers[0], os.WNOHANG) == (0, 0)
    trainer.kill()
    trainer.wait()
    workers[1] = os.fork()
    if workers[1] == 0:
        reads_for_ever(told)
    assert [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers] == [1, 1]


def reads_for_ever(told: Reader) -> None:
    told(0)
    time.sleep(20)
    os._exit(0)


def test_whether_a_process_is_still_the_same_one() -> None:
    """A killed one that nobody has waited for yet is gone, too; one of another beginning has only its number."""
    assert readers.since(os.getpid()) == readers.since(os.getpid())
    assert readers.since(os.getpid()) not in (None, "")
    child = os.fork()
    if child == 0:
        signal.pause()
    assert int(readers.since(child) or 0) >= int(readers.since(os.getpid()) or 0)
    os.kill(child, signal.SIGKILL)
    until = time.monotonic() + 20
    while readers.since(child) is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert readers.since(child) is None
    os.waitpid(child, 0)
    assert readers.since(child) is None


def test_a_killed_worker_is_one_sentence(settings: Settings) -> None:
    with batches(stream_of(settings, data__workers=2), Schedule(0, 500, 4)) as found:
        next(found)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        with pytest.raises(OSError, match="a process that reads samples was killed") as error:
            list(found)
    assert "\n" not in str(error.value)
    assert not multiprocessing.active_children()


def test_threads_that_begin_after_the_first_batch_count_as_this_one_does(settings: Settings) -> None:
    """autograd's, above all. The loader's thread that pins batches sets the number of all later ones to 1."""

    class Pinned(Stream):
        def __getitem__(self, index: int) -> Batch:
            if index == 0:
                in_a_thread(lambda: torch.set_num_threads(1))
            return super().__getitem__(index)

    def in_a_thread(act: Callable[[], object]) -> object:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(act).result()

    torch.set_num_threads(3)  # the fixture sets it back
    c = settings()
    with batches(Pinned(c.data, c.augment, 6, c.seed), Schedule(0, 2, 2)) as found:
        next(found)
        assert in_a_thread(torch.get_num_threads) == torch.get_num_threads() == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_is_one_sentence(settings: Settings, dataset: Path, tmp_path: Path, workers: int) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    stream = stream_of(settings, data__path=str(copy), data__workers=workers)
    shard = next((copy / "shards").iterdir())
    shard.unlink()
    with pytest.raises(OSError, match=re.escape(shard.name)) as error:
        read(stream, Schedule(0, 2, 4))
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


def test_too_much_damage_ends_the_run_with_a_list(settings: Settings, damaged: Path, tmp_path: Path) -> None:
    stream = stream_of(settings, data__path=str(damaged))
    damage = Damage(tmp_path / "damaged.jsonl", before=0)
    found = read(stream, Schedule(0, 4, 8))
    for step in range(1, 4):
        damage.note(found[step - 1].damaged, 8 * step)
    with pytest.raises(ValueError, match=r"4 of 32 samples .*4 damaged .*verify.*sha256 differs"):
        damage.note(found[3].damaged, 32)
    assert len(damage) == 4
    assert len(Damage(tmp_path / "damaged.jsonl", before=16)) == 2, "a resumed run takes over what lies before it"


def test_a_view_without_a_valid_pixel_is_not_called_damaged(settings: Settings, tmp_path: Path) -> None:
    views = [spheres_view(i, 48, 48) for i in range(4)]
    empty = replace(views[2], hits=np.zeros_like(views[2].hits), depth=np.zeros_like(views[2].depth))
    path = write_dataset(tmp_path / "some", [*views[:2], empty, views[3]], 48)
    stream = stream_of(settings, data__path=str(path))
    lines = [line for i in range(4) for line in stream.view(i)[1]]
    assert {line.reason for line in lines} == {"empty"}  # twice where it ends one epoch and begins the next
    assert all(f"{empty.key}: no valid pixel" in line.message for line in lines)
    damage = Damage(tmp_path / "damaged.jsonl", before=0)
    with pytest.raises(ValueError, match="4 without a valid pixel") as error:
        damage.note([replace(lines[0], index=i) for i in range(4)], 8)
    assert "verify" not in str(error.value)


def test_a_list_of_damage_cut_by_a_kill_is_read_up_to_the_break(tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    Damage(path, before=0).note([Unusable(1, "damaged", "a"), Unusable(2, "damaged", "b")], 10_000)
    path.write_text(path.read_text()[:-5])
    assert len(Damage(path, before=100)) == 1
    assert len(path.read_text().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["damaged.jsonl"]


def test_a_full_disk_costs_a_note_for_a_while_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    damage = Damage(tmp_path / "damaged.jsonl", 0, said.append)
    note = [Unusable(k, "damaged", "a") for k in range(4)]
    damage.note(note[:1], 10_000)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stream_module, "write_lines", full)
        damage.note(note[1:2], 20_000)
        damage.note(note[2:3], 30_000)
    assert len(said) == 1, "once for one full disk"
    assert "damaged.jsonl cannot be written: [Errno 28] No space left on device; training goes on" in said[0]
    assert len(Damage(tmp_path / "damaged.jsonl", 100)) == 1
    damage.note(note[3:], 40_000)
    assert len(Damage(tmp_path / "damaged.jsonl", 100)) == 4
    with monkeypatch.context() as patch:
        patch.setattr(stream_module, "write_lines", full)
        with pytest.raises(ValueError, match="5 of 100 samples"):
            damage.note([Unusable(9, "damaged", "a")], 100)
    assert len(said) == 2


def test_little_damage_is_borne(tmp_path: Path) -> None:
    damage = Damage(tmp_path / "damaged.jsonl", before=0)
    for k in range(1, 20):
        damage.note([Unusable(k, "damaged", "a")], seen=2000 * k)


def test_a_substitute_that_is_lost_as_well_counts_for_the_sample_it_stands_for(tmp_path: Path) -> None:
    damage = Damage(tmp_path / "damaged.jsonl", before=0)
    for i in range(3):
        damage.note([Unusable(i, "missing", f"shard {k}") for k in range(5)], seen=8)
    assert len(damage) == 15, "each is noted"
    with pytest.raises(
        ValueError, match=r"^4 of 8 samples .*: 1 damaged .* and 3 in shards that are missing; .*shard 4"
    ):
        damage.note([Unusable(7, "damaged", "a"), Unusable(7, "empty", "b")], seen=8)


def test_an_empty_split_is_refused(settings: Settings, tmp_path: Path) -> None:
    view = spheres_view(0, 48, 48)
    write_dataset(tmp_path / "one", [view], 48)
    other = "test" if shards.split_of(view.origin.sha256) != "test" else "train"
    with pytest.raises(ValueError, match=f"no samples in split '{other}'"):
        stream_of(settings, data__path=str(tmp_path / "one"), data__split=other)


@pytest.mark.parametrize("std", [[0.0, 1.0, 1.0], [1e200, 1.0, 1.0]])
def test_points_without_a_deviation_are_refused(std: list[float]) -> None:
    """A plane that faces the camera has none along z; training would divide by it."""
    with pytest.raises(ValueError, match=r"data\.path: .*set model\.normalisation=log_median"):
        pooled([{"mean": [0.0, 0.0, 2.0], "std": std}], np.array([1.0]))
