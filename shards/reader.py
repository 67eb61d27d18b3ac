"""Reading a dataset: any sample by number or key, from a folder, a bucket or a web server, checked against the hash
of its manifest row.
"""

import hashlib
import os
import weakref
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa

from .archive import split_part
from .cache.ahead import Ahead
from .cache.cache import Cache
from .cache.copies import Copies
from .contract import Sample
from .dataset_json import read_dataset_json
from .errors import CorruptSample
from .layout import SHARDS
from .loaded import loaded
from .manifest import SCHEMA
from .rows import Rows, is_split
from .sample import decode
from .split import SPLITS
from .store import Store, open_store, under
from .store.local import LocalStore
from .store.naming import is_plain
from .where import columns_used, select


def open(
    path: str | PathLike[str], split: str | None = None, *, where: str | None = None, cache: Cache | None = None
) -> "Dataset":
    """The dataset under a path or URL (s3://, gs://, https://), one split of it, or the rows for which `where` holds
    (shards/where.py). With a `cache`, its shards are fetched whole, once per machine (shards/cache/cache.py).

    FileNotFoundError / ValueError where it is none, OSError where it cannot be reached: one sentence each.
    """
    store = open_store(path)
    if isinstance(store, LocalStore) and not store.folder.is_dir():
        raise FileNotFoundError(f"{path} is not a folder: give the one that `worldtrace render --out` wrote")
    if split is not None and split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    config = read_dataset_json(store)
    rows = Rows(store)
    if split is not None:
        rows = rows.narrowed(is_split(rows, split))
    dataset = Dataset(store, config, rows, cache)
    if where is not None:
        dataset = dataset.narrowed(where)
    len(dataset)  # a manifest that is missing or damaged is told of here, and not at the first sample
    return dataset


class Dataset:
    """Samples in manifest order. A plain value without open files: it may be pickled, forked and used by threads.

    What it needs of the manifest is loaded when it is first asked for: `len`, `hash` or a sample before a fork makes
    the processes share it.
    """

    def __init__(
        self,
        place: Store | str | PathLike[str],
        config: dict[str, Any],
        rows: Rows | pa.Table,
        cache: Cache | None = None,
    ) -> None:
        self.store: Store = open_store(place) if isinstance(place, str | PathLike) else place
        self.config = config
        self.selection = rows if isinstance(rows, Rows) else Rows(self.store, table=rows)
        self.cache = cache
        self._ahead: Ahead | None = None

    def __len__(self) -> int:
        return len(self.selection)

    def __iter__(self) -> Iterator[Sample]:
        for row in range(len(self)):
            yield self[row]

    def __getitem__(self, which: int | str) -> Sample:
        """The sample of a row (negative: from the end) or key. CorruptSample: its bytes are not those written."""
        row = self.row_of(which)
        return decode(self.key(row), self.members(row))

    def __repr__(self) -> str:
        return f"Dataset({self.directory!r}, {len(self)} samples)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ahead": None}  # threads and locks are those of a process

    @property
    def directory(self) -> str:
        """Where it lies: a path or URL."""
        return self.store.text

    @property
    def manifest(self) -> pa.Table:
        """All columns of its rows. 17 million rows of them take gigabytes: `columns` gives those that are needed."""
        return self.selection.table()

    def columns(self, names: Sequence[str]) -> pa.Table:
        """These columns of the manifest, for these rows; read anew at each call. ValueError for unknown ones."""
        if unknown := [name for name in names if name not in SCHEMA.names]:
            raise ValueError(f"{unknown[0]!r} is no column of a manifest: it has {', '.join(SCHEMA.names)}")
        return self.selection.table(names)

    def batches(self, names: Sequence[str], rows: int = 1 << 16) -> Iterator[pa.RecordBatch]:
        """`columns`, at most so many rows at a time and with little more than those in memory."""
        yield from self.columns(names).to_batches(max_chunksize=rows)

    def narrowed(self, where: str) -> "Dataset":
        """The samples for which an SQL condition over the manifest holds (shards/where.py)."""
        chosen = select(self.columns(columns_used(where, SCHEMA)), where)
        return Dataset(self.store, self.config, self.selection.narrowed(chosen), self.cache)

    def load(self) -> "Dataset":
        """Load now what reading samples needs of the manifest, so that processes forked after it share the memory."""
        self.selection.load(int(self.config.get("version", 1)))
        return self

    @property
    def keys(self) -> list[str]:
        return list(self.selection.key.to_pylist())

    def key(self, row: int) -> str:
        return self.selection.sample(row)[0]

    @property
    def hash(self) -> str:
        """Identity of these samples in this order (shards/manifest.py); the order of training is a function of it."""
        return self.selection.hash

    @property
    def statistics(self) -> dict[str, Any] | None:
        """{"mean": [3], "std": [3], ...} of the z-score map, or None before `worldtrace shards stats`."""
        return self.config.get("statistics")

    @property
    def shards(self) -> list[str]:
        """The file names of the shards that these samples lie in, sorted."""
        return self.selection.shards

    @property
    def shard_of(self) -> np.ndarray:
        """(n,) int32: the place in `shards` of the shard of a row."""
        return self.selection.shard_of

    @property
    def shard_bytes(self) -> np.ndarray:
        """(len(shards),) int64: the sizes of whole shards."""
        return self.selection.shard_bytes

    def rows(self, split: str | None = None) -> np.ndarray:
        """Row numbers (n,) int64 of one split, or of all."""
        if split is None:
            return np.arange(len(self))
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
        return np.flatnonzero(is_split(self.selection, split))

    def row_of(self, which: int | str) -> int:
        """Row number of a key, or a row number brought into range. KeyError / IndexError where there is none."""
        if isinstance(which, str):
            found = self.selection.find(which)
            if found is None:
                raise KeyError(f"{self.directory} has no sample {which!r}: `worldtrace shards ls` lists them")
            return found
        row = int(which)
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} samples in {self.directory}")
        return row % len(self)

    def expect(self, names: Sequence[str]) -> None:
        """Fetch these shards, in this order, at least two at a time and in the background, as far as the cache has
        room; those that are there stay until another call, unless a sample that is needed now finds no other room.
        Without a cache nothing is done. Returns at once.

        Call it in the process that reads, after any fork: a forked child starts without what its parent expects.
        """
        if self.cache is None:
            return
        if self._ahead is None or self._ahead.process != os.getpid():
            self._ahead = Ahead(self.copies)
            weakref.finalize(self, self._ahead.close)
        self._ahead.expect(names)

    def members(self, row: int) -> dict[str, bytes]:
        """Suffix -> bytes of the sample of a row, read from its shard and checked against the manifest."""
        (key, digest), place = self.selection.sample(row), int(self.shard_of[row])
        shard = self.shards[place]
        if not is_plain(shard):
            raise CorruptSample(f"{key}: the manifest names {shard!r}, which is not the plain name of a shard")
        begin, size = int(self.selection.offset[row]), int(self.selection.bytes[row])
        where = f"{key} in {under(self.store, f'{SHARDS}/{shard}')} at {begin}"
        if self.cache is not None:
            part = self._copied(place, begin, size)
            if hashlib.sha256(part).digest() == digest:
                return split_part(key, part, where)
        # of a damaged copy, this sample is fetched once more, alone: only the dataset itself can say that it is lost
        part = self._part(shard, begin, size)
        if hashlib.sha256(part).digest() != digest:
            raise CorruptSample(
                f"{where}: the bytes are not those of the manifest (sha256 differs): {self._anew(shard)}, and see what "
                "else is damaged with `worldtrace shards verify`"
            )
        if self.cache is not None:
            self.copies.drop(place)
        return split_part(key, part, where)

    @loaded
    def copies(self) -> Copies:
        """The copies of its shards. ValueError for a dataset without a cache."""
        if self.cache is None:
            raise ValueError(f"{self.directory} was opened without a cache")
        return Copies(self.cache, self.store, self.shards, self.shard_bytes, self.selection.shard_sha256)

    def _copied(self, place: int, begin: int, size: int) -> bytes:
        try:
            return self.copies.part(place, begin, size) if begin >= 0 and size >= 0 else b""
        except FileNotFoundError:
            raise self._missing(self.shards[place]) from None

    def _missing(self, shard: str) -> FileNotFoundError:
        return FileNotFoundError(
            f"{under(self.store, f'{SHARDS}/{shard}')} is missing, but the manifest names it: restore it from a copy, "
            "run the same render command again, or rebuild the manifest without it with `worldtrace shards verify DIR "
            "--repair`"
        )

    def _part(self, shard: str, begin: int, size: int) -> bytes:
        name = f"{SHARDS}/{shard}"
        try:
            part = self.store.part(name, begin, size) if begin >= 0 and size >= 0 else b""
        except FileNotFoundError:
            raise self._missing(shard) from None
        if len(part) != size or size < 0:
            raise CorruptSample(
                f"{under(self.store, name)} ends before byte {begin + size} that the manifest names: it is truncated: "
                f"{self._anew(shard)}"
            )
        return part

    def _anew(self, shard: str) -> str:
        """How to get a damaged shard back; the render job makes what is missing anew."""
        path = under(self.store, f"{SHARDS}/{shard}")
        return f"restore the shard from a copy, or delete it ({path}) and run the same render command again"
