"""`--where` selects what it says, and says what it cannot understand."""

import time

import numpy as np
import pyarrow as pa
import pytest

from shards.condition import FUNCTIONS
from shards.where import columns_used, select

TABLE = pa.table(
    {
        "asset": ["salt and pepper.glb", "it's and.glb", "salt"],
        "key": ["chair-1", "chair-2", "lamp-1"],
        "regime": ["object", "scene", "object"],
        "z_max": pa.array([1.0, 2.0, 3.0], pa.float32()),
        "near": pa.array([0.1, 0.2, 0.3], pa.float32()),
        "views": pa.array([1, 2, 3], pa.int32()),
        "single_layer": [True, False, False],
        "coverage": [[0.5, 0.1], [0.2], [0.3, 0.3]],
        "flags": [["untextured"], [], ["a", "untextured"]],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("regime = 'object'", [0, 2]),
        ("regime != 'object'", [1]),
        ("z_max < 2", [0]),
        ("z_max<=2 and z_max >= 1.5", [1]),
        ("z_max < 2 or views > 2", [0, 2]),
        ("not (views > 2)", [0, 1]),
        ("views = 2.5", []),
        ("single_layer", [0]),
        ("L1 > 0.05", [0, 2]),
        ("l1 > 0.05", [0, 2]),
        ("coverage[2] > 0.05", [0, 2]),
        ("L9 > 0", []),
        ("list_contains(flags, 'untextured') and L0 > 0.4", [0]),
        ("flags = []", [1]),
        ("key like 'chair%' -- a remark", [0, 1]),
        ("asset = 'salt and pepper.glb'", [0]),
        ("views < 3 and asset = 'it''s and.glb' and key ~ 'chair.*'", [1]),
        ("asset in ('salt', 'pepper')", [2]),
        ("near = 0.1", [0]),
        ("near <= 0.1", [0]),
        ("near > 0.1 and near != 0.3", [1]),
        ("Z_MAX = 3", [2]),
        ("list_filter(flags, lambda near: near like 'un%') != []", [0, 2]),
        ("coverage[1] = 0.2 or coverage[1:1] = [0.3]", [1, 2]),
        ("(regime, views) in (('object', 3), ('scene', 1))", [2]),
        ("case when single_layer then L0 > 0.4 else key ilike 'CHAIR%' end", [0, 1]),
        ("true", [0, 1, 2]),
    ],
)
def test_conditions(where: str, rows: list[int]) -> None:
    assert np.flatnonzero(select(TABLE, where)).tolist() == rows
    used = columns_used(where, TABLE.schema)
    assert np.flatnonzero(select(TABLE.select(used), where)).tolist() == rows


def test_only_the_columns_spoken_of_are_used() -> None:
    assert columns_used("L1 > 0.05 and key like 'z_max%'", TABLE.schema) == ["key", "coverage"]
    assert columns_used("true", TABLE.schema) == ["asset"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("z_mx < 2", "z_max"),
        ("regime = object", "single quotes"),
        ("", "is empty"),
        ("z_max < 3 and", "not understood"),
        ("key = 'chair", "not understood"),
        ("true; drop table manifest", "not understood"),
        ("true); select (1", "more than a condition"),
        ("true) UNION ALL SELECT 1000000 FROM manifest WHERE (true", "more than a condition"),
        ("true) LIMIT (1", "more than a condition"),
        ("true) FROM manifest WHERE (false", "more than a condition"),
        ("true), (false", "more than a condition"),
        ("exists (select * from read_csv('/etc/hostname'))", "a subquery"),
        ("exists (select * from TABLE_OF_PYTHON)", "a subquery"),
        ("z_max = (select max(z_max) from manifest)", "a subquery"),
        ("views = any(coverage)", "a subquery"),
        ("COLUMNS('z_.*') > 1", "a star"),
        ("* is null", "a star"),
        ("row_number() over () < 2", "a window"),
        ("$1 = 1", "a parameter"),
        ("unnamed_subquery::varchar like '%chair%'", "no column unnamed_subquery"),
        ("len(list_filter(flags, lambda manifest: true)) >= 0 and manifest::varchar = ''", "no column manifest"),
        ("__row = 1", "no column __row"),
        ("key.contains('chair')", "write it as contains"),
        ("key -> '$.a' is null", "an arrow"),
        ("list_filter(flags, lambda x: list_filter(flags, lambda y: x = y) = []) = []", "lambda in a lambda"),
        ("key > 3", "not understood"),
        ("+".join(["views"] * 3000) + " > 1", "not understood"),
    ],
)
def test_what_is_not_understood_is_named(where: str, words: str) -> None:
    TABLE_OF_PYTHON = TABLE  # noqa: F841  DuckDB would find it by its name
    with pytest.raises(ValueError, match=words) as caught:
        select(TABLE, where)
    assert "\n" not in str(caught.value)


def test_many_rows_keep_their_order() -> None:
    """DuckDB works on parts of a table in parallel."""
    n = 300_000
    table = pa.table({"key": [f"k{i}" for i in range(n)], "z_max": np.arange(n, dtype=np.float32)})
    mask = select(table, "cast(z_max as integer) % 3 = 1")
    assert np.array_equal(mask, np.arange(n) % 3 == 1)


@pytest.mark.parametrize("name", ["random()", "uuid()", "now()", "today()", "current_date()", "txid_current()"])
def test_what_could_differ_from_rank_to_rank_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="none of the functions"):
        columns_used(f"{name} is not null", TABLE.schema)
    with pytest.raises(ValueError, match=r"no column current_timestamp|casts to"):
        columns_used("current_timestamp is null or '2020-01-01'::timestamptz is null", TABLE.schema)


def test_every_function_of_a_condition_is_known_to_duckdb_and_the_same_every_time() -> None:
    """Its own word on them: `stability`. Those without are macros over such functions."""
    import duckdb

    query = (
        "select function_name, list(distinct coalesce(stability, function_type)) from duckdb_functions() group by all"
    )
    stable = dict(duckdb.sql(query).fetchall())
    assert set(stable) >= FUNCTIONS
    assert {kind for name in FUNCTIONS & set(stable) for kind in stable[name]} <= {"CONSISTENT", "macro"}


@pytest.mark.parametrize("where", ["repeat(key, 1000000000) = key", "list_sum(range(1000000000)) > 0", "2 ** 9 > 1"])
def test_functions_that_make_much_of_little_are_refused(where: str) -> None:
    with pytest.raises(ValueError, match="none of the functions"):
        select(TABLE, where)


def test_a_condition_that_takes_too_long_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"key": [f"k{i}" for i in range(100_000)]})
    slow = f"{'md5(' * 150}key{')' * 150} = ''"
    assert not select(table.slice(0, 10), slow).any()
    monkeypatch.setattr("shards.where.SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(ValueError, match="took longer than"):
        select(table, slow)
    assert time.monotonic() - began < 5
