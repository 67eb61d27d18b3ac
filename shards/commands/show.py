"""`worldtrace shards show`: one sample or a contact sheet, in the terminal or as a PNG."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from .. import reader, terminal
from ..contract import Sample
from ..printable import printable
from ..sheet import sheet, strip, views_of
from ..terminal import say
from .arguments import Directory, SplitOption, Where, narrowed, row_of

SMALLEST = 24  # characters, and so pixels, that a picture in the terminal is wide at least


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
    samples = (dataset[row] for row in rows)
    screen = terminal.console()
    way = terminal.way(screen) if out is None else None
    if way == "blocks":
        _as_text(samples, screen)
    elif way is not None:
        terminal.draw(sheet(samples, tile=tile), screen, way)
    else:
        out = out or Path("sheet.png")
        sheet(samples, out, tile)
        say(f"{out}: {len(rows)} of {len(dataset)} samples")


def _as_text(samples: Iterable[Sample], screen: Console) -> None:
    """Key and coverage as text, which half blocks are too coarse for, then as many pictures in a row as fit."""
    columns = max(1, min(7, screen.width // SMALLEST))
    for view in (view for sample in samples for view in views_of(sample)):
        shares = " ".join(f"{100 * float((view.hits > l).mean()):.1f}" for l in range(view.layers))
        screen.print(f"{printable(view.key)}   coverage % {shares}", soft_wrap=True)
        terminal.draw(strip(view, screen.width // columns, columns), screen, "blocks")
