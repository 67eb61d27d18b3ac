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
        typer.Argument(help="A picture, a clip (folder, video, animated file), or DATASET#KEY: a rendered sample."),
    ],
    checkpoint: Annotated[
        str,
        typer.Option(help="A run, a checkpoint, an exported file, r75b | r69e | r69g | r69l | r76, hf://OWNER/REPO."),
    ],
    out: Annotated[
        list[Path],
        typer.Option(help="OUT.glb or .ply, .png (sheet), .exr or .depth.png (layers), .npz (all seeds). Repeatable."),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Stacks to sample; the one most like the others is written.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="The first of the seeds.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the ODE solver (paper: 20).")] = 20,
    solver: Annotated[
        Literal["euler", "heun", "multistep"], typer.Option(help="The ODE solver (paper: euler).")
    ] = "euler",
    mask: Annotated[
        str | None,
        typer.Option(help="A picture (clip: or a folder, a video), white where the object is; or auto, rembg, flood."),
    ] = None,
    kind: Annotated[
        Literal["auto", "object", "scene", "clip"], typer.Option(help="auto is what the model was trained on.")
    ] = "auto",
    frames: Annotated[
        int | None, typer.Option(min=1, help="Of a clip at most so many.", show_default="as trained")
    ] = None,
    stride: Annotated[int, typer.Option(min=1, help="Of a clip every so many.")] = 1,
    stretch: Annotated[
        bool, typer.Option("--stretch", help="Scenes: stretched to a square, as the released code frames them.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Stacks that are sampled together.", show_default="what fits")
    ] = None,
    mesh: Annotated[bool, typer.Option("--mesh", help="GLB and PLY: triangles, cut where depth jumps.")] = False,
    no_flyers: Annotated[
        bool, typer.Option("--no-flyers", help="Leave out points that hang between surfaces.")
    ] = False,
    hidden: Annotated[
        Literal["grey", "image"], typer.Option(help="GLB and PLY: the colour of what the picture does not show.")
    ] = "grey",
    device: Annotated[Device, typer.Option(help="auto is CUDA where there is one.")] = "auto",
) -> None:
    """Predict the layered points behind a picture: what is seen in its colours, what is hidden in grey.

    An object is cropped to its mask and framed at 2/3 of the image, as the
    models were trained; a scene is seen whole; a clip's frames are sampled
    jointly. The points are in the camera's frame, and the camera that they
    imply is printed, in pixels of the picture and as its field of view.

    \b
    worldtrace predict photo.png --checkpoint out/run --out photo.glb --out photo-layers.png
    worldtrace predict photo.jpg --mask auto --checkpoint r75b --out photo.glb --mesh
    worldtrace predict clip.mp4 --mask masks/ --stride 2 --checkpoint r76 --out clip.npz
    worldtrace predict 'out/data#heldout' --checkpoint out/run --out sample.glb
        (a sample that the run was not trained on, judged against its truth)
    """
    from train.prediction import output
    from train.prediction.ask import ask
    from train.prediction.edges import without_flyers
    from train.prediction.masks import FOUND
    from train.prediction.predict import answer
    from train.run import device_of, load_run

    output.check(out, [Path(image), *([Path(mask)] if mask and mask not in FOUND else [])])
    run = load_run(checkpoint, device_of(device), typer.echo)
    asked = ask(image, run, mask, kind, frames, stride, stretch)
    for line in asked.says:
        typer.echo(line)
    predictions = answer(run, [asked], range(seed, seed + seeds), steps, solver, batch)[0]
    if no_flyers:
        predictions = [without_flyers(each) for each in predictions]
    for line in output.write(predictions, out, asked.truths or None, mesh=mesh, hidden=hidden):
        typer.echo(line)
