"""`manifest.parquet`: a row per sample, what it shows and where it lies; deterministic bytes, readable by pandas
and DuckDB.
"""

import hashlib
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

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


def write_manifest(directory: str | PathLike[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Rows in any order -> DIR/manifest.parquet, sorted by (shard, offset). ValueError on double keys or a missing
    column.
    """
    path = Path(directory) / MANIFEST
    ordered = sorted(rows, key=lambda row: (row["shard"], row["offset"]))
    try:
        table = pa.Table.from_pylist([dict(row) for row in ordered], schema=SCHEMA)
        table.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{path}: a manifest row does not fit the schema: {error}") from None
    for column in SCHEMA.names:
        if table[column].null_count:
            raise ValueError(f"{path}: column {column} is missing in {table[column].null_count} rows")
    doubled = len(table) - pc.count_distinct(table["key"]).as_py()
    if doubled:
        raise ValueError(f"{path}: {doubled} keys come more than once; the same asset was rendered into two shards")
    with committed(path) as file:
        pq.write_table(table, file, compression="zstd", compression_level=3, row_group_size=1 << 17, version="2.6")
    return path


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
