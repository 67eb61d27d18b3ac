"""`manifest.parquet`: a row per sample, what it shows and where it lies; deterministic bytes, readable by pandas
and DuckDB.

Version 2 added the last four columns. Readers give a table of SCHEMA for version 1 as well: `shard_bytes` is computed,
`shard_sha256` is "" and `members` and `planes` are empty.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .archive import END
from .commit import committed
from .layout import MANIFEST
from .seal import sealing
from .store.naming import is_plain

DIGEST = 16  # bytes of SHA-256 that tell a damaged member: half of it, since `sha256` guards the whole sample
MEMBER = pa.struct(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("digest", pa.binary(DIGEST), nullable=False),
    ]
)
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
        pa.field("shard_bytes", pa.int64(), nullable=False),
        pa.field("shard_sha256", pa.string(), nullable=False),
        pa.field("members", pa.list_(pa.field("element", MEMBER, nullable=False)), nullable=False),
        pa.field("planes", pa.list_(pa.string()), nullable=False),
    ]
)
ADDED = ("shard_bytes", "shard_sha256", "members", "planes")  # by version 2
# text that few distinct values fill: read as a dictionary, 17 million rows of it take 4 bytes each
REPEATED = ("shard", "asset", "source", "licence", "asset_sha256", "regime", "split", "shard_sha256")
_IN_DICTIONARY = [
    *REPEATED,
    *("view", "frames", "height", "width", "layers", "coverage.list.element", "flags.list.element", "overflow"),
    *("shard_bytes", "members.list.element.name", "planes.list.element"),
]
_ENCODED = {"key": "DELTA_BYTE_ARRAY", "z_min": "BYTE_STREAM_SPLIT", "z_max": "BYTE_STREAM_SPLIT"}

_SHA256 = re.compile("([0-9a-f]{64})?")  # "" is unknown

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
        self.sealing, sealed = sealing(file)
        self.writer = pq.ParquetWriter(
            sealed,
            SCHEMA,
            compression="zstd",
            compression_level=3,
            version="2.6",
            use_dictionary=_IN_DICTIONARY,
            column_encoding=_ENCODED,
            write_page_checksum=True,
        )
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
        except BaseException:
            with suppress(Exception):  # the first error counts, and the file is thrown away
                self.writer.close()
            raise
        self.sealing.close_sealed(self.writer)

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


def read_manifest(directory: str | PathLike[str], columns: Collection[str] | None = None) -> pa.Table:
    """The manifest as a table of SCHEMA, or of these columns of it. FileNotFoundError or ValueError say what is wrong
    and what to do.
    """
    path = Path(directory) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: give the folder that `worldtrace render --out` wrote, or rebuild it with "
            "`worldtrace shards verify DIR --repair`"
        )
    return parsed(path, str(path), columns)


def parsed(
    source: Any,
    text: str,
    columns: Collection[str] | None = None,
    dictionary: Collection[str] = (),
    groups: Sequence[int] | None = None,
) -> pa.Table:
    """The same of a path, an Arrow buffer or a binary file; messages call it `text`. Columns come in the order of
    SCHEMA; those in `dictionary` (of REPEATED) as dictionaries. `groups`: these row groups alone, of which nobody may
    ask `shard_bytes`, as that of version 1 is computed from all rows.
    """
    wanted = [name for name in SCHEMA.names if columns is None or name in columns]
    try:
        there = set(pq.read_schema(source).names)
        repeated = [name for name in dictionary if name in there]  # version 1 has not all of them
        with pq.ParquetFile(source, read_dictionary=repeated, page_checksum_verification=True) as file:
            version = 1 if there.isdisjoint(ADDED) else 2
            known = [name for name in SCHEMA.names if version == 2 or name not in ADDED]
            if missing := [name for name in known if name not in there]:
                raise ValueError(f"{text} has no column {', '.join(missing)}: it was not written by worldtrace")
            needed = {*wanted, "shard", "offset", "bytes"} if version == 1 and "shard_bytes" in wanted else {*wanted}
            read = [name for name in known if name in needed]
            table = file.read(read) if groups is None else file.read_row_groups(list(groups), read)
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{text} is damaged ({first}): rebuild it with `worldtrace shards verify DIR --repair`"
        ) from None
    if empty := [name for name in table.column_names if table[name].null_count]:
        raise ValueError(
            f"{text} is damaged (a row has no {empty[0]}): rebuild it with `worldtrace shards verify DIR --repair`"
        )
    if odd := impossible(table):
        raise ValueError(f"{text} is damaged ({odd}): rebuild it with `worldtrace shards verify DIR --repair`")
    if version == 1:
        table = _filled(table, wanted)
    fields = [SCHEMA.field(name) for name in wanted]
    kept = [
        field.with_type(table[field.name].type) if pa.types.is_dictionary(table[field.name].type) else field
        for field in fields
    ]
    return table.select(wanted).cast(pa.schema(kept))


def impossible(table: pa.Table) -> str | None:
    """What no manifest says, of the columns that were read. Names and sizes become paths and parts of files."""
    for name, least in (("offset", 0), ("bytes", 0), ("shard_bytes", 1)):
        if name in table.column_names and len(table) and (found := pc.min(table[name]).as_py()) < least:
            return f"{name} is {found}"
    for name, fits in (("shard", is_plain), ("shard_sha256", lambda text: _SHA256.fullmatch(text) is not None)):
        if name in table.column_names:
            column = table[name]
            coded = pa.types.is_dictionary(column.type)
            distinct = column.combine_chunks().dictionary if coded else pc.unique(column)
            if odd := [value for value in distinct.to_pylist() if not fits(value)]:
                return f"{name} is {odd[0][:100]!r}"
    return None


def _filled(table: pa.Table, wanted: Collection[str]) -> pa.Table:
    """A table of version 1 with those of the ADDED columns that are wanted."""
    for name in ADDED:
        if name not in wanted:
            continue
        if name == "shard_bytes":
            column = _shard_bytes(table)
        else:
            empty = pa.scalar("" if name == "shard_sha256" else [], SCHEMA.field(name).type)
            column = pa.repeat(empty, len(table))
        table = table.append_column(SCHEMA.field(name), column)
    return table


def _shard_bytes(table: pa.Table) -> pa.Array:
    """(n,) int64: the size of each row's shard, which ends with END after its last sample."""
    shard = table["shard"].combine_chunks()
    if not pa.types.is_dictionary(shard.type):
        shard = shard.dictionary_encode()
    which = shard.indices.to_numpy()
    ends = np.zeros(len(shard.dictionary), np.int64)
    np.maximum.at(ends, which, pc.add(table["offset"], table["bytes"]).to_numpy())
    return pa.array(ends[which] + len(END), pa.int64())


def members_of(members: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """The column `members` of a sample: name, bytes and digest of each, in their order in the archive."""
    return [{"name": name, "bytes": len(members[name]), "digest": digest_of(members[name])} for name in sorted(members)]


def digest_of(content: bytes) -> bytes:
    """Of a member, as the manifest holds it."""
    return hashlib.sha256(content).digest()[:DIGEST]


def to_json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON can hold it: digests as hexadecimal text."""
    members = [{**member, "digest": member["digest"].hex()} for member in row["members"]]
    return {**row, "members": members}


def from_json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse. ValueError, KeyError or TypeError where it is none."""
    members = [{**member, "digest": bytes.fromhex(member["digest"])} for member in row["members"]]
    return {**row, "members": members}


def row_groups(source: Any) -> np.ndarray:
    """(g,) int64: the rows of each row group of a manifest. ValueError where it is none."""
    try:
        with pq.ParquetFile(source) as file:
            return np.array([file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)], np.int64)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from None


def hash_of(tables: pa.Table | Iterable[pa.Table]) -> str:
    """sha256 over the lines "<key> <sha256>\\n" in the order of the table, or of several: the identity of a set of
    samples.

    It is that of the contents and not of the parquet file, whose bytes depend on the version of its writer.
    """
    digest = hashlib.sha256()
    several = [tables] if isinstance(tables, pa.Table) else tables
    for batch in (each for t in several for each in t.select(["key", "sha256"]).to_batches(max_chunksize=1 << 16)):
        lines = pc.binary_join_element_wise(batch["key"].cast(pa.string()), batch["sha256"], " ")
        lines = pc.binary_join_element_wise(lines, "", "\n")
        _, offsets, text = lines.buffers()
        ends = np.frombuffer(offsets, np.int32)[lines.offset : lines.offset + len(lines) + 1]
        digest.update(memoryview(text)[ends[0] : ends[-1]])
    return digest.hexdigest()
