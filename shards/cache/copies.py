"""The copies of one dataset's shards in a cache: looked for, downloaded, read, dropped."""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..amount import sized
from ..layout import SHARDS
from ..loaded import loaded
from ..store import Store
from ..store.naming import is_plain
from .cache import Cache, State, tag_of
from .file_locks import closed, is_still, opened

PAUSE = 0.02  # seconds between looks at what another process does
AHEAD = 20.0  # seconds of patience with a store for what is only fetched ahead: its room may be needed now
_SHA256 = re.compile("([0-9a-f]{64})?")


@dataclass(frozen=True)
class Copies:
    """The copies of one dataset's shards. `place` is the number of a shard in `names`; "" is an unknown sha256."""

    cache: Cache
    store: Store
    names: Sequence[str]
    sizes: np.ndarray
    sha256: Sequence[str]
    found: set[int] = field(default_factory=set, compare=False, repr=False)  # places known to be in the store

    @loaded
    def id(self) -> str:
        return hashlib.blake2b(self.store.text.encode(), digest_size=16).hexdigest()

    def path(self, place: int) -> Path:
        """Of a copy. ValueError where a manifest says what cannot be: a path, a size or a sha256 that is none."""
        shard, size, sha256 = self.names[place], int(self.sizes[place]), self.sha256[place]
        if not is_plain(shard) or size <= 0 or not _SHA256.fullmatch(sha256):
            raise ValueError(
                f"{self.store.text}: its manifest names {shard!r} of {size} bytes and sha256 {sha256!r}, which is no "
                "shard"
            )
        version = sha256[:16] or "0" * 16
        name = f"{shard}@{version}-{size}-{tag_of(self.id, shard, version, size)}"
        return self.cache.place / self.id / name

    def tag(self, place: int) -> str:
        """What the name of a copy ends with."""
        return self.path(place).name.rpartition("-")[2]

    def part(self, place: int, begin: int, size: int) -> bytes:
        """Bytes of a shard, which is downloaded if there is no copy. OSError where the store cannot be reached, or no
        room is found.
        """
        handle = self.held(place)
        if handle is None:
            handle = self._needed(place)
        try:
            size = min(size, int(self.sizes[place]) - begin)
            return os.pread(handle, size, begin) if size > 0 else b""
        finally:
            closed(handle)

    def _needed(self, place: int) -> int:
        deadline: float | None = None  # of waiting for room; a download under way is waited for until it ends
        while True:
            got = self.fetched(place, now=True)
            if not isinstance(got, State):
                return got
            if got is State.BUSY:
                deadline = None
            elif deadline is None:
                deadline = time.monotonic() + self.cache.patience
            elif time.monotonic() > deadline:
                raise OSError(
                    f"the cache {self.cache.folder} has no room for {self.names[place]} "
                    f"({sized(int(self.sizes[place]))}): all of its {sized(self.cache.limit)}, or all that its "
                    "disk has, are in use: raise its limit, or make room on the disk"
                )
            time.sleep(PAUSE)
            if (handle := self.held(place)) is not None:
                return handle

    def held(self, place: int) -> int | None:
        """The copy, open and locked against removal until it is `closed`; None where there is none."""
        path = self.path(place)
        try:
            handle = opened(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            if is_still(path, handle):
                with suppress(OSError):
                    os.utime(handle)
                return handle
        except BaseException:
            closed(handle)
            raise
        closed(handle)  # it was removed between the two calls
        return None

    def fetched(self, place: int, now: bool) -> int | State:
        """Download it: the copy, as `held` gives it, or why there is none. `now`: it is not fetched ahead of need."""
        path = self.path(place)
        self.cache.check(int(self.sizes[place]), self.names[place])
        if place not in self.found and not path.exists() and not self.cache.has_room(int(self.sizes[place])):
            self.store.size(f"{SHARDS}/{self.names[place]}")  # what is missing there must not cost copies that are here
            self.found.add(place)
        part = path.parent / f".{path.name}.part"
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        handle = self.cache.begun(path, part, int(self.sizes[place]), now)
        if isinstance(handle, State):
            return handle
        try:
            self._download(place, handle, self.cache.patience if now else min(self.cache.patience, AHEAD))
            with self.cache.accounts():  # or whoever counts at this moment might see it under neither name
                part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            closed(handle)
            raise
        fcntl.flock(handle, fcntl.LOCK_SH)
        if is_still(path, handle):
            return handle
        closed(handle)  # it was removed between the two calls
        return State.BUSY

    def drop(self, place: int) -> None:
        """Remove a damaged copy. Who reads it at this moment goes on reading it."""
        self.path(place).unlink(missing_ok=True)

    def _download(self, place: int, handle: int, patience: float) -> None:
        """Twice where the bytes are not those of the manifest. What is damaged in the store itself is taken as it is:
        the hashes of its samples tell which of them are sound.
        """
        name, size, expected = f"{SHARDS}/{self.names[place]}", int(self.sizes[place]), self.sha256[place]
        for _ in range(2):
            digest, have = hashlib.sha256(), 0
            for piece in self.store.pieces(name, patience):
                _written(handle, piece[: size - have], have, self.cache.folder)
                digest.update(piece)
                have += len(piece)
                if have > size:
                    break
            if have == size and expected in ("", digest.hexdigest()):
                return


def _written(handle: int, piece: bytes, at: int, folder: str | os.PathLike[str]) -> None:
    view = memoryview(piece)
    try:
        while view:
            count = os.pwrite(handle, view, at)
            view, at = view[count:], at + count
    except OSError as error:
        raise OSError(f"the cache {folder} cannot be written ({error.strerror}): see to its disk") from None
