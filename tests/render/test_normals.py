"""Normals by hand: lengths that are areas, corners that share, and what a file may get wrong."""

import numpy as np
import trimesh

from render.motion import Creases
from render.normals import corner_sums, face_normals, sound_normals, unit, vertex_normals
from tests.render.shapes import mesh_of, sphere

# a right angle of two rectangles that share the edge 0-1: one of area 2 facing +z, one of area 6 facing +x
POINTS = np.array([[0.0, 0, 0], [0, 2, 0], [-1, 2, 0], [-1, 0, 0], [0, 2, -3], [0, 0, -3]])
FACES = np.array([[0, 1, 2], [0, 2, 3], [0, 5, 4], [0, 4, 1]])


def test_a_face_normal_is_twice_as_long_as_the_face_is_large() -> None:
    np.testing.assert_array_equal(face_normals(POINTS, FACES), [[0, 0, 2], [0, 0, 2], [6, 0, 0], [6, 0, 0]])


def test_a_vertex_normal_weighs_its_faces_by_area() -> None:
    normals = vertex_normals(POINTS, FACES)
    np.testing.assert_allclose(normals[0], np.array([12, 0, 4]) / np.hypot(12, 4))  # both triangles of either side
    np.testing.assert_allclose(normals[1], np.array([6, 0, 2]) / np.hypot(6, 2))
    np.testing.assert_array_equal(normals[[2, 3]], [[0, 0, 1]] * 2)
    np.testing.assert_array_equal(normals[[4, 5]], [[1, 0, 0]] * 2)


def test_corners_of_one_group_share_their_sum() -> None:
    sums = corner_sums(POINTS, FACES, np.array([[0] * 3, [0] * 3, [1] * 3, [1] * 3]), 3)
    np.testing.assert_array_equal(sums, [[0, 0, 12], [36, 0, 0], [0, 0, 0]])


def test_normals_of_a_sphere_point_outwards() -> None:
    mesh = sphere(4)
    assert np.sum(vertex_normals(mesh.vertices, mesh.faces) * mesh.vertices, axis=1).min() > 0.9999


def test_what_has_no_direction_points_up() -> None:
    vectors = np.array([[0, 0, 0], [np.nan, 1, 0], [np.inf, 0, 0], [0, 0, -5.0]])
    np.testing.assert_array_equal(unit(vectors), [[0, 1, 0]] * 3 + [[0, 0, -1]])
    lonely = vertex_normals(np.concatenate([POINTS, [[9.0, 9, 9]]]), FACES)
    np.testing.assert_array_equal(lonely[-1], [0, 1, 0])


def test_normals_that_a_file_got_wrong_are_those_of_the_faces() -> None:
    right = vertex_normals(POINTS, FACES)
    wrong = 3.0 * right
    wrong[2], wrong[4] = np.nan, 0.0
    repaired, made_up = sound_normals(wrong, POINTS, FACES)
    assert made_up
    assert repaired.dtype == np.float32
    np.testing.assert_allclose(repaired, right, atol=1e-7)
    odd = np.tile([0.0, 0.0, 2.0], (6, 1))  # unlike its faces, but a direction: it is the author's
    kept, made_up = sound_normals(odd, POINTS, FACES)
    assert not made_up
    np.testing.assert_array_equal(kept, odd / 2)


def test_normals_of_a_pose_are_weighed_by_the_areas_of_the_pose() -> None:
    """A smooth box stretched along x: at each corner the sides pull by their new areas."""
    mesh = mesh_of(trimesh.creation.box(), smooth=True)
    creases = Creases.of(mesh)
    assert creases is not None
    stretched = mesh.vertices * [3.0, 1.0, 1.0]
    # no two vertices share a place, so every group of corners is a vertex
    np.testing.assert_allclose(creases.normals(stretched), vertex_normals(stretched, mesh.faces), atol=1e-6)
    assert Creases.of(mesh_of(trimesh.creation.box())) is None
