"""What a prediction is: stacks of points for one picture, the camera they imply, and where they stand in it."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

HIDDEN_GREY = 150
MOST_DISTANCES = 1 << 26  # between points of two stacks: what is compared to find the typical one, 1 or 2 s
AT_ONCE = 1 << 18  # of them, held in memory
REPEAT = 0.005  # of the median depth: 0.01 at the released objects' mean depth of 1.9, the smaller F-score threshold


@dataclass(frozen=True, eq=False)
class Prediction:
    """S seeds of a layered stack of L layers for one image of H x W pixels; of a clip, for one of its frames.

    rgb (H,W,3) float32 in [0, 1], as the model saw it | valid (H,W) bool | xyz (S,L,H,W,3) float32, camera frame (+x
    right, +y down, +z forward), in units of the training data (scenes: of the median depth), zero where not valid |
    K (S,3,3), fitted to layer 0 in pixels of that image, nan for a seed that no camera fits, None where none fits any |
    seeds, S of them |
    exists (S,L,H,W) bool, where the model says that a layer is there: `valid` repeated for models that fill (Eq. 2),
    which say by a repeated point that a ray has ended | name, of the picture or sample.

    framed_from_image (3,3): affine, from pixels of the picture that was asked about to pixels of the image that the
    model saw; image_size (height, width) of that picture. Both are None for a rendered sample, which is seen as it is.
    """

    rgb: np.ndarray
    valid: np.ndarray
    xyz: np.ndarray
    K: np.ndarray | None
    seeds: tuple[int, ...]
    exists: np.ndarray = field(default=None)  # type: ignore[arg-type]  # left out: `valid` repeated
    name: str = ""
    framed_from_image: np.ndarray | None = None
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.exists is None:
            object.__setattr__(self, "exists", np.broadcast_to(self.valid, self.xyz.shape[:-1]))

    @property
    def depth(self) -> np.ndarray:
        """(S,L,H,W) float32: z along the optical axis, zero where not valid."""
        return self.xyz[..., 2]

    @property
    def K_image(self) -> np.ndarray | None:
        """(S,3,3): the cameras in pixels of the picture that was asked about, not of its crop; nan as in K."""
        if self.K is None or self.framed_from_image is None:
            return self.K
        return np.asarray(np.linalg.inv(self.framed_from_image) @ self.K)

    @property
    def field_of_view(self) -> np.ndarray | None:
        """(S,2) degrees: the angle that the whole picture spans, horizontally and vertically; nan and None as K."""
        K = self.K_image
        if K is None:
            return None
        height, width = self.valid.shape if self.image_size is None else self.image_size
        spans = []
        for axis, pixels in ((0, width), (1, height)):
            focal, centre = K[:, axis, axis], K[:, axis, 2]
            spans.append(np.arctan2(centre, focal) + np.arctan2(pixels - centre, focal))
        return np.asarray(np.degrees(np.stack(spans, axis=1)))

    def camera(self, index: int) -> np.ndarray | None:
        """K (3,3) float64 of stack `index`, None where no camera fits its points."""
        if self.K is None or not np.isfinite(self.K[index]).all():
            return None
        return np.asarray(self.K[index], np.float64)

    @cached_property
    def typical(self) -> int:
        """The index (not the seed) of the stack that is most like the others: what to show without a truth."""
        return typical(self.xyz, self.valid)

    def point_cloud(self, index: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Points (N,3) float32 and colours (N,3) uint8 of stack `index` (default: the typical one); see `point_cloud`.

        IndexError where there is no such stack.
        """
        index = self.typical if index is None else index
        return point_cloud(self.xyz[index], self.rgb, self.valid, self.exists[index])


def point_cloud(
    xyz: np.ndarray, rgb: np.ndarray, valid: np.ndarray, exists: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One stack (L,H,W,3) -> (points (N,3) float32, colours (N,3) uint8): visible ones from the image, hidden grey.

    Repeats (see `new_points`) are left out, so that grey does not cover the colours, and so is what `exists` (L,H,W)
    says is not there.
    """
    there = np.broadcast_to(valid, xyz.shape[:3]) if exists is None else exists & valid
    new = new_points(xyz, there)
    colours = np.full((*new.shape, 3), HIDDEN_GREY, np.uint8)
    colours[0] = np.round(rgb * 255)
    return xyz[new].astype(np.float32, copy=False), colours[new]


def new_points(xyz: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """(L,H,W) bool: which points of a stack (L,H,W,3) are there and are surfaces of their own.

    A point within 0.5 % of the median depth of the last one kept on its ray repeats it: that is how a stack says that
    the ray has ended (Eq. 2).
    """
    depth = xyz[0, ..., 2][exists[0]]
    tolerance = REPEAT * float(np.median(depth)) if depth.size else 0.0
    new = np.array(exists, bool)
    last = np.where(exists[0][..., None], xyz[0], np.inf)
    for layer, kept in zip(xyz[1:], new[1:]):
        kept &= ~(np.linalg.norm(layer - last, axis=-1) <= tolerance)
        last = np.where(kept[..., None], layer, last)
    return new


def typical(xyz: np.ndarray, valid: np.ndarray) -> int:
    """Of the stacks (S,L,H,W,3) the one nearest to all others in mean point distance: what to show without a truth.

    Generated hidden surfaces differ from seed to seed; their mean would be a surface of none of them. Pairs grow as the
    square of the seeds: from 15 of an object at 504 pixels on, some pixels, drawn by a fixed generator, stand for all.
    """
    count, layers = xyz.shape[:2]
    if count < 3:
        return 0  # two are as far from each other
    pixels = np.argwhere(valid)
    most = max(1, MOST_DISTANCES // (count * (count - 1) // 2 * layers))
    if len(pixels) > most:
        pixels = pixels[np.sort(np.random.Generator(np.random.Philox(0)).choice(len(pixels), most, replace=False))]
    points = np.stack([stack[:, pixels[:, 0], pixels[:, 1]].reshape(-1, 3).T for stack in xyz])
    number = points.shape[2]
    total = np.zeros(count)
    several = max(1, AT_ONCE // max(1, number))
    for i, one in enumerate(points if number else ()):
        for start in range(0, i, several):
            others = slice(start, min(i, start + several))
            away = points[others] - one
            away *= away
            distance = np.sqrt(away.sum(axis=1)).mean(axis=1)
            total[i] += distance.sum()
            total[others] += distance
    return int(np.argmin(total))
