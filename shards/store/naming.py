"""Which names of files a writer of datasets uses: only those are ever swept away."""

import re

from .. import layout

UNIT = "[0-9]{6}-[0-9a-f]{1,12}"
_RECORD = re.compile(f"{layout.UNITS}/{UNIT}[.]json")
_SEGMENT = re.compile(f"{layout.UNITS}/[0-9]{{4,6}}[.]parquet")
_SHARD = re.compile(f"{layout.SHARDS}/[0-9]{{6}}-[0-9a-z_-]{{1,80}}[.]tar")
_PLAIN = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")
_TOP = frozenset({layout.DATASET_JSON, layout.MANIFEST, layout.LEDGER})
_TEMPORARY = re.compile(f"[.](.+)[.][0-9a-f]{{8}}{re.escape(layout.TEMPORARY)}")


def is_record(name: str) -> bool:
    """By its name within the dataset."""
    return _RECORD.fullmatch(name) is not None


def is_segment(name: str) -> bool:
    return _SEGMENT.fullmatch(name) is not None


def is_shard(name: str) -> bool:
    return _SHARD.fullmatch(name) is not None


def is_plain(shard: str) -> bool:
    """Whether a manifest may call a shard so: a file of the folder of shards itself, which any file system can hold."""
    return 0 < len(shard.encode()) <= 180 and _PLAIN.fullmatch(shard) is not None


def is_ours(name: str) -> bool:
    """Whether a job or a command writes a file of this name, within the dataset."""
    return name in _TOP or is_record(name) or is_segment(name) or is_shard(name)


def is_left_over(name: str) -> bool:
    """Whether an interrupted write has left this file (shards/commit.py)."""
    folder, _, file = name.rpartition("/")
    found = _TEMPORARY.fullmatch(file)
    return found is not None and is_ours(f"{folder}/{found[1]}" if folder else found[1])
