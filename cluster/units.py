"""The plan of a job: which assets go into which shard.

A unit of work is a fixed set of assets with all their views, and becomes exactly one shard. The plan is a pure function
of the assets and of the settings that shape the bytes; it knows nothing of the cluster or of what is done already.
Hence any number of workers, and any number of interrupted attempts, make the same files.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.sources import AssetRef, Source
from render import sample_key
from shards import Origin


@dataclass(frozen=True)
class Task:
    """One asset to render: `source` is its place in the job's list of sources.

    `duplicate_of` names an earlier asset whose samples would have the same keys; such a task is rejected unrendered.
    """

    ref: AssetRef
    source: int
    duplicate_of: str | None = None


@dataclass(frozen=True)
class Unit:
    index: int
    tasks: tuple[Task, ...]
    settings: str = field(repr=False)

    @property
    def digest(self) -> str:
        """12 hexadecimal digits over the assets and the settings: another unit, or another config, has another name."""
        assets = [[task.ref.uid, task.ref.source, task.ref.sha256, task.source] for task in self.tasks]
        text = json.dumps([self.settings, assets], separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    @property
    def name(self) -> str:
        return f"{self.index:06d}-{self.digest}"

    @property
    def shard(self) -> str:
        """The shard's path within the dataset."""
        return f"shards/{self.name}.tar"


def plan(
    sources: Sequence[Source],
    settings: Mapping[str, Any],
    views: int,
    shard_views: int,
    advance: Callable[[int, int | None], None] | None = None,
) -> list[Unit]:
    """Units of about `shard_views` images each. The views of one asset are never parted: a unit has one asset at least.

    `views` is the number of images an asset gives (samples times frames). `settings` is JSON: whatever else decides the
    bytes of a shard. `advance(assets listed, None)` is called as they are: to list a file is to hash it.
    """
    per_unit = max(1, shard_views // views)
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    tasks: list[Task] = []
    for task in _tasks(sources):
        tasks.append(task)
        if advance is not None:
            advance(len(tasks), None)
    return [
        Unit(index, tuple(tasks[start : start + per_unit]), text)
        for index, start in enumerate(range(0, len(tasks), per_unit))
    ]


def digest_of_assets(units: Sequence[Unit]) -> str:
    """What two runs must agree on besides their settings: the assets, their bytes and their order."""
    hashed = hashlib.blake2b(digest_size=16)
    for unit in units:
        for task in unit.tasks:
            hashed.update(json.dumps([task.ref.uid, task.ref.source, task.ref.sha256]).encode())
    return hashed.hexdigest()


def _tasks(sources: Sequence[Source]) -> Iterator[Task]:
    first: dict[str, str] = {}
    for index, source in enumerate(sources):
        for ref in source.assets():
            if ref.sha256 is None:  # unreadable: it has no samples whose keys could clash
                yield Task(ref, index)
                continue
            key = sample_key(Origin(ref.uid, ref.source, ref.sha256), "v", 0)
            yield Task(ref, index, first.get(key))
            first.setdefault(key, ref.label)
