"""What a run says while it runs: a live line for people, `metrics.jsonl` for programs, scalars for TensorBoard."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

METRICS = "metrics.jsonl"


class Log:
    """Collects steps and reports their means every `every` steps. A context manager; one per process that reports.

    A resumed run drops what an interrupted one wrote for steps after its last checkpoint, so that `metrics.jsonl` has
    one line per reported step. Where the checkpoint lies between two reports, the first report after it is the mean of
    the steps since the checkpoint alone; in all else the file reads as if nothing had happened.
    """

    def __init__(self, out: Path, first: int, steps: int, every: int, tensorboard: bool, console: Console) -> None:
        self.out, self.every, self.steps, self.console = out, every, steps, console
        self._seconds: list[tuple[float, float]] = []
        self._values: list[dict[str, Any]] = []
        self._samples = 0
        write_lines(out / METRICS, [line for line in read_lines(out / METRICS) if line["step"] <= first])
        self._board = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # a second to import; only the reporting process pays it

            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=first + 1)
        self._progress = Progress(
            TextColumn("train"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
        )
        self._task = self._progress.add_task("train", total=steps, completed=first)
        self._line = Text("first step ...", no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._progress, self._line), console=console, refresh_per_second=4)

    def __enter__(self) -> "Log":
        if self.console.is_terminal:  # elsewhere, in a file or a pipe, a line per report
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._board is not None:
            self._board.close()

    def step(self, step: int, values: dict[str, Any], samples: int, seconds: float, waited: float) -> None:
        """Note the finished step `step` (the first is 1): scalars, samples, wall time and time waited for data."""
        self._values.append(values)
        self._seconds.append((seconds, waited))
        self._samples += samples
        if step % self.every == 0 or step == self.steps:
            self._report(step)
        self._progress.update(self._task, completed=step)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def _report(self, step: int) -> None:
        total, waited = (sum(part) for part in zip(*self._seconds))
        line = {
            "step": step,
            **_mean(self._values),
            "samples_per_second": round(self._samples / total, 3),
            "data_wait": round(waited / total, 4),
            "seconds_per_step": round(total / len(self._seconds), 4),
            "time": round(time.time(), 1),
        }
        self._values, self._seconds, self._samples = [], [], 0
        with (self.out / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in line.items():
                for i, part in enumerate(value if isinstance(value, list) else [value]):
                    if isinstance(part, int | float) and name not in ("step", "time"):
                        self._board.add_scalar(f"{name}/{i}" if isinstance(value, list) else name, part, step)
        text = one_line(line)
        self._line.plain = text
        if not self.console.is_terminal:
            self.say(f"step {step}/{self.steps}  {text}")


class Silence:
    """The log of a rank that does not report."""

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, step: int, values: dict[str, Any], samples: int, seconds: float, waited: float) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def one_line(line: dict[str, Any]) -> str:
    """The report as people read it: loss, loss per layer, speed, part of the time spent waiting for data."""
    layers = " ".join("-" if x is None else f"{x:.3f}" for x in line["layers"])
    loss = "-" if line["loss"] is None else f"{line['loss']:.4f}"
    text = (
        f"loss {loss}  layers {layers}  {line['samples_per_second']:.1f} samples/s  data wait {line['data_wait']:.0%}"
    )
    return text + (f"  skipped {line['skipped']}" if line["skipped"] else "")


def read(out: Path) -> list[dict[str, Any]]:
    """The reports in a run's `metrics.jsonl`: the lines that are not events."""
    return [line for line in read_lines(out / METRICS) if "event" not in line]


def events(out: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The events in a run's `metrics.jsonl`, in the order in which they happened: those of one kind, or all."""
    return [line for line in read_lines(out / METRICS) if "event" in line and kind in (None, line["event"])]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines, none where there is no file; a last line cut short by a kill is dropped."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines in place of those in `path`, which a kill leaves as it was."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    temporary.replace(path)


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over steps, of lists elementwise; None where no value is finite. Of counts and phases the last."""
    merged: dict[str, Any] = {}
    for name, last in rows[-1].items():
        column = [row[name] for row in rows]
        if isinstance(last, list):
            merged[name] = [_finite_mean([value[i] for value in column]) for i in range(len(last))]
        else:
            merged[name] = _finite_mean(column) if isinstance(last, float) else last
    return merged


def _finite_mean(values: Sequence[float]) -> float | None:
    finite = [v for v in values if abs(v) < float("inf")]  # NaN compares false
    return float(f"{sum(finite) / len(finite):.6g}") if finite else None
