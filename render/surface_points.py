"""Points on the surfaces of an asset: what a whole shape is compared with (paper, App. C: "ground-truth meshes or point
samples").
"""

import numpy as np

from render.mesh import Mesh, Rejected
from render.shade_numpy import Fragments, alpha_of
from render.surfaces import drop_duplicate_faces
from render.texels import pack
from shards.randomness import generator

MOST = 64  # times as many points are drawn at most where cut-outs drop them
SOLID = 0.5  # alpha from which on a point is a surface, as for the layers (shade_numpy.keep)


def sample_surface(mesh: Mesh, count: int, seed: int, vertices: np.ndarray | None = None) -> np.ndarray:
    """(N,3) float64 points in the frame of `vertices` (V,3), by default the mesh's own: N is `count`, spread evenly.

    Every part of the surface gets points in proportion to its area: the k-th of n lies in the k-th n-th of the faces'
    areas laid end to end, anywhere in its triangle. Faces that are there twice count once, and points where the
    material is cut out are no surface, as in the layers; where nearly all is cut out N may be less. A pure function of
    (mesh, count, seed). Raises Rejected: zero_extent without area, no_surface where all is cut out; ValueError for a
    count below 1.
    """
    if count < 1:
        raise ValueError(f"{count} points of a surface: ask for at least one")
    vertices = np.asarray(mesh.vertices if vertices is None else vertices, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        chosen = np.flatnonzero(drop_duplicate_faces(mesh.faces, vertices))
        corners = vertices[mesh.faces[chosen]]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
        ends = np.cumsum(area)
    if not len(ends) or not np.isfinite(ends[-1]) or ends[-1] <= 0:
        raise Rejected("zero_extent", "the faces of the asset have no area to draw points from")
    draw = generator(seed, "surface")
    packed = pack(mesh, texture_limit=2048)
    drawn = count
    while True:
        along = (np.arange(drawn) + draw.random(drawn)) / drawn * ends[-1]
        face = np.minimum(np.searchsorted(ends, along, side="right"), len(ends) - 1)
        bary = _anywhere(draw.random((drawn, 2)))
        points = np.einsum("nk,nkc->nc", bary, corners[face])
        if not packed.tested:
            return points
        still = np.zeros_like(bary)  # alpha is tested on the finest texels, whatever a pixel spans
        fragments = Fragments(chosen[face], corners[face], still, bary, still, still)
        kept = points[alpha_of(packed, fragments) >= SOLID]
        if len(kept) >= count or drawn >= MOST * count:
            break
        drawn = min(MOST * count, int(1.1 * drawn * count / max(len(kept), 1)) + 1)
    if not len(kept):
        raise Rejected("no_surface", f"all of {drawn} points on its faces are cut out by their material")
    # in a random order before some are left out: they lie face by face
    return kept[np.sort(draw.permutation(len(kept))[:count])]


def _anywhere(uniform: np.ndarray) -> np.ndarray:
    """(N,2) in [0, 1) -> barycentrics (N,3), uniform on a triangle: the unit square folded along its diagonal."""
    u, v = np.where(uniform.sum(axis=1, keepdims=True) > 1, 1 - uniform, uniform).T
    return np.stack([1 - u - v, u, v], axis=1)
