"""The one stack of a prediction that a downstream step works on: which points are there, ordered along their rays."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.prediction.prediction import Prediction, new_points


@dataclass(frozen=True, eq=False)
class Stack:
    """xyz (L,H,W,3) float32, camera frame (+x right, +y down, +z forward) | there (L,H,W) bool: surfaces, each once |
    rgb (H,W,3) float32 in [0,1] | K (3,3) float64 in pixels of the image | framed_from_image (3,3) or None | name.

    Depth does not fall from layer to layer: a ray meets what it sees first.
    """

    xyz: np.ndarray
    there: np.ndarray
    rgb: np.ndarray
    K: np.ndarray
    framed_from_image: np.ndarray | None
    name: str

    @property
    def points(self) -> np.ndarray:
        """(N,3) float32, layer by layer."""
        return np.asarray(self.xyz[self.there])


def read_stack(path: str | Path, seed: int | None = None, frame: int = 0, flyers: bool = False) -> Stack:
    """One stack of an .npz of `worldtrace predict`: the typical one, or that of `seed`; of a clip that of `frame`.

    Points that float between two surfaces are left out unless `flyers` keeps them (train/prediction/edges.py).
    FileNotFoundError or ValueError says what is wrong with the file, the seed or the frame.
    """
    from train.prediction.archive import read_npz

    if Path(path).suffix.lower() in (".glb", ".ply", ".png", ".exr") and Path(path).is_file():
        raise ValueError(f"{path} shows one stack; give the .npz of `worldtrace predict --out NAME.npz`, which has all")
    frames = read_npz(path)
    if not 0 <= frame < len(frames):
        raise ValueError(f"{path} has frames 0 to {len(frames) - 1}, and no frame {frame}")
    prediction = frames[frame]
    if seed is not None and seed not in prediction.seeds:
        raise ValueError(f"{path} has no seed {seed}; it has {', '.join(map(str, prediction.seeds))}")
    return stack_of(prediction, None if seed is None else prediction.seeds.index(seed), flyers)


def stack_of(prediction: Prediction, index: int | None = None, flyers: bool = False) -> Stack:
    """Stack `index` of a prediction (default: the typical one), ready for what comes after it.

    ValueError where no pixel has a point in front of the camera, or where the points determine no camera.
    """
    index = prediction.typical if index is None else index
    xyz = np.asarray(prediction.xyz[index], np.float32)
    exists = prediction.exists[index] & prediction.valid & (xyz[..., 2] > 0)
    if not exists.any():
        raise ValueError(f"{prediction.name}: no pixel has a point in front of the camera, so there is nothing to use")
    K = prediction.camera(index)
    if K is None:
        raise ValueError(
            f"{prediction.name}: no camera fits the points of seed {prediction.seeds[index]}, so no pixel has a ray; "
            "give another --seed, or predict it from a larger image"
        )
    xyz = ordered(xyz, exists)
    there = new_points(xyz, exists)
    if not flyers:
        from train.prediction.edges import flyers as find_flyers

        there = there & ~find_flyers(xyz, exists)
    if not there.any():
        raise ValueError(f"{prediction.name}: every point floats between surfaces; keep them with --flyers")
    return Stack(
        xyz,
        there,
        np.asarray(prediction.rgb, np.float32),
        K,
        prediction.framed_from_image,
        prediction.name,
    )


def ordered(xyz: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """Points (L,H,W,3) moved back along their own ray to the depth of the layer before them, where they are nearer.

    A ray meets its layers front to back (paper, section 3.1); a model only learns to (Eq. 8). A hidden point must not
    cover the visible one.
    """
    z = xyz[..., 2]
    reached = np.maximum.accumulate(np.where(exists, z, -np.inf), axis=0)
    behind = exists & (reached > z)
    factor = np.where(behind, reached / np.where(behind, z, 1), 1).astype(np.float32)
    moved = xyz * factor[..., None]
    moved[..., 2] = np.where(behind, reached, z)  # exactly, so that the two count as one surface
    return np.asarray(moved, np.float32)
