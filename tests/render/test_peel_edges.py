"""Shared edges and vertices that pass exactly through pixel centres: one hit on a surface, never none and never two."""

import numpy as np
import pytest
import trimesh
from scipy.spatial import Delaunay

from render.peel import Scene, peel

SIZE = 48
K_EXACT = np.array([[64.0, 0, 24.5], [0, 64, 24.5], [0, 0, 1]])  # lattice points land on pixel centres without rounding
K_ROUNDED = np.array([[61.3, 2.7, 23.9], [0, 57.1, 24.8], [0, 0, 1]])
CAMERAS = pytest.mark.parametrize("K", [K_EXACT, K_ROUNDED], ids=["exact", "rounded"])


def through_pixels(K: np.ndarray, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The points (N,3) that K maps to the centres of `pixels` (N,2), at `depth` (N,)."""
    homogeneous = np.concatenate([pixels + 0.5, np.ones((len(pixels), 1))], axis=1)
    return np.linalg.solve(K, homogeneous.T).T * depth[:, None]


@CAMERAS
@pytest.mark.parametrize("relief", [0.0, 0.02, 1.0], ids=["flat", "tilted", "rough"])
def test_a_tessellated_surface_with_every_vertex_on_a_pixel_centre_is_hit_once_everywhere(K, relief):
    generator = np.random.Generator(np.random.Philox(11))
    inner = np.stack(np.divmod(generator.choice(SIZE * SIZE, 700, replace=False), SIZE), axis=1)
    frame = np.array([[-9, -9], [-9, 60], [60, -9], [60, 60]])
    pixels = np.concatenate([inner, frame]).astype(float)
    # An odd depth function: the surface is a graph over the image, so that each ray meets it once.
    depth = 2.0 + relief * (0.3 * np.sin(pixels[:, 0]) + 0.011 * pixels[:, 1])
    faces = Delaunay(pixels).simplices
    turn = generator.integers(0, 2, len(faces)).astype(bool)
    faces[turn] = faces[turn][:, ::-1]
    _, triangle = peel(through_pixels(K, pixels, depth), faces, K, SIZE, SIZE, 4)
    assert np.array_equal((triangle >= 0).sum(axis=0), np.ones((SIZE, SIZE)))


def closed_meshes() -> dict[str, trimesh.Trimesh]:
    return {
        "icosphere": trimesh.creation.icosphere(subdivisions=3),
        "torus": trimesh.creation.torus(0.7, 0.3, major_sections=24, minor_sections=12),
        "cylinder": trimesh.creation.cylinder(0.5, 1.6, sections=17),
        "box": trimesh.creation.box((1.0, 1.2, 0.8)),
    }


@CAMERAS
@pytest.mark.parametrize("name", sorted(closed_meshes()))
def test_a_closed_surface_with_its_vertices_on_pixel_centres_is_entered_as_often_as_left(K, name):
    mesh = closed_meshes()[name]
    mesh.apply_transform(trimesh.transformations.euler_matrix(0.3, 0.5, 0.2))
    world = mesh.vertices + [0.0, 0.0, 2.5]
    image = world @ K.T
    pixels = np.floor(image[:, :2] / image[:, 2:])
    # Snapping makes folds, slivers and faces seen edge-on; the surface stays closed.
    snapped = through_pixels(K, pixels, world[:, 2])
    hits = Scene(snapped, mesh.faces).peel(K, SIZE, SIZE, 24).numpy()
    count = (hits.triangle >= 0).sum(axis=0)
    assert count.max() < 24
    assert count.max() > 0
    assert not (count % 2).any()
    assert not hits.facing.sum(axis=0).any()


def test_a_fan_around_a_pixel_centre_hits_that_pixel_once():
    for spokes in (3, 4, 5, 8, 13, 32):
        angle = np.arange(spokes) * 2 * np.pi / spokes + 0.1 * spokes
        ring = np.stack([np.cos(angle), np.sin(angle), np.full(spokes, 2.0)], axis=1) * [0.5, 0.5, 1]
        for K in (K_EXACT, K_ROUNDED):
            centre = through_pixels(K, np.array([[20.0, 27.0]]), np.array([2.0]))
            vertices = np.concatenate([ring + centre * [1, 1, 0], centre])
            faces = [[i, (i + 1) % spokes, spokes] for i in range(spokes)]
            _, triangle = peel(vertices, faces, K, SIZE, SIZE, 2)
            assert triangle[0, 27, 20] >= 0
            assert triangle[1, 27, 20] == -1


@CAMERAS
def test_on_the_edge_of_a_fold_a_pixel_sees_both_faces_or_none(K):
    # The edge passes through a pixel centre every ten columns; the fold opens to one side of it or to the other.
    edge = np.array([[10.0, 10], [40.0, 31]])
    on_edge = [(20, 17), (30, 24)]
    seen = []
    for apexes in ([[40.0, 10], [35.0, 9]], [[10.0, 31], [12.0, 33]]):
        vertices = through_pixels(K, np.concatenate([edge, apexes]), np.array([2.0, 2.5, 2.0, 3.0]))
        for faces in ([[0, 1, 2], [1, 0, 3]], [[2, 1, 0], [3, 1, 0]]):
            _, triangle = peel(vertices, faces, K, SIZE, SIZE, 3)
            seen.append([int((triangle[:, v, u] >= 0).sum()) for u, v in on_edge])
    one_side, other_side = np.array(seen[:2]), np.array(seen[2:])
    assert set(np.unique([one_side, other_side])) <= {0, 2}
    # Winding does not matter.
    assert np.array_equal(one_side[0], one_side[1])
    assert np.array_equal(other_side[0], other_side[1])
    if K is K_EXACT:
        # Exactly on the edge, the centre belongs to one side of it and not to the other.
        assert np.array_equal(one_side + other_side, np.full((2, 2), 2))


def test_a_row_of_pixels_on_a_horizontal_edge_and_a_column_on_a_vertical_one_belong_to_one_of_two_neighbours():
    pixels = np.array([[5.0, 5], [25, 5], [45, 5], [5, 25], [25, 25], [45, 25], [5, 45], [25, 45], [45, 45]])
    vertices = through_pixels(K_EXACT, pixels, np.full(9, 2.0))
    quads = [(0, 1, 4, 3), (1, 2, 5, 4), (3, 4, 7, 6), (4, 5, 8, 7)]
    faces = [f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))]
    _, triangle = peel(vertices, faces, K_EXACT, SIZE, SIZE, 2)
    # Top and left edges are inside, bottom and right ones are not.
    expected = np.zeros((SIZE, SIZE), bool)
    expected[5:45, 5:45] = True
    assert np.array_equal(triangle[0] >= 0, expected)
    assert (triangle[1] == -1).all()
    quad = triangle[0] // 2
    assert (quad[5:25, 5:25] == 0).all()
    assert (quad[5:25, 25:45] == 1).all()
    assert (quad[25:45, 5:25] == 2).all()
    assert (quad[25:45, 25:45] == 3).all()
