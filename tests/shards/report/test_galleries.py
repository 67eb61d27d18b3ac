"""The numbers behind the page against counting row by row, and the samples that it shows against a slow search."""

import math

import numpy as np
import pyarrow as pa
import pytest

from shards import manifest
from shards.report.charts import BINS, BOTTOM, HEIGHT, TOP, histogram, number
from shards.report.columns import columns_of
from shards.report.galleries import galleries
from shards.report.readings import Reading, drawn
from shards.summary import COLUMNS
from tests.shards.report.test_markup import Tags

RNG = np.random.default_rng(11)


def rows(count: int) -> list[dict]:
    """Manifest rows: two views of each asset, objects, scenes and single layers."""
    out = []
    for i in range(count):
        first = float(RNG.uniform(0.02, 0.5))
        shares = first * np.minimum.accumulate(RNG.uniform(0.2, 1, 6))
        shares[0] = first
        near = float(np.float32(RNG.lognormal(0, 0.1) * (30 if i == 17 else 1)))
        out.append(
            {
                "shard": "000000-x.tar",
                "bytes": int(RNG.integers(9_000, 12_000)) * (1 + i % 3) * (5 if i == 23 else 1),
                "asset_sha256": f"{i // 2:064x}",
                "height": 64,
                "width": 48,
                "layers": 6 if i % 5 else 3,
                "frames": 1 + i % 3,
                "regime": ("object", "object", "scene", "rgbd")[i % 4],
                "source": "s",
                "licence": "CC0-1.0",
                "split": "train",
                "single_layer": i % 4 == 3,
                "coverage": shares[: 6 if i % 5 else 3].tolist(),
                "z_min": near,
                "z_max": near + 0.5,
                "flags": [[], ["b"], ["a", "b"], []][i % 4],
                "overflow": i % 7,
            }
        )
    return out


def table(each: list[dict]) -> pa.Table:
    whole = pa.Table.from_pylist(each, pa.schema([manifest.SCHEMA.field(name) for name in COLUMNS]))
    return pa.concat_tables([whole.slice(0, 13), whole.slice(13)])


def test_columns_are_those_of_the_rows() -> None:
    each = rows(60)
    columns = columns_of(table(each))
    assert len(columns) == 60
    for i, row in enumerate(each):
        shares = columns.coverage[i]
        np.testing.assert_allclose(shares[: row["layers"]], row["coverage"], rtol=1e-6)
        assert np.isnan(shares[row["layers"] :]).all()
        assert (columns.frames[i], columns.pixels[i], columns.part[i]) == (row["frames"], 64 * 48, row["bytes"])
        assert columns.flagged[i] == bool(row["flags"])
        assert columns.in_box[i] == (row["regime"] == "object")
    assert {flag: found.tolist() for flag, found in columns.flags.items()} == {
        flag: [i for i, row in enumerate(each) if flag in row["flags"]] for flag in ("a", "b")
    }
    assert columns.views_per_asset.tolist() == [2] * 30


def test_layers_beyond_all_measure_are_refused() -> None:
    each = rows(3)
    each[1]["coverage"] = [0.1] * 256
    with pytest.raises(ValueError, match="256 layers: rebuild it"):
        columns_of(table(each))


def test_every_gallery_shows_what_it_says() -> None:
    each = rows(80)
    columns = columns_of(table(each))
    readings = [Reading(row, f"k{row}", agreement=0.99 - 0.01 * row) for row in drawn(80, "x", 30)]
    found = {gallery.name: gallery for gallery in galleries(columns, readings, 5)}

    def first_of_each(order: list[int]) -> list[int]:
        assets: list[str] = []
        kept = []
        for row in order:
            if each[row]["asset_sha256"] not in assets:
                assets.append(each[row]["asset_sha256"])
                kept.append(row)
        return kept[:5]

    layered = [i for i, row in enumerate(each) if not (row["flags"] or row["overflow"] or row["single_layer"])]
    depth = {i: sum(each[i]["coverage"]) / each[i]["coverage"][0] for i in layered}
    assert found["best"].rows == first_of_each(sorted(layered, key=lambda i: -depth[i]))
    over = [i for i, row in enumerate(each) if row["overflow"]]
    share = {i: each[i]["overflow"] / each[i]["frames"] for i in over}
    assert found["overflow"].rows == first_of_each(sorted(over, key=lambda i: (-share[i], i)))
    assert found["depth"].rows[0] == 17
    assert found["large"].rows == [23]
    middle = np.median([row["coverage"][0] for row in each])
    small = sorted(range(80), key=lambda i: each[i]["coverage"][0])
    assert found["small"].rows == first_of_each([i for i in small if each[i]["coverage"][0] < middle / 2])
    layered_read = [r for r in readings if not each[r.row]["single_layer"]]
    worst = sorted(layered_read, key=lambda r: r.agreement)
    assert found["alpha"].rows == first_of_each([r.row for r in worst])
    for name, gallery in found.items():
        assert 0 < len(gallery.rows) <= 5
        assert len(gallery.values) == len(gallery.rows)
        assert len({each[row]["asset_sha256"] for row in gallery.rows}) == len(gallery.rows)
        if name.startswith("flag-"):
            assert all(gallery.title.removeprefix("Flag: ") in each[row]["flags"] for row in gallery.rows)
    assert [found[f"flag-{i}"].title for i in range(2)] == ["Flag: b", "Flag: a"]


def test_drawn_rows_are_a_function_of_the_dataset() -> None:
    many = drawn(17_000_000, "one")
    assert len(set(many.tolist())) == len(many) == 200
    assert (many == drawn(17_000_000, "one")).all()
    assert (many != drawn(17_000_000, "two")).any()
    assert np.histogram(many, bins=4, range=(0, 17_000_000))[0].min() > 20
    assert drawn(7, "one").tolist() == list(range(7))


def test_bars_are_as_high_as_their_counts() -> None:
    values = np.concatenate([RNG.normal(3, 1, 900), [np.nan]])
    svg = Tags(histogram(values, "title"))
    bars = [float(at["height"] or 0) for name, at in svg.tags if name == "rect"]
    counts = np.histogram(values[:-1], bins=BINS)[0]
    full = HEIGHT - TOP - BOTTOM
    expected = [max(full * n / counts.max(), 1.0) for n in counts if n]
    np.testing.assert_allclose(bars, expected, atol=0.06)
    assert "900 samples" in svg.words


@pytest.mark.parametrize(
    ("values", "words"),
    [([], "no samples"), ([0.0, 0.0], "none of 2 samples is above 0"), ([2.0], "2 to 2"), ([0, 1, 1e9], "2 samples")],
)
def test_a_chart_of_nothing_or_of_one_value_says_so(values: list[float], words: str) -> None:
    assert words in Tags(histogram(np.array(values), "title", log=True)).words


def test_numbers_keep_three_digits() -> None:
    shown = {0.0: "0", 0.12345: "0.123", 12.345: "12.3", 12345.6: "12,300", 1.5: "1.5", -0.004: "-0.004"}
    assert {value: number(value) for value in shown} == shown
    for value in 10 ** RNG.uniform(-6, 9, 200):
        assert math.isclose(float(number(value).replace(",", "")), value, rel_tol=5e-3)
