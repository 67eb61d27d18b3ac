"""Reading textures in Warp: UV sets and transforms, wrap modes, bilinear texels, and which mip levels a pixel needs."""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# int(0) there declares a variable that a loop may change.
import warp as wp

from render import texels as tx
from render.fragment_kernels import OPTIONS, Level, Plane, Scene, Texture, least, most, within

wp.set_module_options(OPTIONS)

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
        return within(x, -1.0, 2.0)
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


@wp.struct
class Quad:
    """The four texels around a point, as words and with their weights; x and y lead from c00 to c10 and c01."""

    c00: wp.uint32
    c10: wp.uint32
    c01: wp.uint32
    c11: wp.uint32
    w00: wp.float32
    w10: wp.float32
    w01: wp.float32
    w11: wp.float32
    x: wp.float32
    y: wp.float32


@wp.struct
class Corners:
    """(u, v) of a triangle's first corner, before the transform, and what it changes along the edges."""

    at: wp.vec2
    d1: wp.vec2
    d2: wp.vec2


@wp.func
def corners_of(scene: Scene, texture: Texture, f: Plane):
    c = Corners()
    c.at = f.uv
    c.d1 = f.uv_1
    c.d2 = f.uv_2
    if texture.second == 1:
        c.at = scene.uv1[f.face[0]]
        c.d1 = scene.uv1[f.face[1]] - c.at
        c.d2 = scene.uv1[f.face[2]] - c.at
    return c


@wp.func
def turned(texture: Texture, d: wp.vec2):
    """The linear part of the texture's transform."""
    u = texture.row_u
    v = texture.row_v
    return wp.vec2(u[0] * d[0] + u[1] * d[1], v[0] * d[0] + v[1] * d[1])


@wp.func
def place_of(scene: Scene, texture: Texture, f: Plane, b: wp.vec2, b_x: wp.vec2, b_y: wp.vec2):
    c = corners_of(scene, texture, f)
    place = Place()
    place.at = turned(texture, c.at + c.d1 * b[0] + c.d2 * b[1]) + wp.vec2(texture.row_u[2], texture.row_v[2])
    place.right = turned(texture, c.d1 * b_x[0] + c.d2 * b_x[1])
    place.down = turned(texture, c.d1 * b_y[0] + c.d2 * b_y[1])
    return place


@wp.func
def quad_at(scene: Scene, texture: Texture, level: Level, at: wp.vec2):
    x = folded(at[0], texture.wrap_s) * float(level.width) - 0.5
    y = folded(at[1], texture.wrap_t) * float(level.height) - 0.5
    left = wp.floor(x)
    top = wp.floor(y)
    q = Quad()
    x = x - left
    y = y - top
    q.x = x
    q.y = y
    i0 = wrapped(int(left), level.width, texture.wrap_s)
    i1 = wrapped(int(left) + 1, level.width, texture.wrap_s)
    j0 = level.first + wrapped(int(top), level.height, texture.wrap_t) * level.width
    j1 = level.first + wrapped(int(top) + 1, level.height, texture.wrap_t) * level.width
    q.c00 = scene.texels[(j0 + i0) & 0x7FFFFFFF]
    q.c10 = scene.texels[(j0 + i1) & 0x7FFFFFFF]
    q.c01 = scene.texels[(j1 + i0) & 0x7FFFFFFF]
    q.c11 = scene.texels[(j1 + i1) & 0x7FFFFFFF]
    q.w11 = x * y
    q.w10 = x - q.w11
    q.w01 = y - q.w11
    q.w00 = 1.0 - x - q.w01
    return q


@wp.func
def alpha_byte(scene: Scene, word: wp.uint32):
    return scene.decode[int(word >> wp.uint32(24))]


@wp.func
def finest_alpha(scene: Scene, texture: Texture, f: Plane, b: wp.vec2):
    """Alpha on level 0, bilinear: the layers and every sample of the image must agree on where a surface is."""
    nothing = wp.vec2(0.0, 0.0)
    place = place_of(scene, texture, f, b, nothing, nothing)
    q = quad_at(scene, texture, scene.levels[texture.levels], place.at)
    # Step by step from one to the next, for weights do not add up to exactly 1: what is one alpha everywhere must be
    # that alpha, which may be the cutoff.
    a = alpha_byte(scene, q.c00)
    a += (alpha_byte(scene, q.c10) - a) * q.x
    c = alpha_byte(scene, q.c01)
    c += (alpha_byte(scene, q.c11) - c) * q.x
    return a + (c - a) * q.y


@wp.func
def decoded(scene: Scene, table: wp.uint32, word: wp.uint32):
    """Values of the three colour bytes. An index that cannot be negative is not looked at twice: hence the last mask,
    here and where texels are read."""
    return wp.vec3(
        scene.decode[int((table | (word & wp.uint32(255))) & wp.uint32(511))],
        scene.decode[int((table | ((word >> wp.uint32(8)) & wp.uint32(255))) & wp.uint32(511))],
        scene.decode[int((table | ((word >> wp.uint32(16)) & wp.uint32(255))) & wp.uint32(511))],
    )


@wp.func
def bilinear(scene: Scene, texture: Texture, level: Level, at: wp.vec2):
    """Linear RGB."""
    q = quad_at(scene, texture, level, at)
    if texture.weighted == 1:
        q.w00 = q.w00 * most(alpha_byte(scene, q.c00), _LEAST_WEIGHT)
        q.w10 = q.w10 * most(alpha_byte(scene, q.c10), _LEAST_WEIGHT)
        q.w01 = q.w01 * most(alpha_byte(scene, q.c01), _LEAST_WEIGHT)
        q.w11 = q.w11 * most(alpha_byte(scene, q.c11), _LEAST_WEIGHT)
        share = 1.0 / (q.w00 + q.w10 + q.w01 + q.w11)
        q.w00 = q.w00 * share
        q.w10 = q.w10 * share
        q.w01 = q.w01 * share
        q.w11 = q.w11 * share
    table = wp.uint32(texture.table)
    front = decoded(scene, table, q.c00) * q.w00 + decoded(scene, table, q.c10) * q.w10
    return front + decoded(scene, table, q.c01) * q.w01 + decoded(scene, table, q.c11) * q.w11


@wp.func
def sample(scene: Scene, t: int, f: Plane, b: wp.vec2, b_x: wp.vec2, b_y: wp.vec2):
    """Two mip levels, mixed by where the footprint lies between their texels: the shorter side of the pixel in texels
    of level 0, or half of the longer one if that is more, for at grazing angles the samples of a pixel hide the
    aliasing that this leaves, and floors stay sharp."""
    texture = scene.textures[t]
    place = place_of(scene, texture, f, b, b_x, b_y)
    right = wp.vec2(place.right[0] * texture.width, place.right[1] * texture.height)
    down = wp.vec2(place.down[0] * texture.width, place.down[1] * texture.height)
    p = wp.dot(right, right)
    q = wp.dot(down, down)
    squared = most(least(p, q), 0.25 * most(p, q))
    level = int(0)
    share = float(0.0)
    if squared > 1.0:  # not where it is not a number
        # 4^level is the power of four below it: an address that need not wait for the root
        level = (int(wp.cast(squared, wp.uint32) >> wp.uint32(23)) - 127) >> 1
        if level < texture.top:
            share = wp.sqrt(squared * wp.cast(wp.uint32(127 - 2 * level) << wp.uint32(23), wp.float32)) - 1.0
        level = wp.min(level, texture.top)
    weight = 1.0 - share
    total = wp.vec3(0.0, 0.0, 0.0)
    last = level + wp.where(share > 0.0, 1, 0)
    level += texture.levels
    last += texture.levels
    while level <= last:  # a loop, for two calls would be inlined twice, and that ten times
        total += bilinear(scene, texture, scene.levels[level], place.at) * weight
        weight = share
        level += 1
    return total
