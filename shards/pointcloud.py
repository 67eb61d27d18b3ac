"""Layered point clouds as PLY or GLB.

PLY keeps the camera frame (OpenCV: +x right, +y down, +z forward). GLB is y-up by definition: (x, y, z) becomes
(x, -y, -z), so that a viewer shows the cloud as the camera saw it; its colours are linear, as glTF wants.
"""

import json
import struct
from os import PathLike
from pathlib import Path

import numpy as np

from .commit import committed
from .contract import LayeredView
from .srgb import LINEAR

HIDDEN = (150, 150, 150)  # colour of what no pixel of the image shows
FORMATS = (".ply", ".glb")


def layered_points(view: LayeredView) -> tuple[np.ndarray, np.ndarray]:
    """True hits of all layers: xyz (N,3) float32, camera frame; rgb (N,3) uint8, layer 0 by the image, others grey."""
    hit = view.hit
    rgb = np.empty((*hit.shape, 3), np.uint8)
    rgb[:] = HIDDEN
    rgb[0] = view.rgba[..., :3]
    return view.xyz()[hit], rgb[hit]


def write_points(path: str | PathLike[str], xyz: np.ndarray, rgb: np.ndarray) -> Path:
    """Write points xyz (N,3) (camera frame) with colours rgb (N,3) uint8 sRGB; the format follows the suffix.

    .ply: binary little endian. .glb: glTF 2.0 points, y-up. ValueError for another
    suffix, for points that are not finite, or shapes that do not match.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: points are written as {', '.join(FORMATS)}, not as {path.suffix or 'a bare name'}")
    xyz = np.ascontiguousarray(xyz, np.float32)
    rgb = np.asarray(rgb)
    if xyz.ndim != 2 or xyz.shape[1] != 3 or rgb.shape != xyz.shape or rgb.dtype != np.uint8:
        raise ValueError(f"{path}: xyz {xyz.shape} and rgb {rgb.shape} {rgb.dtype} are not (N,3) and (N,3) uint8")
    if not np.isfinite(xyz).all():
        raise ValueError(f"{path}: {int((~np.isfinite(xyz)).any(axis=1).sum())} of {len(xyz)} points are not finite")
    write = {".ply": _ply, ".glb": _glb}[path.suffix.lower()]
    with committed(path) as file:
        file.write(write(xyz, rgb))
    return path


def _ply(xyz: np.ndarray, rgb: np.ndarray) -> bytes:
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}"]
    header += [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    vertices = np.empty(len(xyz), np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)]))
    vertices["xyz"], vertices["rgb"] = xyz, rgb
    return "\n".join([*header, "end_header", ""]).encode() + vertices.tobytes()


def _glb(xyz: np.ndarray, rgb: np.ndarray) -> bytes:
    position = (xyz * np.array([1, -1, -1], np.float32)).astype("<f4")
    color = np.ones((len(rgb), 4), "<f4")  # float: trimesh wraps 16-bit colours, 8 linear bits would band the darks
    color[:, :3] = LINEAR[rgb]
    binary = position.tobytes() + color.tobytes()
    scene: dict = {"asset": {"version": "2.0", "generator": "worldtrace"}, "scene": 0, "scenes": [{"nodes": []}]}
    if len(xyz):  # glTF allows no empty accessor
        points = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "mode": 0}
        bounds = {"min": position.min(axis=0).tolist(), "max": position.max(axis=0).tolist()}
        place = {"bufferView": 0, "componentType": 5126, "count": len(xyz), "type": "VEC3", **bounds}
        paint = {"bufferView": 1, "componentType": 5126, "count": len(xyz), "type": "VEC4"}
        scene |= {
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [points]}],
            "accessors": [place, paint],
            "bufferViews": [
                {"buffer": 0, "byteOffset": 0, "byteLength": position.nbytes, "target": 34962},
                {"buffer": 0, "byteOffset": position.nbytes, "byteLength": color.nbytes, "target": 34962},
            ],
            "buffers": [{"byteLength": len(binary)}],
        }
    text = json.dumps(scene, separators=(",", ":")).encode()
    chunks = _chunk(text + b" " * (-len(text) % 4), b"JSON")
    if binary:
        chunks += _chunk(binary, b"BIN\0")
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _chunk(data: bytes, kind: bytes) -> bytes:
    return struct.pack("<I4s", len(data), kind) + data
