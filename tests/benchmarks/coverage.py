"""Do the cameras of objects reproduce the paper's coverage (Table 5) and the released z-score statistics?

    python tests/benchmarks/coverage.py [FOLDER ...] [--objects 50] [--actors 10] [--views 8] [--size 96] [--seed 0]

Every asset under the folders (those that load), and so many procedural objects and actors, are rendered by
`render_views` with its default cameras, each asset `--views` times, in small images: coverage is a share of the image
and XYZ does not depend on its size. Rejected views are left out, as they are from a dataset. Prints, for each group and
for all of them, coverage per layer, quartiles of layer 0, and mean and deviation of XYZ over all forward-filled layers,
beside the paper's and the release's. `--set name=value` tries another setting, such as `--set fov_mode=54.2`.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from render import RenderSettings, load, procedural, render_views
from render.load import SUFFIXES
from render.mesh import Mesh, Rejected
from render.settings import settings_of
from shards import LayeredView, Origin
from shards.moments import RELEASED, Moments, moments_of
from shards.summary import PAPER_COVERAGE

PAPER_QUANTILES = {25: 3.92, 50: 6.21, 75: 10.56, 90: 16.19}  # % of pixels in layer 0, Table 5


@dataclass
class Group:
    """Coverage (L,) of every view in shares, and moments of its XYZ."""

    coverage: list[np.ndarray] = field(default_factory=list)
    moments: Moments = field(default_factory=Moments)
    assets: int = 0

    def add(self, view: LayeredView) -> None:
        self.coverage.append(np.array([np.mean(view.hits > l) for l in range(view.layers)]))
        self.moments.merge(moments_of(view.hits, view.depth, view.K))

    def merge(self, other: "Group") -> None:
        self.coverage += other.coverage
        self.moments.merge(other.moments)
        self.assets += other.assets

    def row(self) -> str:
        shares = 100 * np.array(self.coverage)
        quantiles = np.percentile(shares[:, 0], list(PAPER_QUANTILES))
        return _row(shares.mean(axis=0), quantiles, self.moments.mean, self.moments.std)


def _row(coverage: np.ndarray, quantiles: np.ndarray, mean: np.ndarray, std: np.ndarray) -> str:
    parts = [(coverage, "{:6.2f}"), (quantiles, "{:6.2f}"), (mean, "{:7.3f}"), (std, "{:6.3f}")]
    return " | ".join("".join(form.format(x) for x in values) for values, form in parts)


def assets(folders: list[Path], objects: int, actors: int) -> Iterator[tuple[str, str, Mesh]]:
    """(group, name, mesh) of everything that loads."""
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
            try:
                yield folder.name, str(path.relative_to(folder)), load(path)
            except Rejected as error:
                print(f"left out: {path.relative_to(folder)}: {error}", file=sys.stderr)
    for kind, count in (("objects", objects), ("actors", actors)):
        for index in range(count):
            yield f"procedural {kind}", f"{kind} {index}", procedural.make(kind, 0, index)


def measure(found: Iterator[tuple[str, str, Mesh]], settings: RenderSettings) -> tuple[dict[str, Group], int]:
    """A group for each name, and how many views were rejected."""
    groups: dict[str, Group] = {}
    rejected = 0
    for group, name, mesh in found:
        origin = Origin(name, "benchmark", sha256(name.encode()).hexdigest())
        try:
            rendered = render_views(mesh, origin, settings)
        except Rejected as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
            continue
        here = groups.setdefault(group, Group())
        here.assets += 1
        rejected += len(rendered.rejected)
        for view in rendered.samples:
            assert isinstance(view, LayeredView)
            here.add(view)
    return groups, rejected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--objects", type=int, default=50)
    parser.add_argument("--actors", type=int, default=10)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, its value as JSON")
    chosen = parser.parse_args()
    for folder in chosen.folders:
        if not folder.is_dir():
            parser.error(f"{folder} is no folder")
    changes = {name: json.loads(value) for name, _, value in (item.partition("=") for item in chosen.set)}
    small = {"height": chosen.size, "width": chosen.size, "samples": 1, "shadows": False, "texture_limit": 64}
    try:
        settings = settings_of({"views": chosen.views, "seed": chosen.seed, "backend": "cpu", **small, **changes})
    except (ValueError, TypeError) as error:
        parser.error(str(error))

    start = time.perf_counter()
    groups, rejected = measure(assets(chosen.folders, chosen.objects, chosen.actors), settings)
    everything = Group()
    for group in groups.values():
        everything.merge(group)
    if not everything.coverage:
        sys.exit("no view was rendered: give a folder of assets, or --objects 1")
    layers = "".join(f"{f'L{l}':>6}" for l in range(settings.layers))
    head = "".join(f"{f'P{q}':>6}" for q in PAPER_QUANTILES)
    axes = "".join(f"{a:>7}" for a in "xyz") + " | " + "".join(f"{a:>6}" for a in "xyz")
    print(f"{'coverage %, mean XYZ, deviation of XYZ':40} {layers} | {head} | {axes}")
    for name, group in groups.items():
        print(f"{name + f': {group.assets} assets, {len(group.coverage)} views':40} {group.row()}")
    print(f"{f'all: {everything.assets} assets, {len(everything.coverage)} views':40} {everything.row()}")
    paper = np.array((*PAPER_COVERAGE, *[np.nan] * settings.layers)[: settings.layers])
    released = [np.array(RELEASED[name]) for name in ("mean", "std")]
    print(f"{'paper, release':40} {_row(paper, np.array(list(PAPER_QUANTILES.values())), *released)}")
    print(f"{rejected} views rejected, seed {settings.seed}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
