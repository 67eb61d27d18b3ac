"""Copies of shards on this machine, shared by all its processes: each is downloaded once, whoever wants it.

There is no server and no index. A copy is a file; what is known of it stands in its name; who uses it, or downloads
it, holds a lock on it (flock), which the kernel frees when the process dies, however it dies. So:

- A copy has its final name once it is whole. Half a download of a process that died is taken over or swept away.
- The limit counts what lies there and what is under way, whose room is reserved before its first byte is asked for.
- Only copies that nobody uses are removed, the one unused for the longest first, and only where their name proves that
  a cache has made it. Foreign files are left alone and not counted; a folder of other things is refused.

The folder must be on a disk of this machine, or on a file system with flock.
"""

import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .layout import SHARDS
from .store import Store

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
PAUSE = 0.02  # seconds between looks at what another process does

_open: set[int] = set()  # files that hold locks; a forked child must not hold them on
os.register_at_fork(after_in_child=lambda: _close_all())


class State(Enum):
    """Why there is no copy yet."""

    BUSY = "another process downloads it"
    FULL = "there is no room that could be freed"


class Entry(NamedTuple):
    """A copy, or a download under way."""

    path: Path
    bytes: int
    used: int  # when last, in ns
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
                f"the cache {self.folder} may take {_size(self.limit)}, but its disk has {_size(free)} left beside "
                f"{_size(there)} of copies: give a smaller limit, or another folder"
            )

    @property
    def place(self) -> Path:
        return Path(self.folder)

    def check(self, needed: int, what: str = "what is read at a time") -> None:
        """ValueError where `needed` bytes, those of `what`, are more than the limit."""
        if needed > self.limit:
            raise ValueError(
                f"the cache {self.folder} may take {_size(self.limit)}, but {what} needs {_size(needed)}: raise its "
                "limit, or take smaller windows"
            )

    def bytes(self) -> int:
        """What copies and downloads under way take at this moment."""
        with self.accounts():
            return self._there()

    def _there(self) -> int:
        return sum(entry.bytes for entry in self._entries())

    def _begin(self) -> None:
        mark = self.place / MARK
        self.place.mkdir(parents=True, exist_ok=True)
        if not mark.exists():
            others = sorted(name for name in os.listdir(self.place) if not _OWN.fullmatch(name))
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
                        yield Entry(Path(file.path), facts.st_size, facts.st_mtime_ns, bool(found["part"]))

    def _scanned(self, folder: Path) -> list[os.DirEntry[str]]:
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            return list(entries)
        return []

    @contextmanager
    def accounts(self) -> Iterator[None]:
        """One process at a time counts, removes, reserves and renames."""
        handle = _opened(self.place / ACCOUNTS, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            closed(handle)

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """One of SLOTS turns to download ahead; False where all are taken."""
        for number in range(SLOTS):
            handle = _opened(self.place / SLOT.format(number), os.O_RDWR | os.O_CREAT)
            try:
                if _locked(handle):
                    yield True
                    return
            finally:
                closed(handle)
        yield False

    def _sweep(self) -> None:
        """Under `accounts`: remove downloads whose process has died."""
        for entry in list(self._entries()):
            if entry.is_part:
                with _alone(entry.path) as alone:
                    if alone:
                        entry.path.unlink(missing_ok=True)

    def reserve(self, handle: int, size: int) -> bool:
        """Give the empty file behind `handle` this size, on the disk too, after removing what is unused for the
        longest. False, and nothing is removed, where that is not enough.
        """
        with self.accounts():
            self._sweep()
            os.ftruncate(handle, 0)
            there = self._there()
            if not self._freed(there + size - self.limit):
                return False
            while True:
                try:
                    os.posix_fallocate(handle, 0, size)
                    return True
                except OSError as error:
                    os.ftruncate(handle, 0)
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    if not self._freed(1):  # others have filled the disk: what is left is all that there is
                        return False

    def _freed(self, wanted: int) -> bool:
        """Under `accounts`: remove unused copies until `wanted` bytes are free; nothing where they are too few."""
        if wanted <= 0:
            return True
        handles: list[int] = []
        paths: list[Path] = []
        try:
            for entry in sorted((each for each in self._entries() if not each.is_part), key=lambda each: each.used):
                with suppress(FileNotFoundError):
                    handle = _opened(entry.path, os.O_RDONLY)
                    handles.append(handle)
                    if _locked(handle):
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


@dataclass(frozen=True)
class Copies:
    """The copies of one dataset's shards. `place` is the number of a shard in `names`; "" is an unknown sha256."""

    cache: Cache
    store: Store
    names: Sequence[str]
    sizes: np.ndarray
    sha256: Sequence[str]

    @cached_property
    def id(self) -> str:
        return hashlib.blake2b(self.store.text.encode(), digest_size=16).hexdigest()

    def path(self, place: int) -> Path:
        shard, size = self.names[place], int(self.sizes[place])
        version = self.sha256[place][:16] or "0" * 16
        name = f"{shard}@{version}-{size}-{tag_of(self.id, shard, version, size)}"
        return self.cache.place / self.id / name

    def part(self, place: int, begin: int, size: int, give_up: Callable[[], None] | None = None) -> bytes:
        """Bytes of a shard, which is downloaded if there is no copy. `give_up` is called where there is no room: what
        this process holds for later is to be let go. OSError where the store cannot be reached, or no room is found.
        """
        handle = self.held(place)
        if handle is None:
            handle = self._needed(place, give_up)
        try:
            return os.pread(handle, size, begin)
        finally:
            closed(handle)

    def _needed(self, place: int, give_up: Callable[[], None] | None) -> int:
        deadline = time.monotonic() + self.cache.patience
        while True:
            got = self.fetched(place)
            if not isinstance(got, State):
                return got
            if got is State.FULL:
                if give_up is not None:
                    give_up()
                if time.monotonic() > deadline:
                    raise OSError(
                        f"the cache {self.cache.folder} has no room for {self.names[place]} "
                        f"({_size(int(self.sizes[place]))}): all of its {_size(self.cache.limit)}, or all that its "
                        "disk has, are in use: raise its limit, or make room on the disk"
                    )
            time.sleep(PAUSE)
            if (handle := self.held(place)) is not None:
                return handle

    def held(self, place: int) -> int | None:
        """The copy, open and locked against removal until it is `closed`; None where there is none."""
        path = self.path(place)
        try:
            handle = _opened(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            if _is_still(path, handle):
                with suppress(OSError):
                    os.utime(handle)
                return handle
        except BaseException:
            closed(handle)
            raise
        closed(handle)  # it was removed between the two calls
        return None

    def fetched(self, place: int) -> int | State:
        """Download it: the copy, as `held` gives it, or why there is none."""
        path = self.path(place)
        self.cache.check(int(self.sizes[place]), self.names[place])
        part = path.parent / f".{path.name}.part"
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        handle = _opened(part, os.O_RDWR | os.O_CREAT)
        ours = False
        try:
            if not _locked(handle) or not _is_still(part, handle):
                closed(handle)
                return State.BUSY
            ours = True
            if path.exists() or not self.cache.reserve(handle, int(self.sizes[place])):
                part.unlink()
                closed(handle)
                return State.BUSY if path.exists() else State.FULL
            self._download(place, handle)
            with self.cache.accounts():  # or whoever counts at this moment might see it under neither name
                part.rename(path)
            ours = False
            fcntl.flock(handle, fcntl.LOCK_SH)
            if _is_still(path, handle):
                return handle
            closed(handle)
            return State.BUSY
        except BaseException:
            if ours:
                part.unlink(missing_ok=True)
            closed(handle)
            raise

    def drop(self, place: int) -> None:
        """Remove a damaged copy. Who reads it at this moment goes on reading it."""
        self.path(place).unlink(missing_ok=True)

    def _download(self, place: int, handle: int) -> None:
        """Twice where the bytes are not those of the manifest. What is damaged in the store itself is taken as it is:
        the hashes of its samples tell which of them are sound.
        """
        name, size, expected = f"{SHARDS}/{self.names[place]}", int(self.sizes[place]), self.sha256[place]
        for _ in range(2):
            digest, have = hashlib.sha256(), 0
            for piece in self.store.pieces(name, self.cache.patience):
                _written(handle, piece[: size - have], have, self.cache.folder)
                digest.update(piece)
                have += len(piece)
                if have > size:
                    break
            if have == size and expected in ("", digest.hexdigest()):
                return


def tag_of(dataset: str, shard: str, version: str, size: int) -> str:
    """What proves that a cache has named a file."""
    text = f"worldtrace {dataset} {shard} {version} {size}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def closed(handle: int) -> None:
    """Close a file that `held` or `fetched` gave, and let go of its lock."""
    if handle in _open:
        _open.discard(handle)
        os.close(handle)


def _opened(path: Path, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o644)
    _open.add(handle)
    return handle


def _close_all() -> None:
    while _open:
        with suppress(OSError):
            os.close(_open.pop())


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether nobody else has a lock on the file; nobody gets one within the block."""
    try:
        handle = _opened(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _locked(handle) and _is_still(path, handle)
    finally:
        closed(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _written(handle: int, piece: bytes, at: int, folder: str | os.PathLike[str]) -> None:
    view = memoryview(piece)
    try:
        while view:
            count = os.pwrite(handle, view, at)
            view, at = view[count:], at + count
    except OSError as error:
        raise OSError(f"the cache {folder} cannot be written ({error.strerror}): see to its disk") from None


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
