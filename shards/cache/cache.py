"""Copies of shards on this machine, shared by all its processes: each is downloaded once, whoever wants it.

There is no server and no index. A copy is a file; what is known of it stands in its name; who uses it, or downloads
it, holds a lock on it (flock), which the kernel frees when the process dies, however it dies. So:

- A copy has its final name once it is whole. Half a download of a process that died is taken over or swept away.
- The limit counts what lies there and what is under way, whose room is reserved before its first byte is asked for.
- Only copies that nobody reads at this moment are removed, the one unused for the longest first, and only where their
  name proves that a cache has made it. Foreign files are left alone and not counted; a folder of other things is
  refused.
- Copies that somebody expects to need (expected.py) are removed last, and only for what is needed now. That waits for
  reads and downloads under way, which end, and for nothing else.

The folder must be on a disk of this machine, or on a file system with flock.
"""

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from ..amount import sized
from . import expected
from .file_locks import alone, closed, is_still, locked, opened

MARK = "worldtrace-cache.txt"
TEXT = "Copies of shards, made by worldtrace and removed by it when their room is needed. They may be deleted.\n"
ACCOUNTS = ".accounts.lock"
SLOT = ".slot-{}.lock"
SLOTS = 4  # downloads ahead of need that run at a time on a machine; what is needed now waits for none of them
_OWN = re.compile(rf"{re.escape(MARK)}|[.]accounts[.]lock|[.]slot-\d+[.]lock|[0-9a-f]{{32}}")
_DATASET = re.compile("[0-9a-f]{32}")
_COPY = re.compile(
    r"(?P<dot>[.]?)(?P<shard>[^/]+)@(?P<version>[0-9a-f]{16})-(?P<size>\d+)-(?P<tag>[0-9a-f]{16})(?P<part>[.]part)?"
)


class State(Enum):
    """Why there is no copy yet."""

    BUSY = "another process downloads it"
    FULL = "there is no room that could be freed"


class Entry(NamedTuple):
    """A copy, or a download under way."""

    path: Path
    bytes: int
    used: int  # when last, in ns
    tag: str
    is_part: bool


@dataclass(frozen=True)
class Cache:
    """A folder for at most `limit` bytes of copies, for any number of datasets and processes. A plain value.

    `patience`: seconds for which a store that cannot be reached is asked again, with growing pauses, before training
    is told. ValueError where the folder holds other things, or where its disk has no room for the limit.
    """

    folder: str | os.PathLike[str]
    limit: int
    patience: float = 900.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", os.path.abspath(self.folder))
        if self.limit <= 0:
            raise ValueError(f"a cache of {self.limit} bytes holds nothing: give a larger limit")
        try:
            self._begin()
            with self.accounts():
                self._sweep()
                there = self._there()
        except OSError as error:
            raise OSError(
                f"the cache {self.folder} cannot be used ({error.strerror}): give another folder as cache"
            ) from None
        free = self._free()
        if self.limit > there + free:
            raise ValueError(
                f"the cache {self.folder} may take {sized(self.limit)}, but its disk has {sized(free)} left beside "
                f"{sized(there)} of copies: give a smaller limit, or another folder"
            )

    @property
    def place(self) -> Path:
        return Path(self.folder)

    def check(self, needed: int, what: str = "what is read at a time") -> None:
        """ValueError where `needed` bytes, those of `what`, are more than the limit."""
        if needed > self.limit:
            raise ValueError(
                f"the cache {self.folder} may take {sized(self.limit)}, but {what} needs {sized(needed)}: raise its "
                "limit, or take smaller windows"
            )

    def bytes(self) -> int:
        """What copies and downloads under way take at this moment."""
        with self.accounts():
            return self._there()

    def has_room(self, size: int) -> bool:
        """Whether as much fits in, at this moment, without anything being removed."""
        return self.bytes() + size <= self.limit

    def _there(self) -> int:
        return sum(entry.bytes for entry in self._entries())

    def _begin(self) -> None:
        mark = self.place / MARK
        self.place.mkdir(parents=True, exist_ok=True)
        if not mark.exists():
            others = sorted(n for n in os.listdir(self.place) if not (_OWN.fullmatch(n) or expected.is_list(n)))
            if others:
                raise ValueError(
                    f"{self.folder} holds {others[0]!r} and is no cache: give an empty or a new folder as cache"
                )
            mark.write_text(TEXT)

    def _free(self) -> int:
        disk = os.statvfs(self.place)
        return disk.f_bavail * disk.f_frsize

    def _entries(self) -> Iterator[Entry]:
        """Files whose names prove that a cache has made them."""
        for folder in self._scanned(self.place):
            if not (_DATASET.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)):
                continue
            for file in self._scanned(Path(folder.path)):
                found = _COPY.fullmatch(file.name)
                if found is None or (found["dot"] == ".") != bool(found["part"]):
                    continue
                if found["tag"] != tag_of(folder.name, found["shard"], found["version"], int(found["size"])):
                    continue
                with suppress(FileNotFoundError):
                    facts = file.stat(follow_symlinks=False)
                    if file.is_file(follow_symlinks=False) and (found["part"] or facts.st_size == int(found["size"])):
                        yield Entry(
                            Path(file.path), facts.st_size, facts.st_mtime_ns, found["tag"], bool(found["part"])
                        )

    def _scanned(self, folder: Path) -> list[os.DirEntry[str]]:
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            return list(entries)
        return []

    @contextmanager
    def accounts(self) -> Iterator[None]:
        """One process at a time counts, removes, reserves and renames."""
        handle = opened(self.place / ACCOUNTS, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            closed(handle)

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """One of SLOTS turns to download ahead; False where all are taken."""
        for number in range(SLOTS):
            handle = opened(self.place / SLOT.format(number), os.O_RDWR | os.O_CREAT)
            try:
                if locked(handle):
                    yield True
                    return
            finally:
                closed(handle)
        yield False

    def _sweep(self) -> None:
        """Under `accounts`: remove downloads whose process has died."""
        for entry in list(self._entries()):
            if entry.is_part:
                with alone(entry.path) as dead:
                    if dead:
                        entry.path.unlink(missing_ok=True)

    def begun(self, path: Path, part: Path, size: int, now: bool) -> int | State:
        """The file of a download that will become `path`, open, locked, and of its size on the disk already. Copies
        that are unused for the longest are removed for it; where that is not enough, none is. `now`: it is needed now,
        and copies that are expected may be removed as well.
        """
        with self.accounts():
            if path.exists():
                return State.BUSY
            handle = opened(part, os.O_RDWR | os.O_CREAT)
            if not locked(handle) or not is_still(part, handle):
                closed(handle)
                return State.BUSY
            try:
                self._sweep()
                if self._reserved(handle, size, now):
                    return handle
                part.unlink()
                closed(handle)
                return State.FULL
            except BaseException:
                part.unlink(missing_ok=True)
                closed(handle)
                raise

    def _reserved(self, handle: int, size: int, now: bool) -> bool:
        """Under `accounts`."""
        os.ftruncate(handle, 0)
        if not self._freed(self._there() + size - self.limit, now):
            return False
        while True:
            try:
                os.posix_fallocate(handle, 0, size)
                return True
            except OSError as error:
                os.ftruncate(handle, 0)
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if not self._freed(1, now):  # others have filled the disk: what is left is all that there is
                    return False

    def _freed(self, wanted: int, now: bool) -> bool:
        """Under `accounts`: remove unused copies until `wanted` bytes are free; nothing where they are too few."""
        if wanted <= 0:
            return True
        ranks = expected.ranks(self.place)
        entries = [each for each in self._entries() if not each.is_part and (now or each.tag not in ranks)]
        entries.sort(key=lambda each: (each.tag in ranks, -ranks.get(each.tag, 0), each.used))
        handles: list[int] = []
        paths: list[Path] = []
        try:
            for entry in entries:
                with suppress(FileNotFoundError):
                    handle = opened(entry.path, os.O_RDONLY)
                    handles.append(handle)
                    if locked(handle):
                        paths.append(entry.path)
                        wanted -= entry.bytes
                if wanted <= 0:
                    for path in paths:
                        path.unlink(missing_ok=True)
                    return True
            return False
        finally:
            for handle in handles:
                closed(handle)


def tag_of(dataset: str, shard: str, version: str, size: int) -> str:
    """What proves that a cache has named a file."""
    text = f"worldtrace {dataset} {shard} {version} {size}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
