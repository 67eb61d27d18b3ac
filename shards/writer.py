"""Writing one shard: a deterministic ustar archive that appears whole or not at all, and its manifest rows."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from .archive import END, archive_part, split_part
from .commit import committed
from .manifest import members_of
from .sample import EncodedSample


def write_shard(path: str | PathLike[str], samples: Iterable[EncodedSample]) -> list[dict[str, Any]]:
    """Write `samples` in the order given; the same encoded samples give the same bytes, anywhere and at any time.

    Returns a complete manifest row a sample: with `shard` (the file's name), `offset` and `bytes` (of the sample's part
    of the archive, headers included), `sha256` (of that part), `members`, and bytes and sha256 of the shard. Samples
    are taken one at a time, so a generator keeps memory flat.
    """
    path = Path(path)
    with committed(path) as file:
        return shard_into(file, path.name, samples)


def shard_into(file: BinaryIO, name: str, samples: Iterable[EncodedSample]) -> list[dict[str, Any]]:
    """`write_shard` into any binary file: that of an object store, say. `name` is what the shard will be called."""
    return parts_into(file, name, _encoded(samples))


def parts_into(file: BinaryIO, name: str, parts: Iterable[tuple[Mapping[str, Any], bytes]]) -> list[dict[str, Any]]:
    """Write parts of archives, each with its manifest row, as the shard `name`; -> the rows as they are now.

    The parts are not decoded, and become the shard byte by byte: what merges, splits or filters datasets copies samples
    by it. A row of version 1 gets the digests of its members. ValueError where a part is not what its row says.
    """
    if not name.endswith(".tar"):
        raise ValueError(f"{name}: the name of a shard ends in .tar")
    rows: list[dict[str, Any]] = []
    keys: set[str] = set()
    whole = hashlib.sha256()
    offset = 0
    for row, part in parts:
        key = row["key"]
        if key in keys:
            raise ValueError(f"{name}: key {key} comes twice; keys are unique within a dataset")
        keys.add(key)
        sha256 = hashlib.sha256(part).hexdigest()
        if row.get("sha256", sha256) != sha256:
            raise ValueError(f"{name}: the bytes of {key} are not those of its manifest row (sha256 differs)")
        members = row.get("members") or members_of(split_part(key, part, name))
        place = {"shard": name, "offset": offset, "bytes": len(part), "sha256": sha256, "members": members}
        file.write(part)
        whole.update(part)
        rows.append({"planes": [], **row, **place})
        offset += len(part)
    file.write(END)
    whole.update(END)
    of_shard = {"shard_bytes": offset + len(END), "shard_sha256": whole.hexdigest()}
    return [{**row, **of_shard} for row in rows]


def _encoded(samples: Iterable[EncodedSample]) -> Iterator[tuple[dict[str, Any], bytes]]:
    for sample in samples:
        members = {"members": members_of(sample.members)}
        yield {**sample.row, **members}, archive_part(sample.key, sample.members)
