"""`--where`: an SQL condition over the columns of the manifest, in DuckDB's dialect.

    regime = 'object' and z_max < 3 and L3 > 0.01 and list_contains(flags, 'untextured')
    asset like '%chair%' or source in ('objaverse', 'gso')

`L0`, `L1`, ... stand for the entries of `coverage` (which SQL itself counts from 1). Whether a row is chosen depends on
that row alone (shards/condition.py): every rank of a training, on whatever machine, selects the same rows, and so does
a reader that has loaded no more than the columns in question.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .condition import understood

if TYPE_CHECKING:
    import duckdb

SECONDS = 120  # for one selection: 17 million rows take 2
MEMORY = "4GB"
_ROW = "__row"


def columns_used(where: str, schema: pa.Schema) -> list[str]:
    """Those columns of a manifest that the condition speaks of, so that a reader need not load all of them.

    At least one, as a table without columns has no rows. ValueError as of `select`, before anything is read.
    """
    select(schema.empty_table(), where)
    with _connected() as connection:
        used = understood(where, schema.names, connection).columns
    return [name for name in schema.names if name in used] or schema.names[:1]


def select(table: pa.Table, where: str) -> np.ndarray:
    """Rows of `table` for which the condition holds: (n,) bool. ValueError says what cannot be understood.

    `table` may be no more than the columns of `columns_used`. Where the condition is neither true nor false (a layer
    that a sample does not have), the row is left out, as SQL does.
    """
    import duckdb  # 50 ms, which reading a dataset need not wait for

    rows = table.append_column(_ROW, pa.array(np.arange(len(table))))
    with _connected() as connection:
        condition = understood(where, table.column_names, connection)
        named = "".join(f", coverage[{l + 1}] AS L{l}" for l in condition.layers)
        connection.register("manifest", rows)
        try:
            with _limited(connection):
                chosen = connection.execute(
                    f"SELECT {_ROW} FROM (SELECT *{named} FROM manifest) WHERE (\n{where}\n)"
                ).fetchnumpy()[_ROW]
        except duckdb.InterruptException:
            raise ValueError(f"--where: {where!r} took longer than {SECONDS} seconds: ask for less") from None
        except duckdb.Error as error:
            raise ValueError(f"--where: {where!r} is not understood: {_reason(str(error))}") from None
    mask = np.zeros(len(table), bool)
    mask[np.asarray(chosen, np.int64)] = True
    return mask


@contextmanager
def _connected() -> "Iterator[duckdb.DuckDBPyConnection]":
    """A DuckDB without files, network and settings of this machine."""
    import duckdb

    with duckdb.connect(
        config={"enable_external_access": "false", "threads": "2", "memory_limit": MEMORY, "temp_directory": ""}
    ) as connection:
        connection.execute("SET python_enable_replacements = false; SET lock_configuration = true")
        yield connection


@contextmanager
def _limited(connection: "duckdb.DuckDBPyConnection") -> Iterator[None]:
    """What runs on the connection is interrupted after SECONDS."""
    timer = threading.Timer(SECONDS, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # an interrupt that is under way must not meet a closed connection


def _reason(message: str) -> str:
    """DuckDB's complaint in a sentence, without its picture of the place."""
    return " ".join(message.partition("\n\nLINE")[0].split())
