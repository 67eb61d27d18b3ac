"""`worldtrace shards`: look into datasets, check, change and import them. Each command is one file in
`commands/`.
"""

import typer

from .commands.diff import diff
from .commands.export import export
from .commands.filter import filter_
from .commands.from_lari import from_lari
from .commands.from_rgbd import from_rgbd
from .commands.info import info
from .commands.ls import ls
from .commands.merge import merge
from .commands.order import order
from .commands.report import report
from .commands.reshard import reshard
from .commands.show import show
from .commands.split import split
from .commands.stats import stats
from .commands.verify import verify
from .commands.view import view

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look into datasets, check and change them.")
PANELS = {
    "Look": (info, ls, show, view, report, export, order),
    "Check": (verify, stats, diff),
    "Change": (merge, split, filter_, reshard),
    "Other people's data": (from_rgbd, from_lari),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(command.__name__.rstrip("_").replace("_", "-"), rich_help_panel=panel)(command)
