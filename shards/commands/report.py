"""`worldtrace shards report`: a dataset as a page for people, which opens without a network."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .. import reader
from ..terminal import say
from .arguments import Directory, SplitOption, Where, advance, bar


def report(
    directory: Directory,
    out: Annotated[Path, typer.Option("--out", help="Folder for the page: OUT/index.html, one file.")],
    split: SplitOption = None,
    where: Where = None,
    each: Annotated[int, typer.Option("--each", min=1, max=64, help="Samples shown in each group.")] = 8,
) -> None:
    """Write a static HTML page: counts, coverage beside the paper's, distributions, losses, and galleries of samples:
    at random, the best, the worst by several measures, and of each flag.

    It needs no network and no scripts. Most of it is from the manifest; some hundred samples are read.
    """
    from ..report import write_report

    dataset = reader.open(directory, split, where=where)
    chosen = " and ".join([*([f"of split {split}"] if split else []), *([f"where {where}"] if where else [])])
    name = directory.rstrip("/").rpartition("/")[2] or directory
    with bar("samples") as progress:
        path, damaged = write_report(dataset, out, name, chosen=chosen, each=each, progress=partial(advance, progress))
    say(f"{path}: {len(dataset)} samples, {path.stat().st_size / 1e6:.1f} MB")
    if damaged:
        say(f"{len(damaged)} of the samples that were read are damaged: see the page, and `shards verify`", err=True)
