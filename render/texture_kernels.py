"""Reading textures in Warp: UV sets and transforms, wrap modes, bilinear texels, and which mip levels a pixel needs."""

# mypy: ignore-errors
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly.
import warp as wp

from render import texels as tx
from render.fragment_kernels import OPTIONS, Plane, Scene

wp.set_module_options(OPTIONS)

_WIDTH, _HEIGHT, _COUNT, _WRAP_S, _WRAP_T = map(
    wp.constant, (tx.WIDTH, tx.HEIGHT, tx.LEVEL_COUNT, tx.WRAP_S, tx.WRAP_T)
)
_UV_SET, _SRGB, _WEIGHTED, _LEVELS = map(wp.constant, (tx.UV_SET, tx.SRGB, tx.WEIGHTED, tx.LEVELS))
_REPEAT, _CLAMP = wp.constant(tx.REPEAT), wp.constant(tx.CLAMP)
_LEAST_WEIGHT = wp.constant(tx.LEAST_WEIGHT)


@wp.struct
class Place:
    """Where a sample reads a texture: (u, v) after the transform, and what a pixel to the right and one down add."""

    at: wp.vec2
    right: wp.vec2
    down: wp.vec2


@wp.func
def folded(x: float, mode: int):
    """x in one period of its wrap mode, so that no coordinate is too large for an integer texel."""
    if mode == _CLAMP:
        return wp.clamp(x, -1.0, 2.0)
    if mode == _REPEAT:
        return x - wp.floor(x)
    return x - 2.0 * wp.floor(0.5 * x)


@wp.func
def wrapped(i: int, size: int, mode: int):
    """Texel i, at most one beyond the period that `folded` leaves, brought into 0 .. size - 1."""
    if mode == _REPEAT:
        if i < 0:
            return i + size
        if i >= size:
            return i - size
        return i
    if mode == _CLAMP:
        return wp.clamp(i, 0, size - 1)
    if i >= size:
        return wp.max(2 * size - 1 - i, 0)
    return wp.max(i, 0)


@wp.func
def corner_uv(scene: Scene, t: int, vertex: int):
    """(u, v) of a vertex for texture t, before the transform."""
    if scene.texture_int[t, _UV_SET] == 1:
        return scene.uv1[vertex]
    return scene.uv[vertex]


@wp.func
def turned(scene: Scene, t: int, d: wp.vec2):
    """The linear part of the transform of texture t."""
    return wp.vec2(
        scene.texture_uv[t, 0] * d[0] + scene.texture_uv[t, 1] * d[1],
        scene.texture_uv[t, 3] * d[0] + scene.texture_uv[t, 4] * d[1],
    )


@wp.func
def place_of(scene: Scene, t: int, f: Plane, b: wp.vec2, b_x: wp.vec2, b_y: wp.vec2):
    a = corner_uv(scene, t, f.face[0])
    d1 = corner_uv(scene, t, f.face[1]) - a
    d2 = corner_uv(scene, t, f.face[2]) - a
    place = Place()
    move = wp.vec2(scene.texture_uv[t, 2], scene.texture_uv[t, 5])
    place.at = turned(scene, t, a + d1 * b[0] + d2 * b[1]) + move
    place.right = turned(scene, t, d1 * b_x[0] + d2 * b_x[1])
    place.down = turned(scene, t, d1 * b_y[0] + d2 * b_y[1])
    return place


@wp.func
def bilinear(scene: Scene, t: int, at: wp.vec2, level: int):
    """Linear RGB, and alpha as stored."""
    width = wp.max(scene.texture_int[t, _WIDTH] >> level, 1)
    height = wp.max(scene.texture_int[t, _HEIGHT] >> level, 1)
    first = scene.texture_int[t, _LEVELS + level]
    wrap_s = scene.texture_int[t, _WRAP_S]
    wrap_t = scene.texture_int[t, _WRAP_T]
    table = scene.texture_int[t, _SRGB] * 256
    x = folded(at[0], wrap_s) * float(width) - 0.5
    y = folded(at[1], wrap_t) * float(height) - 0.5
    left = wp.floor(x)
    top = wp.floor(y)
    x = x - left
    y = y - top
    i0 = wrapped(int(left), width, wrap_s)
    i1 = wrapped(int(left) + 1, width, wrap_s)
    j0 = first + wrapped(int(top), height, wrap_t) * width
    j1 = first + wrapped(int(top) + 1, height, wrap_t) * width
    w00 = (1.0 - x) * (1.0 - y)
    w10 = x * (1.0 - y)
    w01 = (1.0 - x) * y
    w11 = x * y
    c00 = scene.texels[j0 + i0]
    c10 = scene.texels[j0 + i1]
    c01 = scene.texels[j1 + i0]
    c11 = scene.texels[j1 + i1]
    a00 = scene.decode[int(c00 >> wp.uint32(24))]
    a10 = scene.decode[int(c10 >> wp.uint32(24))]
    a01 = scene.decode[int(c01 >> wp.uint32(24))]
    a11 = scene.decode[int(c11 >> wp.uint32(24))]
    alpha = a00 * w00 + a10 * w10 + a01 * w01 + a11 * w11
    if scene.texture_int[t, _WEIGHTED] == 1:
        w00 = w00 * wp.max(a00, _LEAST_WEIGHT)
        w10 = w10 * wp.max(a10, _LEAST_WEIGHT)
        w01 = w01 * wp.max(a01, _LEAST_WEIGHT)
        w11 = w11 * wp.max(a11, _LEAST_WEIGHT)
        total = w00 + w10 + w01 + w11
        w00 = w00 / total
        w10 = w10 / total
        w01 = w01 / total
        w11 = w11 / total
    color = decoded(scene, table, c00) * w00 + decoded(scene, table, c10) * w10
    color = color + decoded(scene, table, c01) * w01 + decoded(scene, table, c11) * w11
    return wp.vec4(color[0], color[1], color[2], alpha)


@wp.func
def decoded(scene: Scene, table: int, word: wp.uint32):
    return wp.vec3(
        scene.decode[table + int(word & wp.uint32(255))],
        scene.decode[table + int((word >> wp.uint32(8)) & wp.uint32(255))],
        scene.decode[table + int((word >> wp.uint32(16)) & wp.uint32(255))],
    )


@wp.func
def finest_alpha(scene: Scene, t: int, f: Plane, b: wp.vec2):
    """Alpha on level 0, bilinear: the layers and every sample of the image must agree on where a surface is."""
    a = corner_uv(scene, t, f.face[0])
    at = a + (corner_uv(scene, t, f.face[1]) - a) * b[0] + (corner_uv(scene, t, f.face[2]) - a) * b[1]
    move = wp.vec2(scene.texture_uv[t, 2], scene.texture_uv[t, 5])
    texel = bilinear(scene, t, turned(scene, t, at) + move, 0)
    return texel[3]


@wp.func
def sample(scene: Scene, t: int, place: Place):
    """Two mip levels, mixed by where the footprint lies between their texels: the shorter side of the pixel in texels
    of level 0, or half of the longer one if that is more, for at grazing angles the samples of a pixel hide the
    aliasing that this leaves, and floors stay sharp."""
    width = float(scene.texture_int[t, _WIDTH])
    height = float(scene.texture_int[t, _HEIGHT])
    right = wp.vec2(place.right[0] * width, place.right[1] * height)
    down = wp.vec2(place.down[0] * width, place.down[1] * height)
    p = wp.dot(right, right)
    q = wp.dot(down, down)
    squared = wp.max(wp.min(p, q), 0.25 * wp.max(p, q))
    if not squared > 1.0:  # also where it is not a number
        return bilinear(scene, t, place.at, 0)
    bits = wp.cast(wp.sqrt(squared), wp.uint32)  # exponent and mantissa: 2^low (1 + share)
    low = int(bits >> wp.uint32(23)) - 127
    top = scene.texture_int[t, _COUNT] - 1
    if low >= top:
        return bilinear(scene, t, place.at, top)
    share = float(bits & wp.uint32(0x7FFFFF)) * 1.1920929e-07
    return bilinear(scene, t, place.at, low) * (1.0 - share) + bilinear(scene, t, place.at, low + 1) * share
