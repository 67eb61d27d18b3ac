"""What `worldtrace predict` leaves behind: one file, or set of files, for each --out, told by its suffix.

    NAME.glb NAME.ply     points, or with `mesh` triangles (shards.write_points, mesh_files.py)
    NAME.npz              the arrays of all seeds (archive.py)
    NAME.png              the sheet (pictures.py)
    NAME.exr              all depth layers as one OpenEXR image (depth_files.py)
    NAME.depth.png        NAME.L0.depth.png, NAME.L1.depth.png, ...: each depth layer as 16-bit grey

An .npz holds all seeds; the others hold the one that is most like the others. A clip's .npz and sheet are one file; of
all else there is one for each frame: NAME.0000.glb, NAME.0001.glb, ...
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import shards
from train.evaluation.metrics import align_points, align_scale_shift, averaged, stack_metrics
from train.evaluation.truth import Truth
from train.prediction import depth_files
from train.prediction.archive import write_npz
from train.prediction.mesh import Hidden, triangulate
from train.prediction.mesh_files import write_mesh
from train.prediction.pictures import Shown, prediction_sheet, spread
from train.prediction.prediction import Prediction, new_points, point_cloud, typical

SUFFIXES = (".glb", ".ply", ".png", depth_files.SUFFIX, ".exr", ".npz")
OF_POINTS = (".glb", ".ply")
SHEET_FRAMES = 8  # of a clip, evenly spaced


def check(paths: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """ValueError, before anything is computed, for an output that nothing writes, that would replace an input, or that
    is named twice."""
    given = [each.resolve() for each in inputs]
    seen = set()
    for path in paths:
        if path.resolve() in given:
            raise ValueError(f"--out {path} is the picture itself; give the sheet another name")
        if suffix_of(path) not in SUFFIXES:
            raise ValueError(f"--out {path}: its suffix says what is written; use one of {', '.join(SUFFIXES)}")
        if path.name.lower() == suffix_of(path):
            raise ValueError(f"--out {path}: it has no name before {suffix_of(path)}")
        if path.resolve() in seen:
            raise ValueError(f"--out {path} is given twice")
        seen.add(path.resolve())


def name_for(picture: Path, whole: bool = False) -> str:
    """What the outputs of a picture are called: its stem, or all of its name (`whole`), which x.depth.jpg needs too:
    x.depth.png would be depth layers."""
    return picture.name if whole or picture.stem.lower().endswith(".depth") else picture.stem


def suffix_of(path: Path) -> str:
    """.depth.png is a suffix of its own."""
    return depth_files.SUFFIX if path.name.lower().endswith(depth_files.SUFFIX) else path.suffix.lower()


def write(
    predictions: Sequence[Prediction],
    paths: Sequence[Path],
    truths: Sequence[Truth] | None = None,
    *,
    mesh: bool = False,
    closed: bool = False,
    hidden: Hidden = "grey",
) -> list[str]:
    """Write every output of one image, or of the frames of one clip, and say line by line what was predicted.

    `truths`, one per prediction, are drawn and judged against. `mesh` writes triangles for points, `closed` joins their
    layers 0 and 1 along the silhouette, `hidden` colours what no pixel shows. ValueError for points that are not
    finite; OSError where a file cannot be written.
    """
    chosen = chosen_of(predictions)
    lines = [_summary(predictions, chosen)]
    if truths is not None:
        lines.append(_judgement(predictions, truths, chosen))
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = suffix_of(path)
        if suffix == ".npz":
            said = _arrays(path, predictions, truths)
        elif suffix == ".png":
            said = _sheet(path, predictions, truths, chosen)
        elif suffix == depth_files.SUFFIX:
            said = _depth(path, predictions, chosen)
        elif suffix == ".exr":
            said = _named(_each(path, predictions, lambda p, one: [depth_files.write_exr(p, one, chosen)]))
        elif mesh:
            said = _meshes(path, predictions, chosen, hidden, closed)
        else:
            said = _named(_each(path, predictions, lambda p, one: [_points(p, one, chosen, hidden)]))
        lines.append(f"wrote {said}")
    return lines


def chosen_of(predictions: Sequence[Prediction]) -> int:
    """The index of the seed that is most like the others; of a clip, over all of its frames."""
    if len(predictions) == 1:
        return predictions[0].typical
    return typical(
        np.concatenate([each.xyz for each in predictions], axis=2),
        np.concatenate([each.valid for each in predictions], axis=0),
    )


def _each(
    path: Path, predictions: Sequence[Prediction], write_one: Callable[[Path, Prediction], list[Path]]
) -> list[Path]:
    """What was written: `path` itself, or of a clip NAME.0000.SUFFIX, NAME.0001.SUFFIX, ..."""
    if len(predictions) == 1:
        return write_one(path, predictions[0])
    stem, suffix = path.name[: -len(suffix_of(path))], path.name[-len(suffix_of(path)) :]
    return [
        file for t, one in enumerate(predictions) for file in write_one(path.with_name(f"{stem}.{t:04d}{suffix}"), one)
    ]


def _named(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} to {files[-1]}"


def _arrays(path: Path, predictions: Sequence[Prediction], truths: Sequence[Truth] | None) -> str:
    true = None if truths is None else [each.xyz for each in truths]
    write_npz(path, predictions, None if true is None else true[0] if len(true) == 1 else np.stack(true))
    return str(path)


def _sheet(path: Path, predictions: Sequence[Prediction], truths: Sequence[Truth] | None, chosen: int) -> str:
    drawn = np.unique(np.linspace(0, len(predictions) - 1, SHEET_FRAMES).round().astype(int))
    shown = [_shown(predictions[t], chosen, None if truths is None else truths[t]) for t in drawn]
    first = predictions[0]
    title = f"{first.name}, seed {first.seeds[chosen]} of {len(first.seeds)}"
    title += f", {len(drawn)} of {len(predictions)} frames" if len(predictions) > 1 else ""
    title += "" if truths is None else ", predicted depth aligned to the truth by one scale and shift"
    prediction_sheet(path, shown, title)
    return str(path)


def _depth(path: Path, predictions: Sequence[Prediction], chosen: int) -> str:
    scale = depth_files.depth_scale(predictions, chosen)
    files = _each(path, predictions, lambda p, one: depth_files.write_depth_pngs(p, one, chosen, scale))
    return f"{_named(files)}: 16 bit, 0 is no point, else z = {scale:.6g} x code"


def _meshes(path: Path, predictions: Sequence[Prediction], chosen: int, hidden: Hidden, closed: bool) -> str:
    triangles = 0

    def one_mesh(file: Path, one: Prediction) -> list[Path]:
        nonlocal triangles
        made = triangulate(one.xyz[chosen], one.exists[chosen] & one.valid, one.rgb, hidden, closed)
        triangles += len(made.faces)
        return [write_mesh(file, {one.name or "prediction": made})]

    return f"{_named(_each(path, predictions, one_mesh))}: {triangles} triangles"


def _points(path: Path, prediction: Prediction, chosen: int, hidden: Hidden) -> Path:
    xyz, exists = prediction.xyz[chosen], prediction.exists[chosen] & prediction.valid
    points, colours = point_cloud(xyz, prediction.rgb, prediction.valid, exists)
    if hidden == "image":
        pixels = np.nonzero(new_points(xyz, exists))[1:]  # in the order of the points: layer by layer, row by row
        colours = np.rint(np.clip(prediction.rgb[pixels], 0, 1) * 255).astype(np.uint8)
    return shards.write_points(path, points, colours)


def _shown(prediction: Prediction, chosen: int, truth: Truth | None) -> Shown:
    xyz, exists = prediction.xyz[chosen], prediction.exists[chosen]
    true_xyz = None
    if truth is not None:
        true_xyz = truth.xyz[:1] if truth.single_layer else truth.xyz
        seen = exists[0] & truth.valid
        if seen.any():
            scale, shift = align_scale_shift(xyz[0, ..., 2][seen], truth.xyz[0, ..., 2][seen])
            xyz = align_points(xyz, scale, shift)
    return Shown(prediction.rgb, prediction.valid, xyz, exists, true_xyz, spread(prediction.xyz, prediction.exists))


def _summary(predictions: Sequence[Prediction], chosen: int) -> str:
    first = predictions[0]
    new = [new_points(each.xyz[chosen], each.exists[chosen] & each.valid) for each in predictions]
    visible, total = sum(int(each[0].sum()) for each in new), sum(int(each.sum()) for each in new)
    frames = f" in {len(predictions)} frames" if len(predictions) > 1 else ""
    name, seed = first.name or "prediction", first.seeds[chosen]
    text = f"{name}: {visible} visible and {total - visible} hidden points{frames} (seed {seed})"
    K, view = first.K_image, first.field_of_view
    if K is None or view is None or first.camera(chosen) is None:
        return text + "; no camera fits its points"
    K = K[chosen]
    text += f"; implied camera fx {K[0, 0]:.1f} fy {K[1, 1]:.1f} cx {K[0, 2]:.1f} cy {K[1, 2]:.1f} px of the input"
    return text + f", {view[chosen, 0]:.1f} x {view[chosen, 1]:.1f} degrees"


def _judgement(predictions: Sequence[Prediction], truths: Sequence[Truth], chosen: int) -> str:
    got = averaged(
        [
            stack_metrics(each.xyz[chosen], truth.xyz, truth.hits, truth.single_layer, each.exists[chosen])
            for each, truth in zip(predictions, truths)
            if truth.valid.any()
        ]
    )
    everything = f", all layers {got['all/cd_l1']:.4f}" if "all/cd_l1" in got else ""
    return (
        f"against the truth, aligned: layer-0 AbsRel {got['depth/absrel']:.4f}, "
        f"CD-L1 visible {got['visible/cd_l1']:.4f}{everything}"
    )
