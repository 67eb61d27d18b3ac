"""One sample inside a tar archive: its part is written, taken apart and found again here."""

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from .errors import CorruptSample

BLOCK = 512
END = bytes(2 * BLOCK)  # two empty blocks end a tar archive


def archive_part(key: str, members: Mapping[str, bytes]) -> bytes:
    """Ustar headers and contents of one sample, members sorted by name; owner, mode and time are the same for all."""
    parts = []
    for suffix in sorted(members):
        data = members[suffix]
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size, info.mode, info.mtime = len(data), 0o644, 0
        parts += [info.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % BLOCK)]
    return b"".join(parts)


def split_part(key: str, part: bytes, where: str) -> dict[str, bytes]:
    """The inverse: suffix -> bytes. CorruptSample, naming `where`, for anything but plain files named after the key."""
    members: dict[str, bytes] = {}
    here = 0
    while here < len(part):
        info = _header(part[here : here + BLOCK], len(part) - here - BLOCK)
        if info is None:
            raise CorruptSample(
                f"{where}: there is no header of a plain file that fits in, {here} bytes after its begin"
            )
        name, _, suffix = info.name.partition(".")
        if name != key or suffix in members:
            raise CorruptSample(f"{where}: {info.name!r} is not a member of it")
        here += BLOCK
        members[suffix] = part[here : here + info.size]
        here += _padded(info.size)
    return members


def walk(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """`walk_file` of the shard in a folder."""
    with path.open("rb") as file:
        yield from walk_file(file, str(path))


def walk_file(file: BinaryIO, path: str) -> Iterator[tuple[str, int, bytes]]:
    """(key, offset, part) of every sample of a shard, in order, whatever damage lies between them; `path` names it.

    After a damaged header the next sound one is looked for, block by block. CorruptSample at the end if anything was
    skipped or the end mark is not where it should be; a part that damage took a member from is yielded as it is.
    """
    damaged = False
    key, begin, end = "", 0, 0
    here, size = 0, file.seek(0, 2)
    while here + BLOCK <= size:
        block = _between(file, here, here + BLOCK)
        if here + len(END) == size and not any(block):
            break
        info = _header(block, size - here - BLOCK)
        if info is None:
            damaged = True
            here += BLOCK
            continue
        name = info.name.partition(".")[0]
        if name != key or here != end:
            if key:
                yield key, begin, _between(file, begin, end)
            key, begin = name, here
        here = end = here + BLOCK + _padded(info.size)
    if key:
        yield key, begin, _between(file, begin, end)
    file.seek(end)
    if damaged or file.read(len(END) + 1) != END:
        raise CorruptSample(f"{path} is damaged or truncated: what is not listed of it cannot be read")


def _header(block: bytes, left: int) -> tarfile.TarInfo | None:
    """What the header says, if it is that of a plain file whose padded contents fit into the `left` bytes after it.

    `tarfile` parses the fields, but not the archive: it would follow sparse maps, links and sizes without bound.
    """
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError):
        return None
    plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.name.startswith(".")
    return info if plain and info.size >= 0 and _padded(info.size) <= left else None


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _between(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)
