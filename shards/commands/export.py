"""`worldtrace shards export`: one sample as a layered point cloud, or as plain arrays."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .. import reader
from ..commit import committed
from ..contract import Clip
from ..pointcloud import FORMATS, layered_points, write_points
from .arguments import Directory, row_of


def export(
    directory: Directory,
    key: Annotated[str, typer.Argument(help="Key or row number of the sample.")],
    out: Annotated[Path, typer.Option("--out", help="Where to: .ply or .glb (points), or .npz (all arrays).")],
    frame: Annotated[int, typer.Option("--frame", min=0, help="Which frame of a clip.")] = 0,
) -> None:
    """Write a sample for other programs: visible points take the image's colours, hidden ones are grey.

    PLY keeps the camera frame (+x right, +y down, +z forward); GLB is y-up. NPZ holds rgba, hits, depth, K,
    world_from_camera, xyz and needs no pickle to be read.
    """
    if out.suffix.lower() not in (*FORMATS, ".npz"):
        raise ValueError(f"--out {out}: give a name that ends in {', '.join(FORMATS)} or .npz")
    dataset = reader.open(directory)
    sample = dataset[row_of(dataset, key)]
    frames = sample.frames if isinstance(sample, Clip) else (sample,)
    if frame >= len(frames):
        raise ValueError(f"--frame {frame}: {sample.key} has frames 0 to {len(frames) - 1}")
    view = frames[frame]
    if out.suffix.lower() == ".npz":
        names = ("rgba", "hits", "depth", "K", "world_from_camera")
        with committed(out) as file:
            np.savez_compressed(file, xyz=view.xyz(), **{name: getattr(view, name) for name in names})
        typer.echo(f"{out}: {view.layers}x{view.size[0]}x{view.size[1]}")
    else:
        xyz, rgb = layered_points(view)
        write_points(out, xyz, rgb)
        typer.echo(f"{out}: {len(xyz)} points, {int(view.valid.sum())} of them visible")
