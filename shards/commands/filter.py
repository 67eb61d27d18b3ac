"""`worldtrace shards filter`: the samples for which a condition holds, as a dataset of their own."""

from typing import Annotated

import typer

from ..rewrite import choice
from ..rewrite.inputs import open_input
from ..rewrite.rewrite import Output, rewrite
from ..store import open_store
from .arguments import Directory
from .rewriting import Bytes, Measure, Out, Samples, SkipDamaged, Threads, copying, cut_of, measured, tell


def filter_(
    directory: Directory,
    where: Annotated[
        str, typer.Option("--where", metavar="SQL", help="A condition over the manifest, as of `shards ls --where`.")
    ],
    out: Out,
    samples: Samples = None,
    size: Bytes = None,
    skip_damaged: SkipDamaged = False,
    measure: Measure = False,
    workers: Threads = None,
) -> None:
    """Copy the samples for which an SQL condition over the manifest holds; splits stay what they are."""
    source = open_input(directory)
    cut = cut_of(samples, size)
    chosen = choice.where(source, where)
    if not (chosen >= 0).any():
        raise ValueError(f"{source.text}: --where {where!r} holds for none of its {source.samples} samples")
    output = Output(open_store(out), choice.header("filter", [source], cut, where=where))
    with copying() as advance:
        (made,) = rewrite(
            [source], [chosen], [output], cut, skip_damaged=skip_damaged, workers=workers, advance=advance
        )
    tell(made)
    measured([made], measure)
