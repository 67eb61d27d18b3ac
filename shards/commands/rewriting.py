"""What the commands that write datasets share: their options, a bar, and a line for each dataset made."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from ..amount import counted
from ..rewrite.plan import Cut, size_of
from ..rewrite.rewrite import Advance, Made
from ..terminal import say
from .arguments import advance, bar
from .stats import stats

Out = Annotated[str, typer.Option("--out", metavar="DIR|URL", help="Where to: an empty or new folder, s3:// or gs://.")]
Samples = Annotated[int | None, typer.Option("--samples", min=1, help="At most so many samples in a shard.")]
Bytes = Annotated[str | None, typer.Option("--bytes", metavar="SIZE", help="At most so large a shard [256MB].")]
SkipDamaged = Annotated[
    bool,
    typer.Option(
        "--skip-damaged", help="Leave damaged samples out, and list them in ledger.parquet, instead of ending."
    ),
]
Measure = Annotated[bool, typer.Option("--stats", help="Measure the result's statistics, too: it decodes everything.")]
Threads = Annotated[int | None, typer.Option("--workers", min=1, help="Threads that copy [one for each core].")]


def cut_of(samples: int | None, size: str | None) -> Cut:
    """By samples, by bytes or by both; by 256 MB where neither is given."""
    if size is None:
        return Cut() if samples is None else Cut(samples, None)
    return Cut(samples, size_of(size))


@contextmanager
def copying() -> Iterator[Advance]:
    with bar("copying") as progress:
        yield lambda done, total: advance(progress, done, total)


def shown(place: str) -> str:
    """A path or URL as people write it: relative where it is below the folder they are in."""
    here = f"{os.getcwd()}/"
    return place.removeprefix(here) if place.startswith(here) else place


def tell(made: Made) -> None:
    """What was made, and what is left to do."""
    held = f"{counted(made.samples, 'sample')} in {counted(made.shards, 'shard')}, {made.bytes} bytes"
    say(f"{shown(made.text)}: {held}, hash {made.hash}")
    for lost in made.lost:
        say(f"left out as damaged: {lost['why']}")


def measured(made: Sequence[Made], wanted: bool) -> None:
    """The statistics of what was made, where they are wanted; else how to get them."""
    for each in made:
        if wanted and each.samples:
            stats(each.text)
    if not wanted:
        say("statistics are not measured: `worldtrace shards stats DIR` does it, which training needs of objects")
