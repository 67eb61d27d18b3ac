"""Points from the PLY and GLB files that shards/pointcloud.py writes."""

import json
import struct
from pathlib import Path

import numpy as np

from ..srgb import LINEAR

MOST = 50_000_000  # points
_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


def read_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """xyz (N,3) float32 in the camera's frame (+y down), rgb (N,3) uint8. ValueError for a file of another writer."""
    read = {".ply": _ply, ".glb": _glb}.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: points are read from .ply and .glb")
    try:
        xyz, rgb = read(path.read_bytes())
    except (ValueError, KeyError, IndexError, TypeError, struct.error, RecursionError):
        raise ValueError(f"{path} is not a point cloud as `worldtrace predict` writes it") from None
    kept = np.isfinite(xyz).all(axis=1)
    return xyz[kept], rgb[kept]


def _ply(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    head, mark, body = content.partition(b"end_header\n")
    lines = head.decode("ascii").split("\n")
    count = int(lines[2].removeprefix("element vertex "))
    kinds = [f"float {axis}" for axis in "xyz"] + [f"uchar {name}" for name in ("red", "green", "blue")]
    wanted = ["ply", "format binary_little_endian 1.0", lines[2], *[f"property {kind}" for kind in kinds], ""]
    if not mark or lines != wanted or not 0 <= count <= MOST or len(body) != count * _VERTEX.itemsize:
        raise ValueError("another PLY")
    points = np.frombuffer(body, _VERTEX)
    return points["xyz"].astype(np.float32), points["rgb"].copy()


def _glb(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    if content[:4] != b"glTF":
        raise ValueError("no GLB")
    length = struct.unpack_from("<I", content, 12)[0]
    scene = json.loads(content[20 : 20 + length])
    if not scene["scenes"][0]["nodes"]:  # no points at all
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    count = int(scene["accessors"][0]["count"])
    if not 0 < count <= MOST or scene["asset"]["generator"] != "worldtrace":
        raise ValueError("another GLB")
    begin = 20 + length + 8
    position = np.frombuffer(content, "<f4", 3 * count, begin).reshape(-1, 3)
    colour = np.frombuffer(content, "<f4", 4 * count, begin + position.nbytes).reshape(-1, 4)
    levels = np.searchsorted((LINEAR[1:] + LINEAR[:-1]) / 2, colour[:, :3])
    return position * np.array([1, -1, -1], np.float32), levels.astype(np.uint8)
