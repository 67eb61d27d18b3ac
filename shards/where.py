"""`--where`: simple comparisons over manifest columns, joined by `and`. Parsed here: nothing is ever evaluated.

regime == object and z_max < 3 and coverage[3] > 0.01 and flags has untextured and asset ~ 'salt and pepper'
"""

import difflib
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_COMPARISON = re.compile(
    r"\s*(?P<column>[a-z_0-9]+)(?:\[(?P<index>\d+)\])?\s*(?P<op>==|!=|<=|>=|<|>|=|~|\bhas\b)\s*"
    r"""(?P<value>'[^']*'|"[^"]*"|[^\s'"=].*?)\s*(?P<more>\band\b|\Z)"""
)
_COMPARE = {
    "==": pc.equal,
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def select(table: pa.Table, where: str) -> pa.ChunkedArray:
    """Boolean mask over the rows of `table`. ValueError says what cannot be understood, and the nearest column."""
    mask: Any = None
    begin, more = 0, True
    while more:
        match = _COMPARISON.match(where, begin)
        if match is None:
            rest = where[begin:].strip()
            raise ValueError(f"--where: {rest!r} is not a comparison such as `z_max < 3` or `flags has untextured`")
        one = _mask(table, match)
        mask = one if mask is None else pc.and_(mask, one)
        begin, more = match.end(), bool(match["more"])
    return mask


def _mask(table: pa.Table, match: re.Match[str]) -> Any:
    name, op, value = match["column"], match["op"], match["value"].strip("'\"")
    if name not in table.column_names:
        near = difflib.get_close_matches(name, table.column_names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the columns are {', '.join(table.column_names)}"
        raise ValueError(f"--where: the manifest has no column {name!r}: {hint}")
    column = table[name]
    is_list = pa.types.is_list(column.type)
    if op == "has":
        if not is_list:
            raise ValueError(f"--where: {name} is not a list, so it `has` nothing: compare it with ==")
        return pa.array([value in entry for entry in column.to_pylist()], pa.bool_())
    if is_list != (match["index"] is not None):
        raise ValueError(f"--where: {name} is {'a list: write ' + name + '[0]' if is_list else 'not a list'}")
    if is_list:
        index = int(match["index"])
        entries = [entry[index] if index < len(entry) else None for entry in column.to_pylist()]
        column = pa.array(entries, column.type.value_type)
    if op == "~":
        if not pa.types.is_string(column.type):
            raise ValueError(f"--where: {name} is not text, so ~ (contains) does not apply")
        return pc.match_substring(column, value)
    return pc.fill_null(_COMPARE[op](column, _typed(value, column.type, name)), False)


def _typed(value: str, kind: pa.DataType, name: str) -> pa.Scalar:
    try:
        if pa.types.is_boolean(kind):
            return pa.scalar({"true": True, "false": False}[value.lower()])
        if pa.types.is_string(kind):
            return pa.scalar(value)
        if pa.types.is_floating(kind):
            return pa.scalar(float(value), kind)  # in the column's own precision: float32 0.1 is not float64 0.1
        return pa.scalar(float(value))
    except (ValueError, KeyError):
        raise ValueError(f"--where: {value!r} cannot be compared with {name}, which is {kind}") from None
