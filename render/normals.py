"""Normals of faces and vertices, and the repair of those that a file got wrong."""

import numpy as np


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,3) float64, twice the area long: (b - a) x (c - a)."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return np.cross(b - a, c - a)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,3) float64 unit normals, weighted by area; +y where a vertex has no face with an area."""
    return unit(corner_sums(vertices, faces, faces, len(vertices)))


def corner_sums(vertices: np.ndarray, faces: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """(groups,3) float64: the sum of `face_normals` over the corners of each group; group (F,3) names each corner's."""
    sums = np.zeros((groups, 3))
    across = face_normals(vertices, faces)
    for corner in range(3):
        for axis in range(3):
            sums[:, axis] += np.bincount(group[:, corner], across[:, axis], groups)
    return sums


def unit(vectors: np.ndarray) -> np.ndarray:
    """(...,3) float64 of length 1; +y where the length is zero or not finite."""
    with np.errstate(all="ignore"):
        length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
        if length.size and length.min() > 0 and length.max() < np.inf:
            return vectors / length  # nearly always so, and rooms are made of thousands of small pieces
        sound = (length > 0) & np.isfinite(length)
        return np.where(sound, vectors / np.where(sound, length, 1), [0.0, 1.0, 0.0])


def sound_normals(normals: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, bool]:
    """Normals (V,3) as unit float32, and whether any had to be made up.

    A normal that is zero, NaN or infinite is replaced by the area-weighted one of its faces; one of another length
    is only normalised.
    """
    with np.errstate(all="ignore"):
        length = np.linalg.norm(normals.astype(np.float64), axis=1)
    bad = ~((length > 1e-6) & np.isfinite(length))
    out = unit(normals.astype(np.float64))
    if bad.any():
        out[bad] = vertex_normals(vertices, faces)[bad]
    return out.astype(np.float32), bool(bad.any())
