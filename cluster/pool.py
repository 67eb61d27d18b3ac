"""A bounded pool of renderer actors: one asset at a time each, with a time limit, replaced when they die or raise."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from cluster.ledger import Outcome
from cluster.units import Task

STARTS = 3  # actors that may die one after another before any of them became ready


@dataclass(frozen=True)
class Finished:
    """The worker's own word: an outcome, and a reference to the encoded samples in the object store."""

    ticket: Any
    outcome: Outcome
    samples: ray.ObjectRef


@dataclass(frozen=True)
class Lost:
    """The worker is gone, or raised and must go. `blame` is False where its whole node went: that says nothing of the
    asset.
    """

    ticket: Any
    reason: str  # crashed | timeout | out_of_memory
    message: str
    host: str
    blame: bool


@dataclass
class _Worker:
    actor: ray.actor.ActorHandle
    node: str = ""
    host: str = ""
    ticket: Any = None
    samples: ray.ObjectRef | None = None
    since: float = 0.0


class Pool:
    """`size` actors made by `start`, with `ready()` -> (node id, host) and `render(task)` -> (Outcome, samples).

    Use: while `idle`, `submit`; wait on `refs` (with everything else the caller waits for) for at most `patience`
    seconds; `collect` what is ready and what is overdue.
    """

    def __init__(self, start: Callable[[], ray.actor.ActorHandle], size: int, timeout: float) -> None:
        self.start = start
        self.timeout = timeout
        self.starts_failed = 0
        self.starting: dict[ray.ObjectRef, _Worker] = {}
        self.idle: list[_Worker] = []
        self.busy: dict[ray.ObjectRef, _Worker] = {}
        self.size = size
        for _ in range(size):
            self._add()

    @property
    def refs(self) -> list[ray.ObjectRef]:
        return [*self.starting, *self.busy]

    @property
    def ready(self) -> int:
        return len(self.idle) + len(self.busy)

    @property
    def patience(self) -> float:
        """Seconds until the next asset is overdue; at most one, so that the progress bar lives."""
        now = time.monotonic()
        return min([1.0, *(max(0.0, worker.since + self.timeout - now) for worker in self.busy.values())])

    def submit(self, ticket: Any, task: Task) -> None:
        """`ticket` comes back with the event."""
        worker = self.idle.pop()
        worker.ticket, worker.since = ticket, time.monotonic()
        outcome: ray.ObjectRef
        outcome, worker.samples = worker.actor.render.options(num_returns=2).remote(task)
        self.busy[outcome] = worker

    def collect(self, ready: Sequence[ray.ObjectRef]) -> list[Finished | Lost]:
        """Events of the references that are ready, and of the assets whose time is up."""
        events: list[Finished | Lost] = []
        for ref in ready:
            if ref in self.starting:
                self._started(ref)
            elif ref in self.busy:
                events.append(self._finished(ref))
        now = time.monotonic()
        for ref in [ref for ref, worker in self.busy.items() if now - worker.since > self.timeout]:
            worker = self.busy.pop(ref)
            message = f"not done after {self.timeout:g} s (--asset-timeout)"
            events.append(Lost(worker.ticket, "timeout", message, worker.host, blame=True))
            self._replace(worker)
        return events

    def close(self) -> None:
        for worker in [*self.starting.values(), *self.idle, *self.busy.values()]:
            ray.kill(worker.actor)

    def _add(self) -> None:
        worker = _Worker(self.start())
        self.starting[worker.actor.ready.remote()] = worker

    def _replace(self, worker: _Worker) -> None:
        ray.kill(worker.actor)
        self._add()

    def _started(self, ref: ray.ObjectRef) -> None:
        worker = self.starting.pop(ref)
        try:
            worker.node, worker.host = ray.get(ref)
        except RayTaskError as error:  # what `ready` itself raised: a backend that cannot run, a missing package
            raise error.cause from None
        except RayError as error:
            self.starts_failed += 1
            if self.starts_failed >= STARTS:
                last = str(error).strip().splitlines()[-1]
                raise ValueError(
                    f"no renderer can start on the cluster ({last}): is worldtrace installed there?"
                ) from error
            self._replace(worker)
        else:
            self.starts_failed = 0
            self.idle.append(worker)

    def _finished(self, ref: ray.ObjectRef) -> Finished | Lost:
        worker = self.busy.pop(ref)
        try:
            outcome = ray.get(ref)
        except RayError as error:
            blame = not (isinstance(error, RayActorError) and (error.preempted or not _alive(worker.node)))
            reason = "out_of_memory" if _out_of_memory(error) else "crashed"
            lost = Lost(worker.ticket, reason, _brief(error, worker.host), worker.host, blame)
            self._replace(worker)
            return lost
        assert worker.samples is not None
        event = Finished(worker.ticket, outcome, worker.samples)
        worker.ticket = worker.samples = None
        self.idle.append(worker)
        return event


def _alive(node: str) -> bool:
    return any(entry["NodeID"] == node and entry["Alive"] for entry in ray.nodes())


def _brief(error: RayError, host: str) -> str:
    """Ray's errors run over a screen; the ledger keeps what tells a crash from a kill for want of memory."""
    if _out_of_memory(error):
        return f"Ray killed the renderer, for {host} ran out of memory: give fewer --workers, or less --memory to each"
    if isinstance(error, RayTaskError):
        return str(error).strip().splitlines()[-1]
    return f"the renderer's process on {host} died"


def _out_of_memory(error: RayError) -> bool:
    """Whether Ray's memory monitor killed the process. That is for the sake of the node: one asset alone is stopped by
    the limit that its renderer sets itself.
    """
    return isinstance(error, OutOfMemoryError) or "running low on memory" in str(error)
