"""What a hit does with light, in Warp: alpha by glTF's modes, the shading normal, and metallic-roughness radiance."""

# mypy: ignore-errors
# ruff: noqa: UP018
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly;
# float(0.0) there declares a variable that a branch may change.
import warp as wp

from render import texels as tx
from render.fragment_kernels import (
    OPTIONS,
    Plane,
    Scene,
    Texture,
    View,
    change,
    least,
    meet,
    most,
    plane_of,
    slope_of,
    vertex_color,
    within,
)
from render.light_kernels import Lighting, irradiance, lit
from render.texture_kernels import corners_of, finest_alpha, sample, turned

LEAST_ROUGHNESS = 0.2  # a point light on a smoother surface is a highlight smaller than a sample: fireflies

wp.set_module_options(OPTIONS)

# Roles of a texture: the columns of `Packed.material_int` as bits.
_BASE, _ROUGH, _GLOW = map(wp.constant, (1 << tx.BASE_TEX, 1 << tx.ROUGH_TEX, 1 << tx.EMISSIVE_TEX))
_BUMPS, _OCCLUSION = map(wp.constant, (1 << tx.NORMAL_TEX, 1 << tx.OCCLUSION_TEX))
_OPAQUE, _MASK = wp.constant(tx.OPAQUE), wp.constant(tx.MASK)
_LEAST_ROUGHNESS = wp.constant(LEAST_ROUGHNESS)
_OVER_PI = wp.constant(1.0 / 3.141592653589793)


@wp.func
def alpha_at(scene: Scene, f: Plane, b: wp.vec2):
    """1 on OPAQUE, 0 or 1 on MASK, the product of factor, texture and vertex on BLEND."""
    material = scene.materials[f.material]
    if material.mode == _OPAQUE:
        return 1.0
    alpha = material.color[3]
    if scene.has_colors == 1:
        c = vertex_color(scene, f, b)
        alpha = alpha * c[3]
    if material.alpha >= 0:
        alpha = alpha * finest_alpha(scene, scene.textures[material.alpha], f, b)
    if material.mode == _MASK:
        if alpha >= material.cutoff:
            return 1.0
        return 0.0
    return within(alpha, 0.0, 1.0)


@wp.func
def alpha_of(scene: Scene, view: View, triangle: int, ray: wp.vec3):
    """`alpha_at` where `ray` meets the triangle, without the work of meeting it where the material is OPAQUE."""
    if scene.materials[scene.material[triangle]].mode == _OPAQUE:
        return 1.0
    f = plane_of(scene, view.eye, triangle)
    return alpha_at(scene, f, meet(f, ray, slope_of(f, ray)))


@wp.func
def across(tangent: wp.vec3, n: wp.vec3):
    t = tangent - n * wp.dot(tangent, n)
    return t * (1.0 / most(wp.length(t), 1.0e-20))


@wp.func
def smooth_normal(scene: Scene, f: Plane, b: wp.vec2, facing: wp.vec3):
    """The interpolated normal on the side that `facing`, the triangle's own, has; that one where there is none."""
    if scene.has_normals == 0:
        return facing
    s = f.normal + f.normal_1 * b[0] + f.normal_2 * b[1]
    length = wp.length(s)
    if length <= 1.0e-6:
        return facing
    if wp.dot(s, facing) < 0.0:
        length = -length
    return s * (1.0 / length)


@wp.func
def bent_normal(scene: Scene, texture: Texture, scale: float, f: Plane, n: wp.vec3, texel: wp.vec3):
    """n bent by a texel of the normal map; the green of a glTF normal map points up in the image, against v."""
    bx = (texel[0] * 2.0 - 1.0) * scale
    by = (texel[1] * 2.0 - 1.0) * scale
    bz = texel[2] * 2.0 - 1.0
    c = corners_of(scene, texture, f)
    d1 = turned(texture, c.d1)
    d2 = turned(texture, c.d2)
    area = d1[0] * d2[1] - d2[0] * d1[1]
    if wp.abs(area) > 1.0e-20:
        if area < 0.0:
            bx = -bx
            by = -by
        along_u = f.e1 * d2[1] - f.e2 * d1[1]
        along_v = f.e2 * d1[0] - f.e1 * d2[0]
        bent = across(along_u, n) * bx - across(along_v, n) * by + n * bz
        length = wp.length(bent)
        if length > 1.0e-6:
            return bent * (1.0 / length)
    return n


@wp.func
def faded(nv: float):
    """2^(-9.28 nv) for nv in [0, 1], to 1e-5 of it: a call of the library's exp costs more than all that is around."""
    x = 9.28 * nv
    i = int(x)
    f = float(i) - x  # in (-1, 0]
    p = 1.0 + f * (0.693147181 + f * (0.240226507 + f * (0.0555041 + f * (0.0096181 + f * 0.0013333))))
    return p * wp.cast(wp.uint32(127 - i) << wp.uint32(23), wp.float32)


@wp.func
def radiance(scene: Scene, view: View, light: Lighting, index: int, f: Plane, ray: wp.vec3, slope: float, b: wp.vec2):
    """RGB sent to the eye of view `index`, and in w the received irradiance's luminance over pi."""
    material = scene.materials[f.material]
    albedo = wp.vec3(material.color[0], material.color[1], material.color[2])
    if scene.has_colors == 1:
        c = vertex_color(scene, f, b)
        albedo = wp.cw_mul(albedo, wp.vec3(c[0], c[1], c[2]))
    roughness = float(material.roughness)
    metallic = float(material.metallic)
    total = wp.vec3(material.emissive)
    occlusion = float(1.0)

    towards_eye = ray * (-1.0 / wp.length(ray))
    facing = f.facing  # on the eye's side of the triangle where d.N > 0
    if slope < 0.0:
        facing = -facing
    n = smooth_normal(scene, f, b, facing)
    b_x = change(f, view.right, b, slope)
    b_y = change(f, view.down, b, slope)
    for k in range(material.first_use, material.last_use):
        use = scene.uses[k]
        texel = sample(scene, use.texture, f, b, b_x, b_y)
        if use.roles & _BASE:
            albedo = wp.cw_mul(albedo, texel)
        if use.roles & _ROUGH:
            roughness = roughness * texel[1]
            metallic = metallic * texel[2]
        if use.roles & _OCCLUSION:
            occlusion = texel[0]
        if use.roles & _GLOW:
            total = wp.cw_mul(total, texel)
        if use.roles & _BUMPS:
            n = bent_normal(scene, scene.textures[use.texture], material.normal_scale, f, n, texel)
    roughness = within(roughness, _LEAST_ROUGHNESS, 1.0)
    metallic = within(metallic, 0.0, 1.0)

    position = f.corner + f.e1 * b[0] + f.e2 * b[1]
    nv = most(wp.dot(n, towards_eye), 1.0e-3)
    one = wp.vec3(1.0, 1.0, 1.0)
    f0 = one * 0.04 + (albedo - one * 0.04) * metallic
    base = albedo * (1.0 - metallic)
    a = roughness * roughness
    a2 = a * a

    sky = irradiance(light.sky[index], n) * occlusion
    gloss = irradiance(light.sky[index], n * (2.0 * nv) - towards_eye) * occlusion
    r0 = 1.0 - roughness
    edge = least(r0 * r0, faded(nv)) * r0 + 0.0425 - 0.0275 * roughness
    scale = most(1.04 - 0.572 * roughness - 1.04 * edge, 0.0)
    bias = most(1.04 * edge + 0.022 * roughness - 0.04, 0.0)
    coat = f0 * scale + one * bias  # what the gloss sends back the base does not get
    total = total + (wp.cw_mul(wp.cw_mul(base, one - coat), sky) + wp.cw_mul(coat, gloss)) * _OVER_PI
    received = sky
    for k in range(light.start[index], light.start[index + 1]):
        towards = light.vector[k]
        strength = light.color[k]
        if light.kind[k] == 1:
            towards = towards - position
            over = 1.0 / most(wp.dot(towards, towards), 1.0e-4)
            towards = towards * wp.sqrt(over)
            strength = strength * over
        nl = wp.dot(n, towards)
        # nothing shines through the back of the triangle, whatever the interpolated normal says
        if nl > 0.0 and wp.dot(towards, facing) > 0.0:
            share = lit(light, k, position, facing)
            if share > 0.0:
                strength = strength * (nl * share)
                half = towards + towards_eye
                half = half * (1.0 / most(wp.length(half), 1.0e-6))
                nh = within(wp.dot(n, half), 0.0, 1.0)
                g = 1.0 - within(wp.dot(towards_eye, half), 0.0, 1.0)
                g2 = g * g
                fresnel = f0 + (one - f0) * (g2 * g2 * g)
                d = nh * nh * (a2 - 1.0) + 1.0
                visible = most(nl * (nv * (1.0 - a) + a) + nv * (nl * (1.0 - a) + a), 1.0e-6)
                spread = 0.5 * a2 / (d * d * visible)
                back = wp.cw_mul(base, one - fresnel) + fresnel * spread
                total = total + wp.cw_mul(strength, back) * _OVER_PI
                received = received + strength
    luminance = 0.2126 * received[0] + 0.7152 * received[1] + 0.0722 * received[2]
    return wp.vec4(total[0], total[1], total[2], luminance * _OVER_PI)
