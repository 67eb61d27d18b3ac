"""How well is the camera found again from layer 0, exact and with noise?

    python -m tests.benchmarks.intrinsics DATASET [DATASET ...] [--samples 60] [--size 504] [--noise 0.01]

Wanted: the focal length within 0.01 % from true points, within 0.5 % from points with 1 % noise.

Views spread over a dataset; a sequence counts with its first frame. Each is enlarged to at least `--size` pixels by a
whole factor, every pixel keeping its depth and getting the ray of its own centre: exact points of a camera, as many as
a model of that size would predict. They are seen as they were rendered, through half and twice the focal length, and
in an image cut off the axis (by 0.3 of its width and 0.2 of its height). Prints the larger of the errors of fx and fy,
over the views, and the part of them within 0.5 %, for both of `fit_intrinsics`'s ways and four kinds of noise:

none         the points as float32, as a dataset or a model hands them over
depth        along the ray: X, Y and Z times one number, so X/Z is untouched
coordinate   X, Y and Z each off by a normal number times itself
point        X, Y and Z each off by a normal number times Z: the hardest, and what "1 % noise" is taken to mean
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch

import shards
from model import fit_intrinsics
from shards import Clip

NOISES: dict[str, Callable[[np.ndarray, np.random.Generator, float], np.ndarray]] = {
    "none": lambda xyz, random, size: xyz,
    "depth": lambda xyz, random, size: xyz * (1 + size * random.standard_normal((*xyz.shape[:-1], 1))),
    "coordinate": lambda xyz, random, size: xyz * (1 + size * random.standard_normal(xyz.shape)),
    "point": lambda xyz, random, size: xyz + xyz[..., 2:] * size * random.standard_normal(xyz.shape),
}
CAMERAS = {
    "as rendered": (1.0, 0.0, 0.0),
    "half": (0.5, 0.0, 0.0),
    "twice": (2.0, 0.0, 0.0),
    "off axis": (1, 0.3, -0.2),
}


def views(path: str, count: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(visible depth (H,W) float64, enlarged; K (3,3) of that image)."""
    dataset = shards.open(path)
    for row in np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)):
        sample = dataset[int(row)]
        view = sample.frames[0] if isinstance(sample, Clip) else sample
        times = -(-size // max(view.hits.shape))
        z = np.where(view.hits > 0, view.depth[0], 0.0).repeat(times, 0).repeat(times, 1)
        yield z.astype(np.float64), np.diag([times, times, 1.0]) @ view.K


def errors(z: np.ndarray, K: np.ndarray, noise: str, size: float, random: np.random.Generator) -> list[float]:
    """The larger relative error of fx and fy: with errors in the points, and in the pixels."""
    v, u = np.mgrid[: z.shape[0], : z.shape[1]] + 0.5
    xyz = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=-1)
    points = torch.from_numpy(NOISES[noise](xyz, random, size).astype(np.float32))[None]
    fits = (fit_intrinsics(points, torch.from_numpy(z > 0)[None], way)[0].numpy() for way in ("points", "pixels"))
    return [max(abs(fit[0, 0] / K[0, 0] - 1), abs(fit[1, 1] / K[1, 1] - 1)) for fit in fits]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--size", type=int, default=504)
    parser.add_argument("--noise", type=float, default=0.01)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    print("| dataset | camera | noise | points: median % | 99th % | within | pixels: median % | 99th % | within |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for path in arguments.datasets:
        found: dict[tuple[str, str], list[list[float]]] = {}
        few = 0
        for z, K in views(path, arguments.samples, arguments.size):
            if np.count_nonzero(z) < 1000:
                few += 1
                continue
            for camera, (longer, right, down) in CAMERAS.items():
                moved = np.diag([longer, longer, 1.0]) @ K
                moved[:2, 2] = K[:2, 2] + np.array([right, down]) * z.shape[::-1]
                for noise in NOISES:
                    cell = errors(z, moved, noise, arguments.noise, random)
                    found.setdefault((camera, noise), []).append(cell)
        for (camera, noise), each in found.items():
            cells = [path, camera, noise]
            for error in np.array(each).T:
                median, last = 100 * np.percentile(error, [50, 99])
                cells += [f"{median:.4f}", f"{last:.4f}", f"{np.mean(error < 0.005):.0%}"]
            print("| " + " | ".join(cells) + " |")
        print(f"({path}: {few} views with fewer than 1000 pixels left out)")


if __name__ == "__main__":
    main()
