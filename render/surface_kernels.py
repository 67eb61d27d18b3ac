"""From the raw hits of a pixel to its surfaces, in Warp: alpha test, merge and forward fill in one walk over the slots.

`surfaces.compact`, `surfaces.merge_coincident` and `shards.contract.forward_fill` are the slow twins, to the last bit.
"""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046, SIM102
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# int(0) there declares a variable that a branch may change, and `and` does not spare what is to the right of it.
import warp as wp

from render.fragment_kernels import OPTIONS, Scene, View, ray_of
from render.keys import EMPTY, depth_of, is_back, triangle_of
from render.material_kernels import alpha_of

wp.set_module_options(OPTIONS)


@wp.kernel
def surfaces(
    scene: Scene,
    views: wp.array(dtype=View),
    keys: wp.array3d(dtype=wp.uint64),
    width: int,
    tolerance: wp.float64,
    relative: wp.float64,
    layers: int,
    depth: wp.array3d(dtype=wp.float32),
    hits: wp.array2d(dtype=wp.uint8),
    facing: wp.array3d(dtype=wp.int8),
    starved: wp.array(dtype=wp.int32),
):
    """One thread a pixel; every array is written everywhere but `starved`, which must come as zeros."""
    b, pixel = wp.tid()
    slots = keys.shape[1]
    kept = int(0)
    z = wp.float32(0.0)
    if keys[b, 0, pixel] != EMPTY:
        v = pixel / width
        ray = ray_of(views[b], pixel - v * width, v)
        last_front = wp.float64(-wp.inf)
        last_back = wp.float64(-wp.inf)
        for s in range(slots):
            if kept == layers:
                break
            key = keys[b, s, pixel]
            if key == EMPTY:
                break
            solid = int(1)
            if scene.tested == 1:
                if alpha_of(scene, views[b], triangle_of(key), ray) < 0.5:
                    solid = int(0)
            if solid == 1:
                here = depth_of(key)
                far = wp.float64(here)
                nearest = wp.min(far - tolerance, far * (wp.float64(1.0) - relative))
                back = is_back(key)
                last = last_front
                if back:
                    last = last_back
                if nearest >= last:
                    side = wp.int8(1)
                    if back:
                        last_back = far
                        side = wp.int8(-1)
                    else:
                        last_front = far
                    depth[b, kept, pixel] = here
                    facing[b, kept, pixel] = side
                    z = here
                    kept = kept + 1
        if kept < layers and keys[b, slots - 1, pixel] != EMPTY:
            wp.atomic_add(starved, b, 1)
    hits[b, pixel] = wp.uint8(kept)
    for s in range(kept, layers):
        depth[b, s, pixel] = z
        facing[b, s, pixel] = wp.int8(0)


@wp.kernel
def first_depth(
    scene: Scene,
    views: wp.array(dtype=View),
    keys: wp.array3d(dtype=wp.uint64),
    width: int,
    depth: wp.array2d(dtype=wp.float32),
    starved: wp.array(dtype=wp.int32),
):
    """`starved`, which must come as zeros, counts the pixels whose slots are all full of what is no surface."""
    b, pixel = wp.tid()
    slots = keys.shape[1]
    z = wp.float32(wp.inf)
    key = keys[b, 0, pixel]
    if key != EMPTY:
        if scene.tested == 0:
            z = depth_of(key)
        else:
            v = pixel / width
            ray = ray_of(views[b], pixel - v * width, v)
            for s in range(slots):
                key = keys[b, s, pixel]
                if key == EMPTY:
                    break
                if alpha_of(scene, views[b], triangle_of(key), ray) >= 0.5:
                    z = depth_of(key)
                    break
            if z == wp.inf and key != EMPTY:
                wp.atomic_add(starved, b, 1)
    depth[b, pixel] = z
