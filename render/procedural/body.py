"""A body: pieces of surface bound to the joints of a skeleton, and the walking mesh they become."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from render.mesh import Mesh
from render.procedural.assembly import Assembly
from render.procedural.looks import Look
from render.procedural.piece import Piece
from render.procedural.shapes import tube
from render.procedural.skeleton import Skeleton, Skin, Swing, Walk, chain_weights
from render.procedural.vessels import curve


class Body:
    """Pieces at rest, each bound to one joint or along a chain of joints."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self.assembly = Assembly()
        self.weights: list[np.ndarray] = []

    def at(self, joint: str) -> np.ndarray:
        return self.skeleton.rest[self.skeleton.index(joint)]

    def rigid(self, joint: str, look: Look, *pieces: Piece) -> None:
        """Pieces, in the body's frame, that move with `joint`."""
        for piece in pieces:
            weights = np.zeros((len(piece.vertices), len(self.skeleton.names)))
            weights[:, self.skeleton.index(joint)] = 1.0
            self._bind(look, piece, weights)

    def skinned(self, chain: Sequence[str], look: Look, piece: Piece, blend: float) -> None:
        indices = [self.skeleton.index(name) for name in chain]
        self._bind(look, piece, chain_weights(piece.vertices, self.skeleton.rest, indices, blend))

    def _bind(self, look: Look, piece: Piece, weights: np.ndarray) -> None:
        self.assembly.add(look, piece)
        self.weights.append(weights)

    def walking(self, swings: Sequence[Swing], duration: float, soles: Sequence[tuple[str, np.ndarray]]) -> Mesh:
        """The mesh with its walk; `vertices` and `normals` are those of time 0."""
        contacts = tuple((self.skeleton.index(joint), point) for joint, points in soles for point in points)
        mesh, used = self.assembly.mesh_and_used()
        assert mesh.normals is not None
        walk = Walk(self.skeleton, tuple(swings), duration, contacts)
        skin = Skin(walk, mesh.vertices, mesh.normals.astype(np.float64), np.concatenate(self.weights)[used])
        normals = skin.posed_normals(0.0).astype(np.float32)
        return replace(mesh, vertices=skin.pose(0.0), normals=normals, pose=skin.pose, duration=duration)


def limb(points: np.ndarray, radii: Sequence[float], segments: int = 14, per_bone: int = 7) -> Piece:
    """A tube through joint positions with rounded ends; `radii` one per point."""
    count = per_bone * (len(points) - 1) + 1
    at = np.linspace(0, len(points) - 1, count)
    path = np.stack([np.interp(at, np.arange(len(points)), points[:, k]) for k in range(3)], 1)
    r = curve(np.asarray(radii, float)[:, None], count)[:, 0]
    angle = np.array([0.15, 0.5, 0.9, 1.25])
    first, last = path[0] - path[1], path[-1] - path[-2]
    first, last = first / np.linalg.norm(first), last / np.linalg.norm(last)
    start = path[0] + first * (r[0] * np.cos(angle))[:, None]
    end = path[-1] + last * (r[-1] * np.cos(angle[::-1]))[:, None]
    path = np.concatenate([start, path, end])
    return tube(path, np.concatenate([r[0] * np.sin(angle), r, r[-1] * np.sin(angle[::-1])]), segments)


def skeleton(joints: Sequence[tuple[str, str, tuple[float, float, float]]]) -> Skeleton:
    """From (name, parent's name or empty, rest position), parents first."""
    names = tuple(name for name, _, _ in joints)
    parents = tuple(names.index(parent) if parent else -1 for _, parent, _ in joints)
    return Skeleton(names, parents, np.array([at for _, _, at in joints], float))


def sole_points(centre: np.ndarray, half_width: float, half_length: float) -> np.ndarray:
    """Six points (6,3) under a foot whose sole is centred on `centre`."""
    return np.array([centre + [x * half_width, 0, z * half_length] for x in (-1, 1) for z in (-1, 0, 1)])
