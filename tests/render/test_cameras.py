"""Cameras against projective geometry, and the rules of rooms one by one."""

import numpy as np
import pytest
import torch

from model.intrinsics import fit_intrinsics
from render.cameras import (
    SIDES,
    Camera,
    ObjectView,
    direction,
    draw_object_view,
    framed,
    inside_any_box,
    intrinsics,
    look_at,
    mean_depth_range,
    object_camera,
    orbit,
    reflected,
    room_camera,
    room_faults,
    turned,
)
from render.extent import Extent
from render.peel import check_view
from render.procedural import make
from render.settings import DEPTH_ERROR, PEELED_HITS, STORED_VALUES, RenderSettings, settings_of
from render.views import render_views
from shards.contract import LayeredView, rays
from shards.layers.codec import DEFAULT_BOUND, MAX_ELEMENTS
from shards.moments import RELEASED, Moments, moments_of
from shards.randomness import generator
from shards.sample import decode, encode
from tests.render.shapes import box, origin, small, sphere
from train.config import Augment
from train.data.augment import prepare


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


@pytest.mark.parametrize("target", [(0.0, -5.0, 0.0), (0.0, 5.0, 0.0)])
def test_looking_straight_down_or_up_is_still_a_rotation(target):
    rotation = look_at(np.zeros(3), np.array(target))[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation[:, 2], np.array(target) / 5)


def test_object_cameras_keep_to_their_ranges_and_out_of_the_object():
    settings, vertices = small(), sphere().vertices / 2
    drawn = [object_camera(generator(0, "a", view, "camera"), settings, Extent.of(vertices)) for view in range(400)]
    for camera in drawn:
        assert np.linalg.norm(camera.eye) > 0.5
        assert settings.fov[0] <= camera.info["fov"] <= settings.fov[1]
        assert settings.elevation[0] <= camera.info["elevation"] <= settings.elevation[1]
        assert camera.K[0, 0] == camera.K[1, 1]  # square pixels unless asked otherwise
    fov = np.array([camera.info["fov"] for camera in drawn])
    assert np.mean(np.abs(fov - settings.fov_mode) < 12) > 0.75  # most of the mass near the released camera
    assert fov.min() < 35
    azimuth = np.array([camera.info["azimuth"] for camera in drawn])
    assert np.abs(np.histogram(azimuth, 4, (0, 360))[0] / 400 - 0.25).max() < 0.08  # from all around


def test_framing_is_the_share_of_the_image_that_the_longest_side_takes():
    vertices = sphere().vertices / 2
    camera = framed(ObjectView(40.0, 30.0, 20.0, 0.5), 200, 300, Extent.of(vertices))
    side = camera.world_from_camera[:3, 0] / 2  # from the centre to either end of a unit length across the view
    ends = camera.project(np.stack([side, -side]))
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(0.5 * 200, rel=1e-9)
    np.testing.assert_allclose(ends.mean(axis=0), [150, 100])


def test_the_recorded_framing_is_that_of_the_picture_where_the_camera_keeps_its_distance():
    vertices = box((1.0, 1.0, 1.0)).vertices
    radius = np.linalg.norm(vertices, axis=1).max()
    for azimuth in (0.0, 25.0, 190.0):
        camera = framed(ObjectView(70.0, azimuth, 30.0, 0.8), 64, 64, Extent.of(vertices))
        assert np.linalg.norm(camera.eye) == pytest.approx(1.5 * radius)
        assert camera.info["distance"] == pytest.approx(1.5 * radius)
        shown = camera.K[0, 0] / np.linalg.norm(camera.eye) / 64
        assert camera.info["framing"] == pytest.approx(shown)
        assert shown < 0.6  # and not the 0.8 that was asked for


def test_the_eye_is_where_azimuth_and_elevation_say_and_the_aim_comes_to_the_principal_point():
    vertices = box((1.0, 0.4, 0.2)).vertices + [3.0, -2.0, 1.0]
    camera = framed(
        ObjectView(50.0, 70.0, 25.0, 0.4, roll=4.0, principal=(0.03, -0.05), aim=(0.1, -0.2)),
        80,
        120,
        Extent.of(vertices),
    )
    away = camera.eye - [3.0, -2.0, 1.0]
    np.testing.assert_allclose(away / np.linalg.norm(away), direction(70.0, 25.0))
    np.testing.assert_allclose(camera.K[:2, 2], [120 * 0.53, 80 * 0.45])
    upright = look_at(camera.eye, np.array([3.0, -2.0, 1.0]), np.radians(4.0))
    aimed_at = np.array([3.0, -2.0, 1.0]) + 0.1 * upright[:3, 0] - 0.2 * upright[:3, 1]  # right, and up
    np.testing.assert_allclose(camera.project(aimed_at), camera.K[:2, 2])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("cut", [0.05, 0.25, 0.45])
def test_a_cropped_view_cuts_the_share_that_was_drawn_off_the_side_that_was_drawn(side, cut):
    for framing, vertices in ((0.2, sphere().vertices / 2), (0.9, box((0.4, 1.0, 0.7)).vertices)):
        camera = framed(
            ObjectView(60.0, 40.0, 15.0, framing, roll=5.0, side=side, cut=cut), 96, 128, Extent.of(vertices)
        )
        seen = camera.project(vertices)[:, 0 if side in ("left", "right") else 1]
        low, high = seen.min(), seen.max()
        gone = {"left": -low, "right": high - 128, "top": -low, "bottom": high - 96}[side]
        assert gone / (high - low) == pytest.approx(cut, abs=1e-9)
        assert camera.info["cropped"] == side


def test_aspect_stretches_the_image_and_keeps_its_area():
    vertices = sphere().vertices / 2
    plain, wide = (framed(ObjectView(60.0, 0.0, 0.0, 0.3, aspect=a), 96, 96, Extent.of(vertices)) for a in (1.0, 1.44))
    assert wide.K[0, 0] / wide.K[1, 1] == pytest.approx(1.44)
    assert wide.K[0, 0] * wide.K[1, 1] == pytest.approx(plain.K[0, 0] * plain.K[1, 1])
    np.testing.assert_allclose(wide.eye, plain.eye)  # so framing and distance stay
    assert wide.info["framing"] == pytest.approx(0.3)
    width, height = np.ptp(wide.project(vertices), axis=0) / np.ptp(plain.project(vertices), axis=0)
    assert (width, height) == (pytest.approx(1.2), pytest.approx(1 / 1.2))


def test_aspect_is_drawn_log_uniformly_in_its_range_and_recorded():
    settings = small(aspect=(0.5, 2.0))
    drawn = [
        object_camera(generator(0, "a", view, "camera"), settings, Extent.of(sphere(1).vertices)) for view in range(300)
    ]
    ratios = np.array([camera.K[0, 0] / camera.K[1, 1] for camera in drawn])
    np.testing.assert_allclose(ratios, [camera.info["aspect"] for camera in drawn])
    assert np.abs(np.histogram(np.log2(ratios), 4, (-1, 1))[0] / 300 - 0.25).max() < 0.08
    rooms = room_camera(generator(0, "a", 0, "camera"), settings, ROOM)
    assert rooms.K[0, 0] / rooms.K[1, 1] == pytest.approx(rooms.info["aspect"])
    assert object_camera(generator(0, "a", 0, "camera"), small(), Extent.of(sphere(1).vertices)).info["aspect"] == 1.0


def test_what_leaves_a_range_is_folded_back_into_it():
    for value, inside in ((0.3, 0.3), (1.2, 0.8), (-0.2, 0.2), (2.3, 0.3), (-1.3, 0.7), (1.0, 1.0), (0.0, 0.0)):
        assert reflected(value, (0.0, 1.0)) == pytest.approx(inside)
        assert reflected(10 + 5 * value, (10.0, 15.0)) == pytest.approx(10 + 5 * inside)
    assert reflected(7.0, (3.0, 3.0)) == 3.0
    assert reflected(60.0, (10.0, 70.0)) == 60.0


def test_draws_follow_their_settings():
    settings = small()
    drawn = [draw_object_view(generator(0, "a", view, "camera"), settings) for view in range(3000)]
    framing = np.array([view.framing for view in drawn])
    assert np.median(framing) == pytest.approx(settings.framing_median, rel=0.03)
    assert np.log(framing).std() == pytest.approx(settings.framing_deviation, rel=0.05)
    elevation = np.array([view.elevation for view in drawn])
    assert np.median(elevation) == pytest.approx(settings.elevation_mode, abs=1.5)
    aim = np.array([view.aim for view in drawn])
    np.testing.assert_allclose(aim.std(axis=0), settings.aim_deviation, rtol=0.05)
    cropped = [view for view in drawn if view.side]
    assert len(cropped) / 3000 == pytest.approx(settings.crop, abs=0.01)
    assert {view.side for view in cropped} == set(SIDES)
    assert all(settings.crop_cut[0] <= view.cut <= settings.crop_cut[1] for view in cropped)
    assert all(view.cut == 0 for view in drawn if not view.side)
    fov = np.array([view.fov for view in drawn])
    assert (fov < 45).mean() < settings.fov_spread  # the whole range is reached, seldom
    assert fov.min() < 15
    assert 69.5 < fov.max() < 70.0
    assert np.mean(fov > 69.0) < 0.06  # none pile up at the end


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
        ({"aspect": (0.1, 1.0)}, "leaves 0.25 .. 4"),
        ({"crop_cut": (0.1, 0.6)}, "at least half of the object stays in view"),
        ({"aim_deviation": (-0.1, 0.1)}, "negative deviation"),
        ({"fov_mode": 200}, r"fov_mode: 200.0 leaves fov, 10.0 .. 70.0"),
        ({"fov_mode": -4}, "fov_mode: -4.0 leaves fov"),
        ({"fov": (20, 40)}, "fov_mode: 60.0 leaves fov, 20.0 .. 40.0; set fov_mode within it, or fov too"),
        ({"elevation_mode": 86}, "elevation_mode: 86.0 leaves elevation"),
        ({"framing_median": 1.3}, "framing_median: 1.3 leaves framing"),
        ({"elevation": (0, 91)}, "leaves -90 .. 90 degrees"),
        ({"scene_pitch": (90, 90)}, "leaves -89 .. 89"),
        ({"height": 4096, "width": 4096}, "more than the 67108864 depths"),
        ({"height": 8192, "width": 8192, "layers": 1, "samples": 1}, "32 surfaces at 8192 x 8192 pixels"),
        ({"height": 2048, "width": 2048, "samples": 4}, "32 surfaces at 4 x 4 samples"),
    ):
        with pytest.raises(ValueError, match=why) as caught:
            settings_of(values)
        assert len(str(caught.value).split("\n")) == 1
    assert settings_of({"height": 196, "regime": "scene"}) == RenderSettings(height=196, regime="scene")


def test_settings_are_read_from_assignments():
    texts = ["fov_mode=54.2", "aspect = 0.8,1.25", "framing=[0.2, 0.9]", "shadows=false", "backend=cpu"]
    assert settings_of({"seed": 3}, texts) == RenderSettings(
        seed=3, fov_mode=54.2, aspect=(0.8, 1.25), framing=(0.2, 0.9), shadows=False, backend="cpu"
    )
    for wrong, why in (
        (["fov_mode"], "'fov_mode' is no NAME=VALUE"),
        (["fov_mode="], "is no NAME=VALUE"),
        (["fov_mode=5", "fov_mode=6"], "fov_mode is set twice"),
        (["seed=4"], "seed has an option of its own"),
        (["fov_mod=54"], "nearest known setting is 'fov_mode'"),
        (["out=x"], "there is no 'out'; docs/render.md lists the settings"),
        (["fov=wide"], r"fov: give LOW,HIGH, two numbers such as 10,70 \(found 'wide'\)"),
        (["aspect=1"], r"aspect: give LOW,HIGH, two numbers such as 1,1 \(found 1\)"),
        (["exposure=0.5,1,2"], "exposure: give LOW,HIGH"),
        (["elevation=NaN,3"], "elevation: give LOW,HIGH"),
        (["aim_deviation=1"], "aim_deviation: give RIGHT,DOWN"),
    ):
        with pytest.raises(ValueError, match=why) as caught:
            settings_of({"seed": 3}, wrong)
        assert "\n" not in str(caught.value)


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


def test_procedural_objects_fill_the_image_as_the_papers_do() -> None:
    """A guard on the calibration, which tests/benchmarks/coverage.py measures on a mixed corpus.

    Without the views of any lens at all: one of 10 degrees among so few would decide the deviation of z.
    """
    settings = small(height=48, width=48, samples=1, shadows=False, views=6, texture_limit=16, fov_spread=0.0)
    coverage, total = [], Moments()
    for index in range(25):
        mesh = make("objects", 0, index)
        for view in render_views(mesh, origin(f"object {index}"), settings).samples:
            assert isinstance(view, LayeredView)
            coverage.append([float(np.mean(view.hits > l)) for l in range(2)])
            total.merge(moments_of(view.hits, view.depth, view.K))
    first, second = 100 * np.mean(coverage, axis=0)
    assert first == pytest.approx(8.14, rel=0.25)
    assert second == pytest.approx(7.90, rel=0.25)
    assert total.mean[2] == pytest.approx(RELEASED["mean"][2], rel=0.1)
    np.testing.assert_allclose(total.mean[:2], 0, atol=0.06)
    np.testing.assert_allclose(total.std, RELEASED["std"], rtol=0.25)


def test_a_stretched_view_is_rendered_stored_and_trained_on_with_its_own_focal_lengths() -> None:
    settings = small(height=48, width=64, aspect=(1.6, 1.6), layers=2, roll_deviation=0.0)
    (view,) = render_views(box((1.0, 0.6, 0.8)), origin("box"), settings).samples
    assert isinstance(view, LayeredView)
    assert view.K[0, 0] / view.K[1, 1] == pytest.approx(1.6)
    pose = view.world_from_camera
    points = view.xyz().astype(np.float64)[view.hit] @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(np.abs(points / [0.5, 0.3, 0.4]).max(axis=1), 1.0, atol=2e-5)
    back = decode(view.key, encode(view).members)
    assert isinstance(back, LayeredView)
    np.testing.assert_array_equal(back.K, view.K)
    target = prepare(back, 2, 56, Augment(), None)  # evaluation: resized only
    seen = target.xyz[0][target.valid] @ target.K.T
    v, u = np.nonzero(target.valid)
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], np.stack([u, v], axis=1) + 0.5, atol=1e-3)
    fitted = fit_intrinsics(torch.as_tensor(target.xyz[:1]), torch.as_tensor(target.valid[None]))
    np.testing.assert_allclose(fitted[0].numpy(), target.K, rtol=1e-3, atol=1e-3)
