"""How far a set of points reaches: its box and the sphere around the middle of the box."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Extent:
    """points (N,3) | low, high (3,): corners of their box | radius: of the sphere around its centre that holds them."""

    points: np.ndarray
    low: np.ndarray
    high: np.ndarray
    radius: float

    @staticmethod
    def of(points: np.ndarray) -> "Extent":
        """The extent of points (N,3), of which there is one at least."""
        columns = [points[:, k] for k in range(3)]  # NumPy takes ten times as long along rows of three
        low, high = np.array([c.min() for c in columns]), np.array([c.max() for c in columns])
        squares = sum((c - (a + b) / 2) ** 2 for c, a, b in zip(columns, low, high))
        return Extent(points, low, high, float(np.sqrt(np.max(squares))))

    @property
    def centre(self) -> np.ndarray:
        return (self.low + self.high) / 2

    @property
    def longest(self) -> float:
        """The longest side of the box."""
        return float((self.high - self.low).max())

    @property
    def diagonal(self) -> float:
        return float(np.linalg.norm(self.high - self.low))

    def holds(self, point: np.ndarray) -> bool:
        """Whether `point` (3,) is inside the box."""
        return bool(np.all((point > self.low) & (point < self.high)))
