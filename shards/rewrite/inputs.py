"""A dataset that an operation reads: its header, and its manifest as a stream of bounded tables."""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .. import manifest, seal
from ..dataset_json import parse_dataset_json
from ..layout import DATASET_JSON, LEDGER, MANIFEST, SHARDS
from ..store import Store, open_store, under
from ..store.local import LocalStore
from ..unfinished import is_unfinished, missing_manifest, unfinished

ROWS = 1 << 14  # of a manifest that are looked at together


@dataclass(frozen=True)
class Input:
    """`config` is its dataset.json, `samples` and `bytes` are counted, `hash` is that of `shards.open(...).hash`."""

    store: Store
    config: dict[str, Any]
    samples: int
    bytes: int
    hash: str

    @property
    def text(self) -> str:
        return self.store.text

    def batches(self, columns: Collection[str] | None = None) -> Iterator[pa.Table]:
        """Its manifest in order, all of SCHEMA or these columns of it, ROWS rows at a time."""
        yield from manifest_batches(self.store, columns)

    def table(self, columns: Collection[str]) -> pa.Table:
        """These columns of all rows."""
        schema = pa.schema([field for field in manifest.SCHEMA if field.name in columns])
        return pa.concat_tables([schema.empty_table(), *self.batches(columns)])

    def shard_size(self, shard: str) -> int | None:
        """Bytes of a shard as it lies there, None where it is missing; asked once."""
        if shard not in self._sizes:
            try:
                self._sizes[shard] = self.store.size(f"{SHARDS}/{shard}")
            except FileNotFoundError:
                self._sizes[shard] = None
        return self._sizes[shard]

    @cached_property
    def _sizes(self) -> dict[str, int | None]:
        return {}

    def origin(self) -> dict[str, Any]:
        """What a dataset that is made of it states of it: no path, so that the same samples give the same bytes."""
        told: dict[str, Any] = {
            name: self.config[name] for name in ("job", "derived", "software") if name in self.config
        }
        had = {"ledger": True} if self.store.exists(LEDGER) else {}  # `verify` misses it then where it is gone
        return {"hash": self.hash, "samples": self.samples, **had, **told}


def open_input(path: str | PathLike[str]) -> Input:
    """The dataset at a path or URL. FileNotFoundError / ValueError where it is none, is not finished, or its manifest
    is damaged: what is copied from it is never a part of what it was to be.
    """
    store = open_store(path)
    if isinstance(store, LocalStore) and not store.folder.is_dir():
        raise FileNotFoundError(f"{path} is not a folder: give that of a dataset")
    header = under(store, DATASET_JSON)
    try:
        config = parse_dataset_json(store.read(DATASET_JSON), header)
    except FileNotFoundError:
        raise FileNotFoundError(f"{header} is missing: give the folder or URL of a dataset") from None
    if is_unfinished(store):
        raise ValueError(unfinished(store))
    with open_manifest(store) as file:
        if not seal.holds(file, config["version"]):
            raise damaged(store, "its seal is broken")
    digest, samples, size = hashlib.sha256(), 0, 0
    for table in manifest_batches(store, ["key", "shard", "bytes", "sha256"]):
        lines = pc.binary_join_element_wise(table["key"], table["sha256"], " ")
        digest.update("".join(f"{line}\n" for line in lines.to_pylist()).encode())
        samples += len(table)
        size += pc.sum(table["bytes"]).as_py() or 0
    return Input(store, config, samples, size, digest.hexdigest())


def manifest_batches(store: Store, columns: Collection[str] | None = None) -> Iterator[pa.Table]:
    """The manifest of a dataset, as tables of SCHEMA or of these columns of it, in its order and ROWS rows at a time.

    Rows of version 1 get empty `shard_sha256`, `members` and `planes`, and `shard_bytes` 0. FileNotFoundError or
    ValueError where it is missing or damaged, or names a shard by more than a file name.
    """
    schema = manifest.SCHEMA if columns is None else pa.schema([f for f in manifest.SCHEMA if f.name in columns])
    try:
        with open_manifest(store) as file, pq.ParquetFile(file, page_checksum_verification=True) as table:
            there = set(table.schema_arrow.names)
            added = set() if there.intersection(manifest.ADDED) else set(manifest.ADDED)
            if missing := [name for name in manifest.SCHEMA.names if name not in there and name not in added]:
                raise damaged(store, f"it has no column {missing[0]}")
            wanted = [name for name in schema.names if name in there]
            # a table without columns would have no rows
            for batch in table.iter_batches(ROWS, columns=wanted or ["key"]):
                yield _checked(store, pa.Table.from_batches([batch]), schema)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise damaged(store, (str(error).splitlines() or [type(error).__name__])[0]) from None


def damaged(store: Store, what: str) -> ValueError:
    remedy = "rebuild it with `worldtrace shards verify DIR --repair`"
    return ValueError(f"{under(store, MANIFEST)} is damaged ({what}): {remedy}")


@contextmanager
def open_manifest(store: Store) -> Iterator[BinaryIO]:
    """The file, seekable. FileNotFoundError with a remedy where it is missing."""
    try:
        with store.reading(MANIFEST) as file:
            yield file
    except FileNotFoundError:
        raise missing_manifest(store) from None


def _checked(store: Store, table: pa.Table, schema: pa.Schema) -> pa.Table:
    empty: dict[str, Any] = {"shard_bytes": 0, "shard_sha256": "", "members": [], "planes": []}
    there = pa.schema([field for field in schema if field.name in table.column_names])
    for name in there.names:
        if table[name].null_count:
            raise damaged(store, f"a row has no {name}")
    known = table.select(there.names).cast(there)
    if odd := manifest.impossible(known):
        raise damaged(store, odd)
    columns = [
        known[field.name]
        if field.name in there.names
        else pa.chunked_array([pa.repeat(pa.scalar(empty[field.name], field.type), len(table))])
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def digests(column: pa.ChunkedArray) -> np.ndarray:
    """(n, 2) uint64: 128 bits of each text, which 10^12 texts share with a probability of 10^-15."""
    content = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in column.to_pylist())
    return np.frombuffer(content, np.uint64).reshape(-1, 2)
