"""`worldtrace shards view`: a dataset in the browser, sample by sample, with its layers as point clouds."""

import time
from pathlib import Path
from typing import Annotated

import typer

from .. import reader
from ..terminal import say
from .arguments import Directory, SplitOption, Where


def view(
    directory: Directory,
    key: Annotated[str | None, typer.Option("--key", help="Key or number of the sample to begin with.")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="What `worldtrace predict` wrote: a folder of KEY.npz, KEY.ply or KEY.glb, or one such file (of the "
            "sample --key, or that its name says); or report.json of `worldtrace eval`.",
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Port of the page.")] = 8080,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; 0.0.0.0 admits other machines.")
    ] = "127.0.0.1",
    split: SplitOption = None,
    where: Where = None,
) -> None:
    """Look at a dataset in the browser: choose a sample, switch layers on and off, see the image beside its points and
    the camera among them, play clips, and compare predictions with the truth, layer by layer.
    """
    from ..viewer import Predictions, serve

    dataset = reader.open(directory, split, where=where)
    if not len(dataset):
        raise ValueError(f"{directory}: the selection is empty")
    known = None if predictions is None else Predictions(predictions, key)
    server = serve(dataset, host, port, key=key, predictions=known)
    say(f"{len(dataset)} samples at http://{host}:{server.get_port()} (Ctrl-C ends it)")
    try:
        while True:
            time.sleep(3600)
    finally:
        server.stop()
