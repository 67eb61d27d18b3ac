"""A dataset that a command has not finished is never taken for a whole one, whatever lies there already."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import shards
from shards.check.repair import repair
from shards.check.verify import inspect
from shards.cli import app
from shards.rewrite.inputs import open_input

AGAIN = "is not finished: run the command that writes it again, which goes on from there"


def run(*arguments: object) -> tuple[str, str]:
    """(stdout, what it raised)."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.output, str(result.exception or "")


def begun(root: Path, manifest: bool) -> Path:
    """As a command that was killed leaves it; with `manifest`: one that goes on with a dataset that was finished."""
    shards.write_dataset_json(root, {**shards.read_dataset_json(root), "complete": False})
    (root / "units").mkdir()
    (root / "units" / "0000.parquet").write_bytes(b"a record")
    if not manifest:
        (root / "manifest.parquet").unlink()
    return root


@pytest.mark.parametrize("manifest", [False, True])
@pytest.mark.parametrize("records", [False, True])
def test_it_is_not_sound_cannot_be_repaired_and_is_no_input(dataset_copy: Path, manifest: bool, records: bool) -> None:
    root = begun(dataset_copy, manifest)
    if not records:
        (root / "units" / "0000.parquet").unlink()
    for quick in (False, True):
        (problem,) = inspect(root, quick=quick).problems
        assert (problem.where, AGAIN in problem.what.replace("the dataset ", "")) == ("dataset.json", True)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=AGAIN):
        repair(root)
    with pytest.raises(ValueError, match=AGAIN):
        open_input(root)
    assert AGAIN in run("reshard", root, "--out", root.parent / "out")[1]
    assert not (root.parent / "out").exists()
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("header", ["unfinished", "says nothing", "missing"])
def test_records_without_a_manifest_are_no_lost_manifest(dataset_copy: Path, header: str) -> None:
    root = begun(dataset_copy, manifest=False)
    if header == "says nothing":
        config = shards.read_dataset_json(root)
        del config["complete"]
        shards.write_dataset_json(root, config)
    if header == "missing":
        (root / "dataset.json").unlink()
        with pytest.raises(ValueError, match=AGAIN):
            repair(root)
        return
    for command in ("info", "ls", "report", "stats"):
        _, error = run(command, root, *(["--out", root.parent / "page"] if command == "report" else []))
        assert AGAIN in error
        assert "repair" not in error


def test_one_that_goes_on_is_read_and_says_that_it_does(dataset_copy: Path) -> None:
    """An import that grows keeps its manifest, and its samples, until the new manifest takes its place."""
    root = begun(dataset_copy, manifest=True)
    assert len(shards.open(root)) == 31
    assert run("info", root)[0].startswith("not finished")
    assert "not finished" in run("ls", root, "--limit", "1")[0]
    shards.write_dataset_json(root, {**shards.read_dataset_json(root), "complete": True})
    assert "not finished" not in run("info", root)[0]


def test_a_lost_manifest_of_a_finished_dataset_is_rebuilt(dataset_copy: Path) -> None:
    """Records may be left there by a job that was killed while it removed them."""
    root = begun(dataset_copy, manifest=False)
    shards.write_dataset_json(root, {**shards.read_dataset_json(root), "complete": True})
    assert "--repair" in run("info", root)[1]
    assert repair(root)[0] == 31
    assert open_input(root).samples == 31
