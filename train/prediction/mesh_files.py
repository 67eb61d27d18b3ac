"""Meshes as GLB or PLY, in the frames that `shards.write_points` writes points in.

PLY keeps the camera frame (+x right, +y down, +z forward). GLB is y-up by definition: (x, y, z) becomes (x, -y, -z), a
half turn about x, under which triangles keep their front; its colours are linear, as glTF wants.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shards import committed
from shards.srgb import LINEAR
from train.prediction.mesh import Mesh

FLOAT, UINT32 = 5126, 5125  # glTF's numbers for component types, buffer targets and primitive modes
VERTICES, INDICES = 34962, 34963
POINTS, TRIANGLES = 0, 4


def write_mesh(path: Path, meshes: Mapping[str, Mesh], extras: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Write meshes as one file: .glb with a node of each name, and its `extras` as JSON in that node; .ply as one mesh.

    A mesh without faces is written as points. ValueError for another suffix, and for vertices that are not finite.
    """
    for name, mesh in meshes.items():
        if not np.isfinite(mesh.vertices).all():
            raise ValueError(f"{path}: not all of the {len(mesh.vertices)} vertices of {name} are finite")
    if path.suffix.lower() == ".glb":
        content = _glb(meshes, extras or {})
    elif path.suffix.lower() == ".ply":
        content = _ply(list(meshes.values()))
    else:
        raise ValueError(f"{path}: meshes are written as .glb or .ply, not as {path.suffix or 'a bare name'}")
    with committed(path) as file:
        file.write(content)
    return path


def _ply(meshes: list[Mesh]) -> bytes:
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = np.concatenate([mesh.faces + start for mesh, start in zip(meshes, first)])
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {first[-1]}"]
    header += [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    vertices = np.empty(first[-1], np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)]))
    vertices["xyz"] = np.concatenate([mesh.vertices for mesh in meshes])
    vertices["rgb"] = np.concatenate([mesh.colours for mesh in meshes])
    lists = np.empty(len(faces), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    lists["count"], lists["corners"] = 3, faces
    return "\n".join([*header, "end_header", ""]).encode() + vertices.tobytes() + lists.tobytes()


def _glb(meshes: Mapping[str, Mesh], extras: Mapping[str, Mapping[str, Any]]) -> bytes:
    nodes: list[dict[str, Any]] = []
    drawn: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    views: list[dict[str, int]] = []
    binary = bytearray()

    def accessor(array: np.ndarray, component: int, kind: str, target: int, **more: Any) -> int:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": array.nbytes, "target": target})
        binary.extend(array.tobytes())  # every array is of four-byte numbers, so all of them stay aligned
        about = {"bufferView": len(views) - 1, "componentType": component, "count": len(array), "type": kind}
        accessors.append(about | more)
        return len(accessors) - 1

    for name, mesh in meshes.items():
        node: dict[str, Any] = {"name": name}
        if name in extras:
            node["extras"] = dict(extras[name])
        if len(mesh.vertices):  # glTF allows no empty accessor
            position = (mesh.vertices * np.array([1, -1, -1], np.float32)).astype("<f4")
            colour = np.ones((len(position), 4), "<f4")  # floats, as in shards.write_points
            colour[:, :3] = LINEAR[mesh.colours]
            limits = {"min": position.min(axis=0).tolist(), "max": position.max(axis=0).tolist()}
            attributes = {
                "POSITION": accessor(position, FLOAT, "VEC3", VERTICES, **limits),
                "COLOR_0": accessor(colour, FLOAT, "VEC4", VERTICES),
            }
            primitive: dict[str, Any] = {"attributes": attributes, "mode": POINTS}
            if len(mesh.faces):
                corners = np.ascontiguousarray(mesh.faces, "<u4").reshape(-1)
                primitive |= {"indices": accessor(corners, UINT32, "SCALAR", INDICES), "mode": TRIANGLES, "material": 0}
            drawn.append({"name": name, "primitives": [primitive]})
            node["mesh"] = len(drawn) - 1
        nodes.append(node)
    scene: dict[str, Any] = {"asset": {"version": "2.0", "generator": "worldtrace"}, "scene": 0}
    scene |= {"scenes": [{"nodes": list(range(len(nodes)))} if nodes else {}]}
    # Layers are open surfaces: what is cut away shows the inside of what is behind it.
    matte = {"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}, "doubleSided": True}
    lists = {"nodes": nodes, "meshes": drawn, "accessors": accessors, "bufferViews": views}
    lists["materials"] = [matte] if any("material" in each["primitives"][0] for each in drawn) else []
    scene |= {key: value for key, value in lists.items() if value}  # nor an empty list
    if binary:
        scene["buffers"] = [{"byteLength": len(binary)}]
    text = json.dumps(scene, separators=(",", ":")).encode()
    chunks = _chunk(text + b" " * (-len(text) % 4), b"JSON")
    if binary:
        chunks += _chunk(bytes(binary), b"BIN\0")
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _chunk(data: bytes, kind: bytes) -> bytes:
    return struct.pack("<I4s", len(data), kind) + data
