"""What 3D-FRONT rooms ask of a camera, each rule at its very boundary; and where the lights of a room hang."""

from dataclasses import replace

import numpy as np
import pytest

from render.cameras import Camera, direction, height_range, inside_any_box, intrinsics, look_at, pitch_of, room_faults
from render.lights import POINT, inwards, room_lights
from render.procedural import make
from render.settings import RenderSettings
from render.views import render_views
from shards.randomness import generator
from tests.render.shapes import origin, small

ROOM = np.array([[-6.0, 0.5, -4.0], [6.0, 3.2, 4.0]])  # the floor is not at 0; the diagonal asks for the full depths
NONE = np.zeros((0, 2, 3))
SETTINGS = small(regime="scene")


def camera(height: float = 1.6, pitch: float = 5.0, x: float = 0.0, z: float = 0.0) -> Camera:
    eye = np.array([x, 0.5 + height, z])
    return Camera(intrinsics(60.0, 8, 8), look_at(eye, eye + direction(30.0, -pitch)), 8, 8, {})


def depth(value: float = 3.0) -> np.ndarray:
    return np.full((8, 8), value, np.float32)


def faults(
    here: Camera, seen: np.ndarray, furniture: np.ndarray = NONE, settings: RenderSettings = SETTINGS
) -> list[str]:
    return room_faults(here, seen, ROOM, furniture, settings)


@pytest.mark.parametrize(("height", "wanted"), [(1.4, []), (1.8, []), (1.3999, ["height"]), (1.8001, ["height"])])
def test_the_eye_is_1_4_to_1_8_above_the_floor(height: float, wanted: list[str]) -> None:
    assert faults(camera(height), depth()) == wanted


@pytest.mark.parametrize(("pitch", "wanted"), [(0.0, []), (20.0, []), (-0.01, ["pitch"]), (20.01, ["pitch"])])
def test_the_view_is_pitched_down_by_up_to_20_degrees(pitch: float, wanted: list[str]) -> None:
    assert pitch_of(camera(pitch=pitch)) == pytest.approx(pitch, abs=1e-9)
    assert faults(camera(pitch=pitch), depth()) == wanted


def test_the_nearest_surface_is_half_a_metre_away() -> None:
    for nearest, wanted in ((0.5, []), (np.nextafter(np.float32(0.5), np.float32(0)), ["too_close"])):
        seen = depth()
        seen[3, 4] = nearest
        assert faults(camera(), seen) == wanted


@pytest.mark.parametrize(("mean", "wanted"), [(2.0, []), (7.5, []), (1.9999, ["shallow"]), (7.5001, ["deep"])])
def test_the_mean_depth_is_2_to_7_5_metres_over_the_rays_that_meet_something(mean: float, wanted: list[str]) -> None:
    assert faults(camera(), depth(mean)) == wanted
    escaped = depth(mean)
    escaped[::2, ::2] = np.inf
    assert faults(camera(), escaped) == wanted
    halves = depth(mean - 1.0)
    halves[:4] = mean + 1.0
    assert faults(camera(), halves) == wanted


def test_half_of_the_rays_must_meet_a_surface() -> None:
    seen = depth()
    seen.reshape(-1)[:32] = np.inf
    assert faults(camera(), seen) == []
    seen.reshape(-1)[32] = np.inf
    assert faults(camera(), seen) == ["open"]
    assert faults(camera(), depth(np.inf), settings=small(regime="scene", scene_valid=0.0)) == ["open"]  # of nothing


def test_the_camera_is_within_floor_ceiling_and_walls() -> None:
    assert faults(camera(x=6.0), depth()) == []
    assert faults(camera(x=6.001), depth()) == ["outside_room"]
    assert faults(camera(z=-4.001), depth()) == ["outside_room"]
    assert faults(camera(height=2.701), depth()) == ["outside_room"]
    assert faults(camera(height=2.7), depth()) == ["height"]


def test_the_camera_is_not_inside_furniture_nor_within_5_cm_of_it() -> None:
    table = np.array([[[1.0, 0.5, -1.0], [2.0, 2.5, 1.0]]])
    assert faults(camera(x=0.9499), depth(), table) == []
    assert faults(camera(x=0.9501), depth(), table) == ["inside_furniture"]
    assert faults(camera(x=1.5), depth(), table) == ["inside_furniture"]
    low = table.copy()
    low[0, 1, 1] = 2.0  # its top is 1.5 above the floor, and the eye 1.6
    assert faults(camera(x=1.5), depth(), low) == []


def test_under_a_low_ceiling_the_camera_stays_below_it() -> None:
    attic = np.array([[0.0, 0.0, 0.0], [9.0, 1.6, 9.0]])
    assert height_range((1.4, 1.8), attic) == (1.4, 1.5)
    assert height_range((1.4, 1.8), attic * [1, 0.75, 1]) == (pytest.approx(1.1), pytest.approx(1.1))
    assert height_range((1.4, 1.8), ROOM) == (1.4, 1.8)


def test_every_view_of_a_procedural_room_keeps_the_rules() -> None:
    mesh = make("rooms", 0, 3)
    assert mesh.room is not None
    settings = small(regime="scene", views=4, shadows=False, samples=1)
    rendered = render_views(mesh, origin("room"), settings)
    assert rendered.samples
    for view in rendered.samples:
        here = Camera(view.K, view.world_from_camera, 64, 64, {})
        seen = np.where(view.hits > 0, view.depth[0], np.float32(np.inf))
        assert room_faults(here, seen, mesh.room.inside, mesh.room.furniture, settings) == []


def test_lamps_hang_under_the_ceiling_and_daylight_stands_at_an_opening() -> None:
    window = np.array([[5.95, 1.4, 2.6], [6.05, 2.6, 3.9]])  # in the wall x = 6, near the corner z = 4
    counts = set()
    for view in range(60):
        lights = room_lights(generator(0, "a", view, "light"), ROOM, window[None])
        assert set(lights.kind) == {POINT}
        *lamps, day = lights.vector.astype(np.float64)
        counts.add(len(lamps))
        for lamp in lamps:
            assert lamp[1] == pytest.approx(3.2 - 0.12)
            assert np.all(np.abs(lamp[[0, 2]]) <= [3.0, 2.0])  # over the middle half of the floor
        np.testing.assert_allclose(day, [6.0 - 0.15, 2.0, 3.25], atol=1e-6)  # straight in, not along the wall
        assert lights.info()["lights"][-1] == {
            "kind": "point",
            "vector": [pytest.approx(x, abs=1e-5) for x in day],
            "color": [pytest.approx(float(c), abs=1e-4) for c in lights.color[-1]],
        }
    assert counts == {1, 2}
    assert len(room_lights(generator(0, "a", 0, "light"), ROOM, NONE).kind) in (1, 2)  # no opening, no daylight


def test_inwards_is_the_normal_of_the_wall_on_the_side_of_the_room() -> None:
    for wall, normal in (
        ([[5.9, 1, 0], [6.1, 2, 1]], [-1, 0, 0]),
        ([[-6.1, 1, 0], [-5.9, 2, 1]], [1, 0, 0]),
        ([[0, 1, 3.9], [1, 2, 4.1]], [0, 0, -1]),
        ([[0, 1, -4], [1, 2, -4]], [0, 0, 1]),  # without a thickness
    ):
        np.testing.assert_array_equal(inwards(np.array(wall, np.float64), ROOM), normal)


def test_no_lamp_is_shut_in_by_furniture() -> None:
    wardrobe = np.array([[[-3.0, 0.5, -2.0], [2.0, 3.2, 2.0]]])  # up to the ceiling, over most of where lamps may hang
    for view in range(30):
        lamps = room_lights(generator(1, "a", view, "light"), ROOM, NONE, wardrobe).vector
        assert not any(inside_any_box(lamp.astype(np.float64), wardrobe, 0.0) for lamp in lamps)


def test_all_of_a_room_that_no_camera_fits_is_rejected_with_its_rule() -> None:
    mesh = make("rooms", 0, 3)
    rendered = render_views(mesh, origin("room"), small(regime="scene", scene_nearest=50.0, scene_tries=3))
    assert [reason for _, reason, _ in rendered.rejected] == ["camera_placement"]
    assert "too_close" in rendered.rejected[0][2]
    assert mesh.room is not None
    closed = replace(mesh, room=replace(mesh.room, furniture=mesh.room.inside[None]))
    rendered = render_views(closed, origin("room"), small(regime="scene", scene_tries=3))
    assert "inside_furniture" in rendered.rejected[0][2]
