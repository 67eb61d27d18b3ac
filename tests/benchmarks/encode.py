"""What does it cost to encode a view, and what would other settings of the image cost?

    OMP_NUM_THREADS=1 python tests/benchmarks/encode.py ASSETS_FOLDER [--views 1] [--size 504] [--repeats 3]

One thread; every view is encoded in every way in turns, and the least of the repeats counts. Sizes are sums over all
views, times are means and medians over them, and `against` are the sum of sizes and the median of times relative to
what `shards.encode` does.
"""

import argparse
import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import render
import shards
from render import Rejected, RenderSettings
from render.load import SUFFIXES
from shards import LayeredView, Origin
from shards.image import encode_rgba
from shards.layers.codec import encode_layers


def webp(method: int, quality: int, clear: bool) -> Callable[[LayeredView], bytes]:
    """Lossless WebP; with `clear`, transparent pixels are cleared beforehand and libwebp is asked to keep all."""

    def run(view: LayeredView) -> bytes:
        rgba = np.where(view.rgba[..., 3:] > 0, view.rgba, np.uint8(0)) if clear else view.rgba
        out = io.BytesIO()
        Image.fromarray(rgba, "RGBA").save(out, "WEBP", lossless=True, method=method, quality=quality, exact=clear)
        return out.getvalue()

    return run


def png(view: LayeredView) -> bytes:
    out = io.BytesIO()
    Image.fromarray(view.rgba, "RGBA").save(out, "PNG")
    return out.getvalue()


def views_of(folder: Path, settings: RenderSettings) -> list[LayeredView]:
    views: list[LayeredView] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        try:
            rendered = render.render_views(render.load(path), Origin(path.stem, "folder", sha256), settings)
        except Rejected:
            continue
        views += [sample for sample in rendered.samples if isinstance(sample, LayeredView)]
    return views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--size", type=int, default=504)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    size = arguments.size
    views = views_of(arguments.assets, RenderSettings(views=arguments.views, height=size, width=size, backend="cpu"))

    ways: dict[str, Callable[[LayeredView], bytes]] = {
        "whole sample": lambda view: b"".join(shards.encode(view).members.values()),
        "layers": lambda view: encode_layers(view.hits, view.depth),
        "image": lambda view: encode_rgba(view.rgba),
        **{f"  webp {m} {q} cleared": webp(m, q, True) for m, q in ((0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (1, 25))},
        **{f"  webp {m} {q}": webp(m, q, False) for m, q in ((0, 0), (1, 0), (2, 0), (4, 0), (1, 25))},
        "  png": png,
    }
    took = {name: np.full(len(views), np.inf) for name in ways}
    sizes = {name: np.zeros(len(views)) for name in ways}
    for number, view in enumerate(views):
        for _ in range(arguments.repeats):
            for name, run in ways.items():
                start = time.perf_counter()
                data = run(view)
                took[name][number] = min(took[name][number], time.perf_counter() - start)
                sizes[name][number] = len(data)
    print(f"{len(views)} views, {size} x {size}")
    print(f"{'':20s} {'KB mean':>8s} {'ms mean':>8s} {'median':>7s}  against: bytes  time")
    for name in ways:
        against = ""
        if name.startswith(" "):
            share = sizes[name].sum() / sizes["image"].sum()
            against = f"{share:15.3f} {np.median(took[name] / took['image']):5.2f}"
        ms = took[name] * 1e3
        print(f"{name:20s} {sizes[name].mean() / 1024:8.1f} {ms.mean():8.2f} {np.median(ms):7.2f}  {against}")


if __name__ == "__main__":
    main()
