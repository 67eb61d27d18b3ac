"""How well does the alpha of the image agree with A, the mask of the layers, on real assets?

    OMP_NUM_THREADS=1 python tests/benchmarks/alpha_agreement.py ASSETS_FOLDER [--views 4] [--size 504] [--samples 2]

Wanted: an IoU of alpha > 0.5 and A of 0.99 or more for every view at 2x2 samples a pixel, and equality at one sample.
A is sampled at pixel centres, and at 2x2 no sample is there; where they contradict each other, this says why:

  edge   of the pixels that disagree, those beside the outline of a part that is thicker than a pixel (A survives
         an erosion within one pixel): the rounding of a smooth outline, a share of its length
  thin   all others: parts that no 3 x 3 pixels of A hold, thinner than about a pixel or two (rigging, leaves)
  glass  of the pixels that disagree, those of A = 0 and alpha > 0.5, where the scene holds BLEND: panes add up

The three are shares of the disagreeing pixels; glass overlaps the other two. `geometry` is the least IoU of A with the
plain majority of the same samples (a tie goes to A), for assets where alpha cuts nothing away: what any renderer has
that averages those samples. Exits 1 if a view misses.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np

import render
from render import Mesh, Rejected, RenderSettings, render_views
from render.layer_faces import vertices_of
from render.load import SUFFIXES
from render.peel import Scene
from shards import LayeredView, Origin

WANTED = 0.99


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(int((a | b).sum()), 1))


def neighbourhood(mask: np.ndarray) -> np.ndarray:
    """The 9 shifted copies (9,H,W) of mask (H,W), False beyond its edges."""
    padded = np.pad(mask, 1)
    h, w = mask.shape
    return np.stack([padded[dv : dv + h, du : du + w] for dv in range(3) for du in range(3)])


def near_thick(valid: np.ndarray) -> np.ndarray:
    """(H,W) bool: pixels of A that some 3 x 3 block of A holds, and their neighbours."""
    core = neighbourhood(valid).all(axis=0)
    opened = neighbourhood(core).any(axis=0)
    return neighbourhood(opened).any(axis=0)


def majority(mesh: Mesh, view: LayeredView, samples: int, near: float) -> np.ndarray:
    """(H,W) bool: most samples of the pixel meet a triangle, or half of them and A; alpha of materials is not asked."""
    height, width = view.size
    pose = np.eye(4)
    pose[:3, :3] = view.world_from_camera[:3, :3].T
    pose[:3, 3] = -pose[:3, :3] @ view.world_from_camera[:3, 3]
    K = np.diag([samples, samples, 1.0]) @ view.K
    hits = Scene(vertices_of(mesh, view), mesh.faces, "cpu").peel(K, height * samples, width * samples, 1, near, pose)
    met = (hits.numpy().triangle[0] >= 0).reshape(height, samples, width, samples)
    share = met.mean(axis=(1, 3))
    return (share > 0.5) | ((share == 0.5) & view.valid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", type=int, default=504)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--match", default="", help="only paths that contain this")
    parser.add_argument("--all", action="store_true", help="a line for every asset, not only for those that miss")
    arguments = parser.parse_args()
    settings = RenderSettings(
        views=arguments.views, height=arguments.size, width=arguments.size, samples=arguments.samples, backend="cpu"
    )
    ious: list[float] = []
    bounds: list[float] = []
    paths = [p for p in sorted(arguments.assets.rglob("*")) if p.suffix.lower() in SUFFIXES]
    print(f"{'asset':44s} {'IoU of each view':32s} {'geometry':>8s}  disagree: edge  thin  glass")
    for path in paths:
        name = str(path.relative_to(arguments.assets))
        if arguments.match not in name:
            continue
        try:
            mesh = render.load(path)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            rendered = render_views(mesh, Origin(name, "folder", sha256), settings)
        except Rejected as error:
            if arguments.all:
                print(f"{name[-44:]:44s} rejected: {error.reason}")
            continue
        of_asset, bound, counts = [], [], np.zeros(4)
        opaque = all(m.alpha_mode == "OPAQUE" for m in mesh.materials)
        for view in rendered.samples:
            assert isinstance(view, LayeredView)
            shown, valid = view.rgba[..., 3] > 127, view.valid
            of_asset.append(iou(shown, valid))
            if opaque:
                bound.append(iou(majority(mesh, view, settings.samples, settings.near), valid))
            wrong = shown != valid
            edge = wrong & near_thick(valid)
            glass = wrong & shown & any(m.alpha_mode == "BLEND" for m in mesh.materials)
            counts += [wrong.sum(), edge.sum(), (wrong & ~edge).sum(), glass.sum()]
        ious += of_asset
        bounds += bound
        if of_asset and (arguments.all or min(of_asset) < WANTED):
            share = counts[1:] / max(counts[0], 1)
            print(
                f"{name[-44:]:44s} {' '.join(f'{x:.4f}' for x in of_asset):32s} {min(bound, default=np.nan):8.4f}  "
                f"{int(counts[0]):8d}: {share[0]:4.2f}  {share[1]:4.2f}  {share[2]:5.2f}",
                flush=True,
            )
    low, n = np.array(ious), len(ious)
    print(
        f"{int((low >= WANTED).sum())} of {n} views have an IoU of {WANTED} or more at {settings.samples} x "
        f"{settings.samples}; median {np.median(low):.4f}, least {low.min():.4f}, equal {int((low == 1).sum())}"
    )
    print(f"geometry alone: {int((np.array(bounds) >= WANTED).sum())} of {len(bounds)} views of opaque assets")
    return 0 if (low >= (WANTED if settings.samples > 1 else 1.0)).all() else 1


if __name__ == "__main__":
    sys.exit(main())
