"""One writer of a dataset in an object store: a lease that its holder renews, judged by whether it changes.

The lease is a small object. Its holder rewrites it every BEAT seconds; who finds one watches it for PATIENCE seconds
of its own monotonic clock: if it changes the holder lives, if not it is taken over. No clock of another machine is
looked at. A holder that was stalled and wakes up after that finds another's lease in the place of its own, and stops.

The lease saves work and says clearly who writes. A holder may be stalled between its last look and its next write, and
then two write. Where their assets ended the same they write the same bytes. Where an asset failed for one of them
alone, the record of one may meet the shard of the other: such a unit does not stand (ledger.py), tables are refused
while there is one, and the next run makes it again. The tables are a function of records that are only removed once
the tables stand.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import layout

if TYPE_CHECKING:
    from .bucket import ObjectStore

BEAT = 10.0  # seconds between renewals
PATIENCE = 60.0  # seconds without a change after which the holder counts as dead: six renewals missed
SETTLE = 2.0  # seconds in which another taker would show itself
TRIES = 3
PARTING = 5.0  # seconds in which a renewal under way may end before the lease is left to itself


class Lease:
    """Held until `release`. `lost` is set by the thread that renews it."""

    def __init__(self, store: "ObjectStore", token: str) -> None:
        self.store, self.token = store, token
        self.beats = 0
        self.successor = ""
        self._stopped = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    def check(self) -> None:
        if not self.lost and (other := _holder(_content(self.store))) != self.token:
            self._lose(other)
        if self.lost:
            raise ValueError(
                f"{self.store.text} was taken over by {self.successor or 'another job'} while this one was stalled: "
                "that job goes on with it, and this one stops without a change to it"
            )

    def start(self) -> None:
        self._thread.start()

    def release(self) -> None:
        """Remove the lease, if it still is ours. Where the store does not answer, nobody waits for that: the next job
        finds a lease that does not change, and takes it over.
        """
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(PARTING)
            if self._thread.is_alive():
                return
        with suppress(OSError):
            if not self.lost and _holder(_content(self.store)) == self.token:
                self.store.delete([layout.LOCK])

    def _lose(self, other: str) -> None:
        self.successor = other.partition(" #")[0]
        self._lost.set()

    def _renew(self) -> None:
        while not self._stopped.wait(BEAT):
            # A store that cannot be reached says nothing of the lease; `check` will ask it again. Whatever else its
            # client raises must not end the renewal either: another job would take a living one for dead.
            with suppress(Exception):
                if (other := _holder(_content(self.store))) != self.token:
                    self._lose(other)
                    return
                self.beats += 1
                if self._stopped.is_set():
                    return
                _put(self.store, self.token, self.beats)


def taken(store: "ObjectStore", say: Callable[[str], None]) -> Lease:
    """The lease of `store`, which is ours now. ValueError naming the holder where one lives."""
    token = f"process {os.getpid()} on {socket.gethostname()} #{secrets.token_hex(8)}"
    for _ in range(TRIES):
        found = _content(store)
        if found is not None:
            _wait_for_a_change(store, found, say)
        elif not _created(store, token):
            continue
        if found is not None:
            _put(store, token, 0)
        # A store without conditional requests lets two write at once: the last one stays, and both look again.
        _sleep(SETTLE)
        if (holder := _holder(_content(store))) == token:
            lease = Lease(store, token)
            lease.start()
            return lease
        if holder:
            _refuse(store, holder)
    raise ValueError(f"{store.text} is claimed by other jobs at this moment: try again, or give another --out")


def _wait_for_a_change(store: "ObjectStore", found: bytes, say: Callable[[str], None]) -> None:
    """Until the lease has not changed for PATIENCE: then its holder is dead. ValueError once it does."""
    holder = _holder(found).partition(" #")[0]
    say(f"{store.text} was begun by {holder}: waiting up to {PATIENCE:g} s to see whether that job lives")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        _sleep(min(BEAT / 4, PATIENCE / 4))
        now = _content(store)
        if now is None:
            return
        if now != found:
            _refuse(store, _holder(now))


def _refuse(store: "ObjectStore", holder: str) -> None:
    name = holder.partition(" #")[0] or "another job"
    raise ValueError(f"{store.text} is being written by {name}: wait for it, or give another --out")


def _created(store: "ObjectStore", token: str) -> bool:
    """Whether the lease was not there and is ours now; where the store knows no such condition, it is written."""
    condition: dict[str, Any] = {"mode": "create"} if store.scheme in ("s3", "gs", "gcs", "memory") else {}
    try:
        _put(store, token, 0, **condition)
    except FileExistsError:
        # The store may have written it, and the answer was lost on its way: the second request then meets our own.
        return _holder(_content(store)) == token
    except OSError as error:
        if not condition or "NotImplemented" not in str(error):
            raise
        _put(store, token, 0)
    return True


def _put(store: "ObjectStore", token: str, beats: int, **condition: Any) -> None:
    store.write(layout.LOCK, json.dumps({"holder": token, "beats": beats}).encode(), **condition)


def _content(store: "ObjectStore") -> bytes | None:
    try:
        return store.read(layout.LOCK)
    except FileNotFoundError:
        return None


def _holder(content: bytes | None) -> str:
    """The token in a lease; "" where there is none, or a damaged one."""
    try:
        return str(json.loads(content or b"{}").get("holder", ""))
    except (ValueError, AttributeError):
        return ""


_sleep = time.sleep  # the tests hold clocks still
