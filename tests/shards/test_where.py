"""`--where` selects what it says, and says what it cannot understand."""

import numpy as np
import pyarrow as pa
import pytest

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
        ("Z_MAX = (select max(z_max) from manifest)", [2]),
        ("true", [0, 1, 2]),
    ],
)
def test_conditions(where: str, rows: list[int]) -> None:
    assert np.flatnonzero(select(TABLE, where)).tolist() == rows
    used = columns_used(where, TABLE.schema)
    assert np.flatnonzero(select(TABLE.select(used), where)).tolist() == rows


def test_only_the_columns_spoken_of_are_used() -> None:
    assert columns_used("L1 > 0.05 and key like 'z_max%'", TABLE.schema) == ["key", "z_max", "coverage"]
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
        ("exists (select * from read_csv('/etc/hostname'))", "disabled"),
        ("exists (select * from TABLE_OF_PYTHON)", "does not exist"),
        ("key > 3", "not understood"),
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
