"""`training.png`: what it draws of a run, and that any run can be drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from train.reports import curves
from train.reports.curves import smoothed


def write(out: Path, *lines: dict[str, Any]) -> None:
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def report(step: int, loss: float | None = 1.0, phase: str = "independent") -> dict[str, Any]:
    return {"step": step, "loss": loss, "layers": [loss, None], "lr": 1e-4, "grad_norm": 0.5, "phase": phase}


def drawn(out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """label -> (x, y) of the lines in the first two panels, and the titles of legends; the file is written as well."""
    from matplotlib import pyplot as plt

    found: dict[str, Any] = {}

    def look(figure: Any) -> None:
        for panel, axis in enumerate(figure.axes[:2]):
            for i, line in enumerate(axis.lines):
                label = line.get_label()
                found[f"{panel}: {label if not label.startswith('_') else i}"] = [
                    np.asarray(part, float).tolist() for part in line.get_data()
                ]
            found[f"{panel}: text"] = [text.get_text().strip() for text in axis.texts]

    monkeypatch.setattr(plt, "close", look)
    path = curves.draw(out)
    assert path is not None
    with Image.open(path) as picture:
        assert picture.size == (1500, 420)
    return found


def test_evaluations_the_switch_and_skipped_steps_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        {"event": "about", "step": 0},
        report(10),
        {"event": "skipped", "step": 13, "reason": "a spike", "loss": 9.0},
        {"event": "phase", "step": 15, "next": "shared"},
        report(20, 0.5, "shared"),
        {"event": "evaluation", "step": 20, "split": "val", "loss": 0.75, "layers": [0.5, 1.0]},
        {"event": "evaluation", "step": 30, "split": "val", "loss": None, "layers": [None, None]},
        report(30, 0.25, "shared"),
    )
    found = drawn(tmp_path, monkeypatch)
    assert found["0: training"] == [[10, 20, 30], [1.0, 0.5, 0.25]]
    assert found["0: split val, averaged weights"] == [[20], [0.75]]
    assert found["0: 1 skipped step"] == [[13], [0.0]]
    assert [found["0: text"], found["1: text"]] == [["shared times"]] * 2
    assert [15, 15] in [line[0] for line in found.values() if len(line) == 2]
    assert [[20], [1.0]] in found.values()  # layer 1, which no training sample supervised


def test_a_run_of_reports_alone_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an older version wrote it: the switch is where the phase of a report is another."""
    write(tmp_path, report(1), report(2, None), report(3, 0.5, "shared"))
    found = drawn(tmp_path, monkeypatch)
    assert not any("skipped" in label or "split" in label for label in found)
    assert found["0: text"] == ["shared times"]
    write(tmp_path, report(1, 1.0, "shared"), report(2, 0.5, "shared"))
    assert drawn(tmp_path, monkeypatch)["0: text"] == []


def test_a_run_without_a_report_is_not_drawn(tmp_path: Path) -> None:
    assert curves.draw(tmp_path) is None
    write(tmp_path, {"event": "about", "step": 0})
    assert curves.draw(tmp_path) is None


def test_smoothing_keeps_a_line_and_steps_over_what_is_missing() -> None:
    line = np.arange(20.0)
    assert np.allclose(smoothed(line, 3)[2:-2], line[2:-2])
    assert np.allclose(smoothed(np.full(9, 2.0), 4), 2.0)
    assert np.allclose(smoothed(np.array([1.0, np.nan, 3.0]), 2), [1.0, 2.0, 3.0])
    assert np.isnan(smoothed(np.full(3, np.nan), 2)).all()
