"""Deferred shading where every hit is a surface, in Warp, for CPU and CUDA; `shade_numpy` is its twin.

One thread a pixel of a view: it shades the side x side samples of the pixel and writes their mean. `blend_kernels` does
it where materials are cut out or clear; apart from this, for a function that one kernel of a module calls is inlined.
"""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# int(0) there declares a variable that a loop may change.
import warp as wp

from render.fragment_kernels import OPTIONS, Scene, View, meet, plane_of, ray_of, slope_of
from render.keys import EMPTY, triangle_of
from render.light_kernels import Lighting
from render.material_kernels import radiance

wp.set_module_options(OPTIONS)


@wp.kernel
def shade_opaque(
    scene: Scene,
    views: wp.array(dtype=View),
    light: Lighting,
    keys: wp.array3d(dtype=wp.uint64),
    width: int,
    side: int,
    out: wp.array3d(dtype=wp.float32),
):
    """Where every hit is a surface: the first hit of each sample. Neighbours on one triangle share its plane."""
    b, pixel = wp.tid()
    v = pixel / width
    u = pixel - v * width
    samples = side * side
    across = width * side
    color = wp.vec4(0.0, 0.0, 0.0, 0.0)
    hits = int(0)
    k = int(0)
    while k < samples:
        y = v * side + k / side
        x = u * side + k % side
        key = keys[b, 0, y * across + x]
        k = k + 1
        if key != EMPTY:
            triangle = triangle_of(key)
            f = plane_of(scene, views[b].eye, triangle)
            same = int(1)
            while same == 1:
                ray = ray_of(views[b], x, y)
                slope = slope_of(f, ray)
                color = color + radiance(scene, views[b], light, b, f, ray, slope, meet(f, ray, slope))
                hits = hits + 1
                same = int(0)
                if k < samples:
                    y = v * side + k / side
                    x = u * side + k % side
                    key = keys[b, 0, y * across + x]
                    if key != EMPTY and triangle_of(key) == triangle:
                        same = int(1)
                        k = k + 1
    mean = 1.0 / float(samples)
    out[b, pixel, 0] = color[0] * mean
    out[b, pixel, 1] = color[1] * mean
    out[b, pixel, 2] = color[2] * mean
    out[b, pixel, 3] = float(hits) * mean
    out[b, pixel, 4] = color[3] * mean
