"""The Ray job: assets in, one committed dataset out, whatever happens in between.

Renderers (`pool.Pool`) take one asset at a time in the order of the plan and leave its encoded samples in Ray's object
store; when all assets of a unit are through, a task writes its shard and record. The driver holds references and ledger
rows of the unfinished units only. What is committed is on disk, so a killed job is continued by running it again.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.commit import commit_unit
from cluster.ledger import Attempt, Ledger, Outcome
from cluster.pool import Finished, Lost, Pool
from cluster.progress import Live
from cluster.units import Task, Unit

ATTEMPTS = 2  # at an asset whose renderer crashes or hangs
NODE_LOSSES = 5  # renderers an asset may lose with their nodes before that counts against it
VISIBLE_AFTER = 90.0  # seconds; an NFS client may remember for 60 that a file of another node was not there
COMMITS = 3  # attempts at a unit whose samples are lost with a node before they are written

SAMPLES_LOST = "its samples went with their node before they were written"


@dataclass(eq=False)
class _Open:
    """A unit in the making: per task its attempts so far, and where its samples are."""

    unit: Unit
    attempts: list[list[Attempt]]
    samples: list[ray.ObjectRef | None]
    left: int
    commits: int = 0

    @classmethod
    def of(cls, unit: Unit) -> "_Open":
        count = len(unit.tasks)
        return cls(unit, [[] for _ in range(count)], [None] * count, count)


@dataclass(frozen=True)
class _Ticket:
    open: _Open
    position: int
    blamed: int = 0
    excused: int = 0

    @property
    def task(self) -> Task:
        return self.open.unit.tasks[self.position]


class Job:
    """Renders `units` into `folder` with the actors of `pool`, and tells `live` how it goes."""

    def __init__(self, folder: Path, units: Sequence[Unit], pool: Pool, live: Live) -> None:
        self.folder = folder.absolute()
        self.ledger = Ledger(self.folder)
        self.pool = pool
        self.live = live
        self.fresh = deque(units)
        self.queue: deque[_Ticket] = deque()
        self.committing: dict[ray.ObjectRef, _Open] = {}
        self.unseen: dict[_Open, float] = {}  # committed, but not visible here: the time by which they must be
        self.unfinished = 0
        # Committing is waiting for a disk; asking for a CPU, it would never run beside renderers that hold them all.
        self.commit = ray.remote(num_cpus=0)(commit_unit)

    def run(self) -> None:
        """Until every unit is committed. ValueError or OSError where that cannot be."""
        while self.fresh or self.unfinished:
            while self.pool.idle and (ticket := self._next()) is not None:
                self.pool.submit(ticket, ticket.task)
            waiting = [*self.pool.refs, *self.committing]
            patience = min(self.pool.patience, 0.2) if self.unseen else self.pool.patience
            ready: list[ray.ObjectRef] = []
            if waiting:
                ready, _ = ray.wait(waiting, num_returns=1, timeout=patience, fetch_local=False)
            else:
                time.sleep(patience)
            for event in self.pool.collect(ready):
                if isinstance(event, Finished):
                    self._finished(event)
                else:
                    self._lost(event)
            for ref in ready:
                if ref in self.committing:
                    self._committed(ref)
            self._look()
            self.live.tick(self.pool.ready)

    def _next(self) -> _Ticket | None:
        """Assets in the order of the plan, second attempts first. New units wait while too many are unfinished: what
        these hold in the object store is bounded, however slow the disk or one asset.
        """
        if not self.queue and self.fresh and self.unfinished < 2 * self.pool.size + 2:
            self.unfinished += 1
            opened = _Open.of(self.fresh.popleft())
            self.queue.extend(_Ticket(opened, position) for position in range(opened.left))
        return self.queue.popleft() if self.queue else None

    def _finished(self, event: Finished) -> None:
        opened, position = event.ticket.open, event.ticket.position
        if event.outcome.views:
            opened.samples[position] = event.samples
        self._settle(event.ticket, self._note(event.ticket, event.outcome))

    def _lost(self, event: Lost) -> None:
        ticket = event.ticket
        reason = event.reason if event.blame else "node_lost"
        attempt = self._note(ticket, Outcome("failed", reason, event.message, host=event.host))
        blamed = ticket.blamed + (event.blame or ticket.excused >= NODE_LOSSES)
        if blamed < ATTEMPTS:
            self.queue.appendleft(_Ticket(ticket.open, ticket.position, blamed, ticket.excused + (not event.blame)))
        else:
            self._settle(ticket, attempt)

    def _note(self, ticket: _Ticket, outcome: Outcome) -> Attempt:
        ref, attempts = ticket.task.ref, ticket.open.attempts[ticket.position]
        attempts.append(
            Attempt(
                unit=ticket.open.unit.name,
                asset=ref.uid,
                source=ref.source,
                licence=ref.licence,
                attempt=len(attempts) + 1,
                **{**asdict(outcome), "sha256": outcome.sha256 or ref.sha256},
            )
        )
        return attempts[-1]

    def _settle(self, ticket: _Ticket, attempt: Attempt) -> None:
        self.live.settle(attempt)
        opened = ticket.open
        opened.left -= 1
        if opened.left == 0:
            attempts = [attempt for of_task in opened.attempts for attempt in of_task]
            samples = [ref for ref in opened.samples if ref is not None]
            # in a list, so that Ray hands the task references and not all the samples at once
            self.committing[self.commit.remote(str(self.folder), opened.unit.name, attempts, samples)] = opened

    def _committed(self, ref: ray.ObjectRef) -> None:
        opened = self.committing.pop(ref)
        try:
            ray.get(ref)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, OSError | ValueError):  # a full disk, a folder that may not be written
                raise cause from None
            opened.commits += 1
            if not isinstance(cause, RayError) or opened.commits >= COMMITS:
                raise
            self._reopen(opened)
            return
        self.unseen[opened] = time.monotonic() + VISIBLE_AFTER

    def _look(self) -> None:
        """Units are finished once their records are seen here. ValueError where one does not appear."""
        for opened, deadline in list(self.unseen.items()):
            if self.ledger.visible(opened.unit.name):
                del self.unseen[opened]
                self.unfinished -= 1
            elif time.monotonic() > deadline:
                raise ValueError(f"{self.folder} is not the same folder on every node: give one that all nodes share")

    def _reopen(self, opened: _Open) -> None:
        """A node went down with samples that were not written yet: render these assets again."""
        for position, samples in enumerate(opened.samples):
            if samples is None:
                continue
            attempts = opened.attempts[position]
            self.live.take_back(attempts[-1])
            attempts[-1] = replace(attempts[-1], status="failed", reason="node_lost", message=SAMPLES_LOST, views=0)
            opened.samples[position] = None
            opened.left += 1
            self.queue.append(_Ticket(opened, position))
