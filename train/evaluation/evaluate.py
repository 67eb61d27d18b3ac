"""Judging a trained run on held-out samples, beside two baselines (paper, App. C: metrics, evaluation splits)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import shards
from train.evaluation.baselines import mean_stack, repeated_layer0
from train.evaluation.metrics import stack_metrics
from train.evaluation.truth import Truth, truth_of
from train.prediction.predict import compile_for, predict_batch
from train.run import Run

SELECTED_BY = "all/cd_l1"  # best of K: the seed with the best complete geometry, judged with the truth in hand
MEAN_OVER = 512  # training samples behind the mean baseline

METHODS = {
    "model_best": "the model, best of K seeds",
    "model": "the model, one seed (mean over K)",
    "mean": "the mean of the split `train` of the judged dataset",
    "layer0": "a perfect layer 0 repeated: the true visible surface and nothing behind it",
}


@dataclass(frozen=True)
class Report:
    """`methods[m][metric]` is the mean over samples; `samples` has every sample's own values; `settings` say how."""

    settings: dict[str, Any]
    methods: dict[str, dict[str, float]]
    samples: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return {"settings": self.settings, "methods": self.methods, "samples": self.samples}


def held_out(dataset: shards.Dataset, splits: Sequence[str], limit: int | None = None) -> list[int]:
    """Rows to evaluate, fixed by the manifest: all of `splits`, or `limit` of them drawn by the manifest's own hash.

    ValueError where the dataset has none.
    """
    rows = sorted(int(row) for split in splits for row in dataset.rows(split))
    if not rows:
        counts = ", ".join(f"{s} {len(dataset.rows(s))}" for s in shards.SPLITS)
        raise ValueError(
            f"{dataset.directory}: no samples in split {'+'.join(splits)} (it has {counts}); render more assets, or "
            "name another --split"
        )
    if limit is not None and limit < len(rows):
        order = shards.Order(len(rows), 0, dataset.hash)
        rows = sorted(rows[int(order[i])] for i in range(limit))
    return rows


def evaluate(
    run: Run,
    dataset: shards.Dataset,
    splits: Sequence[str] = ("val", "test"),
    seeds: int = 8,
    steps: int = 20,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Metrics of the model and the baselines on some splits of a dataset.

    Every prediction gets the same per-sample scale-shift alignment on layer-0 depth (metrics.py). The mean is that of
    the split `train` of the same dataset, and left out where that is empty. A clip is judged by its first frame.
    `settings["seen_in_training"]` says whether the run was trained on these very samples. ValueError where no sample
    has a valid pixel.
    """
    layers, size = run.model.config.layers, run.config.data.size
    rows = held_out(dataset, splits, limit)
    training = shards.open(dataset.directory, split="train")
    mean = mean_stack(training, layers, size, run.normalisation, MEAN_OVER)
    compile_for(run, len(rows))
    samples: list[dict[str, Any]] = []
    for done, row in enumerate(rows):
        progress(done, len(rows))
        truth = truth_of(dataset[row], layers, size, run.config.augment.background)
        if truth.valid.any():
            samples.append({"key": truth.key, **judge(run, truth, mean, seeds, steps)})
    progress(len(rows), len(rows))
    if not samples:
        raise ValueError(f"{dataset.directory}: none of its {len(rows)} samples has a valid pixel to judge")
    settings = {
        "samples": len(samples),
        "splits": list(splits),
        "seen_in_training": seen_in_training(run, dataset, splits),
        "manifest_hash": dataset.hash,
        "seeds": seeds,
        "steps": steps,
        "size": size,
        "training_step": run.step,
        "alignment": "per-sample scale and shift, least squares on layer-0 depth",
        "best_of_k_selected_by": SELECTED_BY,
        "methods": METHODS,
    }
    return Report(settings, {m: _mean([s[m] for s in samples]) for m in METHODS if m in samples[0]}, samples)


def seen_in_training(run: Run, dataset: shards.Dataset, splits: Sequence[str]) -> bool:
    """Whether one of the run's own sources is this folder with one of these splits, or with all."""
    here = _place(dataset.directory)
    return any(_place(s.path) == here and s.split in ("all", *splits) for s in run.config.data.sources)


def _place(path: str | Path) -> str:
    """Two names of one folder become the same; a URL stays."""
    return str(path) if "://" in str(path) else str(Path(path).resolve())


def judge(run: Run, truth: Truth, mean: np.ndarray | None, seeds: int, steps: int) -> dict[str, dict[str, float]]:
    """Metrics of every method on one view; no "mean" without one."""

    def metrics(xyz: np.ndarray) -> dict[str, float]:
        return stack_metrics(xyz, truth.xyz, truth.hits, truth.single_layer)

    draws = [(seed, truth.key) for seed in range(seeds)]
    stacks, _ = predict_batch(run, truth.rgb[None], truth.valid[None], draws, steps)
    each = [metrics(stack) for stack in stacks]
    selected_by = "depth/absrel" if truth.single_layer else SELECTED_BY
    model = {"model_best": min(each, key=lambda m: m[selected_by]), "model": _mean(each)}
    baseline = {} if mean is None else {"mean": metrics(mean)}
    return {**model, **baseline, "layer0": metrics(repeated_layer0(truth.xyz))}


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean per metric over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
