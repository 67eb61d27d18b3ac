"""Shards that will be needed soon are fetched in the background, in their order."""

import os
import threading
import time
import weakref
from collections.abc import Sequence

from .cache import State
from .copies import Copies
from .expected import Expected
from .file_locks import closed

THREADS = 2  # downloads of one process and dataset at a time
PAUSES = {State.BUSY: 0.1, State.FULL: 0.5}  # seconds until a shard is looked at again
FAILED = 10.0

_alive: "weakref.WeakSet[Ahead]" = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: _forget_all())


class Ahead:
    """Of one dataset in one process. What goes wrong here is not told: who needs the shard meets it again."""

    def __init__(self, copies: Copies) -> None:
        self.copies, self.process = copies, os.getpid()
        self.number = {name: place for place, name in enumerate(copies.names)}
        self.changed = threading.Condition()
        self.told = Expected(copies.cache.place)
        self.wanted: list[int] = []
        self.there: set[int] = set()  # those of them that are here, or were: what was removed since had to go
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
            self.told.tell([self.copies.tag(place) for place in wanted])  # before they are looked for: they stay
            self.wanted, self.later = wanted, {}
            self.there = {place for place in wanted if self._is_there(place)}
            if not self.threads and len(self.there) < len(wanted):
                self.threads = [
                    threading.Thread(target=self._run, name="shards ahead", daemon=True) for _ in range(THREADS)
                ]
                for thread in self.threads:
                    thread.start()
            self.changed.notify_all()

    def close(self) -> None:
        """Expect nothing any more, for good, once what is under way has ended."""
        with self.changed:
            self.wanted, self.closed = [], True
            self.told.close()
            self.changed.notify_all()

    def forget(self) -> None:
        """In a forked child: the files are its parent's, and have been closed here (file_locks.py). A lock that
        a thread of the parent held would never be freed.
        """
        self.changed, self.told = threading.Condition(), Expected(self.copies.cache.place)
        self.wanted, self.threads = [], []

    def _run(self) -> None:
        while (place := self._next()) is not None:
            try:
                pause = self._fetched(place)
            except Exception:
                pause = FAILED
            with self.changed:
                self.taken.discard(place)
                if pause is None:
                    self.there.add(place)
                else:
                    self.later[place] = time.monotonic() + pause

    def _next(self) -> int | None:
        """The first that is wanted and not there, once there is one; it is `taken` from then on. None at the end."""
        with self.changed:
            while not self.closed:
                now, soonest = time.monotonic(), None
                for place in self.wanted:
                    if place in self.there or place in self.taken:
                        continue
                    if (when := self.later.get(place, 0.0)) <= now:
                        self.taken.add(place)
                        return place
                    soonest = when if soonest is None else min(soonest, when)
                self.changed.wait(None if soonest is None else soonest - now)
            return None

    def _is_there(self, place: int) -> bool:
        if (handle := self.copies.held(place)) is None:
            return False
        closed(handle)
        return True

    def _fetched(self, place: int) -> float | None:
        """None once it is there, or the seconds to wait."""
        if self._is_there(place):
            return None
        with self.copies.cache.slot() as free:
            got = self.copies.fetched(place, now=False) if free else State.BUSY
        if isinstance(got, State):
            return PAUSES[got]
        closed(got)
        return None


def _forget_all() -> None:
    for each in list(_alive):
        each.forget()
