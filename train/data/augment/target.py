"""What a sample is to the network: image, layers, camera and validity mask, which augmentation changes together.

Order: geometry (one resampling for all of it), photometry on the composited image, then the mask, whose outline also
cuts the image, as a matting tool's would. Every purpose has its own random numbers, none of which depends on the size
of the image: the two stages of training at 196 and 504 pixels see the same views, changed in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from shards import LayeredView
from shards.unproject import unproject
from train.config import Augment
from train.data.augment import geometry, mask, photometric
from train.data.augment.compositing import background, composite_planes
from train.data.augment.geometry import View, box_of, resize, warp
from train.data.augment.photometric import Look


@dataclass(frozen=True, eq=False)
class Target:
    """rgb (3,H,W) float32 in [0,1] | depth (L,H,W) float32, 0 where not valid | valid (H,W) bool |
    weight (H,W) float32 in [0,1], 0 where not valid | K (3,3) float64. Arrays may be those of the view: read only.

    With a `look`, `rgb` is still to be changed by it, and `shown` (H,W) bool says where that will be seen.
    """

    rgb: np.ndarray
    depth: np.ndarray
    valid: np.ndarray
    weight: np.ndarray
    K: np.ndarray
    shown: np.ndarray | None = None
    look: Look | None = None

    @property
    def xyz(self) -> np.ndarray:
        """(L,H,W,3) float32, camera frame, 0 where not valid."""
        return unproject(self.depth, self.valid * np.uint8(len(self.depth)), self.K)


def prepare(view: LayeredView, layers: int, size: int, config: Augment, rng: np.random.Generator | None) -> Target:
    """One training (rng given) or evaluation (rng None: resized only, black or white background) target.

    A view with fewer than `layers` layers repeats its last one, which is what forward filling says; one with more is
    cut. Raises nothing: a view without a valid pixel gives a target without one.
    """
    return prepare_clip([view], layers, size, config, rng)[0]


def prepare_clip(
    clip: Sequence[LayeredView],
    layers: int,
    size: int,
    config: Augment,
    rng: np.random.Generator | None,
    deferred: bool = False,
) -> list[Target]:
    """`prepare` of the frames of a clip: geometry, mask and background are shared, photometry varies mildly (App. C).

    `deferred` leaves photometry to `photometric.finished`, on whatever device. Where nothing is to be augmented there
    is none.
    """
    views = [View(v.rgba, v.depth[: _own_layers(v, layers)], v.valid, np.asarray(v.K, np.float64)) for v in clip]
    if rng is None or not config.enabled:
        colour = background(config.background, rng)
        views = [v if v.valid.shape == (size, size) else warp(v, resize(v, size), np.eye(3), size) for v in views]
        return [
            Target(
                composite_planes(v.rgba, colour),
                _with_layers(v.depth, layers),
                v.valid,
                v.valid.astype(np.float32),
                v.K,
            )
            for v in views
        ]
    bits = rng.bit_generator
    of_photometry, of_mask, of_background = (np.random.Generator(bits.jumped(k)) for k in (1, 2, 3))  # type: ignore[attr-defined]
    geometric, outline = config.geometric, config.mask
    if any("sparse" in v.info.get("flags", ()) for v in clip):
        geometric = geometric.model_copy(update={"rotate": 0.0})  # a turned camera is not one of a car (App. C)
    if clip[0].regime == "rgbd":
        # Where depth is unknown the photograph goes on: there is no outline that a tool could draw.
        outline = outline.model_copy(update={"probability": 0.0})
    views = [warp(v, *motion, size) for v, motion in zip(views, geometry.draw(views, size, geometric, rng))]
    colour = background(config.background, of_background)
    looks = photometric.draw(config.photometric, len(views), of_photometry)
    outlines = mask.jitter([v.valid for v in views], outline, of_mask)
    targets = []
    for v, look, drawn in zip(views, looks, outlines):
        opaque = v.rgba[..., 3] > 0
        rgb, shown = composite_planes(v.rgba, colour), _shown(opaque, v.valid, drawn.valid)
        look = look.within(colour, box_of(opaque))
        if not deferred:
            photometric.finished(torch.from_numpy(rgb), torch.from_numpy(shown), look)
        rest = (shown, look) if deferred else ()
        depth = _with_layers(drawn.depth(v.depth), layers)
        targets.append(Target(rgb, depth, drawn.valid, drawn.weight, v.K, *rest))
    return targets


def _shown(opaque: np.ndarray, valid: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Where the image is seen (H,W) bool. What left the mask leaves the image, its soft rim (a pixel further) included;
    what never was in it (glass, haze) stays. The background is exact elsewhere: noise and blocks are cut away with it.
    """
    lost = valid & ~now
    box = box_of(lost)
    if box is None:
        return opaque
    rim = np.zeros_like(lost)
    part = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
    near, lost = rim[part], lost[part]
    near |= lost
    near[1:] |= lost[:-1]
    near[:-1] |= lost[1:]
    near[:, 1:] |= lost[:, :-1]
    near[:, :-1] |= lost[:, 1:]
    return opaque & ~(rim & ~now)


def _own_layers(view: LayeredView, layers: int) -> int:
    """The first so many layers are all that differ: forward filling repeats the last hit behind them (Eq. 2)."""
    return min(layers, max(1, int(view.hits.max(initial=0))))


def _with_layers(depth: np.ndarray, layers: int) -> np.ndarray:
    """As many layers as there are to be: the last one repeated."""
    missing = layers - len(depth)
    return np.concatenate([depth, depth[-1:].repeat(missing, axis=0)]) if missing else depth
