"""Judging trained runs and precomputed predictions on held-out samples, beside two baselines (paper, App. C)."""

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import shards
from model import LogMedian, ZScore
from model.normalisation import Normalisation
from train.evaluation.alignment import RULE_TEXTS, Rule
from train.evaluation.baselines import mean_stack, repeated_layer0
from train.evaluation.chamfer import search_alone
from train.evaluation.journal import Journal
from train.evaluation.methods import Drawn, Method, Precomputed, Sampled
from train.evaluation.metrics import TrueStack, averaged, judge
from train.evaluation.protocols import UNIT_TEXTS, Unit, longest, protocol_of
from train.evaluation.samples import held_out, keys_of, list_hash
from train.evaluation.truth import truths_of, views_of
from train.prediction.batch import compile_for
from train.run import Run

__all__ = ["Asked", "Report", "compare", "evaluate", "held_out"]

MEAN_OVER = 512  # training samples behind the mean baseline
BASELINES = {
    "mean": "the mean of the split `train` of the judged dataset",
    "layer0": "a perfect layer 0 repeated: the true visible surface and nothing behind it",
}
# What is kept of each seed: enough for the curves of best-of-K.
OF_EACH_SEED = ("depth/absrel", "visible/cd_l1", "hidden/cd_l2", "all/cd_l1", "all/cd_l2", "surface/cd_l1")


class Surface(Protocol):
    """Points sampled from an asset's surfaces (train/evaluation/surfaces.py)."""

    folder: Path

    @property
    def index(self) -> Mapping[str, Any]:
        """How they were made."""
        ...

    def points(
        self, view: shards.LayeredView, K: np.ndarray | None = None, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """(N,3) float64 in the camera frame of a view; of a room what a picture of `size` (H, W) with K shows."""
        ...


@dataclass(frozen=True)
class Report:
    """`methods[m][metric]` is the mean over samples; `samples` has every sample's own values; `settings` say how.

    Of a method NAME, `NAME` is the mean over its seeds and `NAME_best` the best of them. A sample's `each` has, by
    method, some metrics of every seed.
    """

    settings: dict[str, Any]
    methods: dict[str, dict[str, float]]
    samples: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """JSON; what is not finite is None."""
        plain: dict[str, Any] = _finite({"settings": self.settings, "methods": self.methods, "samples": self.samples})
        return plain


@dataclass(frozen=True)
class Asked:
    """Which samples are judged, and how. rows of the dataset; size in pixels; `layers` of the truth; `frames` of a
    clip; `selected_by` is the metric that the best seed has least of; without `points` depth alone is judged."""

    rows: tuple[int, ...]
    size: int
    layers: int
    frames: int
    selected_by: str
    rule: Rule = "ray"
    unit: Unit = "dataset"
    surfaces: Surface | None = None
    points: bool = True
    baselines: bool = True
    allow_missing: bool = False


def evaluate(
    run: Run,
    dataset: shards.Dataset,
    splits: Sequence[str] = ("val", "test"),
    seeds: int = 8,
    steps: int = 20,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Metrics of one run, called `model`, and the baselines on some splits, by the protocol for the dataset's regime.

    ValueError where the dataset has no such sample, or none with a valid pixel.
    """
    method = Sampled("model", run, seeds, steps)
    asked = ask([method], dataset, held_out(dataset, splits, limit))
    report = compare([method], dataset, asked, progress)
    report.settings["splits"] = list(splits)
    return report


def ask(
    methods: Sequence[Method],
    dataset: shards.Dataset,
    rows: Sequence[int],
    table: int | None = None,
    size: int | None = None,
    frames: int | None = None,
) -> Asked:
    """What the protocol of a table (None: that of the dataset's regime) asks for these methods and rows.

    `size` is by default the one that all methods work at; `frames`, of protocols for clips, as many as all can judge.
    Points are not judged where a table is asked for that has columns of depth alone.
    ValueError where methods disagree on either.
    """
    protocol = protocol_of(dataset, table)
    shapes = {method.name: method.shape for method in methods}
    sizes = {of_method for _, of_method in shapes.values()}
    if size is None and len(sizes) > 1:
        each = ", ".join(f"{name} {of_method}" for name, (_, of_method) in shapes.items())
        raise ValueError(
            f"the methods work at different sizes ({each}): say with --size at which they are to be judged"
        )
    size = size or sizes.pop()
    most = [method.frames for method in methods if method.frames is not None]
    if frames is None:
        frames = min([longest(dataset), *most]) if protocol.clips else 1
    if not protocol.clips and frames > 1:
        raise ValueError(f"--frames {frames}: table {protocol.number} judges single frames; use --table 3 for clips")
    layers = max(of_method for of_method, _ in shapes.values())
    points = table is None or any(not column.metric.startswith("depth/") for column in protocol.columns)
    return Asked(tuple(rows), size, layers, frames, protocol.selected_by, unit=protocol.unit, points=points)


def compare(
    methods: Sequence[Method],
    dataset: shards.Dataset,
    asked: Asked,
    progress: Callable[[int, int], None] = lambda done, total: None,
    journal: Path | None = None,
) -> Report:
    """Metrics of several methods and of the baselines, all on the same samples.

    Every prediction gets the same alignment per sample (alignment.py); a sample without a valid pixel is left out. The
    mean is that of the split `train` of the same dataset, and left out where that is empty. Samples are judged in
    threads while the next one is sampled. With a `journal`, what was judged before is not judged again; the file stays,
    for the caller to take away once the report is written.

    ValueError where no sample has a valid pixel, or where a precomputed prediction is missing and `allow_missing` is
    not set.
    """
    _check_names([method.name for method in methods])
    _check_lengths(methods, asked.rule)
    keys = keys_of(dataset, asked.rows)
    missing = {m.name: set(m.missing(keys)) for m in methods if isinstance(m, Precomputed)}
    for method in methods:
        lost = missing.get(method.name, set())
        if lost and (not asked.allow_missing or len(lost) == len(keys)):
            raise ValueError(
                f"{method.name}: {len(lost)} of {len(keys)} predictions are missing, {min(lost)}.npz among them; a "
                "method is judged on all samples, or on those that it has with --allow-missing"
            )
    settings = _settings(methods, dataset, asked, keys)
    mean = _mean_of(methods, dataset, asked) if asked.baselines else None
    sampled = [method for method in methods if isinstance(method, Sampled)]
    notes = Journal(journal, settings) if journal is not None else None
    done = dict(notes.done) if notes is not None else {}
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting: deque[tuple[str, Future[dict[str, Any] | None]]] = deque()
    finished = sum(key in done for key in keys)
    for run in {id(method.run): method.run for method in sampled}.values():  # one run may be judged at several steps
        compile_for(run, len(keys) - finished)

    def take() -> None:
        nonlocal finished
        key, future = waiting.popleft()
        result = future.result()
        done[key] = result if result is not None else {"key": key, "empty": True}
        if notes is not None:
            notes.add(done[key])
        finished += 1
        progress(finished, len(keys))

    progress(finished, len(keys))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="judge", initializer=search_alone)
    try:
        for row, key in zip(asked.rows, keys):
            if key in done:
                continue
            sample = dataset[row] if sampled else None
            drawn: dict[str, Drawn] = {}
            if sample is not None:
                drawn = {method.name: method.draw(sample, asked.size, asked.frames) for method in sampled}
            stored = [m for m in methods if isinstance(m, Precomputed) and key not in missing[m.name]]
            waiting.append((key, pool.submit(_judged, dataset, row, sample, asked, methods, drawn, stored, mean)))
            while len(waiting) > threads:
                take()
        while waiting:
            take()
    finally:
        pool.shutdown(cancel_futures=True)
        if notes is not None:
            notes.close()
    samples = [done[key] for key in keys if not done[key].get("empty")]
    if not samples:
        raise ValueError(f"{dataset.directory}: none of its {len(keys)} samples has a valid pixel to judge")
    settings["samples"] = len(samples)
    for name, lost in missing.items():
        settings["judged"][name]["missing"] = len(lost)
    names = [name for name in settings["methods"] if any(name in sample for sample in samples)]
    settings["methods"] = {name: settings["methods"][name] for name in names}
    means = {name: averaged([sample[name] for sample in samples if name in sample]) for name in names}
    for name, about in settings["judged"].items():
        about["coverage"] = means.get(name, {}).get("depth/coverage", 0.0)
    return Report(settings, means, samples)


def _judged(
    dataset: shards.Dataset,
    row: int,
    sample: shards.Sample | None,
    asked: Asked,
    methods: Sequence[Method],
    drawn: Mapping[str, Drawn],
    stored: Sequence[Precomputed],
    mean: np.ndarray | None,
) -> dict[str, Any] | None:
    """Metrics of every method on one sample, read here unless it was read before; None where it has no valid pixel."""
    sample = dataset[row] if sample is None else sample
    views = views_of(sample, asked.frames)
    truths = truths_of(sample, asked.layers, asked.size, "black", asked.frames)
    seen = [t for t, truth in enumerate(truths) if truth.valid.any()]
    if not seen:
        return None
    unit = _median_depth([(truths[t].xyz[..., 2], truths[t].valid) for t in seen]) if asked.unit == "median" else 1.0
    size = (asked.size, asked.size)
    of_asset = [None if asked.surfaces is None else asked.surfaces.points(views[t], truths[t].K, size) for t in seen]
    true = [
        TrueStack(truths[t].xyz, truths[t].hits, truths[t].single_layer, surface, unit)
        for t, surface in zip(seen, of_asset)
    ]
    single = truths[seen[0]].single_layer

    def metrics(xyz_TLHW3: np.ndarray, exists_TLHW: np.ndarray | None = None) -> dict[str, float]:
        exists = None if exists_TLHW is None else [exists_TLHW[t] for t in seen]
        return judge(true, [xyz_TLHW3[t] for t in seen], exists, asked.rule, asked.points)

    selected_by = "depth/absrel" if single else asked.selected_by
    found: dict[str, Any] = {"key": sample.key, "each": {}}
    every = {**drawn, **{m.name: m.read(sample.key, len(truths)) for m in stored}}
    for method in methods:
        if method.name not in every:
            continue
        xyz, exists = _with_layers(every.pop(method.name), asked.layers)
        each = [metrics(xyz[k], exists[k]) for k in range(len(xyz))]
        found[f"{method.name}_best"] = min(each, key=lambda m: m[selected_by])
        found[method.name] = averaged(each)
        found["each"][method.name] = [{name: m[name] for name in OF_EACH_SEED if name in m} for m in each]
    if mean is not None:
        found["mean"] = metrics(np.broadcast_to(mean, (len(truths), *mean.shape)))
    if asked.baselines:
        found["layer0"] = metrics(np.stack([repeated_layer0(truth.xyz) for truth in truths]))
    return found


def _check_names(names: Sequence[str]) -> None:
    """ValueError for two methods of one name, or one that would be taken for a column of another."""
    taken = {*BASELINES, "key", "each", "empty"}
    for place, name in enumerate(names):
        if name in names[:place] or name in taken or name.endswith("_best"):
            raise ValueError(
                f"a method called {name!r} would be mixed up with another column; name it: --checkpoint NAME=SOURCE, "
                "--predictions NAME=FOLDER"
            )


def _check_lengths(methods: Sequence[Method], rule: Rule) -> None:
    """ValueError for a run that is to be judged unaligned and has no lengths: its points are in units of a median that
    it does not know (Eq. 6)."""
    for method in methods:
        if rule == "none" and isinstance(method, Sampled) and isinstance(method.run.normalisation, LogMedian):
            raise ValueError(
                f"{method.name} predicts scenes in units of their median depth, which it does not tell: without an "
                "alignment there is no length to judge; leave out --align none"
            )


def _with_layers(drawn: Drawn, layers: int) -> Drawn:
    """A method with fewer layers than the truth has no point in those that it lacks."""
    lacking = layers - drawn.xyz.shape[2]
    if lacking <= 0:
        return drawn
    xyz = np.pad(drawn.xyz, ((0, 0), (0, 0), (0, lacking), *((0, 0),) * 3))
    return Drawn(xyz, np.pad(drawn.exists, ((0, 0), (0, 0), (0, lacking), *((0, 0),) * 2)))


def _median_depth(stacks: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The m of Eq. 6: the (lower) median valid depth of filled stacks [(z (L,H,W), valid (H,W))]."""
    z = np.concatenate([depth[:, valid].ravel() for depth, valid in stacks])
    return float(np.partition(z, (z.size - 1) // 2)[(z.size - 1) // 2])


def _mean_of(methods: Sequence[Method], dataset: shards.Dataset, asked: Asked) -> np.ndarray | None:
    """The mean baseline, in the normalised space of the first run, else in that of the unit that is judged in."""
    normalisation: Normalisation = LogMedian() if asked.unit == "median" else ZScore((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for method in methods:
        if isinstance(method, Sampled):
            normalisation = method.run.normalisation
            break
    training = shards.open(dataset.directory, split="train")
    return mean_stack(training, asked.layers, asked.size, normalisation, MEAN_OVER)


def _settings(methods: Sequence[Method], dataset: shards.Dataset, asked: Asked, keys: Sequence[str]) -> dict[str, Any]:
    sampled = [method for method in methods if isinstance(method, Sampled)]
    splits = sorted(set(dataset.columns(["split"])["split"].take(list(asked.rows)).to_pylist()))
    seen = [method.name for method in sampled if seen_in_training(method.run, dataset, splits)]
    first = sampled[0] if sampled else None
    texts = {}
    for method in methods:
        called = "the model" if method.name == "model" else method.name
        texts[f"{method.name}_best"] = f"{called}, best of K seeds"
        texts[method.name] = f"{called}, one seed (mean over K)"
    return {
        "samples": len(keys),
        "splits": splits,
        "seen_in_training": bool(seen),
        "trained_on_these": seen,
        "dataset": dataset.directory,
        "manifest_hash": dataset.hash,
        "list_hash": list_hash(keys),
        "seeds": first.seeds if first is not None else None,
        "steps": first.steps if first is not None and len({m.steps for m in sampled}) == 1 else None,
        "size": asked.size,
        "layers": asked.layers,
        "frames": asked.frames,
        "points": asked.points,
        "training_step": first.run.step if first is not None else None,
        "alignment": f"per-sample scale and shift, least squares on layer-0 depth: {RULE_TEXTS[asked.rule]}"
        if asked.rule != "none"
        else RULE_TEXTS["none"],
        "unit": UNIT_TEXTS[asked.unit],
        "best_of_k_selected_by": asked.selected_by,
        "surfaces": None if asked.surfaces is None else str(asked.surfaces.folder),
        "surfaces_index": None if asked.surfaces is None else dict(asked.surfaces.index),
        "judged": {method.name: method.about() for method in methods},
        "methods": texts | (BASELINES if asked.baselines else {}),
    }


def seen_in_training(run: Run, dataset: shards.Dataset, splits: Sequence[str]) -> bool:
    """Whether one of the run's own sources is this folder with one of these splits, or with all."""
    here = _place(dataset.directory)
    return any(_place(s.path) == here and s.split in ("all", *splits) for s in run.config.data.sources)


def _place(path: str | Path) -> str:
    """Two names of one folder become the same; a URL stays."""
    return str(path) if "://" in str(path) else str(Path(path).resolve())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value
