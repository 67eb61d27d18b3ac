"""`worldtrace eval` as it is typed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import shards
from tests.shards.scenes import spheres_view
from tests.train.conftest import write_dataset
from train.evaluation.truth import truth_of
from train.prediction.archive import write_npz
from train.prediction.prediction import Prediction
from worldtrace import app

SIZE = 28


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A dataset and a folder of perfect predictions of it."""
    folder = tmp_path_factory.mktemp("judged")
    dataset = shards.open(write_dataset(folder / "data", [spheres_view(i, SIZE, SIZE) for i in range(12)], SIZE))
    (folder / "perfect").mkdir()
    for row in range(len(dataset)):
        truth = truth_of(dataset[row], 6, SIZE, "black")
        write_npz(
            folder / "perfect" / f"{truth.key}.npz", [Prediction(truth.rgb, truth.valid, truth.xyz[None], None, (0,))]
        )
    return str(folder / "data"), str(folder / "perfect")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["eval", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_table_with_its_files(judged: tuple[str, str], tmp_path: Path) -> None:
    data, perfect = judged
    out = [str(tmp_path / name) for name in ("report.json", "table.md", "keys.txt")]
    split = "train+val+test"
    said = run(
        *("--data", data, "--table", "1", "--predictions", f"ours={perfect}", "--split", split, "--limit", "5"),
        *("--out", out[0], "--out", out[1], "--samples-list", out[2]),
    )
    report = json.loads(Path(out[0]).read_text())
    assert report["settings"]["table"] == 1
    assert report["settings"]["samples"] == 5
    assert report["methods"]["ours"]["all/f@0.01"] == 1.0
    assert report["settings"]["list_hash"] in said
    assert Path(out[1]).read_text().startswith("### Table 1: Object geometry\n")
    assert not Path(out[0] + ".partial").exists()
    again = run("--data", data, "--predictions", perfect, "--samples-list", out[2], "--no-baselines")
    assert report["settings"]["list_hash"] in again
    assert "all layers CD-L1" in again
    assert "train" not in again.splitlines()[3]


def test_table_5_needs_no_model(judged: tuple[str, str], tmp_path: Path) -> None:
    data, perfect = judged
    out = tmp_path / "five.json"
    said = run("--data", data, "--table", "5", "--split", "train+val+test", "--out", str(out))
    assert "Valid multilayer pixels of 12 samples" in said
    layers = json.loads(out.read_text())["layers"]
    truth = [truth_of(view, 6, SIZE, "black") for view in shards.open(data)]
    assert layers[0]["mean"] == pytest.approx(100 * np.mean([t.valid.mean() for t in truth]))
    with pytest.raises(ValueError, match="--table 5 is of the dataset alone"):
        run("--data", data, "--table", "5", "--predictions", perfect, "--split", "train+val+test")


def test_what_cannot_be_done_is_said_before_anything_is_computed(judged: tuple[str, str], tmp_path: Path) -> None:
    data, perfect = judged
    with pytest.raises(ValueError, match=r"--out .*x.csv: its suffix says what is written"):
        run("--data", data, "--predictions", perfect, "--out", str(tmp_path / "x.csv"))
    with pytest.raises(ValueError, match="nothing to judge"):
        run("--data", data, "--split", "train+val+test")
    (tmp_path / "list").write_text("x\n")
    with pytest.raises(ValueError, match="says which samples are judged; leave out"):
        run("--data", data, "--predictions", perfect, "--samples-list", str(tmp_path / "list"), "--limit", "3")


def test_what_was_judged_outlasts_a_report_that_cannot_be_written(
    judged: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, perfect = judged
    out = tmp_path / "report.json"
    asked = ("--data", data, "--predictions", perfect, "--split", "train+val+test", "--limit", "2", "--out", str(out))

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    def broken(*_: object) -> None:
        raise RuntimeError("in the table")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "committed", full)
        with pytest.raises(OSError, match="No space left"):
            run(*asked)
    journal = tmp_path / "report.json.partial"
    assert not out.exists()
    assert len(journal.read_text().splitlines()) == 3
    monkeypatch.setattr("train.evaluation.evaluate._judged", None)  # nothing is judged again
    with monkeypatch.context() as patch:
        patch.setattr("train.evaluation.table.show", broken)
        with pytest.raises(RuntimeError, match="in the table"):
            run(*asked)
    assert len(json.loads(out.read_text())["samples"]) == 2
    assert journal.exists()
    run(*asked)
    assert not journal.exists()


def test_outputs_that_cannot_be_written_are_named_first(judged: tuple[str, str], tmp_path: Path) -> None:
    data, perfect = judged
    (tmp_path / "dir.json").mkdir()
    (tmp_path / "file").write_text("")
    for option, value, problem in (
        ("--out", "dir.json", "is a folder; name a file in it"),
        ("--plots", "file", "is a file; name a folder"),
        ("--out", "file/r.json", "file"),
    ):
        with pytest.raises((ValueError, OSError), match=problem):
            run("--data", data, "--predictions", perfect, option, str(tmp_path / value))


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from train.evaluation import command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
