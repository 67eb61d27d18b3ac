"""What does it take to judge 100 samples of 504 x 504 pixels with 8 precomputed predictions each?

    worldtrace render 'procedural:objects?count=25' --views 4 --size 504 --out out/judged504
    python tests/benchmarks/evaluation.py out/judged504 --work out/judged504-predictions [--twin 10]

Wanted: less than 2 minutes on 2 cores (240 s of CPU time), and the distances of a plain k-d tree per set, within 1e-6.

The predictions (written once, kept in --work) are the truth, each layer bent by a smooth random field and roughened,
and 1 % of the points thrown off; --bend 0.05 brings their Chamfer distance near that of the paper's WT-O on objects.
All of `worldtrace eval --predictions` is timed: reading predictions and samples, alignment, every metric of every seed;
then the same with both baselines. The twin (of the first samples, in turns with ours, in CPU time) makes two k-d trees
for each of the three pairs of point sets of each prediction, with SciPy's defaults.
"""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom
from scipy.spatial import cKDTree

import shards
from train.evaluation.alignment import align_along_rays, align_scale_shift
from train.evaluation.chamfer import scores
from train.evaluation.evaluate import ask, compare
from train.evaluation.methods import Precomputed
from train.evaluation.metrics import TrueStack, distinct, judge
from train.evaluation.truth import Truth, truth_of
from train.prediction.archive import write_npz
from train.prediction.prediction import Prediction

SEEDS, LAYERS, SIZE = 8, 6, 504
GRAIN, THROWN = 0.002, 0.01  # of the longest side; the part of points that fly


def bent(truth: Truth, rng: np.random.Generator, bend: float) -> np.ndarray:
    """(L,H,W,3): a prediction as a model could make it, wrong in a smooth way, with grain and flyers."""
    layers, height, width, _ = truth.xyz.shape
    coarse = rng.normal(size=(layers, 3, 24, 24)) * bend
    field = zoom(coarse, (1, 1, height / 24, width / 24), order=1).transpose(0, 2, 3, 1)
    xyz = truth.xyz + field + rng.normal(size=truth.xyz.shape) * GRAIN
    thrown = rng.random((layers, height, width)) < THROWN
    xyz[thrown] += rng.normal(size=(int(thrown.sum()), 3)) * 0.2
    return np.asarray(np.where(truth.valid[..., None], xyz, 0), np.float32)


def prepare(dataset: shards.Dataset, folder: Path, samples: int, bend: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row, key in enumerate(dataset.keys[:samples]):
        path = folder / f"{key}.npz"
        if not path.exists():
            truth = truth_of(dataset[row], LAYERS, SIZE, "black")
            rng = np.random.default_rng(row)
            stacks = np.stack([bent(truth, rng, bend) for _ in range(SEEDS)])
            write_npz(path, [Prediction(truth.rgb, truth.valid, stacks, None, tuple(range(SEEDS)))])


def twin(predicted: np.ndarray, truth: Truth) -> dict[str, float]:
    """Chamfer and F of the three pairs of sets, each by itself."""
    valid = truth.valid
    z = predicted[0, ..., 2][valid]
    scale, shift = align_scale_shift(z, truth.xyz[0, ..., 2][valid])
    aligned = align_along_rays(predicted[:, valid], scale, shift, float(np.median(z)))
    pairs = {
        "visible": (aligned[0], truth.xyz[0][valid].astype(np.float64)),
        "hidden": (aligned[1:].reshape(-1, 3), distinct(truth.xyz, truth.hits, 1)),
        "all": (aligned.reshape(-1, 3), distinct(truth.xyz, truth.hits, 0)),
    }
    found: dict[str, float] = {}
    for part, (ours, true) in pairs.items():
        distances = cKDTree(true).query(ours)[0], cKDTree(ours).query(true)[0]
        found |= {f"{part}/{name}": value for name, value in scores(*distances).items()}
    return found


def against_twin(dataset: shards.Dataset, folder: Path, samples: int) -> None:
    ours = theirs = worst = 0.0
    method = Precomputed("bent", folder)
    for row in range(samples):
        truth = truth_of(dataset[row], LAYERS, SIZE, "black")
        drawn = method.read(truth.key, 1)
        began = time.process_time()
        true = [TrueStack(truth.xyz, truth.hits)]
        fast = [judge(true, drawn.xyz[seed]) for seed in range(SEEDS)]
        between = time.process_time()
        slow = [twin(drawn.xyz[seed, 0], truth) for seed in range(SEEDS)]
        ours, theirs = ours + between - began, theirs + time.process_time() - between
        worst = max(worst, *(abs(s[name] - f[name]) for f, s in zip(fast, slow) for name in s))
    stacks = samples * SEEDS
    print(f"{'of ' + str(stacks) + ' predictions':36} {'CPU seconds each':>18} {'largest difference':>20}")
    print(f"{'all metrics, as built':36} {ours / stacks:18.3f} {worst:20.1e}")
    print(f"{'k-d trees per set (the twin)':36} {theirs / stacks:18.3f}")
    print(f"{'ratio':36} {theirs / ours:18.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--twin", type=int, default=10, help="samples that the twin judges, too")
    parser.add_argument("--bend", type=float, default=0.02, help="of the longest side; asks for a --work of its own")
    asked = parser.parse_args()
    dataset = shards.open(asked.dataset)
    prepare(dataset, asked.work, asked.samples, asked.bend)
    against_twin(dataset, asked.work, min(asked.twin, len(dataset)))
    method = Precomputed("bent", asked.work)
    rows = range(min(asked.samples, len(dataset)))
    for baselines in (False, True):
        wall, cpu = time.perf_counter(), time.process_time()
        plan = replace(ask([method], dataset, rows, table=1), baselines=baselines)
        report = compare([method], dataset, plan)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        what = f"{len(report.samples)} samples, K = {SEEDS}" + (" and both baselines" if baselines else "")
        print(f"{what:36} {cpu:7.0f} s of CPU, {wall:.0f} s on {len(os.sched_getaffinity(0))} cores (load "
              f"{os.getloadavg()[0]:.1f})")  # fmt: skip
        print(f"{'':36} CD-L1 of all layers {report.methods['bent']['all/cd_l1']:.4f}")


if __name__ == "__main__":
    main()
