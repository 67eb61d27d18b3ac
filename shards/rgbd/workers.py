"""Units in processes that may hang or die without harm: what a hostile file can do to a C library stays in there.

A worker says which frame it is about to read. When it dies, or says nothing for `patience` seconds, that frame is
rejected and the unit begins again without it, in a new process. Bytes do not depend on how many workers there are.
"""

import multiprocessing
import resource
import signal
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ..store import open_store
from .base import Reason, Unreadable
from .convert import Done, convert
from .plan import Settings, Unit

PATIENCE = 120.0  # seconds for one frame
MEMORY = 6 << 30  # bytes that a worker may allocate
ATTEMPTS = 8  # frames of a unit that end their process, after which the whole unit is given up


@dataclass(frozen=True)
class Task:
    """All that a worker must know; plain values, since it starts with an empty memory."""

    out: str
    folder: Path
    settings: Settings
    memory: int = MEMORY


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    unit: Unit | None = None
    frame: int | None = None
    heard: float = field(default_factory=time.monotonic)
    closed: bool = False  # its end of the pipe: the process is dead, or dies

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def in_processes(
    task: Task, units: Sequence[Unit], workers: int, patience: float = PATIENCE
) -> Iterator[tuple[int, Done | None]]:
    """Convert `units`; yields (frames read since the last time, None), and (0, Done) for every unit, as they come.

    OSError where the store cannot be written: nothing else can go on then. All processes end with the iterator.
    """
    context = multiprocessing.get_context("spawn")
    waiting = deque(units)
    skip: dict[str, dict[int, Reason]] = defaultdict(dict)
    crew: list[_Worker] = []
    try:
        while waiting or any(worker.unit for worker in crew):
            while len(crew) < min(workers, len(waiting) + sum(worker.unit is not None for worker in crew)):
                crew.append(_started(context, task))
            for worker in crew:
                if worker.unit is None and waiting:
                    _hand(worker, waiting.popleft(), skip)
            for worker in _ready(crew, patience):
                for message, value in _heard(worker):
                    if message == "reading":
                        worker.frame = value
                        yield 1, None
                    elif message == "failed":
                        raise OSError(value)
                    else:
                        worker.unit = worker.frame = None
                        yield 0, value
                if worker.unit is not None and (reason := _lost(worker, patience)):
                    crew.remove(worker)
                    worker.stop()
                    waiting.appendleft(_without(worker.unit, worker.frame, reason, skip[worker.unit.name]))
    finally:
        for worker in crew:
            worker.stop()


def _started(context: Any, task: Task) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, task), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _hand(worker: _Worker, unit: Unit, skip: dict[str, dict[int, Reason]]) -> None:
    worker.unit, worker.frame, worker.heard = unit, None, time.monotonic()
    with suppress(OSError):  # it is dead already, and will be found so
        worker.pipe.send((unit, skip[unit.name]))


def _ready(crew: Sequence[_Worker], patience: float) -> list[_Worker]:
    """Those at work of which something is to be heard, or nothing was for too long."""
    busy = [worker for worker in crew if worker.unit is not None]
    deadline = min(worker.heard for worker in busy) + patience
    heard = wait([worker.pipe for worker in busy], max(0.0, deadline - time.monotonic()))
    return [worker for worker in busy if worker.pipe in heard or time.monotonic() - worker.heard >= patience]


def _heard(worker: _Worker) -> Iterator[tuple[str, Any]]:
    try:
        while worker.pipe.poll():
            message = worker.pipe.recv()
            worker.heard = time.monotonic()
            yield message
    except (EOFError, OSError):
        worker.closed = True


def _lost(worker: _Worker, patience: float) -> Reason | None:
    if worker.closed:
        return "crashed"
    return "timed_out" if time.monotonic() - worker.heard >= patience else None


def _without(unit: Unit, frame: int | None, reason: Reason, skip: dict[int, Reason]) -> Unit:
    """The unit as it is to be tried again: without that frame, or given up."""
    if frame is None or len(skip) >= ATTEMPTS:
        return replace(unit, broken=Unreadable(reason, "the process that read the scene ended or was stopped"))
    skip[frame] = reason
    return unit


def _serve(pipe: Connection, task: Task) -> None:
    """A worker: units come in, what becomes of them goes out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started us
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (task.memory, task.memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    store, corpus = open_store(task.out), task.settings.open(task.folder)
    with suppress(EOFError, BrokenPipeError):
        while True:
            unit, skip = pipe.recv()
            try:
                done = convert(store, corpus, unit, task.settings, skip, lambda index: pipe.send(("reading", index)))
                pipe.send(("done", done))
            except BrokenPipeError:
                raise
            except Exception as error:
                words = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
                pipe.send(("failed", words))
