"""`worldtrace checkpoint`: what is there, whether it is whole, and the weights in one file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from tests.train.small_checkpoints import OLD, names, tensors, write
from train import checkpoints
from train.checkpoints.commands import app


def said(*arguments: object) -> tuple[int, list[str]]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output.splitlines()


def test_info_says_what_there_is_and_reads_no_more_than_headers(tmp_path: Path) -> None:
    write(tmp_path, 10, 20)
    file = tmp_path / "checkpoints" / "step-000010" / "ema" / "00000-000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    code, lines = said("info", tmp_path)
    assert code == 0
    assert [line.split(":")[0] for line in lines] == ["step-000010", "step-000020"]
    assert all("by 1 rank; model 4 tensors of 21 numbers, ema 4 tensors" in line for line in lines)
    assert "by an earlier version; model 2 tensors of 7 numbers" in said("info", OLD)[1][0]
    file.unlink()
    assert "step-000010: damaged: " in said("info", tmp_path)[1][0]


def test_verify_finds_the_damaged_one_and_ends_with_1(tmp_path: Path) -> None:
    write(tmp_path, 10, 20)
    assert said("verify", tmp_path) == (0, ["step-000010: whole", "step-000020: whole"])
    file = tmp_path / "checkpoints" / "step-000010" / "optimizer" / "00000-000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    code, lines = said("verify", tmp_path)
    assert code == 1
    assert lines[0] == f"step-000010: damaged: {file}: its bytes are not those that were written"
    assert lines[1] == "step-000020: whole"
    assert said("verify", file.parent.parent)[0] == 1
    with pytest.raises(FileNotFoundError, match="no checkpoint there"):
        said("verify", tmp_path / "absent")


def test_export_writes_the_averaged_weights_as_one_file(tmp_path: Path) -> None:
    write(tmp_path, 10, 20)
    out = tmp_path / "wt.safetensors"
    code, lines = said("export", tmp_path, "--out", out)
    assert code == 0
    assert "of step 20 of" in lines[0]
    expected = checkpoints.weights(checkpoints.find(tmp_path))
    with safe_open(out, "pt") as opened:
        assert set(opened.keys()) == expected.keys() == tensors(0)["ema"].keys()
        assert all(torch.equal(opened.get_tensor(name), value) for name, value in expected.items())
        assert json.loads(opened.metadata()["config"]) == {"seed": 0}
    assert out.stat().st_mode == (tmp_path / "checkpoints" / "step-000010" / "state.json").stat().st_mode
    assert names(tmp_path) == ["step-000010", "step-000020"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "wt.safetensors"]
    with pytest.raises(ValueError, match="written as safetensors"):
        said("export", tmp_path, "--out", tmp_path / "wt.pt")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        said("export", tmp_path, "--out", tmp_path / "absent" / "wt.safetensors")
