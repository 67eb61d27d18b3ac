"""What a run says while it runs: a live line for people, `metrics.jsonl` for programs, curves for boards.

Steps are noted as they are launched, and read from the device together, once a report: a GPU that is asked for a number
after every step would wait for Python to launch the next one.

`metrics.jsonl` has one JSON object a line, in the order in which things happened. A line with "event" is one of: about
(what the figures mean), skipped (a step that was refused), phase (of the time curriculum), evaluation, checkpoint,
damaged (samples). A line without is a report: means over the steps since the last one. Every line has its step.
"""

import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text
from torch import Tensor

from train.reports.boards import Boards
from train.reports.lines import in_short, in_words
from train.reports.log import METRICS, read_lines, write_lines
from train.reports.speed import Utilisation, memory

REFUSALS = {1: "a non-finite loss", 2: "a non-finite gradient"}
SPIKE = 3
RECENT = 20  # reports behind the estimate of when a run will end


class Verdict(Protocol):
    """What the optimizer made of a step: 0 taken, or why not; and the running mean of the loss it was held against."""

    @property
    def refused(self) -> Tensor: ...

    @property
    def running(self) -> Tensor: ...


class Measured(Protocol):
    """What an evaluation found (train/reports/validation.py)."""

    @property
    def loss(self) -> float: ...

    @property
    def picture(self) -> Path | None: ...

    def facts(self) -> dict[str, Any]: ...

    def line(self) -> str: ...


@dataclass(frozen=True)
class _Noted:
    """A step whose numbers are still on the device: `layout`, name -> (how many, as a list, whole). `values` has their
    names as well, in the order in which they were given.
    """

    step: int
    packed: Tensor | None
    layout: dict[str, tuple[int, bool, bool]]
    values: dict[str, Any]
    waited: float


class Reports:
    """Collects steps and reports their means every `every` steps. A context manager; one per run, on the first rank.

    A resumed run drops what an interrupted one wrote for steps after its last checkpoint, so that `metrics.jsonl` has
    one line per reported step. Where the checkpoint lies between two reports, the first report after it is the mean of
    the steps since the checkpoint alone; in all else the file reads as if nothing had happened.
    """

    def __init__(
        self,
        out: Path,
        first: int,
        steps: int,
        every: int,
        console: Console,
        device: torch.device,
        boards: Boards | None = None,
        utilisation: Utilisation | None = None,
    ) -> None:
        self.out, self.first, self.steps, self.every = out, first, steps, every
        self.console, self.device = console, device
        self.boards, self.utilisation = boards or Boards(), utilisation
        self._noted: list[_Noted] = []  # steps that are still on the device
        self._events: list[dict[str, Any]] = []  # that happened among them
        self._unwritten: list[str] = []  # lines that a full disk did not take
        self._rows: list[dict[str, Any]] = []  # steps since the last report that have been read
        self._waited, self._samples, self._aside = 0.0, 0, 0.0
        self._began = time.perf_counter()
        self._pace = deque([(first, self._began)], RECENT)
        write_lines(out / METRICS, [line for line in read_lines(out / METRICS) if line["step"] <= first])
        self._progress = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[last]}"),
        )
        self._task = self._progress.add_task("train", total=steps, completed=first, last="")
        self._line = Text("first step ...", no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._progress, self._line), console=console, refresh_per_second=4)

    def __enter__(self) -> "Reports":
        if self.console.is_terminal:  # elsewhere, in a file or a pipe, a line per report
            self._live.start()
        self._began = time.perf_counter()
        self._pace = deque([(self.first, self._began)], RECENT)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:  # after an error the device may never answer
                self._read()
                if self._rows:
                    self._report(self._rows[-1]["step"])
        finally:
            self._live.stop()
            self.boards.close()

    def opening(self) -> list[str]:
        """What is said of the figures when the run begins."""
        return [] if self.utilisation is None else [self.utilisation.line()]

    def about(self, step: int, **facts: Any) -> None:
        """What the figures of the lines below mean; a line of its own, unless the last such line says the same."""
        facts = {**facts, **({} if self.utilisation is None else self.utilisation.facts())}
        said = [line for line in read_lines(self.out / METRICS) if line.get("event") == "about"]
        if not said or {k: v for k, v in said[-1].items() if k not in ("event", "step", "time")} != facts:
            self.event("about", step, **facts)

    def step(
        self,
        step: int,
        values: Mapping[str, Any],
        samples: int,
        waited: float = 0.0,
        verdict: Verdict | None = None,
        last: bool = False,
    ) -> None:
        """Note the launched step `step` (the first is 1); read and report when one is due, or at once for the `last`.

        `values`: tensors (0-dim or 1-dim, copied now), numbers, lists or text. Of fractions the report has the mean
        over those that are finite, of whole numbers and text the last. `samples` of the step over all ranks; `waited`
        seconds for data.
        """
        if verdict is not None:
            values = {**values, "refused": verdict.refused, "running": verdict.running}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        layout = {n: (t.numel(), t.ndim > 0, not t.is_floating_point()) for n, t in tensors.items()}
        flat = [t.detach().reshape(-1).to(self.device, torch.float64) for t in tensors.values()]
        packed = torch.cat(flat) if flat else None
        rest = {name: None if name in tensors else value for name, value in values.items()}
        self._noted.append(_Noted(step, packed, layout, rest, waited))
        self._samples += samples
        if step % self.every == 0 or step == self.steps or last:
            self._read()
            self._report(step)
        self._progress.update(self._task, completed=step)

    def event(self, kind: str, step: int, **fields: Any) -> None:
        """A line of its own in metrics.jsonl; behind the steps that were noted before it, once these are read."""
        self._events.append(_event(kind, step, **fields))
        if not self._noted:
            self._write_events()

    def evaluated(self, step: int, found: Measured) -> None:
        """An evaluation after `step` steps: an event, a line, points and a picture for the boards."""
        facts = found.facts()
        self.event("evaluation", step, **facts)
        self.boards.scalars(step, {f"validation/{name}": facts[name] for name in ("loss", "layers")})
        if found.picture is not None:
            self.boards.image(step, "predictions", found.picture)
        self.say(f"step {step}: {found.line()}")
        self._progress.update(self._task, last=f"validation loss {found.loss:.4f}")

    @contextmanager
    def aside(self, doing: str = "") -> Iterator[None]:
        """Around what is not a training step (an evaluation, a checkpoint): its seconds count for neither speed nor
        MFU. Waits for the steps that are under way, which are then read.
        """
        self._read()
        began, line = time.perf_counter(), self._line.plain
        if doing:
            self._line.plain = f"{doing} ..."
        try:
            yield
        finally:
            self._line.plain = line
            self._aside += time.perf_counter() - began

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _read(self) -> None:
        """One transfer for all noted steps, which also waits until they are done; say which were refused."""
        if not self._noted:
            return
        packed = [noted.packed for noted in self._noted if noted.packed is not None]
        numbers = iter(torch.cat(packed).cpu().tolist() if packed else [])
        for noted in self._noted:
            row: dict[str, Any] = {"step": noted.step, **noted.values}
            for name, (count, is_list, whole) in noted.layout.items():
                part = [int(x) if whole else x for x in (next(numbers) for _ in range(count))]
                row[name] = part if is_list else part[0]
            self._waited += noted.waited
            refused, running = int(row.pop("refused", 0)), float(row.pop("running", 0.0))
            self._write_events(before=noted.step)
            if refused:
                why = REFUSALS.get(refused) or f"a spike: loss {row['loss']:.4g}, running mean {running:.4g}"
                self.say(f"step {noted.step} skipped: {why}")
                self._write(_event("skipped", noted.step, reason=why, loss=_finite(row["loss"])))
            self._rows.append(row)
        self._noted = []
        self._write_events()

    def _report(self, step: int) -> None:
        now = time.perf_counter()
        seconds, taken = max(now - self._began - self._aside, 1e-9), len(self._rows)
        speed = self._samples / seconds
        line = {"step": step, **_mean(self._rows), "samples_per_second": round(speed, 3)}
        if self.utilisation is not None and (used := self.utilisation.of(speed)) is not None:
            line["mfu"] = round(used, 4)
        line |= {
            "data_wait": round(min(1.0, self._waited / seconds), 4),
            "seconds_per_step": round(seconds / taken, 4),
            **memory(self.device),
            "eta": round(self._remaining(step, now)),
            "time": round(time.time(), 1),
        }
        self._rows, self._waited, self._samples, self._aside, self._began = [], 0.0, 0, 0.0, now
        self._write(line)
        self.boards.scalars(step, {name: value for name, value in line.items() if name not in ("step", "time", "eta")})
        self._line.plain = in_short(line, self.console.width)
        if not self.console.is_terminal:
            self.say(in_words(line, self.steps))

    def _remaining(self, step: int, now: float) -> float:
        """Seconds until the last step, by the pace of the last reports, evaluations and checkpoints included."""
        (since, began), known = self._pace[0], len(self._pace)
        if since == self.first and known == 1:  # the first window has compilation in it; later ones do not count it
            self._pace.clear()
        self._pace.append((step, now))
        return (self.steps - step) * (now - began) / max(1, step - since)

    def _write_events(self, before: int | None = None) -> None:
        """Those that happened before the end of a step, or all."""
        while self._events and (before is None or self._events[0]["step"] < before):
            self._write(self._events.pop(0))

    def _write(self, line: Mapping[str, Any]) -> None:
        """Append a line; where the disk is full, keep it for the next time."""
        self._unwritten.append(json.dumps(line) + "\n")
        try:
            with (self.out / METRICS).open("ab", buffering=0) as file:
                end, text = file.tell(), "".join(self._unwritten).encode()
                if file.write(text) < len(text):  # a part of a line would hide those that come after it
                    file.truncate(end)
                    raise OSError("the disk is full")
        except OSError as error:
            if len(self._unwritten) == 1:
                self.say(f"{self.out / METRICS} cannot be written: {error}; training goes on, and tries again")
        else:
            self._unwritten = []


class Silence:
    """The reports of a rank that makes none."""

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def opening(self) -> list[str]:
        return []

    def about(self, step: int, **facts: Any) -> None:
        pass

    def step(
        self,
        step: int,
        values: Mapping[str, Any],
        samples: int,
        waited: float = 0.0,
        verdict: Verdict | None = None,
        last: bool = False,
    ) -> None:
        pass

    def event(self, kind: str, step: int, **fields: Any) -> None:
        pass

    def evaluated(self, step: int, found: Measured) -> None:
        pass

    def aside(self, doing: str = "") -> AbstractContextManager[None]:
        return nullcontext()

    def say(self, text: str) -> None:
        pass


def _event(kind: str, step: int, **fields: Any) -> dict[str, Any]:
    return {"event": kind, "step": step, **fields, "time": round(time.time(), 1)}


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over steps, of lists elementwise; None where no value is finite. Of counts and phases the last."""
    merged: dict[str, Any] = {}
    for name, last in rows[-1].items():
        column = [row[name] for row in rows if name in row]
        if isinstance(last, list):
            merged[name] = [_finite_mean([value[i] for value in column]) for i in range(len(last))]
        else:
            merged[name] = _finite_mean(column) if isinstance(last, float) else last
    return merged


def _finite_mean(values: Sequence[float]) -> float | None:
    finite = [v for v in values if math.isfinite(v)]
    return float(f"{sum(finite) / len(finite):.6g}") if finite else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
