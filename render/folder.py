"""Which files may an untrusted asset read: those inside the folder that holds it, and no other.

Every name that a glTF, an OBJ, an MTL or a PLY mentions comes through here.
"""

import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote

from render.limits import Limits
from render.mesh import Rejected

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+:")  # two letters or more: "C:" is a drive
_DRIVE = re.compile(r"^[A-Za-z]:")


class Folder:
    """Reads the companions of one asset, at most `limits.folder_bytes` in all."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root.resolve()
        self.limits = limits
        self._bytes_read = 0
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, name: str, *, uri: bool) -> Path | None:
        """The regular file that `name` means, or None if there is none. `uri` says that the name is %-encoded.

        Back-slashes separate folders as in files made on Windows; case is ignored where the exact name does not exist.
        Raises Rejected("path_outside_folder") for remote and absolute names and for all that lead out of the folder,
        through ".." or a symbolic link.
        """
        plain = relative_name(name, uri=uri)
        if plain is None:
            return None
        try:
            found = self._exact(plain) or self._any_case(plain)
            real = None if found is None else found.resolve(strict=True)
        except (OSError, RuntimeError):  # a name too long, a loop of links, a folder that we may not read
            return None
        if real is None:
            return None
        if not real.is_relative_to(self.root):
            raise _outside(name)
        return real if stat.S_ISREG(real.stat().st_mode) else None  # a FIFO or a device would block for ever

    def read(self, path: Path) -> bytes:
        """The bytes of a file that `find` returned, or of the asset itself."""
        size = path.stat().st_size
        if size > self.limits.file_bytes:
            raise Rejected("file_too_large", f"{path.name} has {size} bytes; the limit is {self.limits.file_bytes}")
        with path.open("rb") as file:
            data = file.read(size + 1)  # the limit itself would be allocated at once
        self._bytes_read += len(data)
        if len(data) > size:
            raise Rejected("unreadable", f"{path.name} grew while it was read")
        if self._bytes_read > self.limits.folder_bytes:
            raise Rejected("file_too_large", f"the asset reads more than {self.limits.folder_bytes} bytes in all")
        return data

    def _exact(self, plain: str) -> Path | None:
        path = self.root / plain
        return path if path.exists() else None

    def _any_case(self, plain: str) -> Path | None:
        at = self.root
        for part in plain.split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                at = at.parent
                continue
            if not at.is_dir():
                return None
            if not at.resolve().is_relative_to(self.root):
                return at  # `find` refuses it; we do not list folders outside
            if (at / part).exists():
                at = at / part
                continue
            same = self._names(at).get(part.casefold())
            if same is None:
                return None
            at = at / same
        return at

    def _names(self, folder: Path) -> dict[str, str]:
        """What lies in `folder`, by its name without case; listed once, for an asset may ask for 10^5 absent files."""
        if folder not in self._listed:
            self._listed[folder] = {name.casefold(): name for name in sorted(os.listdir(folder), reverse=True)}
        return self._listed[folder]


def relative_name(name: str, *, uri: bool) -> str | None:
    """What `name` in an asset means relative to its folder, with slashes; None where it means nothing. It does not
    climb out of the folder, though it may hold "..". Raises as `Folder.find` does.
    """
    plain = unquote(name) if uri else name
    plain = plain.strip().replace("\\", "/")
    if _SCHEME.match(plain) or plain.startswith(("/", "~")):
        raise _outside(name)
    if _DRIVE.match(plain):
        # C:/Users/... is what an exporter left behind, not an attack: the file, if shipped at all, lies beside.
        plain = plain[2:].rsplit("/", 1)[-1]
    if not plain or "\0" in plain:
        return None
    if _climbs(plain):
        raise _outside(name)
    return plain


def _climbs(plain: str) -> bool:
    depth = 0
    for part in plain.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


def _outside(name: str) -> Rejected:
    shown = name if len(name) <= 120 else name[:117] + "..."
    return Rejected("path_outside_folder", f"the asset refers to {shown!r}; it may read only files in its own folder")
