"""Signals that ask a run to stop: noted, so that it saves first."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TWICE = 3.0  # seconds within which a second signal is the first one, told by somebody else


@contextmanager
def noted(again: bool = False) -> Iterator[list[signal.Signals]]:
    """SIGTERM and SIGINT within the block are put into the list. A scheduler tells all processes, and torchrun its
    ranks as well: that is one signal told twice. One that comes later acts as it did before the block, or, with
    `again`, is noted too.
    """
    caught: list[signal.Signals] = []
    told = time.monotonic()
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _: Any) -> None:
        nonlocal told
        if caught and time.monotonic() - told <= TWICE:
            return
        if not caught or again:
            told = time.monotonic()
            caught.append(signal.Signals(number))
            return
        signal.signal(number, before[signal.Signals(number)])
        os.kill(os.getpid(), number)

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
