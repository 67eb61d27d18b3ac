"""Several processes that hand out the work of one job, where one alone would be too slow for so many actors.

To hand out an asset and take it back costs a Python process about a millisecond at every stage. With some hundred
workers that process is what all others wait for. Then the driver hires foremen: Ray actors that each run the job
(job.py) with actors of their own, over units that the driver gives them a few at a time, in the order of the plan. So
the driver is asked once a second by each foreman, whatever the number of assets; no foreman has work while another has
none; and the records of consecutive units still come together, to be folded into segments.

Claim, plan, ledger, progress and tables stay with the driver. Foremen commit units, which may be done twice. One that
dies takes its actors along (Ray ends the actors of an owner that is gone), and its units go to another.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.crew import WAITER_CPUS, Brief, working
from cluster.job import LAST_COMMITS, VISIBLE_AFTER
from cluster.ledger import Attempt, Ledger
from cluster.pool import cause_of
from cluster.progress import Live, Summary
from cluster.units import Unit

LOOK_EVERY = 1.0  # seconds between two reports of a foreman that has enough to do
AHEAD = 3.0  # seconds of work that wait with a foreman; each look forgets FADE of the pace that they are measured by
FADE = 0.1
FIRST_PACE = 20.0  # units a second, until it is known
FEWEST = 8  # units
LOSSES = 3  # foremen that may die one after another, beside each of the first, while no unit is committed


@dataclass
class Report:
    """What a foreman did since the last one. `fresh` units it has not begun; `ready` of its renderers work."""

    committed: list[str] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)  # of the assets of these units
    fresh: int = 0
    ready: int = 0


class _Stopped(Exception):
    """Ends the job of a foreman that is told to stop."""


class Foreman:
    """An actor that runs a job in a thread, and is asked by the driver how far it is."""

    def __init__(self, brief: Brief) -> None:
        self.brief = brief
        self.fresh: deque[Unit] = deque()
        self.given = threading.Event()
        self.news = threading.Event()
        self.lock = threading.Lock()  # of the report, which both threads write
        self.report = Report()
        self.ready = 0
        self.unfinished: dict[str, list[Attempt]] = {}
        self.stopping = False
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def work(self, units: list[Unit]) -> Report:
        """More of it. Returns after a second, or as soon as there is nothing more to do. Raises what ends the job."""
        self.fresh.extend(units)
        self.given.set()
        self.news.wait(LOOK_EVERY)
        self.news.clear()  # not before it is waited for: what came since the last report is news too
        if self.error is not None:
            raise self.error
        with self.lock:
            report, self.report = self.report, Report()
        report.fresh, report.ready = len(self.fresh), self.ready
        return report

    def stop(self) -> None:
        """Returns when all that it began is ended; commits under way are left a moment."""
        self.stopping = True
        self.given.set()
        self.thread.join()

    def _run(self) -> None:
        try:
            with working(self.brief, (), self, self._committed) as job:
                job.fresh = self.fresh  # a deque takes what another thread appends
                while not self.stopping:
                    if job.fresh:
                        job.run()
                        self.news.set()
                    self.given.wait()
                    self.given.clear()
        except _Stopped:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.news.set()

    # What the job tells, in its thread.

    def settle(self, attempt: Attempt) -> None:
        self.unfinished.setdefault(attempt.unit, []).append(attempt)

    def take_back(self, attempt: Attempt) -> None:
        self.unfinished[attempt.unit].remove(attempt)

    def tick(self, renderers: int) -> None:
        if self.stopping:
            raise _Stopped
        if renderers and not self.ready:
            self.news.set()
        self.ready = renderers

    def _committed(self, unit: str) -> None:
        with self.lock:
            self.report.committed.append(unit)
            for attempt in self.unfinished.pop(unit):
                self.report.summary.add(attempt)


@dataclass(eq=False)
class _Hired:
    """A foreman as the driver sees it: `units` it was given that are not committed."""

    actor: Any
    index: int
    units: dict[str, Unit] = field(default_factory=dict)
    asked: ray.ObjectRef | None = None
    since: float = 0.0
    waiting: int = 0  # units that it has not begun
    pace: float = FIRST_PACE  # units that it begins in a second, at its best
    ready: int = 0

    def wants(self, left: int, foremen: int) -> int:
        """How many more units: one until its renderers are ready, and no more than a fair share of what is left, so
        that all are done at the same time.
        """
        if not self.ready:
            return not self.units
        enough = max(FEWEST, int(AHEAD * self.pace))
        return max(0, min(enough - self.waiting, -(-left // (2 * foremen))))

    def give(self, units: Sequence[Unit]) -> None:
        self.units.update((unit.name, unit) for unit in units)
        self.waiting += len(units)
        self.since = time.monotonic()
        self.asked = self.actor.work.remote(list(units))

    def heard(self, report: Report) -> None:
        pace = (self.waiting - report.fresh) / max(time.monotonic() - self.since, LOOK_EVERY)
        self.pace = max(pace, (1 - FADE) * self.pace)
        self.waiting, self.ready, self.asked = report.fresh, report.ready, None


def dispatch(brief: Brief, missing: Sequence[Unit], live: Live, committed: Callable[[str], None]) -> None:
    """Commit the `missing` units by `brief.foremen` foremen. Arguments and errors are those of crew.render_units."""
    driver = _Driver(brief, missing, live, committed)
    try:
        driver.run()
    finally:
        driver.close()


class _Driver:
    def __init__(self, brief: Brief, missing: Sequence[Unit], live: Live, committed: Callable[[str], None]) -> None:
        self.brief, self.live, self.committed = brief, live, committed
        self.ledger = Ledger(brief.store)
        self.left = deque(missing)
        self.unseen: dict[str, float] = {}  # committed, but not visible here: the time by which they must be
        self.looked = 0.0
        self.losses = 0  # since a unit was committed
        self.hired: list[_Hired] = []
        for index in range(brief.foremen):
            self._hire(index)

    def run(self) -> None:
        while self.hired or self.unseen:
            for foreman in [each for each in self.hired if each.asked is None]:
                self._give(foreman)
            asked = {each.asked: each for each in self.hired}
            answered: list[ray.ObjectRef] = []
            if asked:
                answered, _ = ray.wait(list(asked), num_returns=1, timeout=LOOK_EVERY)
            elif self.unseen:
                time.sleep(LOOK_EVERY / 5)
            for ref in answered:
                self._hear(asked[ref], ref)
            if self.unseen and time.monotonic() - self.looked > (LOOK_EVERY if self.hired else 0):
                self._look_for_records()
            self.live.tick(sum(each.ready for each in self.hired))

    def close(self) -> None:
        """All that foremen have begun ends with them."""
        stopped = [each.actor.stop.remote() for each in self.hired]
        if stopped:
            ray.wait(stopped, num_returns=len(stopped), timeout=LAST_COMMITS + 0.5)
        for each in self.hired:
            ray.kill(each.actor)
        self.hired = []

    def _hire(self, index: int) -> None:
        # its core is shared with a worker's; it waits, answers and stops at the same time
        options: dict[str, Any] = {"num_cpus": WAITER_CPUS, "scheduling_strategy": "SPREAD", "max_concurrency": 3}
        actor: Any = ray.remote(max_restarts=0, **options)(Foreman)
        self.hired.append(_Hired(actor.remote(replace(self.brief, index=index)), index))

    def _give(self, foreman: _Hired) -> None:
        count = min(len(self.left), foreman.wants(len(self.left), len(self.hired)))
        units = [self.left.popleft() for _ in range(count)]
        if units or foreman.units:
            foreman.give(units)
        else:  # its actors make room for those of foremen that wait for a place
            self.hired.remove(foreman)
            ray.kill(foreman.actor)

    def _hear(self, foreman: _Hired, ref: ray.ObjectRef) -> None:
        try:
            report: Report = ray.get(ref)
        except RayTaskError as error:
            raise (cause_of(error) or error) from None
        except RayError as error:
            self._lost(foreman, error)
            return
        foreman.heard(report)
        self.live.settle_all(report.summary)
        for name in report.committed:
            del foreman.units[name]
            self._count(name)

    def _count(self, name: str) -> None:
        self.losses = 0
        if self.brief.store.consistent:
            self.committed(name)
        else:
            self.unseen[name] = time.monotonic() + VISIBLE_AFTER

    def _look_for_records(self) -> None:
        """As the foreman saw them from its node, before it said so, so must the driver before it folds them. One
        listing serves all.
        """
        there, now = self.ledger.units(), time.monotonic()
        self.looked = now
        for name, deadline in list(self.unseen.items()):
            if name in there:
                del self.unseen[name]
                self.committed(name)
            elif now > deadline:
                raise ValueError(
                    f"{self.brief.store.text} is not the same folder on every node: give one that all nodes share"
                )

    def _lost(self, foreman: _Hired, error: RayError) -> None:
        """What it committed and did not tell stands; the rest is for another one."""
        self.hired.remove(foreman)
        ray.kill(foreman.actor)
        done = self.ledger.done(foreman.units)
        for record in self.ledger.records(sorted(done), samples=False):
            self.live.settle_all(Summary.of(record.attempts))
        for name in sorted(done):
            self._count(name)
        again = [unit for name, unit in foreman.units.items() if name not in done]
        self.brief.store.delete([unit.shard for unit in again])  # its assets may end otherwise, and leave none
        self.left.extendleft(reversed(again))
        self.losses += 1
        if self.losses > LOSSES + self.brief.foremen:
            last = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"foremen die one after another, {self.losses} since the last unit was committed ({last}): is "
                "worldtrace installed on every node, with memory to spare?"
            ) from error
        if self.left:
            self._hire(foreman.index)
