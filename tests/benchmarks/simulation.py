"""A discrete-event simulation of a render job: the driver, the actors, the hub and the store (scaling.py asks it).

What is simulated is the steady state: the rules of cluster/job.py (late stages first, two tasks a next actor in the
buffers, 2 n + 2 open units), drivers that hear one message at a time, encode before load in the same workers, and one
pipe from the hub that all share. Foremen (cluster/foremen.py) are alike: one is simulated, with its share of the actors
and of the pipe, and the driver is charged for all.
"""

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any


@dataclass
class Stage:
    """`crew` names the pool; `seconds` draws a service time. `bytes` go through the hub's pipe beforehand."""

    crew: str
    seconds: Any
    bytes: float = 0.0


@dataclass
class Cluster:
    stages: list[Stage]
    sizes: dict[str, int]
    committers: int
    commit: Any  # draws the seconds of a commit
    message: float  # seconds of the driver for a message of a stage
    unit: float  # and for a unit, all in all
    per_unit: int = 1  # assets
    hub_rate: float = 1e18

    def share(self, foremen: int) -> "Cluster":
        """What one of so many foremen has."""
        sizes = {name: max(1, size // foremen) for name, size in self.sizes.items()}
        committers = max(1, self.committers // foremen)
        return replace(self, sizes=sizes, committers=committers, hub_rate=self.hub_rate / foremen)


@dataclass
class Found:
    """What a simulation came to: seconds in which `assets` were committed, and how busy everything was."""

    seconds: float
    assets: int
    busy: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.assets / self.seconds


def simulate(cluster: Cluster, assets: int, warm: float = 0.25) -> Found:
    """Run `assets` through; the rate is that between the first `warm` share of the units and the last."""
    tie = count()
    events: list[tuple[float, int, str, Any]] = []
    idle = {**cluster.sizes, "committers": cluster.committers}
    queues: list[deque[int]] = [deque() for _ in cluster.stages]
    units = -(-assets // cluster.per_unit)
    left = [min(cluster.per_unit, assets - unit * cluster.per_unit) for unit in range(units)]
    to_commit: deque[int] = deque()
    used: dict[str, float] = dict.fromkeys([*idle, "driver", "hub"], 0.0)
    fresh = done = 0
    open_units: set[int] = set()
    driver_free = pipe_free = 0.0
    ends: list[float] = []
    last = len(cluster.stages) - 1

    def assign(now: float) -> None:
        nonlocal fresh, pipe_free
        while idle["committers"] and to_commit:
            idle["committers"] -= 1
            seconds = cluster.commit()
            used["committers"] += seconds
            heapq.heappush(events, (now + seconds, next(tie), "commit", to_commit.popleft()))
        for index in range(last, -1, -1):
            stage = cluster.stages[index]
            while idle[stage.crew]:
                if index < last and len(queues[index + 1]) >= 2 * cluster.sizes[cluster.stages[index + 1].crew]:
                    break
                if index == 0 and not queues[0] and fresh < units:
                    if len(open_units) >= 2 * cluster.sizes[cluster.stages[0].crew] + 2:
                        break
                    open_units.add(fresh)
                    first = fresh * cluster.per_unit
                    queues[0].extend(range(first, first + left[fresh]))
                    fresh += 1
                if not queues[index]:
                    break
                asset = queues[index].popleft()
                idle[stage.crew] -= 1
                seconds = stage.seconds()
                if stage.bytes:
                    pipe_free = max(now, pipe_free) + stage.bytes / cluster.hub_rate
                    used["hub"] += stage.bytes / cluster.hub_rate
                    seconds = max(seconds, pipe_free - now)
                used[stage.crew] += seconds
                heapq.heappush(events, (now + seconds, next(tie), "stage", (index, asset)))

    assign(0.0)
    while done < units:
        when, _, kind, what = heapq.heappop(events)
        cost = cluster.message if kind == "stage" else cluster.unit
        driver_free = max(when, driver_free) + cost
        used["driver"] += cost
        if kind == "commit":
            idle["committers"] += 1
            open_units.discard(what)
            done += 1
            ends.append(driver_free)
        else:
            index, asset = what
            idle[cluster.stages[index].crew] += 1
            if index < last:
                queues[index + 1].append(asset)
            else:
                unit = asset // cluster.per_unit
                left[unit] -= 1
                if not left[unit]:
                    to_commit.append(unit)
        assign(driver_free)
    whole = ends[-1]
    servers = {**cluster.sizes, "committers": cluster.committers, "driver": 1, "hub": 1}
    busy = {name: seconds / whole / servers[name] for name, seconds in used.items() if seconds}
    if not warm:
        return Found(whole, assets, busy)
    start, end = int(warm * units), int((1 - warm) * units) - 1
    return Found(ends[end] - ends[start], (end - start) * cluster.per_unit, busy)


def drawn(values: Sequence[float], scale: float = 1.0, seed: int = 0) -> Any:
    """Draws from what was measured."""
    draw = random.Random(seed)
    return lambda: scale * draw.choice(values)
