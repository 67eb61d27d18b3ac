"""Depth layers for other programs: one OpenEXR image of all layers, or a 16-bit PNG of each.

The EXR has the channels that `worldtrace shards export` gives a sample: R G B A as half floats, linear, premultiplied
by the mask; `L0.Z`, `L1.Z`, ... as float32, what the model put there (a repeated depth where a ray has ended, 0 where
nothing is); `hits` as uint32, how many layers there are up to the last that repeats nothing.

A PNG holds only points that repeat nothing; 0 is no point, any other code times `depth_scale` is z. All layers (and all
frames of a clip) have one scale, which stands in each file as tEXt.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shards import committed
from shards.srgb import LINEAR
from train.prediction.prediction import Prediction, new_points

SUFFIX = ".depth.png"
LARGEST_CODE = 65535


def write_exr(path: Path, prediction: Prediction, index: int) -> Path:
    """Write stack `index` as scan lines with lossless ZIP compression."""
    import OpenEXR  # a fifth of a second, which only who asks for it waits for

    xyz, exists = prediction.xyz[index], prediction.exists[index] & prediction.valid
    alpha = prediction.valid[..., None].astype(np.float32)
    codes = np.rint(np.clip(prediction.rgb, 0, 1) * 255).astype(np.uint8)
    colour = np.concatenate([LINEAR[codes] * alpha, alpha], axis=-1).astype(np.float16)
    new = new_points(xyz, exists)
    number = np.arange(1, len(xyz) + 1, dtype=np.uint32)[:, None, None]
    channels = {"RGBA": np.ascontiguousarray(colour), "hits": np.where(new, number, 0).max(axis=0).astype(np.uint32)}
    depth = np.where(exists, xyz[..., 2], 0).astype(np.float32)
    channels |= {f"L{l}.Z": np.ascontiguousarray(layer) for l, layer in enumerate(depth)}
    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "worldtrace": json.dumps(_about(prediction, index), sort_keys=True),
    }
    with committed(path) as file:
        OpenEXR.File(header, channels).write(file.name)
    return path


def depth_scale(predictions: Sequence[Prediction], index: int) -> float:
    """z of one code, so that the farthest point of all has the largest; 1 where there is no point."""
    depths = [z[new] for z, new in (_depth(each, index) for each in predictions)]
    farthest = max(float(z[np.isfinite(z)].max(initial=0)) for z in depths)
    return farthest / LARGEST_CODE if farthest > 0 else 1.0


def depth_names(path: Path, layers: int) -> list[Path]:
    """NAME.depth.png -> NAME.L0.depth.png, NAME.L1.depth.png, ..."""
    stem = path.name[: -len(SUFFIX)]
    return [path.with_name(f"{stem}.L{l}{SUFFIX}") for l in range(layers)]


def write_depth_pngs(path: Path, prediction: Prediction, index: int, scale: float) -> list[Path]:
    """Write each layer of stack `index` as 16-bit grey, named by `depth_names`. ValueError where depth is not finite.

    Precision: half a code, 1 part in 131,070 of the farthest depth. A point at or behind the camera has code 1.
    """
    z, new = _depth(prediction, index)
    if wrong := int((new & ~np.isfinite(z)).sum()):
        raise ValueError(f"{path}: {wrong} of {int(new.sum())} points of {prediction.name} are not finite")
    codes = np.where(new, np.clip(np.rint(np.where(new, z, 0) / scale), 1, LARGEST_CODE), 0).astype(np.uint16)
    names = depth_names(path, len(codes))
    for l, (name, layer) in enumerate(zip(names, codes)):
        text = PngInfo()
        text.add_text("depth_scale", repr(scale))
        text.add_text("worldtrace", json.dumps({**_about(prediction, index), "layer": l}, sort_keys=True))
        with committed(name) as file:
            Image.fromarray(layer).save(file, "PNG", pnginfo=text)
    return names


def _depth(prediction: Prediction, index: int) -> tuple[np.ndarray, np.ndarray]:
    """(L,H,W) z in float64; (L,H,W) bool, the points that repeat nothing."""
    xyz, exists = prediction.xyz[index], prediction.exists[index] & prediction.valid
    return xyz[..., 2].astype(np.float64), new_points(xyz, exists)


def _about(prediction: Prediction, index: int) -> dict[str, object]:
    K = prediction.camera(index)
    return {"key": prediction.name, "seed": prediction.seeds[index], "K": None if K is None else K.tolist()}
