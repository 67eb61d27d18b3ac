"""Skins, morph targets, instances and animation clips of a glTF, read into `render.animation`."""

from typing import Any, get_args

import numpy as np

from render.animation import Channel, Clip, Interpolation, Path, Skin
from render.gltf_file import GltfFile, extension, integer, json_object, numbers
from render.gltf_nodes import trs_matrices
from render.mesh import Rejected

_WIDTHS = {"translation": "VEC3", "rotation": "VEC4", "scale": "VEC3", "weights": "SCALAR"}


def read_skin(gltf: GltfFile, index: Any) -> Skin:
    entry = gltf.item("skins", index)
    names = entry.get("joints")
    if not isinstance(names, list) or not names:
        raise Rejected("corrupt", f"skin {index} has no joints")
    joints = np.array([integer(j, f"joint of skin {index}", gltf.count("nodes")) for j in names], np.int64)
    if "inverseBindMatrices" not in entry:
        return Skin(joints, np.tile(np.eye(4), (len(joints), 1, 1)))
    flat = gltf.accessor(entry["inverseBindMatrices"], ("MAT4",))
    if len(flat) < len(joints):
        raise Rejected("corrupt", f"skin {index} has {len(joints)} joints and {len(flat)} inverse bind matrices")
    return Skin(joints, flat[: len(joints)].astype(np.float64).reshape(-1, 4, 4).transpose(0, 2, 1))


def read_influences(
    gltf: GltfFile, attributes: dict[str, Any], rows: np.ndarray, skin: Skin
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (n,k) and weights (n,k) float32, which sum to 1, from JOINTS_i and WEIGHTS_i of the vertices `rows`."""
    joints, weights = [], []
    for i in range(8):  # 32 influences are twice what any exporter writes
        if f"JOINTS_{i}" not in attributes or f"WEIGHTS_{i}" not in attributes:
            break
        joints.append(checked_rows(gltf, attributes[f"JOINTS_{i}"], ("VEC4",), rows, integers=True))
        weights.append(checked_rows(gltf, attributes[f"WEIGHTS_{i}"], ("VEC4",), rows, normalise=True))
    if not joints:
        raise Rejected("corrupt", "a skinned mesh has no JOINTS_0 or no WEIGHTS_0")
    joint, weight = np.concatenate(joints, axis=1).astype(np.int64), np.concatenate(weights, axis=1)
    if not np.isfinite(weight).all():
        raise Rejected("non_finite", "a joint weight is NaN or infinite")
    joint = np.where(weight > 0, joint, 0)  # padding may name any joint
    weight = np.maximum(weight, 0)
    if joint.size and int(joint.max()) >= len(skin.joints):
        raise Rejected("index_out_of_range", f"JOINTS_0 names joint {int(joint.max())} of {len(skin.joints)}")
    total = weight.sum(axis=1, keepdims=True)
    weight = np.where(total > 0, weight / np.where(total > 0, total, 1), np.eye(1, weight.shape[1]))
    return joint, weight.astype(np.float32)


def target_entries(primitive: dict[str, Any]) -> list[Any]:
    entries = primitive.get("targets") or []
    if not isinstance(entries, list):
        raise Rejected("corrupt", "targets is not an array")
    return entries


def read_targets(gltf: GltfFile, primitive: dict[str, Any], rows: np.ndarray, vertex_count: int) -> np.ndarray | None:
    """Displacements (m,n,3) float32 of the morph targets, or None."""
    entries = target_entries(primitive)
    if not entries:
        return None
    out = np.zeros((len(entries), len(rows), 3), np.float32)
    for place, entry in enumerate(entries):
        if isinstance(entry, dict) and "POSITION" in entry:
            if gltf.length(entry["POSITION"]) != vertex_count:
                raise Rejected("corrupt", "a morph target has another number of vertices than its mesh")
            out[place] = checked_rows(gltf, entry["POSITION"], ("VEC3",), rows)
    if not np.isfinite(out).all():
        raise Rejected("non_finite", "a morph target holds NaN or infinite displacements")
    return out


def read_instances(gltf: GltfFile, node: dict[str, Any]) -> np.ndarray | None:
    """(I,4,4) of EXT_mesh_gpu_instancing, or None."""
    found = extension(node, "EXT_mesh_gpu_instancing")
    if found is None:
        return None
    attributes = found.get("attributes")
    if not isinstance(attributes, dict) or not attributes:
        return None
    counts = {gltf.length(a) for name, a in attributes.items() if name in ("TRANSLATION", "ROTATION", "SCALE")}
    if len(counts) != 1:
        raise Rejected("corrupt", f"the instances of a node have attributes of {len(counts)} different lengths")
    count = counts.pop()
    if count > gltf.limits.nodes:
        raise Rejected("too_many_nodes", f"{count} instances of a mesh; the limit is {gltf.limits.nodes}")
    translation, rotation, scale = np.zeros((count, 3)), np.tile([0.0, 0.0, 0.0, 1.0], (count, 1)), np.ones((count, 3))
    if "TRANSLATION" in attributes:
        translation = gltf.accessor(attributes["TRANSLATION"], ("VEC3",)).astype(np.float64)
    if "ROTATION" in attributes:
        rotation = gltf.accessor(attributes["ROTATION"], ("VEC4",)).astype(np.float64)
    if "SCALE" in attributes:
        scale = gltf.accessor(attributes["SCALE"], ("VEC3",)).astype(np.float64)
    return trs_matrices(translation, rotation, scale)


def rest_weights(node: dict[str, Any], mesh: dict[str, Any], count: int) -> np.ndarray:
    """Morph weights (count,) at rest: the node's, else the mesh's, else zero."""
    value = node.get("weights", mesh.get("weights"))
    return np.zeros(count) if value is None else numbers(value, count, "morph weights")


def read_clip(gltf: GltfFile, morph_counts: dict[int, int]) -> Clip | None:
    """The first animation of the file in which anything changes, or None.

    `morph_counts` says how many morph targets the mesh of a node has. Raises Rejected("non_finite_animation").
    """
    for index in range(gltf.count("animations")):
        entry = gltf.item("animations", index)
        samplers, numbers_left = entry.get("samplers"), gltf.limits.vertices
        channels: list[Channel] = []
        if not isinstance(samplers, list) or not isinstance(entry.get("channels"), list):
            raise Rejected("corrupt", f"animation {index} has no samplers or no channels")
        for channel in entry["channels"]:
            channel = json_object(channel, "a channel")
            target = json_object(channel.get("target"), "the target of a channel")
            path: Any = target.get("path")
            if "node" not in target or path not in get_args(Path):
                continue  # an extension's target, such as a material's colour
            node = integer(target["node"], "target of an animation", gltf.count("nodes"))
            if path == "weights" and node not in morph_counts:
                continue
            sampler = samplers[integer(channel.get("sampler"), "sampler of an animation", len(samplers))]
            sampler = json_object(sampler, "a sampler")
            numbers_left -= gltf.length(sampler.get("input")) + gltf.length(sampler.get("output"))
            if numbers_left < 0:
                raise Rejected("too_many_keys", f"the clip has more than {gltf.limits.vertices} keys")
            if len(channels) == gltf.limits.nodes:
                raise Rejected("too_many_keys", f"the clip has more than {gltf.limits.nodes} channels")
            channels.append(_channel(gltf, sampler, node, path, morph_counts.get(node, 0)))
        duration = max((float(c.times[-1]) for c in channels), default=0.0)
        if duration > 0 and any((c.values != c.values[:1]).any() for c in channels):
            return Clip(tuple(channels), duration)
    return None


def _channel(gltf: GltfFile, sampler: dict[str, Any], node: int, path: Path, morphs: int) -> Channel:
    interpolation: Interpolation = sampler.get("interpolation", "LINEAR")
    if interpolation not in get_args(Interpolation):
        raise Rejected("corrupt", f"interpolation {str(interpolation)[:40]!r} does not exist")
    times = gltf.accessor(sampler.get("input"), ("SCALAR",))[:, 0].astype(np.float64)
    values = gltf.accessor(sampler.get("output"), (_WIDTHS[path],)).astype(np.float64)
    if not np.isfinite(times).all() or not np.isfinite(values).all():
        raise Rejected("non_finite_animation", f"the {path} keys of node {node} hold NaN or infinite numbers")
    if len(times) == 0 or (np.diff(times) < 0).any() or times[0] < 0:
        raise Rejected("corrupt", f"the key times of node {node} do not increase from zero")
    per_key, width = (3 if interpolation == "CUBICSPLINE" else 1), (morphs if path == "weights" else values.shape[1])
    if values.size != len(times) * per_key * width:
        raise Rejected("corrupt", f"node {node} has {len(times)} key times and {values.size} numbers for its {path}")
    shape = (len(times), 3, width) if per_key == 3 else (len(times), width)
    return Channel(node, path, times, values.reshape(shape), interpolation)


def checked_rows(
    gltf: GltfFile,
    accessor: Any,
    types: tuple[str, ...],
    rows: np.ndarray,
    *,
    normalise: bool = False,
    integers: bool = False,
) -> np.ndarray:
    """Rows of a vertex attribute, which must have as many elements as the indices reach."""
    length = gltf.length(accessor)
    if len(rows) and int(rows.max()) >= length:
        raise Rejected("index_out_of_range", f"vertex {int(rows.max())} of an attribute with {length} elements")
    if integers:
        return gltf.integers(accessor, types)[rows]
    return gltf.accessor(accessor, types, rows, normalise=normalise)
