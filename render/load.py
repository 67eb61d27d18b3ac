"""One door for every asset file: `load(path)` gives a sound `Mesh` or raises `Rejected` with a typed reason.

An asset is untrusted. It can read no file outside its own folder, cannot make us allocate what it merely announces, and
whatever a parser raises becomes a rejection. Formats, limits, reasons and flags: docs/assets.md.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from render.animation import Selected
from render.folder import Folder
from render.gltf import compact, read_gltf
from render.gltf_file import is_gltf
from render.limits import DEFAULT, Limits
from render.mesh import Mesh, Rejected
from render.obj import read_obj
from render.ply import read_ply
from render.stl import read_stl
from render.surfaces import drop_duplicate_faces

__all__ = ["SUFFIXES", "Limits", "load"]

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")

_READERS: dict[str, Callable[[bytes, Folder, Limits], Mesh]] = {
    ".glb": read_gltf,
    ".gltf": read_gltf,
    ".obj": read_obj,
    ".ply": read_ply,
    ".stl": read_stl,
}
_MAGIC = {
    b"glTF": "GLB",
    b"ply\n": "PLY",
    b"ply\r": "PLY",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"%PDF": "PDF",
    b"Kaydara FBX": "FBX",
    b"BLENDER": "Blender",
}


def load(path: str | Path, limits: Limits = DEFAULT) -> Mesh:
    """The asset at `path` as one mesh: node transforms applied, only vertices in use, no face twice, none without area.

    Units and axes are the asset's own. An animated glTF has `pose` and `duration` of its first clip, and `vertices` at
    t = 0. Raises FileNotFoundError if there is no such file, else Rejected(reason, message) for all that is unusable.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; give a {', '.join(SUFFIXES)} file")
    try:
        with np.errstate(all="ignore"):  # NaN and overflow are looked for in the results
            return sound(read(path, limits))
    except Rejected:
        raise
    except MemoryError as error:
        raise Rejected("out_of_memory", f"{path.name} needs more memory than there is") from error
    except Exception as error:
        # A hostile file reaches corners of a parser that nobody has thought of; it costs the asset, never the job.
        raise Rejected("unreadable", f"{type(error).__name__}: {str(error)[:300]}") from error


def read(path: Path, limits: Limits) -> Mesh:
    """The file as it is: every face it draws, before `sound` drops any."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        raise Rejected("unsupported_format", "JSON is no model by itself; houses of 3D-FRONT are read as front3d:DIR")
    if suffix not in _READERS:
        raise Rejected("unsupported_format", f"{suffix or 'no extension'}; supported are {', '.join(SUFFIXES)}")
    folder = Folder(path.parent, limits)
    data = folder.read(path)
    if not data:
        raise Rejected("empty_file", f"{path.name} has no bytes")
    _check_content(data, suffix)
    return _READERS[suffix](data, folder, limits)


def sound(mesh: Mesh) -> Mesh:
    """Drops unused vertices, faces without area and faces there already; refuses what then is no surface.

    Raises Rejected: no_faces, index_out_of_range, non_finite, zero_extent, zero_area.
    """
    if not len(mesh.faces):
        raise Rejected("no_faces", "the asset has no triangles")
    low, high = int(mesh.faces.min()), int(mesh.faces.max())
    if low < 0 or high >= len(mesh.vertices):
        index = low if low < 0 else high
        raise Rejected("index_out_of_range", f"a face names vertex {index} of {len(mesh.vertices)}")
    mesh = _only_used(mesh)  # before any bounding box: stray vertices lie kilometres away
    with np.errstate(over="ignore"):
        extent = np.ptp(mesh.vertices, axis=0) if np.isfinite(mesh.vertices).all() else np.full(3, np.inf)
        if not np.isfinite(float((extent**2).sum())):
            raise Rejected("non_finite", "a vertex is NaN, infinite, or so far that its distance overflows")
    reach = float(np.abs(mesh.vertices).max())
    if float(extent.max()) <= max(1e-12 * reach, 1e-30):
        raise Rejected("zero_extent", f"all {len(mesh.vertices)} vertices coincide")
    keep = drop_duplicate_faces(mesh.faces, mesh.vertices)
    if mesh.pose is not None:
        # A face that is folded away at t = 0 (a closed eyelid) may open later.
        for t in (mesh.duration / 3, mesh.duration * 2 / 3):
            keep |= drop_duplicate_faces(mesh.faces, mesh.pose(t))
    if not keep.any():
        raise Rejected("zero_area", f"none of the {len(keep)} faces has an area")
    if keep.all():
        return mesh
    flags = mesh.flags | {"dropped_faces"}
    return _only_used(replace(mesh, faces=mesh.faces[keep], material=mesh.material[keep], flags=flags))


def _only_used(mesh: Mesh) -> Mesh:
    rows, faces = compact(mesh.faces, len(mesh.vertices))
    if len(rows) == len(mesh.vertices):
        return mesh

    def kept(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[rows]

    return replace(
        mesh,
        vertices=mesh.vertices[rows],
        faces=faces.astype(np.int32),
        normals=kept(mesh.normals),
        uv=kept(mesh.uv),
        uv1=kept(mesh.uv1),
        colors=kept(mesh.colors),
        pose=None if mesh.pose is None else Selected(mesh.pose, rows),
    )


def _check_content(data: bytes, suffix: str) -> None:
    """The content must be what the extension says: a renamed file is a sign that somebody's pipeline went wrong."""
    found = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    expected = {".glb": "GLB", ".gltf": "GLB", ".ply": "PLY"}.get(suffix)
    if found is not None and found != expected:
        raise Rejected("wrong_format", f"a {suffix} file with the content of a {found} file")
    if suffix in (".glb", ".gltf") and not is_gltf(data):
        raise Rejected("wrong_format", f"a {suffix} file that starts with {data[:4]!r} and not with b'glTF' or JSON")
    if suffix == ".ply" and found is None:
        raise Rejected("wrong_format", f"a .ply file that starts with {data[:4]!r} and not with b'ply'")
    if suffix == ".obj" and b"\0" in data[:4096]:
        raise Rejected("wrong_format", "an .obj file is text, this one is binary")
