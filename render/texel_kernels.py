"""Mip levels of a texture in Warp: integers only, so that every machine makes the same ones."""

# mypy: ignore-errors
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# int(0) there declares a variable that a loop may change.
import warp as wp

wp.set_module_options({"enable_backward": False})

_ODD_BYTES = wp.constant(wp.uint32(0x00FF00FF))
_TWO = wp.constant(wp.uint32(0x00020002))


@wp.func
def byte(word: wp.uint32, channel: int):
    return (word >> wp.uint32(8 * channel)) & wp.uint32(255)


@wp.func
def mean_of_four(a: wp.uint32, b: wp.uint32, c: wp.uint32, d: wp.uint32):
    """Of each byte, rounded half up; two bytes at a time, each with room for a sum of four."""
    even = (a & _ODD_BYTES) + (b & _ODD_BYTES) + (c & _ODD_BYTES) + (d & _ODD_BYTES) + _TWO
    odd = ((a >> wp.uint32(8)) & _ODD_BYTES) + ((b >> wp.uint32(8)) & _ODD_BYTES)
    odd = odd + ((c >> wp.uint32(8)) & _ODD_BYTES) + ((d >> wp.uint32(8)) & _ODD_BYTES) + _TWO
    return ((even >> wp.uint32(2)) & _ODD_BYTES) | (((odd >> wp.uint32(2)) & _ODD_BYTES) << wp.uint32(8))


@wp.func
def linear_mean(
    a: wp.uint32,
    b: wp.uint32,
    c: wp.uint32,
    d: wp.uint32,
    channel: int,
    to_16: wp.array(dtype=wp.uint32),
    to_8: wp.array(dtype=wp.uint8),
):
    total = to_16[int(byte(a, channel))] + to_16[int(byte(b, channel))]
    total = total + to_16[int(byte(c, channel))] + to_16[int(byte(d, channel))]
    return wp.uint32(to_8[int((total + wp.uint32(2)) >> wp.uint32(2))]) << wp.uint32(8 * channel)


@wp.func
def mean(
    words: wp.array(dtype=wp.uint32),
    at: int,
    width: int,
    rows: int,
    columns: int,
    srgb: int,
    weighted: int,
    to_16: wp.array(dtype=wp.uint32),
    to_8: wp.array(dtype=wp.uint8),
):
    """Of rows x columns texels, each 1 or 2, the first of them at `at`: linear in light, and in alpha if `weighted`."""
    count = wp.uint32(rows * columns)
    alpha = wp.uint32(0)
    plain = wp.vec3ui(wp.uint32(0), wp.uint32(0), wp.uint32(0))
    mixed = wp.vec3ui(wp.uint32(0), wp.uint32(0), wp.uint32(0))
    for y in range(rows):
        for x in range(columns):
            word = words[at + y * width + x]
            r = byte(word, 0)
            g = byte(word, 1)
            b = byte(word, 2)
            a = byte(word, 3)
            value = wp.vec3ui(r, g, b) * wp.uint32(257)
            if srgb == 1:
                value = wp.vec3ui(to_16[int(r)], to_16[int(g)], to_16[int(b)])
            alpha = alpha + a
            plain = plain + value
            mixed = mixed + value * a
    result = ((alpha + count / wp.uint32(2)) / count) << wp.uint32(24)
    for c in range(3):
        level = (plain[c] + count / wp.uint32(2)) / count
        if weighted == 1 and alpha > wp.uint32(0):
            level = mixed[c] / alpha
        shade = (level + wp.uint32(128)) / wp.uint32(257)
        if srgb == 1:
            shade = wp.uint32(to_8[int(level)])
        result = result | (shade << wp.uint32(8 * c))
    return result


@wp.func
def halve_row(
    words: wp.array(dtype=wp.uint32),
    first: int,
    height: int,
    width: int,
    row: int,
    srgb: int,
    weighted: int,
    to_16: wp.array(dtype=wp.uint32),
    to_8: wp.array(dtype=wp.uint8),
):
    """Row `row` of the level that follows the one of height x width texels at `first`."""
    columns = wp.min(width, 2)
    rows = wp.min(height, 2)
    half = wp.max(width / 2, 1)
    source = first + row * rows * width
    target = first + height * width + row * half
    plain = rows * columns == 4 and weighted == 0
    for i in range(half):
        at = source + i * columns
        if plain:
            a = words[at]
            b = words[at + 1]
            c = words[at + width]
            d = words[at + width + 1]
            word = mean_of_four(a, b, c, d)
            if srgb == 1:
                word = word & wp.uint32(0xFF000000)
                word = word | linear_mean(a, b, c, d, 0, to_16, to_8)
                word = word | linear_mean(a, b, c, d, 1, to_16, to_8)
                word = word | linear_mean(a, b, c, d, 2, to_16, to_8)
            words[target + i] = word
        else:
            words[target + i] = mean(words, at, width, rows, columns, srgb, weighted, to_16, to_8)


@wp.kernel
def halve(
    words: wp.array(dtype=wp.uint32),
    first: int,
    height: int,
    width: int,
    srgb: int,
    weighted: int,
    to_16: wp.array(dtype=wp.uint32),
    to_8: wp.array(dtype=wp.uint8),
):
    """The next level, written behind the one of height x width texels at `first`; one thread a row of it."""
    halve_row(words, first, height, width, wp.tid(), srgb, weighted, to_16, to_8)


@wp.kernel
def finish(
    words: wp.array(dtype=wp.uint32),
    first: int,
    height: int,
    width: int,
    srgb: int,
    weighted: int,
    to_16: wp.array(dtype=wp.uint32),
    to_8: wp.array(dtype=wp.uint8),
):
    """All levels behind the one at `first`, in one thread: small ones take less time than their launches would."""
    at = int(first)
    h = int(height)
    w = int(width)
    while h > 1 or w > 1:
        for row in range(wp.max(h / 2, 1)):
            halve_row(words, at, h, w, row, srgb, weighted, to_16, to_8)
        at = at + h * w
        h = wp.max(h / 2, 1)
        w = wp.max(w / 2, 1)
