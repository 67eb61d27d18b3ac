"""How many whole views does one core make in a second, where does the time go, and what does OpenGL on the CPU do?

    OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/views.py ASSETS_FOLDER [--views 4] [--turns 3]

Wanted: 8 whole views of 504 x 504 (six layers, 2 x 2 samples, shadows, encoded) a second and core, on assets of at
most 100K triangles. A view is all of `render_views` and `shards.encode`, with what it takes to prepare the mesh spread
over its views; loading the file is not in it. Seconds are those of CPU of this process, whose one thread does all the
work, so that other work on the machine falls on none; of the turns of an asset the one of the median time counts.

Where pyrender finds an OpenGL (EGL, or OSMesa with PYOPENGL_PLATFORM=osmesa), it renders colour and depth of the same
views of the same mesh in turns with ours, on one thread if the driver is Mesa's (LP_NUM_THREADS=0 is set here): one
grey material instead of textures, the lights without their shadows, 4 samples a pixel, layer 0 only.
"""

import argparse
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("LP_NUM_THREADS", "0")  # before OpenGL is loaded: llvmpipe draws in the calling thread
os.environ.setdefault("PYOPENGL_PLATFORM", "egl")

import numpy as np

import render
import shards
from render import Mesh, Rejected, RenderSettings
from render.layer_faces import vertices_of
from render.load import SUFFIXES
from render.normals import face_normals
from render.views import Rendered
from shards import LayeredView, Origin

ALIKE = ("peel", "shade", "develop")  # what pyrender does as well; it has no shadows here, and encodes nothing


class Gl:
    """pyrender's off-screen renderer of one size."""

    def __init__(self, size: int) -> None:
        if not hasattr(np, "infty"):  # pyrender 0.1.45 says it, NumPy 2 has dropped it
            np.infty = np.inf  # type: ignore[attr-defined]  # noqa: NPY201
        import pyrender
        from OpenGL.GL import GL_RENDERER, glGetString

        self.pyrender: Any = pyrender
        self.renderer = pyrender.OffscreenRenderer(size, size)
        empty = pyrender.Scene()
        empty.add(pyrender.PerspectiveCamera(1.0))
        self.renderer.render(empty)
        self.name = glGetString(GL_RENDERER).decode()

    def of(self, mesh: Mesh, views: list[LayeredView]) -> Callable[[], None]:
        """Renders colour and depth of all views; the mesh stays on the device between calls."""
        p = self.pyrender
        vertices = vertices_of(mesh, views[0])
        normals = mesh.normals
        if normals is None:  # flat: every face with corners of its own
            normals = np.repeat(face_normals(vertices, mesh.faces), 3, axis=0)
            vertices, faces = vertices[mesh.faces.reshape(-1)], np.arange(3 * len(mesh.faces)).reshape(-1, 3)
        else:
            faces = mesh.faces
        grey = p.MetallicRoughnessMaterial(baseColorFactor=(0.6, 0.6, 0.6, 1.0), doubleSided=True)
        primitive = p.Primitive(vertices.astype(np.float32), normals.astype(np.float32), indices=faces, material=grey)
        scenes = []
        drawn = p.Mesh([primitive])
        for view in views:
            scene = p.Scene(ambient_light=(0.3, 0.3, 0.3))
            scene.add(drawn)
            K = view.K
            camera = p.IntrinsicsCamera(K[0, 0], K[1, 1], K[0, 2], K[1, 2], znear=1e-2, zfar=1e2)
            scene.add(camera, pose=view.world_from_camera @ np.diag([1.0, -1.0, -1.0, 1.0]))
            for _ in view.info["light"]["lights"]:
                scene.add(p.DirectionalLight(intensity=3.0), pose=view.world_from_camera)
            scenes.append(scene)

        def run() -> None:
            for scene in scenes:
                self.renderer.render(scene)

        return run


def gl_or_none(size: int) -> Gl | None:
    try:
        return Gl(size)
    except Exception as error:  # whatever the loader of OpenGL raises where there is no driver
        print(f"pyrender is left out: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        return None


def timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of CPU, seconds on the wall, and the result."""
    start, wall = time.process_time(), time.perf_counter()
    result = run()
    return time.process_time() - start, time.perf_counter() - wall, result


def whole(mesh: Mesh, origin: Origin, settings: RenderSettings) -> tuple[float, dict[str, float], Rendered, int]:
    """Seconds a view, seconds of each stage a view, what was rendered, and bytes a view."""
    seconds, wall, rendered = timed(lambda: render.render_views(mesh, origin, settings))
    if not rendered.samples:
        raise Rejected(rendered.rejected[0][1], rendered.rejected[0][2])
    encode, _, encoded = timed(lambda: [shards.encode(sample) for sample in rendered.samples])
    # A refused view costs nearly what a kept one does. Stages are clocked on the wall.
    stages = {name: value * seconds / wall / settings.views for name, value in rendered.seconds.items()}
    stages["rest"] = seconds / settings.views - sum(stages.values())
    stages["encode"] = encode / len(encoded)
    size = sum(len(data) for sample in encoded for data in sample.members.values()) // len(encoded)
    return sum(stages.values()), stages, rendered, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", type=int, default=504)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--most", type=int, default=100_000, help="skip assets of more faces")
    parser.add_argument("--regime", default="object", choices=["object", "scene"])
    parser.add_argument("--match", default="", help="only assets whose path contains this")
    arguments = parser.parse_args()
    size = arguments.size
    settings = RenderSettings(
        views=arguments.views,
        height=size,
        width=size,
        layers=arguments.layers,
        regime=arguments.regime,
        backend="cpu",
    )
    gl = gl_or_none(size)
    if gl is not None:
        print(f"OpenGL: {gl.name}")

    per_view: list[float] = []
    ratios: list[float] = []
    alike: list[float] = []
    stages_of_all: Counter[str] = Counter()
    print(
        f"{'asset':34s} {'faces':>7s} {'cover':>6s} {'KB':>5s} {'ms/view':>8s} {'views/s':>7s} {'GL':>6s}  stages, ms"
    )
    for path in sorted(p for p in arguments.assets.rglob("*") if p.suffix.lower() in SUFFIXES):
        name = str(path.relative_to(arguments.assets))[-34:]
        if arguments.match not in str(path):
            continue
        try:
            mesh = render.load(path)
            if len(mesh.faces) > arguments.most:
                print(f"{name:34s} skipped: {len(mesh.faces)} faces")
                continue
            origin = Origin(path.stem, "folder", hashlib.sha256(path.read_bytes()).hexdigest())
            _, _, rendered, _ = whole(mesh, origin, settings)  # warms up
        except Rejected as error:
            print(f"{name:34s} skipped: {error.reason}")
            continue
        views = [sample for sample in rendered.samples if isinstance(sample, LayeredView)]
        draw = None if gl is None else gl.of(mesh, views)
        if draw is not None:
            draw()  # uploads
        turns, theirs = [], []
        for _ in range(arguments.turns):
            turns.append(whole(mesh, origin, settings))
            if draw is not None:
                theirs.append(timed(draw)[0] / len(views))
        seconds, stages, _, size_of = sorted(turns, key=lambda turn: turn[0])[len(turns) // 2]
        per_view.append(seconds)
        stages_of_all.update(stages)
        against = ""
        if theirs:
            ratios.append(float(np.median([t / turn[0] for t, turn in zip(theirs, turns)])))
            alike.append(float(np.median([t / sum(turn[1][s] for s in ALIKE) for t, turn in zip(theirs, turns)])))
            against = f"{ratios[-1]:5.2f}x"
        shown = " ".join(f"{stage} {1e3 * value:.1f}" for stage, value in stages.items() if value >= 5e-4)
        cover = 100 * float(np.mean([view.valid.mean() for view in views]))
        print(
            f"{name:34s} {len(mesh.faces):7d} {cover:5.1f}% {size_of / 1024:5.0f} {1e3 * seconds:8.1f} "
            f"{1 / seconds:7.1f} {against:>6s}  {shown}",
            flush=True,
        )
    if not per_view:
        return
    array = np.array(per_view)
    mean = {stage: value / len(array) for stage, value in stages_of_all.items()}
    print(f"stages, mean ms a view: {', '.join(f'{stage} {1e3 * value:.1f}' for stage, value in mean.items())}")
    print(
        f"{len(array)} assets: median {1 / np.median(array):.1f} views a second, over all {1 / array.mean():.1f}, "
        f"slowest {1 / array.max():.1f}; {int((array <= 1 / 8).sum())} of {len(array)} make 8 or more"
    )
    if ratios:
        print(
            f"pyrender's colour and layer 0 take {np.median(ratios):.2f} x the time of our whole view (median), and "
            f"{np.median(alike):.2f} x that of our {', '.join(ALIKE)}, with all layers"
        )


if __name__ == "__main__":
    main()
