"""How fast is the peel on one CPU thread, against Open3D's RaycastingScene.list_intersections on one thread?

    OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/peel_speed.py [--size 504] [--layers 6] [--repeats 9]

Three nested icospheres of 82K triangles each fill half of the image. Both run in this process, in turns, so that what
else the machine does falls on both; the figure is the ratio of the medians. Open3D's acceleration structure and rays
are built beforehand; ours is timed whole (`render.peel` on NumPy arrays), as a view of a scene already loaded, and as
the renderer calls it (`Scene.windows`, then `Scene.keys` in that window). No two calls in a row have the same camera,
for the scene would not project the mesh again.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import open3d as o3d
import trimesh

from render.peel import Scene, peel


def nested_spheres(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions)
    count = len(sphere.vertices)
    vertices = np.concatenate([sphere.vertices * radius for radius in (1.0, 0.7, 0.4)]) + [0.0, 0.0, 3.0]
    return vertices, np.concatenate([sphere.faces + i * count for i in range(3)])


def pixel_rays(K: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H*W,6) origins and directions with d_z = 1, so that Open3D's t is z."""
    v, u = np.mgrid[:height, :width] + 0.5
    d = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3) @ np.linalg.inv(K).T
    return np.concatenate([np.zeros_like(d), d], axis=1).astype(np.float32)


def windowed_keys(scene: Scene, K: np.ndarray, size: int, slots: int) -> object:
    """Keys of the part of a size x size image that the mesh, in camera coordinates, can cover."""
    pose = np.eye(4)[None]
    row, column, height, width = scene.windows(K[None], pose, size, size)[0]
    return scene.keys(K[None], pose, max(height, 1), max(width, 1), slots, origins=np.array([[row, column]]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=504)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--subdivisions", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    size, layers = arguments.size, arguments.layers

    vertices, faces = nested_spheres(arguments.subdivisions)
    focal = size / 2 / np.tan(np.pi / 8)
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    theirs = o3d.t.geometry.RaycastingScene(nthreads=1)
    theirs.add_triangles(vertices.astype(np.float32), faces.astype(np.uint32))
    rays = o3d.core.Tensor(pixel_rays(K, size, size))
    ours = Scene(vertices, faces, "cpu")
    beside = K + np.array([[0, 0, 1e-6], [0, 0, 0], [0, 0, 0]])

    candidates: dict[str, Callable[[], object]] = {
        "open3d list_intersections": lambda: theirs.list_intersections(rays, nthreads=1),
        "peel (arrays in, arrays out)": lambda: peel(vertices, faces, K, size, size, layers, backend="cpu"),
        "Scene.peel (mesh loaded)": lambda: ours.peel(K, size, size, layers),
        "Scene.keys (in its window)": lambda: windowed_keys(ours, beside, size, layers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(arguments.repeats + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(times[1:])) for name, times in seconds.items()}  # the first turn warms up

    total = len(theirs.list_intersections(rays, nthreads=1)["t_hit"].numpy())
    print(f"{len(faces)} triangles, {size} x {size}, {layers} layers, median of {arguments.repeats}")
    print(f"hits: open3d {total}, peel {int((ours.peel(K, size, size, layers).numpy().triangle >= 0).sum())}")
    baseline = medians["open3d list_intersections"]
    for name, median in medians.items():
        print(f"{name:30s} {median * 1e3:8.1f} ms  {baseline / median:6.2f} x")


if __name__ == "__main__":
    main()
