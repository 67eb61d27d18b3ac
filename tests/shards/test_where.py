"""`--where` selects what it says, and says what it cannot understand."""

import pyarrow as pa
import pytest

from shards.where import select

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
        ("regime == object", [0, 2]),
        ("regime='object'", [0, 2]),
        ("regime != object", [1]),
        ("z_max < 2", [0]),
        ("z_max<=2 and z_max >= 1.5", [1]),
        ("views > 2", [2]),
        ("views == 2.5", []),
        ("single_layer == True", [0]),
        ("coverage[1] > 0.05", [0, 2]),
        ("coverage[9] > 0", []),
        ("flags has untextured and coverage[0] > 0.4", [0]),
        ("key ~ chair", [0, 1]),
        ("asset == 'salt and pepper.glb'", [0]),
        ('views < 3 and asset == "it\'s and.glb" and key ~ chair', [1]),
        ("asset ~ 'and'", [0, 1]),
        ("asset ~ and", [0, 1]),
        ("asset == it's", []),
        ("near == 0.1", [0]),
        ("near <= 0.1", [0]),
        ("near > 0.1 and near != 0.3", [1]),
        ("coverage[0] == 0.3", [2]),
    ],
)
def test_comparisons(where: str, rows: list[int]) -> None:
    assert [i for i, chosen in enumerate(select(TABLE, where).to_pylist()) if chosen] == rows


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("z_mx < 2", "did you mean z_max"),
        ("something", "not a comparison"),
        ("", "not a comparison"),
        ("z_max < 3 and", "not a comparison"),
        ("key == 'chair", "not a comparison"),
        ("key == 'chair' or views > 2", "not a comparison"),
        ("__import__('os')", "not a comparison"),
        ("z_max < near", "cannot be compared"),
        ("single_layer == 7", "cannot be compared"),
        ("coverage > 0.1", r"coverage\[0\]"),
        ("z_max[0] > 1", "not a list"),
        ("regime has x", "not a list"),
        ("z_max ~ 3", "not text"),
    ],
)
def test_what_is_not_understood_is_named(where: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        select(TABLE, where)
