"""One box for an object and for every pose of it."""

from pathlib import Path

import numpy as np
import pytest

from render.load import load
from render.mesh import Material, Mesh, Rejected
from render.normalise import normalise, used_bounds
from tests.render.gltf_files import quad_file
from tests.render.test_gltf_animation import animate


def mesh_of(points: np.ndarray) -> Mesh:
    faces = np.array([[0, 1, 2]], np.int32)
    return Mesh(np.asarray(points, np.float64), faces, np.zeros(1, np.int32), (Material(),))


def test_the_longest_side_is_one_and_the_centre_zero() -> None:
    mesh = mesh_of([[10, 0, 0], [14, 1, 0], [10, 0, 2], [99, 99, np.nan]])  # the last vertex is not used
    scaled, scale, offset = normalise(mesh)
    low, high = used_bounds(scaled)
    np.testing.assert_allclose(high - low, [1, 0.25, 0.5])
    np.testing.assert_allclose(low + high, 0, atol=1e-15)
    assert scale == 0.25
    np.testing.assert_allclose(offset, [12, 0.5, 1])
    np.testing.assert_allclose(scaled.vertices[:3], (mesh.vertices[:3] - offset) * scale)


@pytest.mark.parametrize("far", [0.0, 1e6, -1e9])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_it_undoes_a_similarity(far: float, size: float) -> None:
    points = np.random.default_rng(3).random((3, 3))
    base, _, _ = normalise(mesh_of(points))
    moved, _, _ = normalise(mesh_of((points + far) * size))
    np.testing.assert_allclose(moved.vertices, base.vertices, atol=1e-15 * max(abs(far), 10))


def test_what_has_no_size_is_rejected() -> None:
    for points, reason in [
        ([[1, 1, 1]] * 3, "zero_extent"),
        ([[0, 0, 0], [1e-320, 0, 0], [0, 1e-320, 0]], "zero_extent"),
        ([[0, 0, 0], [np.inf, 0, 0], [0, 1, 0]], "non_finite"),
        ([[-1.7e308, 0, 0], [1.7e308, 0, 0], [0, 1, 0]], "non_finite"),
    ]:
        with pytest.raises(Rejected) as caught:
            normalise(mesh_of(np.array(points)))
        assert caught.value.reason == reason
    with pytest.raises(Rejected, match="no_faces"):
        used_bounds(Mesh(np.zeros((3, 3)), np.zeros((0, 3), np.int32), np.zeros(0, np.int32), ()))


def test_a_clip_has_one_box_over_the_poses_asked_for(tmp_path: Path) -> None:
    mesh = load(animate(quad_file(), "translation", [0, 1], [[0, 0, 0], [9, 0, 0]]).write(tmp_path))
    rest, scale, _ = normalise(mesh)
    assert scale == 1
    whole, scale, offset = normalise(mesh, times=(0.0, 0.5, 1.0))
    assert scale == pytest.approx(0.1)
    np.testing.assert_allclose(offset, [5, 0.5, 0])
    assert rest.pose is not None
    assert whole.pose is not None
    assert mesh.pose is not None
    for t in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(whole.pose(t), (mesh.pose(t) - offset) * scale)
    np.testing.assert_array_equal(whole.pose(0.0), whole.vertices)
    assert max(float(np.abs(whole.pose(t)).max()) for t in (0.0, 0.5, 1.0)) == pytest.approx(0.5)
