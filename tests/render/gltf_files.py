"""Tiny glTF files for the tests, built number by number."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

_CODES = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}

QUAD = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
QUAD_FACES = np.array([0, 1, 2, 0, 2, 3], np.uint16)


class File:
    """`json` is open to every change; `array` appends data and answers the index of its accessor."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [],
            "accessors": [],
            "bufferViews": [],
            "buffers": [{"byteLength": 0}],
        }
        self.binary = b""

    def view(self, data: bytes, **more: Any) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.json["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **more})
        self.binary += data
        self.json["buffers"][0]["byteLength"] = len(self.binary)
        return len(self.json["bufferViews"]) - 1

    def array(self, values: Any, dtype: Any = np.float32, **more: Any) -> int:
        array = np.asarray(values, dtype)
        width = 1 if array.ndim == 1 else int(np.prod(array.shape[1:]))
        self.json["accessors"].append(
            {
                "bufferView": self.view(array.tobytes()),
                "componentType": _CODES[array.dtype.name],
                "count": len(array),
                "type": _TYPES[width],
                **more,
            }
        )
        return len(self.json["accessors"]) - 1

    def mesh(self, positions: Any = QUAD, indices: Any = QUAD_FACES, **more: Any) -> dict[str, Any]:
        """Adds a mesh of one primitive and returns the primitive; `attributes` are accessor indices."""
        attributes = {"POSITION": self.array(positions), **more.pop("attributes", {})}
        primitive = {"attributes": attributes, **more}
        if indices is not None:
            indices = np.asarray(indices)
            kind = indices.dtype if indices.dtype.name in _CODES else np.uint32
            primitive["indices"] = self.array(indices.reshape(-1), kind)
        self.json["meshes"].append({"primitives": [primitive]})
        return primitive

    def glb(self) -> bytes:
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        binary = self.binary + b"\0" * (-len(self.binary) % 4)
        body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
        return b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body

    def write(self, folder: Path, name: str = "asset.glb") -> Path:
        path = folder / name
        path.write_bytes(self.glb())
        return path


def quad_file(**more: Any) -> File:
    """A unit square in the plane z = 0, facing +z."""
    file = File()
    file.mesh(**more)
    return file
