"""Which samples go where: filters, splits and merges, and what may not be mixed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import shards
from shards import encode, ledger, write_manifest, write_shard
from shards.rewrite import choice
from shards.rewrite.inputs import open_input
from shards.rewrite.plan import Cut
from tests.shards.rewrite.rewriting import made, samples
from tests.shards.scenes import spheres_view


def test_a_filter_keeps_what_it_says_and_a_filter_of_all_keeps_all(source: Path, tmp_path: Path) -> None:
    one = open_input(source)
    made("filter", [one], [choice.where(one, "true")], tmp_path / "all")
    assert samples(tmp_path / "all") == samples(source)
    made("filter", [one], [choice.where(one, "view >= 10 and frames = 1")], tmp_path / "some")
    kept = shards.open(tmp_path / "some").manifest
    wanted = [row for row in shards.open(source).manifest.to_pylist() if row["view"] >= 10 and row["frames"] == 1]
    place = ["shard", "offset", "shard_bytes", "shard_sha256"]
    assert kept.drop_columns(place).to_pylist() == [{k: v for k, v in row.items() if k not in place} for row in wanted]
    sizes = one.table(["bytes"])["bytes"].to_numpy()
    above = choice.where(one, f"bytes > {sizes.mean()}")
    assert ((above == 0) == (sizes > sizes.mean())).all()


@pytest.mark.parametrize("how", ["split", "regime", "0.5,0.25,0.25"])
def test_a_merge_of_a_split_is_the_whole(source: Path, tmp_path: Path, how: str) -> None:
    one = open_input(source)
    if how[0].isdigit():
        shares = [float(share) for share in how.split(",")]
        names, to = [str(number) for number in range(3)], choice.by_asset(one, shares, 0)
    else:
        names, to = choice.by_column(one, how)
    parts = [tmp_path / name for name in names]
    made("split", [one], [to], *parts)
    of = [samples(part) for part in parts]
    assert sum(map(len, of)) == len({key for part in of for key in part}) == 31
    if not how[0].isdigit():
        column = [set(shards.open(part).manifest[how].to_pylist()) for part in parts]
        assert column == [{name} for name in names]
    inputs = [open_input(part) for part in parts]
    merged = choice.together(inputs, None)
    made("merge", inputs, merged.to, tmp_path / "whole")
    assert samples(tmp_path / "whole") == samples(source)
    assert (merged.equal, merged.conflicts) == (0, 0)
    with (tmp_path / "whole" / "ledger.parquet").open("rb") as left, (source / "ledger.parquet").open("rb") as right:
        assert list(ledger.rows(left)) == list(ledger.rows(right))


def test_views_of_an_asset_stay_together_and_shares_are_kept() -> None:
    rows = 4000
    assets = pa.array([f"{index // 4:064x}" for index in range(rows)])

    class Fake:
        def table(self, columns: list[str]) -> pa.Table:
            return pa.table({"asset_sha256": pa.chunked_array([assets])})

    to = choice.by_asset(Fake(), [0.7, 0.2, 0.1], 3)  # type: ignore[arg-type]
    assert (to.reshape(-1, 4) == to[::4, None]).all()
    # three standard deviations of a draw of 1000 assets
    for number, share in enumerate([0.7, 0.2, 0.1]):
        assert abs((to == number).mean() - share) < 3 * np.sqrt(share * (1 - share) / 1000)
    assert (to == choice.by_asset(Fake(), [0.7, 0.2, 0.1], 3)).all()  # type: ignore[arg-type]
    assert (to != choice.by_asset(Fake(), [0.7, 0.2, 0.1], 4)).any()  # type: ignore[arg-type]


def other_bytes(root: Path, key: str) -> Path:
    """A dataset of two samples: one that is the source's, and one with the key of another and its own content."""
    views = [spheres_view(0, 24, 28), spheres_view(99, 24, 28, key=key)]
    write_manifest(root, write_shard(root / "shards" / "a.tar", map(encode, views)))
    shards.write_dataset_json(root, {"layers": 6, "size": [24, 28], "job": {}})
    return root


def test_equal_samples_come_once_and_others_of_one_key_are_refused_or_chosen(source: Path, tmp_path: Path) -> None:
    key = spheres_view(5).key
    inputs = [open_input(source), open_input(other_bytes(tmp_path / "other", key))]
    with pytest.raises(ValueError, match=rf"1 keys come with different bytes.*{key}.*--keep first"):
        choice.together(inputs, None)
    for keep, of in (("first", 0), ("last", 1)):
        merged = choice.together(inputs, keep)
        assert (merged.equal, merged.conflicts) == (1, 1)
        made("merge", inputs, merged.to, tmp_path / keep)
        found = samples(tmp_path / keep)
        assert found == {**samples(source), key: samples(inputs[of].text)[key]}


def test_what_may_not_be_mixed_is_said(source: Path, tmp_path: Path) -> None:
    view = spheres_view(50, 16, 20, layers=3)
    root = tmp_path / "small"
    write_manifest(root, write_shard(root / "shards" / "a.tar", [encode(view)]))
    shards.write_dataset_json(root, {"layers": 3, "size": [16, 20]})
    inputs = [open_input(source), open_input(root)]
    with pytest.raises(ValueError, match=r"has layers 3, .* 6: give --mixed"):
        choice.header("merge", inputs, Cut())
    header = choice.header("merge", inputs, Cut(), True)
    assert (header["layers"], header["size"]) == (6, [24, 28])
    shards.write_dataset_json(root, {"layers": 3, "size": [16, 20], "conventions": {"depth": "along the ray"}})
    with pytest.raises(ValueError, match="another convention of depth"):
        choice.header("merge", [inputs[0], open_input(root)], Cut(), True)
