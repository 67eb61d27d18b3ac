"""STL, binary and text, through trimesh; the length that a binary header announces is checked first."""

import io
import struct

import numpy as np
from trimesh.exchange.stl import load_stl

from render.folder import Folder
from render.gltf_materials import GREY
from render.limits import Limits
from render.mesh import Mesh, Rejected


def read_stl(data: bytes, folder: Folder, limits: Limits) -> Mesh:
    """The triangles of an STL file, each with three vertices of its own; default grey."""
    text = data[:256].lstrip()[:5].lower() == b"solid" and b"facet" in data[:4096].lower()
    announced = struct.unpack_from("<I", data, 80)[0] if len(data) >= 84 else 0
    if len(data) >= 84 and len(data) == 84 + 50 * announced:
        text = False  # exporters write binary files whose header starts with "solid"
    if not text:
        if len(data) < 84 + 50 * announced or len(data) < 84:
            raise Rejected("truncated", f"the STL announces {announced} triangles in a file of {len(data)} bytes")
        data = data[: 84 + 50 * announced]
    count = data.lower().count(b"vertex") // 3 if text else announced
    if count > limits.faces:
        raise Rejected("too_many_faces", f"{count} triangles; the limit is {limits.faces}")
    if text and b"endsolid" not in data[-4096:].lower():
        raise Rejected("truncated", "the text STL has no endsolid")
    try:
        loaded = load_stl(io.BytesIO(data))
    except ValueError as error:
        raise Rejected("corrupt", f"the STL cannot be read: {str(error)[:200]}") from error
    solids = [loaded] if "vertices" in loaded else list(loaded.get("geometry", {}).values())
    vertices = np.concatenate([np.zeros((0, 3)), *(solid["vertices"] for solid in solids)]).astype(np.float64)
    if len(vertices) != 3 * count:
        raise Rejected("corrupt", f"the STL has {3 * count} vertex lines, {len(vertices)} of them can be read")
    faces = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    return Mesh(vertices, faces, np.zeros(len(faces), np.int32), (GREY,))
