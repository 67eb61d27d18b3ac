"""What one sees of a running job: one live line in a terminal, a plain line now and then elsewhere, and the end."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cluster.ledger import Attempt

PLAIN_EVERY = 15.0  # seconds between lines where there is no terminal


@dataclass
class Summary:
    """What became of the assets of a job, over all its runs; `seconds` and `fresh_views` are those of this run."""

    assets: int = 0
    views: int = 0
    done: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    views_rejected: Counter[str] = field(default_factory=Counter)  # of assets that gave others
    fresh_views: int = 0
    seconds: float = 0.0
    filtered: str = ""  # what the filters dropped: assets that are not among the others

    @classmethod
    def of(cls, attempts: Iterable[Attempt]) -> "Summary":
        """Of a whole ledger: the attempts at an asset follow each other, and the last one counts."""
        summary, last = cls(), None
        for attempt in attempts:
            if last is not None and attempt.attempt == 1:
                summary.add(last)
            last = attempt
        if last is not None:
            summary.add(last)
        return summary

    def add(self, attempt: Attempt) -> None:
        """The last attempt at an asset."""
        self.assets += 1
        self.views += attempt.views
        if attempt.status == "done":
            self.done += 1
            self.views_rejected.update(view.partition(":")[2] for view in attempt.views_rejected)
        else:
            (self.rejected if attempt.status == "rejected" else self.failed)[attempt.reason or "unknown"] += 1

    def merge(self, other: "Summary") -> None:
        """Those of other assets."""
        self.assets += other.assets
        self.views += other.views
        self.done += other.done
        self.rejected.update(other.rejected)
        self.failed.update(other.failed)
        self.views_rejected.update(other.views_rejected)

    def line(self) -> str:
        parts = [f"{self.views} views", f"{self.done} of {self.assets} assets done"]
        named = {"rejected": self.rejected, "failed": self.failed, "of their views rejected": self.views_rejected}
        for name, counts in named.items():
            if counts:
                reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
                parts.append(f"{counts.total()} {name} ({reasons})")
        if self.filtered:
            parts.append(self.filtered)
        if self.fresh_views < self.views:
            parts.append(f"{self.views - self.fresh_views} views stood already")
        parts.append(f"{self.seconds:.1f} s")
        if self.fresh_views:
            parts.append(f"{self.fresh_views / max(self.seconds, 1e-9):.1f} views/s")
        return " | ".join(parts)


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for what comes before and after rendering; the block is given `advance(done, total)`, and a `total` of
    None is one that is not known yet. A plain line now and then where there is no terminal.
    """
    spoke = time.monotonic()
    with Progress(
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.completed}/{task.fields[whole]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=None, whole="?")

        def advance(done: int, total: int | None) -> None:
            nonlocal spoke
            whole = "?" if total is None else str(total)
            bar.update(task, completed=done, total=total, whole=whole)
            if not console.is_terminal and time.monotonic() - spoke > PLAIN_EVERY:
                spoke = time.monotonic()
                console.print(f"{what}: {done}/{whole}", highlight=False)

        yield advance


class Counts(Protocol):
    """What a job tells of its assets."""

    def settle(self, attempt: Attempt) -> None:
        """The last attempt at one of them."""

    def take_back(self, attempt: Attempt) -> None:
        """A settled asset that gave views is to be rendered again."""

    def tick(self, renderers: int) -> None:
        """Several times a second. `renderers` is how many are ready."""


class Live:
    """A progress bar over `assets` assets, of which `standing` are committed already."""

    def __init__(self, console: Console, assets: int, standing: int) -> None:
        self.console = console
        self.assets = assets
        self.settled = standing
        self.summary = Summary()
        self.began = self.spoke = time.monotonic()
        self.bar = Progress(
            TextColumn("[bold]render"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} assets  {task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.task: TaskID = self.bar.add_task("render", total=assets, completed=standing, state="starting")

    def __enter__(self) -> "Live":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def settle(self, attempt: Attempt) -> None:
        self.summary.add(attempt)
        self.settled += 1

    def settle_all(self, summary: Summary) -> None:
        self.summary.merge(summary)
        self.settled += summary.assets

    def take_back(self, attempt: Attempt) -> None:
        """A settled asset that gave views is to be rendered again."""
        self.summary.assets -= 1
        self.summary.done -= 1
        self.summary.views -= attempt.views
        self.summary.views_rejected.subtract(view.partition(":")[2] for view in attempt.views_rejected)
        self.settled -= 1

    def tick(self, renderers: int) -> None:
        """Show where the job is. `renderers` is how many are ready."""
        now = time.monotonic()
        rate = self.summary.views / max(now - self.began, 1e-9)
        state = f"{self.summary.views} views  {rate:.1f}/s" if renderers else "waiting for a renderer"
        for name, counts in (("rejected", self.summary.rejected), ("failed", self.summary.failed)):
            state += f"  {counts.total()} {name}" if counts else ""
        self.bar.update(self.task, completed=min(self.settled, self.assets), state=state)
        if not self.console.is_terminal and now - self.spoke > PLAIN_EVERY:
            self.spoke = now
            self.console.print(f"render: {self.settled}/{self.assets} assets  {state}", highlight=False)
