"""Where one can stand in interiors without a description: rooms of known plan, and the scenes among the assets."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from render.cameras import Camera, room_camera, room_faults, storey
from render.floors import HEADROOM, common_levels, plan_camera, standing_room
from render.load import load
from render.mesh import Mesh, Rejected
from render.paths import room_path
from render.peel import Scene
from render.procedural import make
from shards.randomness import generator
from tests.render.shapes import mesh_of, small
from tests.render.test_load import ASSETS, manifest, needs_assets

NONE = np.zeros((0, 2, 3))


def block(low: tuple[float, float, float], high: tuple[float, float, float]) -> trimesh.Trimesh:
    """A solid with its faces outwards."""
    return trimesh.creation.box(bounds=[low, high])


def house(*solids: trimesh.Trimesh) -> Mesh:
    return mesh_of(trimesh.util.concatenate(list(solids)))


def room(x: float = 0.0, y: float = 0.0, roof: bool = True) -> list[trimesh.Trimesh]:
    """A room of 6 x 4 m and 2.5 m high from (x, y, 0) on, with floor, walls and roof 0.2 m thick."""
    walls = [
        block((x - 0.2, y, -0.2), (x, y + 2.5, 4.2)),
        block((x + 6, y, -0.2), (x + 6.2, y + 2.5, 4.2)),
        block((x, y, -0.2), (x + 6, y + 2.5, 0)),
        block((x, y, 4), (x + 6, y + 2.5, 4.2)),
    ]
    slabs = [block((x - 0.2, y - 0.2, -0.2), (x + 6.2, y, 4.2))]
    if roof:
        slabs.append(block((x - 0.2, y + 2.5, -0.2), (x + 6.2, y + 2.7, 4.2)))
    return walls + slabs


def around(stands: np.ndarray) -> np.ndarray:
    return np.stack([stands[:, 0].min(axis=0), stands[:, 1].max(axis=0)])


def test_the_plan_sees_the_whole_box_from_straight_above() -> None:
    low, high = np.array([-3.0, 0.0, 1.0]), np.array([5.0, 2.0, 3.0])
    plan = plan_camera(low, high)
    assert (plan.height, plan.width) == (16, 64)
    corners = np.array([[x, 2.0, z] for x in (-3.0, 5.0) for z in (1.0, 3.0)])
    np.testing.assert_allclose(plan.project(corners), [[0, 0], [0, 16], [64, 0], [64, 16]], atol=1e-9)
    down = plan.project(corners - [0, 2, 0])
    np.testing.assert_allclose(down, plan.project(corners), atol=0.1)


def test_a_room_is_found_inside_its_walls_and_under_its_roof() -> None:
    stands = standing_room(house(*room()))
    cell = 6.4 / 64
    np.testing.assert_allclose(around(stands), [[0, 0, 0], [6, 2.5, 4]], atol=cell)
    area = np.prod((stands[:, 1] - stands[:, 0])[:, [0, 2]], axis=1).sum()
    assert area == pytest.approx(24.0, rel=0.03)
    np.testing.assert_allclose(stands[:, 0, 1], 0.0, atol=1e-3)
    np.testing.assert_allclose(stands[:, 1, 1], 2.5, atol=1e-3)


def test_without_a_roof_the_floor_is_found_and_not_the_walls_nor_the_table() -> None:
    table = block((2.0, 0.0, 1.0), (4.0, 0.8, 3.0))
    stands = standing_room(house(*room(roof=False), table))
    np.testing.assert_allclose(stands[:, 0, 1], 0.0, atol=1e-3)
    assert np.prod((stands[:, 1] - stands[:, 0])[:, [0, 2]], axis=1).sum() == pytest.approx(20.0, rel=0.04)
    over_table = np.array([3.0, 1.6, 2.0])
    assert not np.any(np.all((over_table >= stands[:, 0]) & (over_table <= stands[:, 1]), axis=1))


def test_under_the_open_sky_only_the_lowest_level_is_a_floor() -> None:
    annex = block((6.2, 0.0, 0.0), (10.2, 2.5, 4.0))  # a solid whose top is as large as a room
    stands = standing_room(house(*room(roof=False), annex))
    np.testing.assert_allclose(stands[:, 0, 1], 0.0, atol=2e-3)
    assert stands[:, 1, 0].max() < 6.2


def test_beside_and_inside_of_walls_and_over_a_roof_nobody_stands() -> None:
    field = block((20.0, -0.2, 0.0), (20.1, 0.0, 0.1))  # makes the bounding box three times as wide as the house
    stands = standing_room(house(*room(), field))
    for eye in ([-2.0, 1.6, 2.0], [12.0, 1.6, 2.0], [-0.1, 1.6, 2.0], [3.0, 4.3, 2.0]):
        assert not np.any(np.all((eye >= stands[:, 0]) & (eye <= stands[:, 1]), axis=1)), eye


def test_two_storeys_are_told_apart() -> None:
    stands = standing_room(house(*room(), *room(y=2.7)))
    floors = np.unique(stands[:, 0, 1].round(2))
    np.testing.assert_allclose(floors, [0.0, 2.7], atol=0.01)
    np.testing.assert_allclose(storey(np.array([3.0, 1.6, 2.0]), stands)[:, 1], [0.0, 2.5], atol=1e-3)
    np.testing.assert_allclose(storey(np.array([3.0, 4.3, 2.0]), stands)[:, 1], [2.7, 5.2], atol=1e-3)
    assert storey(np.array([50.0, 0.0, 0.0]), stands)[:, 1] == pytest.approx([0.0, 5.2], abs=1e-3)


@pytest.mark.parametrize("high", [(1.5, 8.0, 1.5), (9.0, 3.0, 0.2)])
def test_a_solid_with_a_small_top_has_no_floor(high: tuple[float, float, float]) -> None:
    with pytest.raises(Rejected, match="camera_placement: no floor of 4 m2"):
        standing_room(house(block((0.0, 0.0, 0.0), high)))


@pytest.mark.parametrize(("gap", "floor"), [(HEADROOM - 0.01, 6.0), (HEADROOM + 0.01, 0.0)])
def test_a_floor_needs_headroom(gap: float, floor: float) -> None:
    stands = standing_room(house(block((0, -0.2, 0), (6, 0, 4)), block((0, gap, 0), (6, 6, 4))))
    np.testing.assert_allclose(stands[:, 0, 1], floor, atol=2e-3)  # else one can only stand on top of the upper block


def test_a_level_needs_its_share_of_the_area() -> None:
    def cells(count: int, floor: float) -> np.ndarray:
        boxes = np.zeros((count, 2, 3))
        boxes[:, 0, 1], boxes[:, 1] = floor, [0.5, floor + 2.0, 0.5]
        return boxes

    boxes = np.concatenate([cells(100, 0.0), cells(26, 3.0), cells(24, 6.0)])
    assert common_levels(boxes).tolist() == [True] * 126 + [False] * 24
    assert not common_levels(cells(15, 0.0)).any()  # 3.75 square metres
    assert common_levels(cells(16, 0.0)).all()


def test_procedural_rooms_are_found_without_their_description() -> None:
    for index in range(3):
        mesh = make("rooms", 0, index)
        assert mesh.room is not None
        found = around(standing_room(replace(mesh, room=None)))
        np.testing.assert_allclose(found[:, 1], mesh.room.inside[:, 1], atol=0.25)
        assert np.all(found[0, [0, 2]] < mesh.room.inside[0, [0, 2]] + 0.5)
        assert np.all(found[1, [0, 2]] > mesh.room.inside[1, [0, 2]] - 0.5)


def accepted(mesh: Mesh, stands: np.ndarray, count: int) -> list[list[Camera]]:
    """Paths of which every camera stands, of `count` candidates."""
    scene, settings = Scene(mesh.vertices, mesh.faces, "cpu"), small(regime="scene", frames=4)
    kept = []
    for k in range(count):
        start = room_camera(generator(0, "f", k), settings, stands)
        path = room_path(generator(0, "p", k), start, settings, stands)
        faults = []
        for camera in path:
            inverse = np.linalg.inv(camera.world_from_camera)
            inverse[3] = [0, 0, 0, 1]
            seen = scene.peel(camera.K, 64, 64, 1, 1e-3, inverse).numpy().depth[0]
            faults += room_faults(camera, seen, stands, NONE, settings)
        if not faults:
            kept.append(path)
    return kept


def test_cameras_stay_over_the_floor_along_their_whole_path() -> None:
    stands = standing_room(house(*room()))
    kept = accepted(house(*room()), stands, 30)
    assert kept
    for path in kept:
        for camera in path:
            assert 1.4 - 1e-3 <= camera.eye[1] <= 1.8 + 1e-3
            assert np.all((camera.eye[[0, 2]] > 0) & (camera.eye[[0, 2]] < [6, 4]))


@needs_assets
@pytest.mark.parametrize("name", ["dream_apartment", "godot_living_room", "godot_room_occlusion", "home_theater"])
def test_cameras_of_real_scenes_have_a_floor_below_and_see_the_fronts_of_things(name: str) -> None:
    (row,) = [r for r in manifest() if r["name"] == name]
    mesh = load(ASSETS / row["path"])
    scene = Scene(mesh.vertices, mesh.faces, "cpu")
    kept = accepted(mesh, standing_room(mesh), 40)
    assert kept
    for path in kept:
        for camera in path:
            down = np.eye(4)
            down[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
            down[:3, 3] = -down[:3, :3] @ camera.eye
            K = np.array([[100.0, 0, 0.5], [0, 100.0, 0.5], [0, 0, 1]])
            below = scene.peel(K, 1, 1, 1, 1e-3, down).numpy()
            assert below.facing[0, 0, 0] == 1
            assert below.depth[0, 0, 0] <= 1.9
            inverse = np.linalg.inv(camera.world_from_camera)
            inverse[3] = [0, 0, 0, 1]
            facing = scene.peel(camera.K, 64, 64, 1, 1e-3, inverse).numpy().facing[0]
            assert np.mean(facing[facing != 0] == 1) > 0.5


@needs_assets
def test_an_asset_that_lies_on_its_side_has_no_floor() -> None:
    (row,) = [r for r in manifest() if r["name"] == "habitat_simple_room"]  # +z up, against the format
    with pytest.raises(Rejected, match="camera_placement"):
        standing_room(load(ASSETS / row["path"]))


def test_a_room_in_millimetres_is_rejected_by_its_height() -> None:
    mesh = house(*room())
    with pytest.raises(Rejected, match="the ceiling is 2500 m above the floor: scenes are read in metres"):
        standing_room(replace(mesh, vertices=mesh.vertices * 1000.0))
