"""How many assets a second one driver can hand out and take back, by the number of workers.

    python -m tests.benchmarks.events [--seconds 5]

`Pool` with workers that do nothing for a moment. They share two processes that answer many calls at a time, so that
this machine can hold 512 of them; to the driver each is an actor with one task in its hands. What is told is the rate
over the whole, and the CPU time of the driver for each event, which bounds the rate where workers are elsewhere.
"""

import argparse
import asyncio
import itertools
import resource
import time
from queue import Empty, SimpleQueue
from typing import Any

from cluster import connection

connection.prepare()
import ray  # noqa: E402

from cluster.ledger import Outcome  # noqa: E402
from cluster.pool import Event, Finished, Pool  # noqa: E402
from cluster.renderer import Reply  # noqa: E402
from cluster.sources import parse  # noqa: E402
from cluster.units import Task  # noqa: E402


class Crowd:
    """Many workers in one process."""

    async def ready(self) -> tuple[str, str]:
        return "node", "host"

    async def render(self, task: Task) -> tuple[Reply, list[bytes]]:
        await asyncio.sleep(0.2)
        return Reply(Outcome(host="host", node="node", started=time.time()), 1000), [b"x" * 1000]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    (ref,) = parse("procedural:objects?count=1").assets()
    crowd: Any = ray.remote(num_cpus=0.01, max_concurrency=1000)(Crowd)
    with connection.connected("local", workers=2):
        for size in (2, 64, 512):
            homes = itertools.cycle([crowd.remote(), crowd.remote()])
            events: SimpleQueue[Event] = SimpleQueue()
            pool = Pool(lambda homes=homes: next(homes), size, events)
            while pool.ready < size:
                one, worker, future = events.get()
                one.heard(worker, future)
            count, begun, used = 0, time.monotonic(), cpu_seconds()
            while time.monotonic() - begun < options.seconds:
                while pool.idle:
                    pool.submit(None, "render", (Task(ref, 0),), 60.0)
                try:
                    while True:
                        one, worker, future = events.get(timeout=0.2) if not count else events.get_nowait()
                        count += isinstance(one.heard(worker, future), Finished)
                except Empty:
                    time.sleep(0.001)
            took, cpu = time.monotonic() - begun, cpu_seconds() - used
            pool.close()
            print(
                f"{size:4d} workers: {count / took:6.0f} events/s of at most {size / 0.2:.0f}; "
                f"driver {1e6 * cpu / count:.0f} us of CPU an event",
                flush=True,
            )


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
