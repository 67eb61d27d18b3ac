"""What `worldtrace predict` and `eval` wrote, beside the samples that it is of.

A prediction of sample KEY is KEY.npz (all seeds, layer by layer, and so comparable), KEY.ply or KEY.glb (points) in a
folder, or one such file; report.json of `worldtrace eval` adds its metrics. Nothing of the trainer is imported, and
nothing is unpickled.
"""

import json
import zipfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import LayeredView, rays
from .cloud_files import read_points
from .points import Stack

SUFFIXES = (".npz", ".ply", ".glb")
LARGEST = 4 << 30  # bytes of an array: 64 seeds of six layers at 504x504 are 1.2 GB
NEAREST = 0.1  # as in train/evaluation/alignment.py
REPEAT = 0.005  # of the median depth: nearer to the layer before it, a point repeats it (train/prediction/predict.py)


@dataclass(frozen=True, eq=False)
class Prediction:
    """S seeds of a stack: xyz (S,L,H,W,3) float32, camera frame, in the model's units; rgb (H,W,3) uint8 as the model
    saw it; valid (H,W) bool; exists (S,L,H,W) bool: of a model with masks a layer is not there at all valid pixels.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    valid: np.ndarray
    seeds: tuple[int, ...]
    exists: np.ndarray


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points without layers: xyz (N,3) float32, rgb (N,3) uint8."""

    xyz: np.ndarray
    rgb: np.ndarray


@dataclass(frozen=True, eq=False)
class Error:
    """Of one layer: pixels compared; mean distance of the points; mean of |z - true z| / true z."""

    layer: int
    pixels: int
    distance: float
    absrel: float


class Predictions:
    """Those of a folder or a file. `key`: the sample that a file is of, if its name does not say so."""

    def __init__(self, path: str | PathLike[str], key: str | None = None) -> None:
        place = Path(path)
        self.files: dict[str, Path] = {}
        self._metrics: dict[str, dict[str, Any]] = {}
        if place.is_dir():
            for suffix in reversed(SUFFIXES):  # .npz, which knows layers, comes last and wins
                self.files |= {file.stem: file for file in sorted(place.glob(f"*{suffix}"))}
            reports = [place / "report.json"] if (place / "report.json").is_file() else []
        elif place.is_file():
            reports = [place] if place.suffix.lower() == ".json" else []
            if not reports and place.suffix.lower() not in SUFFIXES:
                raise ValueError(f"{place}: a prediction is {', '.join(SUFFIXES)}, or report.json of `worldtrace eval`")
            if not reports:
                self.files = {key or place.stem: place}
        else:
            raise FileNotFoundError(f"{place} is neither a folder nor a file: give what `worldtrace predict` wrote")
        for report in reports:
            self._metrics = _read_report(report)
        if not self.files and not self._metrics:
            raise ValueError(f"{place} holds no prediction: files named KEY{', KEY'.join(SUFFIXES)}, or report.json")

    def of(self, key: str) -> Prediction | Cloud | None:
        """None where there is none. ValueError says what is wrong with the file."""
        file = self.files.get(key)
        if file is None:
            return None
        return read_npz(file) if file.suffix.lower() == ".npz" else Cloud(*read_points(file))

    def metrics(self, key: str) -> dict[str, Any]:
        """method -> metric -> value, of report.json; empty where it does not speak of the sample."""
        return self._metrics.get(key, {})


def read_npz(path: Path) -> Prediction:
    """ValueError where the arrays are not those that `worldtrace predict --out NAME.npz` writes."""
    names = ("xyz", "rgb", "valid", "seeds")
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        if largest := [name for name in (*names, "exists") if sizes.get(name, 0) > LARGEST]:
            raise ValueError(f"its {largest[0]} has {sizes[largest[0]]} bytes, more than the {LARGEST} that are read")
        if missing := [name for name in names if name not in sizes]:
            raise ValueError(f"it has no array {missing[0]}")
        with np.load(path, allow_pickle=False) as arrays:
            xyz, rgb, valid, seeds = (arrays[name] for name in names)
            exists = arrays["exists"] if "exists" in sizes else np.broadcast_to(valid, xyz.shape[:-1])
    except (OSError, zipfile.BadZipFile, EOFError, KeyError, ValueError, MemoryError) as error:
        raise ValueError(f"{path} is no prediction ({error}): write it with `worldtrace predict --out`") from None
    if xyz.ndim == 6:
        raise ValueError(
            f"{path} is of a clip of {xyz.shape[1]} frames, which are not compared; predict its frames alone"
        )
    shape = xyz.shape[2:4]
    fits = xyz.ndim == 5 and xyz.shape[4] == 3 and min(xyz.shape) > 0 and seeds.shape == xyz.shape[:1]
    if not fits or rgb.shape != (*shape, 3) or valid.shape != shape or xyz.dtype.kind != "f" or rgb.dtype.kind != "f":
        raise ValueError(f"{path}: xyz {xyz.shape}, rgb {rgb.shape} and valid {valid.shape} do not fit each other")
    if exists.shape != xyz.shape[:-1] or exists.dtype != bool:
        raise ValueError(f"{path}: exists {exists.shape} of {exists.dtype} does not fit xyz {xyz.shape}")
    valid = valid.astype(bool) & np.isfinite(xyz).all(axis=(0, 1, 4))
    colours = np.rint(np.clip(np.nan_to_num(rgb), 0, 1) * 255).astype(np.uint8)
    points = np.where(valid[..., None], xyz, 0).astype(np.float32)
    return Prediction(points, colours, valid, tuple(map(int, seeds)), exists & valid)


def stack_of(prediction: Prediction, seed: int, *, filled: bool) -> Stack:
    """Seed number `seed` (of those in the file). Unless `filled`, without the points that repeat the layer before."""
    xyz, there = prediction.xyz[seed], prediction.exists[seed].copy()
    if not filled and prediction.valid.any():
        tolerance = REPEAT * float(np.median(xyz[0, ..., 2][prediction.valid]))
        last = xyz[0]
        for l in range(1, len(xyz)):
            there[l] &= np.linalg.norm(xyz[l] - last, axis=-1) > tolerance
            last = np.where(there[l][..., None], xyz[l], last)
    return Stack(xyz, there, prediction.rgb)


def on_grid(view: LayeredView, layers: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """The true points (layers,h,w,3) float32 and hits (h,w) of a view, on the pixel grid that a model was shown: its
    own, or the square that its centre is cropped and scaled to (nearest pixel). None for any other grid.
    """
    if size != view.size and size[0] != size[1]:
        return None
    scale, (height, width) = min(size) / min(view.size), view.size
    if size == view.size:
        scale = 1.0
    shift = np.array([(size[1] - scale * width) / 2, (size[0] - scale * height) / 2])
    u, v = (
        np.floor((np.arange(count) + 0.5 - move) / scale + 1e-9).astype(int).clip(0, most - 1)
        for count, move, most in ((size[1], shift[0], width), (size[0], shift[1], height))
    )
    from_view = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])
    hits = np.minimum(view.hits[np.ix_(v, u)], layers)
    depth = view.depth[:, v][:, :, u]
    depth = depth[np.minimum(np.arange(layers), view.layers - 1)]
    xyz = rays(from_view @ view.K, *size)[None] * depth[..., None].astype(np.float64)
    return xyz.astype(np.float32), np.minimum(hits, 1) if view.single_layer else hits


def aligned(xyz: np.ndarray, true: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A stack (L,H,W,3) under the scale and shift of depth that bring its layer 0 nearest to the true one, each point
    moved along its own ray, as `worldtrace eval` does before it judges: least squares over `valid`; where that would
    mirror it, the ratio of the median depths, and a shift. A point nearer than a tenth of the median depth moves as if
    it were there.
    """
    p, t = xyz[0, ..., 2][valid].astype(np.float64), true[0, ..., 2][valid].astype(np.float64)
    if not p.size:
        return xyz
    centred = p - p.mean()
    variance = float(centred @ centred)
    scale = float(centred @ (t - t.mean())) / variance if variance > 1e-12 * float(p @ p) else 0.0
    if scale <= 0:
        of_predicted, of_true = abs(float(np.median(p))), abs(float(np.median(t)))
        scale = of_true / of_predicted if of_true and of_predicted else 1.0
    z = xyz[..., 2].astype(np.float64)
    at = scale * z + t.mean() - scale * p.mean()
    moved = xyz * (at / np.maximum(z, max(NEAREST * float(np.median(p)), 1e-12)))[..., None]
    moved[..., 2] = at
    return moved.astype(np.float32)


def errors(xyz: np.ndarray, valid: np.ndarray, true: np.ndarray, hits: np.ndarray) -> tuple[list[Error], np.ndarray]:
    """Of each layer over the pixels with such a true hit, and the distance of each point (L,H,W), nan elsewhere."""
    distance = np.linalg.norm(xyz.astype(np.float64) - true, axis=-1)
    compared = valid[None] & (np.arange(len(xyz))[:, None, None] < hits[None])
    distance[~compared] = np.nan
    found = []
    for l in range(len(xyz)):
        at = compared[l]
        if at.any():
            relative = np.abs(xyz[l, ..., 2][at] - true[l, ..., 2][at]) / true[l, ..., 2][at]
            found.append(Error(l, int(at.sum()), float(distance[l][at].mean()), float(relative.mean())))
    return found, distance


def _read_report(path: Path) -> dict[str, dict[str, Any]]:
    try:
        samples = json.loads(path.read_bytes())["samples"]
        return {
            str(sample["key"]): {
                method: {name: float(value) for name, value in metrics.items() if value is not None}
                for method, metrics in sample.items()
                if isinstance(metrics, dict) and method != "each"  # all seeds of all methods
            }
            for sample in samples
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path} is not a report of `worldtrace eval`") from None
