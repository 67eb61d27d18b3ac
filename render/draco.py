"""KHR_draco_mesh_compression, where the optional package DracoPy is installed; else such a mesh is refused by name.

The decoder is native code that reads hostile bytes: what it may do to its process, the limits of a render job's worker
end (docs/assets.md). Here, what it gives must be what the glTF announced before anything was decoded.
"""

import importlib.util
from typing import Any

import numpy as np

from render.gltf_file import GltfFile, integer, json_object
from render.mesh import Rejected

NAME = "KHR_draco_mesh_compression"
_TRIANGLES, _STRIP = 4, 5


def available() -> bool:
    return importlib.util.find_spec("DracoPy") is not None


def decompressed(gltf: GltfFile, primitive: dict[str, Any], compressed: dict[str, Any]) -> dict[str, Any]:
    """`primitive` as plain triangles; `gltf` gives what its accessors name from now on.

    Raises Rejected: corrupt where the data is not what the file announces, too_many_faces and too_many_vertices.
    """
    attributes = json_object(primitive.get("attributes"), "attributes")
    ids = json_object(compressed.get("attributes"), f"attributes of {NAME}")
    if "indices" not in primitive or "POSITION" not in ids:
        raise Rejected("corrupt", f"{NAME} without indices or without positions")
    count, corners = gltf.length(attributes.get("POSITION")), gltf.length(primitive["indices"])
    if corners > 3 * gltf.limits.faces:
        raise Rejected("too_many_faces", f"more than {gltf.limits.faces} triangles")
    view = integer(compressed.get("bufferView"), f"bufferView of {NAME}")
    named = {name: number for name, number in ids.items() if name in attributes}
    plain = {**primitive, "mode": _TRIANGLES}
    if all(gltf.provided(index, view) for index in (primitive["indices"], *(attributes[name] for name in named))):
        return plain  # two primitives may differ in their material alone
    gltf.allow(count * len(named), f"{NAME} of a primitive")
    found, faces = _decoded(gltf.view_bytes(view))
    strip = primitive.get("mode") == _STRIP  # of n corners, which make n - 2 triangles
    if len(faces) > corners - 2 if strip else len(faces) * 3 != corners:
        raise Rejected("corrupt", f"{NAME} holds {len(faces)} triangles, its accessor announces {corners} corners")
    for name, number in named.items():
        values = found.get(integer(number, f"id of {name}"))
        if values is None or len(values) != count:
            held = "no" if values is None else len(values)
            raise Rejected("corrupt", f"{NAME} holds {held} values of {name}, its accessor announces {count}")
        gltf.provide(attributes[name], values, view)
    gltf.provide(primitive["indices"], faces.reshape(-1, 1), view)
    return plain


def _decoded(data: bytes) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """The attributes (n,width) by their ids, and the triangles (F,3) uint32."""
    import DracoPy

    try:
        mesh = DracoPy.decode(data)
        faces = np.asarray(mesh.faces, np.uint32).reshape(-1, 3)
        found = {int(a["unique_id"]): np.asarray(a["data"]) for a in mesh.attributes}
    except MemoryError:
        raise
    except Exception as error:  # of several kinds, and none of them documented
        raise Rejected("corrupt", f"{NAME} cannot be decoded: {type(error).__name__}: {str(error)[:200]}") from error
    return {key: values.reshape(len(values), -1) for key, values in found.items() if values.ndim}, faces
