"""The worst, the middle and the best samples of an evaluation as pictures: predicted layers above the true ones."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import shards
from train.evaluation.alignment import Rule, align_scale_shift, aligned
from train.evaluation.methods import Method, Precomputed, Sampled
from train.evaluation.truth import truths_of, views_of
from train.prediction.pictures import Shown, prediction_sheet

GROUPS = ("worst", "median", "best")


def write(
    report: Mapping[str, Any],
    methods: Sequence[Method],
    dataset: shards.Dataset,
    folder: Path,
    rule: Rule = "ray",
    count: int = 3,
) -> list[Path]:
    """For each method NAME-worst.png, NAME-median.png and NAME-best.png with `count` samples each -> their paths.

    Samples are ranked by what the best of K seeds is chosen by, of that seed; it is the one shown, aligned to the truth
    as it was judged. Of a clip the middle frame is shown. The same draws as in the evaluation are made again.
    """
    settings = report["settings"]
    size, frames = int(settings["size"]), int(settings.get("frames", 1))
    selected_by = settings["best_of_k_selected_by"]
    paths = []
    for method in methods:
        ranked = ranking(report["samples"], method.name, selected_by)
        if not ranked:
            continue
        for group, chosen in groups(ranked, count).items():
            shown = [_shown(method, dataset[key], seed, size, frames, rule) for key, _, seed in chosen]
            worth = "; ".join(f"{key} {value:.4g}" for key, value, _ in chosen)
            name = re.sub(r"[^A-Za-z0-9_.-]+", "-", method.name).strip("-.") or "method"
            title = f"{method.name}: the {group} of {len(ranked)} by {selected_by}: {worth}"
            folder.mkdir(parents=True, exist_ok=True)
            paths.append(prediction_sheet(folder / f"{name}-{group}.png", shown, title))
    return paths


def ranking(samples: Sequence[Mapping[str, Any]], method: str, selected_by: str) -> list[tuple[str, float, int]]:
    """(key, error, seed) of every sample, the best first: its best seed by `selected_by`, or by depth/absrel where that
    is not known. Samples without a finite error come last, as infinite; a tie goes by key."""
    found = []
    for sample in samples:
        each = sample.get("each", {}).get(method, ())
        if not each:
            continue
        metric = selected_by if selected_by in each[0] else "depth/absrel"
        errors = [float("inf") if row.get(metric) is None else float(row[metric]) for row in each]
        seed = int(np.argmin(errors))
        found.append((str(sample["key"]), errors[seed], seed))
    return sorted(found, key=lambda entry: (entry[1], entry[0]))


def groups(ranked: Sequence[tuple[str, float, int]], count: int) -> dict[str, list[tuple[str, float, int]]]:
    """`count` of each end, the extreme first, and about the middle; no sample in two groups of a report of enough."""
    count = min(count, max(1, len(ranked) // 3)) if len(ranked) >= 3 else 1
    middle = (len(ranked) - count) // 2
    return {
        "worst": list(reversed(ranked[-count:])),
        "median": list(ranked[middle : middle + count]),
        "best": list(ranked[:count]),
    }


def _shown(method: Method, sample: shards.Sample, seed: int, size: int, frames: int, rule: Rule) -> Shown:
    frames = len(views_of(sample, frames))
    if isinstance(method, Sampled):
        drawn = method.draw(sample, size, frames)
    elif isinstance(method, Precomputed):
        drawn = method.read(sample.key, frames)
    else:
        raise ValueError(f"{method.name}: neither a run nor a folder of predictions, so there is nothing to show")
    t = drawn.xyz.shape[1] // 2
    xyz, exists = drawn.xyz[seed, t], drawn.exists[seed, t]
    truth = truths_of(sample, len(xyz), size, "black", t + 1)[t]
    there = exists & truth.valid
    if rule != "none" and there[0].any():
        z = xyz[0, ..., 2][there[0]]
        scale, shift = align_scale_shift(z, truth.xyz[0, ..., 2][there[0]])
        xyz = aligned(xyz, scale, shift, float(np.median(z)), rule).astype(np.float32)
    return Shown(truth.rgb, truth.valid, xyz, there, truth.xyz[:1] if truth.single_layer else truth.xyz)
