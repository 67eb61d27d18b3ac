"""`worldtrace shards ls`: the rows of the manifest, as a table or as plain keys."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .. import reader
from .arguments import Directory, SplitOption, Where, narrowed


def ls(
    directory: Directory,
    keys: Annotated[bool, typer.Option("--keys", help="Plain keys, one a line, for other programs.")] = False,
    split: SplitOption = None,
    where: Where = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most this many.")] = None,
) -> None:
    """List samples."""
    table = narrowed(reader.open(directory, split), where).manifest.slice(0, limit)
    if keys:
        for key in table["key"].to_pylist():
            typer.echo(key)
        return
    out = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("key", "split", "regime", "frames", "size", "coverage %", "depth", "KB", "flags"):
        out.add_column(name, no_wrap=True)
    for row in table.to_pylist():
        out.add_row(
            row["key"],
            row["split"],
            row["regime"],
            str(row["frames"]),
            f"{row['layers']}x{row['height']}x{row['width']}",
            " ".join(f"{100 * share:.1f}" for share in row["coverage"]),
            f"{row['z_min']:.2f} to {row['z_max']:.2f}",
            f"{row['bytes'] / 1000:.1f}",
            " ".join(row["flags"]),
        )
    Console(width=1000).print(out)  # a key that is cut short cannot be copied; the terminal may wrap instead
