"""Boards are copies: they get every number and picture, go on after a restart, and never stop or hold up a run."""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from train.config import Log
from train.reports import boards
from train.reports.boards import Boards, open_boards

BOTH = {"loss": 0.5, "layers": [1.0, None, 0.25], "phase": "shared", "skipped": 2}


def scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    """name -> (step, value) that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(out / "tensorboard"))
    shown.Reload()
    return {tag: [(e.step, e.value) for e in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


def test_tensorboard_shows_numbers_lists_pictures_and_the_config(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "a.png")
    board = open_boards(Log(), tmp_path, 0, {"data": {"size": 28}}, print)
    board.scalars(5, BOTH)
    board.image(5, "predictions", tmp_path / "a.png")
    board.close()
    assert scalars(tmp_path) == {
        "loss": [(5, 0.5)],
        "layers/0": [(5, 1.0)],
        "layers/2": [(5, 0.25)],
        "skipped": [(5, 2.0)],
    }
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    (picture,) = shown.Images("predictions")
    assert (picture.step, picture.width, picture.height) == (5, 20, 10)
    assert b"size: 28" in shown.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_tensorboard_forgets_what_a_run_did_after_its_checkpoint(tmp_path: Path) -> None:
    first = open_boards(Log(), tmp_path, 0, {}, print)
    for step in (5, 10, 15):
        first.scalars(step, {"loss": step})
    first.close()
    time.sleep(1.1)  # event files are read in the order of their names, which have the second in them
    second = open_boards(Log(), tmp_path, 7, {}, print)
    second.scalars(10, {"loss": -10})
    second.close()
    assert scalars(tmp_path)["loss"] == [(5, 5), (10, -10)]


class Broken:
    name = "a board"

    def __init__(self) -> None:
        self.asked = 0

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.asked += 1
        raise OSError("No space\nleft on device")

    def image(self, step: int, name: str, path: Path) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError


def test_a_board_that_fails_is_said_once_and_left_behind() -> None:
    said: list[str] = []
    broken = Broken()
    board = Boards([broken], said.append)
    for step in (1, 2):
        board.scalars(step, {"loss": 1.0})
    board.image(2, "predictions", Path("none.png"))
    board.close()
    assert broken.asked == 1
    assert said == ["a board is left out from now on: No space left on device; training goes on without it"]


def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"log\.wandb: demo .*pip install -e '\.\[wandb\]'") as error:
        open_boards(Log(wandb="demo"), tmp_path, 0, {}, print)
    assert "\n" not in str(error.value)


def in_another_process(code: str, out: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """W&B keeps a process and an exit hook for each Python that uses it; the tests' own should have none."""
    head = "import sys, time\nfrom pathlib import Path\n"
    head += "from train.config import Log\nfrom train.reports import boards\n"
    head += "out = Path(sys.argv[1])\n"
    return subprocess.run(
        [sys.executable, "-c", head + code, str(out)],
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin", "HOME": str(out), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


RUN = """
board = boards.open_boards(Log(wandb="demo", tensorboard=False), out, 0, {"data": {"size": 28}}, print)
for step in STEPS:
    board.scalars(step, {"loss": 1 / step, "layers": [0.5, None]})
board.image(STEPS[-1], "predictions", out / "a.png")
board.close()
"""


def records(file: Path) -> list[Any]:
    """The records of an offline run of W&B: blocks of 32 KiB (as LevelDB's log) behind a head of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, here, found, begun = file.read_bytes(), 7, [], b""
    while here + 7 <= len(data):
        if (left := 32768 - here % 32768) < 7:
            here += left
            continue
        size, kind = int.from_bytes(data[here + 4 : here + 6], "little"), data[here + 6]
        begun += data[here + 7 : here + 7 + size]
        here += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(begun)
            found.append(record)
            begun = b""
    return found


def test_wandb_takes_an_offline_run_and_the_same_one_after_a_restart(tmp_path: Path) -> None:
    """The second process fell back to a checkpoint, so its steps begin before the first one's end."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "a.png")
    ids = []
    for written in ("(1, 2, 3)", "(2, 3, 4)"):
        ended = in_another_process(RUN.replace("STEPS", written), tmp_path, WANDB_MODE="offline")
        assert ended.returncode == 0, ended.stderr
        assert f"W&B: offline; `wandb sync {tmp_path}/wandb/*` sends it" in ended.stdout
        assert "left out" not in ended.stdout
        ids.append((tmp_path / "wandb-id.txt").read_text())
        if len(ids) == 1:
            time.sleep(1.1)  # W&B names folders by the second
    assert ids[0] == ids[1]
    files = sorted(tmp_path.glob(f"wandb/offline-run-*/run-{ids[0]}.wandb"))
    assert len(files) == 2
    for file, steps in zip(files, ((1, 2, 3), (2, 3, 4))):
        found = records(file)
        rows = [
            {i.key or i.nested_key[0]: i.value_json for i in r.history.item} for r in found if r.HasField("history")
        ]
        assert [int(row["step"]) for row in rows if "loss" in row] == list(steps)
        assert [float(row["loss"]) for row in rows if "loss" in row] == pytest.approx([1 / s for s in steps])
        assert all(float(row["layers/0"]) == 0.5 and "layers/1" not in row for row in rows if "loss" in row)
        assert sum("predictions" in row for row in rows) == 1
        metrics = {r.metric.name or r.metric.glob_name: r.metric.step_metric for r in found if r.HasField("metric")}
        assert metrics["*"] == "step"
        begun = next(r.run for r in found if r.HasField("run"))
        assert (begun.project, begun.run_id, begun.display_name) == ("demo", ids[0], tmp_path.name)
        assert any("28" in update.value_json for update in begun.config.update if update.key == "data")
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/predictions_*.png"))


def test_wandb_without_a_key_or_a_network_costs_a_sentence_and_no_time(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    (tmp_path / "a.png").write_bytes(b"")
    ended = in_another_process(RUN.replace("STEPS", "(1, 2)"), tmp_path, WANDB_MODE="online")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == (
        "W&B is left out from now on: there is no API key; run `wandb login`, or set WANDB_MODE=offline; "
        "training goes on without it\n"
    )
    code = "boards.CLOSE_SECONDS = 0.5\n" + RUN.replace("STEPS", "(1, 2)")
    began = time.monotonic()
    ended = in_another_process(  # nobody listens at port 9
        code, tmp_path, WANDB_MODE="online", WANDB_API_KEY="a" * 40, WANDB_BASE_URL="http://127.0.0.1:9"
    )
    assert time.monotonic() - began < 30  # W&B itself would try for many minutes
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("W&B is left out from now on: it has not taken the last records within")
    assert ended.stdout.count("\n") == 1


def test_wandb_that_is_far_behind_loses_records_instead_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    said: list[str] = []
    monkeypatch.setattr(boards, "WAITING", 3)
    monkeypatch.setattr(boards, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(boards.WandB, "_send", lambda self: time.sleep(0.4))
    board = open_boards(Log(wandb="demo", tensorboard=False), tmp_path, 0, {}, said.append)
    began = time.monotonic()
    for step in range(1, 100):
        board.scalars(step, {"loss": 1.0})
    assert time.monotonic() - began < 0.2
    board.close()
    assert said[0] == "W&B is 3 records behind and loses some; metrics.jsonl has all of them"
    assert said[1].startswith("W&B is left out from now on: it has not taken the last records within")
    assert len(said) == 2
