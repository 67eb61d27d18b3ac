"""Deferred shading in Warp, for CPU and CUDA from one source; `shade_numpy` is its twin, formula by formula."""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# float(0.0) there declares a variable that a loop may change.
import warp as wp

from render import texels as tx

LEAST_ROUGHNESS = 0.2  # a point light on a smoother surface is a highlight smaller than a sample: fireflies
CLEAR = 1.0 / 255.0  # what is behind less than this share of transmission is not looked at

# Products and sums are not fused, for CPUs differ in what they would fuse; fast_math would drop the NaN guards.
wp.set_module_options({"fuse_fp": False, "fast_math": False, "enable_backward": False})

_WIDTH, _HEIGHT, _COUNT, _WRAP_S, _WRAP_T = map(
    wp.constant, (tx.WIDTH, tx.HEIGHT, tx.LEVEL_COUNT, tx.WRAP_S, tx.WRAP_T)
)
_UV_SET, _SRGB, _WEIGHTED, _LEVELS = map(wp.constant, (tx.UV_SET, tx.SRGB, tx.WEIGHTED, tx.LEVELS))
_BASE_TEX, _ROUGH_TEX, _EMISSIVE_TEX = map(wp.constant, (tx.BASE_TEX, tx.ROUGH_TEX, tx.EMISSIVE_TEX))
_NORMAL_TEX, _OCCLUSION_TEX, _MODE = map(wp.constant, (tx.NORMAL_TEX, tx.OCCLUSION_TEX, tx.ALPHA_MODE))
_METALLIC, _ROUGHNESS, _EMISSIVE = map(wp.constant, (tx.METALLIC, tx.ROUGHNESS, tx.EMISSIVE))
_NORMAL_SCALE, _CUTOFF = map(wp.constant, (tx.NORMAL_SCALE, tx.CUTOFF))
_OPAQUE, _MASK = wp.constant(tx.OPAQUE), wp.constant(tx.MASK)
_LEAST_ROUGHNESS, _CLEAR = wp.constant(LEAST_ROUGHNESS), wp.constant(CLEAR)
_PI = wp.constant(3.141592653589793)


@wp.struct
class Scene:
    """`texels.Packed` on a device, with the vertices in the world frame; the has_ flags say which arrays are real."""

    vertices: wp.array(dtype=wp.vec3)
    faces: wp.array(dtype=wp.vec3i)
    material: wp.array(dtype=wp.int32)
    normals: wp.array(dtype=wp.vec3)
    uv: wp.array(dtype=wp.vec2)
    uv1: wp.array(dtype=wp.vec2)
    colors: wp.array(dtype=wp.vec4)
    texels: wp.array(dtype=wp.uint32)
    texture_int: wp.array2d(dtype=wp.int32)
    texture_uv: wp.array2d(dtype=wp.float32)
    material_int: wp.array2d(dtype=wp.int32)
    material_float: wp.array2d(dtype=wp.float32)
    linear: wp.array(dtype=wp.float32)
    has_normals: wp.int32
    has_colors: wp.int32


@wp.struct
class View:
    """`rays.Rays`."""

    eye: wp.vec3
    rotation: wp.mat33
    fx: wp.float32
    fy: wp.float32
    cx: wp.float32
    cy: wp.float32


@wp.struct
class Lighting:
    """`lights.Lights` and `rays.Shadows`; matrix is (M,12)."""

    sh: wp.array(dtype=wp.vec3)
    kind: wp.array(dtype=wp.int32)
    vector: wp.array(dtype=wp.vec3)
    color: wp.array(dtype=wp.vec3)
    first: wp.array(dtype=wp.int32)
    depth: wp.array3d(dtype=wp.float32)
    matrix: wp.array2d(dtype=wp.float32)
    texel: wp.array(dtype=wp.float32)


@wp.struct
class Fragment:
    """A hit: triangle, its corner and edges, the ray, barycentrics there and at the rays of the neighbour pixels."""

    triangle: wp.int32
    corner: wp.vec3
    e1: wp.vec3
    e2: wp.vec3
    ray: wp.vec3
    bary: wp.vec3
    bary_x: wp.vec3
    bary_y: wp.vec3


@wp.func
def barycentric(e1: wp.vec3, e2: wp.vec3, offset: wp.vec3, d: wp.vec3):
    p = wp.cross(d, e2)
    determinant = wp.dot(e1, p)
    if wp.abs(determinant) < 1.0e-30:
        determinant = float(1.0e-30)
    b1 = wp.dot(offset, p) / determinant
    b2 = wp.dot(d, wp.cross(offset, e1)) / determinant
    return wp.vec3(1.0 - b1 - b2, b1, b2)


@wp.func
def meet(scene: Scene, view: View, triangle: int, u: int, v: int):
    f = Fragment()
    face = scene.faces[triangle]
    f.triangle = triangle
    f.corner = scene.vertices[face[0]]
    f.e1 = scene.vertices[face[1]] - f.corner
    f.e2 = scene.vertices[face[2]] - f.corner
    x = (float(u) + 0.5 - view.cx) / view.fx
    y = (float(v) + 0.5 - view.cy) / view.fy
    f.ray = view.rotation * wp.vec3(x, y, 1.0)
    right = view.rotation * wp.vec3(1.0 / view.fx, 0.0, 0.0)
    down = view.rotation * wp.vec3(0.0, 1.0 / view.fy, 0.0)
    offset = view.eye - f.corner
    b = barycentric(f.e1, f.e2, offset, f.ray)
    b = wp.vec3(wp.clamp(b[0], 0.0, 1.0), wp.clamp(b[1], 0.0, 1.0), wp.clamp(b[2], 0.0, 1.0))
    f.bary = b / (b[0] + b[1] + b[2])
    f.bary_x = barycentric(f.e1, f.e2, offset, f.ray + right)
    f.bary_y = barycentric(f.e1, f.e2, offset, f.ray + down)
    return f


@wp.func
def wrapped(i: int, size: int, mode: int):
    if mode == 1:
        return wp.clamp(i, 0, size - 1)
    if mode == 0:
        r = i % size
        if r < 0:
            r = r + size
        return r
    m = i % (2 * size)
    if m < 0:
        m = m + 2 * size
    if m >= size:
        m = 2 * size - 1 - m
    return m


@wp.func
def folded(x: float, mode: int):
    if mode == 1:
        return wp.clamp(x, -1.0, 2.0)
    if mode == 0:
        return x - wp.floor(x)
    return x - 2.0 * wp.floor(0.5 * x)


@wp.func
def bilinear(scene: Scene, t: int, at: wp.vec2, level: int):
    width = wp.max(scene.texture_int[t, _WIDTH] >> level, 1)
    height = wp.max(scene.texture_int[t, _HEIGHT] >> level, 1)
    first = scene.texture_int[t, _LEVELS + level]
    wrap_s = scene.texture_int[t, _WRAP_S]
    wrap_t = scene.texture_int[t, _WRAP_T]
    srgb = scene.texture_int[t, _SRGB]
    weighted = scene.texture_int[t, _WEIGHTED]
    x = folded(at[0], wrap_s) * float(width) - 0.5
    y = folded(at[1], wrap_t) * float(height) - 0.5
    x0 = wp.floor(x)
    y0 = wp.floor(y)
    color = wp.vec3(0.0, 0.0, 0.0)
    alpha = float(0.0)
    weights = float(0.0)
    for dy in range(2):
        j = wrapped(int(y0) + dy, height, wrap_t)
        wy = y - y0
        if dy == 0:
            wy = 1.0 - wy
        for dx in range(2):
            i = wrapped(int(x0) + dx, width, wrap_s)
            w = x - x0
            if dx == 0:
                w = 1.0 - w
            w = w * wy
            word = scene.texels[first + j * width + i]
            r = int(word & wp.uint32(255))
            g = int((word >> wp.uint32(8)) & wp.uint32(255))
            b = int((word >> wp.uint32(16)) & wp.uint32(255))
            a = float((word >> wp.uint32(24)) & wp.uint32(255)) / 255.0
            value = wp.vec3(float(r), float(g), float(b)) / 255.0
            if srgb == 1:
                value = wp.vec3(scene.linear[r], scene.linear[g], scene.linear[b])
            share = w
            if weighted == 1:
                share = w * wp.max(a, 1.0e-4)
            color = color + value * share
            alpha = alpha + a * w
            weights = weights + share
    color = color / weights
    return wp.vec4(color[0], color[1], color[2], alpha)


@wp.func
def corner_uv(scene: Scene, t: int, vertex: int):
    if scene.texture_int[t, _UV_SET] == 1:
        at = scene.uv1[vertex]
    else:
        at = scene.uv[vertex]
    return wp.vec2(
        scene.texture_uv[t, 0] * at[0] + scene.texture_uv[t, 1] * at[1] + scene.texture_uv[t, 2],
        scene.texture_uv[t, 3] * at[0] + scene.texture_uv[t, 4] * at[1] + scene.texture_uv[t, 5],
    )


@wp.func
def sample(scene: Scene, t: int, f: Fragment, finest: int):
    face = scene.faces[f.triangle]
    a = corner_uv(scene, t, face[0])
    b = corner_uv(scene, t, face[1])
    c = corner_uv(scene, t, face[2])
    here = a * f.bary[0] + b * f.bary[1] + c * f.bary[2]
    low = int(0)
    high = int(0)
    share = float(0.0)
    if finest == 0:
        right = a * f.bary_x[0] + b * f.bary_x[1] + c * f.bary_x[2] - here
        down = a * f.bary_y[0] + b * f.bary_y[1] + c * f.bary_y[2] - here
        size = wp.vec2(float(scene.texture_int[t, _WIDTH]), float(scene.texture_int[t, _HEIGHT]))
        p = wp.length(wp.cw_mul(right, size))
        q = wp.length(wp.cw_mul(down, size))
        footprint = wp.max(wp.min(p, q), 0.5 * wp.max(p, q))
        top = scene.texture_int[t, _COUNT] - 1
        level = wp.clamp(wp.log2(wp.max(footprint, 1.0e-12)), 0.0, float(top))
        low = int(wp.floor(level))
        high = wp.min(low + 1, top)
        share = level - float(low)
    value = bilinear(scene, t, here, low)
    if share > 0.0:
        value = value * (1.0 - share) + bilinear(scene, t, here, high) * share
    return value


@wp.func
def vertex_color(scene: Scene, f: Fragment):
    face = scene.faces[f.triangle]
    return scene.colors[face[0]] * f.bary[0] + scene.colors[face[1]] * f.bary[1] + scene.colors[face[2]] * f.bary[2]


@wp.func
def alpha_of(scene: Scene, f: Fragment):
    m = scene.material[f.triangle]
    mode = scene.material_int[m, _MODE]
    if mode == _OPAQUE:
        return 1.0
    alpha = scene.material_float[m, 3]
    if scene.has_colors == 1:
        c = vertex_color(scene, f)
        alpha = alpha * c[3]
    t = scene.material_int[m, _BASE_TEX]
    if t >= 0:
        texel = sample(scene, t, f, 1)
        alpha = alpha * texel[3]
    if mode == _MASK:
        if alpha >= scene.material_float[m, _CUTOFF]:
            return 1.0
        return 0.0
    return wp.clamp(alpha, 0.0, 1.0)


@wp.func
def irradiance(sh: wp.array(dtype=wp.vec3), n: wp.vec3):
    x = n[0]
    y = n[1]
    z = n[2]
    e = sh[0] * 0.282095 + sh[1] * (0.488603 * y) + sh[2] * (0.488603 * z) + sh[3] * (0.488603 * x)
    e = e + sh[4] * (1.092548 * x * y) + sh[5] * (1.092548 * y * z) + sh[6] * (0.315392 * (3.0 * z * z - 1.0))
    e = e + sh[7] * (1.092548 * x * z) + sh[8] * (0.546274 * (x * x - y * y))
    return wp.vec3(wp.max(e[0], 0.0), wp.max(e[1], 0.0), wp.max(e[2], 0.0))


@wp.func
def row(matrix: wp.array2d(dtype=wp.float32), m: int, i: int, p: wp.vec3):
    k = 4 * i
    return matrix[m, k] * p[0] + matrix[m, k + 1] * p[1] + matrix[m, k + 2] * p[2] + matrix[m, k + 3]


@wp.func
def lit(light: Lighting, index: int, position: wp.vec3, facing: wp.vec3):
    height = light.depth.shape[1]
    width = light.depth.shape[2]
    for m in range(light.first[index], light.first[index + 1]):
        size = light.texel[m] * wp.max(row(light.matrix, m, 2, position), 0.0)
        p = position + facing * (1.5 * size)
        depth = row(light.matrix, m, 2, p)
        z = wp.max(depth, 1.0e-6)
        x = row(light.matrix, m, 0, p) / z - 0.5
        y = row(light.matrix, m, 1, p) / z - 0.5
        if depth > 1.0e-4 and x >= 0.0 and y >= 0.0 and x < float(width - 1) and y < float(height - 1):
            i = int(x)
            j = int(y)
            a = x - float(i)
            b = y - float(j)
            z = z - size
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


@wp.func
def across(tangent: wp.vec3, n: wp.vec3):
    t = tangent - n * wp.dot(tangent, n)
    return t / wp.max(wp.length(t), 1.0e-20)


@wp.func
def facing_normal(f: Fragment, view: wp.vec3):
    n = wp.cross(f.e1, f.e2)
    n = n / wp.max(wp.length(n), 1.0e-30)
    if wp.dot(n, view) < 0.0:
        n = -n
    return n


@wp.func
def shading_normal(scene: Scene, f: Fragment, facing: wp.vec3):
    n = facing
    face = scene.faces[f.triangle]
    if scene.has_normals == 1:
        s = scene.normals[face[0]] * f.bary[0] + scene.normals[face[1]] * f.bary[1] + scene.normals[face[2]] * f.bary[2]
        length = wp.length(s)
        if length > 1.0e-6:
            n = s / length
            if wp.dot(n, facing) < 0.0:
                n = -n
    m = scene.material[f.triangle]
    t = scene.material_int[m, _NORMAL_TEX]
    if t >= 0:
        texel = sample(scene, t, f, 0)
        scale = scene.material_float[m, _NORMAL_SCALE]
        bx = (texel[0] * 2.0 - 1.0) * scale
        by = (texel[1] * 2.0 - 1.0) * scale
        bz = texel[2] * 2.0 - 1.0
        base = corner_uv(scene, t, face[0])
        d1 = corner_uv(scene, t, face[1]) - base
        d2 = corner_uv(scene, t, face[2]) - base
        area = d1[0] * d2[1] - d2[0] * d1[1]
        if wp.abs(area) > 1.0e-20:
            sign = 1.0
            if area < 0.0:
                sign = -1.0
            along_u = (f.e1 * d2[1] - f.e2 * d1[1]) * sign
            along_v = (f.e2 * d1[0] - f.e1 * d2[0]) * sign
            bent = across(along_u, n) * bx - across(along_v, n) * by + n * bz
            length = wp.length(bent)
            if length > 1.0e-6:
                n = bent / length
    return n


@wp.func
def radiance(scene: Scene, light: Lighting, f: Fragment):
    """RGB sent to the eye, and in w the received irradiance's luminance over pi."""
    m = scene.material[f.triangle]
    albedo = wp.vec3(scene.material_float[m, 0], scene.material_float[m, 1], scene.material_float[m, 2])
    t = scene.material_int[m, _BASE_TEX]
    if t >= 0:
        texel = sample(scene, t, f, 0)
        albedo = wp.cw_mul(albedo, wp.vec3(texel[0], texel[1], texel[2]))
    if scene.has_colors == 1:
        c = vertex_color(scene, f)
        albedo = wp.cw_mul(albedo, wp.vec3(c[0], c[1], c[2]))
    roughness = scene.material_float[m, _ROUGHNESS]
    metallic = scene.material_float[m, _METALLIC]
    t = scene.material_int[m, _ROUGH_TEX]
    if t >= 0:
        texel = sample(scene, t, f, 0)
        roughness = roughness * texel[1]
        metallic = metallic * texel[2]
    roughness = wp.clamp(roughness, _LEAST_ROUGHNESS, 1.0)
    metallic = wp.clamp(metallic, 0.0, 1.0)
    emitted = wp.vec3(
        scene.material_float[m, _EMISSIVE],
        scene.material_float[m, _EMISSIVE + 1],
        scene.material_float[m, _EMISSIVE + 2],
    )
    t = scene.material_int[m, _EMISSIVE_TEX]
    if t >= 0:
        texel = sample(scene, t, f, 0)
        emitted = wp.cw_mul(emitted, wp.vec3(texel[0], texel[1], texel[2]))
    occlusion = float(1.0)
    t = scene.material_int[m, _OCCLUSION_TEX]
    if t >= 0:
        texel = sample(scene, t, f, 0)
        occlusion = texel[0]

    view = -wp.normalize(f.ray)
    facing = facing_normal(f, view)
    n = shading_normal(scene, f, facing)
    position = f.corner + f.e1 * f.bary[1] + f.e2 * f.bary[2]
    nv = wp.max(wp.dot(n, view), 1.0e-3)
    one = wp.vec3(1.0, 1.0, 1.0)
    f0 = one * 0.04 + (albedo - one * 0.04) * metallic
    base = albedo * (1.0 - metallic)
    a = roughness * roughness
    a2 = a * a

    sky = irradiance(light.sh, n) * occlusion
    mirrored = wp.normalize(n * (2.0 * nv) - view)
    gloss = irradiance(light.sh, mirrored) * occlusion
    r0 = 1.0 - roughness
    edge = wp.min(r0 * r0, wp.exp(-6.432406 * nv)) * r0 + 0.0425 - 0.0275 * roughness
    scale = wp.max(1.04 - 0.572 * roughness - 1.04 * edge, 0.0)
    bias = wp.max(1.04 * edge + 0.022 * roughness - 0.04, 0.0)
    coat = f0 * scale + one * bias
    total = (wp.cw_mul(wp.cw_mul(base, one - coat), sky) + wp.cw_mul(coat, gloss)) / _PI + emitted
    received = sky
    for k in range(light.kind.shape[0]):
        towards = light.vector[k]
        strength = light.color[k]
        if light.kind[k] == 1:
            towards = towards - position
            distance2 = wp.max(wp.dot(towards, towards), 1.0e-4)
            towards = towards / wp.sqrt(distance2)
            strength = strength / distance2
        nl = wp.dot(n, towards)
        if nl > 0.0 and wp.dot(towards, facing) > 0.0:
            strength = strength * (nl * lit(light, k, position, facing))
            half = towards + view
            half = half / wp.max(wp.length(half), 1.0e-6)
            nh = wp.clamp(wp.dot(n, half), 0.0, 1.0)
            g = 1.0 - wp.clamp(wp.dot(view, half), 0.0, 1.0)
            fresnel = f0 + (one - f0) * (g * g * g * g * g)
            d = nh * nh * (a2 - 1.0) + 1.0
            spread = a2 / (_PI * d * d)
            visible = 0.5 / wp.max(nl * (nv * (1.0 - a) + a) + nv * (nl * (1.0 - a) + a), 1.0e-6)
            total = total + wp.cw_mul(strength, wp.cw_mul(base, one - fresnel) / _PI + fresnel * (spread * visible))
            received = received + strength
    luminance = 0.2126 * received[0] + 0.7152 * received[1] + 0.0722 * received[2]
    return wp.vec4(total[0], total[1], total[2], luminance / _PI)


@wp.kernel
def keep(scene: Scene, view: View, triangle: wp.array3d(dtype=wp.int32), out: wp.array3d(dtype=wp.uint8)):
    v, u = wp.tid()
    for s in range(triangle.shape[0]):
        t = triangle[s, v, u]
        if t >= 0:
            f = meet(scene, view, t, u, v)
            if alpha_of(scene, f) >= 0.5:
                out[s, v, u] = wp.uint8(1)


@wp.kernel
def unresolved(scene: Scene, view: View, triangle: wp.array3d(dtype=wp.int32), count: wp.array(dtype=wp.int32)):
    v, u = wp.tid()
    slots = triangle.shape[0]
    if triangle[slots - 1, v, u] >= 0:
        through = float(1.0)
        solid = int(0)
        for s in range(slots):
            if through > _CLEAR or solid == 0:
                f = meet(scene, view, triangle[s, v, u], u, v)
                alpha = alpha_of(scene, f)
                through = through * (1.0 - alpha)
                if alpha >= 0.5:
                    solid = int(1)
        if through > _CLEAR or solid == 0:
            wp.atomic_add(count, 0, 1)


@wp.kernel
def shade(
    scene: Scene,
    view: View,
    light: Lighting,
    triangle: wp.array3d(dtype=wp.int32),
    side: int,
    out: wp.array3d(dtype=wp.float32),
):
    v, u = wp.tid()
    color = wp.vec3(0.0, 0.0, 0.0)
    received = float(0.0)
    cover = float(0.0)
    for k in range(side * side):
        y = v * side + k / side
        x = u * side + k % side
        through = float(1.0)
        solid = int(0)
        sent = wp.vec4(0.0, 0.0, 0.0, 0.0)
        for s in range(triangle.shape[0]):
            t = triangle[s, y, x]
            if t < 0:
                break
            if through <= _CLEAR and solid == 1:
                break
            f = meet(scene, view, t, x, y)
            alpha = alpha_of(scene, f)
            if alpha > 0.0:
                sent = sent + radiance(scene, light, f) * (through * alpha)
                through = through * (1.0 - alpha)
                if alpha >= 0.5:
                    solid = int(1)
        alpha = 1.0 - through
        capped = wp.min(alpha, 127.0 / 255.0)
        if solid == 1:
            capped = wp.max(alpha, 128.0 / 255.0)
        if alpha > 0.0:
            sent = sent * (capped / wp.max(alpha, 1.0e-6))
            color = color + wp.vec3(sent[0], sent[1], sent[2])
            received = received + sent[3]
            cover = cover + capped
    mean = 1.0 / float(side * side)
    out[v, u, 0] = color[0] * mean
    out[v, u, 1] = color[1] * mean
    out[v, u, 2] = color[2] * mean
    out[v, u, 3] = cover * mean
    out[v, u, 4] = received * mean
