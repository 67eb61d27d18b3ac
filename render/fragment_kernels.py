"""Where a ray meets a triangle, in Warp: views, scenes, barycentrics and what moves with one pixel of the image.

With N = e2 x e1, P1 = e2 x o, P2 = o x e1 (e1, e2 the edges at the first corner, o the eye seen from there), the ray
along d has barycentrics b1 = d.P1 / d.N and b2 = d.P2 / d.N (Moeller and Trumbore). The three vectors belong to the
triangle, so its samples share them, and the derivatives of b1 and b2 follow from the quotient rule.
"""

# mypy: ignore-errors
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly.
import warp as wp

# Products and sums are not fused, for CPUs differ in what they would fuse; fast_math would drop the NaN guards.
OPTIONS = {"fuse_fp": False, "fast_math": False, "enable_backward": False}
wp.set_module_options(OPTIONS)


@wp.func
def least(a: float, b: float):
    """The smaller; b if either is not a number. One instruction where wp.min, which looks for those, takes five."""
    return wp.where(a < b, a, b)


@wp.func
def most(a: float, b: float):
    """The greater; b if either is not a number."""
    return wp.where(a > b, a, b)


@wp.func
def within(x: float, low: float, high: float):
    """x held in low .. high; low if it is not a number."""
    return least(most(x, low), high)


@wp.struct
class Level:
    """A mip level: its size, and where in the texels it begins."""

    width: wp.int32
    height: wp.int32
    first: wp.int32


@wp.struct
class Texture:
    """A row of `Packed.texture_int` and `texture_uv`; (u, v) is row_u, row_v times (u, v, 1)."""

    levels: wp.int32  # where in the levels its own begin, the finest first
    top: wp.int32
    width: wp.float32
    height: wp.float32
    wrap_s: wp.int32
    wrap_t: wp.int32
    second: wp.int32  # 1: the second set of UV
    table: wp.int32  # where in `decode` the values of its bytes begin
    weighted: wp.int32
    row_u: wp.vec3
    row_v: wp.vec3


@wp.struct
class Material:
    """A row of `Packed.material_int` and `material_float`, with its `Use`s first_use .. last_use - 1."""

    color: wp.vec4
    emissive: wp.vec3
    metallic: wp.float32
    roughness: wp.float32
    normal_scale: wp.float32
    cutoff: wp.float32
    mode: wp.int32
    alpha: wp.int32  # the texture whose alpha it is, -1 is none
    first_use: wp.int32
    last_use: wp.int32


@wp.struct
class Use:
    """A texture of a material, and the sum of the roles that it has there: one image may hold three of them."""

    texture: wp.int32
    roles: wp.int32


@wp.struct
class Scene:
    """`texels.Packed` on a device, with the vertices in the world frame; the flags say which arrays are real."""

    vertices: wp.array(dtype=wp.vec3)
    faces: wp.array(dtype=wp.vec3i)
    material: wp.array(dtype=wp.int32)
    normals: wp.array(dtype=wp.vec3)
    uv: wp.array(dtype=wp.vec2)
    uv1: wp.array(dtype=wp.vec2)
    colors: wp.array(dtype=wp.vec4)
    texels: wp.array(dtype=wp.uint32)
    levels: wp.array(dtype=Level)
    textures: wp.array(dtype=Texture)
    materials: wp.array(dtype=Material)
    uses: wp.array(dtype=Use)
    decode: wp.array(dtype=wp.float32)
    has_uv: wp.int32
    has_normals: wp.int32
    has_colors: wp.int32
    tested: wp.int32


@wp.struct
class View:
    """`rays.Rays` of an image, and the row and column in it of its window's first pixel: the ray of pixel (u, v) of the
    image is first + u right + v down, rounded alike in every window."""

    eye: wp.vec3
    first: wp.vec3
    right: wp.vec3
    down: wp.vec3
    row: wp.int32
    column: wp.int32


@wp.struct
class Plane:
    """What the samples on one triangle share: its corner and edges, the vectors of the module's first lines, and the
    attributes of its first corner with what they change along the edges."""

    material: wp.int32
    face: wp.vec3i
    corner: wp.vec3
    e1: wp.vec3
    e2: wp.vec3
    facing: wp.vec3  # of unit length, along -N = e1 x e2
    normal: wp.vec3
    normal_1: wp.vec3
    normal_2: wp.vec3
    uv: wp.vec2
    uv_1: wp.vec2
    uv_2: wp.vec2
    n: wp.vec3
    p1: wp.vec3
    p2: wp.vec3


@wp.func
def ray_of(view: View, u: int, v: int):
    """Through pixel (u, v) of the window."""
    return view.first + view.right * float(view.column + u) + view.down * float(view.row + v)


@wp.func
def plane_of(scene: Scene, eye: wp.vec3, triangle: int):
    f = Plane()
    face = scene.faces[triangle]
    f.material = scene.material[triangle]
    f.face = face
    f.corner = scene.vertices[face[0]]
    f.e1 = scene.vertices[face[1]] - f.corner
    f.e2 = scene.vertices[face[2]] - f.corner
    o = eye - f.corner
    f.n = wp.cross(f.e2, f.e1)
    f.facing = f.n * (-1.0 / most(wp.length(f.n), 1.0e-30))
    f.p1 = wp.cross(f.e2, o)
    f.p2 = wp.cross(o, f.e1)
    if scene.has_normals == 1:
        f.normal = scene.normals[face[0]]
        f.normal_1 = scene.normals[face[1]] - f.normal
        f.normal_2 = scene.normals[face[2]] - f.normal
    if scene.has_uv == 1:
        f.uv = scene.uv[face[0]]
        f.uv_1 = scene.uv[face[1]] - f.uv
        f.uv_2 = scene.uv[face[2]] - f.uv
    return f


@wp.func
def slope_of(f: Plane, ray: wp.vec3):
    """1 / (d.N), the factor of every barycentric; its sign is the side of the triangle that is seen."""
    d = wp.dot(ray, f.n)
    if wp.abs(d) < 1.0e-30:
        return 1.0e30
    return 1.0 / d


@wp.func
def meet(f: Plane, ray: wp.vec3, slope: float):
    """Barycentrics (b1, b2) of the hit, held inside the triangle: on an edge they may come out a hair beyond it."""
    b = wp.vec2(wp.dot(ray, f.p1) * slope, wp.dot(ray, f.p2) * slope)
    b0 = 1.0 - b[0] - b[1]
    if least(b0, least(b[0], b[1])) < 0.0:
        b0 = within(b0, 0.0, 1.0)
        b = wp.vec2(within(b[0], 0.0, 1.0), within(b[1], 0.0, 1.0))
        b = b * (1.0 / (b0 + b[0] + b[1]))
    return b


@wp.func
def change(f: Plane, step: wp.vec3, b: wp.vec2, slope: float):
    """d(b1, b2) along `step`, which is what one pixel adds to the ray."""
    n = wp.dot(step, f.n)
    return wp.vec2((wp.dot(step, f.p1) - b[0] * n) * slope, (wp.dot(step, f.p2) - b[1] * n) * slope)


@wp.func
def vertex_color(scene: Scene, f: Plane, b: wp.vec2):
    a = scene.colors[f.face[0]]
    return a + (scene.colors[f.face[1]] - a) * b[0] + (scene.colors[f.face[2]] - a) * b[1]
