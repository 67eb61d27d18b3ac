"""What the ranks tell each other at every step without waiting: numbers that travel while the next step is computed.

A message that is read at once costs its journey, and on a GPU it would wait for all that is still to be computed. So
the loop reads what the ranks said of the step before, which has long arrived; it is the same bits on every rank, and
what they decide by it (to stop, to end for too many damaged samples) they all decide after the same step.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from train.ranks.parallel import Ranks

FADE = 0.9  # of the running mean of how long a rank has waited for the last one


class Pulse:
    """Collective: all ranks make it, and beat equally often with equally many numbers.

    `timeout`: seconds that a beat may take to arrive; ConnectionError then, or where another rank is gone.
    """

    def __init__(self, ranks: Ranks, timeout: float = 600.0) -> None:
        self.ranks = ranks
        self._group: Any = None
        if ranks.world > 1:
            # of its own, on the CPU: no message of it can stand behind, or be taken for, one of a computation
            with ranks.answering():
                self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        self._under_way: tuple[list[Tensor], Any] | None = None
        self._last: Tensor | None = None
        self._began = self._own_wait = 0.0
        self._wait_W = torch.zeros(ranks.world, dtype=torch.float64)
        self._beats = 0

    def beat(self, numbers: Sequence[float]) -> None:
        """Send this rank's numbers on their way. The beat before must have arrived: it is read here if it was not."""
        self.read()
        own = torch.tensor([*numbers, self._own_wait], dtype=torch.float64)
        if self.ranks.world == 1:
            self._under_way = [own], None
            return
        parts = [torch.empty_like(own) for _ in range(self.ranks.world)]
        self._began = time.monotonic()
        with self.ranks.answering():
            work = dist.all_gather(parts, own, group=self._group, async_op=True)
        work.get_future().add_done_callback(self._arrived)
        self._under_way = parts, work

    def read(self) -> Tensor | None:
        """(world, N) float64 of the last beat, in the order of ranks, the same on all of them; None before the first.

        Waits only if that has not arrived.
        """
        if self._under_way is not None:
            parts, work = self._under_way
            if work is not None:
                with self.ranks.answering():
                    work.wait()
            *_, wait_W = torch.stack(parts).T
            self._beats += 1
            if self._beats > 2:  # the first tells of no beat, the second of the start
                self._wait_W = wait_W if self._beats == 3 else FADE * self._wait_W + (1 - FADE) * wait_W
            self._last, self._under_way = torch.stack(parts)[:, :-1], None
        return self._last

    def slowest(self) -> tuple[int, float]:
        """The rank that the others wait for, and the seconds a step that they do (a running mean, the same on all).

        The last to come waits least, and is late by as much as the others wait more, on average. On a GPU these are the
        processes that launch the work, who are as late as their devices once the queues of these are full.
        """
        last, others = int(self._wait_W.argmin()), max(self.ranks.world - 1, 1)
        return last, float((self._wait_W - self._wait_W[last]).sum() / others)

    def _arrived(self, _: Any) -> None:
        self._own_wait = time.monotonic() - self._began  # in a thread of gloo
