"""The ledger belongs to its dataset: a missing one, and one that does not account for the samples, are found."""

import shutil
from pathlib import Path

import pytest

import shards
from shards import ledger
from shards.check.repair import repair
from shards.check.verify import inspect
from shards.ledger import LedgerWriter
from shards.rewrite import choice, rewrite
from shards.rewrite.inputs import open_input
from shards.rewrite.plan import Cut
from shards.rewrite.rewrite import Output
from shards.store import open_store


def write_ledger(root: Path, views: dict[tuple[str, str], int]) -> None:
    """`views`: (unit, asset) -> samples."""
    with (root / "ledger.parquet").open("wb") as file, LedgerWriter(file) as writer:
        for (unit, asset), count in views.items():
            status: ledger.Status = "done" if count else "rejected"
            writer.write([ledger.row(unit=unit, asset=asset, source="s", licence="l", status=status, views=count)])


def made(root: Path) -> dict[tuple[str, str], int]:
    """What a job that made this dataset says it made, with an asset that it had to try twice."""
    views: dict[tuple[str, str], int] = {("000000-unit", "refused"): 0}
    for row in shards.open(root).manifest.to_pylist():
        place = (row["shard"].removesuffix(".tar"), row["asset"])
        views[place] = views.get(place, 0) + 1
    return views


@pytest.fixture
def finished(dataset_copy: Path) -> Path:
    """As a job leaves it."""
    write_ledger(dataset_copy, made(dataset_copy))
    shards.write_dataset_json(dataset_copy, {**shards.read_dataset_json(dataset_copy), "complete": True})
    return dataset_copy


def copied(root: Path, out: Path) -> Path:
    one, cut = open_input(root), Cut(7, None)
    output = Output(open_store(out), choice.header("reshard", [one], cut))
    rewrite.rewrite([one], [choice.everything(one)], [output], cut, workers=1)
    return out


def problems(root: Path) -> list[str]:
    found = inspect(root, quick=True).problems
    assert inspect(root, workers=1).problems == found
    return [str(problem) for problem in found]


def test_a_ledger_that_is_gone_is_missed_where_one_was_written(finished: Path, tmp_path: Path) -> None:
    out = copied(finished, tmp_path / "out")
    assert problems(finished) == problems(out) == []
    for root in (finished, out):
        (root / "ledger.parquet").unlink()
        (problem,) = problems(root)
        assert problem.startswith("ledger.parquet: is missing")
    assert problems(copied(finished, tmp_path / "without")) == []  # of a dataset without one, and it says so


@pytest.mark.parametrize("change", ["other units", "fewer views", "an attempt less", "none"])
def test_a_ledger_that_does_not_account_for_the_samples_is_found(finished: Path, tmp_path: Path, change: str) -> None:
    out = copied(finished, tmp_path / "out")
    views = made(finished)
    if change == "other units":
        views = {(f"other-{unit}", f"other-{asset}"): count for (unit, asset), count in views.items()}
    elif change == "fewer views":
        views[max(views)] -= 1
    elif change == "an attempt less":
        del views[max(views)]
    else:
        views = {}
    for root in (finished, out):
        write_ledger(root, views)
        (problem,) = problems(root)
        assert problem.startswith("ledger.parquet: it does not account for the samples of ")


def test_it_may_have_made_more_than_is_left(finished: Path, tmp_path: Path) -> None:
    """A repair and a filter leave samples out; their ledgers still tell of all that was made."""
    one = open_input(finished)
    output = Output(open_store(tmp_path / "few"), choice.header("filter", [one], Cut()))
    rewrite.rewrite([one], [choice.where(one, "view < 3")], [output], workers=1)
    assert problems(tmp_path / "few") == []
    min((finished / "shards").iterdir()).unlink()
    repair(finished)
    assert problems(finished) == []


def test_merged_datasets_are_told_by_the_ledgers_that_they_had(finished: Path, tmp_path: Path) -> None:
    """Where one of them had none, there is nothing to hold its samples against."""
    bare = tmp_path / "bare"
    shutil.copytree(finished, bare)
    (bare / "ledger.parquet").unlink()
    inputs = [open_input(finished), open_input(bare)]
    merged = choice.together(inputs, None)
    output = Output(open_store(tmp_path / "both"), choice.header("merge", inputs, Cut()))
    rewrite.rewrite(inputs, merged.to, [output], workers=1)
    assert problems(tmp_path / "both") == []
    write_ledger(tmp_path / "both", {})
    assert problems(tmp_path / "both") == []
    (tmp_path / "both" / "ledger.parquet").unlink()
    assert problems(tmp_path / "both") != []
