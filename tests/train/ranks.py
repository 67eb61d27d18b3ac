"""Runs of several ranks on this machine: one process each, forked from a server that has imported torch already."""

import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from train import config
from train.config import Config

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["train.loop", "torch.nn.parallel", "matplotlib.pyplot"])


def start(
    settings: Config, world: int, fault: str = "", rank: int = 1, step: int = 0, other: Config | None = None
) -> list[BaseProcess]:
    """Start `world` ranks. `fault` befalls `rank` at `step`, or it is started with the `other` settings.

    What a rank prints is in out-RANK.log beside `out`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        _CONTEXT.Process(
            target=_rank,
            args=(
                config.to_dict(other or settings) if k == rank else config.to_dict(settings),
                _log_of(settings.out, k),
                k,
                world,
                port,
                fault if k == rank else "",
                step,
            ),
        )
        for k in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def join(processes: Sequence[BaseProcess], seconds: float = 60) -> list[int | None]:
    """Exit codes; None of a rank that did not end in time (it is killed then)."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


def run(
    settings: Config, world: int, fault: str = "", rank: int = 1, step: int = 0, other: Config | None = None
) -> list[int | None]:
    return join(start(settings, world, fault, rank, step, other))


def said(settings: Config, rank: int) -> str:
    return _log_of(settings.out, rank).read_text()


def _log_of(out: str, rank: int) -> Path:
    return Path(f"{out}-{rank}.log")


def _rank(text: dict, path: Path, rank: int, world: int, port: int, fault: str, step: int) -> None:
    settings = config.from_dict(text)
    log = path.open("w", buffering=1)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    import torch

    torch.set_num_threads(1)
    from train import loop, parallel

    parallel.FOLDER_SECONDS = 1.0
    if fault:
        _inject(loop, settings, fault, step)
    try:
        outcome = loop.train(settings)
    except (ValueError, OSError) as error:
        print(f"worldtrace train: {' '.join(str(error).split())}", flush=True)
        os._exit(2)
    except BaseException:
        traceback.print_exc()
        log.flush()
        os._exit(1)
    print(f"ended at {outcome.step}, {outcome.stopped_by}", flush=True)


def _inject(loop: object, settings: Config, fault: str, step: int) -> None:
    """Let something happen to this rank in the forward pass of one step."""
    from train.batch import Unusable

    sound = loop.loss_of  # type: ignore[attr-defined]
    calls = 0

    def faulty(network, time_shift, normalisation, batch, *rest):
        nonlocal calls
        calls += 1
        now = (calls - 1) // settings.accumulation + 1 == step
        if now and fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if now and fault == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        if now and fault == "error":
            raise ValueError("a fault of this rank alone")
        if now and fault == "hang":
            signal.pause()
        loss = sound(network, time_shift, normalisation, batch, *rest)
        scale = {"nan": float("nan"), "spike": 1e6}.get(fault, 1.0) if now else 1.0
        return loss._replace(total=loss.total * scale)

    loop.loss_of = faulty  # type: ignore[attr-defined]
    if fault == "damage":
        from train.data import Stream

        whole = Stream.view

        def damaged(self, index):
            view, lines = whole(self, index)
            bad = index // settings.data.batch + 1 >= step
            return view, (*lines, Unusable(index, "damaged", f"sample {index} is damaged")) if bad else lines

        Stream.view = damaged  # type: ignore[method-assign]
