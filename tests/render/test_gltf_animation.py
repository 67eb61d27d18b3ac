"""Poses against the answer by hand: node animation in three interpolations, morph targets and skins."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from render.load import load
from render.mesh import Mesh, Rejected
from tests.render.gltf_files import QUAD, File, quad_file
from tests.render.test_load import ASSETS, manifest, needs_assets


def animate(file: File, path: str, times: Any, values: Any, node: int = 0, **sampler: Any) -> File:
    times, values = file.array(times), file.array(values)
    file.json["animations"] = [
        {
            "samplers": [{"input": times, "output": values, **sampler}],
            "channels": [{"sampler": 0, "target": {"node": node, "path": path}}],
        }
    ]
    return file


def at(mesh: Mesh, t: float) -> np.ndarray:
    assert mesh.pose is not None
    return mesh.pose(t)


def test_vertices_are_the_pose_at_zero(tmp_path: Path) -> None:
    mesh = load(animate(quad_file(), "translation", [0, 2], [[5, 0, 0], [9, 0, 8]]).write(tmp_path))
    assert mesh.duration == 2
    np.testing.assert_allclose(mesh.vertices, QUAD + [5, 0, 0])
    np.testing.assert_array_equal(at(mesh, 0), mesh.vertices)
    np.testing.assert_allclose(at(mesh, 0.5), QUAD + [6, 0, 2])


def test_before_the_first_key_and_after_the_last_it_stands_still(tmp_path: Path) -> None:
    mesh = load(animate(quad_file(), "translation", [1, 3], [[1, 0, 0], [2, 0, 0]]).write(tmp_path))
    np.testing.assert_allclose(at(mesh, 0), QUAD + [1, 0, 0])
    np.testing.assert_allclose(at(mesh, 1e6), QUAD + [2, 0, 0])


def test_step_holds_its_key(tmp_path: Path) -> None:
    file = animate(quad_file(), "translation", [0, 1, 2], [[1, 0, 0], [2, 0, 0], [3, 0, 0]], interpolation="STEP")
    mesh = load(file.write(tmp_path))
    assert [float(at(mesh, t)[:, 0].min()) for t in (0, 0.999, 1, 1.5, 2)] == [1, 1, 2, 2, 3]


def test_a_cubic_spline_reproduces_a_cubic(tmp_path: Path) -> None:
    """x(t) = t^3 - 2 t with its true derivatives as tangents: the Hermite spline is that cubic."""
    times = np.array([0.0, 0.5, 2.0])
    value, slope = times**3 - 2 * times, 3 * times**2 - 2
    keys = np.zeros((3, 3, 3))
    keys[:, 0, 0], keys[:, 1, 0], keys[:, 2, 0] = slope, value, slope
    file = animate(quad_file(), "translation", times, keys.reshape(9, 3), interpolation="CUBICSPLINE")
    mesh = load(file.write(tmp_path))
    for t in (0.0, 0.1, 0.5, 1.3, 1.99):
        np.testing.assert_allclose(at(mesh, t)[0], [t**3 - 2 * t, 0, 0], atol=1e-6)


def test_rotation_takes_the_shorter_arc_at_constant_speed(tmp_path: Path) -> None:
    def about_z(angle: float) -> list[float]:
        return [0, 0, math.sin(angle / 2), math.cos(angle / 2)]

    keys = [about_z(0), [-x for x in about_z(2.0)]]  # the same turn by 2 radians, written the long way
    mesh = load(animate(quad_file(), "rotation", [0, 1], keys).write(tmp_path))
    for t in (0.0, 0.25, 0.9):
        c, s = math.cos(2 * t), math.sin(2 * t)
        expected = QUAD @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T
        np.testing.assert_allclose(at(mesh, t), expected, atol=1e-6)


def test_a_child_follows_its_animated_parent(tmp_path: Path) -> None:
    file = quad_file()
    file.json["nodes"] = [{"children": [1]}, {"mesh": 0, "translation": [0, 1, 0]}]
    mesh = load(animate(file, "scale", [0, 1], [[1, 1, 1], [1, 5, 1]]).write(tmp_path))
    np.testing.assert_allclose(at(mesh, 0.5), (QUAD + [0, 1, 0]) * [1, 3, 1])


def test_morph_weights(tmp_path: Path) -> None:
    file = File()
    up, along = np.zeros((4, 3)), np.zeros((4, 3))
    up[:, 2], along[2, 0] = 1, 10
    targets = [{"POSITION": file.array(up)}, {"POSITION": file.array(along)}]
    file.mesh(targets=targets)
    file.json["meshes"][0]["weights"] = [0.5, 0]
    np.testing.assert_allclose(load(file.write(tmp_path)).vertices, QUAD + 0.5 * up)
    file.json["nodes"][0]["weights"] = [0, 0.1]
    np.testing.assert_allclose(load(file.write(tmp_path)).vertices, QUAD + 0.1 * along)
    mesh = load(animate(file, "weights", [0, 1], np.array([0, 0, 1, 2], np.float32)).write(tmp_path))
    np.testing.assert_allclose(at(mesh, 0.5), QUAD + 0.5 * up + 1.0 * along)
    file.json["animations"][0]["samplers"][0]["output"] = file.array(np.array([1, 2, 3], np.float32))
    with pytest.raises(Rejected, match="corrupt"):
        load(file.write(tmp_path))


def skinned_bar() -> File:
    """A bar of two quads along y: the lower end hangs on joint 1, the upper on joint 2, the middle half on each."""
    file = File()
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 2, 0], [1, 2, 0]], np.float32)
    weights = np.zeros((6, 4), np.float32)
    weights[:2, 0], weights[4:, 1] = 1, 1
    weights[2:4, :2] = 1  # not normalised: they are made to sum to 1
    joints = np.zeros((6, 4), np.uint8)
    joints[:, 1] = 1
    joints[:, 3] = 200  # padding of weight 0 may name any joint
    attributes = {"JOINTS_0": file.array(joints, np.uint8), "WEIGHTS_0": file.array(weights)}
    file.mesh(points, np.array([0, 1, 2, 1, 3, 2, 2, 3, 4, 3, 5, 4]), attributes=attributes)
    inverse = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    inverse[1, 1, 3] = -1  # joint 2 rests at y = 1
    inverse_bind = file.array(inverse.transpose(0, 2, 1).reshape(2, 16))
    file.json["skins"] = [{"joints": [1, 2], "inverseBindMatrices": inverse_bind}]
    file.json["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},  # moves nothing: only joints move a skin
        {"children": [2]},
        {"translation": [0, 1, 0]},
    ]
    file.json["scenes"] = [{"nodes": [0, 1]}]
    return file


def test_a_skin_at_rest_lies_where_it_was_bound(tmp_path: Path) -> None:
    mesh = load(skinned_bar().write(tmp_path))
    assert mesh.pose is None
    np.testing.assert_allclose(mesh.vertices.min(axis=0), [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(mesh.vertices.max(axis=0), [1, 2, 0], atol=1e-6)


def test_a_skin_blends_its_joints(tmp_path: Path) -> None:
    half = math.sqrt(0.5)
    keys = [[0, 0, 0, 1], [0, 0, half, half]]  # a quarter turn about z
    mesh = load(animate(skinned_bar(), "rotation", [0, 1], keys, node=2).write(tmp_path))
    bent = at(mesh, 1.0)
    rest = at(mesh, 0.0)
    turned = np.stack([-(rest[:, 1] - 1), rest[:, 0] + 1, rest[:, 2]], axis=1)
    expected = np.concatenate([rest[:2], (rest[2:4] + turned[2:4]) / 2, turned[4:]])
    np.testing.assert_allclose(bent, expected, atol=1e-6)


def test_a_pose_travels_between_processes(tmp_path: Path) -> None:
    file = animate(
        quad_file(positions=np.concatenate([QUAD, [[9, 9, 9]]])), "translation", [0, 1], [[0, 0, 0], [1, 0, 0]]
    )
    mesh = load(file.write(tmp_path))
    copy = pickle.loads(pickle.dumps(mesh))
    np.testing.assert_array_equal(copy.pose(0.3), at(mesh, 0.3))
    assert at(mesh, 0.3).shape == (4, 3)


def test_the_first_clip_in_which_anything_changes(tmp_path: Path) -> None:
    file = animate(quad_file(), "translation", [0, 1], [[3, 0, 0], [3, 0, 0]])
    still = file.json["animations"]
    mesh = load(file.write(tmp_path))
    assert (mesh.pose, mesh.duration) == (None, 0)
    animate(file, "translation", [0, 4], [[0, 0, 0], [8, 0, 0]])
    file.json["animations"] = still + file.json["animations"]
    assert load(file.write(tmp_path)).duration == 4


def test_a_face_that_opens_later_is_kept(tmp_path: Path) -> None:
    file = quad_file()
    file.json["nodes"] = [{"mesh": 0}, {"mesh": 0}]
    file.json["scenes"] = [{"nodes": [0, 1]}]
    mesh = load(animate(file, "translation", [0, 1], [[0, 0, 0], [0, 0, 1]]).write(tmp_path))
    assert len(mesh.faces) == 4


@pytest.mark.parametrize(
    ("times", "values", "reason"),
    [
        ([0, np.nan], [[0, 0, 0], [1, 0, 0]], "non_finite_animation"),
        ([0, 1], [[0, 0, 0], [np.nan, 0, 0]], "non_finite_animation"),
        ([0, 1], [[0, 0, 0], [np.inf, 0, 0]], "non_finite_animation"),
        ([1, 0], [[0, 0, 0], [1, 0, 0]], "corrupt"),
        ([-1, 0], [[0, 0, 0], [1, 0, 0]], "corrupt"),
        ([0, 1, 2], [[0, 0, 0], [1, 0, 0]], "corrupt"),
    ],
)
def test_keys_that_are_none(tmp_path: Path, times: Any, values: Any, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        load(animate(quad_file(), "translation", times, values).write(tmp_path))
    assert caught.value.reason == reason


def test_two_keys_at_one_time_jump(tmp_path: Path) -> None:
    mesh = load(
        animate(quad_file(), "translation", [0, 1, 1, 2], [[0, 0, 0], [1, 0, 0], [5, 0, 0], [6, 0, 0]]).write(tmp_path)
    )
    assert [float(at(mesh, t)[:, 0].min()) for t in (0.5, 1, 1.5)] == [0.5, 5, 5.5]


@needs_assets
@pytest.mark.parametrize("row", [r for r in manifest() if r["animated"] == "y"], ids=lambda row: row["name"])
def test_a_real_animation_moves_and_keeps_its_size(row: dict[str, str]) -> None:
    mesh = load(ASSETS / row["path"])
    np.testing.assert_allclose(at(mesh, 0.0), mesh.vertices, rtol=0, atol=0)
    size = float(np.ptp(mesh.vertices, axis=0).max())
    farthest = 0.0
    for t in np.linspace(0, mesh.duration, 7):
        pose = at(mesh, float(t))
        assert np.isfinite(pose).all()
        farthest = max(farthest, float(np.abs(pose - mesh.vertices).max()))
        assert 0.2 * size < np.ptp(pose, axis=0).max() < 5 * size
    assert farthest > 1e-3 * size


def test_normals_of_a_skin_turn_with_it(tmp_path: Path) -> None:
    file = skinned_bar()
    primitive = file.json["meshes"][0]["primitives"][0]
    primitive["attributes"]["NORMAL"] = file.array([[1, 0, 0]] * 6)
    half = math.sqrt(0.5)
    file.json["nodes"][1]["rotation"] = [0, 0, half, half]
    mesh = load(file.write(tmp_path))
    assert mesh.normals is not None
    np.testing.assert_allclose(mesh.normals, [[0, 1, 0]] * 6, atol=1e-6)
