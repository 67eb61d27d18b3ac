"""The copies of one dataset's shards in a cache: looked for, downloaded, read, dropped."""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..layout import SHARDS
from ..store import Store
from .cache import Cache, State, sized, tag_of
from .file_locks import closed, is_still, opened

PAUSE = 0.02  # seconds between looks at what another process does


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
        """Of a copy. ValueError where a manifest says what cannot be: a path, or a size that is none."""
        shard, size = self.names[place], int(self.sizes[place])
        if os.path.basename(shard) != shard or shard.startswith(".") or size <= 0:
            raise ValueError(f"{self.store.text}: its manifest names {shard!r} of {size} bytes, which is no shard")
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
            size = min(size, int(self.sizes[place]) - begin)
            return os.pread(handle, size, begin) if size > 0 else b""
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

    def fetched(self, place: int) -> int | State:
        """Download it: the copy, as `held` gives it, or why there is none."""
        path = self.path(place)
        self.cache.check(int(self.sizes[place]), self.names[place])
        part = path.parent / f".{path.name}.part"
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        handle = self.cache.begun(path, part, int(self.sizes[place]))
        if isinstance(handle, State):
            return handle
        try:
            self._download(place, handle)
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


def _written(handle: int, piece: bytes, at: int, folder: str | os.PathLike[str]) -> None:
    view = memoryview(piece)
    try:
        while view:
            count = os.pwrite(handle, view, at)
            view, at = view[count:], at + count
    except OSError as error:
        raise OSError(f"the cache {folder} cannot be written ({error.strerror}): see to its disk") from None
