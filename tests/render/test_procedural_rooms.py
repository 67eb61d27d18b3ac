"""Rooms: what `Mesh.room` says is so, and a camera finds a place to stand."""

import numpy as np
import pytest

from render.mesh import Mesh
from render.procedural import make


@pytest.fixture(scope="module")
def rooms() -> list[Mesh]:
    return [make("rooms", 2, index) for index in range(8)]


def test_furniture_is_inside_and_apart(rooms: list[Mesh]) -> None:
    for mesh in rooms:
        assert mesh.room is not None
        (low, high), boxes = mesh.room.inside, mesh.room.furniture
        assert low[1] == 0
        assert len(boxes) >= 2
        assert (boxes[:, 0] >= low - 1e-9).all()
        assert (boxes[:, 1] <= high + 1e-9).all()
        assert (boxes[:, 1] > boxes[:, 0]).all()
        for k, a in enumerate(boxes):
            apart = (boxes[:k, 0] >= a[1]) | (boxes[:k, 1] <= a[0])
            assert apart.any(axis=1).all()


def test_boxes_hold_most_of_what_stands_in_the_room(rooms: list[Mesh]) -> None:
    for mesh in rooms:
        assert mesh.room is not None
        (low, high), boxes = mesh.room.inside, mesh.room.furniture
        inner = mesh.vertices[((mesh.vertices > low + 0.35) & (mesh.vertices < high - 0.35)).all(axis=1)]
        held = ((inner[:, None] >= boxes[None, :, 0] - 1e-9) & (inner[:, None] <= boxes[None, :, 1] + 1e-9)).all(axis=2)
        assert held.any(axis=1).mean() > 0.9


def test_a_camera_finds_a_free_place_in_a_closed_room(rooms: list[Mesh]) -> None:
    for mesh in rooms:
        assert mesh.room is not None
        (low, high), boxes = mesh.room.inside, mesh.room.furniture
        x, z = np.meshgrid(np.arange(low[0] + 0.3, high[0] - 0.3, 0.1), np.arange(low[2] + 0.3, high[2] - 0.3, 0.1))
        at = np.stack([x.ravel(), z.ravel()], 1)
        near = (at[:, None] > boxes[None, :, 0, ::2] - 0.25) & (at[:, None] < boxes[None, :, 1, ::2] + 0.25)
        blocked = near.all(axis=2) & (boxes[:, 0, 1] < 1.9) & (boxes[:, 1, 1] > 1.3)
        assert (~blocked.any(axis=1)).mean() > 0.3
        assert 2.3 <= high[1] <= 3.3


def covers(corners: np.ndarray, axis: int, point: np.ndarray) -> bool:
    """Whether one of the triangles (N,3,3), which lie in a plane across `axis`, contains the point."""
    rest = [k for k in range(3) if k != axis]
    a, b, c = (corners[:, k][:, rest] for k in range(3))

    def side(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (q[:, 0] - p[:, 0]) * (point[rest[1]] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (point[rest[0]] - p[:, 0])

    s = np.stack([side(a, b), side(b, c), side(c, a)])
    return bool(((s > 0).all(axis=0) | (s < 0).all(axis=0)).any())


def test_openings_are_holes_in_walls_that_are_closed_elsewhere(rooms: list[Mesh]) -> None:
    thick = 0
    for mesh in rooms:
        assert mesh.room is not None
        inside, openings = mesh.room.inside, mesh.room.openings
        assert len(openings) >= 2  # a door and a window
        assert (openings[:, 1] > openings[:, 0] - 1e-9).all()
        rng = np.random.default_rng(1)
        corners = mesh.vertices[mesh.faces]
        for axis in (0, 2):
            for end in (0, 1):
                plane = inside[end, axis]
                wall = corners[(np.abs(corners[..., axis] - plane) < 1e-9).all(axis=1)]
                here = openings[(openings[:, 0, axis] <= plane + 1e-9) & (openings[:, 1, axis] >= plane - 1e-9)]
                for point in rng.uniform(inside[0] + 0.01, inside[1] - 0.01, (40, 3)):
                    point[axis] = plane
                    hole = ((point >= here[:, 0] - 1e-9) & (point <= here[:, 1] + 1e-9)).all(axis=1).any()
                    assert covers(wall, axis, point) == (not hole)
        thick += bool((mesh.vertices.min(axis=0) < inside[0] - 0.05).all())
    assert 0 < thick < len(rooms)  # walls with thickness, and walls that are single sheets
