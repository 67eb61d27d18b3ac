"""Cameras against projective geometry, and the rules of rooms one by one."""

import numpy as np
import pytest

from render.cameras import (
    Camera,
    direction,
    inside_any_box,
    intrinsics,
    look_at,
    mean_depth_range,
    object_camera,
    orbit,
    room_camera,
    room_faults,
    turned,
)
from render.peel import check_view
from render.settings import DEPTH_ERROR, PEELED_HITS, STORED_VALUES, RenderSettings, settings_of
from shards.codec import DEFAULT_BOUND, MAX_ELEMENTS
from shards.contract import rays
from shards.randomness import generator
from tests.render.shapes import box, small, sphere


def some_camera() -> Camera:
    pose = look_at(np.array([2.0, 1.0, 3.0]), np.array([0.1, 0.2, -0.3]), roll=0.2)
    return Camera(intrinsics(50.0, 48, 64, 30.0, 25.0), pose, 48, 64, {})


def test_pose_is_rigid_and_right_handed():
    rotation = some_camera().world_from_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_known_points_project_where_they_should():
    camera = Camera(intrinsics(90.0, 100, 100), look_at(np.array([0.0, 0, 5]), np.zeros(3)), 100, 100, {})
    # 90 degrees over 100 pixels: f = 50; the world's +x is to the right, +y is up and so towards smaller v
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 0]])
    np.testing.assert_allclose(camera.project(points), [[50, 50], [60, 50], [50, 40], [100, 0]], atol=1e-9)


def test_projection_undoes_the_rays_of_the_contract():
    camera = some_camera()
    depth = np.random.default_rng(0).uniform(1, 9, (48, 64))
    points = (rays(camera.K, 48, 64) * depth[..., None]) @ camera.world_from_camera[:3, :3].T + camera.eye
    v, u = np.mgrid[:48, :64] + 0.5
    np.testing.assert_allclose(camera.project(points), np.stack([u, v], axis=-1), atol=1e-9)
    np.testing.assert_allclose(camera.from_world(points)[..., 2], depth, atol=1e-9)


def test_scaled_intrinsics_put_samples_between_pixel_centres():
    camera = some_camera()
    point = np.array([[0.3, 0.2, 0.1]])
    finer = Camera(camera.scaled(4), camera.world_from_camera, 192, 256, {})
    np.testing.assert_allclose(finer.project(point), 4 * camera.project(point))


@pytest.mark.parametrize("target", [(0.0, -5.0, 0.0), (0.0, 5.0, 0.0)])
def test_looking_straight_down_or_up_is_still_a_rotation(target):
    rotation = look_at(np.zeros(3), np.array(target))[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation[:, 2], np.array(target) / 5)


def test_object_cameras_keep_to_their_ranges_and_out_of_the_object():
    settings, vertices = small(), sphere().vertices / 2
    drawn = [object_camera(generator(0, "a", view, "camera"), settings, vertices) for view in range(400)]
    for camera in drawn:
        assert np.linalg.norm(camera.eye) > 0.5
        assert settings.fov[0] <= camera.info["fov"] <= settings.fov[1]
        assert settings.elevation[0] <= camera.info["elevation"] <= settings.elevation[1]
        assert camera.K[0, 0] == camera.K[1, 1]
    fov = np.array([camera.info["fov"] for camera in drawn])
    assert np.mean(np.abs(fov - settings.fov_mode) < 12) > 0.75  # most of the mass near the released camera
    assert fov.min() < 30
    azimuth = np.array([camera.info["azimuth"] for camera in drawn])
    assert np.abs(np.histogram(azimuth, 4, (0, 360))[0] / 400 - 0.25).max() < 0.08  # from all around


def test_framing_is_the_share_of_the_image_that_the_longest_side_takes():
    settings = small(crop=0.0, principal_deviation=0.0, framing=(0.5, 0.5), fov_spread=0.0, height=200, width=300)
    vertices = sphere().vertices / 2
    camera = object_camera(generator(0, "a", 0, "camera"), settings, vertices)
    side = camera.world_from_camera[:3, 0] / 2  # from the centre to either end of a unit length across the view
    ends = camera.project(np.stack([side, -side]))
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(0.5 * 200, rel=0.01)


def test_the_recorded_framing_is_that_of_the_picture_where_the_camera_keeps_its_distance():
    wide = {"fov": (70.0, 70.0), "framing": (0.8, 0.8), "crop": 0.0, "principal_deviation": 0.0}
    vertices = box((1.0, 1.0, 1.0)).vertices
    radius = np.linalg.norm(vertices, axis=1).max()
    for view in range(10):
        camera = object_camera(generator(0, "a", view, "camera"), small(**wide), vertices)
        assert np.linalg.norm(camera.eye) == pytest.approx(1.5 * radius)
        shown = camera.K[0, 0] / np.linalg.norm(camera.eye) / min(camera.height, camera.width)
        assert camera.info["framing"] == pytest.approx(shown)
        assert shown < 0.6  # and not the 0.8 that was drawn


def test_orbit_keeps_the_distance_and_the_centre_in_place():
    camera, centre = some_camera(), np.array([0.1, 0.2, -0.3])
    moved = orbit(camera, centre, 40.0)
    np.testing.assert_allclose(moved.project(centre), camera.project(centre), atol=1e-9)
    assert np.linalg.norm(moved.eye - centre) == pytest.approx(np.linalg.norm(camera.eye - centre))
    around = [c.eye - centre for c in (camera, moved)]
    angles = [np.degrees(np.arctan2(e[0], e[2])) for e in around]
    assert angles[1] - angles[0] == pytest.approx(40.0)
    np.testing.assert_allclose(turned(camera, 25.0).eye, camera.eye)


def test_direction_names_azimuth_and_elevation():
    np.testing.assert_allclose(direction(90, 0), [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(direction(0, 0), [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(direction(17, 90), [0, 1, 0], atol=1e-12)


ROOM = np.array([[-3.0, 0, -2.5], [3, 2.7, 2.5]])
NO_FURNITURE = np.zeros((0, 2, 3))


def room_view(height: float = 1.6) -> Camera:
    eye = np.array([0.0, height, 2.0])
    return Camera(intrinsics(60.0, 8, 8), look_at(eye, np.array([0.0, height, -1.0])), 8, 8, {})


def test_candidates_of_a_room_keep_height_and_pitch():
    settings = small(regime="scene")
    for view in range(100):
        camera = room_camera(generator(0, "a", view, "camera"), settings, ROOM)
        assert 1.4 <= camera.eye[1] <= 1.8
        assert np.all((camera.eye > ROOM[0]) & (camera.eye < ROOM[1]))
        pitch = -np.degrees(np.arcsin(camera.world_from_camera[1, 2]))
        assert -1e-9 <= pitch <= 20 + 1e-9


def test_a_good_camera_of_a_room_has_no_faults():
    assert room_faults(room_view(), np.full((8, 8), 3.0, np.float32), ROOM, NO_FURNITURE, small()) == []


@pytest.mark.parametrize(
    ("depth", "furniture", "height", "fault"),
    [
        (3.0, [[[-0.5, 1.2, 1.5], [0.5, 2.0, 2.4]]], 1.6, "inside_furniture"),
        (3.0, [], 2.8, "outside_room"),
        (0.49, [], 1.6, "too_close"),
        (1.7, [], 1.6, "shallow"),
        (7.6, [], 1.6, "deep"),
        (np.inf, [], 1.6, "open"),
    ],
)
def test_each_rule_of_a_room_is_checked(depth, furniture, height, fault):
    boxes = np.array(furniture, np.float64).reshape(-1, 2, 3)
    assert fault in room_faults(room_view(height), np.full((8, 8), depth, np.float32), ROOM, boxes, small())


def test_one_near_pixel_and_half_open_views():
    depth = np.full((8, 8), 3.0, np.float32)
    depth[0, 0] = 0.3
    assert room_faults(room_view(), depth, ROOM, NO_FURNITURE, small()) == ["too_close"]
    depth[:4] = np.inf
    assert room_faults(room_view(), depth, ROOM, NO_FURNITURE, small()) == []  # exactly half may escape by a window
    depth[4, 0] = np.inf
    assert room_faults(room_view(), depth, ROOM, NO_FURNITURE, small()) == ["open"]


def test_small_rooms_ask_for_less_depth():
    assert mean_depth_range((2.0, 7.5), np.array([[0.0, 0, 0], [10, 3, 10]])) == (2.0, 7.5)
    low, high = mean_depth_range((2.0, 7.5), np.array([[0.0, 0, 0], [3, 2.5, 4]]))
    assert low == pytest.approx(0.225 * 5.0)
    assert high == 7.5


def test_furniture_boxes_have_a_margin():
    boxes = np.array([[[0.0, 0, 0], [1, 1, 1]]])
    assert inside_any_box(np.array([1.04, 0.5, 0.5]), boxes)
    assert not inside_any_box(np.array([1.06, 0.5, 0.5]), boxes)


def test_settings_name_the_nearest_key_in_one_line():
    with pytest.raises(ValueError, match=r"there is no 'higth'; the nearest known setting is 'height'"):
        settings_of({"higth": 3})
    with pytest.raises(ValueError, match=r"layers: .*\(found 0\)") as caught:
        settings_of({"layers": 0})
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="runs backwards"):
        settings_of({"fov": (60, 20)})
    for values, why in (
        ({"height": 4096, "width": 4096}, "more than the 67108864 depths"),
        ({"height": 8192, "width": 8192, "layers": 1, "samples": 1}, "32 surfaces at 8192 x 8192 pixels"),
        ({"height": 2048, "width": 2048, "samples": 4}, "32 surfaces at 4 x 4 samples"),
    ):
        with pytest.raises(ValueError, match=why) as caught:
            settings_of(values)
        assert len(str(caught.value).split("\n")) == 1
    assert settings_of({"height": 196, "regime": "scene"}) == RenderSettings(height=196, regime="scene")


def test_settings_allow_what_can_be_peeled_and_stored_and_no_more():
    assert STORED_VALUES == MAX_ELEMENTS
    assert DEPTH_ERROR == DEFAULT_BOUND
    check_view(1, PEELED_HITS - 1, 1, 1e-3)
    with pytest.raises(ValueError, match="2\\*\\*31 hits or more"):
        check_view(1, PEELED_HITS, 1, 1e-3)
    most = {"height": 4096, "width": 4096, "layers": 4, "samples": 1, "slots_limit": 8}
    assert settings_of(most).slots == 8
    with pytest.raises(ValueError, match="5 layers of 4096 x 4096"):
        settings_of({**most, "layers": 5})
