"""What arrives at a point, in Warp: the irradiance of the environment, and how much of a light its maps let through."""

# mypy: ignore-errors
# ruff: noqa: UP018
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# float(0.0) there declares a variable that a branch may change.
import warp as wp

from render.fragment_kernels import OPTIONS, most

wp.set_module_options(OPTIONS)


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
    first[n] .. first[n + 1]; matrix is (M,3)."""

    sky: wp.array(dtype=Sky)
    start: wp.array(dtype=wp.int32)
    kind: wp.array(dtype=wp.int32)
    vector: wp.array(dtype=wp.vec3)
    color: wp.array(dtype=wp.vec3)
    first: wp.array(dtype=wp.int32)
    depth: wp.array3d(dtype=wp.float32)
    matrix: wp.array2d(dtype=wp.vec4)
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
def lit(light: Lighting, index: int, position: wp.vec3, facing: wp.vec3):
    """A 2x2 filtered look into the map that sees `position`; 1 where none does."""
    height = light.depth.shape[1]
    width = light.depth.shape[2]
    for m in range(light.first[index], light.first[index + 1]):
        forward = light.matrix[m, 2]
        # Moved off the surface by the size of a map's pixel there, or the surface would shade itself.
        size = light.texel[m] * most(row(forward, position), 0.0)
        p = position + facing * (1.5 * size)
        depth = row(forward, p)
        if depth > 1.0e-4:
            over = 1.0 / depth
            x = row(light.matrix[m, 0], p) * over - 0.5
            y = row(light.matrix[m, 1], p) * over - 0.5
            if x >= 0.0 and y >= 0.0 and x < float(width - 1) and y < float(height - 1):
                i = int(x)
                j = int(y)
                a = x - float(i)
                b = y - float(j)
                z = depth - size
                share = float(0.0)
                if light.depth[m, j, i] >= z:
                    share = share + (1.0 - a) * (1.0 - b)
                if light.depth[m, j, i + 1] >= z:
                    share = share + a * (1.0 - b)
                if light.depth[m, j + 1, i] >= z:
                    share = share + (1.0 - a) * b
                if light.depth[m, j + 1, i + 1] >= z:
                    share = share + a * b
                return share
    return 1.0
