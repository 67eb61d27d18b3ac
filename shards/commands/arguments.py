"""Arguments that several commands take, and the bar that all long ones show."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..reader import Dataset
from ..split import SPLITS

Directory = Annotated[
    str,
    typer.Argument(
        metavar="DIR", help="The dataset that `worldtrace render --out` wrote: a folder, s3://, gs:// or https://."
    ),
]
SplitOption = Annotated[str | None, typer.Option("--split", help=f"Only this split: {', '.join(SPLITS)}.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="SQL",
        help="Only rows of the manifest for which this SQL condition holds, such as \"regime = 'object' and "
        "L3 > 0.01 and list_contains(flags, 'untextured')\"; L0, L1, ... are the coverage of the layers.",
    ),
]


def narrowed(dataset: Dataset, where: str | None) -> Dataset:
    """The samples for which `where` holds."""
    return dataset if where is None else dataset.narrowed(where)


def row_of(dataset: Dataset, key: str) -> int:
    """Row number of a key, or of a row number given as text. ValueError for people where there is none."""
    try:
        return dataset.row_of(int(key) if key.lstrip("-").isdecimal() else key)
    except LookupError as error:
        raise ValueError(error.args[0]) from None


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """A progress bar on stderr, so that stdout stays what other programs read."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # where nobody watches, a bar that is taken away again would leave an empty line
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(what, total=None)
        yield progress


def advance(progress: Progress, done: int, total: int) -> None:
    """Set the bar's only task."""
    progress.update(progress.task_ids[0], completed=done, total=total)
