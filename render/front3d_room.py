"""One room of a 3D-FRONT house as a `Mesh` with its `Room`: walls, floor and ceiling textured, furniture placed.

What a missing model means: the dataset says of a piece whether its model exists (`valid`). One that it says exists and
that is not there means that the files given are incomplete, or of another release: the room is Rejected, as
`missing_model`. One whose model was never published is left out, with the flag `missing_furniture`: image and layers
still agree, and most houses have such pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from render.colors import srgb_to_linear
from render.folder import Folder
from render.front3d import OPENINGS, House, Part, Placement
from render.front3d_air import air_over, box_of
from render.limits import DEFAULT, Limits
from render.load import read, sound
from render.mesh import AlphaMode, Material, Mesh, Rejected, Room, Texture
from render.normals import face_normals, sound_normals, unit
from render.textures import Textures

OVERSIZE = 1.5  # diagonals of the room: a piece that is longer is not in metres


@dataclass(frozen=True, eq=False)
class _Piece:
    """A part of the room: corners of faces in the frame of the house. materials are those that `material` counts."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    colors: np.ndarray | None
    material: np.ndarray
    materials: tuple[Material, ...]


def build_room(
    house: House,
    number: int,
    model: Callable[[str], Path | None],
    texture: Callable[[str], bytes | None],
    limits: Limits = DEFAULT,
) -> Mesh:
    """Room `number` of `house`, in metres, +y up, in the frame of the house.

    `model(jid)` is the path of a raw_model.obj with its .mtl and texture.png beside it, `texture(jid)` the bytes of a
    texture.png; None where there is none. Raises Rejected: missing_model, no_floor, degenerate_room, furniture_scale,
    bad_transform, and what `House`, `render.load` and limits give.
    """
    try:
        with np.errstate(all="ignore"):  # NaN and overflow are looked for in the results
            return _room(house, number, model, texture, limits)
    except Rejected:
        raise
    except MemoryError as error:
        raise Rejected("out_of_memory", "the room needs more memory than there is") from error
    except Exception as error:
        raise Rejected("unreadable", f"{type(error).__name__}: {str(error)[:300]}") from error


def read_model(path: Path, limits: Limits = DEFAULT) -> Mesh:
    """A 3D-FUTURE model (raw_model.obj) as it is in its file, in metres: polygons cut into triangles.

    Every model has one texture.png, and it is its colour even where the .mtl does not say so. The emission and the
    transmission (`Ke`, `Tf`) of these .mtl are artefacts of an export, which BlenderProc removes too.
    """
    mesh = read(path, limits)
    image = path.parent / "texture.png"
    pixels = None
    used = [mesh.materials[place] for place in np.unique(mesh.material)]
    if mesh.uv is not None and any(material.base_color_texture is None for material in used):
        textures = Textures(Folder(path.parent, limits), limits)
        pixels = textures.from_file(image.name, uri=False)
    return dressed(mesh, pixels)


def dressed(mesh: Mesh, pixels: np.ndarray | None) -> Mesh:
    """The mesh, its materials without a colour texture given the one image (h,w,4) of the asset, and none emissive."""
    texture = None if pixels is None or mesh.uv is None else Texture(pixels)
    materials = []
    used = set(np.unique(mesh.material).tolist())
    for place, material in enumerate(mesh.materials):
        material = replace(material, emissive=(0.0, 0.0, 0.0), emissive_texture=None)
        if texture is not None and place in used and material.base_color_texture is None:
            color = (1.0, 1.0, 1.0, material.base_color[3])
            material = replace(material, base_color=color, base_color_texture=texture)
        materials.append(material)
    flags = mesh.flags - {"missing_texture", "missing_material"} if texture is not None else mesh.flags
    return replace(mesh, materials=tuple(materials), flags=flags)


def _room(
    house: House,
    number: int,
    model: Callable[[str], Path | None],
    texture: Callable[[str], bytes | None],
    limits: Limits,
) -> Mesh:
    parts = house.parts(number)
    placements, absent = house.placements(number)
    inside = air_over(parts)
    budget = _Budget(limits)
    images, lost = _images({part.surface.jid for part in parts if part.uv is not None} - {""}, texture, limits)
    budget.pixels -= sum(image.shape[0] * image.shape[1] for image in images.values() if image is not None)
    flags = lost.union(*(part.flags for part in parts))
    pieces = []
    for part in parts:
        budget.take(len(part.faces), len(part.vertices))
        pieces.append(_shell(part, images.get(part.surface.jid), flags))
    furniture = _furniture(placements, model, budget, flags, pieces, inside)
    flags |= {"missing_furniture"} if absent else set()
    openings = [box_of(part.vertices[np.unique(part.faces)]) for part in parts if part.kind in OPENINGS]
    room = Room(inside, np.array(furniture).reshape(-1, 2, 3), np.array(openings).reshape(-1, 2, 3))
    return replace(sound(_joined(pieces, flags)), room=room)


class _Budget:
    """What the room may still take of its limits: a model that stands there six times counts six times."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.faces, self.vertices = limits.faces, limits.vertices
        self.pixels, self.bytes = limits.textures_pixels, limits.folder_bytes

    def take(self, faces: int, vertices: int) -> None:
        self.faces -= faces
        self.vertices -= vertices
        if self.faces < 0:
            raise Rejected("too_many_faces", f"the room has more than {self.limits.faces} triangles")
        if self.vertices < 0:
            raise Rejected("too_many_vertices", f"the room has more than {self.limits.vertices} vertices")

    def left(self) -> Limits:
        return replace(
            self.limits,
            faces=max(self.faces, 1),
            vertices=max(self.vertices, 3),
            textures_pixels=max(self.pixels, 0),
            folder_bytes=max(self.bytes, 1),
        )


def _images(
    jids: set[str], texture: Callable[[str], bytes | None], limits: Limits
) -> tuple[dict[str, np.ndarray | None], set[str]]:
    """The textures of the house's materials, and flags of those that are lost: they cost the looks, never the room."""
    textures = Textures(Folder(Path(), limits), limits)  # of bytes that are given: it looks up no name
    images: dict[str, np.ndarray | None] = {}
    for jid in sorted(jids):
        if (data := texture(jid)) is None:
            textures.flags.add("missing_texture")
        else:
            images[jid] = textures.from_bytes(jid, lambda data=data: data)  # type: ignore[misc]
    return images, textures.flags


def _shell(part: Part, image: np.ndarray | None, flags: set[str]) -> _Piece:
    """A mesh of the house: textured, or in its colour."""
    normals = None
    if part.normals is not None:
        normals, repaired = sound_normals(part.normals, part.vertices, part.faces)
        flags |= {"bad_normals"} if repaired else set()
    red, green, blue, alpha = part.surface.color
    uv = None
    if image is not None and part.uv is not None:
        uv = part.uv.astype(np.float64) @ part.surface.uv_transform.T
        uv[:, 1] = 1 - uv[:, 1]
        material = Material(part.kind, base_color_texture=Texture(image))
    else:
        red, green, blue = (float(x) for x in srgb_to_linear(np.array([red, green, blue])))
        # A transparent colour is glass, of a window; what is BLEND is a surface where alpha is at least 0.5.
        mode: AlphaMode = "BLEND" if alpha < 1 else "OPAQUE"
        material = Material(part.kind, base_color=(red, green, blue, alpha), alpha_mode=mode)
    count = np.zeros(len(part.faces), np.int32)
    return _whole(part.vertices, part.faces, normals, uv, None, count, (material,))


def _furniture(
    placements: list[Placement],
    model: Callable[[str], Path | None],
    budget: _Budget,
    flags: set[str],
    pieces: list[_Piece],
    inside: np.ndarray,
) -> list[np.ndarray]:
    """Appends every placed model to `pieces`; the boxes (2,3) that they take in the room."""
    corners = inside.reshape(-1, 3)
    longest = OVERSIZE * float(np.linalg.norm(np.ptp(corners, axis=0)))
    models: dict[str, Mesh] = {}
    boxes = []
    for placement in placements:
        if placement.jid not in models:
            models[placement.jid] = _model(placement.jid, model, budget)
        mesh = models[placement.jid]
        budget.take(len(mesh.faces), len(mesh.vertices))
        flags |= mesh.flags
        vertices = placement.apply(mesh.vertices)
        used = vertices[np.unique(mesh.faces)]
        if not np.isfinite(used).all():
            raise Rejected("non_finite", f"the model {placement.jid} has a vertex that is NaN or infinite")
        box = box_of(used)
        if float((box[1] - box[0]).max()) > longest:
            side = float((box[1] - box[0]).max())
            raise Rejected("furniture_scale", f"the piece {placement.jid} is {side:.3g} m long, longer than its room")
        boxes.append(box)
        normals = None
        if mesh.normals is not None:
            turned = unit(mesh.normals.astype(np.float64) / placement.scale @ placement.rotation.T)
            normals = turned.astype(np.float32)
        pieces.append(_whole(vertices, mesh.faces, normals, mesh.uv, mesh.colors, mesh.material, mesh.materials))
    return boxes


def _model(jid: str, model: Callable[[str], Path | None], budget: _Budget) -> Mesh:
    path = model(jid)
    if path is None:
        raise Rejected("missing_model", f"the room has the piece {jid}, whose raw_model.obj is not in 3D-FUTURE-model")
    try:
        mesh = read_model(path, budget.left())
    except Rejected as problem:
        raise Rejected(problem.reason, f"model {jid}: {problem.message}") from None
    seen = {id(m.base_color_texture.pixels): m.base_color_texture for m in mesh.materials if m.base_color_texture}
    budget.pixels -= sum(texture.pixels.shape[0] * texture.pixels.shape[1] for texture in seen.values())
    budget.bytes -= path.stat().st_size
    return mesh


def _whole(
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray | None,
    uv: np.ndarray | None,
    colors: np.ndarray | None,
    material: np.ndarray,
    materials: tuple[Material, ...],
) -> _Piece:
    """With normals and uv, which a joined mesh has everywhere or nowhere; without normals a corner gets its face's."""
    if normals is None:
        flat = faces.reshape(-1)
        normals = np.repeat(unit(face_normals(vertices, faces)), 3, axis=0).astype(np.float32)
        vertices = vertices[flat]
        uv = None if uv is None else uv[flat]
        colors = None if colors is None else colors[flat]
        faces = np.arange(len(flat), dtype=np.int32).reshape(-1, 3)
    if uv is None:
        uv = np.zeros((len(vertices), 2))
    return _Piece(vertices, faces, normals, uv.astype(np.float32), colors, material, materials)


def _joined(pieces: list[_Piece], flags: set[str]) -> Mesh:
    """One mesh of all pieces; a material that several share is in it once."""
    table: dict[int, int] = {}
    materials: list[Material] = []
    faces, material, first = [], [], 0
    for piece in pieces:
        for each in piece.materials:
            if id(each) not in table:
                table[id(each)] = len(materials)
                materials.append(each)
        place = np.array([table[id(each)] for each in piece.materials], np.int32)
        faces.append(piece.faces.astype(np.int64) + first)
        material.append(place[piece.material])
        first += len(piece.vertices)
    colored = any(piece.colors is not None for piece in pieces)
    white = [np.ones((len(p.vertices), 4), np.float32) if p.colors is None else p.colors for p in pieces]
    return Mesh(
        vertices=np.concatenate([piece.vertices for piece in pieces]).astype(np.float64),
        faces=np.concatenate(faces).astype(np.int32),
        material=np.concatenate(material).astype(np.int32),
        materials=tuple(materials),
        normals=np.concatenate([piece.normals for piece in pieces]).astype(np.float32),
        uv=np.concatenate([piece.uv for piece in pieces]),
        colors=np.concatenate(white) if colored else None,
        flags=frozenset(flags),
    )
