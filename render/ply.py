"""PLY, text and binary: polygons of any size, colours of vertices or faces, texture coordinates of vertices or corners.

Our own reader because trimesh's gives up on binary files that mix triangles and quads, reads a damaged text line up to
the damage, and trusts the header's counts.
"""

import re
from array import array
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from render.colors import linear
from render.folder import Folder
from render.gltf_materials import GREY
from render.limits import Limits
from render.lines import lines
from render.mesh import Material, Mesh, Rejected, Texture
from render.normals import sound_normals
from render.polygons import triangulate
from render.textures import Textures
from render.uv import sound_uv

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"},
}
MOST_PROPERTIES = 1000
ROWS = 1 << 12  # lines taken apart together
_UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))


@dataclass(frozen=True)
class _Property:
    name: str
    dtype: np.dtype
    length: np.dtype | None  # of the count in front, for a list


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]


@dataclass(frozen=True, eq=False)
class _List:
    """A list property: sizes (count,) and all values one after another."""

    sizes: np.ndarray
    values: np.ndarray


_Columns = dict[str, np.ndarray | _List]


def read_ply(data: bytes, folder: Folder, limits: Limits) -> Mesh:
    """The mesh of a PLY file; its texture, if any, is the one of the comment `TextureFile`."""
    encoding, elements, texture_name, body = _header(data)
    for element in elements:
        if element.name in ("face", "tristrips") and element.count > limits.faces:
            raise Rejected("too_many_faces", f"{element.count} faces; the limit is {limits.faces}")
        if element.count > limits.vertices:  # of any element: rows of lists are walked one by one
            raise Rejected("too_many_vertices", f"{element.count} of {element.name}; the limit is {limits.vertices}")
    if encoding == "ascii":
        tables = _read_text(data[body:], elements, limits)
    else:
        tables = _read_binary(memoryview(data)[body:], elements, "<" if "little" in encoding else ">")
    return _mesh(tables, texture_name, Textures(folder, limits), limits)


def _header(data: bytes) -> tuple[str, list[_Element], str | None, int]:
    end = re.search(rb"^[ \t]*end_header[ \t]*\r?\n", data[: 1 << 20], re.MULTILINE)
    if end is None:
        raise Rejected("truncated", "the PLY header does not end")
    encoding, texture = "", None
    elements: list[_Element] = []
    for line in data[: end.start()].decode("utf-8", "replace").splitlines():
        words = line.split()
        try:
            if words[:1] == ["format"]:
                encoding = words[1]
            elif words[:1] == ["element"]:
                elements.append(_Element(words[1], int(words[2]), ()))
            elif words[:1] == ["property"]:
                if len(elements[-1].properties) == MOST_PROPERTIES:
                    raise Rejected("corrupt", f"an element of the PLY has more than {MOST_PROPERTIES} properties")
                length = np.dtype(_TYPES[words[2]]) if words[1] == "list" else None
                last = elements.pop()
                added = _Property(words[-1], np.dtype(_TYPES[words[-2]]), length)
                elements.append(_Element(last.name, last.count, (*last.properties, added)))
            elif words[:1] == ["comment"] and len(words) > 2 and words[1].lower() == "texturefile":
                texture = line.split(None, 2)[2].strip()
        except (IndexError, KeyError, ValueError) as error:
            raise Rejected("corrupt", f"the PLY header has the line {line[:120]!r}") from error
    if encoding not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise Rejected("corrupt", f"the PLY format {encoding[:40]!r} does not exist")
    if any(e.count < 0 for e in elements):
        raise Rejected("corrupt", "the PLY header announces a negative count")
    return encoding, elements, texture, end.end()


def _read_binary(body: memoryview, elements: list[_Element], order: Literal["<", ">"]) -> dict[str, _Columns]:
    tables: dict[str, _Columns] = {}
    at = 0
    for element in elements:
        names = [str(i) for i in range(len(element.properties))]
        # Most files have lists of one length, such as triangles only; then the element is a plain array of records.
        lengths = _first_lengths(body, at, element, order)
        fields: list[tuple] = []
        for name, p, n in zip(names, element.properties, lengths):
            if p.length is None:
                fields.append((name, p.dtype.newbyteorder(order)))
            else:
                fields += [(f"n{name}", p.length.newbyteorder(order)), (name, p.dtype.newbyteorder(order), (n,))]
        record = np.dtype(fields)
        size = record.itemsize * element.count
        fits = at + size <= len(body) and record.itemsize > 0
        table = np.frombuffer(body, record, element.count, at) if fits and element.count else None
        lists = [(name, n) for name, p, n in zip(names, element.properties, lengths) if p.length is not None]
        if table is not None and all((table[f"n{name}"] == n).all() for name, n in lists):
            columns: _Columns = {}
            for name, p, n in zip(names, element.properties, lengths):
                column = table[name]
                columns[p.name] = column if p.length is None else _List(np.full(len(table), n), column.reshape(-1))
            at += size
        elif not lists and element.count:
            raise _short(element)
        else:
            columns, at = _walk_binary(body, at, element, order)
        tables[element.name] = columns
    return tables


def _first_lengths(body: memoryview, at: int, element: _Element, order: Literal["<", ">"]) -> list[int]:
    lengths = []
    for p in element.properties:
        n = 1
        if p.length is not None:
            if at + p.length.itemsize > len(body):
                n = 0
            else:
                n = int(np.frombuffer(body, p.length.newbyteorder(order), 1, at)[0])
            at += p.length.itemsize
            if n < 0 or n * p.dtype.itemsize > len(body):
                n = 0
        lengths.append(n)
        at += n * p.dtype.itemsize
    return lengths


def _walk_binary(body: memoryview, at: int, element: _Element, order: Literal["<", ">"]) -> tuple[_Columns, int]:
    """Row by row, for lists of different lengths."""
    smallest = sum((p.length or p.dtype).itemsize for p in element.properties)
    if at + smallest * element.count > len(body):
        raise _short(element)
    sizes: list[list[int]] = [[] for _ in element.properties]
    spans: list[list[bytes]] = [[] for _ in element.properties]
    signs = [None if p.length is None else p.length.kind == "i" for p in element.properties]
    endian = "little" if order == "<" else "big"
    for _ in range(element.count):
        for k, p in enumerate(element.properties):
            n = 1
            if p.length is not None:
                n = int.from_bytes(body[at : at + p.length.itemsize], endian, signed=bool(signs[k]))  # type: ignore[arg-type]
                at += p.length.itemsize
                sizes[k].append(n)
            end = at + n * p.dtype.itemsize
            if n < 0 or end > len(body):
                raise _short(element)
            spans[k].append(bytes(body[at:end]))
            at = end
    columns: _Columns = {}
    for k, p in enumerate(element.properties):
        values = np.frombuffer(b"".join(spans[k]), p.dtype.newbyteorder(order))
        columns[p.name] = values if p.length is None else _List(np.array(sizes[k], np.int64), values)
    return columns, at


def _read_text(body: bytes, elements: list[_Element], limits: Limits) -> dict[str, _Columns]:
    """One line for each row, as the format demands: a wrong count must not shift every number after it."""
    rows = (line for line in lines(body, limits) if not line.isspace())
    tables: dict[str, _Columns] = {}
    for element in elements:
        if element.count == 0 or not element.properties:
            tables[element.name] = {}
            continue
        values = [array("d") for _ in element.properties]
        sizes = [array("q") for _ in element.properties]
        read = 0
        while read < element.count and (block := list(islice(rows, min(element.count - read, ROWS)))):
            read += len(block)
            try:
                _split_all(block, element, values, sizes)
            except ValueError as error:
                raise Rejected("corrupt", f"a line of {element.name} cannot be read: {str(error)[:120]}") from error
        if read < element.count:
            raise _short(element)
        columns: _Columns = {}
        for k, p in enumerate(element.properties):
            numbers = np.array(values[k], np.float64)
            columns[p.name] = _typed(numbers, p) if p.length is None else _List(np.array(sizes[k], np.int64), numbers)
        tables[element.name] = columns
    return tables


def _split_all(rows: list[bytes], element: _Element, values: list[array], sizes: list[array]) -> None:
    if any(p.length is not None for p in element.properties):
        for row in rows:
            _split(row.split(), element, values, sizes)
        return
    width = len(element.properties)
    words = b" ".join(rows).split()
    if len(words) != width * len(rows):
        raise Rejected("corrupt", f"the lines of {element.name} do not have {width} numbers each")
    for k in range(width):
        values[k].extend(map(float, words[k::width]))


def _split(words: list[bytes], element: _Element, values: list[array], sizes: list[array]) -> None:
    """The numbers of one line, to the properties they belong to. Raises Rejected, or ValueError for what is none."""
    at = 0
    for k, p in enumerate(element.properties):
        n = 1
        if p.length is not None and at < len(words):
            n = int(words[at])
            at += 1
            sizes[k].append(n)
        if n < 0 or at + n > len(words):
            raise Rejected("corrupt", f"a line of {element.name} has {len(words)} numbers, expected more")
        values[k].extend(map(float, words[at : at + n]))
        at += n
    if at != len(words):
        raise Rejected("corrupt", f"a line of {element.name} has {len(words)} numbers, expected {at}")


def _typed(values: np.ndarray, p: _Property) -> np.ndarray:
    """Integers as integers, since their type says what full intensity is; the digits of floats are kept."""
    return values if p.dtype.kind == "f" else values.astype(p.dtype)


def _mesh(tables: dict[str, _Columns], texture_name: str | None, textures: Textures, limits: Limits) -> Mesh:
    vertex, face = tables.get("vertex", {}), tables.get("face", {})
    xyz = [vertex.get(axis) for axis in "xyz"]
    polygons = next((face[n] for n in ("vertex_indices", "vertex_index") if n in face), None)
    if not isinstance(polygons, _List) or not len(polygons.sizes) or any(not isinstance(c, np.ndarray) for c in xyz):
        raise Rejected("no_faces", "the PLY has no faces")
    vertices = np.stack([np.asarray(c, np.float64) for c in xyz], axis=1)
    corners = polygons.values.astype(np.int64)
    if len(corners) and (int(corners.min()) < 0 or int(corners.max()) >= len(vertices)):
        raise Rejected("index_out_of_range", f"a face names a vertex beyond the {len(vertices)} of the file")
    if int(np.maximum(polygons.sizes - 2, 0).sum()) > limits.faces:
        raise Rejected("too_many_faces", f"more than {limits.faces} triangles")
    triangles, _ = triangulate(polygons.sizes, vertices[corners])
    faces = corners[triangles]
    colors, uv, rows = _vertex_colors(vertex), _vertex_uv(vertex), None
    texcoord = face.get("texcoord")
    face_colors = _vertex_colors(face) if colors is None else None
    per_corner = isinstance(texcoord, _List) and (texcoord.sizes == 2 * polygons.sizes).all()
    if per_corner or face_colors is not None:
        # What belongs to a corner or a face splits the vertices where it differs.
        parts = [corners.astype(np.float64)[:, None]]
        if per_corner:
            assert isinstance(texcoord, _List)
            parts.append(texcoord.values.reshape(-1, 2).astype(np.float64))
        if face_colors is not None:
            parts.append(np.repeat(face_colors, polygons.sizes, axis=0).astype(np.float64))
        distinct, inverse = np.unique(np.concatenate(parts, axis=1), axis=0, return_inverse=True)
        rows, faces = distinct[:, 0].astype(np.int64), inverse.reshape(-1)[triangles]
        if per_corner:
            uv = distinct[:, 1:3]
        if face_colors is not None:
            colors = distinct[:, -4:].astype(np.float32)
    if rows is not None:
        vertices = vertices[rows]
        uv = uv if per_corner or uv is None else uv[rows]
        colors = colors if face_colors is not None or colors is None else colors[rows]
    return _assembled(vertex, rows, vertices, faces, uv, colors, texture_name, textures)


def _assembled(
    vertex: _Columns,
    rows: np.ndarray | None,
    vertices: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray | None,
    colors: np.ndarray | None,
    texture_name: str | None,
    textures: Textures,
) -> Mesh:
    normals = None
    given = [vertex.get(n) for n in ("nx", "ny", "nz")]
    if all(isinstance(n, np.ndarray) for n in given):
        stacked = np.stack([np.asarray(n, np.float64) for n in given], axis=1)
        normals, repaired = sound_normals(stacked if rows is None else stacked[rows], vertices, faces)
        if repaired:
            textures.flags.add("bad_normals")
    material = GREY if colors is None else Material(name="vertex colours")
    if uv is not None:
        uv, repaired = sound_uv(uv)
        if repaired:
            textures.flags.add("bad_uv")
        uv[:, 1] = 1 - uv[:, 1]  # v = 0 is the bottom row here, and the top row in a Mesh
    if texture_name is not None and uv is not None:
        pixels = textures.from_file(texture_name, uri=False)
        if pixels is not None:
            # Beside a texture, vertex colours are what a scanner baked it from: applying both darkens twice.
            material, colors = Material(name=texture_name[:200], base_color_texture=Texture(pixels)), None
    return Mesh(
        vertices=vertices,
        faces=faces.astype(np.int32),
        material=np.zeros(len(faces), np.int32),
        materials=(material,),
        normals=normals,
        uv=uv,
        colors=colors,
        flags=frozenset(textures.flags),
    )


def _vertex_colors(columns: _Columns) -> np.ndarray | None:
    """(n,4) float32 linear from red, green, blue and alpha in bytes, 16-bit integers or floats."""
    names = ["red", "green", "blue", *(["alpha"] if "alpha" in columns else [])]
    found = [c for c in (columns.get(name) for name in names) if isinstance(c, np.ndarray)]
    if len(found) < len(names):
        return None
    white = float(np.iinfo(found[0].dtype).max) if found[0].dtype.kind in "iu" else None
    return linear(np.stack([c.astype(np.float64) for c in found], axis=1), white)


def _vertex_uv(columns: _Columns) -> np.ndarray | None:
    for names in _UV_NAMES:
        found = [columns.get(name) for name in names]
        if all(isinstance(c, np.ndarray) for c in found):
            return np.stack([np.asarray(c, np.float64) for c in found], axis=1)
    return None


def _short(element: _Element) -> Rejected:
    return Rejected("truncated", f"the PLY header announces {element.count} of {element.name}, the file ends before")
