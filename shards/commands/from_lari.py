"""`worldtrace shards from-lari`: LaRI's layered depth images as multilayer samples."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..terminal import say
from .arguments import advance, bar


def from_lari(
    folder: Annotated[Path, typer.Argument(help="Where LaRI's set was unpacked: folders with NAME_ldi.npz.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR|URL", help="The dataset to write, or to go on with.")],
    layers: Annotated[int, typer.Option("--layers", min=1, max=32, help="Surfaces kept along each ray.")] = 6,
    scenes: Annotated[str, typer.Option("--scenes", metavar="GLOB", help="Only folders of such a name.")] = "*",
    every: Annotated[int, typer.Option("--every", min=1, help="Take every K-th view of a folder.")] = 1,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Take so many views in all.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes; 0 reads in this one, without protection.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Read once more what an earlier run rejected.")] = False,
) -> None:
    """Import the views of LaRI (Objaverse, GSO, 3D-FRONT, ScanNet++, SCRREAM): layers, image, camera (docs/rgbd.md).

    A folder of views becomes a shard; `worldtrace shards reshard` packs small ones together.
    """
    from ..rgbd.plan import Selection, Settings
    from ..rgbd.write import import_corpus

    settings = Settings("lari", size=512, every=every, layers=layers)
    with bar("reading views") as progress:
        summary = import_corpus(
            folder,
            out,
            settings,
            Selection(scenes, None, limit),
            workers=(os.cpu_count() or 1) if workers is None else workers,
            retry=retry,
            progress=lambda done, total: advance(progress, done, total),
            say=lambda line: progress.update(progress.task_ids[0], description=line),
        )
    for line in (summary.line(), *summary.remarks):
        say(line)
