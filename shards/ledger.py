"""`ledger.parquet`: a row per asset and attempt, or per group of frames that an importer read; what became of it.

The render job, the importers and the operations on datasets all write it through `LedgerWriter`, a batch at a time.
It is sealed (seal.py). It holds times and names of hosts, so it differs from run to run, unlike the rest of a
dataset; samples can be read without it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from .printable import printable
from .seal import sealing

Status = Literal["done", "rejected", "failed"]

SCHEMA = pa.schema(
    [
        ("unit", pa.string()),  # the name of its shard without .tar
        ("asset", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("sha256", pa.string()),
        ("attempt", pa.int32()),  # from 1
        ("status", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("views", pa.int32()),  # samples written
        ("views_rejected", pa.list_(pa.string())),  # "view:reason"
        ("flags", pa.list_(pa.string())),
        ("seconds_fetch", pa.float64()),
        ("seconds_load", pa.float64()),
        ("seconds_render", pa.float64()),
        ("seconds_encode", pa.float64()),
        ("seconds_commit", pa.float64()),
        ("peak_memory", pa.int64()),  # bytes
        ("started", pa.float64()),  # seconds since 1970
        ("host", pa.string()),
        ("node", pa.string()),
        ("moments", pa.list_(pa.float64())),  # of the unit's samples, on its last row
    ]
)

ROWS = 1 << 14  # that are looked at together
LONGEST = 4096  # characters of a text: a path has as many


def row(
    *,
    unit: str,
    asset: str,
    source: str,
    licence: str,
    status: Status,
    attempt: int = 1,
    reason: str | None = None,
    message: str | None = None,
    views: int = 0,
    views_rejected: Sequence[str] = (),
    flags: Sequence[str] = (),
    sha256: str | None = None,
    seconds_load: float = 0.0,
    seconds_encode: float = 0.0,
) -> dict[str, Any]:
    """A row for who is not the render job; its texts are such as any table and terminal can hold."""
    texts = {"unit": unit, "asset": asset, "source": source, "licence": licence, "status": status, "reason": reason}
    return {
        **{name: None if text is None else plain(text) for name, text in (*texts.items(), ("message", message))},
        "sha256": sha256,
        "attempt": attempt,
        "views": views,
        "views_rejected": [plain(text) for text in views_rejected],
        "flags": [plain(text) for text in flags],
        "seconds_load": seconds_load,
        "seconds_encode": seconds_encode,
    }


def plain(text: str) -> str:
    """`text` as the ledger holds it: one printable line of LONGEST characters at most."""
    return printable(text, LONGEST)


class LedgerWriter:
    """ledger.parquet as a stream, into any binary file. Holds no more than ROWS rows."""

    def __init__(self, file: BinaryIO) -> None:
        self.sealing, sealed = sealing(file)
        self.writer = pq.ParquetWriter(sealed, SCHEMA, compression="zstd", write_page_checksum=True)
        self.waiting: list[pa.Table] = []
        self.rows = 0

    def __enter__(self) -> "LedgerWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            self._flush()
            self.sealing.close_sealed(self.writer)
        else:
            with suppress(Exception):  # the first error counts, and the file is thrown away
                self.writer.close()

    def write(self, rows: pa.Table | Iterable[Mapping[str, Any]]) -> None:
        """Rows in the order given; columns that they lack are null, others than those of SCHEMA are dropped."""
        if isinstance(rows, pa.Table):
            table = with_columns(rows, SCHEMA)
        else:
            try:
                table = pa.Table.from_pylist([dict(each) for each in rows], schema=SCHEMA)
            except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
                raise ValueError(f"a row of the ledger does not fit its schema: {error}") from None
        self.waiting.append(table)
        self.rows += len(table)
        if self.rows >= ROWS:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            self.writer.write_table(pa.concat_tables(self.waiting))
        self.waiting, self.rows = [], 0


def batches(file: BinaryIO, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Tables of SCHEMA (or of these columns of it) of at most ROWS rows. ValueError in one line where it is damaged.

    Columns that an older version did not know are null.
    """
    schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as table:
            there = [name for name in schema.names if name in table.schema_arrow.names]
            for batch in table.iter_batches(ROWS, columns=there):
                yield with_columns(pa.Table.from_batches([batch]), schema)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the ledger is damaged ({first}): restore ledger.parquet from a copy") from None


def rows(file: BinaryIO, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Its rows as dictionaries, a batch in memory at a time."""
    for table in batches(file, columns):
        yield from table.to_pylist()


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with the columns of `schema`, null where it lacks them."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
