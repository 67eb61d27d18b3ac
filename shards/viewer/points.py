"""What is drawn of a view: points and colours per layer, the camera's outline, and where to look from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..contract import LayeredView
from ..pointcloud import HIDDEN
from ..sheet import colorize

Colour = Literal["image", "layer", "depth", "error"]

# of layers 0, 1, ...: told apart by most people who see colours otherwise (Okabe and Ito)
LAYERS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))


@dataclass(frozen=True, eq=False)
class Stack:
    """Points of a pixel grid: xyz (L,H,W,3) float32 in the camera's frame; there (L,H,W) bool are those to be drawn;
    rgb (H,W,3) uint8.
    """

    xyz: np.ndarray
    there: np.ndarray
    rgb: np.ndarray

    @property
    def layers(self) -> int:
        return self.xyz.shape[0]


def stack_of(view: LayeredView, *, filled: bool) -> Stack:
    """The true hits of a view; `filled`: what training sees, every layer of every valid pixel."""
    known = 1 if view.single_layer else view.layers
    there = np.broadcast_to(view.valid, view.depth.shape) if filled else view.hit
    return Stack(view.xyz()[:known], there[:known], view.rgba[..., :3])


def colours(stack: Stack, by: Colour, error: np.ndarray | None = None, worst: float = 1.0) -> np.ndarray:
    """(L,H,W,3) uint8. "image": the image on layer 0 and grey behind; "layer": a colour each; "depth": as in sheets,
    near is bright; "error": `error` (L,H,W), from 0 dark to `worst` bright, grey where it is nan.
    """
    shape = stack.there.shape
    out = np.empty((*shape, 3), np.uint8)
    if by == "depth":
        return colorize(stack.xyz[..., 2], stack.there)
    if by == "layer":
        out[:] = np.array([LAYERS[l % len(LAYERS)] for l in range(shape[0])], np.uint8)[:, None, None]
        return out
    out[:] = HIDDEN
    if by == "error" and error is not None:
        known = np.isfinite(error)
        out[known] = _heat(error[known] / max(worst, 1e-12))
        return out
    out[0] = stack.rgb
    return out


def bounds(stacks: Sequence[Stack]) -> tuple[np.ndarray, np.ndarray]:
    """Opposite corners (3,), (3,) of what is drawn, less the farthest 1 % at every side, and one metre without any."""
    points = [stack.xyz[stack.there] for stack in stacks]
    points = [each[:: max(1, len(each) // 20_000)] for each in points if len(each)]
    if not points:
        return np.array([-0.5, -0.5, 0.5]), np.array([0.5, 0.5, 1.5])
    low, high = np.percentile(np.concatenate(points).astype(np.float64), (1, 99), axis=0)
    return low, high


def pixel(stack: Stack, K: np.ndarray) -> float:
    """The side of a pixel at the middle depth of what is drawn."""
    z = stack.xyz[..., 2][stack.there]
    return float(np.median(z[:: max(1, z.size // 20_000)]) / K[1, 1]) if z.size else 1.0 / float(K[1, 1])


def look_from(low: np.ndarray, high: np.ndarray, field_of_view: float = np.pi / 3) -> tuple[np.ndarray, np.ndarray]:
    """Eye and target (3,), (3,), from which a box and the camera at the origin are seen from aside: behind the camera,
    to its right and above it, so that hidden layers show.
    """
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    middle, radius = (low + high) / 2, max(float(np.linalg.norm(high - low)) / 2, 1e-6)
    direction = np.array([0.75, -0.45, -0.5])
    return middle + direction / np.linalg.norm(direction) * radius / np.sin(field_of_view / 2) * 0.9, middle


def outline(K: np.ndarray, size: tuple[int, int], depth: float) -> np.ndarray:
    """The camera's pyramid to `depth`, exact for any K: segments (8,2,3) from the eye to the corners, and around."""
    height, width = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], np.float64) @ np.linalg.inv(K).T
    corners *= depth / corners[:, 2:]
    eye = np.zeros((4, 3))
    return np.stack([np.concatenate([eye, corners]), np.concatenate([corners, np.roll(corners, -1, axis=0)])], axis=1)


def _heat(share: np.ndarray) -> np.ndarray:
    """0 to 1 -> (n,3) uint8, the colours of `colorize`: larger is brighter."""
    closeness = np.clip(share, 0, 1)[None]
    ends = np.concatenate([closeness, [[0.0, 1.0]]], axis=1)  # the scale is fixed by its ends
    return colorize(1 - ends, np.ones(ends.shape, bool))[0, :-2]
