"""Saving: training goes on meanwhile, and whatever becomes of it is said and leaves the older checkpoints."""

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.small_checkpoints import ALONE, STATE, names, same, tensors, write
from train import checkpoints
from train.checkpoints import GROUPS, Checkpoints, pieces
from train.ranks.parallel import Ranks


class Gate:
    """Holds the writer until it is opened; then writes, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.failing = threading.Event(), False
        sound = pieces._write

        def held(path: Path, part: pieces.Part) -> dict:
            assert self.open.wait(20)
            if self.failing and path.name.startswith("00000") and path.parent.name == "optimizer":
                path.write_bytes(b"half")
                raise OSError(28, "No space left on device")
            return sound(path, part)

        monkeypatch.setattr(pieces, "_write", held)


def test_training_goes_on_while_a_checkpoint_is_written_and_changes_nothing_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    said: list[str] = []
    with Checkpoints(tmp_path, 3, ALONE, said.append) as saver:
        live = tensors(1)
        saver.save(1, live, STATE)
        for named in live.values():
            for tensor in named.values():
                tensor.fill_(0)
        assert saver.settle() is None
        assert checkpoints.steps(tmp_path) == []
        threading.Timer(0.1, gate.open.set).start()
        saver.save(2, tensors(2), STATE)  # never two at once
        assert said == ["checkpoint 1 is still being written; training waits for it"]
        assert same(checkpoints.read(checkpoints.find(tmp_path / "checkpoints" / "step-000001"), GROUPS), tensors(1))
        first, saved = saver.settle(last=True), saver.settle()
        assert saver.settle() is None
    assert first is not None
    assert first.step == 1
    assert saved is not None
    assert (saved.step, saved.path) == (2, tmp_path / "checkpoints" / "step-000002")
    assert saved.bytes == sum(f.stat().st_size for f in saved.path.rglob("*.safetensors"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_what_is_saved_from_a_gpu_is_of_the_moment_it_was_asked_for(tmp_path: Path) -> None:
    """The copies are only on the stream when `save` returns, in front of the step that changes the weights."""
    device = torch.device("cuda", torch.cuda.current_device())
    live = {g: {f"{i}": torch.full((1 << 22,), float(i), device=device) for i in range(16)} for g in GROUPS}
    busy = torch.randn(4096, 4096, device=device)
    with Checkpoints(tmp_path, 1, Ranks(0, 1, device)) as saver:
        saver.prepare(live)
        for step in (1, 2):  # the second uses the memory of the first
            for _ in range(50):
                busy = busy @ busy / 64
            saver.save(step, live, STATE)
            for named in live.values():
                for tensor in named.values():
                    tensor.add_(100)
            assert all(part.memory.is_pinned() for part in saver._share.parts)
            saved = saver.settle(last=True)
            assert saved is not None
            read = checkpoints.read(checkpoints.check(saved.path), GROUPS)
            for named in read.values():
                assert all((tensor == float(name) + 100 * (step - 1)).all() for name, tensor in named.items())
        zeros = {g: {n: torch.zeros_like(t) for n, t in named.items()} for g, named in live.items()}
        checkpoints.load(checkpoints.find(tmp_path), zeros)
    assert same(zeros, {g: {n: t - 100 for n, t in named.items()} for g, named in live.items()})


class Taken:
    """Notes who takes memory, which waits until it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.threads = threading.Event(), list[str]()

        def take(size: int, pin: bool) -> Tensor:
            self.threads.append(threading.current_thread().name)
            assert self.open.wait(20)
            return torch.empty(size, dtype=torch.uint8)

        monkeypatch.setattr(pieces, "_memory", take)
        monkeypatch.setattr(pieces, "PART", 1)  # a file for each tensor


def test_memory_is_pinned_beside_other_work_and_serves_the_first_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Taken(monkeypatch)
    with Checkpoints(tmp_path, 1, Ranks(0, 1, torch.device("cuda"))) as saver:
        saver.prepare(tensors(0))  # returns while nothing is taken yet
        threading.Timer(0.05, taken.open.set).start()
        saver.save(1, tensors(1), STATE, wait=True)
    assert taken.threads == ["checkpoint memory"] * 12, "the main thread took none, and none was taken twice"
    assert same(checkpoints.read(checkpoints.find(tmp_path), GROUPS), tensors(1))


def test_memory_that_was_prepared_for_other_tensors_is_not_used(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, 1, Ranks(0, 1, torch.device("cuda"))) as saver:
        saver.prepare({g: {"w": torch.zeros(2)} for g in GROUPS})
        saver.save(1, tensors(1), STATE, wait=True)
    assert same(checkpoints.read(checkpoints.find(tmp_path), GROUPS), tensors(1))


def test_a_run_that_ends_meanwhile_takes_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Taken(monkeypatch)
    with Checkpoints(tmp_path, 1, Ranks(0, 1, torch.device("cuda"))) as saver:
        saver.prepare(tensors(0))
        threading.Timer(0.05, taken.open.set).start()
    assert taken.threads == ["checkpoint memory"]


def test_on_a_cpu_no_memory_is_taken_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Taken(monkeypatch)
    taken.open.set()
    with Checkpoints(tmp_path, 1, ALONE) as saver:
        saver.prepare(tensors(0))
        assert not taken.threads
        saver.save(1, tensors(1), STATE, wait=True)
    assert taken.threads == [threading.main_thread().name] * 12


def test_too_little_memory_for_the_copy_is_a_failure_like_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(size: int, pin: bool) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(pieces, "_memory", none)
    for device in ("cpu", "cuda"):
        with Checkpoints(tmp_path, 1, Ranks(0, 1, torch.device(device))) as saver:
            saver.prepare(tensors(0))
            with pytest.raises(OSError, match="can't allocate memory"):
                saver.save(1, tensors(1), STATE, wait=True)


def test_a_save_that_does_not_end_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    said: list[str] = []
    with Checkpoints(tmp_path, 3, ALONE, said.append, timeout=0.05) as saver:
        saver.save(1, tensors(1), STATE)
        saver.save(2, tensors(2), STATE)
        assert "step-000002 is not written: the one before is not done after 0.05 seconds" in said[-1]
        with pytest.raises(OSError, match="step-000003 is not written"):
            saver.save(3, tensors(3), STATE, wait=True)
        gate.open.set()
    assert [p.name for p in checkpoints.steps(tmp_path)] == ["step-000001"]


@pytest.mark.parametrize("full", [False, True])
def test_a_rank_that_is_lost_after_the_name_was_given_makes_no_checkpoint_less_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    def gather(self: Checkpoints, own: Any) -> list[Any]:
        if isinstance(own, tuple):
            return [own]
        raise ConnectionError("another rank has ended")

    gate = Gate(monkeypatch)
    gate.open.set()
    gate.failing = full
    monkeypatch.setattr(Checkpoints, "_gather", gather)
    said: list[str] = []
    with Checkpoints(tmp_path, 1, ALONE, said.append) as saver:
        saver.save(1, tensors(1), STATE)
    assert len(said) == full
    assert all("step-000001 cannot be written: [Errno 28] No space left" in line for line in said)
    assert len(checkpoints.steps(tmp_path)) == (not full)


def test_one_step_is_saved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with Checkpoints(tmp_path, 3, ALONE) as saver:
        saver.save(1, tensors(1), STATE)
        threading.Timer(0.1, gate.open.set).start()
        saver.save(1, tensors(999), STATE, wait=True)  # the signal came just then: it is only waited for
    assert same(checkpoints.read(checkpoints.find(tmp_path), GROUPS), tensors(1))


def test_a_full_disk_is_said_and_leaves_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 10)
    gate = Gate(monkeypatch)
    said: list[str] = []
    gate.open.set()
    with Checkpoints(tmp_path, 1, ALONE, said.append) as saver:
        gate.failing = True
        saver.save(20, tensors(20), STATE)
        saver.save(30, tensors(30), STATE)
        told = [line for line in said if "No space" in line]
        assert len(told) == 1
        assert "step-000020 cannot be written: [Errno 28] No space left on device; training goes on" in told[0]
        with pytest.raises(OSError, match=r"step-000040 cannot be written.*No space"):
            saver.save(40, tensors(40), STATE, wait=True)
        assert names(tmp_path) == ["step-000010"]
        gate.failing = False  # somebody made room
        saver.save(40, tensors(40), STATE, wait=True)
    assert names(tmp_path) == ["step-000040"]


def test_a_run_that_ends_by_an_error_waits_for_its_checkpoint_and_says_if_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    for gate.failing, told in ((False, []), (True, [f"{tmp_path}/checkpoints/step-000002 cannot be written"])):
        said: list[str] = []
        gate.open.clear()
        with contextlib.suppress(ZeroDivisionError), Checkpoints(tmp_path, 3, ALONE, said.append) as saver:
            saver.save(1 + gate.failing, tensors(1), STATE)
            threading.Timer(0.05, gate.open.set).start()
            raise ZeroDivisionError
        assert [line.split(":")[0] for line in said] == told
        assert not any("goes on" in line for line in said)
        assert names(tmp_path) == ["step-000001"]
