"""What an unfinished copy remembers of each new shard, beside it in `units/`: its manifest rows and what was lost."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..layout import SHARDS, UNITS
from ..manifest import SCHEMA
from ..store import Store, under
from ..store.naming import is_segment

is_record = is_segment


def write(
    store: Store, index: int, shard: str, rows: Sequence[Mapping[str, Any]], lost: Sequence[Mapping[str, str]]
) -> None:
    """Of the shard at place `index`, which is durable already, or was not written because all of it is lost."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
    table = table.replace_schema_metadata({"shard": shard, "lost": json.dumps(list(lost))})
    with store.writing(_name(index)) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def read(store: Store, index: int) -> tuple[pa.Table, list[dict[str, str]]]:
    """(manifest rows, lost samples). ValueError where it is damaged: the next run makes it anew."""
    found = _parsed(store, index)
    if found is None:
        raise ValueError(f"{under(store, _name(index))} is damaged: remove it and run the same command again")
    return found[1], found[2]


def stands(store: Store, index: int, shard: str, there: Mapping[str, int]) -> bool:
    """Whether an earlier run has finished this very shard, and lost nothing of it: what was damaged may have been
    restored since, or may not be skipped now. `there`: the bytes of "shards/NAME", of those that exist.
    """
    found = _parsed(store, index)
    if found is None or found[0] != shard or found[2]:
        return False
    rows = found[1]
    return not len(rows) or there.get(f"{SHARDS}/{shard}") == rows["shard_bytes"][0].as_py()


def _parsed(store: Store, index: int) -> tuple[str, pa.Table, list[dict[str, str]]] | None:
    try:
        content = store.read(_name(index))
        with pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True) as file:
            table = file.read()
        told = table.schema.metadata or {}
        return told[b"shard"].decode(), table.replace_schema_metadata(None).cast(SCHEMA), json.loads(told[b"lost"])
    except (FileNotFoundError, KeyError, ValueError, OSError, pa.ArrowException):
        return None


def _name(index: int) -> str:
    return f"{UNITS}/{index:06d}.parquet"
