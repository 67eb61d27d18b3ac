"""glTF 2.0 and GLB as one flat `Mesh`: every primitive of every node (and instance) of the scene, put in its place.

Vertices that no triangle uses never leave the file's buffers: exporters let hundreds of primitives share one.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from render import draco
from render.animation import Part, Rig, Skin
from render.folder import Folder
from render.gltf_file import GltfFile, extension, integer, json_object
from render.gltf_materials import Materials
from render.gltf_nodes import read_nodes
from render.gltf_rig import (
    checked_rows,
    read_clip,
    read_influences,
    read_instances,
    read_skin,
    read_targets,
    rest_weights,
    target_entries,
)
from render.limits import Limits
from render.mesh import Mesh, Rejected
from render.normals import face_normals, sound_normals, unit
from render.textures import Textures
from render.uv import sound_uv

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
MOST_JOINTS = 2_000_000  # over all skinned surfaces: each pose multiplies a matrix for every one


@dataclass(frozen=True, eq=False)
class _Surface:
    """The triangles (F,3) of one primitive in the frame of its mesh; they index its n vertices.

    `rows` (n,) are the elements of the primitive's accessors that those vertices come from.
    """

    primitive: dict[str, Any]
    rows: np.ndarray
    faces: np.ndarray
    material: int
    positions: np.ndarray
    targets: np.ndarray | None
    normals: np.ndarray | None
    uv: np.ndarray | None
    uv1: np.ndarray | None
    colors: np.ndarray | None


class _Reader:
    """Reads each mesh of the file once and counts faces and vertices before they are allocated."""

    def __init__(self, gltf: GltfFile, textures: Textures) -> None:
        self.gltf = gltf
        self.materials = Materials(gltf, textures)
        self.flags: set[str] = set()
        self.flat = not _all_have_normals(gltf)
        self._meshes: dict[int, list[_Surface]] = {}
        self._skins: dict[int, Skin] = {}
        self._read = self._read_vertices = self._read_faces = 0
        self._placed = self._faces = self._vertices = self._joints = 0

    def mesh(self, index: Any) -> list[_Surface]:
        entry = self.gltf.item("meshes", index)
        if index not in self._meshes:
            primitives = _primitives(entry)
            self._read += len(primitives)
            if self._read > self.gltf.limits.nodes:
                raise Rejected("too_many_nodes", f"the meshes have more than {self.gltf.limits.nodes} primitives")
            surfaces = (self._surface(primitive) for primitive in primitives)
            self._meshes[index] = [surface for surface in surfaces if surface is not None]
        return self._meshes[index]

    def skin(self, index: Any) -> Skin:
        index = integer(index, "skin", self.gltf.count("skins"))
        if index not in self._skins:
            self._skins[index] = read_skin(self.gltf, index)
        return self._skins[index]

    def place(self, copies: int, surface: _Surface, joints: int) -> None:
        """Counts what the scene will hold, before it is allocated."""
        limits = self.gltf.limits
        self._placed += copies
        self._faces += copies * len(surface.faces)
        self._vertices += copies * len(surface.rows)
        self._joints += joints
        if self._joints > MOST_JOINTS:
            raise Rejected("too_many_nodes", f"the skins of the scene move more than {MOST_JOINTS} joints")
        if self._placed > limits.nodes:
            raise Rejected("too_many_nodes", f"the scene places more than {limits.nodes} surfaces")
        if self._faces > limits.faces:
            raise Rejected("too_many_faces", f"more than {limits.faces} triangles")
        if self._vertices > limits.vertices:
            raise Rejected("too_many_vertices", f"more than {limits.vertices} vertices")

    def _surface(self, primitive: dict[str, Any]) -> _Surface | None:
        gltf = self.gltf
        mode, attributes = _mode(primitive), json_object(primitive.get("attributes"), "attributes")
        if mode < _TRIANGLES or "POSITION" not in attributes:
            return None  # points and lines have no surface
        compressed = extension(primitive, draco.NAME)
        if compressed is not None and not gltf.has_data(attributes["POSITION"]):  # a plain copy needs no decoder
            if not draco.available():
                raise Rejected("unsupported_extension", f"{draco.NAME}, which needs the package DracoPy")
            primitive, mode = draco.decompressed(gltf, primitive, compressed), _TRIANGLES
        vertex_count = gltf.length(attributes["POSITION"])
        indices = gltf.integers(primitive["indices"], ("SCALAR",))[:, 0] if "indices" in primitive else None
        corners = vertex_count if indices is None else len(indices)
        if mode == _TRIANGLES and corners % 3:
            raise Rejected("corrupt", f"{corners} corners do not make whole triangles")
        self._read_faces += max(corners // 3 if mode == _TRIANGLES else corners - 2, 0)
        if self._read_faces > gltf.limits.faces:  # a hundred primitives may share the indices of one
            raise Rejected("too_many_faces", f"more than {gltf.limits.faces} triangles")
        faces = _triangles(np.arange(corners) if indices is None else indices, mode)
        if not len(faces):
            return None
        if int(faces.max()) >= vertex_count:
            raise Rejected("index_out_of_range", f"index {int(faces.max())} of a mesh with {vertex_count} vertices")
        unweld = self.flat and "NORMAL" not in attributes
        if unweld:
            # The standard wants flat shading here, while other primitives of the same file have normals.
            rows, faces = faces.reshape(-1), np.arange(faces.size).reshape(-1, 3)
        else:
            rows, faces = compact(faces, vertex_count)
        return self._attributes(primitive, attributes, rows, faces, vertex_count, unweld)

    def _attributes(
        self,
        primitive: dict[str, Any],
        attributes: dict[str, Any],
        rows: np.ndarray,
        faces: np.ndarray,
        vertex_count: int,
        unweld: bool,
    ) -> _Surface:
        gltf = self.gltf
        influences = sum(str(name).startswith("JOINTS_") for name in attributes)
        self._read_vertices += len(rows) * (1 + len(target_entries(primitive)) + influences)
        if self._read_vertices > gltf.limits.vertices:
            raise Rejected("too_many_vertices", f"the meshes hold more than {gltf.limits.vertices} vertices")
        positions = checked_rows(gltf, attributes["POSITION"], ("VEC3",), rows)
        normals = None
        if unweld:
            normals = np.repeat(unit(face_normals(positions, faces)), 3, axis=0).astype(np.float32)
        elif "NORMAL" in attributes:
            given = checked_rows(gltf, attributes["NORMAL"], ("VEC3",), rows)
            normals, repaired = sound_normals(given, positions, faces)
            if repaired:
                self.flags.add("bad_normals")
        colors = None
        if "COLOR_0" in attributes:
            given = checked_rows(gltf, attributes["COLOR_0"], ("VEC3", "VEC4"), rows, normalise=True)
            colors = np.ones((len(rows), 4), np.float32)
            colors[:, : given.shape[1]] = np.clip(np.nan_to_num(given, nan=1.0), 0, 1)
        return _Surface(
            primitive=primitive,
            rows=rows,
            faces=faces,
            material=self.materials.index_of(primitive.get("material")),
            positions=positions,
            targets=read_targets(gltf, primitive, rows, vertex_count),
            normals=normals,
            uv=self._uv(attributes, "TEXCOORD_0", rows),
            uv1=self._uv(attributes, "TEXCOORD_1", rows),
            colors=colors,
        )

    def _uv(self, attributes: dict[str, Any], name: str, rows: np.ndarray) -> np.ndarray | None:
        if name not in attributes:
            return None
        uv, repaired = sound_uv(checked_rows(self.gltf, attributes[name], ("VEC2",), rows))
        if repaired:
            self.flags.add("bad_uv")
        return uv


def read_gltf(data: bytes, folder: Folder, limits: Limits) -> Mesh:
    """The scene of a glTF or GLB; `vertices` is the first clip's pose at t = 0, or the pose at rest.

    Raises Rejected with the reasons listed in docs/assets.md.
    """
    gltf = GltfFile(data, folder, limits, frozenset([draco.NAME] if draco.available() else []))
    nodes = read_nodes(gltf)
    textures = Textures(folder, limits)
    reader = _Reader(gltf, textures)
    surfaces: list[_Surface] = []
    parts: list[Part] = []
    morph_counts: dict[int, int] = {}
    for index in np.flatnonzero(nodes.in_scene).tolist():
        node = gltf.item("nodes", index)
        if "mesh" not in node:
            continue
        mesh, skinned = gltf.item("meshes", node["mesh"]), "skin" in node
        found = reader.mesh(node["mesh"])
        instances = None if skinned or not found else read_instances(gltf, node)
        for surface in found:
            copies = [None] if instances is None else list(instances)
            skin = reader.skin(node["skin"]) if skinned else None
            reader.place(len(copies), surface, 0 if skin is None else len(skin.joints))
            part = Part(index, surface.positions, targets=surface.targets)
            if surface.targets is not None:
                morph_counts[index] = len(surface.targets)
                part = replace(part, weights=rest_weights(node, mesh, len(surface.targets)))
            if skin is not None:
                joints, weights = read_influences(gltf, surface.primitive["attributes"], surface.rows, skin)
                part = replace(part, skin=skin, joints=joints, joint_weights=weights)
            parts += [replace(part, instance=copy) for copy in copies]
            surfaces += [surface] * len(copies)
    if not parts:
        raise Rejected("no_faces", "the scene has no triangles")
    rig = Rig(nodes, tuple(parts), read_clip(gltf, morph_counts))
    return _flat(rig, surfaces, reader, frozenset(reader.flags | textures.flags))


def compact(faces: np.ndarray, vertex_count: int) -> tuple[np.ndarray, np.ndarray]:
    """The vertices (n,) in use, ascending, and the faces renumbered to them."""
    if vertex_count > 4 * faces.size:  # a small primitive of a large shared buffer
        rows, inverse = np.unique(faces, return_inverse=True)
        return rows, inverse.reshape(faces.shape)
    used = np.zeros(vertex_count, bool)
    used[faces] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[faces]


def _flat(rig: Rig, surfaces: list[_Surface], reader: _Reader, flags: frozenset[str]) -> Mesh:
    world, morphs = rig.state(0.0)
    vertices, normals, faces, start = [], [], [], 0
    with np.errstate(all="ignore"):
        for part, surface in zip(rig.parts, surfaces, strict=True):
            matrices = part.matrices(world)
            vertices.append(part.vertices(world, morphs.get(part.node)))
            mirrored = float(np.linalg.det(matrices.reshape(-1, 4, 4)[0, :3, :3])) < 0
            corners = surface.faces[:, ::-1] if mirrored else surface.faces  # a mirror turns the winding round
            faces.append((corners + start).astype(np.int32))
            start += len(surface.rows)
            if surface.normals is not None:
                placed = _turned(surface.normals.astype(np.float64), matrices)
                normals.append(sound_normals(placed, vertices[-1], corners)[0])
    counts = [len(s.rows) for s in surfaces]
    moves = rig.clip is not None
    return Mesh(
        vertices=np.concatenate(vertices),
        faces=np.concatenate(faces),
        material=np.repeat(
            np.array([s.material for s in surfaces], np.int32), np.array([len(s.faces) for s in surfaces])
        ),
        materials=tuple(reader.materials.table),
        normals=np.concatenate(normals) if normals else None,
        uv=_joined([s.uv for s in surfaces], counts, 2, 0),
        uv1=_joined([s.uv1 for s in surfaces], counts, 2, 0),
        colors=_joined([s.colors for s in surfaces], counts, 4, 1),
        flags=flags,
        pose=rig if moves else None,
        duration=rig.clip.duration if rig.clip is not None else 0.0,
    )


def _turned(normals: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Normals (n,3) by the inverse transpose, as the cofactor matrix: it exists for flattening scales too."""
    m = matrices[..., :3, :3]
    columns = [np.cross(m[..., :, (i + 1) % 3], m[..., :, (i + 2) % 3]) for i in range(3)]
    cofactor = np.stack(columns, axis=-1) * np.where(np.linalg.det(m) < 0, -1.0, 1.0)[..., None, None]
    if cofactor.ndim == 2:
        return normals @ cofactor.T
    return np.einsum("nij,nj->ni", cofactor, normals)


def _joined(arrays: list[np.ndarray | None], counts: list[int], width: int, fill: float) -> np.ndarray | None:
    if all(a is None for a in arrays):
        return None
    return np.concatenate(
        [np.full((n, width), fill, np.float32) if a is None else a.astype(np.float32) for a, n in zip(arrays, counts)]
    )


def _triangles(corners: np.ndarray, mode: int) -> np.ndarray:
    """(F,3) int64 triangles of a list, a strip (every second one turned) or a fan."""
    corners = corners.astype(np.int64)
    if mode == _TRIANGLES:
        return corners.reshape(-1, 3)
    if len(corners) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == _FAN:
        first = np.broadcast_to(corners[0], len(corners) - 2)
        return np.stack([corners[1:-1], corners[2:], first], axis=1)
    strip = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    strip[1::2] = strip[1::2, [0, 2, 1]]
    # Repeated corners stitch strips together; they are no triangles.
    whole = (strip[:, 0] != strip[:, 1]) & (strip[:, 1] != strip[:, 2]) & (strip[:, 2] != strip[:, 0])
    return strip[whole]


def _all_have_normals(gltf: GltfFile) -> bool:
    """Whether every primitive has normals, or none has: then a missing NORMAL needs no vertices of its own."""
    found = set()
    for index in range(gltf.count("meshes")):
        for primitive in _primitives(gltf.item("meshes", index)):
            if _mode(primitive) >= _TRIANGLES:
                found.add("NORMAL" in json_object(primitive.get("attributes"), "attributes"))
    return len(found) <= 1


def _mode(primitive: dict[str, Any]) -> int:
    mode = primitive.get("mode", _TRIANGLES)
    if mode not in range(7):
        raise Rejected("corrupt", f"a primitive has mode {str(mode)[:20]!r}")
    return int(mode)


def _primitives(mesh: dict[str, Any]) -> list[dict[str, Any]]:
    primitives = mesh.get("primitives")
    if not isinstance(primitives, list) or not all(isinstance(p, dict) for p in primitives):
        raise Rejected("corrupt", "the primitives of a mesh are no list of objects")
    return primitives
