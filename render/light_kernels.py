"""What arrives at a point, in Warp: the irradiance of the environment, and how much of a light its maps let through."""

# mypy: ignore-errors
# ruff: noqa: UP018
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# float(0.0) there declares a variable that a branch may change.
import warp as wp

from render.fragment_kernels import OPTIONS, most, within

# In pixels of a map: how far a point is moved along its normal, and how much nearer it then still counts as.
SHARP_OFFSET, SHARP_BIAS = 1.5, 1.0
SOFT_OFFSET, SOFT_BIAS = 1.0, 1.0
STEEP = 0.2  # the most by which a plane's 1 / z is taken to change from one pixel to the next

wp.set_module_options(OPTIONS)

_SHARP_OFFSET, _SHARP_BIAS = wp.constant(SHARP_OFFSET), wp.constant(SHARP_BIAS)
_SOFT_OFFSET, _SOFT_BIAS, _STEEP = wp.constant(SOFT_OFFSET), wp.constant(SOFT_BIAS), wp.constant(STEEP)


@wp.struct
class Sky:
    """The irradiance of a view's environment as a polynomial of the normal (`shade_inputs.polynomial`); rgb and 0."""

    one: wp.vec4
    y: wp.vec4
    z: wp.vec4
    x: wp.vec4
    xy: wp.vec4
    yz: wp.vec4
    zz: wp.vec4
    xz: wp.vec4
    xx_yy: wp.vec4


@wp.struct
class Lighting:
    """`lights.Lights` and `rays.Shadows` of all views. View b has the lights start[b] .. start[b + 1], light n the maps
    first[n] .. first[n + 1]; depth is that of `Shadows`, flat; matrix (M,3); plane (M) takes a plane's normal n to the
    a, b, c of 1 / z = (a u + b v + c) / const in the map."""

    sky: wp.array(dtype=Sky)
    start: wp.array(dtype=wp.int32)
    kind: wp.array(dtype=wp.int32)
    vector: wp.array(dtype=wp.vec3)
    color: wp.array(dtype=wp.vec3)
    first: wp.array(dtype=wp.int32)
    depth: wp.array(dtype=wp.float32)
    height: wp.int32
    width: wp.int32
    matrix: wp.array2d(dtype=wp.vec4)
    plane: wp.array(dtype=wp.mat33)
    texel: wp.array(dtype=wp.float32)


@wp.func
def irradiance(sky: Sky, n: wp.vec3):
    x = n[0]
    y = n[1]
    z = n[2]
    e = sky.one + sky.y * y + sky.z * z + sky.x * x
    e = e + sky.xy * (x * y) + sky.yz * (y * z) + sky.zz * (z * z)
    e = e + sky.xz * (x * z) + sky.xx_yy * (x * x - y * y)
    return wp.vec3(most(e[0], 0.0), most(e[1], 0.0), most(e[2], 0.0))


@wp.func
def row(m: wp.vec4, p: wp.vec3):
    return m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + m[3]


@wp.func
def sharp(light: Lighting, m: int, x: float, y: float, z: float):
    """The share of the 2x2 pixels of map m around (x, y), by their nearness, that see as far as z."""
    i = int(x)
    j = int(y)
    a = x - float(i)
    b = y - float(j)
    at = (m * light.height + j) * light.width + i
    above = wp.where(light.depth[at] >= z, 1.0 - a, 0.0) + wp.where(light.depth[at + 1] >= z, a, 0.0)
    at += light.width
    below = wp.where(light.depth[at] >= z, 1.0 - a, 0.0) + wp.where(light.depth[at + 1] >= z, a, 0.0)
    return above * (1.0 - b) + below * b


@wp.func
def soft(light: Lighting, m: int, x: float, y: float, z: float, facing: wp.vec3):
    """The share of a box of 2x2 pixels of map m around (x, y) that sees as far as the plane with normal `facing` that
    has depth z there: on a plane 1 / z is affine in the pixel, so each of 3x3 pixels is compared with its own depth."""
    i = int(x + 0.5)
    j = int(y + 0.5)
    a = x - float(i)
    b = y - float(j)
    n = light.plane[m] * facing
    slope = n[0] * (x + 0.5) + n[1] * (y + 0.5) + n[2]
    slope = 1.0 / wp.where(wp.abs(slope) > 1.0e-12, slope, 1.0e-12)
    right = within(n[0] * slope, -_STEEP, _STEEP)
    down = within(n[1] * slope, -_STEEP, _STEEP)
    share = float(0.0)
    for v in range(3):
        at = (m * light.height + j - 1 + v) * light.width + i - 1
        near = 1.0 - (1.0 + a) * right + (float(v) - 1.0 - b) * down  # z over the depth of the plane at the first
        line = wp.where(light.depth[at & 0x7FFFFFFF] * near >= z, 0.5 - a, 0.0)
        line += wp.where(light.depth[(at + 1) & 0x7FFFFFFF] * (near + right) >= z, 1.0, 0.0)
        line += wp.where(light.depth[(at + 2) & 0x7FFFFFFF] * (near + 2.0 * right) >= z, 0.5 + a, 0.0)
        if v == 0:
            line *= 0.5 - b
        if v == 2:
            line *= 0.5 + b
        share += line
    return share * 0.25


@wp.func
def face_of(d: wp.vec3):
    """Which map of a cube looks along d: 0, 1, 2 along +x, +y, +z and 3, 4, 5 against them."""
    x = wp.abs(d[0])
    y = wp.abs(d[1])
    z = wp.abs(d[2])
    face = wp.where(d[2] < 0.0, 5, 2)
    if y >= z:
        face = wp.where(d[1] < 0.0, 4, 1)
    if x >= y and x >= z:
        face = wp.where(d[0] < 0.0, 3, 0)
    return face


@wp.func
def lit(light: Lighting, index: int, position: wp.vec3, facing: wp.vec3):
    """A filtered look into the map of light `index` that sees `position`, 1 where none does. The maps of a cube, which
    are coarse for what they show, are looked into softly, or long edges of shadows would be saw teeth."""
    m = light.first[index]
    maps = light.first[index + 1] - m
    if maps == 0:
        return 1.0
    # Moved off the surface by the size of a map's pixel there, or the surface would shade itself.
    offset = float(_SHARP_OFFSET)
    margin = float(0.0)
    if maps > 1:
        offset = float(_SOFT_OFFSET)
        margin = float(0.5)
        d = position - light.vector[index]
        reach = most(wp.abs(d[0]), most(wp.abs(d[1]), wp.abs(d[2])))
        m += face_of(d + facing * (offset * light.texel[m] * reach))
    forward = light.matrix[m, 2]
    size = light.texel[m] * most(row(forward, position), 0.0)
    p = position + facing * (offset * size)
    depth = row(forward, p)
    if depth > 1.0e-4:
        over = 1.0 / depth
        x = row(light.matrix[m, 0], p) * over - 0.5
        y = row(light.matrix[m, 1], p) * over - 0.5
        last_x = float(light.width - 1) - margin
        last_y = float(light.height - 1) - margin
        if x >= margin and y >= margin and x < last_x and y < last_y:
            if maps > 1:
                return soft(light, m, x, y, depth - _SOFT_BIAS * size, facing)
            return sharp(light, m, x, y, depth - _SHARP_BIAS * size)
    return 1.0
