"""The benchmark of the trainer on a GPU runs, on micro shapes and a CPU: every command gives its rows and its file."""

import json
import time
from pathlib import Path

import pytest
import torch

from model import WTDiT, preset
from tests.benchmarks.gpu_check import check
from tests.benchmarks.gpu_pieces import in_bf16
from tests.benchmarks.gpu_rows import MICRO, Bench, batch_on, exact_products
from tests.benchmarks.train_gpu import main

EAGER = {
    "check": ["tiny: float32, computed twice", "tiny: bf16, math", "points", "steps"],
    "train504": ["plain", "eager"],
    "infer": ["eager"],
    "rays": ["eager", "attention"],
    "data": [],
}


@pytest.mark.parametrize("command", list(EAGER))
def test_a_command_runs(command: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [command, "--device", "cpu", "--small", "--out", str(tmp_path), "--workers", "0", "--peak", "1e12"]
    assert main([*arguments, "--data", str(dataset), "--only", *EAGER[command]]) == 0
    said, told = capsys.readouterr().out, json.loads((tmp_path / f"{command}.json").read_text())
    assert told["device"] == "cpu"
    assert told["small"] is True
    assert told["peak"] == 1e12
    names = [row["name"] for row in told["rows"]]
    assert all(said.count(name) >= 2 for name in names), "a row is said when it is found, and again in the table"
    assert not any("wrong" in row for row in told["rows"])
    if command == "train504":
        assert names == ["plain eager, 1", "plain eager, 2", "eager, 1", "eager, 2"]
        fastest = max(row["samples_s"] for row in told["rows"][:2])
        for row in told["rows"][2:]:
            assert row["x_plain"] == pytest.approx(row["samples_s"] / fastest)
            assert 0 < row["MFU"] < 1
    if command == "infer":
        assert [row["s_image"] * 4 for row in told["rows"][2:]] == [row["s"] for row in told["rows"][2:]]
    if command == "rays":
        assert sum("ms" in row for row in told["rows"]) == 3 + 6, "blocks, and attention by the two kernels of a CPU"
    if command == "data":
        assert told["rows"][1]["data_wait"] < 1


@pytest.mark.slow
def test_the_check_passes_here(tmp_path: Path) -> None:
    """Compiled ones included: what it compares agrees on a CPU, so a difference elsewhere is of the device."""
    assert main(["check", "--device", "cpu", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "check.json").read_text())["rows"]
    assert len(rows) == 2 * (1 + 2 * 9) + 1 + 3
    assert not any("wrong" in row for row in rows)


def test_the_check_finds_what_is_wrong(tmp_path: Path) -> None:
    bench = Bench("check", torch.device("cpu"), True, None, 0.0, None)
    one = torch.ones(8)
    bench.close("same", one, one, 0.0)
    bench.close("near", one * 1.01, one, 1e-3)
    bench.close("nan", one * torch.nan, one, 1e-3)
    assert [row.get("wrong", False) for row in bench.rows] == [False, True, True]


def test_what_does_not_fit_or_comes_too_late_is_a_row(tmp_path: Path) -> None:
    bench = Bench("train504", torch.device("cpu"), True, None, float("inf"), None)

    def too_large() -> dict:
        raise torch.OutOfMemoryError

    assert bench.attempt("large", too_large) is None
    bench.until = 0.0
    assert bench.attempt("late", dict) is None
    assert [row["not_run"] for row in bench.rows] == ["out of memory", "out of time"]


def test_a_call_that_takes_longer_than_its_budget_is_made_twice() -> None:
    bench = Bench("infer", torch.device("cpu"), False, None, float("inf"), None)
    calls: list[float] = []

    def slow() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.02)

    assert 0.02 <= bench.seconds(slow, budget=0.01) < 1
    assert len(calls) == 2, "one that is not counted, and one"
    bench.seconds(slow, budget=0.06)
    assert 4 <= len(calls) - 2 <= 5


def test_a_check_that_has_no_time_left_says_so_for_each_row() -> None:
    bench = Bench("check", torch.device("cpu"), True, None, 0.0, None, only=["float32", "20 steps"])
    check(bench)
    assert [row["not_run"] for row in bench.rows] == ["out of time"] * 8


def test_products_are_exact_within_the_block_only() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with exact_products():
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_matrices_in_bf16_give_what_autocast_gives() -> None:
    """Under autocast, bit for bit: it would have cast the same weights to the same numbers."""
    torch.manual_seed(0)
    model = WTDiT(preset("wt_o", **MICRO)).requires_grad_(False)
    torch.nn.init.normal_(model.head.projection.weight, std=0.05)
    batch = batch_on(torch.device("cpu"), 28, 2, 6)
    points, times = torch.randn(2, 6, 28, 28, 3), torch.rand(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(batch.rgb, points, times), in_bf16(model)(batch.rgb, points, times))
