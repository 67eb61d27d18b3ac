"""Deferred shading where materials are cut out or clear, in Warp: front to back over the hits of each sample."""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# float(0.0) there declares a variable that a loop may change.
import warp as wp

from render.fragment_kernels import OPTIONS, Scene, View, meet, plane_of, ray_of, slope_of
from render.keys import EMPTY, triangle_of
from render.light_kernels import Lighting
from render.material_kernels import alpha_at, alpha_of, radiance

CLEAR = 1.0 / 255.0  # what is behind less than this share of transmission is not looked at

wp.set_module_options(OPTIONS)

_CLEAR = wp.constant(CLEAR)
_BELOW_HALF, _HALF = wp.constant(127.0 / 255.0), wp.constant(128.0 / 255.0)


@wp.kernel
def shade_tested(
    scene: Scene,
    views: wp.array(dtype=View),
    light: Lighting,
    keys: wp.array3d(dtype=wp.uint64),
    width: int,
    side: int,
    out: wp.array3d(dtype=wp.float32),
):
    """Where materials are cut out or clear: front to back over the hits of each sample."""
    b, pixel = wp.tid()
    v = pixel / width
    u = pixel - v * width
    samples = side * side
    across = width * side
    color = wp.vec4(0.0, 0.0, 0.0, 0.0)
    cover = float(0.0)
    for k in range(samples):
        y = v * side + k / side
        x = u * side + k % side
        ray = ray_of(views[b], x, y)
        through = float(1.0)
        solid = int(0)
        sent = wp.vec4(0.0, 0.0, 0.0, 0.0)
        for s in range(keys.shape[1]):
            key = keys[b, s, y * across + x]
            if key == EMPTY:
                break
            if through <= _CLEAR and solid == 1:
                break
            f = plane_of(scene, views[b].eye, triangle_of(key))
            slope = slope_of(f, ray)
            bary = meet(f, ray, slope)
            alpha = alpha_at(scene, f, bary)
            if alpha > 0.0:
                sent = sent + radiance(scene, views[b], light, b, f, ray, slope, bary) * (through * alpha)
                through = through * (1.0 - alpha)
                if alpha >= 0.5:
                    solid = int(1)
        alpha = 1.0 - through
        if alpha > 0.0:
            capped = wp.min(alpha, _BELOW_HALF)
            if solid == 1:
                capped = wp.max(alpha, _HALF)
            color = color + sent * (capped / wp.max(alpha, 1.0e-6))
            cover = cover + capped
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
