"""`diff`: what two datasets do not share is found, and nothing else."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import shards
from shards import LayeredView, encode, write_manifest, write_shard
from shards.commands.diff import diff
from shards.commands.filter import filter_
from shards.commands.merge import merge
from shards.commands.reshard import reshard
from shards.commands.split import split
from shards.rewrite import choice
from shards.rewrite.compare import Comparison, compare
from shards.rewrite.inputs import open_input
from tests.shards.scenes import spheres_clip, spheres_view


def run(command: object, *arguments: object, code: int = 0) -> str:
    import typer

    app = typer.Typer()
    app.command()(command)  # type: ignore[type-var]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def dataset(root: Path, samples: list, per_shard: int = 3, **config: object) -> Path:
    rows = []
    for begin in range(0, len(samples), per_shard):
        path = root / "shards" / f"{begin:06d}-unit.tar"
        rows += write_shard(path, map(encode, samples[begin : begin + per_shard]))
    write_manifest(root, rows)
    shards.write_dataset_json(root, {"layers": 6, "size": [16, 20], **config})
    return root


def views(count: int = 6) -> list:
    return [*(spheres_view(index, 16, 20) for index in range(count)), spheres_clip(20, height=16, width=20)]


def compared(left: Path, right: Path, **options: object) -> Comparison:
    return compare(open_input(left), open_input(right), **options)  # type: ignore[arg-type]


def test_a_dataset_is_itself_however_it_is_cut_and_ordered(tmp_path: Path) -> None:
    one = dataset(tmp_path / "a", views())
    assert compared(one, one).same
    other = compared(one, dataset(tmp_path / "b", views()[::-1], per_shard=2))
    assert (other.same, other.same_order) == (True, False)


def test_samples_of_one_side_and_changed_ones_are_told_apart(tmp_path: Path) -> None:
    whole = views()
    base = whole[2]
    assert isinstance(base, LayeredView)
    changes = {
        ("json",): dataclasses.replace(base, info={**base.info, "view": 77}),
        ("rgba.webp",): dataclasses.replace(base, rgba=base.rgba ^ np.uint8(8)),
        ("layers.zst",): dataclasses.replace(base, depth=(base.depth * np.float32(1.25))),
    }
    one = dataset(tmp_path / "a", whole)
    for members, view in changes.items():
        other = dataset(tmp_path / members[0], [spheres_view(50, 16, 20), *whole[1:2], view, *whole[3:]])
        found = compared(one, other, deep=True)
        assert found.only_a == [whole[0].key]
        assert found.only_b == [spheres_view(50).key]
        (changed,) = found.changed
        assert (changed.key, changed.members) == (base.key, members)
        assert changed.depth is not None
        assert changed.depth == pytest.approx(0.25 if members == ("layers.zst",) else 0, abs=2e-4)
        assert changed.colour == (8 if members == ("rgba.webp",) else 0)
        assert changed.json == (("frames[0].info.view",) if members == ("json",) else ())
        assert changed.hits == 0
        assert compared(one, other).changed[0].members == members
        assert not found.same


def test_samples_of_other_shapes_are_told_and_not_measured(tmp_path: Path) -> None:
    one = dataset(tmp_path / "a", [spheres_clip(20, height=16, width=20)])
    for name, clip in (
        ("b", spheres_clip(20, frames=2, height=16, width=20)),
        ("c", spheres_clip(20, height=8, width=20)),
    ):
        (changed,) = compared(one, dataset(tmp_path / name, [clip]), deep=True).changed
        assert changed.depth is None
        told = {"b": "3 frames of 6x16x20 and 2 frames of 6x16x20", "c": "3 frames of 6x16x20 and 3 frames of 6x8x20"}
        assert told[name] in (changed.error or "")


def test_counts_are_whole_where_names_are_limited(tmp_path: Path) -> None:
    found = compared(dataset(tmp_path / "a", views(6)), dataset(tmp_path / "b", views(1)), limit=2)
    assert (len(found.only_a), found.count_a, found.count_b, found.count_changed) == (2, 5, 0, 0)


def test_version_1_is_compared_by_its_contents(tmp_path: Path) -> None:
    old = Path(__file__).parent / "version1"
    one = open_input(old)
    key = shards.open(old).keys[0]
    view = spheres_view(3, 16, 20, key=key)
    other = dataset(tmp_path / "b", [view])
    found = compare(one, open_input(other))
    assert (found.changed[0].key, found.count_a) == (key, one.samples - 1)
    assert "json" in found.changed[0].members


def test_settings_and_statistics_that_differ_are_named(tmp_path: Path) -> None:
    statistics = {"mean": [0.0, 0.0, 2.0], "std": [1.0, 1.0, 1.0], "points": 9, "samples": 2}
    one = dataset(tmp_path / "a", views(), statistics=statistics, job={"seed": 1})
    other = dataset(tmp_path / "b", views(), statistics={**statistics, "mean": [0.0, 0.1, 2.0]}, job={"seed": 2})
    found = compared(one, other)
    assert (found.statistics, found.origin) == ({"mean": ([0.0, 0.0, 2.0], [0.0, 0.1, 2.0])}, {"job.seed": (1, 2)})
    assert not found.same
    rounded = {**statistics, "mean": [1e-12, 0.0, 2.0 + 1e-11]}
    assert compared(one, dataset(tmp_path / "c", views(), statistics=rounded)).same
    assert compared(one, dataset(tmp_path / "d", views(), size=[16, 24])).settings == {"size": ([16, 20], [16, 24])}


def test_the_command_line_speaks_to_people_and_programs(tmp_path: Path) -> None:
    one, other = dataset(tmp_path / "a", views()), dataset(tmp_path / "b", views(3))
    assert "the same 7 samples, in the same order" in run(diff, one, one)
    text = run(diff, one, other, "--limit", 1, code=1)
    assert f"only in A: {spheres_view(3).key}" in text
    assert "3 in all, of which 1 are named" in text
    told = json.loads(run(diff, one, other, "--json", code=1))
    assert (told["same"], told["count_a"], len(told["only_a"])) == (False, 3, 3)


def test_commands_there_and_back_leave_no_difference(tmp_path: Path) -> None:
    """reshard and reshard, split and merge, filter of all: each ends where it began."""
    one = dataset(tmp_path / "a", views())
    run(reshard, one, "--samples", 2, "--out", tmp_path / "small")
    run(reshard, tmp_path / "small", "--bytes", "1MB", "--out", tmp_path / "large")
    run(split, one, "--parts", 3, "--out", tmp_path / "parts")
    parts = sorted((tmp_path / "parts").iterdir())
    assert [part.name for part in parts] == ["0", "1", "2"]
    run(merge, *parts, "--out", tmp_path / "merged")
    run(filter_, one, "--where", "L0 >= 0", "--out", tmp_path / "all", "--stats")
    for out in ("small", "large", "merged", "all"):
        assert "the same 7 samples" in run(diff, one, tmp_path / out)
    assert "in the same order" in run(diff, one, tmp_path / "large")
    measured = shards.read_dataset_json(tmp_path / "all")["statistics"]
    there = shards.statistics(one)
    assert there is not None
    np.testing.assert_allclose([*measured["mean"], *measured["std"]], [*there["mean"], *there["std"]], rtol=1e-12)
    assert shards.read_dataset_json(tmp_path / "merged")["statistics"] is None


def test_what_cannot_be_is_said_in_one_sentence(tmp_path: Path) -> None:
    one = dataset(tmp_path / "a", views())
    for call, words in (
        (lambda: run(split, one, "--out", tmp_path / "x"), "give one"),
        (lambda: run(split, one, "--by", "colour", "--out", tmp_path / "x"), "split by one of"),
        (lambda: run(split, one, "--fractions", "0.5,0.6", "--out", tmp_path / "x"), "sum 1"),
        (lambda: run(split, one, "--fractions", "nan,0.5,0.5", "--out", tmp_path / "x"), "sum 1"),
        (lambda: run(split, one, "--fractions", "0.5,nan", "--out", tmp_path / "x"), "sum 1"),
        (lambda: run(split, one, "--fractions", "0.5,inf", "--out", tmp_path / "x"), "sum 1"),
        (lambda: run(split, one, "--fractions", "a,b", "--out", tmp_path / "x"), "numbers with commas"),
        (lambda: run(merge, one, "--out", tmp_path / "x"), "two datasets or more"),
        (lambda: run(filter_, one, "--where", "view > 1000", "--out", tmp_path / "x"), "holds for none"),
        (lambda: run(reshard, one, "--bytes", "big", "--out", tmp_path / "x"), "256MB"),
        (lambda: choice.by_asset(open_input(one), [0.5, -0.5, 1.0], 0), "not positive"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()
