"""How near the masks that `worldtrace predict --mask flood` finds are to those of renders, before several backgrounds.

    python -m tests.benchmarks.masks DATASET [--samples 200]

Samples of a dataset are composited over each background; the overlap (intersection over union) is of the pixels whose
alpha is above one half. Objects of less than 20 pixels are left out.
"""

import argparse
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

import shards
from train.prediction.masks import flood

Background = Callable[[np.random.Generator, int, int], np.ndarray]


def grey(deviation: float) -> Background:
    return lambda rng, h, w: np.clip(0.5 + rng.normal(size=(h, w, 3)) * deviation / 255, 0, 1)


BACKGROUNDS: dict[str, Background] = {
    "white": lambda rng, h, w: np.ones((h, w, 3)),
    "white, saved as JPEG of quality 85": lambda rng, h, w: np.ones((h, w, 3)),
    "black": lambda rng, h, w: np.zeros((h, w, 3)),
    "one colour at random": lambda rng, h, w: np.broadcast_to(rng.random(3), (h, w, 3)),
    "grey": grey(0),
    "grey, noise of deviation 2 (of 255)": grey(2),
    "grey, noise of deviation 5": grey(5),
    "grey, noise of deviation 20": grey(20),
    "uniform noise": lambda rng, h, w: rng.random((h, w, 3)),
    "gradient from 40 % to 60 % grey": lambda rng, h, w: np.linspace(0.4, 0.6, w)[None, :, None] * np.ones((h, 1, 3)),
}


def overlap(rgba: np.ndarray, background: np.ndarray, jpeg: bool) -> float | None:
    """None where no mask is found."""
    alpha = rgba[..., 3:] / 255
    picture = np.round((rgba[..., :3] / 255 * alpha + background * (1 - alpha)) * 255).astype(np.uint8)
    if jpeg:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=85)
        picture = np.asarray(Image.open(buffer).convert("RGB"))
    try:
        found = flood(picture)[..., 3] > 127
    except ValueError:
        return None
    true = rgba[..., 3] > 127
    return float((found & true).sum() / (found | true).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--samples", type=int, default=200)
    asked = parser.parse_args()
    dataset = shards.open(asked.dataset)
    rng = np.random.default_rng(0)
    chosen = [dataset[int(i)] for i in rng.choice(len(dataset), min(asked.samples, len(dataset)), replace=False)]
    views = [v.frames[0].rgba if isinstance(v, shards.Clip) else v.rgba for v in chosen]
    views = [rgba for rgba in views if (rgba[..., 3] > 127).sum() >= 20]
    print("| background | refused | overlap: median | 10th % |\n|---|---:|---:|---:|")
    for name, background in BACKGROUNDS.items():
        got = [overlap(rgba, background(rng, *rgba.shape[:2]), "JPEG" in name) for rgba in views]
        known = [value for value in got if value is not None]
        figures = f"{np.median(known):.2f} | {np.percentile(known, 10):.2f}" if known else " | "
        print(f"| {name} | {len(got) - len(known)} of {len(got)} | {figures} |")


if __name__ == "__main__":
    main()
