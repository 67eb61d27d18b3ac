"""A silhouette as another tool might have drawn it (paper, App. B, "Robust silhouettes", and App. C).

The outline is dilated or eroded and perturbed, thin structures are dropped, small holes are filled or pierced. Pixels
that lose support leave the mask. Pixels that gain it take the layers of the nearest valid pixel and weigh less.

Every number is drawn before an image is looked at and in parts of the image side, so that a clip's frames share them,
the random field of the outline included, and a size is as good as another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from shards.unproject import Box
from train.config import MaskJitter
from train.data.augment.geometry import box_of

LATTICE = 64  # cells a side of the field that the outline wobbles by
SMOOTH = 0.02  # of the image side: how far the wobble is correlated
PITS = 6  # pierced holes at most


@dataclass(frozen=True, eq=False)
class Outline:
    """valid (H,W) bool | weight (H,W) float32, 0 where not valid | gained (n,): numbers v W + u of the pixels that were
    not valid | nearest (n,): of each, the number of the valid pixel whose layers it takes.
    """

    valid: np.ndarray
    weight: np.ndarray
    gained: np.ndarray
    nearest: np.ndarray

    @classmethod
    def of(cls, valid: np.ndarray) -> "Outline":
        """The silhouette as it is."""
        none = np.zeros(0, np.int64)
        return cls(valid, valid.astype(np.float32), none, none)

    def depth(self, depth_LHW: np.ndarray) -> np.ndarray:
        """The layers under this outline, 0 where it is not valid."""
        if not self.gained.size and np.array_equal(depth_LHW[0] > 0, self.valid):
            return depth_LHW
        found = depth_LHW * self.valid
        found.reshape(len(found), -1)[:, self.gained] = depth_LHW.reshape(len(found), -1)[:, self.nearest]
        return found


@dataclass(frozen=True, eq=False)
class Draw:
    """Lengths in parts of the image side. `wobble` (LATTICE, LATTICE) float32; `pits` (n,3): row and column of a centre
    within the box of the silhouette, in [0,1), and radius.
    """

    grow: float
    wobble: np.ndarray
    drops_thin: bool
    fills_holes: bool
    pits: np.ndarray


def draw(config: MaskJitter, rng: np.random.Generator) -> Draw | None:
    """None: the mask is left alone. As many numbers are drawn in every case, so that one setting moves no other."""
    jitters, thin, holes, pierced = rng.random(4)
    grow = rng.uniform(-config.radius, config.radius)
    pits = rng.random((PITS, 3))
    count = int(rng.integers(1, PITS + 1))
    wobble = ndimage.gaussian_filter(rng.standard_normal((LATTICE, LATTICE), np.float32), SMOOTH * LATTICE)
    if jitters >= config.probability:
        return None
    wobble *= np.float32(config.boundary / max(float(wobble.std()), 1e-9))
    pits[:, 2] = config.radius * (0.5 + pits[:, 2])
    pits = pits[: count if pierced < config.pierced else 0]
    return Draw(grow, wobble, thin < config.thin, holes < config.holes, pits)


def jitter(valid: Sequence[np.ndarray], config: MaskJitter, rng: np.random.Generator) -> list[Outline]:
    """valid (H,W) bool of each frame of a clip (of a view: one) -> as many outlines, of one draw.

    A silhouette without an outline (empty, or all of the image) stays as it is; so do all where they would vanish.
    """
    plain = [Outline.of(each) for each in valid]
    drawn = draw(config, rng)
    boxes = [None if each.all() else box_of(each) for each in valid]
    whole = _around(boxes)
    if drawn is None or whole is None:
        return plain
    (top, left), (down, across) = [side.start for side in whole], [_length(side) for side in whole]
    pits = [(top + v * down, left + u * across, radius) for v, u, radius in drawn.pits.tolist()]
    found = [
        as_it_is if box is None else _redrawn(as_it_is.valid, box, drawn, config, pits)
        for as_it_is, box in zip(plain, boxes)
    ]
    before, after = (sum(int(np.count_nonzero(each.valid)) for each in those) for those in (plain, found))
    return found if after >= 0.5 * before else plain


def _redrawn(
    valid: np.ndarray, box: Box, drawn: Draw, config: MaskJitter, pits: Sequence[tuple[float, float, float]]
) -> Outline:
    height, width = valid.shape
    radius = max(1, round(config.radius * height))
    # beyond what grows, and what a closing dilates
    margin = 2 + max(radius, int(np.ceil((max(drawn.grow, 0.0) + 1.25 * float(drawn.wobble.max())) * height)))
    box = (
        slice(max(0, box[0].start - margin), min(height, box[0].stop + margin)),
        slice(max(0, box[1].start - margin), min(width, box[1].stop + margin)),
    )
    inside = valid[box]
    outside, nearest = ndimage.distance_transform_edt(~inside, return_indices=True)
    # > 0 inside, in pixels, from the outline half a pixel off the centres
    signed = np.where(inside, ndimage.distance_transform_edt(inside) - 0.5, 0.5 - outside)
    jittered = signed + (drawn.grow + _at(drawn.wobble, box, valid.shape)) * height > 0
    if drawn.drops_thin:
        jittered &= ndimage.binary_opening(inside, iterations=radius)
    if drawn.fills_holes:
        jittered |= ndimage.binary_closing(inside, iterations=radius) & ~inside
    for v, u, r in pits:
        down, across = (np.arange(side.start, side.stop) + 0.5 - centre for side, centre in zip(box, (v, u)))
        jittered &= (down**2)[:, None] + across**2 >= (r * height) ** 2
    now, weight = np.zeros_like(valid), np.zeros(valid.shape, np.float32)
    now[box] = jittered
    weight[box] = np.where(inside, np.float32(1), np.float32(config.weight)) * jittered
    rows, columns = np.nonzero(jittered & ~inside)
    gained = (rows + box[0].start) * width + columns + box[1].start
    source = (nearest[0, rows, columns] + box[0].start) * width + nearest[1, rows, columns] + box[1].start
    return Outline(now, weight, gained, source.astype(np.int64))


def _at(field: np.ndarray, box: Box, shape: tuple[int, ...]) -> np.ndarray:
    """The field (LATTICE, LATTICE) over the whole image, at the pixel centres of a box of it: bicubic, float32."""
    (top, bottom), (left, right) = (
        (side.start / length * LATTICE, side.stop / length * LATTICE) for side, length in zip(box, shape)
    )
    size = _length(box[1]), _length(box[0])
    return np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BICUBIC, (left, top, right, bottom)))


def _around(boxes: Sequence[Box | None]) -> Box | None:
    """The box of all boxes."""
    there = [box for box in boxes if box is not None]
    if not there:
        return None
    sides = [(min(box[i].start for box in there), max(box[i].stop for box in there)) for i in (0, 1)]
    return slice(*sides[0]), slice(*sides[1])


def _length(side: slice) -> int:
    return int(side.stop - side.start)
