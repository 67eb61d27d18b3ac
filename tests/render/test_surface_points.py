"""Points on surfaces: in the planes of their faces, as many as each face's area asks for, only where it is solid."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from render.mesh import Material, Mesh, Rejected
from render.surface_points import sample_surface
from tests.render.shapes import box, quads, sphere, texture


def triangles(*corners: Sequence[Sequence[float]], material: Material | None = None) -> Mesh:
    vertices = np.array(corners, np.float64).reshape(-1, 3)
    faces = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    return Mesh(vertices, faces, np.zeros(len(faces), np.int32), (material or Material(),))


def test_a_box_gets_points_on_its_sides_by_their_area() -> None:
    extents = np.array([1.0, 0.6, 0.8])
    points = sample_surface(box(tuple(extents)), 20_000, seed=3)
    assert points.shape == (20_000, 3)
    assert np.abs(points).max(axis=0) == pytest.approx(extents / 2)
    apart = np.abs(np.abs(points) - extents / 2)
    assert apart.min(axis=1).max() < 1e-12, "each lies on a side"
    area = np.array([extents[1] * extents[2], extents[0] * extents[2], extents[0] * extents[1]])
    counts = np.bincount(apart.argmin(axis=1), minlength=3)
    # laid end to end in twelve triangles: each side is off by its ends alone
    assert np.abs(counts - 20_000 * area / area.sum()).max() <= 12


def test_points_are_uniform_within_a_triangle() -> None:
    points = sample_surface(triangles([[0, 0, 0], [2, 0, 0], [0, 1, 0]]), 40_000, seed=0)
    assert points.mean(axis=0) == pytest.approx([2 / 3, 1 / 3, 0], abs=0.01)
    # a quarter of the area lies beyond the line that halves both sides
    assert np.mean(points[:, 0] / 2 + points[:, 1] < 0.5) == pytest.approx(0.25, abs=0.01)
    assert (points[:, 0] / 2 + points[:, 1] <= 1 + 1e-12).all()


def test_they_are_a_function_of_the_mesh_the_count_and_the_seed() -> None:
    mesh = sphere(2)
    assert np.array_equal(sample_surface(mesh, 500, 7), sample_surface(mesh, 500, 7))
    assert not np.array_equal(sample_surface(mesh, 500, 7), sample_surface(mesh, 500, 8))
    moved = sample_surface(mesh, 500, 7, mesh.vertices * 2 + [1, 2, 3])
    assert np.allclose(moved, sample_surface(mesh, 500, 7) * 2 + [1, 2, 3])


def test_a_face_that_is_there_twice_counts_once() -> None:
    left, right = [[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[5, 0, 0], [6, 0, 0], [5, 1, 0]]
    points = sample_surface(triangles(left, left, left[::-1], right), 1000, seed=0)
    assert np.count_nonzero(points[:, 0] > 3) == 500


def test_what_is_cut_out_is_no_surface() -> None:
    """A quad whose texture is clear on its left half: bilinear alpha passes one half at the middle."""
    pixels = np.full((2, 64, 4), 255, np.uint8)
    pixels[:, :32, 3] = 0
    leaf = Material(base_color_texture=texture(pixels), alpha_mode="MASK")
    mesh = quads([0.0], (leaf,))
    points = sample_surface(mesh, 4000, seed=1)
    assert len(points) == 4000
    u = (points[:, 0] - mesh.vertices[:, 0].min()) / np.ptp(mesh.vertices[:, 0])
    assert u.min() > 0.5 - 1 / 64
    assert np.histogram(u, bins=4, range=(0.5, 1))[0] == pytest.approx([1000] * 4, rel=0.1)
    clear = Material(base_color_texture=texture(pixels * np.array([1, 1, 1, 0], np.uint8)), alpha_mode="MASK")
    with pytest.raises(Rejected, match=r"no_surface: all of .* points on its faces are cut out"):
        sample_surface(quads([0.0], (clear,)), 100, seed=1)


def test_what_has_no_area_is_rejected() -> None:
    with pytest.raises(Rejected, match="zero_extent"):
        sample_surface(triangles([[0, 0, 0], [1, 1, 1], [2, 2, 2]]), 10, seed=0)
    huge = sphere(1)
    with pytest.raises(Rejected, match="zero_extent"):
        sample_surface(replace(huge, vertices=huge.vertices * 1e300), 10, seed=0)
    with pytest.raises(ValueError, match="0 points of a surface: ask for at least one"):
        sample_surface(sphere(1), 0, seed=0)
