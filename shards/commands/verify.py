"""`worldtrace shards verify`: is every byte what was written?"""

from functools import partial
from typing import Annotated

import typer

from ..verify import repair as rebuild
from ..verify import verify as inspect
from .arguments import Directory, advance, bar


def verify(
    directory: Directory,
    repair: Annotated[
        bool, typer.Option("--repair", help="First write the manifest anew from the samples that are sound.")
    ] = False,
) -> None:
    """Read, hash and decode everything; list what is wrong, and exit with code 1 if anything is."""
    if repair:
        with bar("rebuilding the manifest") as progress:
            count, left_out = rebuild(directory, partial(advance, progress))
        typer.echo(f"the manifest now lists the {count} sound samples of the shards")
        for problem in left_out:
            typer.echo(str(problem))
    with bar("verifying") as progress:
        problems = inspect(directory, partial(advance, progress))
    for problem in problems:
        typer.echo(str(problem))
    if problems:
        typer.echo(f"{directory}: {len(problems)} problems", err=True)
        raise typer.Exit(1)
    typer.echo(f"{directory}: sound")
