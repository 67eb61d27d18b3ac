"""Packed meshes, rays and lights as the shading kernels take them: arrays of records on the device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import warp as wp

from render import fragment_kernels as fragment
from render import light_kernels
from render import texels as tx
from render.lights import Lights
from render.rays import Rays, Shadows
from render.texels import Packed


def scene_of(packed: Packed, device: Any) -> Any:
    """A `fragment_kernels.Scene`; `move` gives it vertices."""
    scene: Any = fragment.Scene()
    scene.faces = _array(packed.faces, wp.vec3i, device)
    scene.material = _array(packed.material, wp.int32, device)
    scene.uv = _array(_one_row(packed.uv), wp.vec2, device)
    scene.uv1 = _array(_one_row(packed.uv1), wp.vec2, device)
    scene.colors = _array(_one_row(packed.colors), wp.vec4, device)
    scene.texels = _array(packed.texels, wp.uint32, device)
    scene.decode = _array(tx.DECODE, wp.float32, device)
    scene.has_uv = int(len(packed.uv) > 0)
    scene.has_colors = int(len(packed.colors) > 0)
    scene.tested = int(packed.tested)

    t = packed.texture_int
    count = t[:, tx.LEVEL_COUNT]
    level = np.concatenate([np.arange(c) for c in [0, *count]]).astype(np.int32)
    row = np.repeat(np.arange(len(t)), count)
    scene.levels = _records(
        fragment.Level,
        device,
        width=np.maximum(t[row, tx.WIDTH] >> level, 1),
        height=np.maximum(t[row, tx.HEIGHT] >> level, 1),
        first=t[row, tx.LEVELS + level],
    )
    scene.textures = _records(
        fragment.Texture,
        device,
        levels=np.cumsum(count) - count,
        top=count - 1,
        width=t[:, tx.WIDTH],
        height=t[:, tx.HEIGHT],
        wrap_s=t[:, tx.WRAP_S],
        wrap_t=t[:, tx.WRAP_T],
        second=t[:, tx.UV_SET],
        table=t[:, tx.SRGB] * 256,
        weighted=t[:, tx.WEIGHTED],
        row_u=packed.texture_uv[:, :3],
        row_v=packed.texture_uv[:, 3:],
    )
    ints, floats = packed.material_int, packed.material_float
    uses, texture, roles = _uses(ints[:, : tx.ALPHA_MODE])
    scene.materials = _records(
        fragment.Material,
        device,
        color=floats[:, tx.BASE : tx.BASE + 4],
        emissive=floats[:, tx.EMISSIVE : tx.EMISSIVE + 3],
        metallic=floats[:, tx.METALLIC],
        roughness=floats[:, tx.ROUGHNESS],
        normal_scale=floats[:, tx.NORMAL_SCALE],
        cutoff=floats[:, tx.CUTOFF],
        mode=ints[:, tx.ALPHA_MODE],
        alpha=ints[:, tx.BASE_TEX],
        first_use=np.cumsum(uses) - uses,
        last_use=np.cumsum(uses),
    )
    scene.uses = _records(fragment.Use, device, texture=texture, roles=roles)
    return scene


def _uses(textures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Textures (M,5) by role, -1 is none -> how many distinct ones each material uses (M,), which, in which roles."""
    found = [{int(t): 0 for t in row if t >= 0} for row in textures]
    for row, roles in zip(textures, found, strict=True):
        for role, t in enumerate(row):
            if t >= 0:
                roles[int(t)] += 1 << role
    flat = np.array([use for roles in found for use in roles.items()], np.int64).reshape(-1, 2)
    return np.array([len(roles) for roles in found]), flat[:, 0], flat[:, 1]


def move(scene: Any, vertices: np.ndarray, normals: np.ndarray | None, device: Any) -> None:
    """Gives `scene` the vertices (V,3), world frame, and the normals (V,3) of a pose; None is flat shading."""
    scene.vertices = _array(np.asarray(vertices, np.float32), wp.vec3, device)
    scene.normals = _array(np.zeros((1, 3), np.float32) if normals is None else normals, wp.vec3, device)
    scene.has_normals = int(normals is not None)


def views_of(rays: Sequence[Rays], origins: np.ndarray, device: Any) -> Any:
    """An array of `fragment_kernels.View`: `rays`, seen through windows that begin at origins (B,2), (row, column)."""
    origins, start = np.asarray(origins), np.zeros(())
    return _records(
        fragment.View,
        device,
        eye=np.stack([r.eye for r in rays]),
        first=np.stack([r.through(start, start) for r in rays]),
        right=np.stack([r.steps()[0] for r in rays]),
        down=np.stack([r.steps()[1] for r in rays]),
        row=origins[:, 0],
        column=origins[:, 1],
    )


def lighting_of(lights: Sequence[Lights], shadows: Shadows, device: Any) -> Any:
    """A `light_kernels.Lighting`; the depth of `shadows` may lie on the device already."""
    light: Any = light_kernels.Lighting()
    light.sky = _records(light_kernels.Sky, device, **polynomial(np.stack([one.sh for one in lights])))
    light.start = _array(np.cumsum([0, *(len(one.kind) for one in lights)]), wp.int32, device)
    light.kind = _array(np.concatenate([one.kind for one in lights]), wp.int32, device)
    light.vector = _array(np.concatenate([one.vector for one in lights]), wp.vec3, device)
    light.color = _array(np.concatenate([one.color for one in lights]), wp.vec3, device)
    light.first = _array(shadows.first, wp.int32, device)
    depth: Any = shadows.depth
    if isinstance(depth, np.ndarray):
        depth = _array(_one_row(depth), wp.float32, device)
    light.height, light.width = depth.shape[1:]
    light.depth = depth.reshape(-1)
    light.matrix = _array(_one_row(shadows.matrix), wp.vec4, device)
    light.plane = _array(_one_row(planes(shadows.matrix)), wp.mat33, device)
    light.texel = _array(_one_row(shadows.texel), wp.float32, device)
    return light


def planes(matrix: np.ndarray) -> np.ndarray:
    """From the matrices (M,3,4) of depth maps those (M,3,3) float32 that take the normal of a plane in the world to
    the a, b, c of 1 / z = (a u + b v + c) / const in the map: the transposed inverses of their linear parts."""
    return np.linalg.inv(matrix[:, :, :3].astype(np.float64)).transpose(0, 2, 1).astype(np.float32)


def polynomial(sh: np.ndarray) -> dict[str, np.ndarray]:
    """Irradiance coefficients (B,9,3) of `lights.sh_basis` as those of a polynomial, each (B,4) with a zero behind."""
    factor = [0.282095, 0.488603, 0.488603, 0.488603, 1.092548, 1.092548, 3 * 0.315392, 1.092548, 0.546274]
    c = np.zeros((len(sh), 9, 4))
    c[..., :3] = sh * np.array(factor)[:, None]
    c[:, 0, :3] -= 0.315392 * sh[:, 6]
    names = ("one", "y", "z", "x", "xy", "yz", "zz", "xz", "xx_yy")
    return {name: c[:, k] for k, name in enumerate(names)}


def _records(kind: Any, device: Any, **columns: np.ndarray) -> Any:
    """A Warp array of structs `kind` from one array for each member, a row of zeros in place of none."""
    length = len(next(iter(columns.values())))
    table: Any = np.zeros(max(length, 1), kind.numpy_dtype())
    for name, values in columns.items():
        table[name][:length] = values
    return wp.array(table, dtype=kind, device=device)


def _array(values: np.ndarray, dtype: Any, device: Any) -> Any:
    return wp.array(np.ascontiguousarray(values), dtype=dtype, device=device, copy=device.is_cuda)


def _one_row(values: np.ndarray) -> np.ndarray:
    """values, or a row of zeros in place of none: a kernel's array must not be empty."""
    return values if len(values) else np.zeros((1, *values.shape[1:]), values.dtype)
