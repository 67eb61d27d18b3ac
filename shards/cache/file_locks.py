"""Locks on files (flock), which the kernel frees when their process dies, however it dies.

A forked child shares the open files of its parent, and with them their locks: it closes them at once. So that it knows
all of them, no fork happens between opening a file and noting it.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_open: set[int] = set()  # a forked child must not hold them on
_noting = threading.RLock()  # whoever has it forks nothing; taken twice where a finaliser closes files meanwhile

os.register_at_fork(
    before=lambda: _noting.acquire(), after_in_parent=lambda: _noting.release(), after_in_child=lambda: _close_all()
)


def opened(path: Path, flags: int) -> int:
    """A file of this process alone, made where `flags` say so, and never through a link."""
    with _noting:
        handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o644)
        _open.add(handle)
    return handle


def closed(handle: int) -> None:
    """Close a file of `opened`, and let go of its lock."""
    with _noting:
        if handle in _open:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # a child that has just been forked has not closed its own yet
            _open.discard(handle)
            os.close(handle)


def _close_all() -> None:
    global _noting
    _noting = threading.RLock()
    while _open:
        with suppress(OSError):
            os.close(_open.pop())


def locked(handle: int) -> bool:
    """Whether nobody else has a lock on the file, which has ours now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether nobody else has a lock on the file; nobody gets one within the block."""
    try:
        handle = opened(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield locked(handle) and is_still(path, handle)
    finally:
        closed(handle)


def is_still(path: Path, handle: int) -> bool:
    """Whether the open file is the one of this name, and has not been removed or replaced since."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
