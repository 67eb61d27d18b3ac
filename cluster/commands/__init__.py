"""The commands of `worldtrace cluster`, a file each."""

import typer

from cluster.commands.report import report
from cluster.commands.surfaces import surfaces
from cluster.commands.train import train

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Follow render jobs; train on a Ray cluster; points of surfaces."
)


@app.callback()
def _cluster() -> None:
    """Follow render jobs; train on a Ray cluster; sample points from the surfaces of a dataset's assets."""


for command in (report, train, surfaces):
    app.command()(command)
