"""Shapes against what geometry says of them: volumes, closedness, normals under motions and bends."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from render.procedural.piece import Piece, along, turn
from render.procedural.shapes import box, capsule, cylinder, ellipsoid, revolve, rod, superquadric, torus
from render.procedural.sheets import panel, perforated, reveal, rolled, thick


def volume(piece: Piece) -> float:
    a, b, c = (piece.vertices[piece.faces[:, k]] for k in range(3))
    return float(np.einsum("fc,fc->", a, np.cross(b, c)) / 6)


def area(piece: Piece) -> float:
    a, b, c = (piece.vertices[piece.faces[:, k]] for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def open_edges(piece: Piece) -> int:
    """Directed edges without their opposite, vertices joined by place."""
    _, place = np.unique(np.round(piece.vertices, 9) + 0.0, axis=0, return_inverse=True)
    f = place.reshape(-1)[piece.faces]
    edges = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
    directed, counts = np.unique(edges, axis=0, return_counts=True)
    have = {tuple(e): int(n) for e, n in zip(directed.tolist(), counts)}
    return sum(abs(n - have.get((b, a), 0)) for (a, b), n in have.items())


def outward(piece: Piece) -> float:
    """Fraction of the faces whose vertex normals are on the side of the face's own."""
    a, b, c = (piece.vertices[piece.faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    return float((np.einsum("fc,fkc->fk", across, piece.normals[piece.faces]) > 0).mean())


CUP = np.array([[0, 0], [1, 0], [1, 2], [0.9, 2], [0.9, 0.1], [0, 0.1]])
CLOSED: dict[str, tuple[Callable[[], Piece], float]] = {
    "box": (lambda: box(1, 2, 3), 6.0),
    "bevelled box": (lambda: box(1, 2, 3, 1e-4), 6.0),
    "cylinder": (lambda: cylinder(0.5, 2, 256), math.pi / 2),
    "bevelled cylinder": (lambda: cylinder(0.5, 2, 256, bevel=1e-4), math.pi / 2),
    "cone": (lambda: cylinder(1, 3, 256, top=0), math.pi),
    "cup": (lambda: revolve(CUP, 256), math.pi * (2 - 0.81 * 1.9)),
    "ellipsoid": (lambda: ellipsoid(1, 2, 3, 200, 100), 8 * math.pi),
    "superquadric that is a sphere": (lambda: superquadric(1, 1, 1, 1, 1, 200, 100), 4 * math.pi / 3),
    "capsule": (lambda: capsule(np.zeros(3), np.array([1.0, 2, 2]), 0.5, 0.5, 200, 50), math.pi * (0.75 + 0.5 / 3)),
    "rod": (lambda: rod([1, 0, 0], [1, 3, 4], 0.2, 256), 0.2 * math.pi),
    "torus": (lambda: torus(2, 0.5, 200, 100), 2 * math.pi**2 * 2 * 0.25),
    "perforated plate": (lambda: perforated(3, 2, 1.0, 0.5, 0.2, 64), (6 - 6 * math.pi / 16) * 0.2),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_shapes_have_their_volume_and_no_border(name: str) -> None:
    build, expected = CLOSED[name]
    piece = build()
    assert volume(piece) == pytest.approx(expected, rel=4e-3)
    assert open_edges(piece) == 0
    assert outward(piece) > 0.99
    assert np.abs(np.linalg.norm(piece.normals, axis=1) - 1).max() < 1e-9


# A bevel's corners carry the normals of the sides it joins, which a shear may turn past the bevel's own.
@pytest.mark.parametrize("name", [name for name in CLOSED if "bevelled" not in name])
def test_a_motion_scales_the_volume_by_its_determinant_and_keeps_the_outside_outside(name: str) -> None:
    piece = CLOSED[name][0]()
    matrix = np.eye(4)
    matrix[:3] = np.random.default_rng(3).normal(size=(3, 4))
    for mirror in (1.0, -1.0):
        matrix[:3, 0] *= mirror
        moved = piece.transformed(matrix)
        assert volume(moved) == pytest.approx(volume(piece) * abs(np.linalg.det(matrix[:3, :3])), rel=1e-9)
        assert outward(moved) > 0.98
        assert np.abs(np.linalg.norm(moved.normals, axis=1) - 1).max() < 1e-9


def test_normals_under_a_map_are_those_of_the_mapped_surface() -> None:
    # A sphere squashed to an ellipsoid has the gradient of x^2/a^2 + ... as its normal; and so under `bent`.
    sphere = superquadric(1, 1, 1, 1, 1, 64, 40)
    exact = sphere.vertices / np.linalg.norm(sphere.vertices, axis=1, keepdims=True)
    axes = np.array([0.5, 2.0, 1.5])
    sphere = Piece(sphere.vertices, sphere.faces, exact, sphere.uv)
    expected = exact / axes
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(sphere.scaled(*axes).normals, expected, atol=1e-12)
    np.testing.assert_allclose(sphere.bent(lambda p: p * axes).normals, expected, atol=1e-6)
    turned = sphere.scaled(*axes).turned("y", 0.7)
    np.testing.assert_allclose(turned.normals, expected @ turn("y", 0.7).T, atol=1e-12)


def test_along_is_rigid_and_points_the_way() -> None:
    for end in ([1.0, 2, 3], [0.0, 0, -2], [0.0, 5, 0], [1e-3, 0, 1]):
        matrix = along(np.array([1.0, 1, 1]), np.array(end))
        np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
        way = np.array(end) - 1
        np.testing.assert_allclose(matrix[:3, 1], way / np.linalg.norm(way), atol=1e-12)


def test_a_thick_sheet_is_a_closed_shell_of_its_area_times_thickness() -> None:
    u, v = np.meshgrid(np.linspace(0, 2, 30), np.linspace(0, 1, 20))
    piece = thick(np.stack([u, v, 0.1 * np.sin(3 * u)], -1), 0.01)
    assert open_edges(piece) == 0
    assert volume(piece) == pytest.approx(0.01 * area(piece) / 2, rel=0.02)


def test_rolling_keeps_lengths() -> None:
    flat = perforated(40, 3, 0.1, 0.5, 0.002, 8)
    bent = flat.bent(rolled(4 / (2 * math.pi)))
    assert area(bent) == pytest.approx(area(flat), rel=0.01)
    assert np.hypot(bent.vertices[:, 0], bent.vertices[:, 2]) == pytest.approx(4 / (2 * math.pi), abs=0.002)


def test_walls_have_real_openings() -> None:
    openings = [(0.5, 0.0, 1.4, 2.0), (2.0, 0.9, 3.5, 2.1)]
    wall = panel(4, 2.5, openings)
    assert area(wall) == pytest.approx(4 * 2.5 - 0.9 * 2.0 - 1.5 * 1.2)
    assert np.allclose(wall.normals, [0, 0, 1])
    window = reveal(openings[1], 0.3)
    assert area(window) == pytest.approx(2 * (1.5 + 1.2) * 0.3)
    inward = np.array([2.75, 1.5, -0.15]) - window.vertices
    assert (np.einsum("vc,vc->v", window.normals, inward) > 0).all()
