"""A dataset in a folder: temporary names, sync and rename; claimed by flock."""

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .. import layout
from ..commit import committed
from . import naming

PIECE = 1 << 20  # bytes that are read at a time

REMEDIES = {
    errno.ENOSPC: "the disk is full: make room and run the same command again, which goes on from there",
    errno.EDQUOT: "your quota is used up: make room and run the same command again, which goes on from there",
    errno.EROFS: "the file system is read-only: give another --out",
    errno.EACCES: "it may not be written by you: change its permissions, or give another --out",
    errno.EPERM: "it may not be written by you: change its permissions, or give another --out",
    errno.ENOTDIR: "a part of this path is a file: give another --out",
    errno.EEXIST: "there is a file of this name: give another --out",
    errno.ENOLCK: "the file system has no locks (flock): mount it with them, or give another --out",
    errno.EOPNOTSUPP: "the file system has no locks (flock): mount it with them, or give another --out",
    errno.EIO: "the disk answers with errors: see the system's log",
}


class Held:
    """The kernel keeps a flock for as long as its process lives: it cannot be lost."""

    lost = False

    def check(self) -> None:
        pass


@dataclass(frozen=True)
class LocalStore:
    """`text` is the folder's path: an absolute one, since other processes write there too."""

    text: str
    concurrency: int = 1
    consistent: bool = False
    ranged: bool = True

    @property
    def folder(self) -> Path:
        return Path(self.text)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        with self._plainly("cannot be written"), committed(self.folder / name) as file:
            yield file

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        with (self.folder / name).open("rb") as file:
            yield file

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def part(self, name: str, begin: int, size: int, patience: float | None = None) -> bytes:
        handle = os.open(self.folder / name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            size = min(size, os.fstat(handle).st_size - begin)  # memory is taken for what there is, not for a promise
            return os.pread(handle, size, begin) if size > 0 else b""
        finally:
            os.close(handle)

    def pieces(self, name: str, patience: float | None = None) -> Iterator[bytes]:
        with self.reading(name) as file:
            while piece := file.read(PIECE):
                yield piece

    def exists(self, name: str) -> bool:
        """To list a folder of NFS is to ask its server; to look for a file that was absent a moment ago may not be."""
        path = self.folder / name
        for folder in {self.folder, path.parent}:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.listdir(folder)
        return path.exists()

    def sizes(self, folder: str) -> dict[str, int]:
        found: dict[str, int] = {}
        with suppress(FileNotFoundError), os.scandir(self.folder / folder) as entries:
            for entry in entries:
                if not entry.name.endswith(layout.TEMPORARY) and entry.is_file():
                    with suppress(FileNotFoundError):
                        found[f"{folder}/{entry.name}"] = entry.stat().st_size
        return found

    def top(self) -> list[str]:
        try:
            return sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []

    def delete(self, names: Iterable[str]) -> None:
        folders = set()
        with self._plainly("cannot be removed"):
            for name in names:
                path = self.folder / name
                path.unlink(missing_ok=True)
                folders.add(path.parent)
        for folder in folders - {self.folder}:
            with suppress(OSError):  # it is not empty, or has gone already
                folder.rmdir()

    def sweep(self) -> None:
        for folder in ("", layout.SHARDS, layout.UNITS):
            for path in (self.folder / folder).glob(f".*{layout.TEMPORARY}"):
                if naming.is_left_over(f"{folder}/{path.name}".lstrip("/")) and path.is_file():
                    path.unlink(missing_ok=True)

    def remove(self) -> None:
        with suppress(OSError):
            self.folder.rmdir()

    @contextmanager
    def claim(self, say: Callable[[str], None] = lambda line: None) -> Iterator[Held]:
        """The kernel drops the lock when its process dies, however it dies. Needs a file system with flock: local ones,
        NFS, CephFS, Lustre mounted with flock.
        """
        path = self.folder / layout.LOCK
        with self._plainly("cannot be written"):
            new = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self._locked(path)
        try:
            yield Held()
        finally:
            path.unlink(missing_ok=True)
            file.close()
            if new:
                self.remove()

    def _locked(self, path: Path) -> BinaryIO:
        while True:
            file = path.open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_still(path, file.fileno()):
                    file.close()  # its last holder removed the file between our open and our lock
                    continue
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
                file.flush()
                return file
            except BlockingIOError:
                file.seek(0)
                holder = file.read().decode(errors="replace").strip() or "another job"
                file.close()
                raise ValueError(
                    f"{self.folder} is being written by {holder}: wait for it, or give another --out"
                ) from None
            except BaseException:
                file.close()
                raise

    @contextmanager
    def _plainly(self, what: str) -> Iterator[None]:
        """OSError of the system -> one sentence with a remedy. What the block itself raises in words stays."""
        try:
            yield
        except OSError as error:
            if error.errno not in REMEDIES:
                raise
            place = error.filename or self.text
            raise OSError(f"{place} {what}: {REMEDIES[error.errno]}") from None


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
