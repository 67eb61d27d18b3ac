"""`worldtrace shards`: look into a dataset. Each command is one file under `commands/`."""

import typer

from .commands.export import export
from .commands.info import info
from .commands.ls import ls
from .commands.order import order
from .commands.show import show
from .commands.stats import stats
from .commands.verify import verify
from .commands.view import view

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look into a dataset of layered views.")
for command in (info, ls, show, verify, stats, export, order, view):
    app.command()(command)
