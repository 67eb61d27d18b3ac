"""`worldtrace shards merge`: several datasets become one."""

from typing import Annotated, Literal

import typer

from ..rewrite import choice
from ..rewrite.inputs import open_input
from ..rewrite.rewrite import Output, rewrite
from ..store import open_store
from ..terminal import say
from .rewriting import Bytes, Measure, Out, Samples, SkipDamaged, Threads, copying, cut_of, measured, tell


def merge(
    directories: Annotated[list[str], typer.Argument(metavar="DIR...", help="The datasets, folders or URLs.")],
    out: Out,
    keep: Annotated[
        Literal["first", "last"] | None,
        typer.Option("--keep", help="Of samples with one key and different bytes, that of the first or last dataset."),
    ] = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="Datasets of different image sizes or layers, too.")] = False,
    samples: Samples = None,
    size: Bytes = None,
    skip_damaged: SkipDamaged = False,
    measure: Measure = False,
    workers: Threads = None,
) -> None:
    """Merge datasets, in the order given; a sample that two of them have comes once."""
    if len(directories) < 2:
        raise ValueError("a merge needs two datasets or more: give them one after the other")
    inputs = [open_input(directory) for directory in directories]
    cut = cut_of(samples, size)
    output = Output(open_store(out), choice.header("merge", inputs, cut, mixed, keep=keep))
    merged = choice.together(inputs, keep)
    with copying() as advance:
        (made,) = rewrite(inputs, merged.to, [output], cut, skip_damaged=skip_damaged, workers=workers, advance=advance)
    tell(made)
    if merged.equal:
        say(f"{merged.equal} samples were in more than one dataset and come once")
    if merged.conflicts:
        say(f"{merged.conflicts} keys had different bytes: the {keep} was kept")
    measured([made], measure)
