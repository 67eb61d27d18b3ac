"""Painted pieces put together, and the mesh they become."""

from __future__ import annotations

import numpy as np

from render.mesh import Material, Mesh
from render.procedural.looks import Look
from render.procedural.piece import Piece


class Assembly:
    """Pieces with looks, in the order they were added; assemblies go into others with a placement."""

    def __init__(self) -> None:
        self.parts: list[tuple[Piece, Look]] = []
        self._bounds: tuple[int, np.ndarray] | None = None  # for how many parts, and the box of those

    def add(self, look: Look, *pieces: Piece) -> Assembly:
        self.parts += [(piece, look) for piece in pieces]
        return self

    def include(self, other: Assembly, placement: np.ndarray | None = None) -> Assembly:
        """All pieces of `other`, under the affine `placement` (4,4)."""
        for piece, look in other.parts:
            self.parts.append((piece if placement is None else piece.transformed(placement), look))
        return self

    def transformed(self, placement: np.ndarray) -> Assembly:
        return Assembly().include(self, placement)

    def bounds(self) -> np.ndarray:
        """Lowest and highest corner (2,3)."""
        if self._bounds is None or self._bounds[0] != len(self.parts):
            vertices = np.concatenate([piece.vertices for piece, _ in self.parts])
            self._bounds = len(self.parts), np.stack([vertices.min(axis=0), vertices.max(axis=0)])
        return self._bounds[1]

    def mesh(self) -> Mesh:
        """One mesh without collapsed faces and unused vertices; materials that are shared are kept once."""
        return self.mesh_and_used()[0]

    def mesh_and_used(self) -> tuple[Mesh, np.ndarray]:
        """The mesh, and which of the pieces' vertices (in the order of their joining) it kept, (V,) bool."""
        materials: list[Material] = []
        slot: dict[int, int] = {}
        for _, look in self.parts:
            if id(look.material) not in slot:
                slot[id(look.material)] = len(materials)
                materials.append(look.material)
        pieces = [piece for piece, _ in self.parts]
        starts = np.cumsum([0] + [len(p.vertices) for p in pieces])
        vertices = np.concatenate([p.vertices for p in pieces])
        faces = np.concatenate([p.faces + start for p, start in zip(pieces, starts)])
        material = np.repeat([slot[id(look.material)] for _, look in self.parts], [len(p.faces) for p in pieces])
        keep = _with_area(vertices, faces)
        faces, material = faces[keep], material[keep]
        used = np.zeros(len(vertices), bool)
        used[faces] = True
        renumbered = np.cumsum(used) - 1
        mesh = Mesh(
            vertices=vertices[used],
            faces=renumbered[faces].astype(np.int32),
            material=material.astype(np.int32),
            materials=tuple(materials),
            normals=np.concatenate([p.normals for p in pieces])[used].astype(np.float32),
            uv=self._uv(materials, used),
            colors=self._colours(used),
        )
        return mesh, used

    def _uv(self, materials: list[Material], used: np.ndarray) -> np.ndarray | None:
        if all(m.base_color_texture is None for m in materials):
            return None
        uv = np.concatenate([piece.uv * np.array(look.tiling) for piece, look in self.parts])
        return uv[used].astype(np.float32)

    def _colours(self, used: np.ndarray) -> np.ndarray | None:
        if all(look.colour is None for _, look in self.parts):
            return None
        colours = np.ones((len(used), 4), np.float32)
        start = 0
        for piece, look in self.parts:
            stop = start + len(piece.vertices)
            if look.colour is not None:
                colours[start:stop, :3] = np.clip(look.colour(piece.vertices), 0, 1)
            start = stop
        return colours[used]


def _with_area(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) bool: faces whose area is more than rounding error beside the size of the whole."""
    corners = vertices[faces]
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across = [u[:, i] * v[:, j] - u[:, j] * v[:, i] for i, j in ((1, 2), (2, 0), (0, 1))]
    square = across[0] ** 2 + across[1] ** 2 + across[2] ** 2
    return square > (1e-10 * float(np.ptp(vertices, axis=0).max()) ** 2) ** 2
