"""The slow, readable twin of the shading kernels: what a fragment looks like, in plain NumPy and double precision.

A fragment is a triangle met by the ray of one sample. Its attributes are interpolated at the exact intersection of ray
and plane, its material is glTF metallic-roughness, and everything is computed in linear light.
"""

from dataclasses import dataclass

import numpy as np

from render import light_kernels as lk
from render import lights as light
from render import texels as tx
from render.lights import Lights
from render.material_kernels import LEAST_ROUGHNESS
from render.rays import Rays, Shadows
from render.shade_kernels import CLEAR
from render.texels import Packed

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


@dataclass
class Fragments:
    """N fragments: triangle, its corners, the ray, barycentrics (N,3), and what a pixel right or down adds to them."""

    triangle: np.ndarray
    corners: np.ndarray  # (N,3,3)
    ray: np.ndarray  # (N,3)
    bary: np.ndarray
    bary_x: np.ndarray
    bary_y: np.ndarray


def meet(
    packed: Packed, vertices: np.ndarray, rays: Rays, triangle: np.ndarray, u: np.ndarray, v: np.ndarray
) -> Fragments:
    """Barycentrics of triangles (N,) at the rays through pixels (u, v), by ray and plane (Moeller and Trumbore)."""
    corners = vertices[packed.faces[triangle]].astype(np.float64)
    d = rays.through(u, v)
    right, down = rays.steps()
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    offset = rays.eye - corners[:, 0]
    n, p = np.cross(e2, e1), np.stack([np.cross(e2, offset), np.cross(offset, e1)], axis=1)
    determinant = np.sum(d * n, axis=1)
    determinant = np.where(np.abs(determinant) < 1e-30, 1e-30, determinant)[:, None]
    b = np.einsum("nc,nkc->nk", d, p) / determinant
    exact = np.clip(np.column_stack([1 - b.sum(axis=1), b]), 0.0, 1.0)  # on an edge it may lie a rounding error beyond
    exact /= exact.sum(axis=1, keepdims=True)

    def change(step: np.ndarray) -> np.ndarray:
        """The derivative of the quotients b along a step of the ray."""
        moved = (p @ step - exact[:, 1:] * (n @ step)[:, None]) / determinant
        return np.column_stack([-moved.sum(axis=1), moved])

    return Fragments(triangle, corners, d, exact, change(right), change(down))


def sample(
    packed: Packed, texture: np.ndarray, fragments: Fragments, chosen: np.ndarray, finest: bool = False
) -> np.ndarray:
    """Texture rows (N,) at the fragments `chosen` -> (N,4): colour linear if the texture is sRGB, alpha as stored.

    Trilinear over the mip levels; with `finest`, bilinear on level 0 alone, which is how alpha is tested: the layers
    and every sample of the image must agree on where a surface is.
    """
    out = np.zeros((len(texture), 4))
    for t in np.unique(texture):
        at = texture == t
        row = packed.texture_int[t]
        uv = packed.uv1 if row[tx.UV_SET] == 1 else packed.uv
        corner = uv[packed.faces[fragments.triangle[chosen[at]]]].astype(np.float64)
        m = packed.texture_uv[t].astype(np.float64).reshape(2, 3)
        here, right, down = (
            np.einsum("nk,nkc->nc", b[chosen[at]], corner) @ m[:, :2].T
            for b in (fragments.bary, fragments.bary_x, fragments.bary_y)
        )
        here = here + m[:, 2]
        if finest:
            out[at] = _bilinear(packed, row, here, np.zeros(len(here), np.int64))
            continue
        size = row[[tx.WIDTH, tx.HEIGHT]]
        a, b = np.linalg.norm(right * size, axis=1), np.linalg.norm(down * size, axis=1)
        # Half the longer side of the footprint, unless the shorter is longer still: at grazing angles the samples of a
        # pixel hide the aliasing that this leaves, and floors stay sharp.
        footprint = np.maximum(np.minimum(a, b), 0.5 * np.maximum(a, b))
        # 2^low (1 + w): linear in the footprint between the texels of two levels, which needs no logarithm.
        mantissa, exponent = np.frexp(np.where(footprint > 1, footprint, 1.0))
        top = row[tx.LEVEL_COUNT] - 1
        low, high = np.minimum(exponent - 1, top), np.minimum(exponent, top)
        w = (2 * mantissa - 1)[:, None]
        out[at] = _bilinear(packed, row, here, low) * (1 - w) + _bilinear(packed, row, here, high) * w
    return out


def _bilinear(packed: Packed, row: np.ndarray, uv: np.ndarray, level: np.ndarray) -> np.ndarray:
    width = np.maximum(row[tx.WIDTH] >> level, 1)
    height = np.maximum(row[tx.HEIGHT] >> level, 1)
    first = row[tx.LEVELS + level]
    x = _folded(uv[:, 0], row[tx.WRAP_S]) * width - 0.5
    y = _folded(uv[:, 1], row[tx.WRAP_T]) * height - 0.5
    x0, y0 = np.floor(x), np.floor(y)
    total, weights = np.zeros((len(uv), 4)), np.zeros(len(uv))
    for dy in (0, 1):
        for dx in (0, 1):
            w = np.where(dx, x - x0, 1 - x + x0) * np.where(dy, y - y0, 1 - y + y0)
            i, j = _wrap(x0 + dx, width, row[tx.WRAP_S]), _wrap(y0 + dy, height, row[tx.WRAP_T])
            word = packed.texels[first + j * width + i]
            texel = np.stack([(word >> np.uint32(8 * c)) & np.uint32(255) for c in range(4)], axis=-1)
            value = texel / 255.0
            if row[tx.SRGB]:
                value[:, :3] = tx.SRGB_LINEAR[texel[:, :3]]
            share = w * np.maximum(value[:, 3], tx.LEAST_WEIGHT) if row[tx.WEIGHTED] else w
            total[:, :3] += value[:, :3] * share[:, None]
            total[:, 3] += value[:, 3] * w
            weights += share
    total[:, :3] /= weights[:, None]
    return total


def _folded(x: np.ndarray, mode: int) -> np.ndarray:
    """x in one period of its wrap mode, so that no coordinate is too large for an integer texel."""
    if mode == tx.CLAMP:
        return np.clip(x, -1.0, 2.0)
    return x - np.floor(x) if mode == tx.REPEAT else x - 2 * np.floor(x / 2)


def _wrap(i: np.ndarray, size: np.ndarray, mode: int) -> np.ndarray:
    i = i.astype(np.int64)
    if mode == tx.CLAMP:
        return np.clip(i, 0, size - 1)
    if mode == tx.REPEAT:
        return i % size
    i = i % (2 * size)
    return np.where(i < size, i, 2 * size - 1 - i)


def half(image: np.ndarray, srgb: bool, weighted: bool) -> np.ndarray:
    """The twin of `texels.half`: one mip level up, image (h,w,4) uint8, equal to the last bit."""
    h, w = max(1, image.shape[0] // 2), max(1, image.shape[1] // 2)
    rows = [image[: 2 * h : 2], image[1 : 2 * h : 2]] if image.shape[0] > 1 else [image]
    parts = [p for r in rows for p in ((r[:, : 2 * w : 2], r[:, 1 : 2 * w : 2]) if r.shape[1] > 1 else (r,))]
    quad = np.stack(parts).astype(np.int64)
    color, alpha, count = quad[..., :3], quad[..., 3:], len(parts)
    value = tx.TO_16[color].astype(np.int64) if srgb else color * 257
    mean = (value.sum(axis=0) + count // 2) // count
    if weighted:
        total = alpha.sum(axis=0)
        mean = np.where(total > 0, (value * alpha).sum(axis=0) // np.maximum(total, 1), mean)
    rgb = tx.TO_8[mean] if srgb else (mean + 128) // 257
    return np.concatenate([rgb, (alpha.sum(axis=0) + count // 2) // count], axis=-1).astype(np.uint8)


def interpolate(values: np.ndarray, packed: Packed, fragments: Fragments) -> np.ndarray:
    """Vertex attributes (V,C) at the fragments (N,C)."""
    return np.einsum("nk,nkc->nc", fragments.bary, values[packed.faces[fragments.triangle]].astype(np.float64))


def alpha_of(packed: Packed, fragments: Fragments) -> np.ndarray:
    """Alpha (N,) of the fragments: 1 on OPAQUE, 0 or 1 on MASK, the product of factor, texture and vertex on BLEND."""
    material = packed.material[fragments.triangle]
    mode = packed.material_int[material, tx.ALPHA_MODE]
    alpha = packed.material_float[material, tx.BASE + 3].astype(np.float64)
    if len(packed.colors):
        alpha = alpha * interpolate(packed.colors[:, 3:], packed, fragments)[:, 0]
    texture = packed.material_int[material, tx.BASE_TEX]
    at = np.flatnonzero((texture >= 0) & (mode != tx.OPAQUE))
    alpha[at] *= sample(packed, texture[at], fragments, at, finest=True)[:, 3]
    masked = (alpha >= packed.material_float[material, tx.CUTOFF]).astype(np.float64)
    return np.where(mode == tx.OPAQUE, 1.0, np.where(mode == tx.MASK, masked, np.clip(alpha, 0, 1)))


def keep(packed: Packed, vertices: np.ndarray, rays: Rays, triangle: np.ndarray) -> np.ndarray:
    """Which hits (S,H,W) are surfaces: OPAQUE always, MASK above its cutoff, BLEND from alpha 0.5 on. -1 is no hit."""
    out = triangle >= 0
    s, v, u = np.nonzero(out)
    out[s, v, u] = alpha_of(packed, meet(packed, vertices, rays, triangle[s, v, u], u, v)) >= 0.5
    return out


def shade(
    packed: Packed, vertices: np.ndarray, rays: Rays, lights: Lights, shadows: Shadows, triangle: np.ndarray, side: int
) -> np.ndarray:
    """Image of the hits (S, H*side, W*side) -> (H,W,5) float32: premultiplied linear RGB, alpha, irradiance.

    Front to back over the hits of a sample; then the mean over the side x side samples of a pixel. A sample's alpha is
    below 0.5 exactly where none of its hits is a surface in the sense of `keep`, so that alpha at one sample a pixel
    agrees with hard validity even behind stacked panes of glass. `irradiance` is the luminance of the light on the
    first surface over pi, times alpha: what exposure is chosen from.
    """
    slots, height, width = triangle.shape
    out = np.zeros((height, width, 5))
    through = np.ones((height, width))
    solid = np.zeros((height, width), bool)
    for s in range(slots):
        v, u = np.nonzero((triangle[s] >= 0) & ((through > CLEAR) | ~solid))
        if not len(v):
            break
        fragments = meet(packed, vertices, rays, triangle[s, v, u], u, v)
        alpha = alpha_of(packed, fragments)
        seen = np.flatnonzero(alpha > 0)
        v, u, alpha = v[seen], u[seen], alpha[seen]
        fragments = meet(packed, vertices, rays, fragments.triangle[seen], u, v)
        color, received = radiance(packed, fragments, rays, lights, shadows)
        weight = through[v, u] * alpha
        out[v, u, :3] += weight[:, None] * color
        out[v, u, 4] += weight * received
        through[v, u] *= 1 - alpha
        solid[v, u] |= alpha >= 0.5
    alpha = 1 - through
    capped = np.where(solid, np.maximum(alpha, 128 / 255), np.minimum(alpha, 127 / 255))
    out *= (capped / np.maximum(alpha, 1e-6))[..., None]
    out[..., 3] = capped
    return out.reshape(height // side, side, width // side, side, 5).mean(axis=(1, 3)).astype(np.float32)


def radiance(
    packed: Packed, fragments: Fragments, rays: Rays, lights: Lights, shadows: Shadows
) -> tuple[np.ndarray, np.ndarray]:
    """Linear RGB (N,3) that the fragments send to the eye, and the irradiance (N,) luminance / pi that they receive.

    GGX with Smith's visibility (Hammon's approximation) and Schlick's Fresnel over a Lambert base weighted by 1 - F;
    the environment through its irradiance at the normal, and at the mirrored ray with Karis' fit of the integrated GGX.
    """
    material = packed.material[fragments.triangle]
    factors = packed.material_float[material].astype(np.float64)
    ints = packed.material_int[material]

    def textured(column: int, default: float = 1.0) -> np.ndarray:
        value = np.full((len(material), 4), default)
        at = np.flatnonzero(ints[:, column] >= 0)
        value[at] = sample(packed, ints[at, column], fragments, at)
        return value

    albedo = factors[:, tx.BASE : tx.BASE + 3] * textured(tx.BASE_TEX)[:, :3]
    if len(packed.colors):
        albedo = albedo * interpolate(packed.colors[:, :3], packed, fragments)
    rough = textured(tx.ROUGH_TEX)
    roughness = np.clip(factors[:, tx.ROUGHNESS] * rough[:, 1], LEAST_ROUGHNESS, 1.0)
    metallic = np.clip(factors[:, tx.METALLIC] * rough[:, 2], 0.0, 1.0)
    emitted = factors[:, tx.EMISSIVE : tx.EMISSIVE + 3] * textured(tx.EMISSIVE_TEX)[:, :3]
    occlusion = textured(tx.OCCLUSION_TEX)[:, 0]

    view = -fragments.ray / np.linalg.norm(fragments.ray, axis=1, keepdims=True)
    n, facing = normals(packed, fragments, view)
    position = np.einsum("nk,nkc->nc", fragments.bary, fragments.corners)
    nv = np.maximum(np.sum(n * view, axis=1), 1e-3)
    f0 = 0.04 + (albedo - 0.04) * metallic[:, None]
    base = albedo * (1 - metallic[:, None])
    a2 = roughness**4
    a = roughness**2

    sky = light.irradiance(lights.sh.astype(np.float64), n) * occlusion[:, None]
    mirrored = 2 * nv[:, None] * n - view
    scale, bias = _environment_brdf(roughness, nv)
    gloss = light.irradiance(lights.sh.astype(np.float64), mirrored) * occlusion[:, None]
    coat = f0 * scale[:, None] + bias[:, None]  # what the gloss sends back the base does not get
    total = (base * (1 - coat) * sky + coat * gloss) / np.pi + emitted
    received = sky.copy()
    for k in range(len(lights.kind)):
        vector = lights.vector[k].astype(np.float64)
        if lights.kind[k] == light.POINT:
            towards = vector - position
            distance2 = np.maximum(np.sum(towards**2, axis=1), 1e-4)
            towards = towards / np.sqrt(distance2)[:, None]
            strength = lights.color[k] / distance2[:, None]
        else:
            towards = np.broadcast_to(vector, position.shape)
            strength = np.broadcast_to(lights.color[k].astype(np.float64), position.shape)
        # nothing shines through the back of the triangle, whatever the interpolated normal says
        nl = np.where(np.sum(towards * facing, axis=1) > 0, np.maximum(np.sum(n * towards, axis=1), 0.0), 0.0)
        strength = strength * (nl * lit(shadows, lights, k, position, facing))[:, None]
        half = towards + view
        half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
        nh = np.clip(np.sum(n * half, axis=1), 0, 1)
        fresnel = f0 + (1 - f0) * ((1 - np.clip(np.sum(view * half, axis=1), 0, 1)) ** 5)[:, None]
        spread = a2 / (np.pi * (nh * nh * (a2 - 1) + 1) ** 2)
        visible = 0.5 / np.maximum(nl * (nv * (1 - a) + a) + nv * (nl * (1 - a) + a), 1e-6)
        total = total + strength * (base * (1 - fresnel) / np.pi + fresnel * (spread * visible)[:, None])
        received = received + strength
    return total, received @ LUMINANCE / np.pi


def normals(packed: Packed, fragments: Fragments, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shading normals and triangle normals (N,3) at the fragments, both on the viewer's side of the triangle."""
    e1 = fragments.corners[:, 1] - fragments.corners[:, 0]
    e2 = fragments.corners[:, 2] - fragments.corners[:, 0]
    facing = np.cross(e1, e2)
    facing = facing / np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-30)
    facing = np.where(np.sum(facing * view, axis=1, keepdims=True) < 0, -facing, facing)
    n = facing
    if len(packed.normals):
        smooth = interpolate(packed.normals, packed, fragments)
        length = np.linalg.norm(smooth, axis=1, keepdims=True)
        smooth = np.where(np.sum(smooth * facing, axis=1, keepdims=True) < 0, -smooth, smooth)
        n = np.where(length > 1e-6, smooth / np.maximum(length, 1e-6), facing)
    material = packed.material[fragments.triangle]
    texture = packed.material_int[material, tx.NORMAL_TEX]
    at = np.flatnonzero(texture >= 0)
    if len(at):
        bump = sample(packed, texture[at], fragments, at)[:, :3] * 2 - 1
        bump[:, :2] *= packed.material_float[material[at], tx.NORMAL_SCALE][:, None]
        second = (packed.texture_int[texture[at], tx.UV_SET] == 1)[:, None, None]
        uv = np.where(second, *(_corner_uv(uv, packed, fragments, at) for uv in (packed.uv1, packed.uv)))
        m = packed.texture_uv[texture[at]].astype(np.float64).reshape(-1, 2, 3)
        uv = np.einsum("nij,nkj->nki", m[:, :, :2], uv)
        d1, d2 = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
        area = d1[:, 0] * d2[:, 1] - d2[:, 0] * d1[:, 1]
        sign = np.where(area < 0, -1.0, 1.0)[:, None]
        along_u = (e1[at] * d2[:, 1:] - e2[at] * d1[:, 1:]) * sign
        along_v = (e2[at] * d1[:, :1] - e1[at] * d2[:, :1]) * sign
        # the green of a glTF normal map points up in the image, against v
        bent = bump[:, :1] * _across(along_u, n[at]) - bump[:, 1:2] * _across(along_v, n[at]) + bump[:, 2:] * n[at]
        length = np.linalg.norm(bent, axis=1, keepdims=True)
        usable = (np.abs(area)[:, None] > 1e-20) & (length > 1e-6)
        n = n.copy()
        n[at] = np.where(usable, bent / np.maximum(length, 1e-6), n[at])
    return n, facing


def _corner_uv(uv: np.ndarray, packed: Packed, fragments: Fragments, at: np.ndarray) -> np.ndarray:
    if not len(uv):
        return np.zeros((len(at), 3, 2))
    return uv[packed.faces[fragments.triangle[at]]].astype(np.float64)


def _across(tangent: np.ndarray, n: np.ndarray) -> np.ndarray:
    tangent = tangent - n * np.sum(tangent * n, axis=1, keepdims=True)
    return tangent / np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-20)


def _environment_brdf(roughness: np.ndarray, nv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r0, r1, r2, r3 = 1 - roughness, 0.0425 - 0.0275 * roughness, 1.04 - 0.572 * roughness, 0.022 * roughness - 0.04
    edge = np.minimum(r0 * r0, np.exp2(-9.28 * nv)) * r0 + r1
    return np.maximum(r2 - 1.04 * edge, 0.0), np.maximum(1.04 * edge + r3, 0.0)


def lit(shadows: Shadows, lights: Lights, index: int, position: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """Share (N,) of light `index` that reaches the positions (N,3): a filtered look into its depth maps.

    A box of one pixel in the one map of a light: 2x2 pixels, weighted. A box of two pixels in the one of six maps of a
    lamp that looks there, along +x, +y, +z, -x, -y or -z: 3x3, each compared with the depth of the triangle's plane.
    """
    first, last = shadows.first[index : index + 2]
    cube = bool(last - first > 1)
    face = np.zeros(len(position), np.int64)
    if cube:
        d = position - lights.vector[index].astype(np.float64)
        d = d + facing * (lk.SOFT_OFFSET * shadows.texel[first] * np.abs(d).max(axis=1))[:, None]
        face = np.argmax(np.abs(d), axis=1)
        face += 3 * (np.take_along_axis(d, face[:, None], axis=1)[:, 0] < 0)
    out = np.ones(len(position))
    for m in range(first, last):
        at = np.flatnonzero(face == m - first)
        out[at] = _seen_by(shadows, m, cube, position[at], facing[at])
    return out


def _seen_by(shadows: Shadows, m: int, cube: bool, position: np.ndarray, facing: np.ndarray) -> np.ndarray:
    height, width = shadows.depth.shape[1:]
    offset, bias, half = (lk.SOFT_OFFSET, lk.SOFT_BIAS, 1.0) if cube else (lk.SHARP_OFFSET, lk.SHARP_BIAS, 0.5)
    matrix = shadows.matrix[m].astype(np.float64)
    depth = position @ matrix[2, :3] + matrix[2, 3]
    # Moved off the surface by the size of a map's pixel there, or the surface would shade itself.
    size = shadows.texel[m] * np.maximum(depth, 0.0)
    image = (position + facing * (offset * size)[:, None]) @ matrix[:, :3].T + matrix[:, 3]
    z = np.maximum(image[:, 2], 1e-6)
    x, y = image[:, 0] / z - 0.5, image[:, 1] / z - 0.5
    edge = half - 0.5
    inside = (image[:, 2] > 1e-4) & (x >= edge) & (y >= edge) & (x < width - 1 - edge) & (y < height - 1 - edge)
    x, y, z = x[inside], y[inside], (z - bias * size)[inside]
    # 1 / z of the plane is affine in the pixel: by which shares of itself it grows to the right and down
    n = facing[inside] @ np.linalg.inv(matrix[:, :3])
    slope = n[:, 0] * (x + 0.5) + n[:, 1] * (y + 0.5) + n[:, 2]
    slope = np.where(np.abs(slope) > 1e-12, slope, 1e-12)
    right, down = (np.clip(n[:, c] / slope, -lk.STEEP, lk.STEEP) if cube else 0.0 for c in (0, 1))
    share = np.zeros(len(x))
    for dy in range(3):
        for dx in range(3):
            # the pixels that a box of half-width `half` touches, and how much of each, of its whole area
            i, j = np.floor(x - half + 0.5) + dx, np.floor(y - half + 0.5) + dy
            w = np.clip(half + 0.5 - np.abs(x - i), 0, 1) * np.clip(half + 0.5 - np.abs(y - j), 0, 1) / (2 * half) ** 2
            i, j = np.minimum(i, width - 1).astype(np.int64), np.minimum(j, height - 1).astype(np.int64)
            share += w * (shadows.depth[m, j, i] * (1 + (i - x) * right + (j - y) * down) >= z)
    out = np.ones(len(position))
    out[inside] = share
    return out
