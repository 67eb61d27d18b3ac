"""How fast is the peel on one CPU thread, against Open3D and Embree, and what does it depend on?

    OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/peel_peers.py [ASSETS_FOLDER] [--turns 5] [--quick]

Wanted: 10 times Open3D's list_intersections and 15 times re-cast Embree, each the median over the real assets. One
varies at a time: the size of the image, the triangles, the layers; then what is in view (a forest, dozens of hits a
pixel; a room, whose walls are two triangles each), then real assets (mesh loaded by `render.load`).

All run in this process on one thread, in turns, and what counts is the CPU time of the process (median of the turns),
so that what else the machine does falls on none, and on all alike where it takes caches and memory. Acceleration
structures are built beforehand, ours has none to build; the camera moves by a hair at every turn, so that nothing
projected is used again. `peel` is depth, triangle and facing of the whole image as arrays; `keys` is what the renderer
takes: the 64-bit keys of the window that the mesh covers. Open3D lists all hits of every ray whatever the layers, in no
order. Embree is cast again from behind each hit, with triangles and without (`STEP` in peers.py); the faster way
counts, and robust mode, which is slower still, is off. What they take for the rays of the window alone, which a peer
would first have to know, comes last.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from peers import Case, embree_hits, forest, nested_spheres, open3d_hits, pixel_rays, real_asset, room

from render.hits import EMPTY
from render.load import SUFFIXES
from render.peel import Scene

NAMES = ("open3d", "embree", "embree depth", "open3d window", "embree window", "peel", "keys")
SHORT = ("open3d", "embree", "its depth", "o3d windw", "emb windw", "peel", "keys")
RATIOS = (
    "open3d / peel",
    "embree / peel",
    "open3d / keys",
    "embree / keys",
    "open3d window / keys",
    "embree window / keys",
)


def ours(case: Case, size: int, layers: int) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """Peel of the whole image into arrays -> its depth; keys of the window. The camera moves a hair between calls."""
    scene = Scene(case.vertices, case.faces, "cpu")
    moved = np.eye(4)

    def whole() -> np.ndarray:
        moved[2, 3] += 1e-9
        return scene.peel(case.K, size, size, layers, 1e-3, moved).numpy().depth

    def window() -> np.ndarray:
        moved[2, 3] += 1e-9
        K, pose = case.K[None], moved[None]
        row, column, height, width = scene.windows(K, pose, size, size)[0].tolist()
        if height == 0:
            return np.zeros(0, np.uint64)
        return scene.keys(K, pose, height, width, layers, 1e-3, np.array([[row, column]])).numpy()

    return whole, window


def count(found: np.ndarray) -> int:
    return int((found != np.uint64(EMPTY)).sum()) if found.dtype == np.uint64 else int(np.isfinite(found).sum())


def compare(case: Case, size: int, layers: int, turns: int) -> tuple[dict[str, float], dict[str, int]]:
    """Median over the turns of the seconds of CPU, and the hits, of each of NAMES."""
    rays = pixel_rays(case.K, (0, 0, size, size))
    box = Scene(case.vertices, case.faces, "cpu").windows(case.K[None], np.eye(4)[None], size, size)[0].tolist()
    part = pixel_rays(case.K, tuple(box)) if box[2] else rays[:1]
    runs: list[Callable[[], np.ndarray]] = [
        open3d_hits(case, rays),
        embree_hits(case, rays, layers, triangles=True),
        embree_hits(case, rays, layers, triangles=False),
        open3d_hits(case, part),
        embree_hits(case, part, layers, triangles=False),
        *ours(case, size, layers),
    ]
    hits = {name: count(run()) for name, run in zip(NAMES, runs)}  # also warms up
    took: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(turns):
        for name, run in zip(NAMES, runs):
            start = time.process_time()
            run()
            took[name].append(time.process_time() - start)
    return {name: float(np.median(values)) for name, values in took.items()}, hits


def line(label: str, case: Case, size: int, layers: int, turns: int) -> tuple[float, ...]:
    """Prints a row; returns the ratios of RATIOS."""
    took, hits = compare(case, size, layers, turns)
    assert hits["peel"] == hits["keys"], "the window holds every hit"
    embree = min(took["embree"], took["embree depth"])
    whole, window = took["peel"], took["keys"]
    ratios = (
        took["open3d"] / whole,
        embree / whole,
        took["open3d"] / window,
        embree / window,
        took["open3d window"] / window,
        took["embree window"] / window,
    )
    ms = "".join(f" {1e3 * took[name]:9.1f}" for name in NAMES)
    found = f"{len(case.faces):8d} {hits['peel']:9d} {hits['embree']:9d} {hits['open3d']:9d}"
    print(f"{label[-34:]:34s} {found}  {ms}  {''.join(f' {ratio:6.1f}' for ratio in ratios)}", flush=True)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path, nargs="?", help="real assets, if the folder is given")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--size", type=int, default=504)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--most", type=int, default=1_000_000, help="skip assets of more faces")
    parser.add_argument("--match", default="", help="only assets whose path contains this")
    parser.add_argument("--quick", action="store_true", help="real assets only")
    arguments = parser.parse_args()
    size, layers, turns = arguments.size, arguments.layers, arguments.turns

    print(f"{'':34s} {'':8s} hits of {'':22s} ms of {'':65s} times as fast: peel; keys; keys, their windows")
    print(
        f"{'':34s} {'faces':>8s} {'peel':>9s} {'embree':>9s} {'open3d':>9s}  {''.join(f' {n:>9s}' for n in SHORT)}"
        f"     o3d   embr    o3d   embr    o3d   embr"
    )
    if not arguments.quick:
        for other in (128, 256, 504, 1008):
            line(f"image {other}", nested_spheres(5, other), other, layers, turns)
        for subdivisions in (2, 3, 4, 5, 6, 7):
            case = nested_spheres(subdivisions, size)
            line(f"triangles {len(case.faces)}", case, size, layers, turns)
        for slots in (1, 6, 12):
            line(f"spheres, {slots} layers", nested_spheres(5, size), size, slots, turns)
        for slots in (1, 6, 12):
            line(f"forest, {slots} layers", forest(size), size, slots, turns)
        for slots in (1, 6, 12):
            line(f"room, {slots} layers", room(size), size, slots, turns)
    if arguments.assets is None:
        return
    ratios: list[tuple[float, ...]] = []
    for path in sorted(p for p in arguments.assets.rglob("*") if p.suffix.lower() in SUFFIXES):
        if arguments.match not in str(path):
            continue
        case = real_asset(path, size, arguments.most)
        name = str(path.relative_to(arguments.assets))
        if isinstance(case, str):
            print(f"{name[-34:]:34s} skipped: {case}")
            continue
        ratios.append(line(name, case, size, layers, turns))
    for name, column in zip(RATIOS, np.array(ratios).T):
        print(f"{name}: median {np.median(column):.1f} x, least {column.min():.1f} x, most {column.max():.1f} x")


if __name__ == "__main__":
    main()
