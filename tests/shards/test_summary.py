"""The numbers of a dataset are those of its rows, counted one by one."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from shards import manifest
from shards.summary import COLUMNS, summarise

RNG = np.random.default_rng(5)


def rows(count: int) -> list[dict]:
    """Manifest rows of all kinds, with what the summary reads."""
    out = []
    for i in range(count):
        regime = ("object", "scene", "dynamic", "rgbd")[i % 4]
        layers = 6 if i % 3 else 4
        near = float(np.float32(RNG.uniform(0.5, 2)))
        out.append(
            {
                "shard": f"{i // 5:06d}-x.tar",
                "bytes": int(RNG.integers(1000, 90000)),
                "asset_sha256": f"{i // 2:064x}",
                "height": 504 if i % 5 else 336,
                "width": 504,
                "layers": layers,
                "frames": 1 + 3 * (regime == "dynamic"),
                "regime": regime,
                "source": "procedural:rooms" if i % 8 == 2 else f"source {i % 3}",
                "licence": "CC0-1.0",
                "split": "train",
                "single_layer": regime == "rgbd",
                "coverage": RNG.uniform(0, 1, layers).tolist(),
                "z_min": near if i % 7 else 0.0,
                "z_max": near + (2.5 if i % 12 == 6 else 1.0) if i % 7 else 0.0,
                "flags": [["b"], [], ["a", "b"]][i % 3],
                "overflow": i % 4,
            }
        )
    return out


def test_counts_are_those_of_the_rows() -> None:
    each = rows(120)
    schema = pa.schema([manifest.SCHEMA.field(name) for name in COLUMNS])
    whole = pa.Table.from_pylist(each, schema)
    found = summarise(pa.concat_tables([whole.slice(0, 50), whole.slice(50)]))
    assert (found.samples, found.frames) == (120, sum(row["frames"] for row in each))
    assert found.bytes == sum(row["bytes"] for row in each)
    assert (found.shards, found.assets) == (24, 60)
    for name in ("regime", "source", "layers", "frames"):
        assert found.counts[name] == {str(k): n for k, n in Counter(row[name] for row in each).items()}
    assert found.counts["size"] == {"504x504": 96, "336x504": 24}
    assert list(found.counts["source"].values()) == sorted(found.counts["source"].values(), reverse=True)
    assert found.flags == {"b": 80, "a": 40}
    assert found.overflowing == 90
    assert found.single_layer == 30
    sizes = [row["bytes"] / row["frames"] for row in each]
    assert found.bytes_a_frame == pytest.approx((np.mean(sizes), np.median(sizes), max(sizes)))
    seen = [row for row in each if row["z_max"] > 0]
    assert found.depth == pytest.approx((min(row["z_min"] for row in seen), max(row["z_max"] for row in seen)))

    def in_box(row: dict) -> bool:
        clip = row["regime"] == "dynamic" and row["source"] != "procedural:rooms"
        return row["regime"] == "object" or (clip and row["z_max"] - row["z_min"] < 2)

    kinds = {"objects": [row for row in each if in_box(row)]}
    for row in each:
        if not in_box(row):
            kinds.setdefault({"dynamic": "clips in metres"}.get(row["regime"], row["regime"]), []).append(row)
    assert found.objects is not None
    for kind, coverage in {"objects": found.objects, **found.metres}.items():
        members = kinds.pop(kind)
        assert coverage.samples == len(members)
        for l in range(6):
            known = [100 * row["coverage"][l] for row in members if l < row["layers"]]
            want = np.mean(known), np.median(known), np.percentile(known, 90)
            assert (coverage.mean[l], coverage.median[l], coverage.p90[l]) == pytest.approx(want)
    assert not kinds
    assert "clips in metres" in found.metres


def test_dictionary_columns_are_the_same() -> None:
    schema = pa.schema([manifest.SCHEMA.field(name) for name in COLUMNS])
    table = pa.Table.from_pylist(rows(40), schema)
    coded = table
    for name in ("shard", "source", "regime", "licence", "split"):
        place = coded.column_names.index(name)
        coded = coded.set_column(place, name, coded[name].dictionary_encode())
    a, b = summarise(table), summarise(coded)
    assert (a.counts, a.shards, a.flags, a.metres.keys()) == (b.counts, b.shards, b.flags, b.metres.keys())


def test_nothing_has_no_summary() -> None:
    schema = pa.schema([manifest.SCHEMA.field(name) for name in COLUMNS])
    with pytest.raises(ValueError, match="empty"):
        summarise(schema.empty_table())
