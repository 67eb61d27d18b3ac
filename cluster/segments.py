"""Records of many units in one file: what a job leaves of every thousand units while it runs.

A segment is a parquet file with a row per unit: its name, where its shard ends, the manifest rows of its samples and
its attempts. Resume reads the first two columns alone. Whoever finishes the dataset flattens the other two into the
tables, without a Python object per sample.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards import layout, ledger, manifest
from shards.store import naming

UNITS = 1000  # of a block, which becomes a segment

_SAMPLES = pa.struct([field.with_nullable(True) for field in manifest.SCHEMA])
SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("end", pa.int64()),  # bytes of the shard that its samples cover; 0: there is none
        ("samples", pa.list_(_SAMPLES)),
        ("attempts", pa.list_(pa.struct(list(ledger.SCHEMA)))),
    ]
)


def block_of(unit: str) -> int:
    """Which segment a unit belongs to, by the number that its name begins with."""
    return int(unit.partition("-")[0]) // UNITS


def name_of(block: int) -> str:
    return f"{layout.UNITS}/{block:04d}.parquet"


def table_of(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Of maps with unit, samples and attempts, as records hold them."""
    whole = [{**row, "end": end_of(row["samples"])} for row in rows]
    return pa.Table.from_pylist(whole, schema=SCHEMA)


def end_of(samples: Sequence[dict[str, Any]]) -> int:
    return max((int(row["offset"] + row["bytes"]) for row in samples), default=0)


def write(file: BinaryIO, table: pa.Table) -> None:
    pq.write_table(table, file, compression="zstd", compression_level=3, write_page_checksum=True)


def parsed(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a segment, or these columns of it; an empty one where it is damaged, or is none of ours."""
    schema = schema_of(columns)
    try:
        source = pa.BufferReader(content)
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            table = file.read(columns=schema.names)
        table.validate(full=True)
        if table.schema.equals(schema) and is_sound(table):
            return table
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        pass
    return schema.empty_table()


def schema_of(columns: Sequence[str] | None) -> pa.Schema:
    return SCHEMA if columns is None else pa.schema([SCHEMA.field(each) for each in columns])


def is_sound(table: pa.Table) -> bool:
    """Whether the columns of SCHEMA that `table` has hold all that they must: names of units, and in every sample each
    column of the manifest, of the shard of that unit.
    """
    if any(column.null_count for column in table.columns):
        return False
    if "unit" in table.column_names and not all(re.fullmatch(naming.UNIT, unit) for unit in table["unit"].to_pylist()):
        return False
    if "samples" in table.column_names:
        samples = _flat(table["samples"])
        if any(samples[name].null_count for name in manifest.SCHEMA.names):
            return False
        if "unit" in table.column_names:
            of = pc.binary_join_element_wise(
                table["unit"].combine_chunks().take(pc.list_parent_indices(table["samples"]).combine_chunks()),
                ".tar",
                "",
            )
            return bool(pc.all(pc.equal(of, samples["shard"])).as_py() is not False)
    return True


def without(table: pa.Table, units: Iterable[str]) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["unit"], pa.array(list(units), pa.string()))))


def samples_of(table: pa.Table) -> pa.Table:
    """The manifest rows of a segment's table, in its order."""
    return _flat(table["samples"]).cast(manifest.SCHEMA)


def attempts_of(table: pa.Table) -> pa.Table:
    return _flat(table["attempts"]).cast(ledger.SCHEMA)


def of_tables(attempts: pa.Table, samples: pa.Table) -> pa.Table:
    """The inverse: from rows that lie together by unit, in one order. Units whose samples are not as many as the views
    of their attempts are left out.
    """
    units = attempts["unit"].combine_chunks().dictionary_encode()
    names = units.dictionary
    attempts_each = _counts(units.indices, len(names))
    found = pc.index_in(pc.utf8_slice_codeunits(samples["shard"], 0, -4), names)  # without .tar
    samples = samples.filter(pc.is_valid(found))
    places = pc.drop_null(found).combine_chunks()
    samples_each = _counts(places, len(names))
    ends = [0] * len(names)
    for place, end in zip(places.to_pylist(), pc.add(samples["offset"], samples["bytes"]).to_pylist()):
        ends[place] = max(ends[place], end)
    views = [0] * len(names)
    for place, count in zip(units.indices.to_pylist(), attempts["views"].to_pylist()):
        views[place] += count
    table = pa.table(
        [
            names,
            pa.array(ends, pa.int64()),
            _lists(samples.select(manifest.SCHEMA.names), samples_each).cast(SCHEMA.field("samples").type),
            _lists(attempts.select(ledger.SCHEMA.names), attempts_each).cast(SCHEMA.field("attempts").type),
        ],
        schema=SCHEMA,
    )
    return table.filter(pa.array([there == wanted for there, wanted in zip(samples_each, views)], pa.bool_()))


def _flat(lists: pa.ChunkedArray) -> pa.Table:
    return (
        pa.concat_tables(pa.Table.from_struct_array(chunk.flatten()) for chunk in lists.chunks)
        if lists.length()
        else (pa.Table.from_struct_array(pa.array([], lists.type.value_type)))
    )


def _counts(places: pa.Array, size: int) -> list[int]:
    counts = [0] * size
    for entry in pc.value_counts(places).to_pylist():
        counts[entry["values"]] = entry["counts"]
    return counts


def _lists(rows: pa.Table, counts: Sequence[int]) -> pa.ListArray:
    offsets = [0]
    for count in counts:
        offsets.append(offsets[-1] + count)
    values = rows.combine_chunks().to_struct_array()
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
