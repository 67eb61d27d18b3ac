"""Which codes are expected, and what they differ by: vectorised over the hits of all layers at once.

Over a planar surface 1/z is affine in the image. So with q = round(1 / (z step)) and horizontal differences
d(v,u) = q(v,u) - q(v,u-1), a plane has d(v,u) = d(v-1,u): what is stored is the second difference r = d(v,u) -
d(v-1,u), a small number of rounding noise. Where the row above has no such difference, r = d(v,u). The first pixel
of a run in a row has no left neighbour: it is predicted from its parent, the first hit among up, up-right, up-left
in the same layer, else the same pixel of the layer before, else the constant 0. Residuals live on true hits only;
`hits` says where those are. This is the predictor `plane`. Noise it would double: predictor `left` is r = d(v,u)
everywhere.

Both directions are linear, so decoding needs no loop over pixels: sums down the columns for d and along the rows for
q, and a forest of run starts resolved by pointer doubling. All sums are modulo 2^32.
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
    parent (m,): hit that predicts each start, -1 for none.
    """

    linked: np.ndarray
    plane: np.ndarray
    up: np.ndarray
    starts: np.ndarray
    parent: np.ndarray


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
    return Structure(linked, plane, up, starts, parent)


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


def reconstruct(zigzag: np.ndarray, hit: np.ndarray, predictor: Predictor = "plane") -> np.ndarray:
    """The inverse of `residuals`: (n,) uint32, hit (L,H,W) bool of n hits -> q (n,) int32 modulo 2^32. Any input gives
    some output; the caller checks it.

    Works on whole images whose rows hold all layers side by side, (row, layer, column): a row is then one addition, and
    a sum along all pixels is a sum along every run, for what is not linked adds nothing. Half of the time of gathering
    hits by column.
    """
    layers, height, width = hit.shape
    n, pitch = zigzag.size, width + 2
    if n == 0:
        return np.zeros(0, np.int32)
    r = (zigzag >> np.uint32(1)).view(np.int32)
    r ^= np.negative((zigzag & np.uint32(1)).view(np.int32))
    padded = np.zeros((height + 1, layers, pitch), bool)  # an empty row above, an empty column on either side
    padded[1:, :, 1:-1] = hit.transpose(1, 0, 2)
    linked = np.zeros_like(padded)
    np.logical_and(padded[..., 1:], padded[..., :-1], out=linked[..., 1:])
    m = n - int(np.count_nonzero(linked))

    difference = np.zeros(padded.shape, np.int32)
    _in_order(difference)[_in_order(linked)] = r[: n - m]
    if predictor == "plane":
        _add_rows_above(difference.reshape(height + 1, -1), linked.reshape(height + 1, -1))
    total = np.cumsum(difference.reshape(-1), dtype=np.int32)

    # A start lies at `first` in order (layer, row, column) and at `place` in the order of `total`; so do parents.
    first = np.flatnonzero(_in_order(padded > linked))
    layer, rest = np.divmod(first, (height + 1) * pitch)
    row, column = np.divmod(rest, pitch)
    place = (row * layers + layer) * pitch + column
    deeper = layer > 0
    del layer, rest, row, column  # where every hit is a start these are a quarter of all memory
    base = total[place]
    parent, parent_place, open_ = np.zeros_like(first), np.zeros_like(first), np.ones(m, bool)
    flat = padded.reshape(-1)
    up, back = (-pitch, -layers * pitch), (-(height + 1) * pitch, -pitch)
    for step, place_step in (up, (up[0] + 1, up[1] + 1), (up[0] - 1, up[1] - 1), back):
        found = open_ & flat[place + place_step]
        if step == back[0]:
            found &= deeper
        parent[found], parent_place[found] = first[found] + step, place[found] + place_step
        open_ &= ~found

    run = np.searchsorted(first, parent, side="right") - 1
    value = np.append(r[n - m :] + np.where(open_, 0, total[parent_place] - base[run]), np.int32(0))
    run = np.append(np.where(open_, m, run), m)  # m: a virtual root of value 0
    while (run != m).any():
        value = value + value[run]
        run = run[run]

    ends = padded.copy()
    ends[..., :-1] &= ~linked[..., 1:]
    q = _in_order(total.reshape(padded.shape))[_in_order(padded)]
    q += np.repeat(value[:m] - base, np.flatnonzero(_in_order(ends)) - first + 1)
    return q


def _in_order(rows: np.ndarray) -> np.ndarray:
    """(row, layer, column) as (layer, row, column), the order of hits."""
    return rows.transpose(1, 0, 2)


def _add_rows_above(difference: np.ndarray, linked: np.ndarray) -> None:
    """Residuals (rows, n) int32 -> differences, in place: a linked hit below a linked hit adds that one's."""
    keep = np.negative((linked[1:] & linked[:-1]).view(np.int8)).astype(np.int32)  # all bits or none
    carried = np.empty_like(difference[0])
    above = difference[0]
    for row, kept in zip(difference[1:], keep):
        np.bitwise_and(above, kept, out=carried)
        np.add(row, carried, out=row)
        above = row
