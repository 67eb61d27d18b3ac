"""The file `metrics.jsonl` of a run: one JSON object a line, reports and events (reports.py writes them)."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def read(out: Path) -> list[dict[str, Any]]:
    """The reports in a run's `metrics.jsonl`: the lines that are not events."""
    return [line for line in read_lines(out / METRICS) if "event" not in line]


def events(out: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The events in a run's `metrics.jsonl`, in the order in which they happened: those of one kind, or all."""
    return [line for line in read_lines(out / METRICS) if "event" in line and kind in (None, line["event"])]


def read_lines(path: Path, by: str = "step") -> list[dict[str, Any]]:
    """JSON lines, none where there is no file. What is no object with a whole number under the name `by` is left out,
    such as a last line cut short by a kill."""
    lines: list[dict[str, Any]] = []
    for text in path.read_bytes().split(b"\n") if path.is_file() else ():
        with suppress(ValueError, RecursionError):
            line = json.loads(text.decode())
            if isinstance(line, dict) and type(line.get(by)) is int:
                lines.append(line)
    return lines


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines in place of those in `path`, which a kill leaves as it was."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    temporary.replace(path)
