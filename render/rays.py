"""What a batch of images is peeled and shaded through: pinholes and windows; and depth maps seen from the lights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from render.cameras import Camera


@dataclass(frozen=True, eq=False)
class Rays:
    """The rays of an image: d = rotation (x, y, 1) with x = (u + 0.5 - cx) / f; so the ray parameter is the depth."""

    eye: np.ndarray
    rotation: np.ndarray
    K: np.ndarray

    def through(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """World directions (N,3) of the rays through the centres of the pixels (u, v)."""
        K = self.K
        x, y = (u + 0.5 - K[0, 2]) / K[0, 0], (v + 0.5 - K[1, 2]) / K[1, 1]
        return np.stack([x, y, np.ones_like(x)], axis=-1) @ self.rotation.T

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """What one pixel to the right, and one down, adds to a direction."""
        return self.rotation[:, 0] / self.K[0, 0], self.rotation[:, 1] / self.K[1, 1]


@dataclass(frozen=True, eq=False)
class Shots:
    """B pinhole views of one mesh, each through a window of the same size.

    K (B,3,3) of the whole images and world_from_camera (B,4,4), float64 | origins (B,2) int64, the row and column of
    each window's first pixel | size (height, width) of a window, and of an image, pixels.
    """

    K: np.ndarray
    world_from_camera: np.ndarray
    origins: np.ndarray
    size: tuple[int, int]
    image: tuple[int, int]

    @staticmethod
    def of(cameras: Sequence[Camera]) -> "Shots":
        """The whole images of cameras of one size."""
        K = np.stack([camera.K for camera in cameras])
        poses = np.stack([camera.world_from_camera for camera in cameras])
        return Shots.whole(K, poses, (cameras[0].height, cameras[0].width))

    @staticmethod
    def whole(K: np.ndarray, world_from_camera: np.ndarray, image: tuple[int, int]) -> "Shots":
        """Whole images of one size."""
        return Shots(K, world_from_camera, np.zeros((len(K), 2), np.int64), image, image)

    def __len__(self) -> int:
        return len(self.K)

    def __getitem__(self, rows: Any) -> "Shots":
        """Those of `rows`, a slice or an index array."""
        return Shots(self.K[rows], self.world_from_camera[rows], self.origins[rows], self.size, self.image)

    def within(self, boxes: np.ndarray, border: int = 0) -> "Shots":
        """The same images through windows, all as large as the largest of boxes (B,4), which are row, column, height
        and width, and of a `border` of pixels around each."""
        image = np.array(self.image)
        first = np.maximum(boxes[:, :2] - border, 0)
        last = np.minimum(boxes[:, :2] + boxes[:, 2:] + border, image)
        size = np.maximum((last - first).max(axis=0), 1)
        return replace(self, origins=np.minimum(first, image - size), size=(int(size[0]), int(size[1])))

    def scaled(self, side: int) -> "Shots":
        """The same windows with `side` x `side` pixels in place of each."""
        size, image = ((height * side, width * side) for height, width in (self.size, self.image))
        return Shots(np.diag([side, side, 1.0]) @ self.K, self.world_from_camera, self.origins * side, size, image)

    @property
    def camera_from_world(self) -> np.ndarray:
        """(B,4,4): exact transposes, so that the last row stays 0, 0, 0, 1."""
        rotation = self.world_from_camera[:, :3, :3].transpose(0, 2, 1)
        inverse = np.tile(np.eye(4), (len(self), 1, 1))
        inverse[:, :3, :3] = rotation
        inverse[:, :3, 3] = -(rotation @ self.world_from_camera[:, :3, 3:])[..., 0]
        return inverse

    @property
    def rays(self) -> list[Rays]:
        return [Rays(pose[:3, 3], pose[:3, :3], K) for pose, K in zip(self.world_from_camera, self.K)]


@dataclass(frozen=True, eq=False)
class Shadows:
    """Depth maps (M,h,w) float32 as seen from the lights, inf where nothing casts, in NumPy or on the shader's device.

    matrix (M,3,4) float32 takes world points to (u z, v z, z) in a map's pixels; light n owns maps first[n] ..
    first[n+1]; texel (M,) is a pixel's size at z = 1. The lights are those of all views of a batch, in order.
    """

    depth: Any
    matrix: np.ndarray
    first: np.ndarray
    texel: np.ndarray

    @staticmethod
    def none(lights: int) -> "Shadows":
        return Shadows(
            np.zeros((0, 1, 1), np.float32),
            np.zeros((0, 3, 4), np.float32),
            np.zeros(lights + 1, np.int32),
            np.zeros(0, np.float32),
        )
