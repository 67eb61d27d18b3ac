"""`worldtrace predict`: arguments in, one call, a few lines out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from train import environment

environment.settle()

Device = Literal["auto", "cpu", "cuda"]


def predict(
    image: Annotated[
        str,
        typer.Argument(help="A picture (RGBA, or RGB with --mask), or DATASET#KEY: a rendered sample with its truth."),
    ],
    checkpoint: Annotated[Path, typer.Option(help="The `out` folder of a training run, or one of its checkpoints.")],
    out: Annotated[
        list[Path], typer.Option(help="OUT.glb or OUT.ply: points; OUT.png: a sheet; OUT.npz: arrays. Repeatable.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Stacks to sample; the one most like the others is written.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the ODE solver (paper: 20).")] = 20,
    mask: Annotated[
        Path | None, typer.Option(help="A picture, white where the object is; else the alpha is used.")
    ] = None,
    device: Annotated[Device, typer.Option(help="auto is CUDA where there is one.")] = "auto",
) -> None:
    """Predict the layered point cloud behind an image: what is seen in its colours, what is hidden in grey.

    An object is cropped to its mask and framed at 2/3 of the image, as the models were trained. The points are in the
    camera's frame; the camera that they imply is printed. An .npz holds the stacks of all seeds.

    Examples:

    worldtrace predict photo.png --checkpoint out/run --out photo.glb --out photo-layers.png

    worldtrace predict 'out/data#heldout' --checkpoint out/run --out sample.glb    (a sample the run was not trained on)
    """
    from train.prediction import output
    from train.prediction.predict import predict as run_model
    from train.run import device_of, load_run

    output.check(out, [Path(image), *([mask] if mask else [])])
    run = load_run(checkpoint, device_of(device))
    asked = output.resolve(image, mask, run)
    prediction = run_model(run, asked.rgb, asked.valid, range(seeds), steps, asked.name)
    for line in output.write(prediction, asked, out):
        typer.echo(line)
