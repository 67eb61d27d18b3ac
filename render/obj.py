"""Wavefront OBJ: polygons, indices counted from either end, several material libraries, vertex colours.

Our own reader: trimesh's counts negative indices from the end of the file instead of from the line they stand in, reads
the first material library only, and keeps indices that are out of range.
"""

from pathlib import Path

import numpy as np

from render.colors import linear
from render.folder import Folder
from render.gltf_materials import GREY
from render.limits import Limits
from render.mesh import Material, Mesh, Rejected
from render.mtl import read_mtl
from render.normals import sound_normals, vertex_normals
from render.polygons import triangulate
from render.textures import Textures


class _Lines:
    """What the lines of a file say, before any of it is put together."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.positions: list[list[str]] = []
        self.uvs: list[list[str]] = []
        self.normals: list[list[str]] = []
        self.corner_of: dict[str, int] = {}  # "v/vt/vn" -> a vertex of the mesh
        self.corners: list[int] = []
        self.sizes: list[int] = []
        self.face_material: list[int] = []
        self.material_names: dict[str, int] = {}
        self.libraries: list[str] = []
        self._material = -1
        self._triangles = 0

    def read(self, text: str) -> None:
        tables = {"v": self.positions, "vt": self.uvs, "vn": self.normals}
        for line in text.split("\n"):
            words = line.split()
            if not words:
                continue
            key = words[0]
            if key in tables:
                tables[key].append(words[1:])
                if len(tables[key]) > self.limits.vertices:
                    raise Rejected("too_many_vertices", f"more than {self.limits.vertices} vertices")
            elif key == "f":
                self._face(words)
            elif key == "usemtl":
                self._use(line.split(None, 1)[1].strip() if len(words) > 1 else "")
            elif key == "mtllib" and len(words) > 1:
                self.libraries.append(line.split(None, 1)[1].strip())

    def _face(self, words: list[str]) -> None:
        count = len(words) - 1
        if count < 3:
            return
        self._triangles += count - 2
        if self._triangles > self.limits.faces:
            raise Rejected("too_many_faces", f"more than {self.limits.faces} triangles")
        known = self.corner_of
        for word in words[1:]:
            if "-" in word:
                word = self._absolute(word)
            self.corners.append(known.setdefault(word, len(known)))
        self.sizes.append(count)
        self.face_material.append(self._material)

    def _absolute(self, word: str) -> str:
        """-1 is the latest vertex *so far*, so it must be resolved in its line."""
        parts = word.split("/")
        for k, table in enumerate((self.positions, self.uvs, self.normals)[: len(parts)]):
            if parts[k].startswith("-"):
                try:
                    index = len(table) + 1 + int(parts[k])
                except ValueError as error:
                    raise Rejected("corrupt", f"a face names {word[:40]!r}") from error
                if index < 1:
                    raise Rejected("index_out_of_range", f"a face names {word[:40]!r}, {-index + 1} before the first")
                parts[k] = str(index)
        return "/".join(parts)

    def _use(self, name: str) -> None:
        self._material = self.material_names.setdefault(name, len(self.material_names))


def read_obj(data: bytes, folder: Folder, limits: Limits) -> Mesh:
    """The faces of all groups and objects as one mesh, a vertex for each combination of position, UV and normal."""
    text = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n").replace("\\\n", " ")
    lines = _Lines(limits)
    lines.read(text)
    if not lines.sizes:
        raise Rejected("no_faces", "the OBJ has no faces")
    textures = Textures(folder, limits)
    table = _table(lines.positions, "v", 3)
    corners = _corner_table(list(lines.corner_of))
    _check_range(corners[:, 0], len(table))
    vertices = table[corners[:, 0] - 1, :3]
    flat = np.array(lines.corners, np.int64)
    triangles, owner = triangulate(np.array(lines.sizes, np.int64), vertices[flat])
    faces = flat[triangles].astype(np.int32)
    materials, place_of = _materials(lines, folder, textures)
    uv, normals = _uv(lines, corners, textures), _normals(lines, corners, vertices, faces, textures)
    return Mesh(
        vertices=vertices,
        faces=faces,
        material=place_of[np.array(lines.face_material, np.int64)[owner]],
        materials=materials,
        normals=normals,
        uv=uv,
        colors=_colors(table[corners[:, 0] - 1]),
        flags=frozenset(textures.flags),
    )


def _table(rows: list[list[str]], key: str, width: int) -> np.ndarray:
    """(n, widest row) float64; what a row leaves out is NaN."""
    widest = max((len(row) for row in rows), default=0)
    shortest = min((len(row) for row in rows), default=width)
    if shortest < width:
        raise Rejected("corrupt", f"a line {key!r} has {shortest} numbers, expected {width}")
    widest = min(widest, 8)
    try:
        if shortest == widest:
            return np.fromiter((float(x) for row in rows for x in row[:widest]), np.float64).reshape(-1, widest)
        out = np.full((len(rows), widest), np.nan)
        for i, row in enumerate(rows):
            out[i, : len(row)] = [float(x) for x in row[:widest]]
        return out
    except ValueError as error:
        raise Rejected("corrupt", f"a line {key!r} cannot be read: {str(error)[:120]}") from error


def _corner_table(words: list[str]) -> np.ndarray:
    """(U,3) int64: position, UV and normal of each distinct corner, counted from 1; 0 where it has none."""
    out = np.zeros((len(words), 3), np.int64)
    try:
        for i, word in enumerate(words):
            for k, part in enumerate(word.split("/")[:3]):
                if part:
                    out[i, k] = int(part)
    except (ValueError, OverflowError) as error:
        raise Rejected("corrupt", f"a face cannot be read: {str(error)[:120]}") from error
    return out


def _check_range(index: np.ndarray, count: int) -> None:
    low, high = int(index.min()), int(index.max())
    if low < 1 or high > count:
        raise Rejected("index_out_of_range", f"a face names vertex {low if low < 1 else high} of {count}")


def _colors(rows: np.ndarray) -> np.ndarray | None:
    """Linear RGBA (U,4) from `v x y z r g b`; white where a line has none. Four numbers are x y z w."""
    if rows.shape[1] < 6:
        return None
    return linear(rows[:, 3:6])


def _uv(lines: _Lines, corners: np.ndarray, textures: Textures) -> np.ndarray | None:
    if not corners[:, 1].any():
        return None
    table = _table(lines.uvs, "vt", 1)
    table = np.concatenate([np.zeros((1, 2)), table[:, :2] if table.shape[1] > 1 else np.pad(table, ((0, 0), (0, 1)))])
    index = corners[:, 1]
    if int(index.max()) >= len(table) or int(index.min()) < 0 or not np.isfinite(table).all():
        textures.flags.add("bad_uv")
        table = np.nan_to_num(table, nan=0.0, posinf=0.0, neginf=0.0)
        index = np.where((index < 0) | (index >= len(table)), 0, index)
    uv = table[index]
    return np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float32)  # v = 0 is the bottom row in an OBJ


def _normals(
    lines: _Lines, corners: np.ndarray, vertices: np.ndarray, faces: np.ndarray, textures: Textures
) -> np.ndarray | None:
    index = corners[:, 2]
    if not index.any() or not lines.normals:
        return None
    table = _table(lines.normals, "vn", 3)[:, :3]
    named = (index >= 1) & (index <= len(table))
    if ((index != 0) & ~named).any():
        textures.flags.add("bad_normals")
    given = np.zeros((len(index), 3))
    given[named] = table[index[named] - 1]
    if not named.all():
        given[~named] = vertex_normals(vertices, faces)[~named]
    normals, repaired = sound_normals(given, vertices, faces)
    if repaired:
        textures.flags.add("bad_normals")
    return normals


def _materials(lines: _Lines, folder: Folder, textures: Textures) -> tuple[tuple[Material, ...], np.ndarray]:
    """The table of materials, and the place in it of each name of `usemtl`; the last place is for faces without one."""
    library: dict[str, Material] = {}
    read: set[Path] = set()
    for name in dict.fromkeys(lines.libraries):
        # A line may name one file with spaces or several without.
        whole = folder.find(name, uri=False)
        for each in [name] if whole is not None else name.split():
            path = whole or folder.find(each, uri=False)
            if path is None:
                textures.flags.add("missing_material")
                continue
            if path not in read:
                read.add(path)
                for key, material in read_mtl(folder.read(path), textures, set(lines.material_names)).items():
                    library.setdefault(key, material)
    if any(name not in library for name in lines.material_names) and lines.libraries:
        textures.flags.add("missing_material")
    table = [library.get(name, GREY) for name in lines.material_names] + [GREY]
    return tuple(table), np.arange(len(table), dtype=np.int32)
