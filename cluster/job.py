"""The Ray job: assets in, one committed dataset out, whatever happens in between.

Every asset is a ticket that goes through the stages of the job, from the actors of one pool to those of the next; what
a stage makes of it stays in Ray's object store. When all assets of a unit are through, a committer writes its shard and
record. The driver holds references and ledger rows of the unfinished units only. What is committed is in the store, so
a killed job is continued by running it again.
"""

import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from heapq import heappop, heappush
from queue import Empty, SimpleQueue

import ray
from ray.exceptions import RayError

from cluster.availability import Availability, Refusals
from cluster.ledger import Attempt, Ledger, Outcome
from cluster.pool import Event, Finished, Lost, Pool, cause_of
from cluster.progress import Counts
from cluster.stages import Stage
from cluster.units import Task, Unit
from shards.store import Store

ATTEMPTS = 2  # at an asset whose worker crashes or hangs
NODE_LOSSES = 5  # workers an asset may lose with their nodes before that counts against it
VISIBLE_AFTER = 90.0  # seconds; an NFS client may remember for 60 that a file of another node was not there
COMMITS = 3  # attempts at a unit whose samples are lost with a node before they are written
COMMIT_LIMIT = 1800.0  # seconds
LOOK_EVERY = 0.2  # seconds between looks at clocks: limits, pauses, records that are not seen yet, the progress bar
LAST_COMMITS = 2.0  # seconds that a job which is stopped waits for the commits under way; `ray job stop` gives three

SAMPLES_LOST = "its samples went with their node before they were written"


@dataclass(eq=False)
class _Open:
    """A unit in the making: per task its attempts so far, and where its samples are."""

    unit: Unit
    attempts: list[list[Attempt]]
    samples: list[ray.ObjectRef | None]
    bytes: list[int]  # of the samples of each
    nodes: list[str]  # where they are
    left: int
    commits: int = 0

    @classmethod
    def of(cls, unit: Unit) -> "_Open":
        count = len(unit.tasks)
        return cls(unit, [[] for _ in range(count)], [None] * count, [0] * count, [""] * count, count)

    @property
    def near(self) -> str:
        """The node that has most of it."""
        at: Counter[str] = Counter()
        for node, size in zip(self.nodes, self.bytes):
            at[node] += size
        return at.most_common(1)[0][0]


@dataclass(eq=False)
class _Ticket:
    """An asset on its way. `made` is what the last stage left of it, `size` bytes on `node`; `bundle` are its files,
    kept for a second attempt.
    """

    open: _Open
    position: int
    stage: int = 0
    outcome: Outcome = field(default_factory=Outcome)
    made: ray.ObjectRef | None = None
    size: int = 0
    node: str = ""
    bundle: ray.ObjectRef | None = None
    bundle_size: int = 0
    blamed: int = 0
    excused: int = 0
    refusals: Refusals = field(default_factory=Refusals)

    @property
    def task(self) -> Task:
        return self.open.unit.tasks[self.position]


class Job:
    """Renders `units` into `store`: each asset through `stages` by the actors of `pools`, each unit by `committers`.
    All pools put their events on `events`. `room` says how many bytes may lie in the object store, about; it is called
    often and may resize the pools. `committed` is told of every unit that is finished. `live` shows how it goes. Units
    may be appended to `fresh` at any time, from any thread; `run` again for those that come late.
    """

    def __init__(
        self,
        store: Store,
        units: Sequence[Unit],
        stages: Sequence[Stage],
        pools: Mapping[str, Pool],
        committers: Pool,
        events: "SimpleQueue[Event]",
        availability: Availability,
        live: Counts,
        room: Callable[[], int],
        committed: Callable[[str], None],
    ) -> None:
        self.ledger = Ledger(store)
        self.store, self.stages, self.pools, self.committers = store, stages, pools, committers
        self.events, self.availability, self.live, self.committed = events, availability, live, committed
        self.room = room
        self.fresh = deque(units)
        self.unfinished: dict[_Open, None] = {}  # in the order of the plan
        self.queues: list[deque[_Ticket]] = [deque() for _ in stages]
        self.paused: list[tuple[float, int, _Ticket]] = []  # a heap: (when to go on, a number against ties, ticket)
        self.pauses = 0
        self.to_commit: deque[_Open] = deque()
        self.unseen: dict[_Open, float] = {}  # committed, but not visible here: the time by which they must be
        self.held = 0  # bytes in the object store, as far as the actors have told
        self.typical = 0.0  # bytes that one stage leaves of an asset
        self.moving = 0  # tickets in the hands of an actor
        self.last = len(stages) - 1

    def run(self) -> None:
        """Until every unit is committed. ValueError or OSError where that cannot be."""
        try:
            looked = 0.0
            while self.fresh or self.unfinished:
                self._assign()
                for pool, worker, future in self._drain():
                    self._heard(pool, pool.heard(worker, future))
                if (now := time.monotonic()) - looked >= LOOK_EVERY:
                    looked = now
                    self._look(now)
        finally:
            self._let_commits_end()

    def _drain(self) -> list[Event]:
        """All events that are there; waits a moment for the first."""
        found: list[Event] = []
        try:
            found.append(self.events.get(timeout=LOOK_EVERY))
            while True:
                found.append(self.events.get_nowait())
        except Empty:
            return found

    def _look(self, now: float) -> None:
        """What time brings: overdue actors, ends of pauses, records that appear."""
        for pool in (*self.pools.values(), self.committers):
            for lost in pool.overdue():
                self._heard(pool, lost)
        while self.paused and self.paused[0][0] <= now:
            self.queues[0].append(heappop(self.paused)[2])
        for opened, deadline in list(self.unseen.items()):
            if self.ledger.visible(opened.unit.name):
                del self.unseen[opened]
                self._finish(opened)
            elif now > deadline:
                raise ValueError(
                    f"{self.store.text} is not the same folder on every node: give one that all nodes share"
                )
        self.live.tick(self.pools[self.stages[self.last].crew].ready)

    # From the queues to the actors.

    def _assign(self) -> None:
        """Give every idle actor something to do. Late stages first: what is nearly through frees memory soonest."""
        while self.committers.idle and self.to_commit:
            opened = self.to_commit.popleft()
            attempts = [attempt for of_task in opened.attempts for attempt in of_task]
            samples = [ref for ref in opened.samples if ref is not None]
            # in a list, so that Ray hands the actor references and not all the samples at once
            unit = (self.store, opened.unit.name, attempts, samples)
            self.committers.submit(opened, "commit", unit, COMMIT_LIMIT, near=opened.near)
        for index in range(self.last, -1, -1):
            stage = self.stages[index]
            pool = self.pools[stage.crew]
            while pool.idle and self._next_has_room(index) and (ticket := self._next(index)) is not None:
                arguments = (ticket.task,) if ticket.made is None else (ticket.task, ticket.made)
                self.moving += 1
                pool.submit(ticket, stage.name, arguments, stage.limit, stage.option, near=ticket.node)

    def _next_has_room(self, index: int) -> bool:
        """A stage takes new work only while the buffer before the next one is short."""
        if index == self.last:
            return True
        return len(self.queues[index + 1]) < 2 * self.pools[self.stages[index + 1].crew].size

    def _next(self, index: int) -> _Ticket | None:
        """Assets in the order of the plan, second attempts first. New ones wait while too much lies in the object
        store, but for those of the oldest unit: once that is committed there is room again.
        """
        queue = self.queues[index]
        if index > 0:
            return queue.popleft() if queue else None
        full = self.held + self.moving * self.typical >= self.room()
        while not queue and self.fresh and not (full and self.unfinished) and self._may_open():
            self._open(self.fresh.popleft())
        if not full:
            return queue.popleft() if queue else None
        oldest = next(iter(self.unfinished), None)
        for ticket in queue:
            if ticket.open is oldest:
                queue.remove(ticket)
                return ticket
        return None

    def _may_open(self) -> bool:
        """What the driver holds is bounded too, however slow the store or one asset."""
        return len(self.unfinished) < 2 * self.pools[self.stages[0].crew].size + 2

    def _open(self, unit: Unit) -> None:
        opened = _Open.of(unit)
        self.unfinished[opened] = None
        for ticket in [_Ticket(opened, position) for position in range(opened.left)]:
            if (other := ticket.task.duplicate_of) is not None:
                said = f"the same name and bytes as {other}"
                self._settle(ticket, Outcome("rejected", "duplicate", said, host=socket.gethostname()))
            else:
                self.queues[0].append(ticket)

    # What the actors say.

    def _heard(self, pool: Pool, event: Finished | Lost | None) -> None:
        if event is None:
            return
        if pool is self.committers:
            self._commit_ended(event)
        elif isinstance(event, Finished):
            self.moving -= 1
            self._advance(event)
        else:
            self.moving -= 1
            self._lost(event)

    def _advance(self, event: Finished) -> None:
        """One stage further."""
        ticket, reply = event.ticket, event.reply
        stage = self.stages[ticket.stage]
        source = ticket.task.source
        if reply.unavailable is not None:
            pause = self.availability.refused(source, ticket.refusals, reply.unavailable)
            if pause is not None:
                self.pauses += 1
                heappush(self.paused, (time.monotonic() + pause, self.pauses, ticket))
                return
            reply.outcome.status, reply.outcome.reason = "failed", "unavailable"
            reply.outcome.message = f"not to be had in {ticket.refusals.count} tries: {reply.unavailable}"
        elif stage.crew == "fetchers":
            self.availability.served(source)
        ticket.outcome = _together(ticket.outcome, reply.outcome)
        if reply.outcome.status != "done":
            self._settle(ticket, ticket.outcome)
            return
        self.typical += (reply.bytes - self.typical) / 16
        if ticket.stage == self.last:
            opened = ticket.open
            opened.samples[ticket.position] = event.made
            opened.bytes[ticket.position], opened.nodes[ticket.position] = reply.bytes, event.node
            self.held += reply.bytes
            self._settle(ticket, ticket.outcome)
            return
        self._drop(ticket)
        if stage.crew == "fetchers":
            ticket.bundle, ticket.bundle_size = event.made, reply.bytes
            self.held += reply.bytes
        else:
            ticket.size = reply.bytes
            self.held += reply.bytes
        ticket.made, ticket.node = event.made, event.node
        ticket.stage += 1
        self.queues[ticket.stage].append(ticket)

    def _drop(self, ticket: _Ticket) -> None:
        """Let go of what the stage before made; not of the asset's files."""
        self.held -= ticket.size
        ticket.made, ticket.size = None, 0

    def _lost(self, event: Lost) -> None:
        """Once more from the start, or from its files if they were fetched; or that was that."""
        ticket, stage = event.ticket, self.stages[event.ticket.stage]
        outcome = replace(
            ticket.outcome,
            status="failed",
            reason=event.reason if event.blame else "node_lost",
            message=event.message,
            host=event.host,
            node=event.node,
            started=ticket.outcome.started or time.time() - event.seconds,
        )
        setattr(outcome, stage.seconds, event.seconds)
        attempt = self._note(ticket, outcome)
        blamed = event.blame or ticket.excused >= NODE_LOSSES
        ticket.blamed += blamed
        ticket.excused += not event.blame
        if ticket.blamed >= ATTEMPTS:
            self._close(ticket, attempt)
            return
        self._drop(ticket)
        if event.gone and stage.name != "fetch" and self.stages[ticket.stage - 1].crew == "fetchers":
            self._drop_bundle(ticket)
        ticket.outcome = Outcome()
        ticket.made = ticket.bundle
        ticket.stage = 0 if ticket.bundle is None else 1
        self.queues[ticket.stage].appendleft(ticket)

    def _drop_bundle(self, ticket: _Ticket) -> None:
        self.held -= ticket.bundle_size
        ticket.bundle, ticket.bundle_size = None, 0

    # From attempts to committed units.

    def _note(self, ticket: _Ticket, outcome: Outcome) -> Attempt:
        ref, attempts = ticket.task.ref, ticket.open.attempts[ticket.position]
        attempts.append(
            Attempt(
                **{**asdict(outcome), "sha256": outcome.sha256 or ref.sha256},
                unit=ticket.open.unit.name,
                asset=ref.uid,
                source=ref.source,
                licence=ref.licence,
                attempt=len(attempts) + 1,
            )
        )
        return attempts[-1]

    def _settle(self, ticket: _Ticket, outcome: Outcome) -> None:
        self._close(ticket, self._note(ticket, outcome))

    def _close(self, ticket: _Ticket, attempt: Attempt) -> None:
        self._drop(ticket)
        self._drop_bundle(ticket)
        self.live.settle(attempt)
        ticket.open.left -= 1
        if ticket.open.left == 0:
            self.to_commit.append(ticket.open)

    def _commit_ended(self, event: Finished | Lost) -> None:
        opened = event.ticket
        if isinstance(event, Finished):
            if self.ledger.visible(opened.unit.name):
                self._finish(opened)
            else:
                self.unseen[opened] = time.monotonic() + VISIBLE_AFTER
            return
        cause = cause_of(event.error)
        if isinstance(cause, OSError | ValueError) and not isinstance(cause, RayError):
            raise cause from None  # a full disk, a folder that may not be written
        opened.commits += 1
        if opened.commits >= COMMITS or not (cause is None or isinstance(cause, RayError)):
            raise cause or ValueError(f"unit {opened.unit.name} could not be committed: {event.message}")
        if event.gone:
            self._reopen(opened)
        else:
            self.to_commit.append(opened)

    def _finish(self, opened: _Open) -> None:
        del self.unfinished[opened]
        self.held -= sum(opened.bytes)
        self.committed(opened.unit.name)

    def _reopen(self, opened: _Open) -> None:
        """A node went down with samples that were not written yet: render those again, or all where all nodes are up,
        since some node must have lost some.
        """
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        held = [position for position, samples in enumerate(opened.samples) if samples is not None]
        lost = [position for position in held if opened.nodes[position] not in alive] or held
        for position in lost:
            attempts = opened.attempts[position]
            self.live.take_back(attempts[-1])
            attempts[-1] = replace(attempts[-1], status="failed", reason="node_lost", message=SAMPLES_LOST, views=0)
            self.held -= opened.bytes[position]
            opened.samples[position], opened.bytes[position], opened.nodes[position] = None, 0, ""
            opened.left += 1
            self.queues[0].append(_Ticket(opened, position))

    def _let_commits_end(self) -> None:
        """However the job ends: what is half written is left a moment, so that less is to be done again."""
        deadline = time.monotonic() + LAST_COMMITS
        while self.committers.busy and time.monotonic() < deadline:
            for pool, worker, future in self._drain():
                if pool is self.committers:
                    pool.heard(worker, future)


def _together(before: Outcome, stage: Outcome) -> Outcome:
    """What is known of an attempt after one more stage."""
    return replace(
        stage,
        views_rejected=before.views_rejected + stage.views_rejected,
        flags=before.flags or stage.flags,
        sha256=before.sha256 or stage.sha256,
        seconds_fetch=before.seconds_fetch + stage.seconds_fetch,
        seconds_load=before.seconds_load + stage.seconds_load,
        seconds_render=before.seconds_render + stage.seconds_render,
        seconds_encode=before.seconds_encode + stage.seconds_encode,
        peak_memory=max(before.peak_memory, stage.peak_memory),
        started=before.started or stage.started,
    )
