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
        typer.Argument(
            help="A picture, a folder of them, a clip (video, animated file, folder), or DATASET#KEY: a sample."
        ),
    ],
    checkpoint: Annotated[
        str,
        typer.Option(help="A run, a checkpoint, an exported file, r75b | r69e | r69g | r69l | r76, hf://OWNER/REPO."),
    ],
    out: Annotated[
        list[Path],
        typer.Option(
            help="OUT.glb, .ply, .png (sheet), .exr or .depth.png (layers), .npz (all seeds), or a folder. Repeatable."
        ),
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help="For --out DIR: glb, ply, png, exr, depth.png, npz. Repeatable.", show_default="glb"
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=1024, help="Stacks to sample; the one most like the others is written.")
    ] = 4,
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
    closed: Annotated[
        bool, typer.Option("--closed", help="With --mesh: walls along the silhouette, for solids.")
    ] = False,
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
    worldtrace predict photos/ --checkpoint r75b --mask auto --out out/photos --format glb --format npz
        (each picture by itself; stopped, it goes on; exit code 1 if any was rejected)
    worldtrace predict clip.mp4 --mask masks/ --stride 2 --checkpoint r76 --out clip.npz
    worldtrace predict 'out/data#heldout' --checkpoint out/run --out sample.glb
        (a sample that the run was not trained on, judged against its truth)
    """
    from shards.terminal import say
    from train.prediction import output
    from train.prediction.archive import check_fits
    from train.prediction.ask import ask
    from train.prediction.edges import without_flyers
    from train.prediction.folder import How, predict_folder
    from train.prediction.masks import FOUND
    from train.prediction.predict import answer
    from train.run import device_of, load_run

    suffixes = tuple(each.lower().removeprefix(".") for each in formats or ["glb"])
    if closed and not mesh:
        raise ValueError("--closed is of meshes; give --mesh too")
    folders = [each for each in out if each.is_dir() or not each.suffix]
    if formats and not folders:
        raise ValueError("--format is for an --out that is a folder; the suffix of a file says what is written")
    name = image.rpartition("#")[2] if not Path(image).exists() else output.name_for(Path(image).resolve())
    paths = [p for each in out for p in ([each / f"{name}.{s}" for s in suffixes] if each in folders else [each])]
    output.check(paths, [Path(image), *([Path(mask)] if mask and mask not in FOUND else [])])
    run = load_run(checkpoint, device_of(device), typer.echo)
    every = tuple(range(seed, seed + seeds))
    if Path(image).is_dir() and kind != "clip" and not (kind == "auto" and run.model.config.temporal):
        if len(out) != 1 or not folders:
            raise ValueError(f"{image}: a folder of pictures; give one --out DIR, and a --format for each file of each")
        if frames or stride > 1:
            raise ValueError("--frames and --stride are of clips; give --kind clip if these pictures are one")
        how = How(suffixes, every, steps, solver, mask, kind, stretch, mesh, closed, hidden, no_flyers)
        outcome = predict_folder(run, Path(image), out[0], how, batch, typer.echo)
        typer.echo(outcome.line(out[0]))
        raise typer.Exit(1 if outcome.rejected else 0)
    asked = ask(image, run, mask, kind, frames, stride, stretch)
    for line in asked.says:
        say(line)
    for path in paths:
        if path.suffix.lower() == ".npz":
            check_fits(path, seeds, asked.frames, run.model.config.layers, *asked.valid.shape[1:])
    predictions = answer(run, [asked], every, steps, solver, batch)[0]
    if no_flyers:
        predictions = [without_flyers(each) for each in predictions]
    for line in output.write(predictions, paths, asked.truths or None, mesh=mesh, closed=closed, hidden=hidden):
        say(line)
