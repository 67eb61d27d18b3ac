"""Wavefront OBJ: polygons, indices counted from either end, several material libraries, vertex colours.

Our own reader: trimesh's counts negative indices from the end of the file instead of from the line they stand in, reads
the first material library only, and keeps indices that are out of range.
"""

from array import array
from collections.abc import Collection
from pathlib import Path

import numpy as np

from render.colors import linear
from render.folder import Folder
from render.gltf_materials import GREY
from render.limits import Limits
from render.lines import lines
from render.mesh import Material, Mesh, Rejected
from render.mtl import read_mtl
from render.normals import sound_normals, vertex_normals
from render.polygons import triangulate
from render.textures import Textures
from render.uv import sound_uv

MOST_LIBRARIES = 1000


class _Rows:
    """The numbers of all lines of one kind, 8 bytes each: as strings they would be ten times that."""

    def __init__(self, least: int) -> None:
        self.least = least  # numbers a line must have
        self._numbers = array("d")
        self._widths = array("B")

    def __len__(self) -> int:
        return len(self._widths)

    def add(self, words: list[bytes]) -> bool:
        """Whether `words` (the key, then at most eight numbers) are a row; if not, a row of no numbers is added."""
        given = words[1:9]
        try:
            numbers = [float(word) for word in given]
        except ValueError:
            numbers = []
        sound = len(numbers) >= self.least
        self._numbers.extend(numbers if sound else ())
        self._widths.append(len(numbers) if sound else 0)
        return sound

    def table(self, columns: int) -> np.ndarray:
        """(n, most numbers of a line or `columns`) float64; what a line leaves out is NaN."""
        widths = np.array(self._widths, np.int64)
        widest = max(int(widths.max(initial=0)), columns)
        numbers = np.array(self._numbers, np.float64)
        if (widths == widest).all():
            return numbers.reshape(-1, widest)
        out = np.full((len(widths), widest), np.nan)
        out[np.arange(widest) < widths[:, None]] = numbers
        return out


class _Lines:
    """What the lines of a file say, before any of it is put together."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.positions, self.uvs, self.normals = _Rows(3), _Rows(1), _Rows(3)
        self.corner_of: dict[bytes, int] = {}  # "v/vt/vn" -> a vertex of the mesh
        self.corners = array("i")
        self.sizes = array("i")
        self.face_material = array("i")
        self.material_names: dict[str, int] = {}
        self.libraries: dict[str, None] = {}
        self._material = -1
        self._triangles = 0

    def read(self, data: bytes) -> None:
        tables = {b"v": self.positions, b"vt": self.uvs, b"vn": self.normals}
        for line in lines(data, self.limits):
            words = line.split()
            if not words:
                continue
            key = words[0]
            if key in tables:
                if not tables[key].add(words) and key == b"v":  # of the others, only the looks suffer
                    raise Rejected("corrupt", f"the OBJ has the line {line[:80].strip()!r}")
                if len(tables[key]) > self.limits.vertices:
                    raise Rejected("too_many_vertices", f"more than {self.limits.vertices} vertices")
            elif key == b"f":
                self._face(words)
            elif key == b"usemtl":
                self._material = self._place(self.material_names, line)
            elif key == b"mtllib" and len(words) > 1:
                self.libraries[_name(line)] = None
                if len(self.libraries) > MOST_LIBRARIES:
                    raise Rejected("too_many_materials", f"more than {MOST_LIBRARIES} material libraries")

    def _place(self, names: dict[str, int], line: bytes) -> int:
        place = names.setdefault(_name(line), len(names))
        if place >= self.limits.nodes:
            raise Rejected("too_many_materials", f"more than {self.limits.nodes} materials")
        return place

    def _face(self, words: list[bytes]) -> None:
        count = len(words) - 1
        if count < 3:
            return
        self._triangles += count - 2
        if self._triangles > self.limits.faces:
            raise Rejected("too_many_faces", f"more than {self.limits.faces} triangles")
        known = self.corner_of
        for word in words[1:]:
            if b"-" in word:
                word = self._absolute(word)
            self.corners.append(known.setdefault(word, len(known)))
        self.sizes.append(count)
        self.face_material.append(self._material)

    def _absolute(self, word: bytes) -> bytes:
        """-1 is the latest vertex *so far*, so it must be resolved in its line."""
        parts = word.split(b"/")
        for k, table in enumerate((self.positions, self.uvs, self.normals)[: len(parts)]):
            if parts[k].startswith(b"-"):
                try:
                    index = len(table) + 1 + int(parts[k])
                except ValueError as error:
                    raise Rejected("corrupt", f"a face names {word[:40]!r}") from error
                if index < 1:
                    raise Rejected("index_out_of_range", f"a face names {word[:40]!r}, {-index + 1} before the first")
                parts[k] = b"%d" % index
        return b"/".join(parts)


def read_obj(data: bytes, folder: Folder, limits: Limits) -> Mesh:
    """The faces of all groups and objects as one mesh, a vertex for each combination of position, UV and normal."""
    said = _Lines(limits)
    said.read(_whole_lines(data.removeprefix(b"\xef\xbb\xbf")))
    if not said.sizes:
        raise Rejected("no_faces", "the OBJ has no faces")
    textures = Textures(folder, limits)
    table = said.positions.table(3)
    corners = _corner_table(said.corner_of)
    _check_range(corners[:, 0], len(table))
    vertices = table[corners[:, 0] - 1, :3]
    flat = np.array(said.corners, np.int64)
    triangles, owner = triangulate(np.array(said.sizes, np.int64), vertices[flat])
    faces = flat[triangles].astype(np.int32)
    materials, place_of = _materials(said, folder, textures)
    uv, normals = _uv(said, corners, textures), _normals(said, corners, vertices, faces, textures)
    return Mesh(
        vertices=vertices,
        faces=faces,
        material=place_of[np.array(said.face_material, np.int64)[owner]],
        materials=materials,
        normals=normals,
        uv=uv,
        colors=_colors(table[corners[:, 0] - 1]),
        flags=frozenset(textures.flags),
    )


def _corner_table(words: Collection[bytes]) -> np.ndarray:
    """(U,3) int64: position, UV and normal of each distinct corner, counted from 1; 0 where it has none."""
    out = np.zeros((len(words), 3), np.int64)
    try:
        for i, word in enumerate(words):
            for k, part in enumerate(word.split(b"/")[:3]):
                if part:
                    out[i, k] = int(part)
    except (ValueError, OverflowError) as error:
        raise Rejected("corrupt", f"a face cannot be read: {str(error)[:120]}") from error
    return out


def _whole_lines(data: bytes) -> bytes:
    """A back-slash at its end continues a line."""
    for end in (b"\\\r\n", b"\\\n", b"\\\r"):
        data = data.replace(end, b" ") if end in data else data
    return data


def _name(line: bytes) -> str:
    """All that follows the key of a line: names hold spaces."""
    return b" ".join(line.split(None, 1)[1:]).strip().decode("utf-8", "replace")


def _check_range(index: np.ndarray, count: int) -> None:
    low, high = int(index.min()), int(index.max())
    if low < 1 or high > count:
        raise Rejected("index_out_of_range", f"a face names vertex {low if low < 1 else high} of {count}")


def _colors(rows: np.ndarray) -> np.ndarray | None:
    """Linear RGBA (U,4) from `v x y z r g b`; white where a line has none. Four numbers are x y z w."""
    if rows.shape[1] < 6:
        return None
    return linear(rows[:, 3:6])


def _uv(said: _Lines, corners: np.ndarray, textures: Textures) -> np.ndarray | None:
    if not corners[:, 1].any():
        return None
    table = np.concatenate([np.zeros((1, 2)), said.uvs.table(2)[:, :2]])
    table[:, 1] = np.where(np.isfinite(table[:, 0]) & np.isnan(table[:, 1]), 0, table[:, 1])  # a line may have u alone
    index = corners[:, 1]
    astray = (index < 0) | (index >= len(table))
    uv, repaired = sound_uv(table[np.where(astray, 0, index)])
    if repaired or astray.any():
        textures.flags.add("bad_uv")
    uv[:, 1] = 1 - uv[:, 1]  # v = 0 is the bottom row in an OBJ
    return uv


def _normals(
    said: _Lines, corners: np.ndarray, vertices: np.ndarray, faces: np.ndarray, textures: Textures
) -> np.ndarray | None:
    index = corners[:, 2]
    if not index.any() or not len(said.normals):
        return None
    table = said.normals.table(3)[:, :3]
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


def _materials(said: _Lines, folder: Folder, textures: Textures) -> tuple[tuple[Material, ...], np.ndarray]:
    """The table of materials, and the place in it of each name of `usemtl`; the last place is for faces without one."""
    library: dict[str, Material] = {}
    read: set[Path] = set()
    for name in said.libraries:
        # A line may name one file with spaces or several without.
        whole = folder.find(name, uri=False)
        for each in [name] if whole is not None else name.split():
            path = whole or folder.find(each, uri=False)
            if path is None:
                textures.flags.add("missing_material")
                continue
            if path not in read:
                read.add(path)
                for key, material in read_mtl(folder.read(path), textures, said.material_names).items():
                    library.setdefault(key, material)
    if any(name not in library for name in said.material_names) and said.libraries:
        textures.flags.add("missing_material")
    table = [library.get(name, GREY) for name in said.material_names] + [GREY]
    return tuple(table), np.arange(len(table), dtype=np.int32)
