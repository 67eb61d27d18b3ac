"""Files of an archive or of a folder, by one interface, whatever the archive lies about.

    tree = open_tree(path)                     # Archive (a zip) or Directory
    tree.names()                               # every file, sorted; sound names only
    tree.size("a/b.obj")                       # bytes, None where there is no such file
    tree.find("a", "b.obj")                    # the name of b.obj in the folder called a, wherever that lies
    tree.read("a/b.obj", limit)                # its bytes
    tree.place(["a/b.obj", "a/b.mtl"], into)   # on disk: where they lie, or extracted under `into`

A zip that cannot be read as a whole is the user's to replace: ValueError. A member is untrusted: what is wrong with it
is Rejected when it is asked for, and costs nobody else. Nothing is ever written but by `place`, and there only under
`into`.
"""

import os
import re
import stat
import sys
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO

from render import Rejected
from render.limits import Limits

MEMBERS = 2_000_000  # of an archive; its table takes about 0.6 KiB of memory each
CHUNK = 1 << 20
RATIO = 200  # bytes out for each byte in, of a member larger than BOMB: text compresses 5 to 20 times, zeros 1,030
BOMB = 16 << 20
LONGEST = 1000  # characters of a name
LIMIT = Limits().file_bytes
TOTAL = Limits().folder_bytes

_DRIVE = re.compile(r"^[A-Za-z]:")
_KNOWN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of the others Python decompresses a chunk without a bound


def open_tree(path: str | Path) -> "Tree":
    """The files below a folder, or in a zip. FileNotFoundError, or ValueError where it is neither."""
    path = Path(path)
    if path.is_dir():
        return Directory(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a folder or a .zip")
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError(f"{path} is no regular file: give a folder or a .zip")
    return _opened(str(path.absolute()), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=16)
def _opened(path: str, size: int, changed: int) -> "Archive":
    """Kept open within a process: the table of 3D-FUTURE alone has 10^5 rows, and every room asks for it."""
    return Archive(Path(path))


class Archive:
    """A zip. Only its table is read until a member is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
            raise ValueError(
                f"{path} cannot be read as a zip ({str(error)[:120]}): download it again, or give the extracted folder"
            ) from error
        if len(self._zip.filelist) > MEMBERS:
            raise ValueError(f"{path} has more than {MEMBERS} members: give the extracted folder")

    @cached_property
    def _table(self) -> dict[str, list[zipfile.ZipInfo]]:
        """What each name stands for; more than one entry where the archive contradicts itself."""
        table: dict[str, list[zipfile.ZipInfo]] = {}
        for info in self._zip.filelist:
            if not info.is_dir():
                table.setdefault(info.filename.replace("\\", "/"), []).append(info)
        return table

    def names(self) -> list[str]:
        return list(self._sorted)

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(name for name in self._table if not _astray(name))

    def within(self, folder: str) -> list[str]:
        """The names below a folder, sorted; all of them for ""."""
        start = f"{folder}/" if folder else ""
        first = bisect_left(self._sorted, start)
        return self._sorted[first : bisect_left(self._sorted, start + chr(sys.maxunicode))]

    def like(self, name: str) -> str | None:
        """The file `name`, or else the first whose name differs only in case."""
        return name if name in self._table and not _astray(name) else self._folded.get(name.casefold())

    @cached_property
    def _folded(self) -> dict[str, str]:
        return {name.casefold(): name for name in reversed(self._sorted)}

    def find(self, folder: str, file: str) -> str | None:
        """The name of `file` in the folder called `folder`: of several such folders the first."""
        return self._tails.get(f"{folder}/{file}")

    def folders(self, file: str) -> list[str]:
        """The folders that hold a `file`, by their own names, sorted."""
        return sorted({tail.rpartition("/")[0] for tail in self._tails if tail.rpartition("/")[2] == file} - {""})

    @cached_property
    def _tails(self) -> dict[str, str]:
        """ "folder/file" -> name, for those who know what a folder is called but not where the archive has it."""
        tails: dict[str, str] = {}
        for name in self._sorted:
            tails.setdefault("/".join(name.split("/")[-2:]), name)
        return tails

    def size(self, name: str) -> int | None:
        """As the table says; `read` finds out whether that is true."""
        entries = self._table.get(name)
        return entries[0].file_size if entries else None

    def read(self, name: str, limit: int = LIMIT) -> bytes:
        """Raises Rejected: missing_file, path_outside_folder, corrupt, encrypted, unsupported_format, file_too_large,
        zip_bomb."""
        return b"".join(self._chunks(name, limit))

    def place(self, names: Iterable[str], into: Path, limit: int = LIMIT) -> list[Path]:
        """Extracts `names` under the folder `into`, which is private; raises as `read`. Folders are kept."""
        placed, total = [], 0
        for name in names:
            target = into / name
            _check_name(name)
            with _new_file(target) as file:
                for chunk in self._chunks(name, limit):
                    total += len(chunk)
                    if total > TOTAL:
                        raise Rejected("file_too_large", f"the asset takes more than {TOTAL} bytes of {self.path.name}")
                    file.write(chunk)
            placed.append(target)
        return placed

    def _chunks(self, name: str, limit: int) -> Iterator[bytes]:
        info = self._sound(name, limit)
        count = 0
        try:
            with self._zip.open(info) as file:
                while chunk := file.read(CHUNK):
                    count += len(chunk)
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise Rejected("corrupt", f"{name} of {self.path.name} is damaged: {str(error)[:120]}") from error
        except (NotImplementedError, RuntimeError) as error:  # RuntimeError: a password is wanted after all
            raise Rejected("unsupported_format", f"{name} of {self.path.name}: {str(error)[:120]}") from error
        except OSError as error:
            raise Rejected("unreadable", f"{name} of {self.path.name} cannot be read: {str(error)[:120]}") from error
        if count != info.file_size:
            raise Rejected("corrupt", f"{name} has {count} bytes; the table of {self.path.name} says {info.file_size}")

    def _sound(self, name: str, limit: int) -> zipfile.ZipInfo:
        _check_name(name)
        entries = self._table.get(name)
        if not entries:
            raise Rejected("missing_file", f"{self.path.name} has no {name[:200]}")
        info = entries[0]
        if len(entries) > 1:
            raise Rejected("corrupt", f"{self.path.name} holds {name} {len(entries)} times")
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise Rejected("path_outside_folder", f"{name} of {self.path.name} is a link or a device and no file")
        if info.flag_bits & 0x1:
            raise Rejected("encrypted", f"{name} of {self.path.name} is encrypted: extract the archive yourself")
        if info.compress_type not in _KNOWN:
            raise Rejected(
                "unsupported_format", f"{name} of {self.path.name} is packed by method {info.compress_type}: repack it"
            )
        # Python reads no further than the size in the table, so what is announced bounds what is inflated.
        if info.file_size > limit:
            raise Rejected("file_too_large", f"{name} has {info.file_size} bytes; the limit is {limit}")
        if info.file_size > max(BOMB, RATIO * info.compress_size):
            raise Rejected("zip_bomb", f"{name} is {info.compress_size} bytes and becomes {info.file_size}")
        return info

    def __reduce__(self) -> tuple[type["Archive"], tuple[Path]]:
        return type(self), (self.path,)


class Directory:
    """A folder. Links that lead out of it are not followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._top = path.resolve()

    def names(self) -> list[str]:
        found = []
        for folder, subfolders, names in os.walk(self.path):
            subfolders.sort()
            here = Path(folder).relative_to(self.path)
            found += [(here / name).as_posix() for name in names]
        return sorted(found)

    def find(self, folder: str, file: str) -> str | None:
        """`folder/file`, or that in a folder here whose name begins with "3D-", as archives are extracted."""
        return next((name for top in self._tops if self._path(name := f"{top}{folder}/{file}") is not None), None)

    def folders(self, file: str) -> list[str]:
        """The folders that hold a `file`, by their own names, sorted."""
        found = set()
        for top in self._tops:
            for name in os.listdir(self.path / top):
                if self._path(f"{top}{name}/{file}") is not None:
                    found.add(name)
        return sorted(found)

    @cached_property
    def _tops(self) -> list[str]:
        inner = sorted(name for name in os.listdir(self.path) if name.startswith("3D-"))
        return ["", *(f"{name}/" for name in inner if (self.path / name).is_dir())]

    def size(self, name: str) -> int | None:
        path = self._path(name)
        return None if path is None else path.stat().st_size

    def read(self, name: str, limit: int = LIMIT) -> bytes:
        """Raises Rejected: missing_file, path_outside_folder, file_too_large, unreadable."""
        path = self._file(name, limit)
        try:
            with path.open("rb") as file:
                data = _bounded(file, limit)
        except OSError as error:
            raise Rejected("unreadable", f"{name} cannot be read: {error.strerror or error}") from error
        return data

    def place(self, names: Iterable[str], into: Path, limit: int = LIMIT) -> list[Path]:
        """Where `names` lie; nothing is copied."""
        return [self._file(name, limit) for name in names]

    def _file(self, name: str, limit: int) -> Path:
        _check_name(name)
        path = self._path(name)
        if path is None:
            outside = (self.path / name).exists() and not self._inside(self.path / name)
            if outside:
                raise Rejected("path_outside_folder", f"{name[:200]} is a link that leads out of {self.path.name}")
            raise Rejected("missing_file", f"{self.path.name} has no {name[:200]}")
        if path.stat().st_size > limit:
            raise Rejected("file_too_large", f"{name} has {path.stat().st_size} bytes; the limit is {limit}")
        return path

    def _path(self, name: str) -> Path | None:
        if _astray(name):
            return None
        path = self.path / name
        try:
            return path if stat.S_ISREG(path.stat().st_mode) and self._inside(path) else None
        except (OSError, ValueError):
            return None

    def _inside(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self._top)
        except (OSError, RuntimeError):  # a loop of links
            return False


Tree = Archive | Directory


def _new_file(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise Rejected("corrupt", f"{path.name} is a file and a folder at once, or twice the same file") from error


def _bounded(file: BinaryIO, limit: int) -> bytes:
    size = os.fstat(file.fileno()).st_size
    data = file.read(min(size, limit) + 1)
    if len(data) > min(size, limit):
        raise Rejected("unreadable", f"{file.name} grew while it was read")
    return data


def _check_name(name: str) -> None:
    if _astray(name):
        raise Rejected("path_outside_folder", f"{name[:200]!r} is no name within an archive or a folder")


def _astray(name: str) -> bool:
    """Whether `name` is anything but a relative path that goes down: "/a", "C:a", "a/../b", "a//b", "a\\0"."""
    if not name or "\0" in name or "\\" in name or _DRIVE.match(name) or len(name) > LONGEST:
        return True
    return any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in name.split("/"))
