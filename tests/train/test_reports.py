"""What a run says: read from the device once a report, in one line of text, in metrics.jsonl in order."""

import io
import json
import math
import mmap
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from train.reports import log
from train.reports.boards import Boards
from train.reports.lines import compact, duration, in_short, in_words, switch_in_words
from train.reports.reports import Reports, Silence
from train.reports.speed import Utilisation, memory

CPU = torch.device("cpu")
USE = Utilisation(85.4e12, 989e12, 64)


@dataclass(frozen=True)
class Said:
    """What an optimizer says of a step."""

    refused: Tensor
    running: Tensor


class Watched(Boards):
    """Boards that keep what they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[int, dict[str, Any]]] = []
        self.closed = False

    def scalars(self, step: int, values: Any) -> None:
        self.given.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


def reports(out: Path, steps: int = 20, every: int = 5, first: int = 0, **more: Any) -> tuple[Reports, io.StringIO]:
    said = io.StringIO()
    return Reports(out, first, steps, every, Console(file=said, width=1000), CPU, **more), said


def values(loss: float | int, **more: Any) -> dict[str, Any]:
    return {"loss": torch.tensor(float(loss)), "layers": torch.full((6,), loss / 2), "phase": "independent", **more}


def test_nothing_is_read_until_a_report_is_due_and_then_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    with reports(tmp_path)[0] as r, monkeypatch.context() as patch:
        whole = torch.Tensor.cpu

        def counted(x: Tensor) -> Tensor:
            reads.append(x.numel())
            return whole(x)

        patch.setattr(torch.Tensor, "cpu", counted)
        for name in ("item", "tolist", "__float__", "__int__", "__bool__", "numpy"):
            found = getattr(torch.Tensor, name)
            patch.setattr(torch.Tensor, name, lambda x, *a, f=found: f(x, *a) if reads else pytest.fail("was read"))
        for step in range(1, 5):
            r.step(step, values(step), 8, verdict=Said(torch.tensor(0), torch.tensor(1.0)))
            assert not reads
            assert not log.read(tmp_path)
        r.step(5, values(5.0), 8, verdict=Said(torch.tensor(0), torch.tensor(1.0)))
        assert reads == [5 * (1 + 6 + 2)]
    assert [line["step"] for line in log.read(tmp_path)] == [5]


def test_a_tensor_that_changes_in_place_is_noted_as_it_was(tmp_path: Path) -> None:
    loss, count = torch.tensor(1.0), torch.tensor(1)
    with reports(tmp_path, every=3)[0] as r:
        for step in range(1, 4):
            r.step(step, {"loss": loss, "layers": [0.0], "skipped": count}, 1)
            loss += 1
            count += 1
    (line,) = log.read(tmp_path)
    assert (line["loss"], line["skipped"]) == (2.0, 3)


def test_a_report_is_the_mean_of_what_is_finite_and_the_last_of_what_is_counted(tmp_path: Path) -> None:
    with reports(tmp_path, every=4)[0] as r:
        for step, loss in enumerate((1.0, math.nan, math.inf, 3.0), 1):
            layers = torch.tensor([loss, math.nan])
            r.step(step, {"loss": torch.tensor(loss), "layers": layers, "lr": 0.5, "skipped": step, "phase": "p"}, 8)
    (line,) = log.read(tmp_path)
    assert (line["loss"], line["layers"], line["lr"], line["skipped"], line["phase"]) == (2.0, [2.0, None], 0.5, 4, "p")


def test_a_run_that_ends_early_reports_what_it_has_and_one_that_fails_asks_the_device_for_nothing(
    tmp_path: Path,
) -> None:
    with reports(tmp_path)[0] as r:
        for step in range(1, 8):
            r.step(step, values(step), 8)
    assert [(line["step"], line["loss"]) for line in log.read(tmp_path)] == [(5, 3.0), (7, 6.5)]
    with reports(tmp_path, first=7)[0] as r:
        r.step(8, values(8), 8, last=True)
        assert [line["step"] for line in log.read(tmp_path)] == [5, 7, 8]

    def failing() -> None:
        with reports(tmp_path, first=8)[0] as r:
            r.step(9, values(9), 8)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert [line["step"] for line in log.read(tmp_path)] == [5, 7, 8]


def test_refused_steps_are_said_with_their_reason_and_written_in_order(tmp_path: Path) -> None:
    r, said = reports(tmp_path)
    with r:
        r.about(0, world=2)
        for step, code in enumerate((0, 1, 2, 3, 0), 1):
            verdict = Said(torch.tensor(code), torch.tensor(0.25))
            r.step(step, values(math.nan if code == 1 else step), 8, verdict=verdict)
            if step == 2:
                r.event("damaged", step, count=1)
        r.event("checkpoint", 5)
    assert said.getvalue().splitlines()[:3] == [
        "step 2 skipped: a non-finite loss",
        "step 3 skipped: a non-finite gradient",
        "step 4 skipped: a spike: loss 4, running mean 0.25",
    ]
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line.get("event"), line["step"]) for line in lines] == [
        ("about", 0),
        ("skipped", 2),
        ("damaged", 2),
        ("skipped", 3),
        ("skipped", 4),
        (None, 5),
        ("checkpoint", 5),
    ]
    assert "refused" not in lines[5]
    assert "running" not in lines[5]
    assert [line["step"] for line in log.events(tmp_path, "skipped")] == [2, 3, 4]
    assert log.events(tmp_path, "skipped")[0]["loss"] is None
    assert len(log.events(tmp_path)) == 6


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    """Reports and events after step 7 go; the report of step 10 is of steps 8 to 10."""
    with reports(tmp_path)[0] as r:
        r.about(0, world=1)
        for step in range(1, 13):
            refused = Said(torch.tensor(3 if step in (3, 9) else 0), torch.tensor(1.0))
            r.step(step, values(step), 8, verdict=refused)
    assert [line["step"] for line in log.read(tmp_path)] == [5, 10, 12]
    with reports(tmp_path, first=7)[0] as r:
        r.about(7, world=1)
        for step in range(8, 21):
            r.step(step, values(-step), 8)
    assert [(line["step"], line["loss"]) for line in log.read(tmp_path)] == [(5, 3), (10, -9), (15, -13), (20, -18)]
    assert [(line["event"], line["step"]) for line in log.events(tmp_path)] == [("about", 0), ("skipped", 3)]
    with reports(tmp_path, first=20)[0] as r:
        r.about(20, world=2)  # which is something else
    assert [line["world"] for line in log.events(tmp_path, "about")] == [1, 2]


def test_speed_is_of_training_alone(tmp_path: Path) -> None:
    with reports(tmp_path, every=2, utilisation=Utilisation(1e9, 1e12, 2))[0] as r:
        for step in (1, 2):
            time.sleep(0.02)
            r.step(step, values(1.0), 10, waited=0.01)
            if step == 1:
                with r.aside("evaluation"):
                    time.sleep(0.5)
        (line,) = log.read(tmp_path)
        assert 0.02 <= line["seconds_per_step"] < 0.2
        assert line["samples_per_second"] == pytest.approx(10 / line["seconds_per_step"], rel=0.01)
        assert line["data_wait"] == pytest.approx(0.01 / line["seconds_per_step"], rel=0.02)
        assert line["mfu"] == pytest.approx(line["samples_per_second"] * 1e9 / 2e12, rel=0.02)
        assert line["eta"] >= 4  # 18 steps, a quarter of a second each: a run's end waits for its evaluations too


def test_the_formula_of_mfu_is_said_and_written_once(tmp_path: Path) -> None:
    r, _ = reports(tmp_path, utilisation=USE)
    with r:
        r.about(0)
        r.about(0)
    assert r.opening() == [
        "MFU = samples/s x FLOPs per training sample / (devices x peak) = samples/s x 85.4 TFLOP / (64 x 989 TFLOP/s)"
    ]
    (about,) = log.events(tmp_path, "about")
    assert (about["flops_per_sample"], about["peak"], about["devices"]) == (85.4e12, 989e12, 64)
    assert USE.of(100.0) == pytest.approx(100 * 85.4 / (64 * 989))
    without = Utilisation(85.4e12, None)
    assert without.of(100.0) is None
    assert "no MFU is shown" in without.line()
    with reports(tmp_path, utilisation=without)[0] as r:
        r.step(20, values(1.0), 8)
    assert "mfu" not in log.read(tmp_path)[-1]


LINE = {
    "step": 199950,
    "loss": 0.12345,
    "layers": [0.01234, 0.0346, 0.1, None, 1.234, 12.3],
    "samples_per_second": 312.44,
    "mfu": 0.5123,
    "data_wait": 0.004,
    "memory": 61_234_000_000,
    "memory_reserved": 70_000_000_000,
    "eta": 273_600,
}


def test_the_line_of_a_report_reads_like_this() -> None:
    assert in_words({**LINE, "skipped": 2}, 200000) == (
        "step 199950/200000  loss 0.1235  layers 0.012 0.035 0.100 - 1.234 12.300  312.4 samples/s  MFU 51.2%  "
        "data wait 0%  memory 61.2 of 70.0 reserved GB  ETA 3d04h  skipped 2"
    )
    assert in_short(LINE) == (
        "step 199950 loss .1235 layers .012 .035 .100 - 1.23 12.3 312/s MFU 51% wait 0% 61GB ETA 3d04h"
    )
    bare = {k: v for k, v in LINE.items() if k not in ("mfu", "memory", "memory_reserved")}
    assert in_words({**bare, "loss": None}, 200000).startswith("step 199950/200000  loss -  layers")
    assert "MFU" not in in_words(bare, 200000) + in_short(bare)


def test_the_switch_of_the_time_curriculum_says_why() -> None:
    assert switch_in_words(20000, {"cause": "fixed"}) == (
        "step 20000: from here on all layers share one time (objective.shared_times_from)"
    )
    cause = {"cause": "stable", "from": 19001, "before": [0.4021, None], "means": [0.4013, None]}
    assert switch_in_words(20000, cause).endswith(
        "the loss of none falls any more: layers 0.402 - before step 19001, 0.401 - since"
    )


def test_a_narrow_terminal_sees_the_eta_and_fewer_figures() -> None:
    assert in_short(LINE, 80) == "step 199950 loss .1235 312/s MFU 51% wait 0% 61GB ETA 3d04h"
    assert in_short(LINE, 55) == "step 199950 loss .1235 312/s MFU 51% wait 0% ETA 3d04h"
    for width in range(40, 120):
        text = in_short(LINE, width)
        assert len(text) <= width
        assert text.endswith("ETA 3d04h")


def test_the_live_line_fits_100_columns_with_six_layers() -> None:
    for size in (1e-7, 0.0123, 9.996, 99.96, 999.6, 123456.0):
        wide = {**LINE, "loss": size, "layers": [size] * 6, "samples_per_second": size, "data_wait": 0.999, "mfu": 0.9}
        for seconds in (59.7, 3599, 86399, 86400 * 9):
            assert len(text := in_short({**wide, "eta": seconds})) <= 100
            assert "layers" in text


def test_numbers_keep_to_their_width() -> None:
    assert [compact(x) for x in (0.0, 0.0123, 0.9996, 1.2345, 12.345, 999.7, 9999.7, 123456.0, None)] == [
        *(".000", ".012", "1.00", "1.23", "12.3", "1000", "1e4", "1e5", "-")
    ]
    assert [duration(x) for x in (0, 59.6, 61, 3600, 86399, 90000)] == [
        "0s",
        "1m00s",
        "1m01s",
        "1h00m",
        "23h59m",
        "1d01h",
    ]


def test_outside_of_a_terminal_there_is_one_line_per_report_and_in_one_a_live_line(tmp_path: Path) -> None:
    r, said = reports(tmp_path, steps=10)
    with r:
        for step in range(1, 11):
            r.step(step, values(1.0), 8)
    assert [line.split("  ")[0] for line in said.getvalue().splitlines()] == ["step 5/10", "step 10/10"]
    screen = io.StringIO()
    with Reports(tmp_path, 0, 10, 5, Console(file=screen, force_terminal=True, width=100), CPU, None, USE) as r:
        for step in range(1, 11):
            r.step(step, values(1.0), 8)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert re.search(r"\nstep 10 loss 1\.000 layers( \.500){6} \S+/s MFU \d+% wait 0% \S+GB ETA 0s *\n", shown), shown


def test_an_evaluation_is_an_event_a_line_and_points(tmp_path: Path) -> None:
    class Found:
        loss, picture = 0.5, None

        def facts(self) -> dict[str, Any]:
            return {"loss": 0.5, "layers": [0.25, None], "split": "val"}

        def line(self) -> str:
            return "validation loss 0.5000"

    boards = Watched()
    r, said = reports(tmp_path, boards=boards)
    with r:
        r.step(5, values(1.0), 8)
        r.evaluated(5, Found())
    assert said.getvalue().splitlines()[-1] == "step 5: validation loss 0.5000"
    (event,) = log.events(tmp_path, "evaluation")
    assert (event["step"], event["loss"], event["layers"]) == (5, 0.5, [0.25, None])
    assert boards.given[-1] == (5, {"validation/loss": 0.5, "validation/layers": [0.25, None]})
    assert boards.given[0][1]["loss"] == 1.0
    assert boards.closed


def test_a_full_disk_costs_no_line_and_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second line fits in half; with room again all are there, whole and in order."""
    r, said = reports(tmp_path)
    full, whole = False, Path.open

    class Half(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data)[:7]) if full else super().write(data)

    def opened(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        return Half(path, "a") if mode == "ab" else whole(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", opened)
    with r:
        for number in range(1, 6):
            full = number in (2, 3)
            r.event("checkpoint", number)
            assert [line["step"] for line in log.events(tmp_path)] == ([1] if full else list(range(1, number + 1)))
    assert said.getvalue().count("cannot be written: the disk is full; training goes on") == 1


def test_memory_of_a_process_and_its_workers_is_known() -> None:
    found = memory(CPU)
    assert found["memory"] > 1e7  # Python with torch
    block = mmap.mmap(-1, 50_000_000)  # new pages, whatever the allocator still has of tests before
    block.write(bytes(1_000_000) * 50)
    assert memory(CPU)["memory"] - found["memory"] > 3e7, len(block)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_memory_of_a_gpu_is_the_peak_since_the_last_report() -> None:
    device = torch.device("cuda", 0)
    memory(device)
    block = torch.ones(100_000_000 // 4, device=device)
    del block
    found = memory(device)
    assert found["memory"] >= 100_000_000
    assert found["memory_reserved"] >= found["memory"]
    assert memory(device)["memory"] < found["memory"]


def test_a_silent_rank_takes_every_call() -> None:
    with Silence() as r:
        r.about(0)
        r.step(1, {}, 1, 0.0, None, True)
        r.event("phase", 1)
        with r.aside("checkpoint"):
            r.say("nothing")
    assert r.opening() == []


def test_text_with_brackets_is_said_as_it_is(tmp_path: Path) -> None:
    """An error of torch ends in [/…/pair.cc:537], which is no markup."""
    r, said = reports(tmp_path)
    with r:
        r.say("lost [/build/gloo/pair.cc:537] [bold]")
    assert said.getvalue() == "lost [/build/gloo/pair.cc:537] [bold]\n"
