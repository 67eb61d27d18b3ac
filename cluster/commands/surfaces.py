"""`worldtrace cluster surfaces`."""

from pathlib import Path
from typing import Annotated

import typer


def surfaces(
    dataset: Annotated[str, typer.Argument(help="Folder or address of a rendered dataset.")],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the points go; a new folder, or one to go on with.")
    ],
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Where its assets lie, as `worldtrace render` takes it; repeatable. Default: what dataset.json names.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val, test, or several joined by +.")] = "val+test",
    count: Annotated[int, typer.Option(min=1, max=10_000_000, help="Points of each asset.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the points.")] = 0,
    asset_timeout: Annotated[float, typer.Option(min=1.0, help="Seconds an asset may take.")] = 300.0,
    memory: Annotated[float, typer.Option(min=0.5, help="GiB that one asset may allocate.")] = 8.0,
) -> None:
    """Sample points from the surfaces of a dataset's assets, for `worldtrace eval --surfaces FOLDER`.

    A file for each asset, in its own frame; an animated one at every time that the dataset shows. What stands in the
    folder stays: run it again to go on. Exit code 1 where not a single asset has points.

    \b
    worldtrace cluster surfaces data --out data-surfaces
    worldtrace cluster surfaces s3://bucket/objects --source models/ --split test --out surfaces
    """
    from rich.progress import Progress

    import shards
    from cluster.surfaces import make_surfaces

    opened = shards.open(dataset)
    with Progress() as bar:
        task = bar.add_task("surfaces")
        summary = make_surfaces(
            opened,
            out,
            source or (),
            tuple(split.split("+")),
            count,
            seed,
            asset_timeout,
            int(memory * 2**30),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    for line in summary.lines():
        typer.echo(line)
    if not summary.made + summary.stood:
        raise typer.Exit(1)
