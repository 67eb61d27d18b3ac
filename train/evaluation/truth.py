"""What a sample says about the world, at the size and over the background that a model is shown it."""

from dataclasses import dataclass

import numpy as np

from shards import Clip, LayeredView, Sample
from train.config import Augment
from train.data import augment


@dataclass(frozen=True, eq=False)
class Truth:
    """One view: rgb (H,W,3) float32 in [0,1], valid A (H,W) bool, xyz (L,H,W,3) float32 forward-filled, camera frame;
    hits (H,W) uint8 counts the layers up to the last one that differs from the layer before it; K (3,3), its camera."""

    key: str
    rgb: np.ndarray
    valid: np.ndarray
    xyz: np.ndarray
    hits: np.ndarray
    single_layer: bool
    K: np.ndarray | None = None


def truth_of(sample: Sample, layers: int, size: int, background: str) -> Truth:
    """A sample as a model is shown it: scaled and cropped about its centre to size x size, without augmentation.

    Of a clip the first frame. `background` is "white", or else it is black: the trainer's random one has nothing to be
    compared with.
    """
    return truths_of(sample, layers, size, background, 1)[0]


def truths_of(sample: Sample, layers: int, size: int, background: str, frames: int) -> tuple[Truth, ...]:
    """`truth_of` of the first `frames` frames of a clip; a view is a clip of one."""
    return tuple(_truth(sample.key, view, layers, size, background) for view in views_of(sample, frames))


def views_of(sample: Sample, frames: int) -> tuple[LayeredView, ...]:
    """The first `frames` frames of a sample, as they are stored."""
    return sample.frames[:frames] if isinstance(sample, Clip) else (sample,)


def _truth(key: str, view: LayeredView, layers: int, size: int, background: str) -> Truth:
    config = Augment(enabled=False, background="white" if background == "white" else "black")
    target = augment.prepare(view, layers, size, config, None)
    # Forward filling repeats a depth exactly, so the last layer that differs from the one before is the last hit. (Two
    # hits may share a depth, the two sides of a sheet: counting changes would lose the one behind them.)
    layer = np.arange(1, layers)[:, None, None]
    last = np.where(np.diff(target.xyz[..., 2], axis=0) != 0, layer, 0).max(axis=0, initial=0)
    hits = np.where(target.valid, last + 1, 0).astype(np.uint8)
    return Truth(key, target.rgb.transpose(1, 2, 0), target.valid, target.xyz, hits, view.single_layer, target.K)
