"""Whole samples and shards in places of others: `verify` says in a line whether any is lost, and `repair` agrees."""

from pathlib import Path

import pytest

import shards
from shards.check.repair import repair
from shards.check.verify import inspect


def shard_files(root: Path) -> list[Path]:
    return sorted((root / "shards").glob("*.tar"))


def test_shards_that_changed_places_are_told_in_a_line_each_and_repaired(dataset_copy: Path) -> None:
    before = shards.open(dataset_copy)
    samples = dict(zip(before.keys, before.manifest["sha256"].to_pylist()))
    first, _, third = shard_files(dataset_copy)
    one, three = first.read_bytes(), third.read_bytes()
    first.write_bytes(three)
    third.write_bytes(one)
    problems = inspect(dataset_copy).problems
    assert [problem.where for problem in problems] == [f"shards/{first.name}", f"shards/{third.name}"]
    for problem, other in zip(problems, (third, first)):
        assert f"shards/{other.name} holds: nothing is lost, `verify --repair` mends it" in problem.what
        assert "copy" not in problem.what
    assert repair(dataset_copy)[0] == 31
    assert inspect(dataset_copy).problems == []
    after = shards.open(dataset_copy)
    assert dict(zip(after.keys, after.manifest["sha256"].to_pylist())) == samples


def test_a_shard_that_is_a_copy_of_another_is_told_in_a_line(dataset_copy: Path) -> None:
    rows = shards.open(dataset_copy).manifest.to_pylist()
    first, second, _ = shard_files(dataset_copy)
    first.write_bytes(second.read_bytes())
    verdict = inspect(dataset_copy)
    (problem,) = verdict.problems
    assert f"holds what the manifest calls shards/{second.name}" in problem.what
    assert "restore" in problem.what
    assert "--repair" not in problem.what
    assert verdict.lost == sorted(row["key"] for row in rows if row["shard"] == first.name)


@pytest.mark.parametrize("content", ["zeros", "noise"])
def test_a_shard_of_something_else_is_told_in_a_line(dataset_copy: Path, content: str) -> None:
    first = shard_files(dataset_copy)[0]
    size = first.stat().st_size
    first.write_bytes(bytes(size) if content == "zeros" else shards.generator(0, "noise").bytes(size))
    (problem,) = inspect(dataset_copy).problems
    assert problem.what.startswith("holds none of the 12 samples that the manifest names")


@pytest.mark.parametrize("far", [1, 5])
def test_samples_that_changed_places_in_their_shard_are_repaired(dataset_copy: Path, far: int) -> None:
    """Of whatever sizes: those between them move, too."""
    before = shards.open(dataset_copy)
    rows = before.manifest.to_pylist()
    path = dataset_copy / "shards" / rows[0]["shard"]
    good = path.read_bytes()
    mine = [row for row in rows if row["shard"] == path.name]
    parts = [good[row["offset"] : row["offset"] + row["bytes"]] for row in mine]
    parts[2], parts[2 + far] = parts[2 + far], parts[2]
    path.write_bytes(b"".join(parts) + good[-1024:])
    (problem,) = inspect(dataset_copy).problems
    assert "at other bytes than the manifest says" in problem.what
    assert "nothing is lost, `verify --repair` mends it" in problem.what
    assert {mine[2]["key"], mine[2 + far]["key"]} <= set(problem.keys)
    assert repair(dataset_copy)[0] == 31
    assert inspect(dataset_copy).problems == []
    assert sorted(shards.open(dataset_copy).keys) == sorted(before.keys)
