"""What the shader is given beside the mesh: the rays of an image, and depth maps as seen from the lights."""

from dataclasses import dataclass

import numpy as np


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
class Shadows:
    """Depth maps (M,h,w) float32 as seen from the lights, inf where nothing casts; matrix (M,3,4) float32 takes world
    points to (u z, v z, z) in a map's pixels; light n owns maps first[n] .. first[n+1]; texel (M,) is a pixel's size
    at z = 1.
    """

    depth: np.ndarray
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
