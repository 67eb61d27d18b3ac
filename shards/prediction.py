"""Which codes are expected, and what they differ by: vectorised over the hits of all layers at once.

Over a planar surface 1/z is affine in the image. So with q = round(1 / (z step)) and horizontal differences
d(v,u) = q(v,u) - q(v,u-1), a plane has d(v,u) = d(v-1,u): what is stored is the second difference r = d(v,u) -
d(v-1,u), a small number of rounding noise. Where the row above has no such difference, r = d(v,u). The first pixel
of a run in a row has no left neighbour: it is predicted from its parent, the first hit among up, up-right, up-left
in the same layer, else the same pixel of the layer before, else the constant 0. Residuals live on true hits only;
`hits` says where those are. This is the predictor `plane`. Noise it would double: predictor `left` is r = d(v,u)
everywhere.

Both directions are linear, so decoding needs no loop over pixels: two segmented cumulative sums (down the columns
for d, along the rows for q) and a forest of run starts resolved by pointer doubling. All sums are modulo 2^32.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Predictor = Literal["none", "plane", "left"]
PREDICTORS: tuple[Predictor, ...] = get_args(Predictor)  # in the order of their numbers in the header


@dataclass(frozen=True)
class Structure:
    """Who predicts whom, from `hits` alone. Hits are numbered k = 0..n-1 in (layer, row, column) order.

    linked (n,): the left neighbour is a hit | plane (n,): linked, and so is the pixel above |
    up (n,): the hit above, -1 for none | starts (m,): hits that begin a run |
    parent (m,): hit that predicts each start, -1 for none | number (L,H+1,W+2): of the hit at a pixel, -1 for none.
    """

    linked: np.ndarray
    plane: np.ndarray
    up: np.ndarray
    starts: np.ndarray
    parent: np.ndarray
    number: np.ndarray

    def column(self) -> np.ndarray:
        """Hit numbers (n,) in (layer, column, row) order."""
        turned = self.number.transpose(0, 2, 1)
        return turned[turned >= 0]


def structure(hit: np.ndarray) -> Structure:
    """`hit` (L,H,W) bool -> Structure. One column is added on each side and one row on top, so that no neighbour is
    outside.
    """
    layers, height, width = hit.shape
    padded = np.zeros((layers, height + 1, width + 2), bool)
    padded[:, 1:, 1:-1] = hit
    at = np.flatnonzero(padded)
    number = np.full(padded.size, -1, np.int32)
    number[at] = np.arange(at.size, dtype=np.int32)
    pitch = width + 2

    linked = padded.ravel()[at - 1]
    up = number[at - pitch]
    plane = linked & (up >= 0) & linked[up]

    starts = np.flatnonzero(~linked)
    first = at[starts]
    parent = up[starts]
    for above in (first - pitch + 1, first - pitch - 1):
        parent = np.where(parent < 0, number[above], parent)
    before = first - (height + 1) * pitch
    same_pixel = np.where(before >= 0, number[before], -1)  # a hit of layer l > 0 always has one in layer l - 1
    parent = np.where(parent < 0, same_pixel, parent)
    return Structure(linked, plane, up, starts, parent, number.reshape(padded.shape))


def residuals(q: np.ndarray, s: Structure, predictor: Predictor = "plane") -> np.ndarray:
    """q (n,) int32 -> zigzag residuals (n,) uint32: those of linked hits in order, then those of run starts."""
    difference = np.zeros_like(q)
    np.subtract(q[1:], q[:-1], out=difference[1:])
    second = difference
    if predictor == "plane":
        second = np.take(difference, s.up, mode="wrap")  # -1 takes the last one, and is no plane
        second *= s.plane
        np.subtract(difference, second, out=second)
    start = q[s.starts] - np.where(s.parent >= 0, q[s.parent], 0) if q.size else q
    r = np.concatenate([second[s.linked], start])
    return ((r << 1) ^ (r >> 31)).view(np.uint32)


def reconstruct(zigzag: np.ndarray, s: Structure, predictor: Predictor = "plane") -> np.ndarray:
    """The inverse of `residuals`: (n,) uint32 -> q (n,) int32 modulo 2^32. Any input gives some output; the caller
    checks it.
    """
    r = ((zigzag >> np.uint32(1)) ^ (np.uint32(0) - (zigzag & np.uint32(1)))).view(np.int32)
    n = s.linked.size
    if n == 0:
        return np.zeros(0, np.int32)
    m = s.starts.size
    difference = np.zeros(n, np.int32)
    difference[s.linked] = r[: n - m]
    if predictor == "plane":
        column = s.column()
        difference[column] = _segmented_cumsum(difference[column], ~s.plane[column])
        difference[s.starts] = 0
    offset = _segmented_cumsum(difference, ~s.linked)

    run = np.cumsum(~s.linked, dtype=np.int32) - 1
    has_parent = s.parent >= 0
    parent = np.where(has_parent, run[s.parent], m)  # m: a virtual root of value 0
    value = np.append(r[n - m :] + np.where(has_parent, offset[s.parent], 0), np.int32(0))
    parent = np.append(parent, m)
    while (parent != m).any():
        value = value + value[parent]
        parent = parent[parent]
    return value[run] + offset


def _segmented_cumsum(values: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Cumulative sum (n,) int32 that restarts at every True of `begins`; begins[0] must be True."""
    total = np.cumsum(values, dtype=np.int32)
    first = np.flatnonzero(begins)
    base = total[first] - values[first]
    return total - np.repeat(base, np.diff(first, append=values.size))
