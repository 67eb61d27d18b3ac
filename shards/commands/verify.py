"""`worldtrace shards verify`: is every byte what was written?"""

import json
from functools import partial
from typing import Annotated

import typer

from ..amount import counted
from ..check.repair import repair as rebuild
from ..check.verify import as_json, inspect
from ..terminal import say
from .arguments import Directory, advance, bar
from .stats import Processes

SHOWN = 100  # problems that people are told of


def verify(
    directory: Directory,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at the tables, and at the sizes and ends of shards; decode nothing.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="First write the manifest, and a damaged dataset.json, anew from what is sound."),
    ] = False,
    cut: Annotated[
        bool,
        typer.Option("--cut", help="With --repair: write damaged shards anew, too, without the samples that are lost."),
    ] = False,
    output_json: Annotated[
        bool, typer.Option("--json", help="For other programs: all problems, and lost keys.")
    ] = False,
    workers: Processes = None,
) -> None:
    """Read, hash and decode everything; list what is wrong and which samples it costs, and exit with code 1 if anything
    is. Nothing is changed but by --repair.
    """
    if cut and not repair:
        raise ValueError("--cut belongs to --repair: give both to have damaged shards written anew")
    if repair:
        with bar("rebuilding the manifest") as progress:
            count, remarks = rebuild(directory, partial(advance, progress), workers, cut)
        say(f"the manifest now lists the {counted(count, 'sound sample')} of the shards", err=output_json)
        for remark in remarks:
            say(str(remark), err=output_json)
    with bar("verifying") as progress:
        verdict = inspect(directory, partial(advance, progress), workers, quick)
    if output_json:
        typer.echo(json.dumps(as_json(directory, verdict), indent=2))
    else:
        for problem in verdict.problems[:SHOWN]:
            say(str(problem))
        if (more := len(verdict.problems) - SHOWN) > 0:
            say(f"and {more} more: --json lists all")
    if verdict.problems:
        lost = len(verdict.lost)
        are = "is" if lost == 1 else "are"
        told = f", {lost} of {counted(verdict.samples, 'sample')} {are} damaged" if lost else ""
        say(f"{directory}: {counted(len(verdict.problems), 'problem')}{told}", err=True)
        raise typer.Exit(1)
    if not output_json:
        looked = "tables, sizes and ends are right" if quick else "sound"
        say(f"{directory}: {counted(verdict.samples, 'sample')} in {counted(verdict.shards, 'shard')}, {looked}")
