"""Hits as arrays on the host, and the 64-bit keys (depth, triangle, side) that a device keeps them as."""

from typing import NamedTuple

import numpy as np

EMPTY = 0xFFFFFFFFFFFFFFFF  # the key of no hit: greater than that of any


class Hits(NamedTuple):
    """The S nearest hits of every pixel, front to back.

    depth (S,H,W) float32 along the optical axis, inf where there is no hit | triangle (S,H,W) int32, -1 where none |
    facing (S,H,W) int8: +1 where the normal (v1 - v0) x (v2 - v0) points to the camera's side of the face (the front),
    -1 where it points away, 0 where there is no hit.
    """

    depth: np.ndarray
    triangle: np.ndarray
    facing: np.ndarray


def keys_of(hits: Hits) -> np.ndarray:
    """uint64 of the shape of the hits: depth's bits << 33 | triangle << 1 | seen from behind; `EMPTY` where none."""
    bits = hits.depth.view(np.uint32).astype(np.uint64) << np.uint64(33)
    key = bits | (hits.triangle.astype(np.uint64) << np.uint64(1)) | (hits.facing < 0).astype(np.uint64)
    return np.where(hits.triangle >= 0, key, np.uint64(EMPTY))


def hits_of(keys: np.ndarray) -> Hits:
    """The inverse of `keys_of`."""
    found = keys != np.uint64(EMPTY)
    depth = (keys >> np.uint64(33)).astype(np.uint32).view(np.float32)
    triangle = ((keys >> np.uint64(1)) & np.uint64(0x7FFFFFFF)).astype(np.int32)
    facing = np.where(keys & np.uint64(1), -1, 1)
    return Hits(
        np.where(found, depth, np.float32(np.inf)),
        np.where(found, triangle, np.int32(-1)),
        np.where(found, facing, 0).astype(np.int8),
    )
