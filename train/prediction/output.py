"""What `worldtrace predict` reads and writes: a picture or a sample of a dataset in; points, pictures, arrays out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import shards
from model import ZScore
from train.data import augment
from train.evaluation.evaluate import held_out
from train.evaluation.metrics import align_points, align_scale_shift, stack_metrics
from train.evaluation.truth import Truth, truth_of
from train.prediction.framing import frame_object, frame_scene, read_image
from train.prediction.pictures import prediction_sheet
from train.prediction.predict import Prediction, point_cloud, typical
from train.run import Run

SUFFIXES = (".glb", ".ply", ".png", ".npz")
HELD_OUT = "heldout"


@dataclass(frozen=True, eq=False)
class Asked:
    """What to predict: rgb (H,W,3) float32, valid (H,W) bool; for a sample its truth; for a picture framed_from_image
    (3,3), from its pixels to those of the frame that the model sees."""

    name: str
    rgb: np.ndarray
    valid: np.ndarray
    truth: Truth | None = None
    framed_from_image: np.ndarray | None = None


def check(paths: Sequence[Path], inputs: Sequence[Path]) -> None:
    """ValueError, before anything is computed, for an output that nothing writes or that would replace an input."""
    for path in paths:
        if path.resolve() in [each.resolve() for each in inputs]:
            raise ValueError(f"--out {path} is the picture itself; give the sheet another name")
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"--out {path}: its suffix says what is written; use one of {', '.join(SUFFIXES)}")


def resolve(image: str, mask: Path | None, run: Run) -> Asked:
    """`image` is a file, or DATASET#KEY. KEY may be `heldout`: of the samples that were not trained on, the one with
    the median number of surface points. FileNotFoundError or ValueError says what is missing."""
    size, shape = run.config.data.size, run.model.config
    folder, hash_mark, key = image.rpartition("#")
    if hash_mark and not Path(image).exists():
        dataset = shards.open(folder)
        if key == HELD_OUT:
            rows = held_out(dataset, ("val", "test"))
            surfaces = [sum(dataset.manifest["coverage"][row].as_py()) for row in rows]
            key = dataset.keys[rows[int(np.argsort(surfaces, kind="stable")[len(rows) // 2])]]
        if key not in dataset.keys:
            raise ValueError(f"{folder} has no sample {key!r}; `worldtrace shards ls {folder}` lists them")
        truth = truth_of(dataset[key], shape.layers, size, run.config.augment.background)
        return Asked(key, truth.rgb, truth.valid, truth)
    rgba, masked = read_image(Path(image), mask)
    if isinstance(run.normalisation, ZScore):  # an object model
        if not masked:
            raise ValueError(
                f"{image}: nothing says where the object is; give a picture with transparency, or --mask MASK.png"
            )
        framed = frame_object(rgba, size)
    else:
        framed = frame_scene(rgba, size, shape.patch)
    rgb = augment.composite(framed.rgba, augment.background(run.config.augment.background, None))
    return Asked(Path(image).name, rgb, framed.valid, framed_from_image=framed.framed_from_image)


def write(prediction: Prediction, asked: Asked, paths: Sequence[Path]) -> list[str]:
    """Write every output of the typical seed (.npz: of all seeds) and say, line by line, what was predicted."""
    chosen = typical(prediction.xyz, prediction.valid)
    xyz = prediction.xyz[chosen]
    points, colours = point_cloud(xyz, prediction.rgb, prediction.valid)
    lines = [_summary(prediction, asked, chosen, len(points))]
    title, shown = f"{asked.name}, seed {prediction.seeds[chosen]} of {len(prediction.seeds)}", xyz
    true_xyz = None
    if (truth := asked.truth) is not None:
        true_xyz = truth.xyz[:1] if truth.single_layer else truth.xyz
        got = stack_metrics(xyz, truth.xyz, truth.hits, truth.single_layer)
        scale, shift = align_scale_shift(xyz[0, ..., 2][truth.valid], truth.xyz[0, ..., 2][truth.valid])
        shown = align_points(xyz, scale, shift)
        title += ", predicted depth aligned to the truth by one scale and shift"
        everything = "" if truth.single_layer else f", all layers {got['all/cd_l1']:.4f}"
        lines.append(
            f"against the truth, aligned: layer-0 AbsRel {got['depth/absrel']:.4f}, "
            f"CD-L1 visible {got['visible/cd_l1']:.4f}{everything}"
        )
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".png":
            prediction_sheet(path, prediction.rgb, prediction.valid, shown, true_xyz, title)
        elif path.suffix.lower() == ".npz":
            _write_npz(path, prediction, asked)
        else:
            shards.write_points(path, points, colours)
        lines.append(f"wrote {path}")
    return lines


def _summary(prediction: Prediction, asked: Asked, chosen: int, points: int) -> str:
    visible = int(prediction.valid.sum())
    text = f"{asked.name}: {visible} visible and {points - visible} hidden points (seed {prediction.seeds[chosen]})"
    if prediction.K is None:
        return text + "; too few pixels to recover the camera"
    K = prediction.K[chosen]
    if asked.framed_from_image is not None:
        K = np.linalg.inv(asked.framed_from_image) @ K
    return text + f"; camera fx {K[0, 0]:.1f} fy {K[1, 1]:.1f} cx {K[0, 2]:.1f} cy {K[1, 2]:.1f} px of the input"


def _write_npz(path: Path, prediction: Prediction, asked: Asked) -> None:
    arrays: dict[str, Any] = {
        "xyz": prediction.xyz,
        "rgb": prediction.rgb,
        "valid": prediction.valid,
        "seeds": prediction.seeds,
    }
    arrays |= {"K": prediction.K, "framed_from_image": asked.framed_from_image}
    arrays["true_xyz"] = None if asked.truth is None else asked.truth.xyz
    np.savez_compressed(path, **{name: value for name, value in arrays.items() if value is not None})
