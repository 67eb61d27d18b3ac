"""The plan of a job: which assets go into which shard.

A unit of work is a fixed set of assets with all their views, and becomes exactly one shard. The plan is a pure function
of the assets and of the settings that shape the bytes; it knows nothing of the cluster or of what is done already.
Hence any number of workers, and any number of interrupted attempts, make the same files.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.sources import AssetRef, Source

MOST = 1_000_000  # units: their names sort by number, which has six digits


@dataclass(frozen=True, slots=True)
class Task:
    """One asset to render: `source` is its place in the job's list of sources.

    `duplicate_of` names an earlier asset whose samples would have the same keys; such a task is rejected unrendered.
    `content` is what two runs compare to know that the asset is the same: its sha256, or where that is known only once
    it is fetched, what its source locates it by (a path of a commit, an object's size and ETag).

    A job holds one for each of its assets: with its AssetRef 0.5 to 0.6 kB, of which the texts are most (tracemalloc,
    100,000 of Objaverse).
    """

    ref: AssetRef
    source: int
    duplicate_of: str | None = None
    remote: bool = False

    @property
    def content(self) -> str | None:
        return self.ref.sha256 or (self.ref.locator if self.remote else None)


@dataclass(frozen=True, slots=True)
class Unit:
    index: int
    tasks: tuple[Task, ...]
    settings: str = field(repr=False)

    @property
    def digest(self) -> str:
        """12 hexadecimal digits over the assets and the settings: another unit, or another config, has another name."""
        assets = [[task.ref.uid, task.ref.source, task.content, task.source] for task in self.tasks]
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
    listed: Callable[[Source], Iterable[AssetRef]] | None = None,
) -> list[Unit]:
    """Units of about `shard_views` images each. The views of one asset are never parted: a unit has one asset at least.

    `views` is the number of images an asset gives (samples times frames). `settings` is JSON: whatever else decides the
    bytes of a shard. `advance(assets listed, None)` is called as they are: to list a file is to hash it. `listed` gives
    the assets of a source, where filters drop some of them.

    ValueError where there are more units than a name has digits for.
    """
    per_unit = max(1, shard_views // views)
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    tasks: list[Task] = []
    for task in _tasks(sources, listed or (lambda source: source.assets())):
        tasks.append(task)
        if advance is not None:
            advance(len(tasks), None)
    starts = range(0, len(tasks), per_unit)
    if len(starts) > MOST:
        raise ValueError(f"{len(tasks)} assets make {len(starts)} shards, {MOST} are the most: give more --shard-views")
    return [Unit(index, tuple(tasks[start : start + per_unit]), text) for index, start in enumerate(starts)]


def digest_of_assets(units: Sequence[Unit]) -> str:
    """What two runs must agree on besides their settings: the assets, their bytes and their order."""
    hashed = hashlib.blake2b(digest_size=16)
    for unit in units:
        for task in unit.tasks:
            hashed.update(json.dumps([task.ref.uid, task.ref.source, task.content]).encode())
    return hashed.hexdigest()


def _tasks(sources: Sequence[Source], listed: Callable[[Source], Iterable[AssetRef]]) -> Iterator[Task]:
    """In the order of the sources. An asset that comes again, by source, uid and bytes as far as they are known, is a
    duplicate: its samples would have the same keys (render/views.py).
    """
    first: dict[int, AssetRef] = {}  # by a hash, which takes a fifth of the memory of the text; compared below
    for index, source in enumerate(sources):
        for ref in listed(source):
            identity = _identity(ref)
            digest = int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little")
            before = first.setdefault(digest, ref)
            duplicate = before is not ref and _identity(before) == identity
            yield Task(ref, index, before.label if duplicate else None, source.remote)


def _identity(ref: AssetRef) -> str:
    return json.dumps([ref.source, ref.uid, ref.sha256])
