"""`worldtrace render`."""

import inspect
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

Regime = Literal["object", "scene", "dynamic"]
ASSETS, JOB = "Which assets", "How the job is done"  # panels of --help
Backend = Literal["auto", "cpu", "cuda", "nvdiffrast", "pyrender"]


def render(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Folders or files (glTF, GLB, OBJ, PLY, STL), their address (s3://, gs://, https://), objaverse:lvis, "
            "objaverse-xl:github, front3d:DIR, procedural:objects?count=64, ... (docs/assets.md)."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR|URL",
            help="Folder of the dataset, on a cluster one that all nodes share, or s3://bucket/name, gs://... Of a "
            "preview: a PNG.",
        ),
    ],
    preview: Annotated[
        bool, typer.Option("--preview", help="Draw one asset's views and layers on a picture, without a job.")
    ] = False,
    views: Annotated[int, typer.Option(min=1, help="Views of each asset (dynamic: clips).")] = 4,
    size: Annotated[str, typer.Option(metavar="HxW|N", help="Image size in pixels: 504 or 378x504.")] = "504",
    layers: Annotated[int, typer.Option(min=1, max=32, help="Surfaces kept behind every pixel.")] = 6,
    regime: Annotated[
        Regime | None,
        typer.Option(help="How assets are framed: alone, from inside, or in motion. Default: what the source holds."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of cameras and lights.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip (dynamic only).")] = 16,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other render setting, as often as needed: --set fov_mode=54.2 --set aspect=0.8,1.25 "
            "(docs/render.md).",
            show_default=False,
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            help="redistributable, commercial, any, or names such as CC0-1.0,CC-BY-4.0. Default: redistributable, and "
            "files of your own of which nothing is stated.",
            show_default=False,
            rich_help_panel=ASSETS,
        ),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep assets of these categories only; repeatable.", show_default=False, rich_help_panel=ASSETS
        ),
    ] = None,
    animated: Annotated[
        bool | None,
        typer.Option(
            "--animated/--still",
            help="Keep animated assets only, or still ones.",
            show_default=False,
            rich_help_panel=ASSETS,
        ),
    ] = None,
    triangles: Annotated[
        str | None,
        typer.Option(
            metavar="MIN-MAX",
            help="Keep assets of so many triangles: 100-1m.",
            show_default=False,
            rich_help_panel=ASSETS,
        ),
    ] = None,
    only: Annotated[
        Path | None,
        typer.Option(help="A file of uids, one a line: keep these only.", show_default=False, rich_help_panel=ASSETS),
    ] = None,
    without: Annotated[
        Path | None, typer.Option(help="A file of uids to leave out.", show_default=False, rich_help_panel=ASSETS)
    ] = None,
    retry: Annotated[
        str | None,
        typer.Option(
            metavar="REASON,...",
            help="Make units again that hold assets which ended for these reasons, such as unavailable,timeout.",
            show_default=False,
            rich_help_panel=ASSETS,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="local|auto|HOST:PORT",
            help="Ray to work on. Default: one of its own here, or inside `ray job submit` that job's cluster.",
            show_default=False,
            rich_help_panel=JOB,
        ),
    ] = None,
    backend: Annotated[
        Backend, typer.Option(help="Rasterizer; auto: cuda where Ray has a GPU, or cpu.", rich_help_panel=JOB)
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Renderers at a time. Default: one for each CPU of Ray.",
            show_default=False,
            rich_help_panel=JOB,
        ),
    ] = None,
    shard_views: Annotated[
        int, typer.Option(min=1, help="Images in a shard, about; one asset's views stay together.", rich_help_panel=JOB)
    ] = 64,
    foremen: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that hand out the work. Default: one for 128 workers; the driver alone below that.",
            show_default=False,
            rich_help_panel=JOB,
        ),
    ] = None,
    renderers_per_gpu: Annotated[
        int,
        typer.Option(min=1, help="Processes that share a GPU, so that it never waits for one.", rich_help_panel=JOB),
    ] = 4,
    fetchers: Annotated[int, typer.Option(min=1, help="Downloads at a time.", rich_help_panel=JOB)] = 16,
    fetch_timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds a download may take.", rich_help_panel=JOB)
    ] = 600.0,
    asset_timeout: Annotated[
        float,
        typer.Option(min=1.0, help="Seconds an asset may take in a stage, all views together.", rich_help_panel=JOB),
    ] = 300.0,
    memory: Annotated[float, typer.Option(min=0.5, help="GiB that one asset may allocate.", rich_help_panel=JOB)] = 8.0,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show what Ray and its workers log.", rich_help_panel=JOB)
    ] = False,
) -> None:
    """Render 3D assets into a dataset of layered views.

    A run that was stopped, in whatever way, goes on when it is started again, and ends in the same bytes. Assets that
    cannot become ground truth are counted at the end; ledger.parquet says why, asset by asset. Exit code: 0 with views,
    1 where not a single view came of it, 2 for what cannot be done as asked.

    \b
    worldtrace render procedural:objects?count=64 --out data --size 112
    worldtrace render --preview models/chair.glb --out sheet.png
    worldtrace render models/ --views 8 --out data
    worldtrace render front3d:/data/3D-FRONT --size 378x504 --out rooms
    ray job submit --working-dir . -- worldtrace render objaverse:lvis --views 56 --out s3://bucket/objaverse-504
    """
    from cluster import connection, sources

    connection.prepare(address, debug)  # before anything imports ray
    from render import settings_of

    parsed = [sources.parse(text) for text in source]
    remote = "://" in out
    if not (preview or remote or Path(out).is_absolute()) and "runtime_resources" in Path.cwd().parts:
        raise ValueError(f"--out {out} would lie in the job's own copy of the working directory: give an absolute path")
    height, width = image_size(size)
    values = {
        "views": views,
        "height": height,
        "width": width,
        "layers": layers,
        "regime": regime or sources.common_regime(parsed),
        "seed": seed,
        "frames": frames,
        "backend": backend,
    }
    for name in (text.partition("=")[0].strip() for text in set_ or []):
        if name in inspect.signature(render).parameters and name not in {"source", "set_", *values}:
            raise ValueError(f"--set {name} is no render setting but an option: --{name.replace('_', '-')}")
    settings = settings_of(values, set_ or [])
    from cluster.sources.filters import Filters

    filters = Filters.parse(licence, category, animated, triangles, only, without)
    if preview:
        from cluster.preview import write_preview

        kept, line = write_preview(parsed, Path(out), settings, filters, asset_timeout, int(memory * 2**30))
        typer.echo(line)
        if not kept:
            raise typer.Exit(1)
        return
    from cluster.dataset import Means, render_dataset

    means = Means(
        address=address,
        workers=workers,
        asset_timeout=asset_timeout,
        memory=int(memory * 2**30),
        debug=debug,
        fetchers=fetchers,
        fetch_timeout=fetch_timeout,
        renderers_per_gpu=renderers_per_gpu,
        foremen=foremen,
    )
    again = tuple(reason.strip() for reason in retry.split(",")) if retry else ()
    try:
        summary = render_dataset(parsed, out, settings, shard_views, means, filters=filters, retry=again)
    except KeyboardInterrupt:
        typer.echo(f"{out}: stopped; the same command goes on from here", err=True)
        raise
    typer.echo(f"{out}: {summary.line()}")
    if summary.rejected or summary.failed:
        typer.echo(f"`worldtrace cluster report {out}` says why, and its ledger.parquet asset by asset.")
    if not summary.views:
        typer.echo(f"worldtrace render: {out} holds no view: none of {summary.assets} assets gave one", err=True)
        raise typer.Exit(1)


def image_size(text: str) -> tuple[int, int]:
    """ "504" or "378x504" (height x width) -> (height, width)."""
    if not (match := re.fullmatch(r"(\d{1,9})(?:[xX×](\d{1,9}))?", text.strip())):
        raise ValueError(f"--size {text!r} is no image size: give N or HEIGHTxWIDTH, such as 504 or 378x504")
    return int(match[1]), int(match[2] or match[1])
