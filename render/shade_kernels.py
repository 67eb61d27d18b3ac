"""Deferred shading in Warp, for CPU and CUDA from one source; `shade_numpy` is its twin, formula by formula.

One thread a pixel of a view: it shades the side x side samples of the pixel and writes their mean.
"""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046, SIM102
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# int(0) there declares a variable that a loop may change, and `and` does not spare what is to the right of it.
import warp as wp

from render.fragment_kernels import OPTIONS, Scene, View, meet, plane_of, ray_of, slope_of
from render.keys import EMPTY, triangle_of
from render.light_kernels import Lighting
from render.material_kernels import alpha_at, alpha_of, radiance

CLEAR = 1.0 / 255.0  # what is behind less than this share of transmission is not looked at

wp.set_module_options(OPTIONS)

_CLEAR = wp.constant(CLEAR)
_BELOW_HALF, _HALF = wp.constant(127.0 / 255.0), wp.constant(128.0 / 255.0)


@wp.func
def place_of_sample(pixel: int, k: int, width: int, side: int):
    """Row and column of sample k of a pixel among the samples of a window `width` pixels wide."""
    v = pixel / width
    row = k / side
    return v * side + row, (pixel - v * width) * side + k - row * side


@wp.func
def next_hit(keys: wp.array3d(dtype=wp.uint64), b: int, pixel: int, start: int, width: int, side: int):
    """The first of the samples start .. side * side - 1 of a pixel that hits something, side * side where none does."""
    k = int(start)
    while k < side * side:
        y, x = place_of_sample(pixel, k, width, side)
        if keys[b, 0, y * width * side + x] != EMPTY:
            break
        k += 1
    return k


@wp.kernel
def shade(
    scene: Scene,
    views: wp.array(dtype=View),
    light: Lighting,
    keys: wp.array3d(dtype=wp.uint64),
    width: int,
    side: int,
    out: wp.array3d(dtype=wp.float32),
):
    """Hit by hit, front to back in a sample and from sample to sample. What lies on one triangle and follows each other
    shares its plane; and as there is one call of `radiance`, it is inlined, where each call would copy the scene."""
    b, pixel = wp.tid()
    samples = side * side
    slots = keys.shape[1]
    color = wp.vec4(0.0, 0.0, 0.0, 0.0)
    cover = float(0.0)
    sent = wp.vec4(0.0, 0.0, 0.0, 0.0)
    through = float(1.0)
    solid = int(0)
    s = int(0)
    k = next_hit(keys, b, pixel, 0, width, side)
    while k < samples:
        y, x = place_of_sample(pixel, k, width, side)
        triangle = triangle_of(keys[b, s, y * width * side + x])
        f = plane_of(scene, views[b].eye, triangle)
        same = int(1)
        while same == 1:
            y, x = place_of_sample(pixel, k, width, side)
            ray = ray_of(views[b], x, y)
            slope = slope_of(f, ray)
            bary = meet(f, ray, slope)
            alpha = alpha_at(scene, f, bary)
            if alpha > 0.0:
                sent = sent + radiance(scene, views[b], light, b, f, ray, slope, bary) * (through * alpha)
                through = through * (1.0 - alpha)
                if alpha >= 0.5:
                    solid = int(1)
            s += 1
            done = int(1)
            if s < slots and (through > _CLEAR or solid == 0):
                if keys[b, s, y * width * side + x] != EMPTY:
                    done = int(0)
            if done == 1:
                alpha = 1.0 - through
                capped = wp.where(solid == 1, wp.max(alpha, _HALF), wp.min(alpha, _BELOW_HALF))
                if alpha > 0.0:
                    color = color + sent * (capped / wp.max(alpha, 1.0e-6))
                    cover = cover + capped
                sent = wp.vec4(0.0, 0.0, 0.0, 0.0)
                through = float(1.0)
                solid = int(0)
                s = int(0)
                k = next_hit(keys, b, pixel, k + 1, width, side)
            same = int(0)
            if k < samples:
                y, x = place_of_sample(pixel, k, width, side)
                if triangle_of(keys[b, s, y * width * side + x]) == triangle:
                    same = int(1)
    mean = 1.0 / float(samples)
    out[b, pixel, 0] = color[0] * mean
    out[b, pixel, 1] = color[1] * mean
    out[b, pixel, 2] = color[2] * mean
    out[b, pixel, 3] = cover * mean
    out[b, pixel, 4] = color[3] * mean


@wp.kernel
def unresolved(
    scene: Scene,
    views: wp.array(dtype=View),
    keys: wp.array3d(dtype=wp.uint64),
    width: int,
    out: wp.array(dtype=wp.int32),
):
    """One thread a sample: whether its slots are full and what is behind the last one would still be seen."""
    b, pixel = wp.tid()
    slots = keys.shape[1]
    if keys[b, slots - 1, pixel] == EMPTY:
        return
    v = pixel / width
    ray = ray_of(views[b], pixel - v * width, v)
    through = float(1.0)
    solid = int(0)
    for s in range(slots):
        if through > _CLEAR or solid == 0:
            alpha = alpha_of(scene, views[b], triangle_of(keys[b, s, pixel]), ray)
            through = through * (1.0 - alpha)
            if alpha >= 0.5:
                solid = int(1)
    if through > _CLEAR or solid == 0:
        out[b] = 1  # of many threads that write, all write this
