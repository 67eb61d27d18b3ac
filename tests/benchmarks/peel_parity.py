"""Do the peel and Open3D's RaycastingScene.list_intersections find the same hits on real assets?

    python tests/benchmarks/peel_parity.py ASSETS_FOLDER [--size 504] [--slots 64] [--speed-only]

Each asset (loaded by trimesh as one mesh, longest side 1, seen from 1.9 away) is peeled with slots to spare. Open3D
drops some hits of coincident faces, so hits closer than 1e-5 of z are merged on both sides. Wanted: equal hit counts at
99.99 % of the pixels of every asset, and depths within 1e-5 of z where the counts agree.

"differ" counts the pixels whose counts differ, each side merged by itself; exits 1 if an asset misses by these. Merging
has a threshold, and where two sheets lie just 1e-5 apart the rounding of either side decides: "truly" explains them, by
counting those that still differ when both lists are merged together, so that a group of close hits is met by one side
only. Speed is the ratio of the medians of `--turns` turns in this process, one thread each, without Open3D's
acceleration structure: "peel" is `Scene.peel`, whole images in arrays; "keys" is what the renderer calls,
`Scene.windows` and `Scene.keys`. `--speed-only` leaves out the parity, which takes most of the time.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import open3d as o3d
import trimesh
from peel_speed import windowed_keys
from peers import MERGED, merged

from render.peel import Scene

SUFFIXES = {".glb", ".gltf", ".obj", ".ply", ".stl"}


def load(path: Path, most: int) -> tuple[np.ndarray, np.ndarray] | str:
    """Camera-frame vertices (V,3) float32 and faces (F,3), or why not."""
    try:
        mesh = trimesh.load(path, force="mesh", process=False)
    except Exception as error:
        return f"not loaded: {type(error).__name__}"
    faces = np.asarray(getattr(mesh, "faces", np.zeros((0, 3))), dtype=np.int64)
    if not 0 < len(faces) <= most:
        return f"{len(faces)} faces"
    used = mesh.vertices[np.unique(faces)]
    if not np.isfinite(used).all() or np.ptp(used, axis=0).max() == 0:
        return "no extent"
    vertices = (mesh.vertices - (used.min(axis=0) + used.max(axis=0)) / 2) / np.ptp(used, axis=0).max()
    turn = trimesh.transformations.euler_matrix(np.pi - 0.35, 0.6, 0.05)[:3, :3]
    return (vertices @ turn.T + [0, 0, 1.9]).astype(np.float32), faces


def open3d_depth(scene: o3d.t.geometry.RaycastingScene, rays: o3d.core.Tensor, focal: float, slots: int) -> np.ndarray:
    """The hits of every ray as (slots,P), sorted."""
    found = scene.list_intersections(rays, nthreads=1)
    ray, z = found["ray_ids"].numpy().astype(np.int64), found["t_hit"].numpy() * np.float32(focal)
    order = np.lexsort((z, ray))
    ray, z = ray[order], z[order]
    rank = np.arange(len(ray)) - np.searchsorted(ray, ray)
    depth = np.full((slots, rays.shape[0]), np.inf, np.float32)
    depth[rank[rank < slots], ray[rank < slots]] = z[rank < slots]
    return depth


def meet_apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pixels (P,) bool where, with both lists (S,P) merged together, some group holds hits of one side only."""
    depth = np.concatenate([a, b])
    order = np.argsort(depth, axis=0, kind="stable")
    depth, is_ours = np.take_along_axis(depth, order, axis=0), order < len(a)
    apart = np.zeros(depth.shape[1], dtype=bool)
    for pixel in range(depth.shape[1]):
        z = depth[np.isfinite(depth[:, pixel]), pixel]
        group = np.concatenate([[0], np.cumsum(np.diff(z) >= MERGED * z[:-1])])
        sides = is_ours[: len(z), pixel]
        apart[pixel] = set(group[sides]) != set(group[~sides])
    return apart


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path)
    parser.add_argument("--size", type=int, default=504)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--most", type=int, default=1_000_000, help="skip assets of more faces")
    parser.add_argument("--match", default="", help="only paths that contain this")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--speed-only", action="store_true")
    arguments = parser.parse_args()
    size, slots = arguments.size, arguments.slots

    focal = float(round(size / 2 / np.tan(np.radians(19))))
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    v, u = np.mgrid[:size, :size] + 0.5
    # Open3D takes float32: these directions, focal times K^-1 (u, v, 1), are exact there, and z = focal * t.
    d = np.stack([u - size / 2, v - size / 2, np.full_like(u, focal)], axis=-1).reshape(-1, 3)
    rays = o3d.core.Tensor(np.concatenate([np.zeros_like(d), d], axis=1).astype(np.float32))

    parity = "" if arguments.speed_only else f"  differ truly  equal % {'|dz|/z':>8s}"
    print(f"{'asset':40s} {'faces':>7s} {'hits':>8s} {'most':>4s} {'open3d':>9s} {'peel':>7s} {'keys':>7s}{parity}")
    passed: list[bool] = []
    truly_passed: list[bool] = []
    ratios: list[np.ndarray] = []
    beside = K + np.array([[0, 0, 1e-6], [0, 0, 0], [0, 0, 0]])  # for a scene does not project twice what is the same
    for path in sorted(p for p in arguments.assets.rglob("*") if p.suffix.lower() in SUFFIXES):
        if arguments.match not in str(path):
            continue
        name = str(path.relative_to(arguments.assets))[-40:]
        loaded = load(path, arguments.most)
        if isinstance(loaded, str):
            print(f"{name:40s} skipped: {loaded}")
            continue
        vertices, faces = loaded
        theirs = o3d.t.geometry.RaycastingScene(nthreads=1)
        theirs.add_triangles(vertices, faces.astype(np.uint32))
        ours = Scene(vertices, faces, "cpu")
        times = []
        for _ in range(arguments.turns + 1):
            start = time.perf_counter()
            theirs.list_intersections(rays, nthreads=1)
            second = time.perf_counter()
            ours.peel(K, size, size, 6)
            third = time.perf_counter()
            windowed_keys(ours, beside, size, 6)
            times.append((second - start, third - second, time.perf_counter() - third))
        medians = np.median(times[1:], axis=0)  # the first turn warms up
        ratios.append(medians[0] / medians[1:])
        a = ours.peel(K, size, size, slots).numpy().depth.reshape(slots, -1)
        hits = np.isfinite(a).sum(axis=0)
        line = f"{name:40s} {len(faces):7d} {int(hits.sum()):8d} {int(hits.max()):4d} {medians[0] * 1e3:6.1f} ms"
        line += "".join(f" {ratio:6.1f}x" for ratio in ratios[-1])
        if arguments.speed_only:
            print(line, flush=True)
            continue
        b = open3d_depth(theirs, rays, focal, slots)
        ours_merged, theirs_merged = merged(a), merged(b)
        differ = np.isfinite(ours_merged).sum(axis=0) != np.isfinite(theirs_merged).sum(axis=0)
        truly = int(meet_apart(a[:, differ], b[:, differ]).sum())
        same = np.isfinite(ours_merged) & ~differ
        z, other = ours_merged[same], theirs_merged[same]
        error = float((np.abs(z - other) / other).max()) if len(z) else 0.0
        passed.append(bool(differ.mean() <= 1e-4 and error <= 1e-5))
        truly_passed.append(truly <= 1e-4 * differ.size and error <= 1e-5)
        line += f"  {int(differ.sum()):6d} {truly:5d} {100 * (1 - differ.mean()):8.4f} {error:8.1e}"
        print(line + ("" if passed[-1] else "  MISSES"), flush=True)
    if not arguments.speed_only:
        print(f"{sum(passed)} of {len(passed)} assets pass")
        print(
            f"explanation: {sum(truly_passed)} would if both lists were merged together, where rounding cannot decide"
        )
    for what, column in zip(("peel", "keys"), np.transpose(ratios), strict=True):
        print(f"speed of {what}: median {np.median(column):.1f} x, least {column.min():.1f} x")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
