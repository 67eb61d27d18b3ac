"""Writing one shard: a deterministic ustar archive that appears whole or not at all, and its manifest rows."""

import hashlib
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from .archive import END, archive_part
from .commit import committed
from .sample import EncodedSample


def write_shard(path: str | PathLike[str], samples: Iterable[EncodedSample]) -> list[dict[str, Any]]:
    """Write `samples` in the order given; the same encoded samples give the same bytes, anywhere and at any time.

    Returns a manifest row a sample, with `shard` (the file's name), `offset` and `bytes` (of the sample's part of the
    archive, headers included) and `sha256` (of that part). Samples are taken one at a time, so a generator keeps
    memory flat.
    """
    path = Path(path)
    with committed(path) as file:
        return shard_into(file, path.name, samples)


def shard_into(file: BinaryIO, name: str, samples: Iterable[EncodedSample]) -> list[dict[str, Any]]:
    """`write_shard` into any binary file: that of an object store, say. `name` is what the shard will be called."""
    if not name.endswith(".tar"):
        raise ValueError(f"{name}: the name of a shard ends in .tar")
    rows: list[dict[str, Any]] = []
    keys: set[str] = set()
    offset = 0
    for sample in samples:
        if sample.key in keys:
            raise ValueError(f"{name}: key {sample.key} comes twice; keys are unique within a dataset")
        keys.add(sample.key)
        part = archive_part(sample.key, sample.members)
        file.write(part)
        place = {"shard": name, "offset": offset, "bytes": len(part)}
        rows.append({**sample.row, **place, "sha256": hashlib.sha256(part).hexdigest()})
        offset += len(part)
    file.write(END)
    return rows
