"""Rigid motions (4,4) float64 from what corpora write: quaternions, Euler angles, and the axes of other conventions."""

import math
from collections.abc import Sequence

import numpy as np

from .base import Unreadable

# camera_of_theirs_from_opencv: their camera coordinates of a point that OpenCV's has at (right, down, forward)
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # Blender, V-Ray: x right, y up, looking along -z
NED = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])  # x forward, y right, z down


def rigid(R: np.ndarray, t: Sequence[float] | np.ndarray) -> np.ndarray:
    """R (3,3), t (3,) -> (4,4)."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R, t
    return pose


def from_quaternion(wxyz: Sequence[float] | np.ndarray) -> np.ndarray:
    """(w, x, y, z) -> rotation (3,3); any length but 0, for files round. Unreadable, `absurd_pose`, without one."""
    q = np.asarray(wxyz, np.float64)
    length = float(np.linalg.norm(q))
    if q.shape != (4,) or not math.isfinite(length) or not 0.5 < length < 2:
        raise Unreadable("absurd_pose", f"{np.round(q, 4).tolist()} is not a unit quaternion")
    w, x, y, z = q / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def from_euler_xyz(angles: Sequence[float] | np.ndarray) -> np.ndarray:
    """Radians about x, then y, then z of the fixed frame (Blender's XYZ) -> rotation (3,3) = Rz Ry Rx."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    Rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    Ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    Rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(Rz @ Ry @ Rx)
