"""Small assets in pieces, and what a source brings of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from cluster.sources import Source

TRIANGLE = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()


def gltf(buffer: str, image: str | None = None) -> bytes:
    """A triangle whose buffer, and perhaps whose image, lie in other files."""
    said: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"uri": buffer, "byteLength": 36}],
    }
    if image is not None:
        said["images"] = [{"uri": image}]
    return json.dumps(said).encode()


def brought(source: Source, uid: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (ref,) = [ref for ref in source.assets() if ref.uid == uid]
    return folder / source.fetch(ref, folder)


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
