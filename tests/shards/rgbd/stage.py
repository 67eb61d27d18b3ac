"""A world of known geometry to photograph: a slanted floor and a ball, met analytically by any ray.

A reader is right if the points that its frame gives, moved to the world, lie on the surfaces that were photographed.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shards import LayeredView, Origin, rays
from shards.rgbd import Frame, open_corpus

FLOOR = np.array([0.15, -0.1, 1.0]) / np.linalg.norm([0.15, -0.1, 1.0])  # a plane through (0, 0, 0)
BALL, RADIUS = np.array([0.3, 3.4, 0.9]), 0.8
SKY = 30.0  # metres along the ray, beyond which nothing is seen


def camera(yaw: float = 0.1, pitch: float = 0.35, roll: float = 0.07) -> np.ndarray:
    """world_from_camera (4,4) in OpenCV's axes: above the floor, looking along +y of the world and down on it."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # columns: right, down, forward
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    lean = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn @ level @ nod @ lean, (0.2, -0.5, 1.7)
    return pose


def met(directions: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """Rays (...,3) of any length in camera space -> distance in metres to what each meets first; 0: nothing."""
    d = directions / np.linalg.norm(directions, axis=-1, keepdims=True) @ world_from_camera[:3, :3].T
    o = world_from_camera[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = -(o @ FLOOR) / (d @ FLOOR)
        half = d @ (o - BALL)
        root = half**2 - ((o - BALL) @ (o - BALL) - RADIUS**2)
        ball = np.where(root > 0, -half - np.sqrt(root), np.inf)
    nearest = np.minimum(np.where(floor > 0, floor, np.inf), np.where(ball > 0, ball, np.inf))
    return np.where(nearest < SKY, nearest, 0)


def off_surface(points: np.ndarray) -> np.ndarray:
    """World points (...,3) -> metres to the nearest surface."""
    return np.minimum(np.abs(points @ FLOOR), np.abs(np.linalg.norm(points - BALL, axis=-1) - RADIUS))


def colour(points: np.ndarray) -> np.ndarray:
    """World points (...,3) -> (...,3) uint8, smooth, so that JPEG and resampling keep it."""
    waves = np.sin(points @ np.array([[2.1, 0.4, 0.9], [0.7, 1.9, -1.1], [1.3, -0.6, 1.7]]))
    return np.asarray(128 + 90 * waves, np.uint8)


def photograph(K: np.ndarray, pose: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image (H,W,3) uint8, z (H,W), distance (H,W)) of a pinhole camera, metres, 0 where it sees the sky."""
    directions = rays(K, height, width)
    distance = met(directions, pose)
    z = distance / np.linalg.norm(directions, axis=-1)
    points = directions * z[..., None] @ pose[:3, :3].T + pose[:3, 3]
    return np.where(z[..., None] > 0, colour(points), 0).astype(np.uint8), z, distance


def read_all(corpus: str, folder: Path, options: Mapping[str, str] | None = None) -> dict[str, Frame]:
    """Every frame of the folder by "SCENE:FRAME"."""
    reader = open_corpus(corpus, folder, options)
    return {
        f"{scene.name}:{name}": reader.read(scene, name) for scene in reader.scenes() for name in reader.frames(scene)
    }


def world_points(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """(points (N,3) in the world, colours (N,3)) of the pixels with depth, by the contract's own unprojection."""
    pose = pose_of(frame)
    view = LayeredView(
        key="x",
        rgba=np.dstack([frame.image, np.full(frame.depth.shape, 255, np.uint8)]),
        hits=(frame.depth > 0).astype(np.uint8),
        depth=frame.depth[None],
        K=frame.K,
        world_from_camera=pose,
        regime="rgbd",
        origin=Origin("x", "x", "0" * 64),
        single_layer=True,
    )
    points = view.xyz()[0][view.valid].astype(np.float64)
    return points @ pose[:3, :3].T + pose[:3, 3], frame.image[view.valid]


def pose_of(frame: Frame) -> np.ndarray:
    assert frame.world_from_camera is not None
    return frame.world_from_camera


def assert_on_stage(
    frame: Frame, metres: float, share: float = 0.5, levels: float | None = 3, edges: float = 0.0
) -> None:
    """All points but a share of `edges` lie within `metres` of a surface, at least `share` of the pixels have one, and
    what is painted there is what the image shows, to `levels` of 255 on average (None: the colour is not compared).
    """
    points, seen = world_points(frame)
    assert len(points) >= share * frame.depth.size
    assert np.abs(np.linalg.norm(points - BALL, axis=-1) - RADIUS).min() < metres, "the ball is in the picture"
    assert np.count_nonzero(off_surface(points) >= metres) <= edges * len(points)
    if levels is not None:
        assert np.abs(seen.astype(float) - colour(points)).mean() < levels
