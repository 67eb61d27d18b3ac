"""Frames of a camera that was held on its side, upright: the same rays, another grid."""

from dataclasses import replace

import numpy as np

from .base import Frame


def turned(frame: Frame, quarters: int) -> Frame:
    """The frame turned by `quarters` of a circle counterclockwise. Every pixel keeps its ray in the world: the camera
    turns about its axis along with the picture. K must have no skew.
    """
    for _ in range(quarters % 4):
        width = frame.depth.shape[1]
        (fx, _, cx), (_, fy, cy), _ = frame.K
        pose = frame.world_from_camera
        if pose is not None:  # what was down is right now, and what was left is down
            pose = pose @ np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        frame = replace(
            frame,
            image=np.ascontiguousarray(np.rot90(frame.image)),
            depth=np.ascontiguousarray(np.rot90(frame.depth)),
            K=np.array([[fy, 0, cy], [0, fx, width - cx], [0, 0, 1]]),
            world_from_camera=pose,
        )
    return frame
