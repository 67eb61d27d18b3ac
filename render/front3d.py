"""3D-FRONT houses: the JSON of a house as rooms, and what each of them is made of.

Frame and units are those of the dataset's own toolbox (3D-FRONT-ToolBox, scripts/scene.py and scripts/utils.py), which
writes them to OBJ unchanged: metres, right-handed, +y up, one frame for the whole house. There,

    a mesh (wall, floor, ceiling, ...) has its vertices in the frame of the house: `pos`, `rot` and `scale` of the child
    that names it, and those of the room, are not applied;
    a piece of furniture is placed by x_house = R(rot) (scale * x_model) + pos, with `rot` the quaternion x, y, z, w;
    a piece counts if it is `valid`. Models of the others were never published;
    a mesh's material leads to `jid`, the folder of its texture.png; the upper left 2x2 of `UVTransform` is applied to
    `uv`, whose v = 0 is the bottom row.

Some meshes say in `roomId` to which room they belong instead of being a child of it. Nothing here is trusted: whatever
does not fit is Rejected, and of a room only when that room is asked for.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from render.gltf_file import array, json_object
from render.limits import DEFAULT, Limits
from render.mesh import Rejected
from render.uv import sound_uv

# What is seen of a wall is WallInner; the others close the gaps between rooms, as coincident and unseen faces.
DROPPED = frozenset({"walltop", "wallbottom", "wallouter"})
OPENINGS = frozenset({"door", "window", "hole", "baywindow", "pocket"})
FARTHEST = 1e4  # metres from the origin of the house
SCALES = (1e-5, 5.0)  # of furniture; beyond them the entries of the dataset are wrong (as ATISS has it)
NAME = 200  # characters of an identifier
# JSON may spell half of a surrogate pair, which no UTF-8 file holds; control characters would steer a terminal.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Flat lists of numbers, nearly all of a house. Quotes within a text are escaped, so no text looks like this.
_SHAPES = re.compile(rb'"(?:xyz|normal|uv|faces)"\s*:\s*\[[^\[\]"{}]*\]')


@dataclass(frozen=True, eq=False)
class Surface:
    """A material of the house. `jid` names the folder of its texture, "" without one; `color` is sRGB in [0, 1]."""

    jid: str
    color: tuple[float, float, float, float]
    uv_transform: np.ndarray  # (2,2), to be applied to (u, v) with v up


@dataclass(frozen=True, eq=False)
class Part:
    """A mesh of the house in its frame: vertices (V,3) float64, faces (F,3) int32, normals (V,3) or None, uv (V,2)
    float64 with v up, not yet transformed, or None. `kind` is its type in lower case."""

    kind: str
    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray | None
    uv: np.ndarray | None
    surface: Surface
    flags: frozenset[str] = frozenset()

    @property
    def is_floor(self) -> bool:
        return "floor" in self.kind

    @property
    def is_ceiling(self) -> bool:
        return "ceil" in self.kind

    @property
    def is_wall(self) -> bool:
        return "wall" in self.kind


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the model `jid` stands: x_house = rotation (scale * x_model) + position."""

    jid: str
    position: np.ndarray
    rotation: np.ndarray
    scale: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """(N,3) in the frame of the model -> (N,3) in that of the house."""
        return np.asarray((points * self.scale) @ self.rotation.T + self.position)


@dataclass(frozen=True)
class RoomEntry:
    """`number` is its place in the house, `instance` its instanceid ("LivingRoom-1"), unique with `number`."""

    number: int
    instance: str
    kind: str


class House:
    """A parsed house; rooms are looked into when they are asked for."""

    def __init__(self, root: dict[str, Any], limits: Limits) -> None:
        self.limits = limits
        scene = json_object(root.get("scene"), "scene")
        self._rooms = [json_object(room, "a room") for room in array(scene, "room")]
        if not self._rooms:
            raise Rejected("no_rooms", "the house has no room")
        if len(self._rooms) > limits.nodes:
            raise Rejected("too_many_nodes", f"the house has {len(self._rooms)} rooms")
        self._furniture = _by_uid(root, "furniture")
        self._meshes = _by_uid(root, "mesh")
        self._materials = _by_uid(root, "material")
        self._meshes_of: dict[str, list[str]] = {}  # by their roomId
        for uid, entry in self._meshes.items():
            self._meshes_of.setdefault(_name(entry.get("roomId")), []).append(uid)
        self._surfaces: dict[str, Surface] = {}  # by their material
        # Over all rooms: rooms that share an instanceid share its meshes too, and may list each other's pieces.
        named = sum(self._references(room) for room in self._rooms)
        if named > limits.nodes:
            raise Rejected("too_many_nodes", f"the rooms of the house name {named} pieces; the limit is {limits.nodes}")

    @property
    def rooms(self) -> list[RoomEntry]:
        return [
            RoomEntry(number, _name(room.get("instanceid")) or f"room-{number}", _name(room.get("type")) or "unknown")
            for number, room in enumerate(self._rooms)
        ]

    def jids(self, number: int) -> tuple[list[str], list[str]]:
        """The models and the textures that room `number` needs, sorted: names of folders, as the house has them."""
        models = {_name(entry.get("jid")) for entry, _ in self._pieces(number) if _valid(entry)}
        textures = {self._surface(entry).jid for entry in self._room_meshes(number)}
        return sorted(models - {""}), sorted(textures - {""})

    def parts(self, number: int) -> list[Part]:
        """The meshes of a room but those of DROPPED types. Raises Rejected: corrupt, non_finite, index_out_of_range,
        too_many_vertices, too_many_faces."""
        found, vertices, faces = [], 0, 0
        for entry in self._room_meshes(number):
            part = self._part(entry)
            if part is None:
                continue
            vertices, faces = vertices + len(part.vertices), faces + len(part.faces)
            if vertices > self.limits.vertices:
                raise Rejected(
                    "too_many_vertices", f"more than {self.limits.vertices} vertices in the meshes of a room"
                )
            if faces > self.limits.faces:
                raise Rejected("too_many_faces", f"more than {self.limits.faces} triangles in the meshes of a room")
            found.append(part)
        return found

    def placements(self, number: int) -> tuple[list[Placement], int]:
        """The furniture of a room, and how many pieces are left out since the dataset does not have their models
        (`valid` is not true). Raises Rejected: bad_transform, corrupt, path_outside_folder."""
        placed, absent = [], 0
        for entry, child in self._pieces(number):
            if not _valid(entry):
                absent += 1
                continue
            jid = _name(entry.get("jid"))
            if not is_folder_name(jid):
                raise Rejected("path_outside_folder", f"a piece of furniture has the jid {jid!r}, no name of a folder")
            placed.append(_placement(jid, child))
        return placed, absent

    def _references(self, room: dict[str, Any]) -> int:
        """How many entries a room names, at most; whether they are sound is asked when the room is."""
        children = room.get("children")
        meshes = sum(len(self._meshes_of.get(own, ())) for own in _own_names(room))
        return meshes + (len(children) if isinstance(children, list) else 0)

    def _children(self, number: int) -> list[dict[str, Any]]:
        return [json_object(child, "a child of a room") for child in array(self._rooms[number], "children")]

    def _pieces(self, number: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for child in self._children(number):
            entry = self._furniture.get(_name(child.get("ref")))
            if entry is not None:
                yield entry, child

    def _room_meshes(self, number: int) -> list[dict[str, Any]]:
        """Each once, first the children in their order; without those of DROPPED types."""
        room = self._rooms[number]
        refs = dict.fromkeys(_name(child.get("ref")) for child in self._children(number))
        for own in _own_names(room):
            refs |= dict.fromkeys(self._meshes_of.get(own, ()))
        entries = [self._meshes[ref] for ref in refs if ref in self._meshes]
        return [entry for entry in entries if _kind(entry) not in DROPPED]

    def _part(self, entry: dict[str, Any]) -> Part | None:
        what = f"mesh {_name(entry.get('uid'))!r}"
        vertices = _table(entry.get("xyz"), 3, f"xyz of {what}")
        indices = _table(entry.get("faces"), 3, f"faces of {what}")
        if not len(indices):
            return None
        if not (np.isfinite(vertices).all() and np.isfinite(indices).all()):
            raise Rejected("non_finite", f"{what} has a number that is NaN or infinite")
        if float(np.abs(vertices).max(initial=0.0)) > FARTHEST:
            raise Rejected("non_finite", f"{what} lies more than {FARTHEST:g} m away")
        if indices.min() < 0 or indices.max() >= len(vertices):
            raise Rejected("index_out_of_range", f"{what} names a vertex beyond its {len(vertices)}")
        faces = indices.astype(np.int32)
        if (faces != indices).any():
            raise Rejected("corrupt", f"the faces of {what} are no whole numbers")
        flags = set()
        uv = _optional(entry.get("uv"), 2, len(vertices))
        if uv is None:
            flags.add("bad_uv")
        else:
            uv, repaired = sound_uv(uv)
            flags |= {"bad_uv"} if repaired else set()
        normals = _optional(entry.get("normal"), 3, len(vertices))
        return Part(_kind(entry), vertices, faces, normals, uv, self._surface(entry), frozenset(flags))

    def _surface(self, entry: dict[str, Any]) -> Surface:
        material = _name(entry.get("material"))
        if material not in self._surfaces:
            self._surfaces[material] = self._made_of(self._materials.get(material, {}))
        return self._surfaces[material]

    def _made_of(self, given: dict[str, Any]) -> Surface:
        jid = _name(given.get("jid")) if given.get("texture") else ""
        if jid and not is_folder_name(jid):
            raise Rejected("path_outside_folder", f"a material has the jid {jid!r}, which is no name of a folder")
        # 220 is what the toolbox paints where there is no colour.
        color = _optional(given.get("color"), 1, None)
        values = np.full(4, 255.0) if color is None else np.append(color[:4, 0], [255.0] * max(0, 4 - len(color)))
        if color is None or len(color) < 3 or not np.isfinite(values).all():
            values = np.array([220.0, 220.0, 220.0, 255.0])
        r, g, b, a = (float(x) for x in np.clip(values[:4] / 255.0, 0, 1))
        a = a or 1.0  # as `d 0` of an .mtl: nobody models what is not to be seen
        matrix = _optional(given.get("UVTransform"), 3, 3)
        if matrix is None or not (np.abs(matrix) <= 1e4).all():
            matrix = np.eye(3)
        return Surface(jid, (r, g, b, a), matrix[:2, :2])


def read_house(data: bytes, limits: Limits = DEFAULT, *, shapes: bool = True) -> House:
    """The house of a 3D-FRONT JSON. Raises Rejected: file_too_large, truncated, corrupt, no_rooms.

    Without `shapes` the meshes have no vertices and faces; the rest, `rooms` and `jids`, takes a quarter of the time.
    """
    if len(data) > limits.json_bytes:
        raise Rejected("file_too_large", f"the JSON has {len(data)} bytes; the limit is {limits.json_bytes}")
    if not shapes:
        data = _SHAPES.sub(b'"":[]', data)
    marks = sum(data.count(mark) for mark in (b",", b"[", b"{"))  # 3 bytes of JSON may become 80 of Python
    if marks > limits.json_values:
        raise Rejected("file_too_large", f"the JSON has {marks} values; the limit is {limits.json_values}")
    try:
        text = data.decode("utf-8-sig")
        root = json.loads(text)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            raise Rejected("truncated", f"the JSON ends too early, after {len(data)} bytes") from error
        raise Rejected("corrupt", f"the JSON cannot be parsed: {str(error)[:200]}") from error
    except (ValueError, RecursionError) as error:
        raise Rejected("corrupt", f"the JSON cannot be parsed: {type(error).__name__}: {str(error)[:200]}") from error
    return House(json_object(root, "the file"), limits)


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """(3,3) of the quaternion x, y, z, w, whatever its length but zero."""
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def plain_text(text: str) -> str:
    """`text` with escapes for what is none: half surrogates and control characters. Other names stay other names."""
    return _NO_TEXT.sub(lambda found: ascii(found[0])[1:-1], text)


def is_folder_name(name: str) -> bool:
    """Whether `name` is that of one folder: it cannot lead anywhere else."""
    return bool(name) and name not in (".", "..") and not any(mark in name for mark in "/\\\0:")


def _placement(jid: str, child: dict[str, Any]) -> Placement:
    vectors = {}
    for key, size in (("pos", 3), ("rot", 4), ("scale", 3)):
        row = _optional(child.get(key), size, 1)
        if row is None or not np.isfinite(row).all():
            raise Rejected("bad_transform", f"{key} of the piece {jid} is no {size} finite numbers")
        vectors[key] = row[0]
    if float(np.abs(vectors["pos"]).max()) > FARTHEST:
        raise Rejected("bad_transform", f"the piece {jid} stands more than {FARTHEST:g} m away")
    length = float(np.linalg.norm(vectors["rot"]))
    if not 1e-3 < length < 1e3:
        raise Rejected("bad_transform", f"the quaternion of the piece {jid} has the length {length:g}")
    low, high = SCALES
    if not ((vectors["scale"] >= low) & (vectors["scale"] <= high)).all():
        raise Rejected("bad_transform", f"the piece {jid} is scaled by {vectors['scale'].tolist()}")
    return Placement(jid, vectors["pos"], rotation_of(vectors["rot"]), vectors["scale"])


def _by_uid(root: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """The entries of a list by their uid; of several with one uid the last, as in the toolbox."""
    found = {}
    for entry in array(dict(root), key):
        entry = json_object(entry, f"an entry of {key}")
        if uid := _name(entry.get("uid")):
            found[uid] = entry
    return found


def _own_names(room: dict[str, Any]) -> list[str]:
    """What the `roomId` of a room's meshes may be, each once."""
    names = dict.fromkeys(_name(room.get(key)) for key in ("instanceid", "roomId"))
    return [name for name in names if name]


def _valid(entry: dict[str, Any]) -> bool:
    return entry.get("valid") is True or entry.get("valid") == 1


def _kind(entry: dict[str, Any]) -> str:
    return _name(entry.get("type")).lower()


def _name(value: Any) -> str:
    """An identifier of the JSON as text that can be written anywhere; "" for what is none. Whole numbers occur."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 10**18 else ""
    return plain_text(value.strip()[:NAME]) if isinstance(value, str) else ""


def _table(value: Any, width: int, what: str) -> np.ndarray:
    """(n,width) float64 from a flat list of numbers, which may be texts. Raises Rejected("corrupt")."""
    if not isinstance(value, list):
        raise Rejected("corrupt", f"{what} is {type(value).__name__}, expected a list of numbers")
    try:
        flat = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise Rejected("corrupt", f"{what} is no list of numbers: {str(error)[:100]}") from error
    if flat.ndim != 1 or len(flat) % width:
        raise Rejected("corrupt", f"{what} is no flat list of {width} numbers each")
    return flat.reshape(-1, width)


def _optional(value: Any, width: int, count: int | None) -> np.ndarray | None:
    """As `_table`, or None where it is not there, not a table, or has another number of rows than `count`."""
    try:
        table = _table(value, width, "")
    except Rejected:
        return None
    return table if count is None or len(table) == count else None
