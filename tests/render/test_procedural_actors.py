"""Actors: the walk is periodic and stays on the ground, bones keep their length, rigid parts stay rigid."""

import pickle

import numpy as np
import pytest

from render.mesh import Mesh
from render.procedural import make
from render.procedural.actors import skin_of


@pytest.fixture(scope="module")
def actors() -> list[Mesh]:
    return [make("actors", 6, index) for index in range(8)]


def test_the_mesh_is_the_pose_at_time_zero_and_the_pose_is_periodic(actors: list[Mesh]) -> None:
    for mesh in actors:
        assert mesh.pose is not None
        assert 1.0 <= mesh.duration <= 2.0
        np.testing.assert_array_equal(mesh.pose(0.0), mesh.vertices)
        for t in (0.0, 0.31, 0.8):
            np.testing.assert_allclose(mesh.pose(t + mesh.duration), mesh.pose(t), atol=1e-9)
        size = np.ptp(mesh.vertices, axis=0).max()
        moved = np.abs(mesh.pose(mesh.duration / 4) - mesh.vertices).max()
        assert moved > 0.05 * size


def test_bones_keep_their_length_and_joints_are_rigid(actors: list[Mesh]) -> None:
    for mesh in actors:
        walk = skin_of(mesh).walk
        skeleton = walk.skeleton
        for t in np.linspace(0, mesh.duration, 7):
            joints = walk.transforms(t)
            rotations = joints[:, :3, :3]
            np.testing.assert_allclose(
                rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (len(joints), 1, 1)), atol=1e-12
            )
            for j, parent in enumerate(skeleton.parents):
                if parent >= 0:
                    length = np.linalg.norm(joints[j, :3, 3] - joints[parent, :3, 3])
                    assert length == pytest.approx(np.linalg.norm(skeleton.rest[j] - skeleton.rest[parent]), abs=1e-12)


def test_rigid_parts_move_with_their_joint_and_weights_are_a_partition(actors: list[Mesh]) -> None:
    for mesh in actors:
        skin = skin_of(mesh)
        assert mesh.pose is not None
        np.testing.assert_allclose(skin.weights.sum(axis=1), 1, atol=1e-12)
        assert skin.weights.min() >= 0
        t = 0.37 * mesh.duration
        posed, joints = mesh.pose(t), skin.walk.transforms(t)
        rigid = 0
        for j, at in enumerate(skin.walk.skeleton.rest):
            own = skin.weights[:, j] == 1.0
            expected = (skin.vertices[own] - at) @ joints[j, :3, :3].T + joints[j, :3, 3]
            np.testing.assert_allclose(posed[own], expected, atol=1e-12)
            rigid += int(own.sum())
        assert rigid > 0.3 * len(posed)


def test_feet_are_on_the_ground_throughout(actors: list[Mesh]) -> None:
    for mesh in actors:
        assert mesh.pose is not None
        tall = np.ptp(mesh.vertices[:, 1])
        for t in np.linspace(0, mesh.duration, 12, endpoint=False):
            assert abs(mesh.pose(t)[:, 1].min()) < 0.03 * tall


def test_skinned_limbs_bend_without_tearing(actors: list[Mesh]) -> None:
    for mesh in actors:
        skin = skin_of(mesh)
        assert mesh.pose is not None
        edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
        rest = np.linalg.norm(skin.vertices[edges[:, 0]] - skin.vertices[edges[:, 1]], axis=1)
        size = np.ptp(mesh.vertices, axis=0).max()
        for t in np.linspace(0, mesh.duration, 5, endpoint=False):
            posed = mesh.pose(t)
            length = np.linalg.norm(posed[edges[:, 0]] - posed[edges[:, 1]], axis=1)
            assert (length - 3 * rest).max() < 0.02 * size


def test_an_actor_survives_the_trip_to_another_process(actors: list[Mesh]) -> None:
    copy = pickle.loads(pickle.dumps(actors[0]))
    assert actors[0].pose is not None
    np.testing.assert_array_equal(copy.pose(0.5), actors[0].pose(0.5))


def test_both_people_and_animals_walk(actors: list[Mesh]) -> None:
    names = [skin_of(mesh).walk.skeleton.names for mesh in actors]
    assert any("left elbow" in n for n in names)
    assert any("tail" in n for n in names)
    proportions = {round(float(np.ptp(m.vertices[:, 1])), 6) for m in actors}
    assert len(proportions) == len(actors)


def test_a_still_mesh_has_no_skin() -> None:
    with pytest.raises(ValueError, match="no skin"):
        skin_of(make("objects", 0, 0))
