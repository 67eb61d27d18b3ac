"""What arrives at a point, in Warp: the irradiance of the environment, and how much of a light its maps let through."""

# mypy: ignore-errors
# ruff: noqa: UP018
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# float(0.0) there declares a variable that a branch may change.
import warp as wp

from render.fragment_kernels import OPTIONS, most, within

# In pixels of a map: how far a point is moved along its normal, and how much nearer it then still counts as.
SHARP_OFFSET, SHARP_BIAS = 1.5, 1.0
SOFT_OFFSET, SOFT_BIAS = 1.0, 1.5
STEEP = 0.2  # the most by which a plane's 1 / z is taken to change from one pixel to the next

wp.set_module_options(OPTIONS)

_SHARP_OFFSET, _SHARP_BIAS = wp.constant(SHARP_OFFSET), wp.constant(SHARP_BIAS)
_SOFT_OFFSET, _SOFT_BIAS, _STEEP = wp.constant(SOFT_OFFSET), wp.constant(SOFT_BIAS), wp.constant(STEEP)


@wp.struct
class Sky:
    """The irradiance of a view's environment as a polynomial of the normal (`shade.polynomial`); rgb and a zero."""

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
    """The share of a box of 3x3 pixels of map m around (x, y) that sees as far as the plane with normal `facing` that
    has depth z there: on a plane 1 / z is affine in the pixel, so each of 4x4 pixels is compared with its own depth."""
    i = int(x)
    j = int(y)
    a = x - float(i)
    b = y - float(j)
    n = light.plane[m] * facing
    slope = n[0] * (x + 0.5) + n[1] * (y + 0.5) + n[2]
    slope = 1.0 / wp.where(wp.abs(slope) > 1.0e-12, slope, 1.0e-12)
    right = within(n[0] * slope, -_STEEP, _STEEP)
    down = within(n[1] * slope, -_STEEP, _STEEP)
    share = float(0.0)
    for v in range(4):
        at = (m * light.height + j - 1 + v) * light.width + i - 1
        near = 1.0 - (1.0 + a) * right + (float(v) - 1.0 - b) * down  # z over the depth of the plane at the first
        line = wp.where(light.depth[at] * near >= z, 1.0 - a, 0.0)
        line += wp.where(light.depth[at + 1] * (near + right) >= z, 1.0, 0.0)
        line += wp.where(light.depth[at + 2] * (near + 2.0 * right) >= z, 1.0, 0.0)
        line += wp.where(light.depth[at + 3] * (near + 3.0 * right) >= z, a, 0.0)
        if v == 0:
            line *= 1.0 - b
        if v == 3:
            line *= b
        share += line
    return share * (1.0 / 9.0)


@wp.func
def lit(light: Lighting, index: int, position: wp.vec3, facing: wp.vec3):
    """A filtered look into the map that sees `position`, 1 where none does. The maps of a cube, which are coarse for
    what they show, are looked into softly, or long edges of shadows would be saw teeth."""
    start = light.first[index]
    end = light.first[index + 1]
    cube = end - start > 1
    offset = wp.where(cube, _SOFT_OFFSET, _SHARP_OFFSET)
    margin = wp.where(cube, 1.0, 0.0)
    for m in range(start, end):
        # Moved off the surface by the size of a map's pixel there, or the surface would shade itself.
        size = light.texel[m] * most(row(light.matrix[m, 2], position), 0.0)
        p = position + facing * (offset * size)
        depth = row(light.matrix[m, 2], p)
        if depth > 1.0e-4:
            over = 1.0 / depth
            x = row(light.matrix[m, 0], p) * over - 0.5
            y = row(light.matrix[m, 1], p) * over - 0.5
            last_x = float(light.width - 1) - margin
            last_y = float(light.height - 1) - margin
            if x >= margin and y >= margin and x < last_x and y < last_y:
                if cube:
                    return soft(light, m, x, y, depth - _SOFT_BIAS * size, facing)
                return sharp(light, m, x, y, depth - _SHARP_BIAS * size)
    return 1.0
