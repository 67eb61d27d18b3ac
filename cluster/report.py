"""How is a job going, or how did it go: every figure of `worldtrace cluster report`, from the rows of the ledger.

`Tally` takes committed units one after another and keeps nothing of an asset but counts, so that a report on millions
of them needs a few megabytes; `Tally.report` is what it knows by then. Medians and 95th percentiles are therefore
those of a histogram, true to 1 %.

Times are those that the workers wrote down. Hosts whose clocks differ by seconds shift the figures by as much.
"""

import heapq
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from cluster.ledger import Attempt

STAGES = ("fetch", "load", "render", "encode")  # of an asset; a unit has one more, "commit"
ON_CPU = ("load", "render", "encode", "commit")  # what keeps a core busy: to fetch is to wait
PAUSE = 60.0  # seconds; where no attempt was under way for longer, there was no job: left out of the rates
RECENT = 300.0  # seconds of the recent rate; more where fewer than UNITS_SEEN units were committed in them
LONGEST = 3600.0
UNITS_SEEN = 10
STEP = math.log(1.02)  # of the histogram: its bins are 2 % wide
SMALLEST = 1e-6


@dataclass(frozen=True)
class Part:
    """`done` of `total`; None where dataset.json does not say the total."""

    done: int
    total: int | None


@dataclass(frozen=True)
class Rate:
    """Views a second. `working` excludes pauses: stretches of more than PAUSE seconds without any attempt."""

    recent: float | None  # None where the job is finished, or when nothing was committed lately
    recent_seconds: float | None  # over how long
    overall: float | None
    working_seconds: float
    pauses: int
    pause_seconds: float
    since_last_unit: float | None  # None where the dataset is finished
    eta_seconds: float | None


@dataclass(frozen=True)
class Example:
    asset: str
    source: str
    host: str
    message: str


@dataclass(frozen=True)
class Reason:
    """Assets whose last attempt ended in this way, and the first few of them."""

    status: str
    reason: str
    assets: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Provenance:
    source: str
    licence: str
    assets: int
    done: int
    views: int


@dataclass(frozen=True)
class Stage:
    """Seconds of a stage: in all, their share of all stages, and of an asset (for "commit": of a unit)."""

    stage: str
    seconds: float
    share: float
    median: float
    p95: float


@dataclass(frozen=True)
class Slow:
    asset: str
    source: str
    seconds: float
    slowest_stage: str
    views: int


@dataclass(frozen=True)
class Memory:
    """Bytes. `asset` is the one that took the most."""

    peak: int
    median: float
    asset: str


@dataclass(frozen=True)
class Host:
    host: str
    nodes: int  # of Ray: a host that came back counts again
    attempts: int
    views: int
    seconds: float
    lost: int


@dataclass(frozen=True)
class Retries:
    """Attempts that were not the last ones at their assets: what was paid twice, and why."""

    attempts: int
    seconds: float
    reasons: dict[str, int]


@dataclass(frozen=True)
class Cost:
    """Busy seconds of cores and of GPUs, every attempt and rejected asset included; idle machines are not in it.

    GPU seconds are those of the render stage with a GPU backend: an upper bound where renderers share a GPU. Money is
    in the currency of the prices given.
    """

    core_seconds: float
    gpu_seconds: float
    core_seconds_per_view: float | None
    gpu_seconds_per_view: float | None
    money: float | None
    money_per_million_views: float | None


@dataclass(frozen=True)
class Prices:
    core_hour: float | None = None
    gpu_hour: float | None = None


NO_PRICES = Prices()


@dataclass(frozen=True)
class Report:
    """All of it; `dataclasses.asdict` of it is what `--json` prints."""

    dataset: str
    complete: bool
    backend: str
    units: Part
    assets: Part
    views: Part  # the total is what would come of it if no view were rejected
    done: int
    rejected: int
    failed: int
    views_rejected: dict[str, int]  # of assets that gave other views
    rate: Rate
    reasons: tuple[Reason, ...]
    provenance: tuple[Provenance, ...]
    stages: tuple[Stage, ...]
    slowest_assets: tuple[Slow, ...]
    memory: Memory | None
    hosts: tuple[Host, ...]
    retries: Retries
    cost: Cost


class Histogram:
    """Counts of positive values in bins 2 % wide; zeros are not counted."""

    def __init__(self) -> None:
        self.bins: Counter[int] = Counter()
        self.sum = 0.0

    def add(self, value: float) -> None:
        if value > 0:
            self.bins[round(math.log(max(value, SMALLEST)) / STEP)] += 1
            self.sum += value

    def quantile(self, q: float) -> float:
        """The value below which a share `q` of all lie, to 1 %; 0 where there is none."""
        wanted, seen = q * self.bins.total(), 0
        for bin in sorted(self.bins):
            seen += self.bins[bin]
            if seen >= wanted:
                return math.exp(bin * STEP)
        return 0.0


class Spans:
    """The stretches of time in which somebody worked; those less than PAUSE apart are one."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []  # sorted, more than PAUSE apart

    def add(self, start: float, end: float) -> None:
        first = bisect_left(self.spans, start - PAUSE, key=lambda span: span[1])
        last = bisect_right(self.spans, end + PAUSE, key=lambda span: span[0])
        joined = self.spans[first:last]
        if joined:
            start, end = min(start, joined[0][0]), max(end, joined[-1][1])
        self.spans[first:last] = [(start, end)]

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self.spans)

    @property
    def pauses(self) -> list[float]:
        return [after[0] - before[1] for before, after in pairwise(self.spans)]


@dataclass
class _HostTally:
    nodes: set[str] = field(default_factory=set)
    attempts: int = 0
    views: int = 0
    seconds: float = 0.0
    lost: int = 0


class Tally:
    """What is known of a dataset's units so far. `header` is its dataset.json; `examples` and `slowest` say how many
    assets of each reason, and how many slow ones, are kept by name.
    """

    def __init__(self, dataset: str, header: Mapping[str, Any], examples: int = 1, slowest: int = 5) -> None:
        self.dataset = dataset
        self.examples = examples
        self.slowest = slowest
        job = header.get("job") or {}
        settings = job.get("render") or {}
        self.backend = str(settings.get("backend", "cpu"))
        self.total_assets: int | None = job.get("assets")
        self.total_units, self.total_views = _totals(job, settings)
        self.units = 0
        self.views = 0
        self.status: Counter[str] = Counter()
        self.views_rejected: Counter[str] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.named: dict[tuple[str, str], list[Example]] = {}
        self.provenance: dict[tuple[str, str], list[int]] = {}
        self.stages = {stage: Histogram() for stage in (*STAGES, "commit")}
        self.slow: list[tuple[float, str, str, str, int]] = []  # a heap, the least slow first
        self.memory = Histogram()
        self.largest = (0, "")
        self.hosts: dict[str, _HostTally] = {}
        self.retried: Counter[str] = Counter()
        self.retried_seconds = 0.0
        self.spans = Spans()
        self.arrivals: list[tuple[float, int, int]] = []  # per unit of late: end of its last attempt, assets, views

    def add(self, attempts: Sequence[Attempt]) -> None:
        """One committed unit: all its attempts, in the order of the ledger."""
        self.units += 1
        self.stages["commit"].add(sum(attempt.seconds_commit for attempt in attempts))
        assets = views = 0
        newest = 0.0
        for attempt, last in _with_last(attempts):
            newest = max(newest, self._attempt(attempt, last))
            if last:
                assets += 1
                views += attempt.views
                self._asset(attempt)
        if newest:
            self.arrivals.append((newest, assets, views))
            if len(self.arrivals) % 1024 == 0:
                latest = max(self.arrivals)[0]
                self.arrivals = [arrival for arrival in self.arrivals if arrival[0] > latest - LONGEST]

    def _attempt(self, attempt: Attempt, last: bool) -> float:
        """Counts its time; returns when it ended, 0 where that is not known."""
        seconds = {stage: getattr(attempt, f"seconds_{stage}") for stage in STAGES}
        spent = sum(seconds.values())
        for stage, value in seconds.items():
            self.stages[stage].add(value)
        host = self.hosts.setdefault(attempt.host or "unknown", _HostTally())
        host.attempts += 1
        host.views += attempt.views
        host.seconds += spent
        if attempt.node:
            host.nodes.add(attempt.node)
        if not last:
            host.lost += 1
            self.retried[attempt.reason or "unknown"] += 1
            self.retried_seconds += spent
        if attempt.peak_memory > 0:
            self.memory.add(attempt.peak_memory)
            self.largest = max(self.largest, (attempt.peak_memory, attempt.asset))
        entry = (spent, attempt.asset, attempt.source, max(seconds, key=seconds.__getitem__), attempt.views)
        if len(self.slow) < self.slowest:
            heapq.heappush(self.slow, entry)
        elif self.slow and entry > self.slow[0]:
            heapq.heapreplace(self.slow, entry)
        if attempt.started <= 0:
            return 0.0
        self.spans.add(attempt.started, attempt.started + spent)
        return attempt.started + spent

    def _asset(self, attempt: Attempt) -> None:
        """The last attempt at an asset."""
        self.views += attempt.views
        self.status[attempt.status] += 1
        counts = self.provenance.setdefault((attempt.source, attempt.licence), [0, 0, 0])
        counts[0] += 1
        counts[1] += attempt.status == "done"
        counts[2] += attempt.views
        if attempt.status == "done":
            self.views_rejected.update(view.partition(":")[2] for view in attempt.views_rejected)
            return
        key = (attempt.status, attempt.reason or "unknown")
        self.reasons[key] += 1
        named = self.named.setdefault(key, [])
        if len(named) < self.examples:
            named.append(Example(attempt.asset, attempt.source, attempt.host, attempt.message or ""))

    def report(self, now: float, complete: bool, prices: Prices = NO_PRICES) -> Report:
        """What is known at the time `now` (unix seconds)."""
        return Report(
            dataset=self.dataset,
            complete=complete,
            backend=self.backend,
            units=Part(self.units, self.units if complete else self.total_units),
            assets=Part(self.status.total(), self.total_assets),
            views=Part(self.views, self.total_views),
            done=self.status["done"],
            rejected=self.status["rejected"],
            failed=self.status["failed"],
            views_rejected=dict(sorted(self.views_rejected.items())),
            rate=self._rate(now, complete),
            reasons=tuple(
                Reason(*key, count, tuple(self.named.get(key, ()))) for key, count in self.reasons.most_common()
            ),
            provenance=tuple(
                Provenance(*key, *counts)
                for key, counts in sorted(self.provenance.items(), key=lambda item: -item[1][0])
            ),
            stages=self._stages(),
            slowest_assets=tuple(
                Slow(asset, source, seconds, stage, views)
                for seconds, asset, source, stage, views in sorted(self.slow, reverse=True)
            ),
            memory=Memory(self.largest[0], self.memory.quantile(0.5), self.largest[1]) if self.largest[0] else None,
            hosts=tuple(
                Host(name, len(host.nodes), host.attempts, host.views, host.seconds, host.lost)
                for name, host in sorted(self.hosts.items(), key=lambda item: (-item[1].seconds, item[0]))
            ),
            retries=Retries(self.retried.total(), self.retried_seconds, dict(sorted(self.retried.items()))),
            cost=self._cost(prices),
        )

    def _rate(self, now: float, complete: bool) -> Rate:
        working, pauses = self.spans.seconds, self.spans.pauses
        overall = self.views / working if working else None
        newest = max((arrival[0] for arrival in self.arrivals), default=None)
        recent = span = eta = None
        if newest is not None and not complete:
            span = self._window(now)
            assets = sum(arrival[1] for arrival in self.arrivals if arrival[0] > now - span)
            views = sum(arrival[2] for arrival in self.arrivals if arrival[0] > now - span)
            recent = views / span if assets else None
            if assets and self.total_assets is not None:
                eta = max(0, self.total_assets - self.status.total()) * span / assets
        since = max(0.0, now - newest) if newest is not None and not complete else None
        return Rate(recent, span, overall, working, len(pauses), sum(pauses), since, eta)

    def _window(self, now: float) -> float:
        """Over how many seconds before `now` the recent rate is taken: RECENT, longer where units are rare, and never
        longer than this run: what was before its start is another one's.
        """
        ends = sorted((arrival[0] for arrival in self.arrivals), reverse=True)[:UNITS_SEEN]
        wanted = min(max(RECENT, now - ends[-1] + 1e-3), LONGEST)
        return max(min(wanted, now - self.spans.spans[-1][0]), 1e-3)

    def _stages(self) -> tuple[Stage, ...]:
        whole = sum(times.sum for times in self.stages.values()) or 1.0
        return tuple(
            Stage(name, times.sum, times.sum / whole, times.quantile(0.5), times.quantile(0.95))
            for name, times in self.stages.items()
        )

    def _cost(self, prices: Prices) -> Cost:
        on_gpu = self.backend in ("cuda", "nvdiffrast")
        cores = sum(self.stages[stage].sum for stage in ON_CPU)  # a GPU's renderer keeps a core busy as well
        gpus = self.stages["render"].sum if on_gpu else 0.0
        parts = [(cores, prices.core_hour), (gpus, prices.gpu_hour)]
        given = [seconds / 3600 * price for seconds, price in parts if price is not None]
        money = sum(given) if given else None
        views = self.views
        return Cost(
            core_seconds=cores,
            gpu_seconds=gpus,
            core_seconds_per_view=cores / views if views else None,
            gpu_seconds_per_view=gpus / views if views else None,
            money=money,
            money_per_million_views=money / views * 1e6 if views and money is not None else None,
        )


def _with_last(attempts: Sequence[Attempt]) -> Iterator[tuple[Attempt, bool]]:
    """Each attempt, and whether it was the last one at its asset. Those at one asset follow each other, from 1 on."""
    for attempt, following in zip(attempts, [*attempts[1:], None]):
        yield attempt, following is None or following.attempt == 1


def _totals(job: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Units and views of the whole job, as units.plan has them; None where dataset.json does not say."""
    assets, views, shard_views = job.get("assets"), settings.get("views"), job.get("shard_views")
    if not (isinstance(assets, int) and isinstance(views, int) and isinstance(shard_views, int)):
        return None, None
    images = views * (int(settings.get("frames", 1)) if settings.get("regime") == "dynamic" else 1)
    return -(-assets // max(1, shard_views // max(1, images))), assets * views
