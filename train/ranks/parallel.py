"""Training by several ranks: which of them this process is, and what they tell each other (shards: sharding.py).

`torchrun` and Ray Train start one process per rank and tell it who it is in the same environment variables (RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT); Ray Train opens the process group too. One rank needs none of this,
and every call below is then the identity.

Ranks never decide alone. What a decision rests on (losses, signals, damaged samples) is gathered first, in the order of
ranks, so that all of them compute the same thing from the same bits. An error that only one rank meets
outside of `together` ends its process; the others notice when its connections close, or after `parallel.timeout`.
"""

import atexit
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from train.checkpoints import layout
from train.run import device_of

T = TypeVar("T")
FOLDER_SECONDS = 15.0  # a network file system may show a new file to other machines some seconds late


@dataclass(frozen=True)
class Ranks:
    """This process among `world` ranks, and the device it computes on. Rank 0 writes; the others only compute."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, numbers_N: Tensor) -> Tensor:
        """(N,) float64 on the CPU of each rank -> (world, N), in the order of ranks and the same bits on each."""
        if self.world == 1:
            return numbers_N[None]
        parts = [torch.empty_like(numbers_N) for _ in range(self.world)]
        with self.answering():
            dist.all_gather(parts, numbers_N)
        return torch.stack(parts)

    def gather_on_device(self, numbers_N: Tensor) -> Tensor:
        """(N,) on the device of each rank -> (world, N) there, in the order of ranks and the same bits on each.

        Nothing waits for it on the CPU if the device is a GPU.
        """
        if self.world == 1:
            return numbers_N[None]
        all_ = numbers_N.new_empty(self.world, len(numbers_N))
        with self.answering():
            dist.all_gather(list(all_), numbers_N)
        return all_

    def gather_objects(self, own: T) -> list[T]:
        """Every rank's small value, in the order of ranks. Returns only when all have called it."""
        if self.world == 1:
            return [own]
        found: list[Any] = [None] * self.world
        with self.answering():
            dist.all_gather_object(found, own)
        return found

    def tell(self, value: T) -> T:
        """Rank 0's small value, on every rank."""
        return self.gather_objects(value if self.first else None)[0]  # type: ignore[return-value]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one rank raises in the block, all raise at its end: nobody goes on, or waits for one who left.

        No rank may talk to the others inside of the block.
        """
        if self.world == 1:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        kind = "OSError" if isinstance(error, OSError) else type(error).__name__
        said = self.gather_objects(None if error is None else (kind, str(error)))
        if error is not None:
            raise error
        for rank, found in enumerate(said):
            if found is not None:
                kind, text = found
                known: dict[str, type[Exception]] = {"ValueError": ValueError, "OSError": OSError}
                raise known[kind](text) if kind in known else RuntimeError(f"rank {rank}: {kind}: {text}")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """A collective that fails because another rank is gone raises ConnectionError, in one sentence."""
        try:
            yield
        except RuntimeError as error:
            if self.world == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
                raise
            raise ConnectionError(
                f"rank {self.rank} of {self.world}, on {socket.gethostname()}: another rank has ended or does not "
                f"answer ({' '.join(str(error).split())[:200]}); what that rank said last tells why, and the same "
                "command goes on from the newest checkpoint"
            ) from error

    def agree(self, own: Mapping[str, Any]) -> None:
        """ValueError on all ranks where a value differs from rank 0's: their machines see different files."""
        if self.world == 1:
            return
        host = socket.gethostname()
        theirs, there = self.tell((dict(own), host))
        with self.together():
            for name, value in own.items():
                if value != theirs[name]:
                    raise ValueError(
                        f"{name}: rank {self.rank} on {host} has {value}, but rank 0 on {there} has {theirs[name]}; "
                        "all ranks must be started alike, and read one dataset on storage that every node sees"
                    )

    def check_folder(self, out: Path) -> None:
        """Make `out` and its folder of checkpoints; ValueError on all ranks where that is impossible, or where it is
        not one folder for all of them.

        A run that loses a machine goes on wherever rank 0 is started next, so checkpoints on a local disk are lost.
        """
        with self.together():
            if self.first:
                layout.begin(out)
        if self.world == 1:
            return
        host = socket.gethostname()
        mark = out / ".seen-by-all-ranks"
        text, there = self.tell((f"{host} {os.getpid()} {time.time_ns()}", host))
        with self.together():
            if self.first:
                mark.write_text(text)
        try:
            with self.together():
                until = time.monotonic() + FOLDER_SECONDS
                while _text(mark) != text:
                    if time.monotonic() > until:
                        raise ValueError(
                            f"out: {out} on {host} is not the folder that rank 0 writes to on {there}; give a folder "
                            "on storage that every node sees"
                        )
                    time.sleep(0.1)
        finally:
            if self.first:
                mark.unlink(missing_ok=True)


@contextmanager
def joined(device: str, timeout: float) -> Iterator[Ranks]:
    """The ranks this process was started among, for the length of the block.

    `device` as in a config: each rank takes the GPU of its LOCAL_RANK; of several backends gloo serves CPU tensors and
    NCCL those of a GPU. `timeout`: seconds after which a rank that does not answer ends the others. ValueError where
    the environment is incomplete, or a machine has fewer GPUs than ranks.
    """
    if dist.is_available() and dist.is_initialized():  # Ray Train has opened the group and chosen the GPU
        chosen = device_of(device)
        if chosen.type == "cuda":
            chosen = torch.device("cuda", torch.cuda.current_device())
        yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
        return
    world = _number("WORLD_SIZE", 1)
    chosen = device_of(device)
    if world == 1:
        yield Ranks(0, 1, chosen)
        return
    rank, local = _number("RANK"), _number("LOCAL_RANK")
    if chosen.type == "cuda":
        count = torch.cuda.device_count()
        if local >= count:
            raise ValueError(
                f"device: rank {rank} is number {local} on {socket.gethostname()}, which has {count} "
                "GPUs; start one rank for each GPU, or set device=cpu"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    try:
        dist.init_process_group(
            backend_of(chosen), rank=rank, world_size=world, timeout=timedelta(seconds=timeout), init_method="env://"
        )
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"rank {rank} of {world} could not join the others at {os.environ.get('MASTER_ADDR')}:"
            f"{os.environ.get('MASTER_PORT')}: {' '.join(str(error).split())[:200]}"
        ) from error
    ranks = Ranks(rank, world, chosen)
    try:
        yield ranks
    except BaseException:
        if chosen.type == "cuda":
            atexit.register(_leave)
        raise
    # Only a run that ended well says goodbye; one that failed leaves, and its closed connections tell the others.
    ranks.gather_objects(None)
    dist.destroy_process_group()


def _leave() -> None:
    """End without waiting for kernels of NCCL that wait for other ranks, as its own end would."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)


def backend_of(device: torch.device) -> str:
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise ValueError(
            f"{name}: found {text!r} in the environment, where WORLD_SIZE is {os.environ.get('WORLD_SIZE')!r}; start "
            "ranks with torchrun or `worldtrace cluster train`, or unset WORLD_SIZE"
        ) from None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
