"""Does it learn? The flow against a regression, schedules of times, filling against masks (paper, Table 4, 4.3, E.1).

    python -m tests.benchmarks.study data  --out out/study [--scale cpu|gpu] [--real FOLDER]
    python -m tests.benchmarks.study train NAME ... --out out/study [--scale cpu|gpu] [--set KEY=VALUE ...]
    python -m tests.benchmarks.study judge [NAME ...] --out out/study [--limit N]
    python -m tests.benchmarks.study show  [NAME ...] --out out/study

`data` renders procedural objects, of which a tenth is held out by asset, and, as a test out of distribution, the models
in FOLDER. `train` trains the named runs, one after the other; all of one scale have the same network, data, order of
samples, number of steps, optimizer and seed, and differ by what their name says alone. `judge` is `worldtrace eval` of
them, side by side on the same held-out samples (held_out.json and .md, real.json and .md). `show` prints how they
compare, with the standard error of each difference over the samples, and draws the curves of their losses and what the
flow and the regression make of some held-out samples (curves.png, stacks.png).

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
        for data, name in (("objects", "held_out"), ("real", "real")):
            _judge(asked.out, data, name, asked.names or list(RUNS), asked.seeds, asked.limit)
    if asked.what == "show":
        names = asked.names or [name for name in RUNS if (asked.out / "runs" / name).is_dir()]
        for name in ("held_out", "real"):
            if (asked.out / f"{name}.json").exists():
                print(f"\n{name}\n\n" + compared(json.loads((asked.out / f"{name}.json").read_text())))
        curves(asked.out, names)
        stacks(asked.out, [name for name in ("mixture", "regression_masks", "regression") if name in names])


def _judge(out: Path, data: str, name: str, runs: Sequence[str], seeds: int, limit: int) -> None:
    """Of the models from elsewhere all views are judged: none was trained on."""
    if not (out / data).exists():
        return
    checkpoints = [word for run in runs for word in ("--checkpoint", f"{run}={out / 'runs' / run}")]
    which = ["--split", "train+val+test"] if data == "real" else ["--limit", limit]
    files = ["--out", out / f"{name}.json", "--out", out / f"{name}.md", "--plots", out / f"{name}_plots"]
    _worldtrace("eval", "--data", out / data, "--table", "1", *checkpoints, "--seeds", seeds, *which, *files)


PAIRS = (
    ("mixture_best", "regression_masks", ("hidden/cd_l2", "visible/cd_l2", "visible/cd_l1", "depth/absrel")),
    ("mixture", "regression_masks", ("hidden/cd_l2", "visible/cd_l2", "visible/cd_l1", "depth/absrel")),
    ("mixture_best", "regression", ("hidden/cd_l2", "visible/cd_l2", "visible/cd_l1", "depth/absrel")),
    ("mixture_best", "logit_normal_best", ("visible/cd_l2", "hidden/cd_l2", "all/cd_l2")),
    ("mixture_best", "plateaued_best", ("visible/cd_l2", "hidden/cd_l2", "all/cd_l2")),
    ("mixture_best", "flow_masks_best", ("visible/cd_l2", "hidden/cd_l2", "all/cd_l2")),
    ("regression", "regression_masks", ("visible/cd_l2", "hidden/cd_l2", "all/cd_l2")),
)


def compared(report: dict) -> str:
    """Markdown: of each pair the two means, the ratio, and the mean difference over samples with its standard error."""
    lines = ["| metric | first | second | first | second | ratio | difference |", "|---|---|---|---|---|---|---|"]
    for first, second, metrics in PAIRS:
        for metric in metrics:
            both = [
                (s[first].get(metric), s[second].get(metric)) for s in report["samples"] if {first, second} <= s.keys()
            ]
            values = np.array([pair for pair in both if None not in pair], np.float64)
            if not len(values):
                continue
            (a, b), change = values.mean(axis=0), values[:, 0] - values[:, 1]
            error = change.std(ddof=1) / np.sqrt(len(change))
            difference = f"{change.mean():+.5f} ± {error:.5f}"
            lines.append(f"| {metric} | {first} | {second} | {a:.5f} | {b:.5f} | {a / b:.3f} | {difference} |")
    return "\n".join(lines)


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


def stacks(out: Path, names: Sequence[str], samples: int = 3) -> Path:
    """stacks.png: held-out samples, their true layers, and below them what each run makes of them (two seeds of a
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
                pages.append(np.asarray(Image.open(path)))
                path.unlink()
    whole = out / "stacks.png"
    Image.fromarray(np.concatenate(pages)).save(whole)
    return whole


def _worldtrace(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "worldtrace", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
