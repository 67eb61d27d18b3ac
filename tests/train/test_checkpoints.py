"""A checkpoint is whole or it is not there, and what is in it comes back bit for bit."""

import random
import shutil
from pathlib import Path

import pytest
import torch

from tests.train.small_checkpoints import ALONE, OLD, STATE, names, same, tensors, write
from train import checkpoints
from train.checkpoints import GROUPS, Checkpoints, pieces


@pytest.mark.parametrize("part", [1, 60, 1 << 20])
def test_what_was_saved_is_read_back_however_many_files_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(pieces, "PART", part)
    write(tmp_path, 7)
    found = checkpoints.latest(tmp_path)
    assert found is not None
    assert (found.step, found.state["config"], found.state["world"]) == (7, {"seed": 0}, 1)
    assert len(found.files("model")) == {1: 4, 60: 2, 1 << 20: 1}[part]
    assert same(checkpoints.read(found, GROUPS), tensors(7))
    filled = {g: {n: torch.zeros_like(t) for n, t in named.items()} for g, named in tensors(0).items()}
    checkpoints.load(found, filled)
    assert same(filled, tensors(7))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_the_reader_of_torch_reads_it_too(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    write(tmp_path, 7)
    folder = tmp_path / "checkpoints" / "step-000007" / "ema"
    filled = {n: torch.zeros_like(t) for n, t in tensors(0)["ema"].items() if n != "mask"}  # it knows no bool
    dcp.load(filled, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=True)
    assert all(torch.equal(filled[n], tensors(7)["ema"][n]) for n in filled)


def test_averaged_weights_are_taken_where_there_are_any(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, 1, ALONE) as saver:
        held = {"model": {"a": torch.ones(2), "frozen": torch.zeros(3)}, "ema": {"a": torch.full((2,), 5.0)}}
        saver.save(1, held, STATE, wait=True)
    weights = checkpoints.weights(checkpoints.find(tmp_path))
    assert torch.equal(weights["a"], torch.full((2,), 5.0))
    assert torch.equal(weights["frozen"], torch.zeros(3))


def test_no_run_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path) is None
    assert checkpoints.latest(tmp_path / "absent", ranks=ALONE) is None


def test_the_newest_are_kept_by_number_not_by_name(tmp_path: Path) -> None:
    write(tmp_path, 999_998, 999_999, 1_000_000, 1_000_001, keep=3)
    assert [p.name for p in checkpoints.steps(tmp_path)] == ["step-999999", "step-1000000", "step-1000001"]


def test_damaged_ones_that_were_passed_over_push_no_whole_one_out(tmp_path: Path) -> None:
    write(tmp_path, 10, 40)
    (tmp_path / "checkpoints" / "step-000040" / "state.json").write_text("{}")
    write(tmp_path, 20, keep=1)
    assert names(tmp_path) == ["step-000020", "step-000040"]
    write(tmp_path, 40, keep=1)  # the run has come there again
    assert names(tmp_path) == ["step-000040"]
    assert same(checkpoints.read(checkpoints.find(tmp_path), GROUPS), tensors(40))


def test_any_damage_to_the_newest_leads_to_the_one_before_and_is_said(tmp_path: Path) -> None:
    write(tmp_path, 10, 20)
    newest = tmp_path / "checkpoints" / "step-000020"
    files = {p: p.read_bytes() for p in newest.rglob("*") if p.is_file()}
    assert len(files) == 4
    draw = random.Random(0)
    for path, content in files.items():
        ways = []
        for at in range(draw.randrange(3), len(content), 3):
            ways.append(bytearray(content))
            ways[-1][at] ^= 1 << draw.randrange(8)
        ways += [bytearray(content[:at]) for at in (0, 1, len(content) // 2, len(content) - 1)]
        ways += [bytearray(content + b" ")]
        for way in (*ways, None):
            path.unlink() if way is None else path.write_bytes(way)
            said: list[str] = []
            found = checkpoints.latest(tmp_path, said.append)
            assert found is not None
            assert found.step == 10, (path, way)
            assert len(said) == 1
            assert "step-000020" in said[0]
        path.write_bytes(content)
    assert checkpoints.latest(tmp_path).step == 20  # type: ignore[union-attr]
    (newest / "model" / "00001-000.safetensors").write_bytes(files[newest / "model" / "00000-000.safetensors"])
    assert checkpoints.latest(tmp_path, said.append).step == 10  # type: ignore[union-attr]
    assert "does not belong to the checkpoint" in said[-1]


def test_a_run_with_nothing_whole_is_not_silently_started_over(tmp_path: Path) -> None:
    write(tmp_path, 10, 20)
    for folder in checkpoints.steps(tmp_path):
        (folder / "state.json").unlink()
    with pytest.raises(ValueError, match="all 2 checkpoints are damaged; move the folder away"):
        checkpoints.latest(tmp_path, lambda _: None, ALONE)
    with pytest.raises(ValueError, match="all 2 checkpoints are damaged"):
        checkpoints.find(tmp_path, say=lambda _: None)


def test_what_a_kill_left_is_no_checkpoint_and_is_swept(tmp_path: Path) -> None:
    write(tmp_path, 10)
    shutil.copytree(tmp_path / "checkpoints" / "step-000010", tmp_path / "checkpoints" / ".step-000020-ab-1.tmp")
    assert checkpoints.latest(tmp_path).step == 10  # type: ignore[union-attr]
    said: list[str] = []
    Checkpoints(tmp_path, 3, ALONE, said.append).close()
    assert names(tmp_path) == ["step-000010"]
    assert said == [f"1 unfinished checkpoints of a run that was killed are removed from {tmp_path}"]


def test_a_run_its_checkpoints_folder_and_one_checkpoint_lead_to_the_same_place(tmp_path: Path) -> None:
    write(tmp_path, 10, 20)
    newest = tmp_path / "checkpoints" / "step-000020"
    assert {checkpoints.find(p).path for p in (tmp_path, tmp_path / "checkpoints", newest)} == {newest}
    assert checkpoints.find(newest.parent / "step-000010").step == 10
    with pytest.raises(FileNotFoundError, match="no checkpoint there"):
        checkpoints.find(tmp_path / "absent")


def test_only_what_is_asked_for_is_hashed_and_a_named_one_must_be_whole(tmp_path: Path) -> None:
    write(tmp_path, 10, 20)
    newest = tmp_path / "checkpoints" / "step-000020"
    file = newest / "optimizer" / "00000-000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    said: list[str] = []
    assert checkpoints.find(tmp_path, ("model", "ema"), said.append).step == 20
    assert not said
    assert checkpoints.find(tmp_path, say=said.append).step == 10
    with pytest.raises(ValueError, match=r"step-000020.*its bytes are not those that were written"):
        checkpoints.find(newest)


def test_tensors_of_another_run_are_one_clear_error(tmp_path: Path) -> None:
    write(tmp_path, 10)
    found = checkpoints.find(tmp_path)
    wanted = tensors(0)
    wanted["model"]["w"] = torch.zeros(3, 5)
    with pytest.raises(ValueError, match=r"model is that of another run: w is 3x4 torch\.float32 there and 3x5"):
        checkpoints.load(found, wanted)
    wanted = tensors(0)
    wanted["ema"]["half"] = wanted["ema"]["half"].float()
    with pytest.raises(ValueError, match=r"half is 5 torch\.bfloat16 there and 5 torch\.float32 here"):
        checkpoints.load(found, wanted)
    wanted = tensors(0)
    del wanted["optimizer"]["mask"]
    wanted["optimizer"]["new"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"new is absent there and 1 torch\.float32 here.* 2 of 5 tensors"):
        checkpoints.load(found, wanted)


def test_checkpoints_of_before_give_their_weights_and_do_not_go_on(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "checkpoints" / OLD.name)
    found = checkpoints.latest(tmp_path)
    assert found is not None
    assert found.step == 3
    weights = checkpoints.weights(found)
    assert torch.equal(weights["w"], torch.arange(6.0).view(2, 3) / 2)
    assert torch.equal(weights["frozen"], torch.tensor([7.0]))
    with pytest.raises(ValueError, match="was written by an earlier version"):
        checkpoints.load(found, {"model": weights})
    file = tmp_path / "checkpoints" / OLD.name / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="its bytes are not those that were written"):
        checkpoints.find(found.path)
