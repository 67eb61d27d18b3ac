"""A piece of surface: triangles with normals and texture coordinates, and the motions that put it in its place."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from render.normals import face_normals, unit


@dataclass(frozen=True, eq=False)
class Piece:
    """vertices (V,3), normals (V,3) unit, uv (V,2) float64; faces (F,3) int, counter-clockwise seen from outside."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uv: np.ndarray

    def transformed(self, matrix: np.ndarray) -> "Piece":
        """Under an affine `matrix` (4,4), or its linear part (3,3); a mirroring one also turns the faces round."""
        linear = matrix[:3, :3]
        vertices = self.vertices @ linear.T
        if matrix.shape[0] == 4:
            vertices = vertices + matrix[:3, 3]
        # Normals go with the cofactor matrix det(A) A^-T, up to the sign of the determinant. It is written out because
        # small matrices cost linalg more than the vertices do, and rooms move thousands of pieces.
        (a, b, c), (d, e, f), (g, h, i) = linear.tolist()
        cofactor = np.array(
            [
                [e * i - f * h, f * g - d * i, d * h - e * g],
                [c * h - b * i, a * i - c * g, b * g - a * h],
                [b * f - c * e, c * d - a * f, a * e - b * d],
            ]
        )
        determinant = a * float(cofactor[0, 0]) + b * float(cofactor[0, 1]) + c * float(cofactor[0, 2])
        scale = math.copysign(abs(determinant) ** (2 / 3), determinant)
        normals = self.normals @ (cofactor.T / scale)
        similar = abs(a * d + b * e + c * f) + abs(a * g + b * h + c * i) + abs(d * g + e * h + f * i)
        similar += abs(a * a + b * b + c * c - d * d - e * e - f * f) + abs(
            a * a + b * b + c * c - g * g - h * h - i * i
        )
        if similar > 1e-9 * abs(scale):
            normals = unit(normals)
        faces = self.faces if determinant > 0 else self.faces[:, ::-1]
        return Piece(vertices, faces, normals, self.uv)

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> "Piece":
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def scaled(self, x: float, y: float | None = None, z: float | None = None) -> "Piece":
        return self.transformed(np.diag([x, x if y is None else y, x if z is None else z]))

    def turned(self, axis: str, angle: float) -> "Piece":
        """Rotated about the x, y or z axis through the origin, in radians."""
        rotation = turn(axis, angle)
        return replace(self, vertices=self.vertices @ rotation.T, normals=self.normals @ rotation.T)

    def inside_out(self) -> "Piece":
        return replace(self, faces=self.faces[:, ::-1], normals=-self.normals)

    def tiled(self, u: float, v: float | None = None) -> "Piece":
        """With texture coordinates multiplied, so that a repeating texture repeats."""
        return replace(self, uv=self.uv * np.array([u, u if v is None else v]))

    def faceted(self) -> "Piece":
        """Every face with vertices and a normal of its own, as low-polygon models are."""
        corners = self.vertices[self.faces]
        normals = unit(face_normals(self.vertices, self.faces))
        return Piece(
            corners.reshape(-1, 3),
            np.arange(len(self.faces) * 3).reshape(-1, 3),
            np.repeat(normals, 3, axis=0),
            self.uv[self.faces].reshape(-1, 2),
        )

    def bent(self, warp: Callable[[np.ndarray], np.ndarray]) -> "Piece":
        """Under a smooth map of space `warp` (V,3) -> (V,3) that keeps handedness; normals follow its Jacobian."""
        step = 1e-5 * (float(np.ptp(self.vertices, axis=0).max()) or 1.0)
        columns = [(warp(self.vertices + e) - warp(self.vertices - e)) / (2 * step) for e in np.eye(3) * step]
        cofactor = [np.cross(columns[(k + 1) % 3], columns[(k + 2) % 3]) for k in range(3)]
        normals = unit(np.einsum("vk,kvc->vc", self.normals, np.stack(cofactor)))
        return replace(self, vertices=warp(self.vertices), normals=normals)


def join(pieces: Sequence[Piece]) -> Piece:
    """One piece of all."""
    starts = np.cumsum([0] + [len(p.vertices) for p in pieces])
    return Piece(
        np.concatenate([p.vertices for p in pieces]),
        np.concatenate([p.faces + start for p, start in zip(pieces, starts)]),
        np.concatenate([p.normals for p in pieces]),
        np.concatenate([p.uv for p in pieces]),
    )


def turn(axis: str, angle: float) -> np.ndarray:
    """Rotation (3,3) about a coordinate axis, right-handed, in radians."""
    c, s = math.cos(angle), math.sin(angle)
    if axis == "x":
        return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1.0, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def placed(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Matrix (4,4): scale, turn about +y, move."""
    matrix = np.eye(4)
    matrix[:3, :3] = turn("y", yaw) * scale
    matrix[:3, 3] = x, y, z
    return matrix


def along(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Rigid motion (4,4) that puts the origin at `start` and turns +y towards `end`."""
    direction = np.asarray(end, float) - np.asarray(start, float)
    y = direction / np.linalg.norm(direction)
    side = np.array([0.0, 0.0, 1.0]) if abs(y[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    x = np.cross(y, side)
    x /= np.linalg.norm(x)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = x, y, np.cross(x, y), start
    return matrix
