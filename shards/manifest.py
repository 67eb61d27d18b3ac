"""`manifest.parquet`: a row per sample, what it shows and where it lies; deterministic bytes, readable by pandas
and DuckDB.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .commit import committed
from .layout import MANIFEST

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("asset", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("asset_sha256", pa.string(), nullable=False),
        pa.field("regime", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("view", pa.int32(), nullable=False),
        pa.field("frames", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("layers", pa.int32(), nullable=False),
        pa.field("single_layer", pa.bool_(), nullable=False),
        pa.field("coverage", pa.list_(pa.float64()), nullable=False),
        pa.field("z_min", pa.float32(), nullable=False),
        pa.field("z_max", pa.float32(), nullable=False),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("overflow", pa.int64(), nullable=False),
    ]
)


ROW_GROUP = 1 << 17  # rows; the bytes of the file depend on it
CHUNK = 1 << 12  # rows that are Python objects at a time


def write_manifest(directory: str | PathLike[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Rows in any order -> DIR/manifest.parquet, sorted by (shard, offset). ValueError on double keys or a missing
    column. Memory is that of an Arrow table of them; `ManifestWriter` needs that of a row group.
    """
    path = Path(directory) / MANIFEST
    try:
        chunks = [_table(chunk) for chunk in _chunks(rows)]
        table = pa.concat_tables([SCHEMA.empty_table(), *chunks])
        order = pc.sort_indices(table, [("shard", "ascending"), ("offset", "ascending")])
        with committed(path) as file, ManifestWriter(file) as writer:
            writer.write(table.take(order))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return path


class ManifestWriter:
    """manifest.parquet as a stream: tables in the order of (shard, offset), into row groups of ROW_GROUP.

    The bytes are a function of the rows, however they are cut into tables. ValueError where a key comes twice (found at
    `close`), or where rows are out of order. Holds one row group, and 16 bytes for each key.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.writer = pq.ParquetWriter(file, SCHEMA, compression="zstd", compression_level=3, version="2.6")
        self.waiting: list[pa.Table] = []
        self.rows = 0
        self.keys: list[np.ndarray] = []
        self.last: tuple[str, int] = ("", -1)

    def __enter__(self) -> "ManifestWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(Exception):  # the first error counts, and the file is thrown away
                self.writer.close()

    def write(self, table: pa.Table) -> None:
        """`table` has the columns of SCHEMA."""
        _complete(table)
        if not len(table):
            return
        self._in_order(table)
        self.keys.append(_digests(table["key"]))
        self.waiting.append(table)
        self.rows += len(table)
        while self.rows >= ROW_GROUP:
            whole = pa.concat_tables(self.waiting)
            self._group(whole.slice(0, ROW_GROUP))
            self.waiting = [whole.slice(ROW_GROUP)]
            self.rows = len(self.waiting[0])

    def close(self) -> None:
        try:
            if doubled := _doubled(self.keys):
                raise ValueError(f"{doubled} keys come more than once; the same asset was rendered into two shards")
            if self.rows:
                self._group(pa.concat_tables(self.waiting))
        finally:
            self.writer.close()

    def _group(self, table: pa.Table) -> None:
        self.writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP)

    def _in_order(self, table: pa.Table) -> None:
        shard, offset = table["shard"].combine_chunks(), table["offset"].combine_chunks()
        first, later = slice(None, -1), slice(1, None)
        ordered = pc.or_(
            pc.less(shard[first], shard[later]),
            pc.and_(pc.equal(shard[first], shard[later]), pc.less(offset[first], offset[later])),
        )
        if (shard[0].as_py(), offset[0].as_py()) <= self.last or pc.all(ordered).as_py() is False:
            raise ValueError("the rows are not in the order of (shard, offset), or one comes twice")
        self.last = (shard[-1].as_py(), offset[-1].as_py())


def _chunks(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    try:
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
        table.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"a manifest row does not fit the schema: {error}") from None
    _complete(table)
    return table


def _complete(table: pa.Table) -> None:
    for column in SCHEMA.names:
        if table[column].null_count:
            raise ValueError(f"column {column} is missing in {table[column].null_count} rows")


def _digests(keys: pa.ChunkedArray) -> np.ndarray:
    """(n, 2) uint64: 128 bits of each key, which 10^12 keys share with a probability of 10^-15."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=16).digest() for key in keys.to_pylist())
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def _doubled(keys: Sequence[np.ndarray]) -> int:
    """How many of them have come before."""
    if not keys:
        return 0
    halves = np.concatenate(keys)
    order = np.argsort(halves[:, 0], kind="stable")
    same = np.flatnonzero(np.diff(halves[order, 0]) == 0)
    if not same.size:
        return 0
    suspects = np.unique(np.concatenate([order[same], order[same + 1]]))
    return int(suspects.size - np.unique(halves[suspects], axis=0).shape[0])


def read_manifest(directory: str | PathLike[str]) -> pa.Table:
    """The manifest as a table of SCHEMA. FileNotFoundError or ValueError say what is wrong and what to do."""
    path = Path(directory) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: give the folder that `worldtrace render --out` wrote, or rebuild it with "
            "`worldtrace shards verify DIR --repair`"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is damaged ({first}): rebuild it with `worldtrace shards verify DIR --repair`"
        ) from None
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}: it was not written by worldtrace")
    if empty := [name for name in SCHEMA.names if table[name].null_count]:
        raise ValueError(
            f"{path} is damaged (a row has no {empty[0]}): rebuild it with `worldtrace shards verify DIR --repair`"
        )
    return table.select(SCHEMA.names).cast(SCHEMA)


def hash_of(table: pa.Table) -> str:
    """sha256 over the lines "<key> <sha256>\\n" in the order of the table: the identity of a set of samples.

    It is that of the contents and not of the parquet file, whose bytes depend on the version of its writer.
    """
    digest = hashlib.sha256()
    for batch in table.select(["key", "sha256"]).to_batches(max_chunksize=1 << 16):
        lines = pc.binary_join_element_wise(batch["key"], batch["sha256"], " ")
        digest.update("".join(f"{line}\n" for line in lines.to_pylist()).encode())
    return digest.hexdigest()
