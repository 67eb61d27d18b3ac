"""The keys of `render.hits` inside Warp kernels."""

# mypy: ignore-errors
# Warp compiles these functions as its own language, whose scalars Python's type checker reads wrongly.
import warp as wp

from render import hits

wp.set_module_options({"fuse_fp": False, "fast_math": False, "enable_backward": False})

EMPTY = wp.constant(wp.uint64(hits.EMPTY))


@wp.func
def key_of(depth: wp.float32, triangle: wp.int32, back: wp.uint64) -> wp.uint64:
    bits = wp.uint64(wp.cast(depth, wp.uint32))
    return (bits << wp.uint64(33)) | (wp.uint64(triangle) << wp.uint64(1)) | back


@wp.func
def depth_of(key: wp.uint64) -> wp.float32:
    return wp.cast(wp.uint32(key >> wp.uint64(33)), wp.float32)


@wp.func
def triangle_of(key: wp.uint64) -> wp.int32:
    return wp.int32(wp.uint32(key & wp.uint64(0xFFFFFFFF)) >> wp.uint32(1))


@wp.func
def is_back(key: wp.uint64) -> wp.bool:
    return (key & wp.uint64(1)) != wp.uint64(0)
