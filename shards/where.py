"""`--where`: an SQL condition over the columns of the manifest, in DuckDB's dialect.

    regime = 'object' and z_max < 3 and L3 > 0.01 and list_contains(flags, 'untextured')
    asset like '%chair%' or source in ('objaverse', 'gso')

`L0`, `L1`, ... stand for the entries of `coverage` (which SQL itself counts from 1). DuckDB sees the manifest and
nothing else: no file, no network, no other statement.
"""

import re

import numpy as np
import pyarrow as pa

LAYER = re.compile(r"\bL(\d{1,3})\b", re.IGNORECASE)
_ROW = "__row"


def columns_used(where: str, schema: pa.Schema) -> list[str]:
    """Those columns of a manifest that the condition may speak of, so that a reader need not load all of them.

    At least one, as a table without columns has no rows. ValueError as of `select`, before anything is read.
    """
    select(schema.empty_table(), where)
    words = {word.lower() for word in re.findall(r"\w+", where)}
    if LAYER.search(where):
        words.add("coverage")
    return [name for name in schema.names if name.lower() in words] or schema.names[:1]


def select(table: pa.Table, where: str) -> np.ndarray:
    """Rows of `table` for which the condition holds: (n,) bool. ValueError says what cannot be understood.

    `table` may be no more than the columns of `columns_used`. Where the condition is neither true nor false (a layer
    that a sample does not have), the row is left out, as SQL does.
    """
    import duckdb  # 50 ms, which reading a dataset need not wait for

    if not where.strip():
        raise ValueError("--where is empty: give a condition such as \"z_max < 3 and regime = 'object'\"")
    rows = table.append_column(_ROW, pa.array(np.arange(len(table))))
    layers = sorted({int(number) for number in LAYER.findall(where)}) if "coverage" in table.column_names else []
    named = "".join(f", coverage[{l + 1}] AS L{l}" for l in layers)
    # the condition ends in a line of its own, so that a comment in it comments nothing else out
    query = f"SELECT {_ROW} FROM (SELECT *{named} FROM manifest) WHERE (\n{where}\n)"
    with duckdb.connect(config={"enable_external_access": "false", "threads": "2"}) as connection:
        connection.execute("SET python_enable_replacements = false; SET lock_configuration = true")
        connection.register("manifest", rows)
        try:
            if len(connection.extract_statements(query)) != 1:
                raise ValueError(f"--where: {where!r} is more than a condition: no ; may stand in it")
            chosen = connection.execute(query).fetchnumpy()[_ROW]
        except duckdb.Error as error:
            raise ValueError(f"--where: {where!r} is not understood: {_reason(str(error))}") from None
    mask = np.zeros(len(table), bool)
    mask[np.asarray(chosen, np.int64)] = True
    return mask


def _reason(message: str) -> str:
    """DuckDB's complaint in a sentence, without its picture of the place, and with what is mostly meant."""
    text = " ".join(message.partition("\n\nLINE")[0].split())
    if "Referenced column" in text:
        text += "; texts stand in single quotes, as in regime = 'object'"
    return text
