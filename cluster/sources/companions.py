"""Which other files an asset needs: the buffers and images of a glTF, the libraries of an OBJ and their textures.

Only names are read here, by the rules of the loaders, and never more of a file than they stand in. A name that leads
out of the asset's folder is not asked for: the loader rejects the asset for it. Neither is anything for a file that is
damaged: the loader says how.
"""

import mmap
import posixpath
import re
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from render import Rejected
from render.folder import relative_name
from render.gltf_file import parse_json
from render.limits import DEFAULT
from render.lines import lines
from render.mtl import TEXTURES, texture_line

MOST = 1000  # names that one asset may ask for

_LIBRARY = re.compile(rb"(?:^|[\r\n])[ \t]*mtllib[ \t]+([^\r\n]{1,4096})")
_PLY_TEXTURE = re.compile(rb"[\r\n]comment[ \t]+texturefile[ \t]+([^\r\n]{1,4096})", re.IGNORECASE)
_LONGEST_LIBRARY = 64 << 20  # bytes


def bring_companions(main: Path, bring: Callable[[str], Path | None]) -> None:
    """Ask `bring` for every file that the asset `main` names, by its name relative to the folder of `main`.

    `bring` returns where it put the file, or None where there is none; what it raises passes through. Names are not
    asked for twice. Rejected("too_many_files") beyond `MOST` of them.
    """
    brought: dict[str, Path | None] = {}

    def once(name: str, uri: bool) -> Path | None:
        try:
            plain = relative_name(name, uri=uri)
        except Rejected:
            return None
        if plain is None:
            return None
        if plain not in brought:
            if len(brought) >= MOST:
                raise Rejected("too_many_files", f"{main.name} names more than {MOST} other files")
            brought[plain] = bring(plain)
        return brought[plain]

    suffix = main.suffix.lower()
    if suffix in (".gltf", ".glb"):
        for uri in _uris(main):
            once(uri, True)
    elif suffix == ".ply":
        with main.open("rb") as file:
            header = file.read(1 << 20).partition(b"end_header")[0]
        for name in _found(_PLY_TEXTURE, header):
            once(name, False)
    elif suffix == ".obj":
        for name in _libraries(main):
            # A line may name one file with spaces or several without: the loader asks in this order too.
            whole = once(name, False)
            for library in [whole] if whole is not None else [once(each, False) for each in name.split()]:
                for texture in _textures(library) if library is not None else ():
                    once(texture, False)


def beside(folder: Path, name: str, bring: Callable[[str, Path], object], absent: Collection[str]) -> Path | None:
    """The companion `name` of the asset in `folder`, where the asset looks for it. `bring(plain, to)` brings it unless
    it is there: by the plain form of its name, to the path `to`. None where no file can lie there, or where bringing
    was Rejected for one of the reasons `absent`.
    """
    found = _destination(folder, name)
    if found is None:
        return None
    plain, to = found
    if not to.exists():
        try:
            bring(plain, to)
        except Rejected as error:
            if error.reason in absent:
                return None
            raise
    return to


def _destination(folder: Path, name: str) -> tuple[str, Path] | None:
    """The plain form of a companion's `name`, and where the asset in `folder` looks for it; what is there already was
    brought, and stays: "x/../asset.obj" is the main file. None where no file can lie there.
    """
    plain = posixpath.normpath(name)
    to = folder / plain
    if plain in (".", "..") or plain.startswith(("../", "/")):
        return None
    try:
        if any(len(part.encode()) > 255 for part in to.parts):
            return None
        (folder / name).parent.mkdir(parents=True, exist_ok=True)  # "a/../b" is found only where there is an a
        return None if to.exists() and not to.is_file() else (plain, to)
    except (OSError, ValueError):  # no text, or a file where a folder should be
        return None


def _uris(path: Path) -> Iterator[str]:
    """Of buffers and images, without those that hold their data themselves."""
    with suppress(Rejected, struct.error):
        root = _json(path)
        for kind in ("buffers", "images"):
            entries = root.get(kind)
            for entry in entries if isinstance(entries, list) else ():
                uri = entry.get("uri") if isinstance(entry, dict) else None
                if isinstance(uri, str) and not uri.startswith("data:") and len(uri) <= 4096:
                    yield uri


def _json(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        head = file.read(20)
        if head[:4] != b"glTF":
            file.seek(0)
            return parse_json(file.read(DEFAULT.json_bytes + 1), DEFAULT)
        (length,) = struct.unpack_from("<I", head, 12)
        return parse_json(file.read(min(length, DEFAULT.json_bytes + 1)), DEFAULT)


def _libraries(path: Path) -> Iterator[str]:
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield from _found(_LIBRARY, data)


def _textures(library: Path) -> Iterator[str]:
    if library.stat().st_size > _LONGEST_LIBRARY:
        return
    with suppress(Rejected):
        for raw in lines(library.read_bytes().removeprefix(b"\xef\xbb\xbf"), DEFAULT):
            words = raw.decode("utf-8", "replace").split(None, 1)
            if len(words) == 2 and words[0].lower() in TEXTURES and len(words[1]) <= 4096:
                _, name = texture_line(words[1].strip())
                yield name


def _found(pattern: re.Pattern[bytes], data: Any) -> Iterator[str]:
    for match in pattern.finditer(data):
        yield match[1].strip().decode("utf-8", "replace")
