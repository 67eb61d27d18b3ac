"""Work on many shards in processes of their own, with the results in the order of the tasks."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

WORTH = 32 << 20  # bytes of shards below which starting processes takes longer than the work

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Task], Result], tasks: Iterable[Task], workers: int | None, size: int
) -> Iterator[Result]:
    """work(task) for all tasks, in order; `workers` None: a process for each core. One works in this process.

    Tasks are drawn as they are needed, two ahead of each worker, so that neither they nor results pile up. `work` is a
    function at the top of a module. `size` are the bytes that all tasks read: for a few no process is started. OSError
    where a worker died.
    """
    workers = cores() if workers is None else workers
    if workers <= 1 or size < WORTH:
        yield from map(work, tasks)
        return
    waiting: deque[Future[Result]] = deque()
    # spawned, not forked: clients of object stores, and their threads, do not survive a fork
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_ignore_interrupts)
    try:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise OSError(
            "a worker process died, for want of memory or killed by hand: try again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ignore_interrupts() -> None:
    """Ctrl-C ends the command, which ends its workers; these need not all print a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
