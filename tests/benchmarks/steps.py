"""How many steps does sampling need, and of which solver? Quality against passes of the network, on a trained run.

    python -m tests.benchmarks.steps RUN DATASET [--steps 1 2 4 5 10 20 50] [--solvers euler heun multistep]
        [--samples 12] [--seeds 4] [--split val+test] [--device cpu] [--out steps.md]

RUN is whatever `worldtrace eval --checkpoint` takes. The samples are those that `worldtrace eval --limit` would judge.
All rows start from the same noise. Prints a Markdown table, a row for each solver and number of steps:

passes      of the network for a stack (`model.calls`).
s/stack     CPU seconds of this process, one thread; on a GPU seconds by the clock. The image's own pass is in it.
AbsRel      of layer 0, hidden CD-L2 and all CD-L1: as `worldtrace eval` judges them, after alignment. mean: over all
            seeds and samples. best: of the seed with the smallest all CD-L1 (AbsRel where only layer 0 is known), the
            mean over samples. CD-L2 is in thousandths.
moved       Mean distance of a point from where the reference, which starts from the same noise, has it, in thousandths.
            The reference is the row with the most passes of Heun's method (else of any). What is left of it at many
            steps is not the solver's: every pass fills the invalid pixels with other noise (Eq. 7).

A sample takes about as long as a pass times all passes of the table (375) times `--seeds`, and a little to judge.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import shards
from model import calls
from train.evaluation.evaluate import held_out
from train.evaluation.metrics import averaged, stack_metrics
from train.evaluation.truth import Truth, truth_of
from train.prediction.batch import Stacks, predict_batch
from train.run import Run, device_of, load_run

COLUMNS = {"depth/absrel": ("AbsRel", 1.0), "hidden/cd_l2": ("hidden CD-L2", 1e3), "all/cd_l1": ("all CD-L1", 1.0)}
Row = tuple[str, int]  # a solver and its number of steps


def stacks(run: Run, truth: Truth, seeds: int, row: Row) -> tuple[Stacks, float]:
    """The stacks of all seeds, and the seconds that they took."""
    device = next(run.model.parameters()).device
    draws = [(seed, truth.key) for seed in range(seeds)]
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    begin = clock()
    found = predict_batch(run, truth.rgb[None], truth.valid[None], draws, row[1], solver=row[0])  # on the CPU again
    return found, clock() - begin


def best(each: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of the best seed, chosen with the truth in hand."""
    return min(each, key=lambda m: m.get("all/cd_l1", m["depth/absrel"]))


def measure(run: Run, truths: Sequence[Truth], seeds: int, rows: Sequence[Row]) -> list[list[str]]:
    """The cells of the table, a line for each row."""
    reference = max(rows, key=lambda row: (row[0] == "heun", calls(*row)))
    stacks(run, truths[0], seeds, rows[0])  # what the first pass of all takes longer is nobody's
    seconds: dict[Row, list[float]] = {row: [] for row in rows}
    off: dict[Row, list[float]] = {row: [] for row in rows}
    mean: dict[Row, list[dict[str, float]]] = {row: [] for row in rows}
    chosen: dict[Row, list[dict[str, float]]] = {row: [] for row in rows}
    for number, truth in enumerate(truths):
        print(f"\r{number}/{len(truths)} samples", end="", file=sys.stderr, flush=True)
        found = {}
        for row in rows:
            found[row], taken = stacks(run, truth, seeds, row)
            seconds[row].append(taken / seeds)
        for row, (xyz, exists) in found.items():
            apart = np.linalg.norm(xyz - found[reference].xyz, axis=-1)[..., truth.valid]
            off[row].append(float(apart.mean()))
            each = [
                stack_metrics(xyz_LHW3, truth.xyz, truth.hits, truth.single_layer, exists_LHW)
                for xyz_LHW3, exists_LHW in zip(xyz, exists)
            ]
            mean[row].append(averaged(each))
            chosen[row].append(best(each))
    print("\r" + " " * 30 + "\r", end="", file=sys.stderr)
    lines = []
    for row in rows:
        means, bests = averaged(mean[row]), averaged(chosen[row])
        cells = [row[0], str(row[1]), str(calls(*row)), f"{np.median(seconds[row]):.3f}"]
        for metric, (_, scale) in COLUMNS.items():
            cells += [f"{scale * m[metric]:.4f}" if metric in m else "" for m in (means, bests)]
        lines.append([*cells, "reference" if row == reference else f"{1e3 * np.mean(off[row]):.2f}"])
    return lines


def table(lines: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    metrics = [f"{name} {which}" for name, _ in COLUMNS.values() for which in ("mean", "best")]
    head = ["solver", "steps", "passes", "s/stack", *metrics, "moved"]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("dataset")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 5, 10, 20, 50])
    parser.add_argument("--solvers", nargs="+", default=["euler", "heun", "multistep"])
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--split", default="val+test")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--out", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.process_time()

    rows = [(solver, steps) for solver in arguments.solvers for steps in arguments.steps]
    for row in rows:
        calls(*row)  # a mistake is named before anything is computed
    run = load_run(arguments.run, device_of(arguments.device))
    if run.config.objective.kind == "regression":
        parser.error(f"{arguments.run} is a regression: it is asked once, and has no steps")
    dataset = shards.open(arguments.dataset)
    layers, size, background = run.model.config.layers, run.config.data.size, run.config.augment.background
    chosen = held_out(dataset, tuple(arguments.split.split("+")), arguments.samples)
    truths = [truth_of(dataset[index], layers, size, background) for index in chosen]
    truths = [truth for truth in truths if truth.valid.any()]
    lines = [
        f"{len(truths)} samples of {arguments.split} at {size} px, {arguments.seeds} seeds; step {run.step} of "
        f"{Path(arguments.run).name}, time_shift {run.model.config.time_shift:g}",
        "",
        table(measure(run, truths, arguments.seeds, rows)),
    ]
    text = "\n".join(lines)
    print(text)
    print(f"({time.process_time() - begin:.0f} s of CPU time)")
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
