"""What a process that reads samples is told when it begins: one thread, no signals, and to go when its trainer goes.

torch looks between two batches whether the worker has another parent. It misses a trainer that is killed while a sample
is read (a file system may hang for ever), one that went before the first look, and any where a server has forked the
worker, for then the server is the parent, which lives as long as the worker does.
"""

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

EVERY = 2.0  # seconds between two looks
PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Reader:
    """`worker_init_fn` of a DataLoader. `since`: when the trainer began, for its number may be given out again."""

    trainer: int
    since: str

    @classmethod
    def of_this_process(cls) -> "Reader":
        return cls(os.getpid(), since(os.getpid()) or "")

    def __call__(self, worker: int) -> None:
        torch.set_num_threads(1)  # workers share the cores with the step; one thread each is what they need
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # sent to the whole group: the trainer saves first, then ends its own
        threading.Thread(target=self._watch, name="trainer lives", daemon=True).start()

    def _watch(self) -> None:
        while since(self.trainer) == self.since:
            time.sleep(EVERY)
        os._exit(1)


def since(process: int) -> str | None:
    """When a process began, in ticks since the machine did ("": not told here); None if it has ended."""
    if not (PROCESSES / "self").exists():
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return None
        return ""
    try:
        stat = (PROCESSES / str(process) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if state in "ZX" else fields[18]
