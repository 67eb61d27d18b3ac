"""STL, binary and text; the length that a binary header announces is checked first."""

import struct
from array import array

import numpy as np

from render.folder import Folder
from render.gltf_materials import GREY
from render.limits import Limits
from render.lines import lines
from render.mesh import Mesh, Rejected

_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read_stl(data: bytes, folder: Folder, limits: Limits) -> Mesh:
    """The triangles of an STL file, of all its solids, each with three vertices of its own; default grey."""
    text = data[:256].lstrip()[:5].lower() == b"solid" and b"facet" in data[:4096].lower()
    announced = struct.unpack_from("<I", data, 80)[0] if len(data) >= 84 else 0
    if len(data) >= 84 and len(data) == 84 + 50 * announced:
        text = False  # exporters write binary files whose header starts with "solid"
    corners = _read_text(data, limits) if text else _read_binary(data, announced, limits)
    faces = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    return Mesh(corners, faces, np.zeros(len(faces), np.int32), (GREY,))


def _read_binary(data: bytes, announced: int, limits: Limits) -> np.ndarray:
    """(3F,3) float64."""
    if len(data) < 84 + 50 * announced or len(data) < 84:
        raise Rejected("truncated", f"the STL announces {announced} triangles in a file of {len(data)} bytes")
    if announced > limits.faces:
        raise _too_many(limits)
    return np.frombuffer(data, _RECORD, announced, 84)["corners"].reshape(-1, 3).astype(np.float64)


def _read_text(data: bytes, limits: Limits) -> np.ndarray:
    """(3F,3) float64 of the lines "vertex x y z"; each facet must have three of them."""
    if b"endsolid" not in data[-4096:].lower():
        raise Rejected("truncated", "the text STL has no endsolid")
    numbers = array("d")
    begun = 0  # in `numbers`, where the facet began
    for line in lines(data, limits):
        words = line.split(None, 5)
        key = words[0].lower() if words else b""
        if key == b"vertex":
            try:
                x, y, z = words[1:]
                numbers.extend((float(x), float(y), float(z)))
            except ValueError as error:
                raise Rejected("corrupt", f"the STL has the line {line[:80].strip()!r}") from error
            if len(numbers) > 9 * limits.faces:
                raise _too_many(limits)
        elif key in (b"facet", b"endfacet"):
            if len(numbers) - begun not in (0, 9):
                raise Rejected("corrupt", f"a facet of the STL has {(len(numbers) - begun) // 3} vertices")
            begun = len(numbers)
    if len(numbers) % 9:
        raise Rejected("truncated", "the last facet of the STL has no three vertices")
    return np.array(numbers, np.float64).reshape(-1, 3)


def _too_many(limits: Limits) -> Rejected:
    return Rejected("too_many_faces", f"more than {limits.faces} triangles")
