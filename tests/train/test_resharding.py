"""Checkpoints of several ranks: what some wrote, any other number reads; what one of them meets, all know."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from tests.train import several
from train import checkpoints
from train.checkpoints import GROUPS, Checkpoints, pieces
from train.ranks.parallel import Ranks

ALONE = Ranks(0, 1, torch.device("cpu"))


class Net(nn.Module):
    """Sizes that no number of ranks divides, and some that are smaller than it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(7, 13), nn.Linear(13, 3, bias=False)
        self.scale, self.one = nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(1))
        self.register_buffer("mean", torch.randn(3, 1, 1))


def held(ranks: Ranks, size: int, seed: int, value: float | None = None) -> dict[str, dict[str, Tensor]]:
    """The tensors of a run that is sharded over groups of `size` ranks, random or all `value`."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    groups: dict[str, dict[str, Tensor]] = {}
    mesh = None
    if ranks.world > 1:
        mesh = init_device_mesh("cpu", (ranks.world // size, size), mesh_dim_names=("replicate", "shard"))
    for at, name in enumerate(GROUPS):
        torch.manual_seed(seed + at)
        net = Net()
        if mesh is not None:
            fully_shard(net.a, mesh=mesh)
            fully_shard(net, mesh=mesh)
        groups[name] = {**net.state_dict(), "count": torch.tensor(seed + at)}
    if value is not None:
        for named in groups.values():
            for tensor in named.values():
                pieces.local(tensor).fill_(value)
    return groups


def whole(groups: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, bytes]]:
    def full(tensor: Tensor) -> bytes:
        tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        return tensor.detach().numpy().tobytes()

    return {g: {n: full(t) for n, t in named.items()} for g, named in groups.items()}


def go_on(ranks: Ranks, out: Path, size: int, step: int) -> tuple[dict, list[str]]:
    """Load the newest checkpoint into nothing, save it again as that of `step`, and give what was loaded."""
    groups = held(ranks, size, 0, value=-1.0)
    said: list[str] = []
    found = checkpoints.latest(out, said.append, ranks)
    assert found is not None
    with ranks.together():
        checkpoints.load(found, groups)
    with Checkpoints(out, 9, ranks, said.append) as saver:
        saver.save(step, groups, {"from": found.step})
        saver.settle(last=True)
    return whole(groups), said


def begin(ranks: Ranks, out: Path, size: int) -> dict:
    groups = held(ranks, size, 5)
    with Checkpoints(out, 9, ranks) as saver:
        saver._share.pin = True  # as on a GPU
        saver.prepare(groups)
        saver.save(1, groups, {}, wait=True)
    return whole(groups)


@pytest.mark.parametrize("sizes", [(2, 2, 1, 4), pytest.param((1, 1, 1, 2), marks=pytest.mark.slow)])
def test_bits_survive_4_ranks_then_2_then_1_then_4(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    first, *rest = zip((4, 2, 1, 4), sizes)
    written = several.on(first[0], begin, tmp_path, first[1])
    assert all(each == written[0] for each in written)
    torch.manual_seed(5)
    assert written[0]["model"]["a.weight"] == Net().a.weight.detach().numpy().tobytes()
    for step, (world, size) in enumerate(rest, start=2):
        of_all = several.on(world, go_on, tmp_path, size, step) if world > 1 else [go_on(ALONE, tmp_path, size, step)]
        for loaded, said in of_all:
            assert loaded == written[0]
            assert said == []
    found = [checkpoints.check(path) for path in checkpoints.steps(tmp_path)]
    assert [(each.step, each.state["world"]) for each in found] == [(1, 4), (2, 2), (3, 1), (4, 4)]
    for each in found:
        assert whole(checkpoints.read(each, GROUPS)) == written[0]
    # of what several hold one copy is written, and each rank writes some of it
    written_by = shares(found[0].path)
    assert sum(written_by) == 1 + sum(tensor.numel() for tensor in Net().state_dict().values())
    largest = 7 * -(-13 // sizes[0])  # a piece of a.weight
    assert max(written_by) < largest + 20
    assert min(written_by) > 0


def shares(step: Path) -> list[int]:
    """Numbers of the model that each of 4 ranks has written."""
    saved = [0] * 4
    for file in step.glob("model/*"):
        with safe_open(file, "pt") as opened:
            saved[int(file.name[:5])] += sum(opened.get_tensor(name).numel() for name in opened.keys())  # noqa: SIM118
    return saved


def full_disk(ranks: Ranks, out: Path) -> list[str]:
    """The disk of rank 1 is full at steps 2 and 4."""
    sound = pieces._write
    said: list[str] = []

    def full(path: Path, part: pieces.Part) -> dict:
        if ranks.rank == 1 and ("step-000002" in str(path) or "step-000004" in str(path)):
            raise OSError(28, "No space left on device")
        return sound(path, part)

    pieces._write = full  # type: ignore[assignment]
    groups = held(ranks, 2, 0)
    with Checkpoints(out, 2, ranks, said.append) as saver:
        for step in (1, 2, 3):
            saver.save(step, groups, {})
        try:
            saver.save(4, groups, {}, wait=True)
        except OSError as error:
            said.append(f"raised: {error}")
    return said


def test_a_full_disk_of_one_rank_is_known_to_all(tmp_path: Path) -> None:
    first, second = several.on(2, full_disk, tmp_path)
    of = f"rank 1 on {socket.gethostname()}: [Errno 28] No space left on device"
    went_on = f"{tmp_path}/checkpoints/step-000002 cannot be written: {of}; training goes on, and the checkpoints"
    assert any(line.startswith(went_on) for line in first)
    ended = f"raised: {tmp_path}/checkpoints/step-000004 cannot be written: {of}"
    assert first[-1] == ended
    assert second == [ended]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000001", "step-000003"]


def killed(ranks: Ranks, out: Path) -> None:
    """Rank 1 dies while it writes step 2; what rank 0 says is in `out`."""
    sound = pieces._write

    def dying(path: Path, part: pieces.Part) -> dict:
        if ranks.rank == 1 and "step-000002" in str(path):
            path.write_bytes(part.header)
            os.kill(os.getpid(), signal.SIGKILL)
        return sound(path, part)

    pieces._write = dying  # type: ignore[assignment]
    groups = held(ranks, 2, 5)
    saver = Checkpoints(out, 2, ranks, timeout=20)
    saver.save(1, groups, {}, wait=True)
    saver.save(2, groups, {})
    try:
        saver.settle(last=True)
    except OSError as error:
        (out / "said").write_text(str(error))


def test_a_rank_killed_while_it_saves_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    several.on(2, killed, tmp_path, lost=[0, 1])  # rank 0 cannot take its leave of the other
    told = f"{tmp_path}/checkpoints/step-000002 cannot be written: another rank has ended, or does not answer"
    assert (tmp_path / "said").read_text() == told
    assert [p.name for p in checkpoints.steps(tmp_path)] == ["step-000001"]
    assert list((tmp_path / "checkpoints").glob(".step-000002-*.tmp"))
    loaded, said = go_on(ALONE, tmp_path, 1, 2)
    assert loaded == whole(checkpoints.read(checkpoints.find(tmp_path), GROUPS))
    assert said == [f"1 unfinished checkpoints of a run that was killed are removed from {tmp_path}"]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000001", "step-000002"]


def stuck(ranks: Ranks, out: Path) -> tuple[list[str], list[float]]:
    """The file system of rank 1 hangs at step 2 for longer than a save may last, and answers before step 4."""
    sound = pieces._write
    answers = threading.Event()

    def hanging(path: Path, part: pieces.Part) -> dict:
        if ranks.rank == 1 and "step-000002" in str(path):
            answers.wait(60)
        return sound(path, part)

    pieces._write = hanging  # type: ignore[assignment]
    groups = held(ranks, 2, 5)
    said: list[str] = []
    stood = []
    with Checkpoints(out, 4, ranks, said.append, timeout=1.0) as saver:
        for step in (1, 2, 3, 30, 4):
            if step == 4:
                if ranks.first:  # its thread hears nothing from the other, and gives up
                    saver._join(20)
                ranks.gather_objects(None)
                answers.set()
            began = time.perf_counter()
            saver.save(step, groups, {}, wait=step in (1, 4))
            stood.append(time.perf_counter() - began)
    return said, stood


def test_a_rank_whose_file_system_hangs_is_waited_for_once_and_saves_again_afterwards(tmp_path: Path) -> None:
    (said, stood), (nothing, _) = several.on(2, stuck, tmp_path)
    late = [line for line in said if line.endswith("is not done after 1 seconds; training goes on")]
    assert [line.split()[0] for line in late] == [f"{tmp_path}/checkpoints/step-0000{step}" for step in ("03", "30")]
    lost = "step-000002 cannot be written: another rank has ended, or does not answer; training goes on"
    assert sum(lost in line for line in said) == 1
    assert stood[2] > 0.5 > stood[3], "the second save since finds that the time is over"
    assert nothing == []
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000001", "step-000004"]
    assert whole(checkpoints.read(checkpoints.find(tmp_path), GROUPS)) == whole(
        checkpoints.read(checkpoints.check(tmp_path / "checkpoints" / "step-000001"), GROUPS)
    )


def without_threads(ranks: Ranks, out: Path) -> list[str]:
    """Rank 1 has no thread left for step 1."""
    groups, said = held(ranks, 2, 5), list[str]()
    sound = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if ranks.rank == 1 and thread.name == "checkpoint 1":
            raise RuntimeError("can't start new thread")
        sound(thread)

    threading.Thread.start = start  # type: ignore[method-assign, assignment]
    with Checkpoints(out, 4, ranks, said.append) as saver:
        try:
            saver.save(1, groups, {}, wait=True)
        except OSError as error:
            said.append(str(error))
        saver.save(2, groups, {}, wait=True)
    return said


def test_a_rank_that_can_start_no_thread_says_so_to_all(tmp_path: Path) -> None:
    told = f"cannot be written: rank 1 on {socket.gethostname()}: can't start new thread"
    assert several.on(2, without_threads, tmp_path) == [[f"{tmp_path}/checkpoints/step-000001 {told}"]] * 2
    assert [p.name for p in checkpoints.steps(tmp_path)] == ["step-000002"]


def choose(ranks: Ranks, out: Path) -> tuple[list[str], list[str]]:
    """What is chosen while rank 0 damages one checkpoint after the other, in a file that rank 1 has to check."""
    said: list[str] = []
    chosen = []
    for step in (2, 1):
        if ranks.first:
            file = out / "checkpoints" / f"step-{step:06d}" / "model" / "00000-000.safetensors"
            file.write_bytes(file.read_bytes()[:-1] + b"?")
        ranks.gather_objects(None)
        try:
            found = checkpoints.latest(out, said.append, ranks)
        except ValueError as error:
            chosen.append(str(error))
        else:
            assert found is not None
            chosen.append(found.path.name)
    return chosen, said


def test_damage_that_one_rank_finds_is_damage_to_all(tmp_path: Path) -> None:
    begin(ALONE, tmp_path, 1)
    go_on(ALONE, tmp_path, 1, 2)
    (first, said), (second, nothing) = several.on(2, choose, tmp_path)
    assert first == second
    assert first[0] == "step-000001"
    assert first[1].startswith(f"{tmp_path}: all 2 checkpoints are damaged")
    assert len(said) == 3
    assert all("model/00000-000.safetensors: its bytes are not those" in line for line in said)
    assert nothing == []
