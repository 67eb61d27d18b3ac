"""`worldtrace shards show`: one sample or a contact sheet, in the terminal or as a PNG."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from .. import reader, terminal
from ..commit import committed
from ..sheet import sheet
from .arguments import Directory, SplitOption, Where, narrowed, row_of


def show(
    directory: Directory,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys or row numbers; default: --count of them.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many, evenly spaced over the dataset.")] = 8,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The PNG to write. Default: the terminal, or sheet.png where it cannot show any."),
    ] = None,
    split: SplitOption = None,
    where: Where = None,
    tile: Annotated[int, typer.Option("--tile", min=16, max=2048, help="Pixels of one picture.")] = 168,
) -> None:
    """Draw samples: the image over a checkerboard and every depth layer, near bright, copies of the last hit dimmed."""
    if out is not None and out.suffix.lower() != ".png":
        raise ValueError(f"--out {out}: the sheet is a PNG, so give a name that ends in .png")
    dataset = narrowed(reader.open(directory, split), where)
    if keys:
        rows = [row_of(dataset, key) for key in keys]
    else:
        rows = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)).tolist()
    page = sheet((dataset[row] for row in rows), out, tile)
    if out is None and not terminal.show(page, Console()):
        out = Path("sheet.png")
        with committed(out) as file:
            page.save(file, "PNG")
    if out is not None:
        typer.echo(f"{out}: {len(rows)} of {len(dataset)} samples")
