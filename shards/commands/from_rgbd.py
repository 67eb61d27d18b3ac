"""`worldtrace shards from-rgbd`: other people's RGBD corpora as single-layer samples."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..rgbd import READERS
from ..terminal import say
from .arguments import advance, bar


def from_rgbd(
    corpus: Annotated[str, typer.Argument(help=f"One of {', '.join(READERS)}.")],
    folder: Annotated[Path, typer.Argument(help="Where it was unpacked (docs/rgbd.md says how it must look).")],
    out: Annotated[str, typer.Option("--out", metavar="DIR|URL", help="The dataset to write, or to go on with.")],
    size: Annotated[int, typer.Option("--size", min=16, max=4096, help="Pixels of the shorter side.")] = 504,
    upscale: Annotated[bool, typer.Option("--upscale", help="Enlarge frames that are smaller than --size.")] = False,
    scenes: Annotated[str, typer.Option("--scenes", metavar="GLOB", help="Only scenes of such a name.")] = "*",
    split_file: Annotated[
        Path | None, typer.Option("--split-file", help="Only the scenes that this text names, one in a line.")
    ] = None,
    every: Annotated[int, typer.Option("--every", min=1, help="Take every K-th frame of a scene.")] = 1,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Take so many frames in all.")] = None,
    per_shard: Annotated[int, typer.Option("--per-shard", min=1, max=10_000, help="Frames of a shard at most.")] = 256,
    bound: Annotated[
        float | None,
        typer.Option(
            "--bound", help="Relative error of stored depth; default: 2.5e-4 of measured, 5e-5 of rendered depth."
        ),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the corpus; repeatable.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes; 0 reads in this one, without protection.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Read once more what an earlier run rejected.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that one frame may take.")] = 120.0,
) -> None:
    """Import a corpus of images, depth maps and intrinsics: samples that supervise layer 0 alone (paper, Eq. 4).

    Run it again to go on after an interruption, or to add what has been downloaded since.
    """
    from ..rgbd import LAYERED
    from ..rgbd.plan import Selection, Settings
    from ..rgbd.write import import_corpus

    if corpus in LAYERED:
        raise ValueError(f"{corpus} holds several layers: import it by `worldtrace shards from-{corpus}`")
    if bound is not None and not 1e-6 <= bound <= 1e-2:
        raise ValueError(f"--bound {bound}: give a number from 1e-6 to 1e-2")
    chosen: dict[str, str] = {}
    for text in options or ():
        name, separator, value = text.partition("=")
        if not separator or name in chosen:
            raise ValueError(f"--set {text}: give NAME=VALUE, and each name once")
        chosen[name] = value
    settings = Settings(corpus, tuple(sorted(chosen.items())), size, upscale, every, per_shard, bound=bound)
    with bar("reading frames") as progress:
        summary = import_corpus(
            folder,
            out,
            settings,
            Selection(scenes, split_file, limit),
            workers=(os.cpu_count() or 1) if workers is None else workers,
            retry=retry,
            progress=lambda done, total: advance(progress, done, total),
            say=lambda line: progress.update(progress.task_ids[0], description=line),
            patience=timeout,
        )
    for line in (summary.line(), *summary.remarks):
        say(line)
