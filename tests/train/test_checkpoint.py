"""A checkpoint is whole or it is not there; a damaged one is passed over and named."""

import json
from pathlib import Path

import pytest
import torch

from train import checkpoint

STATE = {"config": {"seed": 0}, "data": "abc"}


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {name: {"w": torch.full((3, 4), value), "b": torch.tensor(value)} for name in checkpoint.TENSORS}


def write(out: Path, *steps: int, keep: int = 3) -> None:
    for step in steps:
        checkpoint.save(out, step, tensors(float(step)), STATE, keep)


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    write(tmp_path, 7)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 7
    assert found.state["config"] == {"seed": 0}
    for name in checkpoint.TENSORS:
        assert all(torch.equal(found.tensors[name][k], v) for k, v in tensors(7.0)[name].items())


def test_no_run_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "absent") is None


def test_the_newest_are_kept_by_number_not_by_name(tmp_path: Path) -> None:
    write(tmp_path, 999_998, 999_999, 1_000_000, 1_000_001, keep=3)
    assert [p.name for p in checkpoint.steps(tmp_path)] == ["step-999999", "step-1000000", "step-1000001"]


@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "lose"])
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(tmp_path: Path, file: str, harm: str) -> None:
    write(tmp_path, 10, 20)
    path = tmp_path / "checkpoints" / "step-000020" / file
    content = bytearray(path.read_bytes())
    if harm == "flip" and file == "state.json":
        content[content.index(b"sha256") + 15] ^= 1
        path.write_bytes(content)
    elif harm == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    said: list[str] = []
    found = checkpoint.latest(tmp_path, say=said.append)
    assert found is not None
    assert found.step == 10
    assert len(said) == 1
    assert "step-000020" in said[0]


def test_a_run_with_nothing_whole_is_not_silently_started_over(tmp_path: Path) -> None:
    write(tmp_path, 10)
    (tmp_path / "checkpoints" / "step-000010" / "state.json").unlink()
    with pytest.raises(ValueError, match="all 1 checkpoints are damaged"):
        checkpoint.latest(tmp_path, say=lambda _: None)


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 10)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, 20)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000010"]
    # a kill -9 leaves the temporary folder behind; it is not a checkpoint and the next save replaces it
    (tmp_path / "checkpoints" / ".step-000020.tmp").mkdir()
    monkeypatch.undo()
    assert checkpoint.latest(tmp_path).step == 10  # type: ignore[union-attr]
    write(tmp_path, 20)
    assert checkpoint.latest(tmp_path).step == 20  # type: ignore[union-attr]


def test_a_run_its_checkpoints_folder_and_one_checkpoint_lead_to_the_same_place(tmp_path: Path) -> None:
    write(tmp_path, 10, 20)
    newest = tmp_path / "checkpoints" / "step-000020"
    assert {checkpoint.find(p).path for p in (tmp_path, tmp_path / "checkpoints", newest)} == {newest}
    assert checkpoint.find(newest.parent / "step-000010").step == 10
    with pytest.raises(FileNotFoundError, match="no checkpoint there"):
        checkpoint.find(tmp_path / "absent")


def test_a_run_is_found_at_its_newest_whole_checkpoint_and_a_named_one_must_be_whole(tmp_path: Path) -> None:
    write(tmp_path, 10, 20)
    newest = tmp_path / "checkpoints" / "step-000020"
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:20])
    said: list[str] = []
    assert checkpoint.find(tmp_path, ("model", "ema"), said.append).step == 10
    assert len(said) == 1
    assert "step-000020" in said[0]
    with pytest.raises(ValueError, match="step-000020"):
        checkpoint.find(newest, ("model", "ema"))


def test_state_is_plain_json(tmp_path: Path) -> None:
    write(tmp_path, 10)
    state = json.loads((tmp_path / "checkpoints" / "step-000010" / "state.json").read_text())
    assert state["step"] == 10
    assert set(state["sha256"]) == set(checkpoint.TENSORS)
