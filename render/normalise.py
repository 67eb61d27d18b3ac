"""One box for everything: an object centred and scaled so that its longest side is 1 (DESIGN, conventions)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from render.mesh import Mesh, Rejected


@dataclass(frozen=True, eq=False)
class NormalisedPose:
    """A pose in the frame of the normalised mesh: (pose(t) - offset) * scale."""

    pose: Callable[[float], np.ndarray]
    scale: float
    offset: np.ndarray

    def __call__(self, t: float) -> np.ndarray:
        """(V,3) float64 at t seconds."""
        return (self.pose(t) - self.offset) * self.scale


def used_bounds(mesh: Mesh, times: Sequence[float] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest coordinates (3,), (3,) float64 of the vertices that a face uses.

    With `times` and an animated mesh: over its poses at those seconds; else of `vertices`. Raises Rejected("no_faces").
    """
    if not len(mesh.faces):
        raise Rejected("no_faces", "a mesh without faces has no bounds")
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces] = True
    poses = [mesh.pose(t) for t in times] if mesh.pose is not None and len(times) else [mesh.vertices]
    boxes = [(pose[used].min(axis=0), pose[used].max(axis=0)) for pose in poses]
    low = np.min([box[0] for box in boxes], axis=0).astype(np.float64)
    return low, np.max([box[1] for box in boxes], axis=0).astype(np.float64)


def normalise(mesh: Mesh, times: Sequence[float] = ()) -> tuple[Mesh, float, np.ndarray]:
    """(mesh, scale, offset (3,) float64) with x_normalised = (x - offset) * scale.

    The box of `used_bounds(mesh, times)` is then centred at the origin and its longest side is 1; one scale and offset
    serve `vertices` and every pose. Raises Rejected: no_faces, non_finite, zero_extent.
    """
    low, high = used_bounds(mesh, times)
    with np.errstate(all="ignore"):
        longest = float((high - low).max())
        offset = low + (high - low) / 2
    if not np.isfinite(longest) or not np.isfinite(offset).all():
        raise Rejected("non_finite", "the bounding box of the asset is not finite")
    if longest <= 0:
        raise Rejected("zero_extent", "all vertices of the asset coincide")
    scale = 1 / longest
    if not np.isfinite(scale):
        raise Rejected("zero_extent", f"the longest side of the asset is {longest:g}")
    pose = None if mesh.pose is None else NormalisedPose(mesh.pose, scale, offset)
    return replace(mesh, vertices=(mesh.vertices - offset) * scale, pose=pose), scale, offset
