"""Does it learn? The flow against a regression, schedules of times, filling against masks (paper, Table 4, 4.3, E.1).

    python -m tests.benchmarks.study data  --out out/study [--scale cpu|gpu] [--real FOLDER]
    python -m tests.benchmarks.study train NAME ... --out out/study [--scale cpu|gpu] [--set KEY=VALUE ...]
    python -m tests.benchmarks.study judge [NAME ...] --out out/study [--limit N]
    python -m tests.benchmarks.study show  [NAME ...] --out out/study

`data` renders procedural objects, of which a tenth is held out by asset, and, as a test out of distribution, the models
in FOLDER. `train` trains the named runs, one after the other; all of one scale have the same network, data, order of
samples, number of steps, optimizer and seed, and differ by what their name says alone. `judge` is `worldtrace eval` of
each, on the same held-out samples (judged/held_out/NAME.json, judged/real/NAME.json). `show` prints Markdown of how
they compare, with the standard error of each difference over the samples, and draws the curves of their losses and what
the flow and the regression make of some held-out samples (curves.png, stacks.png).

    mixture           the flow, as the paper trains it: filled layers, times of the equal mixture
    logit_normal      ... times of the logit-normal for all layers
    plateaued         ... times of the plateaued logit-normal for all layers
    flow_masks        ... points where a layer is there and a mask per layer, instead of filling
    regression_masks  the network asked once, without noise; points and a mask per layer, as LaRI has them
    regression        ... filled layers

The scale `cpu` is what two cores do in two hours; `gpu` is for one H100.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

RUNS: dict[str, list[str]] = {
    "mixture": [],
    "logit_normal": ["objective.schedule=logit_normal"],
    "plateaued": ["objective.schedule=plateaued"],
    "flow_masks": ["model.masks=true"],
    "regression_masks": ["objective.kind=regression", "model.masks=true"],
    "regression": ["objective.kind=regression"],
}
# Objects are larger and nearer to the middle than in a data set of 504 pixels, for these images have few.
CLOSE_UP = ["framing_median=0.5", "framing_deviation=0.3", "aim_deviation=0.02,0.02", "crop=0"]
SCALES: dict[str, dict[str, list[str]]] = {
    "cpu": {
        "render": ["--size", "56"],
        "train": [
            "tiny",
            "data.size=56",
            "data.batch=16",
            "data.workers=1",
            "model.patch=14",
            "model.time_shift=30",
            "objective.shared_times_from=300",
            "optimizer.lr=1.2e-3",
            "optimizer.min_lr=5e-5",
            "optimizer.warmup=200",
            "ema=0.995",
            "steps=5000",
            "precision=bf16",
            "compute.compile=true",
            "evaluation.every=1000",
            "evaluation.samples=64",
            "evaluation.pictures=0",
            "checkpoint.every=1000",
            "checkpoint.keep=1",
        ],
    },
    "gpu": {
        "render": ["--size", "252"],
        "train": [
            "small",
            "data.size=196",
            "data.batch=64",
            "objective.shared_times_from=2000",
            "steps=20000",
            "evaluation.every=2000",
        ],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["data", "train", "judge", "show"])
    parser.add_argument("names", nargs="*", choices=[[], *RUNS], metavar="NAME")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--objects", type=int, default=6000)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--limit", type=int, default=200, help="held-out samples that are judged")
    parser.add_argument("--seeds", type=int, default=8)
    asked = parser.parse_args()
    scale = SCALES[asked.scale]
    if asked.what == "data":
        framing = [word for setting in CLOSE_UP for word in ("--set", setting)]
        objects = f"procedural:objects?count={asked.objects}"
        _worldtrace("render", objects, "--out", asked.out / "objects", "--views", "4", *scale["render"], *framing)
        if asked.real:
            _worldtrace("render", asked.real, "--out", asked.out / "real", "--views", "6", *scale["render"], *framing)
    for name in asked.names or RUNS if asked.what == "train" else ():
        first, *settings = scale["train"]
        where = [f"data.path={asked.out / 'objects'}", f"out={asked.out / 'runs' / name}"]
        _worldtrace("train", first, *where, *settings, *RUNS[name], *asked.changes)

    if asked.what == "judge":
        for name in asked.names or RUNS:
            for data, judged in JUDGED.items():
                _judge(asked.out, data, judged, name, asked.seeds, asked.limit)
    if asked.what == "show":
        names = [name for name in asked.names or RUNS if (asked.out / "runs" / name).is_dir()]
        for judged in JUDGED.values():
            reports = {name: asked.out / judged / f"{name}.json" for name in names}
            found = {name: json.loads(path.read_text()) for name, path in reports.items() if path.exists()}
            if found:
                values = of_samples(found)
                print(f"\n## {judged}\n\n{table(values)}\n\n{compared(values)}")
        curves(asked.out, names)
        stacks(asked.out, [name for name in ("mixture", "regression_masks", "regression") if name in names])


JUDGED = {"objects": "judged/held_out", "real": "judged/real"}  # data set: where its reports go


def _judge(out: Path, data: str, judged: str, name: str, seeds: int, limit: int) -> None:
    """Of the models from elsewhere views of all splits are judged: none was trained on."""
    if not (out / data).exists():
        return
    split = "train+val+test" if data == "real" else "val+test"
    where = ["--data", out / data, "--split", split, "--limit", limit, "--out", out / judged / f"{name}.json"]
    _worldtrace("eval", "--table", "1", "--checkpoint", f"{name}={out / 'runs' / name}", "--seeds", seeds, *where)


METRICS = {
    "depth/absrel": "L0 AbsRel",
    "visible/cd_l2": "L0 CD-L2",
    "hidden/cd_l2": "hidden CD-L2",
    "all/cd_l2": "all CD-L2",
    "all/cd_l1": "all CD-L1",
    "all/f@0.05": "all F@0.05",
}
Values = dict[str, dict[str, np.ndarray]]


def of_samples(reports: dict[str, dict]) -> Values:
    """row -> metric -> (N,) over the samples. Of a flow NAME, one seed (the mean over all); "NAME, best of K" chosen by
    all/cd_l1, as eval does; and "NAME, best L0 of K", chosen by layer-0 AbsRel, as the paper's Table 6 does (of single
    seeds a report keeps some metrics only)."""
    lists = {report["settings"]["list_hash"] for report in reports.values()}
    if len(lists) != 1:
        raise SystemExit(f"the reports are of different samples ({', '.join(sorted(lists))}); judge them again")
    rows: dict[str, list[dict[str, float]]] = {}
    for name, report in reports.items():
        samples = report["samples"]
        seeds = len(samples[0]["each"][name])
        rows[name] = [sample[name] for sample in samples]
        if seeds > 1:
            rows[f"{name}, best of {seeds}"] = [sample[f"{name}_best"] for sample in samples]
            rows[f"{name}, best L0 of {seeds}"] = [
                min(sample["each"][name], key=lambda seed: seed["depth/absrel"]) for sample in samples
            ]
    first = next(iter(reports.values()))["samples"]
    for row, key in (("mean of the training set", "mean"), ("true layer 0 repeated", "layer0")):
        if key in first[0]:
            rows[row] = [sample[key] for sample in first]
    return {
        row: {metric: np.array([each.get(metric, np.nan) for each in of], np.float64) for metric in METRICS}
        for row, of in rows.items()
    }


def table(values: Values) -> str:
    """Markdown: the mean over samples, a row for each way of choosing a seed."""
    lines = [f"| | {' | '.join(METRICS.values())} |", "|---|" + "---:|" * len(METRICS)]
    for row, metrics in values.items():
        lines.append(f"| {row} | {' | '.join(_mean(metrics[metric]) for metric in METRICS)} |")
    return "\n".join(lines)


def compared(values: Values) -> str:
    """Markdown: of each pair of rows the ratio of the means, and the mean difference over samples with its standard
    error (paired: both were judged on the same samples)."""
    best = next((row.removeprefix("mixture, ") for row in values if row.startswith("mixture, best of")), "")
    flows = ("logit_normal", "plateaued", "flow_masks")
    regressions = ("regression_masks", "regression")
    pairs = [(f"mixture, {best}", f"{name}, {best}") for name in flows] + [("mixture", name) for name in flows]
    pairs += [(row, name) for name in regressions for row in values if row.split(",")[0] == "mixture"]
    pairs += [("regression", "regression_masks")]
    shown = ("depth/absrel", "visible/cd_l2", "hidden/cd_l2", "all/cd_l2")
    lines = [f"| first | second | {' | '.join(METRICS[m] for m in shown)} |", "|---|---|" + "---:|" * len(shown)]
    for first, second in pairs:
        if first in values and second in values:
            cells = [_ratio(values[first][metric], values[second][metric]) for metric in shown]
            lines.append(f"| {first} | {second} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: np.ndarray) -> str:
    return f"{values.mean():.4f}" if np.isfinite(values).all() else "–"


def _ratio(a: np.ndarray, b: np.ndarray) -> str:
    """Of the means, and how many standard errors their difference is."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return "–"
    change = a - b
    error = change.std(ddof=1) / np.sqrt(len(change))
    return f"{a.mean() / b.mean():.3f} ({change.mean() / error:+.1f} σ)"


def curves(out: Path, names: Sequence[str]) -> Path:
    """curves.png: per layer the squared error of the averaged weights on held-out samples while they were trained.

    Those of flows are means over times, of regressions without noise: only curves of one kind can be compared.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from train.reports.log import events

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True, sharey=True)
    for axis, title, layers in ((axes[0], "layer 0", slice(0, 1)), (axes[1], "layers 1 to 5", slice(1, None))):
        for name in names:
            found = list(events(out / "runs" / name, "evaluation"))
            style = "--" if name.startswith("regression") else "-"
            axis.plot([e["step"] for e in found], [np.mean(e["layers"][layers]) for e in found], style, label=name)
        axis.set(title=title, xlabel="step", yscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("squared error, normalised points")
    axes[1].legend(fontsize=8)
    path = out / "curves.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


TITLE = 22  # pixels of a sheet above its rows


def stacks(out: Path, names: Sequence[str], samples: int = 3) -> Path:
    """stacks.png: of held-out samples the true layers, and below them what each run makes of them (two seeds of a
    flow), depth aligned to the truth."""
    from PIL import Image

    import shards
    from train.evaluation.evaluate import held_out
    from train.evaluation.metrics import align_scale_shift
    from train.evaluation.truth import truth_of
    from train.prediction.batch import predict_batch
    from train.prediction.pictures import Shown, prediction_sheet
    from train.run import load_run

    dataset = shards.open(out / "objects")
    runs = {name: load_run(out / "runs" / name) for name in names}
    pages = []
    for row in held_out(dataset, ("test",), samples):
        pages_of_sample = 0
        for name, run in runs.items():
            truth = truth_of(dataset[row], 6, run.config.data.size, "black")
            seeds = 1 if run.config.objective.kind == "regression" else 2
            xyz, exists = predict_batch(
                run, truth.rgb[None], truth.valid[None], [(seed, truth.key) for seed in range(seeds)], 20
            )
            for seed in range(seeds):
                z = xyz[seed][..., 2]
                scale, shift = align_scale_shift(z[0][truth.valid], truth.xyz[0, ..., 2][truth.valid])
                shown = xyz[seed] * scale + np.array([0, 0, shift])
                path = out / f".{len(pages)}.png"
                frame = Shown(truth.rgb, truth.valid, shown, exists[seed], truth.xyz)
                prediction_sheet(path, [frame], f"{name}, seed {seed}" if seeds > 1 else name)
                page = np.asarray(Image.open(path))
                truth_row = TITLE + (len(page) - TITLE) // 2
                pages += [page[:truth_row]] if pages_of_sample else [page[truth_row:], page[:truth_row]]
                pages_of_sample += 1
                path.unlink()
    whole = out / "stacks.png"
    Image.fromarray(np.concatenate(pages)).save(whole)
    return whole


def _worldtrace(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "worldtrace", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
