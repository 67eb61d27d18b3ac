"""`worldtrace voxelize`, `guidance` and `insert`: arguments in, one call, a few lines out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from train import environment

environment.settle()

if TYPE_CHECKING:
    import numpy as np

Prediction = Annotated[Path, typer.Argument(help="An .npz of `worldtrace predict`.", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="Which stack; else the one most like the others.")]
FrameOf = Annotated[int, typer.Option(min=0, help="Which frame, of a clip.")]
Flyers = Annotated[
    bool, typer.Option("--flyers/--no-flyers", help="Keep points that float between a near and a far surface, or not.")
]
Elevation = Annotated[float, typer.Option(min=-89, max=89, help="Degrees by which the photograph looks down.")]
Hidden = Annotated[
    Literal["grey", "image"], typer.Option(help="Colour of what no pixel shows: grey, or its pixel's own.")
]


def voxelize(
    prediction: Prediction,
    out: Annotated[Path, typer.Option(help="OUT.npz: coords and transforms; OUT.ply: the voxels' centres, in colour.")],
    resolution: Annotated[int, typer.Option(help="Voxels a side: TRELLIS 64; TRELLIS.2 32, its 1024 model 64.")] = 64,
    elevation: Elevation = 0.0,
    azimuth: Annotated[
        float, typer.Option(help="Degrees by which the camera stands to the right of the object's front.")
    ] = 0.0,
    up: Annotated[
        str | None, typer.Option(metavar="X,Y,Z", help="Upward in the camera frame, in place of --elevation.")
    ] = None,
    fill: Annotated[
        Literal["surface", "solid"], typer.Option(help="surface, as the decoders take it; solid: the inside too.")
    ] = "surface",
    seed: Seed = None,
    frame: FrameOf = 0,
    flyers: Flyers = False,
) -> None:
    """Turn a prediction into the sparse structure that TRELLIS-style mesh decoders take.

    `coords` is int32 (N,4), [0, x, y, z], in the decoders' cube: z up, seen from -y. The transforms beside it bring a
    decoded mesh back to where the image shows the object (docs/downstream.md).

    worldtrace voxelize photo.npz --out photo-sparse.npz --elevation 20
    """
    if out.suffix.lower() not in (".npz", ".ply"):
        raise ValueError(f"--out {out}: its suffix says what is written; use .npz or .ply")
    _not_the_input(out, prediction)
    direction = None if up is None else _direction(up, elevation)
    from train.downstream.stack import read_stack
    from train.downstream.voxels import voxelize as run
    from train.downstream.voxels import write_sparse

    structure = run(read_stack(prediction, seed, frame, flyers), resolution, elevation, azimuth, direction, fill)
    write_sparse(out, structure)
    scale = abs(structure.canonical_from_camera[:3, :3][0] @ structure.canonical_from_camera[:3, :3][0]) ** 0.5
    typer.echo(
        f"{prediction.name}: {len(structure.coords)} of {resolution}^3 voxels, each {1 / (resolution * scale):.4g} of "
        "the prediction's units wide"
    )
    typer.echo(f"wrote {out}")


def guidance(
    prediction: Prediction,
    out: Annotated[Path | None, typer.Option(help="RGB video, OUT.mp4.")] = None,
    depth: Annotated[Path | None, typer.Option(help="Depth video, DEPTH.mp4: inverse depth, near bright.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder for frames: rgb_0000.png, depth_0000.exr, layer_0000.png, cameras.json.")
    ] = None,
    path: Annotated[str, typer.Option(help="orbit, dolly, spiral, or FILE.json with world_from_camera.")] = "orbit",
    frames: Annotated[int, typer.Option(min=1, max=10_000, help="Frames of a named path.")] = 49,
    amount: Annotated[
        float | None,
        typer.Option(
            help="orbit: degrees (360). dolly: part of the way to the object (0.5). spiral: radius, as a part (0.15)."
        ),
    ] = None,
    elevation: Elevation = 0.0,
    hidden: Hidden = "grey",
    fps: Annotated[int, typer.Option(min=1, max=240, help="Frames per second of the videos.")] = 24,
    seed: Seed = None,
    frame: FrameOf = 0,
    flyers: Flyers = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto is CUDA where there is one.")] = "auto",
) -> None:
    """Show a prediction from a moving camera, as RGB and depth that guide a video model.

    The first camera of a named path is the photograph's, and its frame is the photograph where that has points.

    worldtrace guidance photo.npz --path orbit --out orbit.mp4 --depth orbit-depth.mp4

    worldtrace guidance photo.npz --path frames/cameras.json --folder again    (the cameras of an earlier run, or yours)
    """
    wanted = [each for each in (out, depth, folder) if each is not None]
    if not wanted:
        raise ValueError("nothing to write: give --out VIDEO.mp4, --depth VIDEO.mp4, --folder FOLDER, or several")
    for option, video in (("--out", out), ("--depth", depth)):
        if video is not None and video.suffix.lower() != ".mp4":
            raise ValueError(f"{option} {video}: videos are written as .mp4; single frames go to --folder")
    if out is not None and depth is not None and out.resolve() == depth.resolve():
        raise ValueError(f"--out and --depth are both {out}; give the depth video a name of its own")
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"--folder {folder} is a file; give a folder for the frames")
    if out is not None or depth is not None:
        from train.downstream.video import load_av

        load_av()  # before the frames are made, not after
    from train.downstream import guidance as run
    from train.downstream.cameras import cameras
    from train.downstream.stack import read_stack
    from train.run import device_of

    stack = read_stack(prediction, seed, frame, flyers)
    along = cameras(path, stack, frames, amount, elevation)
    span = run.depth_range(stack, along)
    shares = run.write_guidance(
        run.frames(stack, along, hidden, device_of(device)), along, span, out, depth, folder, fps
    )
    typer.echo(
        f"{prediction.name}: {len(shares)} frames of {along.width}x{along.height}; a point is seen in "
        f"{100 * min(shares):.1f} to {100 * max(shares):.1f} % of the pixels"
    )
    if depth is not None:
        typer.echo(f"depth video: {span.text}")
    for each in wanted:
        typer.echo(f"wrote {each}")


def insert(
    item: Annotated[Path, typer.Argument(metavar="OBJECT.npz", help="A prediction of the object.", show_default=False)],
    scene: Annotated[
        Path,
        typer.Argument(
            metavar="SCENE.npz", help="A prediction of the scene, from the same photograph.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="OUT.glb: one file with the nodes `scene` and `object`.")],
    place: Annotated[
        Literal["seen", "standing"],
        typer.Option(
            help="seen: the scene's picture shows the object. standing: it does not; it stands on the ground."
        ),
    ] = "seen",
    align: Annotated[
        Literal["shape", "depth"],
        typer.Option(help="shape: the object keeps its proportions. depth: scale and shift follow the scene's depth."),
    ] = "shape",
    mesh: Annotated[bool, typer.Option("--mesh", help="Triangles instead of points.")] = False,
    hidden: Hidden = "grey",
    seed: Annotated[int | None, typer.Option(help="Which stack of the object; else the typical one.")] = None,
    scene_seed: Annotated[int | None, typer.Option(help="Which stack of the scene; else the typical one.")] = None,
    flyers: Flyers = False,
) -> None:
    """Put a predicted object into a predicted scene, in closed form: both were predicted from one photograph.

    The object's points stay on the rays of their pixels; its distance follows from the scene. What the scene had at
    that place is left out, what is behind the object stays.

    worldtrace insert mug.npz kitchen.npz --out together.glb
    """
    if out.suffix.lower() != ".glb":
        raise ValueError(f"--out {out}: the two are written as one .glb")
    for each in (item, scene):
        _not_the_input(out, each)
    from train.downstream.insert import place as run
    from train.downstream.insert import write_inserted
    from train.downstream.stack import read_stack

    thing, room = read_stack(item, seed, 0, flyers), read_stack(scene, scene_seed, 0, flyers)
    placement = run(thing, room, place, align)
    write_inserted(out, thing, room, placement, mesh, hidden)
    typer.echo(
        f"{item.name} in {scene.name}: z' = {placement.scale:.5g} z {placement.shift:+.5g} along the scene's rays, "
        f"from {placement.pixels} pixels with a median error of {100 * placement.error:.2f} %"
    )
    typer.echo(
        f"{int(thing.there.sum())} points of the object; {int(placement.removed.sum())} of {int(room.there.sum())} of "
        "the scene gave way"
    )
    typer.echo(f"wrote {out}")


def _direction(up: str, elevation: float) -> "np.ndarray":
    if elevation:
        raise ValueError("--up says all that --elevation says; give one of them")
    import numpy as np

    try:
        direction = np.array([float(part) for part in up.split(",")])
    except ValueError:
        direction = np.zeros(0)
    if direction.shape != (3,):
        raise ValueError(f"--up {up} is no direction; give x,y,z in the camera frame, such as 0,-1,0")
    return direction


def _not_the_input(out: Path, given: Path) -> None:
    if out.resolve() == given.resolve():
        raise ValueError(f"--out {out} is the prediction itself; give the result another name")
