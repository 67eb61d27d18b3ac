"""Mip levels of a texture in Warp: integers only, so that every machine makes the same ones."""

# mypy: ignore-errors
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly.
import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def half(
    source: wp.array2d(dtype=wp.uint32),
    srgb: int,
    weighted: int,
    to_16: wp.array(dtype=wp.uint32),
    to_8: wp.array(dtype=wp.uint8),
    out: wp.array2d(dtype=wp.uint32),
):
    """A texel is the mean of 2x2, or of 2 where the image is one texel high or wide."""
    j, i = wp.tid()
    rows = wp.min(source.shape[0], 2)
    columns = wp.min(source.shape[1], 2)
    count = wp.uint32(rows * columns)
    alpha = wp.uint32(0)
    plain = wp.vec3ui(wp.uint32(0), wp.uint32(0), wp.uint32(0))
    mixed = wp.vec3ui(wp.uint32(0), wp.uint32(0), wp.uint32(0))
    for y in range(rows):
        for x in range(columns):
            word = source[2 * j + y, 2 * i + x]
            r = word & wp.uint32(255)
            g = (word >> wp.uint32(8)) & wp.uint32(255)
            b = (word >> wp.uint32(16)) & wp.uint32(255)
            a = word >> wp.uint32(24)
            value = wp.vec3ui(r, g, b) * wp.uint32(257)
            if srgb == 1:
                value = wp.vec3ui(to_16[int(r)], to_16[int(g)], to_16[int(b)])
            alpha = alpha + a
            plain = plain + value
            mixed = mixed + value * a
    for c in range(3):
        mean = (plain[c] + count / wp.uint32(2)) / count
        if weighted == 1 and alpha > wp.uint32(0):
            mean = mixed[c] / alpha
        byte = (mean + wp.uint32(128)) / wp.uint32(257)
        if srgb == 1:
            byte = wp.uint32(to_8[int(mean)])
        plain[c] = byte
    share = (alpha + count / wp.uint32(2)) / count
    out[j, i] = plain[0] | (plain[1] << wp.uint32(8)) | (plain[2] << wp.uint32(16)) | (share << wp.uint32(24))
