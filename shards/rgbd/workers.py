"""Units in processes that may hang or die without harm: what a hostile file can do to a C library stays in there.

A worker says which frame it is about to read. When it dies, or says nothing for `patience` seconds, that frame is
rejected. A new process probes those behind it, which are read and not written, and once the last is through the unit
begins again without all that were rejected. So every frame that can be read is kept, however many cannot, and is read
twice at most. Bytes do not depend on how many workers there are.
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
from .base import Reason, Scene, Unreadable
from .convert import Done, convert, probe
from .plan import Settings, Unit, counted

PATIENCE = 120.0  # seconds for one frame
MEMORY = 6 << 30  # bytes that a worker may allocate
STARTING = 60.0  # seconds for a process to start, which imports libraries from whatever disk there is


@dataclass(frozen=True)
class Task:
    """All that a worker must know; plain values, since it starts with an empty memory."""

    out: str
    folder: Path
    settings: Settings
    memory: int = MEMORY


@dataclass(frozen=True)
class Listing:
    """The scene whose frames are to be counted."""

    scene: Scene
    broken: Unreadable | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        return self.scene.name


@dataclass
class _Trouble:
    """What is known of the frames of a unit: reasons of those to skip, from where on they are to be probed (None: it
    can be written), how many were begun.
    """

    skip: dict[int, Reason] = field(default_factory=dict)
    probe: int | None = None
    begun: int = 0


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Unit | Listing | None = None
    frame: int | None = None
    heard: float = field(default_factory=time.monotonic)
    started: bool = False
    closed: bool = False  # its end of the pipe: the process is dead, or dies

    def left(self, patience: float) -> float:
        """Seconds for which it may still say nothing."""
        return self.heard + (patience if self.started else max(patience, STARTING)) - time.monotonic()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Crew:
    """Processes that are started when there is work, and end with the block."""

    def __init__(self, task: Task, size: int, patience: float = PATIENCE) -> None:
        self.task, self.size, self.patience = task, size, patience
        self.context = multiprocessing.get_context("spawn")
        self.workers: list[_Worker] = []

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        while self.workers:
            self.workers.pop().stop()

    def convert(self, units: Sequence[Unit]) -> Iterator[tuple[int, Done | None]]:
        """Yields (1, None) for every frame that is about to be read and (0, Done) for every unit, as they come.

        OSError where the store cannot be written: nothing else can go on then.
        """
        yield from self._run(units)

    def count(self, scenes: Sequence[Scene]) -> list[int | Unreadable]:
        """How many frames are taken of each scene."""
        found = {name: count for _, each in self._run([Listing(scene) for scene in scenes]) for name, count in [each]}
        return [found[scene.name] for scene in scenes]

    def _run(self, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        waiting = deque(jobs)
        troubles: dict[str, _Trouble] = defaultdict(_Trouble)
        while waiting or any(worker.job for worker in self.workers):
            busy = sum(worker.job is not None for worker in self.workers)
            while len(self.workers) < min(self.size, len(waiting) + busy):
                self.workers.append(_started(self.context, self.task))
            for worker in self.workers:
                if worker.job is None and waiting:
                    job = waiting.popleft()
                    _hand(worker, job, troubles[job.name])
            for worker in _ready(self.workers, self.patience):
                for message, value in _heard(worker):
                    assert worker.job is not None
                    trouble = troubles[worker.job.name]
                    if message == "reading":
                        worker.frame = value
                        if value >= trouble.begun:
                            trouble.begun = value + 1
                            yield 1, None
                    elif message == "failed":
                        raise OSError(value)
                    elif message == "probed":
                        trouble.probe = None
                        waiting.appendleft(worker.job)
                        worker.job = worker.frame = None
                    else:
                        worker.job = worker.frame = None
                        yield 0, value
                if worker.job is not None and (reason := _lost(worker, self.patience)):
                    self.workers.remove(worker)
                    worker.stop()
                    waiting.appendleft(_without(worker.job, worker.frame, reason, troubles[worker.job.name]))


def _started(context: Any, task: Task) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, task), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _hand(worker: _Worker, job: Unit | Listing, trouble: _Trouble) -> None:
    worker.job, worker.frame, worker.heard = job, None, time.monotonic()
    with suppress(OSError):  # it is dead already, and will be found so
        worker.pipe.send((job, trouble.skip, trouble.probe))


def _ready(crew: Sequence[_Worker], patience: float) -> list[_Worker]:
    """Those at work of which something is to be heard, or nothing was for too long."""
    busy = [worker for worker in crew if worker.job is not None]
    heard = wait([worker.pipe for worker in busy], max(0.0, min(worker.left(patience) for worker in busy)))
    return [worker for worker in busy if worker.pipe in heard or worker.left(patience) <= 0]


def _heard(worker: _Worker) -> Iterator[tuple[str, Any]]:
    try:
        while worker.pipe.poll():
            message = worker.pipe.recv()
            worker.heard = time.monotonic()
            if message[0] == "started":
                worker.started = True
            else:
                yield message
    except (EOFError, OSError):
        worker.closed = True


def _lost(worker: _Worker, patience: float) -> Reason | None:
    if worker.closed:
        return "crashed"
    return "timed_out" if worker.left(patience) <= 0 else None


def _without(job: Unit | Listing, frame: int | None, reason: Reason, trouble: _Trouble) -> Unit | Listing:
    """The job as it is to be tried again: without that frame; given up where its frames cannot even be listed."""
    if frame is None or isinstance(job, Listing):
        return replace(job, broken=Unreadable(reason, "the process that read the scene ended or was stopped"))
    trouble.skip[frame] = reason
    trouble.probe = frame + 1 if frame + 1 < job.count else None
    return job


def _serve(pipe: Connection, task: Task) -> None:
    """A worker: jobs come in, what becomes of them goes out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started us
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (task.memory, task.memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    store, corpus = open_store(task.out), task.settings.open(task.folder)

    def reading(index: int) -> None:
        pipe.send(("reading", index))

    with suppress(EOFError, BrokenPipeError):
        pipe.send(("started", None))
        while True:
            job, skip, begin = pipe.recv()
            try:
                if isinstance(job, Listing):
                    count = job.broken or counted(corpus, job.scene, task.settings.every)
                    pipe.send(("done", (job.name, count)))
                    continue
                if begin is not None:
                    probe(corpus, job, task.settings, skip, begin, reading)
                    pipe.send(("probed", None))
                    continue
                pipe.send(("done", convert(store, corpus, job, task.settings, skip, reading)))
            except BrokenPipeError:
                raise
            except Exception as error:
                words = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
                pipe.send(("failed", words))
