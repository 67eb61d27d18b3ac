"""A view as one OpenEXR image for compositors: its colours, the depth of every layer, and how many layers are true.

Channels: R G B A as half floats, linear and premultiplied as the format's convention has it; `L0.Z`, `L1.Z`, ... as
float32, forward-filled (Eq. 2) and 0 where the ray meets nothing; `hits` as uint32. The attribute `worldtrace` is JSON:
key, K, world_from_camera, regime, in the conventions of docs/format.md.
"""

import json
from os import PathLike
from pathlib import Path

import numpy as np

from .commit import committed
from .contract import LayeredView
from .srgb import LINEAR


def write_exr(path: str | PathLike[str], view: LayeredView) -> Path:
    """Write a view as scan lines with ZIP compression (lossless); bytes are the same for the same view and library."""
    import OpenEXR  # a fifth of a second, which only who exports waits for

    path = Path(path)
    alpha = view.rgba[..., 3:].astype(np.float32) / 255
    color = np.concatenate([LINEAR[view.rgba[..., :3]] * alpha, alpha], axis=-1).astype(np.float16)
    channels = {"RGBA": np.ascontiguousarray(color), "hits": view.hits.astype(np.uint32)}
    channels |= {f"L{l}.Z": np.ascontiguousarray(depth) for l, depth in enumerate(view.depth)}
    about = {
        "key": view.key,
        "regime": view.regime,
        "K": np.asarray(view.K, np.float64).tolist(),
        "world_from_camera": np.asarray(view.world_from_camera, np.float64).tolist(),
    }
    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "worldtrace": json.dumps(about, sort_keys=True),
    }
    with committed(path) as file:
        OpenEXR.File(header, channels).write(file.name)
    return path
