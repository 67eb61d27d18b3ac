"""What a `--where` condition may say: an SQL expression over one row of the manifest, and nothing that could differ
between two machines that read the same row.

DuckDB parses it, and every part of what it found must be known here. So a condition cannot ask for the time, for
chance, for a setting, for another row or for a file, and its work and memory are bounded by its length: functions that
make much of little (`repeat`, `range`, `replace`) are not among those below. Nor are `exp`, `ln` and powers, whose
last bit depends on the machine, nor `hash`, which DuckDB may change; `md5_number_lower` it may not.
"""

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

LAYER = re.compile(r"L(\d{1,3})\Z", re.IGNORECASE)
_CLASSES = "COMPARISON CONJUNCTION OPERATOR BETWEEN CASE CAST TYPE CONSTANT COLUMN_REF FUNCTION LAMBDA"
_FUNCTIONS = """
    + - * / // % & | << >> xor abs ceil ceiling floor round trunc sign sqrt mod greatest least isnan isinf isfinite
    || ~~ !~~ ~~* !~~* ~~~ ~ ^@ like_escape not_like_escape ilike_escape not_ilike_escape concat
    contains starts_with prefix ends_with suffix regexp_matches regexp_full_match regexp_extract
    lower lcase upper ucase length len strlen trim ltrim rtrim substring substr left right split_part string_split
    str_split instr position strpos md5 md5_number_lower md5_number_upper sha256
    @> <@ && list_contains array_contains list_has array_has list_has_any array_has_any list_has_all array_has_all
    list_value row array_length list_position array_position list_indexof list_extract array_extract struct_extract
    list_slice array_slice list_sum list_avg list_min list_max list_count list_first list_last list_median list_sort
    array_sort list_distinct array_distinct list_unique list_reverse list_filter array_filter array_to_string
    nullif if
"""
_TYPES = """
    boolean bool tinyint int1 smallint int2 short integer int int4 signed bigint int8 long hugeint utinyint usmallint
    uinteger ubigint uhugeint float float4 real double float8 decimal numeric varchar text string char bpchar list array
"""
CLASSES, FUNCTIONS, TYPES = (frozenset(words.split()) for words in (_CLASSES, _FUNCTIONS, _TYPES))
_OTHERS = {
    "SUBQUERY": "a subquery (or `any`, `all`)",
    "STAR": "a star, or COLUMNS",
    "WINDOW": "a window function",
    "PARAMETER": "a parameter",
    "COLLATE": "a collation (ilike ignores case)",
}


@dataclass(frozen=True)
class Condition:
    """The columns that it speaks of, as the schema spells them, and the layers whose coverage it asks for."""

    columns: frozenset[str]
    layers: tuple[int, ...]


def understood(where: str, names: Sequence[str], connection: "duckdb.DuckDBPyConnection") -> Condition:
    """The condition over columns of these `names`. ValueError says what it may not hold, or what is not known."""
    if not where.strip():
        raise ValueError("--where is empty: give a condition such as \"z_max < 3 and regime = 'object'\"")
    try:
        expression = _expression(where, connection)
        return _checked(expression, {name.lower(): name for name in names})
    except RecursionError:
        raise ValueError(f"--where: {_short(where)} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"--where: {_short(where)} {error}") from None


def _expression(where: str, connection: "duckdb.DuckDBPyConnection") -> Any:
    """The tree of the expression. It stands alone in its parentheses: the rest is that of `SELECT (true)`."""
    node = _parsed(where, connection)
    alone = _parsed("true", connection)
    expressions = node.pop("select_list", ())
    alone.pop("select_list")
    if len(expressions) != 1 or _placeless(node) != _placeless(alone):
        raise ValueError("is more than a condition: it is one expression, without UNION, LIMIT and the like")
    return expressions[0]


def _parsed(where: str, connection: "duckdb.DuckDBPyConnection") -> dict[str, Any]:
    # the condition ends in a line of its own, so that a comment in it comments nothing else out
    found = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT (\n{where}\n)"]).fetchall()
    whole = json.loads(found[0][0])
    if whole["error"]:
        raise ValueError(f"is not understood: {whole.get('error_message', 'it is no SQL expression')}")
    if len(whole["statements"]) != 1:
        raise ValueError("is more than a condition: no ; may stand in it")
    return dict(whole["statements"][0]["node"])


def _placeless(node: Any) -> Any:
    """Without where in the text it stands."""
    if isinstance(node, dict):
        return {name: _placeless(value) for name, value in node.items() if not name.startswith("query_location")}
    return [_placeless(value) for value in node] if isinstance(node, list) else node


def _checked(expression: Any, names: dict[str, str]) -> Condition:
    columns: set[str] = set()
    layers: set[int] = set()
    left: list[tuple[Any, frozenset[str]]] = [(expression, frozenset())]  # with the names that a lambda gives there
    while left:
        node, given = left.pop()
        if isinstance(node, list):
            left += [(child, given) for child in node]
            continue
        if not isinstance(node, dict):
            continue
        kind = node.get("class")
        if kind is not None and kind not in CLASSES:
            raise ValueError(f"holds {_OTHERS.get(kind, kind.lower())}: a condition speaks of the columns of one row")
        if kind == "COLUMN_REF":
            _name(node["column_names"][0], names, given, columns, layers)
        elif kind == "FUNCTION":
            _function(node)
        elif kind == "TYPE" and str(node.get("type_name", "")).lower() not in TYPES:
            raise ValueError(f"casts to {node.get('type_name')}: to numbers, varchar, boolean and lists of them it may")
        elif kind == "LAMBDA":
            if node.get("syntax_type") != "LAMBDA_KEYWORD" or given:
                raise ValueError("holds an arrow, or a lambda in a lambda: write list_filter(flags, lambda x: ...)")
            given = frozenset(_parameters(node["lhs"]))
            node = {"expr": node["expr"]}
        left += [(child, given) for child in node.values()]
    return Condition(frozenset(columns), tuple(sorted(layers)))


def _name(name: str, names: dict[str, str], given: frozenset[str], columns: set[str], layers: set[int]) -> None:
    """A lambda's name may hide a column: it is loaded all the same, so that what is loaded never changes a meaning."""
    layer = LAYER.match(name)
    if name.lower() in names:
        columns.add(names[name.lower()])
    elif layer and "coverage" in names:
        columns.add(names["coverage"])
        layers.add(int(layer[1]))
    elif name.lower() not in given:
        near = difflib.get_close_matches(name.lower(), names, n=1)
        meant = f"did you mean {names[near[0]]}?" if near else f"there are {', '.join(names.values())}."
        raise ValueError(
            f"is not understood: there is no column {name}: {meant} Texts stand in single quotes, as in "
            "regime = 'object'"
        )


def _function(node: dict[str, Any]) -> None:
    name = str(node["function_name"]).lower()
    if node.get("schema") or node.get("catalog"):
        raise ValueError(f"calls {node['function_name']} of something: write it as {name}(...)")
    if name not in FUNCTIONS:
        near = difflib.get_close_matches(name, FUNCTIONS, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"calls {name}, which is none of the functions that a condition may call{meant}")


def _parameters(lhs: Any) -> list[str]:
    """`x` or `x, i` of a lambda."""
    if lhs.get("class") == "COLUMN_REF":
        return [str(lhs["column_names"][0]).lower()]
    return [name for argument in lhs.get("arguments", ()) for name in _parameters(argument.get("expression", argument))]


def _short(where: str) -> str:
    """The condition as it is quoted in a message."""
    return repr(where if len(where) <= 200 else f"{where[:120]}…{where[-60:]}")
