"""From linear light to bytes, in Warp: sums for the exposure, and the encoding by a table of thresholds."""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# int(0) there declares a variable that a branch may change, and `and` does not spare what is to the right of it.
import warp as wp

from render.fragment_kernels import OPTIONS

wp.set_module_options(OPTIONS)

# Fixed point: a sum of integers is the same in any order. 2^16 (a larger value counts as that) of 2^24 steps each leave
# room for 2^23 pixels a view.
STEPS = 2.0**24
MOST = 2.0**16
_HALF = wp.constant(128.0 / 255.0)
_STEPS, _MOST = wp.constant(wp.float64(STEPS)), wp.constant(MOST)


@wp.kernel
def meter(image: wp.array3d(dtype=wp.float32), threads: int, sums: wp.array2d(dtype=wp.int64)):
    """sums (B,2): alpha and irradiance of image (B,pixels,5), in fixed point; `threads` a view, which take turns."""
    b, start = wp.tid()
    alpha = wp.int64(0)
    light = wp.int64(0)
    pixel = int(start)
    while pixel < image.shape[1]:
        a = image[b, pixel, 3]
        if a > 0.0:
            alpha = alpha + wp.int64(wp.float64(a) * _STEPS + wp.float64(0.5))
            e = image[b, pixel, 4]
            if e > 0.0:
                light = light + wp.int64(wp.float64(wp.min(e, _MOST)) * _STEPS + wp.float64(0.5))
        pixel = pixel + threads
    wp.atomic_add(sums, b, 0, alpha)
    wp.atomic_add(sums, b, 1, light)


@wp.func
def byte_of(thresholds: wp.array(dtype=wp.float32), x: float):
    """How many of the 255 ascending thresholds are <= x: eight steps of bisection, no pow that devices round apart."""
    low = int(0)
    if x >= thresholds[127]:
        low = 128
    if x >= thresholds[low + 63]:
        low = low + 64
    if x >= thresholds[low + 31]:
        low = low + 32
    if x >= thresholds[low + 15]:
        low = low + 16
    if x >= thresholds[low + 7]:
        low = low + 8
    if x >= thresholds[low + 3]:
        low = low + 4
    if x >= thresholds[low + 1]:
        low = low + 2
    if x >= thresholds[low]:
        low = low + 1
    return wp.uint32(low)


@wp.func
def byte_of_alpha(alpha: float):
    return int(alpha * 255.0 + 0.5)


@wp.kernel
def develop(
    image: wp.array3d(dtype=wp.float32),
    exposures: wp.array(dtype=wp.float32),
    thresholds: wp.array(dtype=wp.float32),
    hits: wp.array2d(dtype=wp.uint8),
    holds: int,
    out: wp.array2d(dtype=wp.uint32),
    moved: wp.array2d(dtype=wp.int32),
):
    """moved (B,3): pixels where alpha was not on the side of A, for A = 1, for A = 0, and where it was 0 or 255."""
    b, pixel = wp.tid()
    alpha = image[b, pixel, 3]
    word = wp.uint32(0)
    a = byte_of_alpha(alpha)
    held = a
    if holds == 1:
        if hits[b, pixel] == wp.uint8(0):
            held = wp.min(a, 127)
        else:
            held = wp.max(a, 128)
        if held != a:
            wp.atomic_add(moved, b, wp.where(held > a, 0, 1), 1)
            if a == 0 or a == 255:
                wp.atomic_add(moved, b, 2, 1)
    if a > 0:
        scale = exposures[b] / alpha
        word = byte_of(thresholds, image[b, pixel, 0] * scale)
        word = word | (byte_of(thresholds, image[b, pixel, 1] * scale) << wp.uint32(8))
        word = word | (byte_of(thresholds, image[b, pixel, 2] * scale) << wp.uint32(16))
        word = word | (wp.uint32(held) << wp.uint32(24))
    out[b, pixel] = word


@wp.kernel
def missed(image: wp.array3d(dtype=wp.float32), hits: wp.array2d(dtype=wp.uint8), out: wp.array(dtype=wp.int32)):
    """out (B,): pixels whose centre meets a surface and to whose samples alpha is still 0."""
    b, pixel = wp.tid()
    if hits[b, pixel] > wp.uint8(0) and byte_of_alpha(image[b, pixel, 3]) == 0:
        wp.atomic_add(out, b, 1)


@wp.kernel
def fill(image: wp.array3d(dtype=wp.float32), centres: wp.array3d(dtype=wp.float32), hits: wp.array2d(dtype=wp.uint8)):
    """Give those pixels what is at their centres (B,pixels,5), as if it covered half of them."""
    b, pixel = wp.tid()
    if hits[b, pixel] > wp.uint8(0) and byte_of_alpha(image[b, pixel, 3]) == 0:
        share = _HALF / wp.max(centres[b, pixel, 3], _HALF)
        for channel in range(5):
            image[b, pixel, channel] = centres[b, pixel, channel] * share
