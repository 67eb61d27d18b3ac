"""Runs of several ranks on this machine: one process each, forked from a server that has imported torch already."""

import errno
import hashlib
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train import config
from train.config import Config

if TYPE_CHECKING:
    from train.loop import Outcome

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["train.loop", "torch._dynamo", "matplotlib.pyplot", "pandas"])  # pyarrow imports it


Faults = Sequence[tuple[str, int]]  # (what befalls a rank, at which step), see _inject


def start(
    settings: Config,
    world: int,
    fault: str = "",
    rank: int = 1,
    step: int = 0,
    other: Config | None = None,
    faults: Mapping[int, Faults] | None = None,
) -> list[BaseProcess]:
    """Start `world` ranks. `fault` befalls `rank` at `step` (or several, by rank, `faults`), or it is started with the
    `other` settings.

    What a rank prints is in out-RANK.log beside `out`; at last the hashes of what it holds.
    """
    port = free_port()
    befalls = faults or ({rank: [(fault, step)]} if fault else {})
    processes = [
        CONTEXT.Process(
            target=_rank,
            args=(
                config.to_dict(other or settings) if k == rank else config.to_dict(settings),
                _log_of(settings.out, k),
                k,
                world,
                port,
                befalls.get(k, ()),
            ),
        )
        for k in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def become(rank: int, world: int, port: int) -> None:
    """Let this process be a rank of this machine, of one thread."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    import torch

    torch.set_num_threads(1)


def trained(settings: Config, path: Path, prepare: Callable[[], Any]) -> "Outcome":
    """Train in this process, which is a rank of its own making, once `prepare` was called; all that it says goes to
    `path`. After an error it ends as `worldtrace train` does: by 2 and one sentence, or by 1 and a traceback.
    """
    log = path.open("w", buffering=1)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    from train import loop
    from train.ranks import parallel

    parallel.FOLDER_SECONDS = 1.0
    prepare()
    try:
        return loop.train(settings)
    except (ValueError, OSError) as error:
        print(f"worldtrace train: {' '.join(str(error).split())}", flush=True)
        os._exit(2)
    except BaseException:
        traceback.print_exc()
        log.flush()
        os._exit(1)


def join(processes: Sequence[BaseProcess], seconds: float = 120) -> list[int | None]:
    """Exit codes; None of a rank that did not end in time (it is killed then)."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


def run(
    settings: Config,
    world: int,
    fault: str = "",
    rank: int = 1,
    step: int = 0,
    other: Config | None = None,
    faults: Mapping[int, Faults] | None = None,
) -> list[int | None]:
    return join(start(settings, world, fault, rank, step, other, faults))


def held(settings: Config, world: int) -> list[dict[str, str]]:
    """What each rank held at its end: which shard, and the hash of its part of the weights, average and moments."""
    lines = [[line for line in said(settings, k).splitlines() if line.startswith("holds ")][-1] for k in range(world)]
    return [dict(word.split("=") for word in line.split()[1:]) for line in lines]


def said(settings: Config, rank: int) -> str:
    return _log_of(settings.out, rank).read_text()


def _log_of(out: str, rank: int) -> Path:
    return Path(f"{out}-{rank}.log")


def _rank(text: dict, path: Path, rank: int, world: int, port: int, faults: Faults) -> None:
    settings = config.from_dict(text)
    become(rank, world, port)
    made: list[Any] = []

    def prepare() -> None:
        from train import loop, opening

        sound = opening.Update
        opening.Update = lambda *given: made.append(sound(*given)) or made[-1]  # type: ignore[assignment, misc, return-value, func-returns-value]
        _inject(loop, settings, faults)

    outcome = trained(settings, path, prepare)
    print(_holds(made[-1].tensors()))
    print(f"ended at {outcome.step}, {outcome.stopped_by}", flush=True)


def _holds(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    from train.ranks.sharding import plain

    words = []
    for group, named in tensors.items():
        digest = hashlib.sha256()
        for name in sorted(named):
            digest.update(name.encode() + plain(named[name].detach()).contiguous().numpy().tobytes())
        words.append(f"{group}={digest.hexdigest()[:16]}")
    meshes = {getattr(tensor, "device_mesh", None) for tensor in tensors["model"].values()} - {None}
    places = {tuple(mesh.get_coordinate() or ())[-1] for mesh in meshes}
    return f"holds shard={places.pop() if places else 0} {' '.join(words)}"


def _inject(loop: Any, settings: Config, faults: Faults) -> None:
    """Let things happen to this rank, each at a step of this process.

    In the forward pass: kill, term, error, hang, nan, spike. In the evaluation: "term while evaluating". In the
    checkpoint of that step: "full disk". From that step on: damage, of every sample, or "stuck data", whose readers are
    frozen.
    """
    from train.checkpoints import pieces
    from train.data.batch import Unusable
    from train.data.stream import Stream

    at = {(fault, step) for fault, step in faults}
    sound, validate, write, whole = loop.loss_of, loop.validate, pieces._write, Stream.views
    calls = 0

    def faulty(network: Any, time_shift: Any, normalisation: Any, batch: Any, *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        step = (calls - 1) // settings.accumulation + 1
        if ("kill", step) in at:
            os.kill(os.getpid(), signal.SIGKILL)
        if ("term", step) in at:
            os.kill(os.getpid(), signal.SIGTERM)
        if ("error", step) in at:
            raise ValueError("a fault of this rank alone")
        if ("hang", step) in at:
            signal.pause()
        if ("stuck data", step) in at:
            for reader in multiprocessing.active_children():
                os.kill(reader.pid or 0, signal.SIGSTOP)
        loss = sound(network, time_shift, normalisation, batch, *rest)
        scale = float("nan") if ("nan", step) in at else 1e6 if ("spike", step) in at else 1.0
        return loss._replace(total=loss.total * scale)

    def evaluating(*given: Any) -> Any:
        if ("term while evaluating", (calls - 1) // settings.accumulation + 1) in at:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(*given)

    def writing(path: Path, part: Any) -> Any:
        if any(fault == "full disk" and f"{step:06d}" in str(path.parents[1].name) for fault, step in at):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, part)

    def viewing(self: Any, index: int) -> Any:
        views, lines = whole(self, index)
        bad = any(fault == "damage" and index // settings.data.batch + 1 >= step for fault, step in at)
        return views, (*lines, Unusable(index, "damaged", f"sample {index} is damaged")) if bad else lines

    loop.loss_of, loop.validate, pieces._write = faulty, evaluating, writing
    Stream.views = viewing  # type: ignore[method-assign]
