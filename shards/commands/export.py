"""`worldtrace shards export`: one sample as a layered point cloud, as an image of layers, or as plain arrays."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .. import reader
from ..commit import committed
from ..contract import Clip
from ..exr import write_exr
from ..pointcloud import FORMATS, layered_points, write_points
from ..terminal import say
from .arguments import Directory, row_of


def export(
    directory: Directory,
    key: Annotated[str, typer.Argument(help="Key or row number of the sample.")],
    out: Annotated[Path, typer.Option("--out", help="Where to: .ply or .glb (points), .exr or .npz.")],
    frame: Annotated[int, typer.Option("--frame", min=0, help="Which frame of a clip.")] = 0,
) -> None:
    """Write a sample for other programs: visible points take the image's colours, hidden ones are grey.

    PLY keeps the camera frame (+x right, +y down, +z forward); GLB is y-up. EXR has linear premultiplied RGBA, the
    depth of each layer as L0.Z, L1.Z, ..., and hits. NPZ holds rgba, hits, depth, K, world_from_camera, xyz and needs
    no pickle to be read.
    """
    if out.suffix.lower() not in (*FORMATS, ".exr", ".npz"):
        raise ValueError(f"--out {out}: give a name that ends in {', '.join(FORMATS)}, .exr or .npz")
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
        say(f"{out}: {view.layers}x{view.size[0]}x{view.size[1]}")
    elif out.suffix.lower() == ".exr":
        write_exr(out, view)
        say(f"{out}: {view.layers}x{view.size[0]}x{view.size[1]}")
    else:
        xyz, rgb = layered_points(view)
        write_points(out, xyz, rgb)
        say(f"{out}: {len(xyz)} points, {int(view.valid.sum())} of them visible")
