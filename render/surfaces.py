"""From raw hits to the surfaces one wants as layers: coincident faces, cut-out materials, more slots than layers.

The peel reports every intersection. Real assets hold the same face twice, decals a hair above a wall, and leaves that
are mostly transparent; each would spend a layer on nothing. Peel more slots than layers, drop the hits whose material
is cut out there (`compact`), then merge what coincides (`merge_coincident`).
"""

import numpy as np

from render.hits import Hits

# A face whose height is below this fraction of its longest edge has no area that a float32 asset could mean.
FLAT = 1e-12

CHUNK = 1 << 15  # faces looked at together


def compact(hits: Hits, keep: np.ndarray, layers: int) -> Hits:
    """Drop the hits where `keep` (S,H,W) bool is False; those behind move up. Returns the first `layers` <= S."""
    slots = hits.depth.shape[0]
    if keep.shape != hits.depth.shape:
        raise ValueError(
            f"keep has shape {keep.shape} but the hits have {hits.depth.shape}; give one value for each hit."
        )
    if not 1 <= layers <= slots:
        raise ValueError(
            f"layers is {layers} but the hits have {slots} slots; ask for 1 to {slots}, or peel more slots."
        )
    result = Hits(*(array[:layers].copy() for array in hits))
    dropped = ~keep & (hits.triangle >= 0)
    v, u = np.nonzero(dropped.any(axis=0))
    if len(v):
        # False sorts before True: kept hits first, in their order, and then what is empty.
        kept = (keep & (hits.triangle >= 0))[:, v, u]
        order = np.argsort(~kept, axis=0, kind="stable")[:layers]
        kept = np.take_along_axis(kept, order, axis=0)
        for target, source, empty in zip(result, hits, (np.inf, -1, 0), strict=True):
            target[:, v, u] = np.where(kept, np.take_along_axis(source[:, v, u], order, axis=0), empty)
    return result


def merge_coincident(hits: Hits, tolerance: float, layers: int, relative: float = 0.0) -> Hits:
    """Hits closer than max(tolerance, relative * depth) to the last one kept that faces the same way are one surface.

    The first is kept. `tolerance` is in the units of the scene. Two sides of a shell never merge, however thin it is,
    and neither the order of coincident hits nor an opposite one between them matters. With 0 nothing is merged.
    """
    if not (tolerance >= 0 and relative >= 0):
        raise ValueError(f"tolerance is {tolerance} and relative is {relative}; give 0 or more for each.")
    keep = np.ones(hits.depth.shape, dtype=bool)
    if len(keep) > 1:
        v, u = np.nonzero(hits.triangle[1] >= 0)
        last = {1: np.full(len(v), -np.inf), -1: np.full(len(v), -np.inf)}
        for slot in range(len(keep)):
            depth, facing = hits.depth[slot, v, u].astype(np.float64), hits.facing[slot, v, u]
            near = np.minimum(depth - tolerance, depth * (1 - relative))
            new = near >= np.where(facing > 0, last[1], last[-1])
            keep[slot, v, u] = new
            for side, kept in last.items():
                kept[:] = np.where(new & (facing == side), depth, kept)
    return compact(hits, keep, layers)


def drop_duplicate_faces(faces: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Which faces to keep, (F,) bool: the first of those with the same three positions, and none without area.

    Positions count, not indices, whatever the winding: unwelded copies and back-to-back copies are duplicates too.
    """
    faces = np.asarray(faces)
    vertices = np.asarray(vertices, dtype=np.float64) + 0.0  # -0 and 0 are one position
    keep = np.zeros(len(faces), dtype=bool)
    place = _digest(vertices)
    face = np.empty(len(faces), dtype=np.uint64)
    for start in range(0, len(faces), CHUNK):  # in the cache: the arrays between would be gigabytes
        part = slice(start, start + CHUNK)
        keep[part] = _has_area(*(vertices[faces[part, i]] for i in range(3)))
        face[part] = place[faces[part]].sum(axis=1)  # a sum, for the order of the corners does not matter

    # Equal faces have equal digests. Those with one of their own, which is nearly all, are settled by a plain sort.
    ordered = np.sort(face)
    shared = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(shared):
        suspect = np.zeros(1 << 24, dtype=bool)  # by the digest's first bits: some faces too many do no harm
        suspect[shared >> 40] = True
        alike = np.flatnonzero(suspect[face >> 40])
        _, position = _distinct(vertices)
        first, _ = _distinct(np.sort(position[faces[alike]], axis=1))
        once = np.zeros(len(alike), dtype=bool)
        once[first] = True
        keep[alike] &= once
    return keep


def _has_area(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Whether the triangles with corners a, b, c (N,3) have an area, (N,) bool."""
    doubled_area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    longest = np.max([((p - q) ** 2).sum(axis=1) for p, q in ((a, b), (b, c), (c, a))], axis=0)
    return doubled_area > FLAT * longest


def _digest(rows: np.ndarray) -> np.ndarray:
    """A hash (N,) uint64 of each row of (N,M), 8 bytes a number."""
    digest = np.zeros(len(rows), dtype=np.uint64)
    for column in np.ascontiguousarray(rows).view(np.uint64).T:
        digest = (digest ^ column) * np.uint64(0x9E3779B97F4A7C15)
        digest ^= digest >> np.uint64(29)
    return digest


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct row of (N,M), 8 bytes a number, first occurs, and for each row which of those it equals.

    Sorting one hash a row takes a fraction of the time that sorting rows takes: many seconds for millions of faces.
    """
    _, first, which = np.unique(_digest(rows), return_index=True, return_inverse=True)
    if (rows != rows[first[which]]).any():  # two different rows of one hash
        _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, which.reshape(-1)
