"""Shards that will be needed soon are fetched in the background, in their order, and kept from being removed."""

import os
import threading
import time
import weakref
from collections.abc import Sequence

from .cache import State
from .copies import Copies
from .file_locks import closed

THREADS = 2  # downloads of one process and dataset at a time
RETRY = 0.1  # seconds until a shard that another process downloads is looked at again

_alive: "weakref.WeakSet[Ahead]" = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: _forget_all())


class Ahead:
    """Of one dataset in one process. What goes wrong here is not told: who needs the shard meets it again."""

    def __init__(self, copies: Copies) -> None:
        self.copies, self.process = copies, os.getpid()
        self.number = {name: place for place, name in enumerate(copies.names)}
        self.changed = threading.Condition()
        self.wanted: list[int] = []
        self.pinned: dict[int, int] = {}  # place -> open file, which keeps its copy from being removed
        self.later: dict[int, float] = {}  # place -> when to look at it again
        self.taken: set[int] = set()
        self.threads: list[threading.Thread] = []
        self.closed = False
        _alive.add(self)

    def expect(self, names: Sequence[str]) -> None:
        """Replaces what was expected before. ValueError for a name that is no shard of the dataset."""
        if unknown := [name for name in names if name not in self.number]:
            raise ValueError(f"{self.copies.store.text} has no shard {unknown[0]!r} among those that are read")
        wanted, room = [], self.copies.cache.limit
        for place in dict.fromkeys(self.number[name] for name in names):
            room -= int(self.copies.sizes[place])
            if room < 0:
                break
            wanted.append(place)
        with self.changed:
            self.wanted, self.later = wanted, {}
            for place in self.pinned.keys() - set(wanted):
                closed(self.pinned.pop(place))
            for place in wanted:
                if place not in self.pinned and (handle := self.copies.held(place)) is not None:
                    self.pinned[place] = handle
            if not self.threads and len(self.pinned) < len(wanted):
                self.threads = [
                    threading.Thread(target=self._run, name="shards ahead", daemon=True) for _ in range(THREADS)
                ]
                for thread in self.threads:
                    thread.start()
            self.changed.notify_all()

    def give_up(self) -> None:
        """Let go of everything, until `expect` is called again: there is no room for what is needed now."""
        with self.changed:
            self.wanted = []
            while self.pinned:
                closed(self.pinned.popitem()[1])

    def close(self) -> None:
        """Let go of everything for good, once what is under way has ended."""
        self.give_up()
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def forget(self) -> None:
        """In a forked child: the files are its parent's, and have been closed here (file_locks.py). A lock that
        a thread of the parent held would never be freed.
        """
        self.changed = threading.Condition()
        self.pinned, self.wanted, self.threads = {}, [], []

    def _run(self) -> None:
        while (place := self._next()) is not None:
            try:
                handle = self._got(place)
            except Exception:
                handle = None
                pause = 10.0
            else:
                pause = RETRY
            with self.changed:
                self.taken.discard(place)
                if handle is not None and place in self.wanted and place not in self.pinned:
                    self.pinned[place] = handle
                    continue
                if handle is None:
                    self.later[place] = time.monotonic() + pause
            if handle is not None:
                closed(handle)

    def _next(self) -> int | None:
        """The first that is wanted and not there, once there is one; it is `taken` from then on. None at the end."""
        with self.changed:
            while not self.closed:
                now, soonest = time.monotonic(), None
                for place in self.wanted:
                    if place in self.pinned or place in self.taken:
                        continue
                    if (when := self.later.get(place, 0.0)) <= now:
                        self.taken.add(place)
                        return place
                    soonest = when if soonest is None else min(soonest, when)
                self.changed.wait(None if soonest is None else soonest - now)
            return None

    def _got(self, place: int) -> int | None:
        if (handle := self.copies.held(place)) is not None:
            return handle
        with self.copies.cache.slot() as free:
            got = self.copies.fetched(place) if free else State.BUSY
        return None if isinstance(got, State) else got


def _forget_all() -> None:
    for each in list(_alive):
        each.forget()
