"""Camera paths of clips against their geometry: what stays, what moves, how far, and that every pose is recorded."""

import numpy as np
import pytest

from render.cameras import (
    Camera,
    ObjectView,
    direction,
    framed,
    intrinsics,
    look_at,
    object_camera,
    orbit,
    pitch_of,
    room_camera,
)
from render.extent import Extent
from render.paths import ROOM_MOVES, object_path, room_path
from shards.randomness import generator
from tests.render.shapes import box, small

ROOM = np.array([[-4.0, 0.0, -3.0], [4.0, 2.7, 3.0]])
CENTRE = np.array([0.2, -0.1, 0.4])
SETTINGS = small(regime="dynamic", frames=9)


def paths(moves: bool, count: int = 40, elevation: float = 15.0) -> list[list[Camera]]:
    view = ObjectView(55.0, 20.0, elevation, 0.4, roll=3.0, aim=(0.05, 0.1))
    start = framed(view, 64, 64, Extent.of(box((1.0, 0.6, 0.8)).vertices + CENTRE))
    return [object_path(generator(0, "p", k), start, CENTRE, SETTINGS, moves) for k in range(count)]


def spherical(camera: Camera) -> tuple[float, float, float]:
    """Azimuth and elevation in degrees, and distance, as seen from CENTRE."""
    away = camera.eye - CENTRE
    distance = float(np.linalg.norm(away))
    return float(np.degrees(np.arctan2(away[0], away[2]))), float(np.degrees(np.arcsin(away[1] / distance))), distance


def test_rise_lifts_the_camera_around_the_centre_and_keeps_it_upright() -> None:
    eye = CENTRE + 3.0 * direction(50.0, 10.0)
    start = Camera(intrinsics(50.0, 48, 64), look_at(eye, CENTRE), 48, 64, {})
    up = orbit(start, CENTRE, 30.0, 25.0)
    assert spherical(up) == (pytest.approx(80.0), pytest.approx(35.0), pytest.approx(3.0))
    np.testing.assert_allclose(up.world_from_camera, look_at(up.eye, CENTRE), atol=1e-12)


def test_a_still_object_is_seen_from_an_arc_that_turns_evenly() -> None:
    arcs = []
    for path in paths(moves=False):
        places = np.array([spherical(camera) for camera in path])
        azimuth = np.degrees(np.unwrap(np.radians(places[:, 0])))
        np.testing.assert_allclose(np.diff(azimuth), (azimuth[-1] - azimuth[0]) / 8, atol=1e-9)
        np.testing.assert_allclose(np.diff(places[:, 1]), (places[-1, 1] - places[0, 1]) / 8, atol=1e-9)
        np.testing.assert_allclose(places[:, 2], places[0, 2])
        arcs.append((azimuth[-1] - azimuth[0], places[-1, 1] - places[0, 1]))
        pixels = np.array([camera.project(CENTRE) for camera in path])
        np.testing.assert_allclose(pixels, np.broadcast_to(pixels[0], pixels.shape), atol=1e-9)
        assert [camera.info["turn"] for camera in path] == pytest.approx(list(azimuth - azimuth[0]))
    turns, rises = np.array(arcs).T
    assert np.all((np.abs(turns) >= 60) & (np.abs(turns) <= 180))
    assert np.all(np.abs(rises) <= 20)
    assert turns.min() < 0 < turns.max()
    assert rises.min() < -5
    assert rises.max() > 5


def test_a_rise_keeps_to_the_range_of_elevations() -> None:
    for path in paths(moves=False, elevation=80.0):
        assert spherical(path[-1])[1] <= 85.0 + 1e-9
    for path in paths(moves=False, elevation=-25.0):
        assert spherical(path[-1])[1] >= -30.0 - 1e-9


def test_an_animation_is_seen_by_a_fixed_camera_or_from_a_slow_arc() -> None:
    turns = []
    for path in paths(moves=True, count=200):
        turns.append(abs(float(path[-1].info["turn"])))
        if turns[-1] == 0:
            assert all(np.array_equal(camera.world_from_camera, path[0].world_from_camera) for camera in path)
        else:
            assert 5 <= turns[-1] <= 30
    assert 0.4 < np.mean(np.array(turns) == 0) < 0.6


def rooms(count: int = 120, inside: np.ndarray = ROOM) -> list[list[Camera]]:
    out = []
    for k in range(count):
        start = room_camera(generator(0, "r", k, "camera"), SETTINGS, inside)
        out.append(room_path(generator(0, "r", k, "path"), start, SETTINGS, inside))
    return out


def test_a_room_is_seen_along_four_kinds_of_path_at_one_height_and_pitch() -> None:
    seen = set()
    for path in rooms():
        assert len(path) == 9
        seen.add(path[0].info["move"])
        for camera in path:
            assert camera.eye[1] == pytest.approx(path[0].eye[1], abs=1e-12)
            assert pitch_of(camera) == pytest.approx(pitch_of(path[0]), abs=1e-9)
            rotation = camera.world_from_camera[:3, :3]
            np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
            gaze = rotation[:, 2]
            assert np.degrees(np.arctan2(gaze[0], gaze[2])) == pytest.approx(camera.info["yaw"])
            assert camera.K is path[0].K
    assert seen == set(ROOM_MOVES)


def test_each_move_goes_where_it_says_and_as_far_as_it_records() -> None:
    for path in rooms():
        first, last = path[0], path[-1]
        way, along = last.eye - first.eye, float(last.info["along"])
        gaze = first.world_from_camera[:3, 2] * [1, 0, 1]
        gaze = gaze / np.linalg.norm(gaze)
        turn = (last.info["yaw"] - first.info["yaw"] + 180.0) % 360.0 - 180.0
        if first.info["move"] == "dolly":
            np.testing.assert_allclose(way, along * gaze, atol=1e-12)
            assert turn == pytest.approx(0.0, abs=1e-9)
        elif first.info["move"] == "strafe":
            assert np.linalg.norm(way) == pytest.approx(abs(along))
            assert way @ gaze == pytest.approx(0.0, abs=1e-12)
            assert turn == pytest.approx(0.0, abs=1e-9)
        elif first.info["move"] == "orbit":
            radius = abs(along) / abs(np.radians(turn))
            assert 1.5 <= radius <= 3.0
            assert np.linalg.norm(way) == pytest.approx(2 * radius * np.sin(abs(np.radians(turn)) / 2))
            goal = first.eye + radius * gaze
            np.testing.assert_allclose(first.project(goal), last.project(goal), atol=1e-6)
        else:
            np.testing.assert_array_equal(way, 0)
            assert turn == pytest.approx(along)
            assert 10 <= abs(along) <= 30
        if first.info["move"] != "pan":
            assert 0.3 <= abs(along) <= 1.5
        np.testing.assert_allclose([camera.info["along"] for camera in path], np.linspace(0, along, 9), atol=1e-12)


def test_paths_are_shorter_in_small_rooms() -> None:
    small_room = np.array([[0.0, 0.0, 0.0], [2.4, 2.5, 4.0]])
    lengths = [abs(path[-1].info["along"]) for path in rooms(inside=small_room) if path[0].info["move"] != "pan"]
    assert max(lengths) <= 0.8
    assert max(lengths) > 0.7


def test_a_path_of_one_frame_is_its_camera() -> None:
    one = small(regime="dynamic", frames=1)
    start = object_camera(generator(0, "a"), one, Extent.of(box().vertices))
    (only,) = object_path(generator(0, "p"), start, np.zeros(3), one, False)
    np.testing.assert_allclose(only.world_from_camera, start.world_from_camera, atol=1e-15)
    (only,) = room_path(generator(0, "p"), start, one, ROOM)
    np.testing.assert_allclose(only.world_from_camera, start.world_from_camera, atol=1e-15)
