"""`worldtrace shards ls`: the rows of the manifest, as a table or as plain keys."""

from itertools import islice
from typing import Annotated

import typer
from rich.table import Table

from .. import reader
from ..printable import printable
from ..terminal import console, say
from ..unfinished import REMEDY
from .arguments import Directory, SplitOption, Where, narrowed

COLUMNS = [
    *("key", "split", "regime", "frames", "layers", "height", "width"),
    *("coverage", "z_min", "z_max", "bytes", "flags"),
]


def ls(
    directory: Directory,
    keys: Annotated[bool, typer.Option("--keys", help="Plain keys, one a line, for other programs.")] = False,
    split: SplitOption = None,
    where: Where = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most this many.")] = None,
) -> None:
    """List samples."""
    dataset = narrowed(reader.open(directory, split), where)
    if dataset.config.get("complete") is False:
        say(f"not finished, these are the samples that it has for now: {REMEDY}", err=True)
    left = len(dataset) if limit is None else limit
    if keys:
        for batch in dataset.batches(["key"]):
            for key in batch["key"].to_pylist()[:left]:
                say(key)
            left -= min(left, len(batch))
        return
    out = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("key", "split", "regime", "frames", "size", "coverage %", "depth", "KB", "flags"):
        out.add_column(name, no_wrap=True)
    for row in islice((row for batch in dataset.batches(COLUMNS) for row in batch.to_pylist()), left):
        out.add_row(
            printable(row["key"]),
            printable(row["split"]),
            printable(row["regime"]),
            str(row["frames"]),
            f"{row['layers']}x{row['height']}x{row['width']}",
            " ".join(f"{100 * share:.1f}" for share in row["coverage"]),
            f"{row['z_min']:.2f} to {row['z_max']:.2f}",
            f"{row['bytes'] / 1000:.1f}",
            printable(" ".join(row["flags"])),
        )
    console(width=1000).print(out)  # a key that is cut short cannot be copied; the terminal may wrap instead
