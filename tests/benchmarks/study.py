"""Does it learn? The flow against a regression, schedules of times, filling against masks (paper, Table 4, 4.3, E.1).

    python -m tests.benchmarks.study data  --out out/study [--scale cpu|gpu] [--real FOLDER]
    python -m tests.benchmarks.study train NAME ... --out out/study [--scale cpu|gpu] [--set KEY=VALUE ...]
    python -m tests.benchmarks.study judge [NAME ...] --out out/study [--scale cpu|gpu] [--limit N]
    python -m tests.benchmarks.study table --out out/study

`data` renders procedural objects, of which a tenth is held out by asset, and, as a test out of distribution, the models
in FOLDER. `train` trains the named runs, one after the other; all of one scale have the same network, data, order of
samples, number of steps, optimizer and seed, and differ by what their name says alone. `judge` is `worldtrace eval` of
them, side by side on the same held-out samples, in judged.json and real.json. `table` prints Markdown of it.

    mixture           the flow, as the paper trains it: filled layers, times of the equal mixture
    logit_normal      ... times of the logit-normal for all layers
    plateaued         ... times of the plateaued logit-normal for all layers
    flow_masks        ... points where a layer is there and a mask per layer, instead of filling
    regression_masks  the network asked once, without noise; points and a mask per layer, as LaRI has them
    regression        ... filled layers

The scale `cpu` is what two cores do in two hours; `gpu` is for one H100.
"""

import argparse
import subprocess
import sys
from pathlib import Path

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
        "render": ["--size", "112"],
        "train": [
            "tiny",
            "data.size=56",
            "data.batch=32",
            "data.workers=1",
            "model.patch=14",
            "model.time_shift=10",
            "objective.shared_times_from=150",
            "optimizer.lr=1.5e-3",
            "optimizer.min_lr=5e-5",
            "optimizer.warmup=100",
            "ema=0.995",
            "steps=2500",
            "precision=bf16",
            "compute.compile=true",
            "evaluation.every=500",
            "evaluation.samples=128",
            "evaluation.pictures=0",
            "checkpoint.every=250",
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
    parser.add_argument("what", choices=["data", "train"])
    parser.add_argument("names", nargs="*", choices=[[], *RUNS], metavar="NAME")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--objects", type=int, default=6000)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", dest="changes")
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


def _worldtrace(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "worldtrace", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
