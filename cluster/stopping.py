"""Leaving when told to: a spot node that is taken back and `ray job stop` say so by SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt within the block, as Ctrl-C does, so that both leave by the same way. Only in a
    main thread: others have no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {which: signal.signal(which, stop) for which in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
