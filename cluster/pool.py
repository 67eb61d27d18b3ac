"""A bounded pool of actors: one task at a time each, with a time limit, replaced when they die or hang or raise."""

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

STARTS = 3  # actors that may die one after another before any of them became ready


@dataclass(frozen=True)
class Finished:
    """The actor's own word, and a reference to what it made, which stays in the object store of `node`."""

    ticket: Any
    reply: Any
    made: ray.ObjectRef
    node: str


@dataclass(frozen=True)
class Lost:
    """The actor is gone, or raised and must go. `blame` is False where its whole node went, or what it was to work on:
    that says nothing of the asset. `gone` is True where what it was to work on is lost. `error` is what Ray said.
    """

    ticket: Any
    reason: str  # crashed | timeout | out_of_memory
    message: str
    host: str
    node: str
    seconds: float
    blame: bool
    gone: bool = False
    error: BaseException | None = None


@dataclass(eq=False)
class _Worker:
    actor: ray.actor.ActorHandle
    node: str = ""
    host: str = ""
    ticket: Any = None
    made: ray.ObjectRef | None = None
    since: float = 0.0
    limit: float = 0.0
    option: str = ""
    waits_for: Future[Any] | None = None


Event = tuple["Pool", _Worker, Future[Any]]


class Pool:
    """`size` actors made by `start`, whose `ready(*greeting)` returns (node id, host).

    Use: while `idle`, `submit`. Whatever happens puts an event on `events`, which several pools may share, from a
    thread of Ray: so an event costs the same among ten actors and ten thousand. The one that `heard` makes of it is for
    the caller. `overdue` every second or so ends those whose time is up.
    """

    def __init__(
        self,
        start: Callable[[], ray.actor.ActorHandle],
        size: int,
        events: "SimpleQueue[Event]",
        greeting: Sequence[Any] = (),
        what: str = "renderer",
    ) -> None:
        self.start = start
        self.events = events
        self.greeting = greeting
        self.what = what
        self.starting: list[_Worker] = []
        self.idle: list[_Worker] = []
        self.busy: set[_Worker] = set()
        self.size = 0
        self.starts_failed = 0
        self.ever_ready = False
        self.resize(size)

    @property
    def ready(self) -> int:
        return len(self.idle) + len(self.busy)

    def resize(self, size: int) -> None:
        """Start what lacks, or give up actors that still wait for a place, which then may never come."""
        self.size = size
        while len(self.starting) + self.ready < size:
            self._add()
        while self.starting and len(self.starting) + self.ready > size:
            ray.kill(self.starting.pop().actor)

    def submit(
        self, ticket: Any, method: str, arguments: Sequence[Any], limit: float, option: str = "", near: str = ""
    ) -> None:
        """`ticket` comes back with the event. An idle actor on the node `near` is preferred."""
        index = next((i for i, worker in enumerate(self.idle) if worker.node == near), -1) if near else -1
        worker = self.idle.pop(index)
        worker.ticket, worker.since, worker.limit, worker.option = ticket, time.monotonic(), limit, option
        reply: ray.ObjectRef
        reply, worker.made = getattr(worker.actor, method).options(num_returns=2).remote(*arguments)
        self.busy.add(worker)
        self._hear_of(worker, reply)

    def heard(self, worker: _Worker, future: "Future[Any]") -> Finished | Lost | None:
        """What an event means. None: nothing to the caller."""
        if worker.waits_for is not future:
            return None  # it was ended meanwhile
        worker.waits_for = None
        if worker in self.busy:
            return self._ended(worker, future)
        if worker in self.starting:
            self._started(worker, future)
        return None

    def overdue(self) -> list[Lost]:
        """Ends the actors whose time is up."""
        now = time.monotonic()
        lost = []
        for worker in [worker for worker in self.busy if now - worker.since > worker.limit]:
            message = f"not done after {worker.limit:g} s" + f" ({worker.option})" * bool(worker.option)
            lost.append(self._lost(worker, "timeout", message, blame=True))
            self._replace(worker)
        return lost

    def lose_nodes(self, alive: Collection[str]) -> None:
        """Replace idle actors whose nodes are not `alive` any more: the next task would be lost to them."""
        for worker in [worker for worker in self.idle if worker.node not in alive]:
            self.idle.remove(worker)
            self._replace(worker)

    def close(self) -> None:
        for worker in [*self.starting, *self.idle, *self.busy]:
            worker.waits_for = None
            ray.kill(worker.actor)
        self.starting, self.idle, self.busy = [], [], set()

    def _hear_of(self, worker: _Worker, ref: ray.ObjectRef) -> None:
        future = ref.future()
        worker.waits_for = future
        future.add_done_callback(lambda done: self.events.put((self, worker, done)))

    def _add(self) -> None:
        worker = _Worker(self.start())
        self.starting.append(worker)
        self._hear_of(worker, worker.actor.ready.remote(*self.greeting))

    def _replace(self, worker: _Worker) -> None:
        """In place of one that is in none of the lists any more."""
        worker.waits_for = None
        ray.kill(worker.actor)
        if len(self.starting) + self.ready < self.size:
            self._add()

    def _started(self, worker: _Worker, future: "Future[Any]") -> None:
        self.starting.remove(worker)
        error = future.exception()
        if error is None:
            worker.node, worker.host = future.result()
            self.starts_failed, self.ever_ready = 0, True
            self.idle.append(worker)
        elif isinstance(error, RayTaskError):
            # What `ready` itself raised: a backend that cannot run, a missing package. The actor lives, in no list any
            # more, and would keep its CPU for as long as the frames of this error are held.
            ray.kill(worker.actor)
            raise error.cause from None
        else:
            self.starts_failed += 1
            if self.starts_failed >= STARTS + (self.size if self.ever_ready else 0):  # nodes that go take many along
                last = str(error).strip().splitlines()[-1]
                raise ValueError(
                    f"no {self.what} can start on the cluster ({last}): is worldtrace installed there?"
                ) from error
            self._replace(worker)

    def _ended(self, worker: _Worker, future: "Future[Any]") -> Finished | Lost:
        error = future.exception()
        if error is None:
            assert worker.made is not None
            event = Finished(worker.ticket, future.result(), worker.made, worker.node)
            self._free(worker)
            return event
        if _input_lost(error):
            lost = self._lost(worker, "crashed", "what it was to work on went with its node", blame=False, gone=True)
            self._free(worker)
            return lost
        blame = not _with_its_node(error, worker.node)
        reason = "out_of_memory" if _out_of_memory(error) else "crashed"
        lost = self._lost(worker, reason, self._brief(error, worker.host), blame, error=error)
        self._replace(worker)
        return lost

    def _free(self, worker: _Worker) -> None:
        self.busy.discard(worker)
        worker.ticket = worker.made = None
        if self.ready < self.size:
            self.idle.append(worker)
        else:  # the pool has become smaller
            self._replace(worker)

    def _lost(self, worker: _Worker, reason: str, message: str, blame: bool, **more: Any) -> Lost:
        seconds = time.monotonic() - worker.since
        lost = Lost(worker.ticket, reason, message, worker.host, worker.node, seconds, blame, **more)
        self.busy.discard(worker)
        worker.ticket = worker.made = None
        return lost

    def _brief(self, error: BaseException, host: str) -> str:
        """Ray's errors run over a screen; the ledger keeps what tells a crash from a kill for want of memory."""
        if _out_of_memory(error):
            return (
                f"Ray killed the {self.what}, for {host} ran out of memory: "
                "give fewer --workers, or less --memory to each"
            )
        if isinstance(error, RayTaskError):
            return str(error).strip().splitlines()[-1]
        return f"the {self.what}'s process on {host} died"


def cause_of(error: BaseException | None) -> BaseException | None:
    """What an actor raised, if Ray hands on that; otherwise Ray's own error."""
    return error.cause if isinstance(error, RayTaskError) else error


def _input_lost(error: BaseException) -> bool:
    return isinstance(error, RayError) and isinstance(cause_of(error), ObjectLostError)


def _with_its_node(error: BaseException, node: str) -> bool:
    """Whether the actor went because its node did. A process that dies alone is reported by its node at once; where
    nobody says how it ended ("unavailable"), there is nobody left to say it.
    """
    if not isinstance(error, RayActorError):
        return False
    alone = any(entry["NodeID"] == node and entry["Alive"] for entry in ray.nodes())
    return error.preempted or isinstance(error, ActorUnavailableError) or not alone


def _out_of_memory(error: BaseException) -> bool:
    """Whether Ray's memory monitor killed the process. That is for the sake of the node: one asset alone is stopped by
    the limit that its renderer sets itself.
    """
    return isinstance(error, OutOfMemoryError) or "running low on memory" in str(error)
