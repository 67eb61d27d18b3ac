"""One sample inside a tar archive: its part is written, taken apart and found again here."""

import io
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

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
    try:
        with tarfile.open(fileobj=io.BytesIO(part), mode="r:") as archive:
            for info in archive:
                name, _, suffix = info.name.partition(".")
                if name != key or not info.isreg() or suffix in members:
                    raise CorruptSample(f"{where}: {info.name!r} is not a member of it")
                file = archive.extractfile(info)
                members[suffix] = file.read() if file is not None else b""
    except tarfile.TarError as error:
        raise CorruptSample(f"{where}: {error}") from None
    return members


def walk(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """(key, offset, part) of every sample of a shard, in order. CorruptSample where the archive ends too early or does
    not end as one: what came before is sound as an archive, what comes after is lost.
    """
    end = 0
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                infos = archive.getmembers()  # headers only
        except tarfile.TarError as error:
            raise CorruptSample(f"{path}: {error}") from None
        for key, members in groupby(infos, lambda info: info.name.partition(".")[0]):
            group = list(members)
            begin, end = group[0].offset, group[-1].offset_data + -(-group[-1].size // BLOCK) * BLOCK
            file.seek(begin)
            part = file.read(end - begin)
            if len(part) != end - begin:
                raise CorruptSample(f"{path} is truncated within {key}")
            yield key, begin, part
        file.seek(end)
        # tarfile takes a damaged header for the end of the archive
        if file.read(len(END) + 1) != END:
            raise CorruptSample(f"{path} is damaged or truncated at byte {end}, after {len(infos)} members")
