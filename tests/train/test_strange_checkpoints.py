"""Checkpoints that nobody wrote so: sealed by someone who can compute a hash, or laid down where others belong."""

import hashlib
import json
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

from tests.train.small_checkpoints import ALONE, STATE, names, reseal, same, tensors, write
from train import checkpoints
from train.checkpoints import GROUPS, Checkpoints, layout, reading


def cut(step: Path, parts: list[tuple[int, Tensor]]) -> None:
    """Let the weight w of the model, of one axis, be in these parts: (where it begins, numbers), a file of each."""
    first = step / "model" / "00000-000.safetensors"
    with safe_open(first, "pt") as opened:
        rest = {name: opened.get_tensor(name) for name in opened.keys() if name != "w"}  # noqa: SIM118 - no mapping
    about = {name: {"saved_offsets": [0] * tensor.ndim} for name, tensor in rest.items()}
    files = [(first, rest, about)] + [
        (step / "model" / f"0000{at}-000.safetensors", {"w": part}, {"w": {"saved_offsets": [begin]}})
        for at, (begin, part) in enumerate(parts, 1)
    ]
    for path, held, corners in files:
        save_file(held, path, {"format": "pt", "DCP_SHARDING_INFO": json.dumps(corners)})

    def describe(state: dict) -> None:
        for path, *_ in files:
            content = path.read_bytes()
            entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            state["files"][path.relative_to(step).as_posix()] = entry

    reseal(step, describe)


def test_a_part_that_is_there_twice_hides_no_hole(tmp_path: Path) -> None:
    write(tmp_path, 1)
    step = tmp_path / "checkpoints" / "step-000001"
    numbers = torch.arange(8.0)
    cut(step, [(0, numbers[:5]), (5, numbers[5:])])
    assert torch.equal(checkpoints.read(checkpoints.find(tmp_path))["model"]["w"], numbers)
    cut(step, [(1, numbers[1:]), (7, numbers[7:])])  # eight numbers, and none of them the first
    with pytest.raises(ValueError, match="model has a part of w twice, and another one not at all"):
        checkpoints.read(checkpoints.find(tmp_path))


def test_boxes_overlap_where_they_have_a_number_in_common() -> None:
    draw = random.Random(0)
    seen = set()
    for _ in range(300):
        axes = draw.randint(1, 3)
        corners = [[draw.randint(0, 5) for _ in range(axes)] for _ in range(draw.randint(1, 4))]
        boxes = [(corner, [draw.randint(0, 3) for _ in corner]) for corner in corners]
        cells = [cell for c, s in boxes for cell in product(*(range(a, a + n) for a, n in zip(c, s)))]
        expected = len(set(cells)) < len(cells)
        chunks = [ChunkStorageMetadata(torch.Size(c), torch.Size(s)) for c, s in boxes]
        assert reading._overlap(chunks) == expected, boxes
        seen.add(expected)
    assert seen == {True, False}


@pytest.mark.parametrize("step", [10**40, 2, -1, "1", True, None])
def test_a_checkpoint_is_of_the_step_that_its_folder_names(tmp_path: Path, step: object) -> None:
    write(tmp_path, 1)
    reseal(tmp_path / "checkpoints" / "step-000001", lambda state: state.update(step=step))
    said: list[str] = []
    with pytest.raises(ValueError, match="damaged"):
        checkpoints.latest(tmp_path, said.append)
    assert (
        "state.json: names no step" in said[0] or "state.json: is of step 2, which its folder's name is not" in said[0]
    )


def test_what_a_state_does_not_say_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    write(tmp_path, 1)
    found = checkpoints.find(tmp_path)
    assert (found.state["data"], found.state.get("generations", 1)) == (STATE["data"], 1)
    with pytest.raises(ValueError, match=r"step-000001/state\.json: says nothing of curriculum"):
        found.state["curriculum"]


def to_elsewhere(path: Path) -> None:
    elsewhere = path.parents[1] / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    path.symlink_to(elsewhere)


def to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def a_file(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("lay", [to_elsewhere, to_nowhere, a_file])
@pytest.mark.parametrize("name", ["step-000005", "step-000010", ".step-000007-0-1.tmp"])
def test_what_lies_where_a_checkpoint_belongs_goes_like_one_and_no_link_is_followed(
    tmp_path: Path, name: str, lay: Callable[[Path], None]
) -> None:
    """Older than those that are kept, in place of the new one, and left behind by a save."""
    (tmp_path / "checkpoints").mkdir()
    lay(tmp_path / "checkpoints" / name)
    said: list[str] = []
    with Checkpoints(tmp_path, 1, ALONE, said.append) as saver:
        saver.save(10, tensors(10), STATE, wait=True)
    assert names(tmp_path) == ["step-000010"]
    assert said == [f"1 unfinished checkpoints of a run that was killed are removed from {tmp_path}"] * ("tmp" in name)
    assert same(checkpoints.read(checkpoints.find(tmp_path), GROUPS), tensors(10))
    assert lay is not to_elsewhere or (tmp_path / "elsewhere" / "kept").exists()
    assert layout.sweep(tmp_path) == []


@pytest.mark.parametrize("where", ["out", "out/checkpoints"])
@pytest.mark.parametrize("lay", [to_nowhere, a_file])
def test_what_is_no_folder_for_checkpoints_is_said_before_anything_is_done(
    tmp_path: Path, where: str, lay: Callable[[Path], None]
) -> None:
    (tmp_path / where).parent.mkdir(exist_ok=True)
    lay(tmp_path / where)
    with pytest.raises(ValueError, match=rf"out: {tmp_path / where} is no folder; give a folder that you may write to"):
        ALONE.check_folder(tmp_path / "out")


def test_a_folder_in_which_nothing_can_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise OSError(30, "Read-only file system", str(dir))

    ALONE.check_folder(tmp_path)
    ALONE.check_folder(tmp_path)
    assert names(tmp_path) == [], "nothing is left of the trial"
    monkeypatch.setattr(layout, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=rf"out: {tmp_path}/checkpoints cannot be written to: Read-only file system; "):
        ALONE.check_folder(tmp_path)


def _lead_out(state: dict) -> None:
    state["files"]["../../../secret.safetensors"] = next(iter(state["files"].values()))


@pytest.mark.parametrize(
    "change",
    [
        _lead_out,
        lambda s: s["files"].update({"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}),
        lambda s: s["files"].update({"model/../../a.safetensors": {"bytes": 1, "sha256": "0" * 64}}),
        lambda s: s.update(files=[]),
        lambda s: s.update(files={"model/0.safetensors": 3}),
        lambda s: s.update(format=3),
        lambda s: s.update(step=-1),
        lambda s: s.update(step="7"),
        lambda s: s.pop("files"),
    ],
)
def test_a_hostile_state_leads_nowhere(tmp_path: Path, change: Callable[[dict], object]) -> None:
    write(tmp_path, 10)
    step = tmp_path / "checkpoints" / "step-000010"
    reseal(step, lambda state: None)
    assert checkpoints.check(step).step == 10
    reseal(step, change)
    with pytest.raises(ValueError, match=r"step-000010/state\.json"):
        checkpoints.check(step)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "", '{"step": ' + "9" * 5000 + "}", "\x00" * 50])
def test_a_state_that_is_none_is_damage(tmp_path: Path, text: str) -> None:
    write(tmp_path, 10)
    (tmp_path / "checkpoints" / "step-000010" / "state.json").write_text(text)
    with pytest.raises(ValueError, match=r"step-000010/state\.json"):
        checkpoints.check(tmp_path / "checkpoints" / "step-000010")


def test_links_are_not_followed_and_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 10)
    step = tmp_path / "checkpoints" / "step-000010"
    file = step / "ema" / "00000-000.safetensors"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is no plain file"):
        checkpoints.check(step)
    monkeypatch.setattr(layout, "STATE_BYTES", 100)
    with pytest.raises(ValueError, match="is no file of at most 100 bytes"):
        checkpoints.check(step)


def _repacked(step: Path, group: str, content: dict[str, Tensor], corners: object) -> None:
    """Files that are not ours, with hashes that are right."""
    file = step / group / "00000-000.safetensors"
    save_file(content, file, {"DCP_SHARDING_INFO": json.dumps(corners)})
    entry = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    reseal(step, lambda state: state["files"].update({f"{group}/00000-000.safetensors": entry}))


@pytest.mark.parametrize(
    ("corners", "told"),
    [
        ({"w": {"saved_offsets": [10**12, 0]}}, "a part is missing"),  # memory for 10^12 rows is not asked for
        ({"w": {"saved_offsets": [1, 0]}}, "a part is missing"),
        ({"w": {"saved_offsets": [-1, 0]}}, "begins at"),
        ({"w": {"saved_offsets": [0]}}, "begins at"),
        ({"w": {}}, "saved_offsets"),
        ({"w": 3}, "holds no pieces"),
        ([1], "holds no pieces"),
    ],
)
def test_hostile_offsets_are_refused(tmp_path: Path, corners: object, told: str) -> None:
    write(tmp_path, 10)
    step = tmp_path / "checkpoints" / "step-000010"
    _repacked(step, "model", {"w": torch.zeros(3, 4)}, corners)
    with pytest.raises(ValueError, match=told):
        checkpoints.read(checkpoints.check(step), ("model",))
