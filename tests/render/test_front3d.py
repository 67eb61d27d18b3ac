"""Rooms of 3D-FRONT: where things stand, what is seen of them, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from render import Mesh, Rejected, render_views
from render.cameras import intrinsics, look_at, room_camera, room_faults
from render.front3d import read_house, rotation_of
from render.front3d_room import build_room
from render.limits import DEFAULT, Limits
from render.peel import Scene
from tests.cluster.houses import HALF, QUARTER_TURN, House, child, house, model_files
from tests.render.shapes import origin, small

BAD = Path(__file__).parents[2].parent / "shared" / "assets" / "bad"


def built(made: House, tmp_path: Path, number: int = 0, limits: Limits = DEFAULT) -> Mesh:
    """Room `number` of a generated house, its files under `tmp_path`."""
    made.write(tmp_path)

    def model(jid: str) -> Path | None:
        path = tmp_path / "3D-FUTURE-model" / jid / "raw_model.obj"
        return path if path.exists() else None

    parsed = read_house(json.dumps(made.json).encode(), limits)
    return build_room(parsed, number, model, made.textures.get, limits)


def depths(mesh: Mesh, eye: tuple[float, float, float], towards: tuple[float, float, float]) -> list[float]:
    """The depths of all surfaces on the ray from `eye` through `towards`: the middle pixel of a small image."""
    pose = look_at(np.array(eye), np.array(towards))
    inverse = np.linalg.inv(pose)
    hits = Scene(mesh.vertices, mesh.faces, "cpu").peel(intrinsics(10.0, 3, 3), 3, 3, 16, 1e-3, inverse).numpy()
    column = hits.depth[:, 1, 1]
    return [float(z) for z in column[np.isfinite(column)]]


def test_a_quaternion_is_read_as_x_y_z_w() -> None:
    np.testing.assert_allclose(rotation_of(np.array(QUARTER_TURN)) @ [0, 0, 1], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rotation_of(np.array(QUARTER_TURN)) @ [1, 0, 0], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(rotation_of(np.array([0, 0, 0, 1.0])), np.eye(3), atol=0)
    tilted = np.array([HALF, 0.0, 0.0, HALF]) * 1.02  # stored with few digits, a quaternion is a little long
    np.testing.assert_allclose(rotation_of(tilted) @ [0, 1, 0], [0, 0, 1], atol=1e-12)


def test_a_corner_of_a_turned_and_scaled_piece_is_where_the_toolbox_puts_it(tmp_path: Path) -> None:
    mesh = built(house(), tmp_path)
    # The model's corner (0.25, 0.9, 0.5), scaled by (1, 1, 2), turned by 90 degrees about +y, moved to (2, 0, 1.5):
    # (z, y, -x) + position. Read as w, x, y, z the quaternion would tip the piece over, to y = -0.9.
    expected = np.array([2 + 1.0, 0.9, 1.5 - 0.25])
    assert np.abs(mesh.vertices - expected).max(axis=1).min() < 1e-12
    assert mesh.vertices[:, 1].min() >= -1e-12
    assert mesh.room is not None
    np.testing.assert_allclose(mesh.room.furniture[0], [[1.4, 0, 1.25], [3.0, 0.9, 1.75]], atol=1e-12)
    np.testing.assert_allclose(mesh.room.furniture[1], [[3.15, 0, 0.3], [3.65, 0.9, 1.1]], atol=1e-12)


def test_normals_turn_with_their_piece_and_against_its_scale(tmp_path: Path) -> None:
    made = house()
    slanted = b"v 0 0 0\nv 1 0 1\nv 0 1 0\nvt 0 0\nvn 0.70710678 0 -0.70710678\nusemtl a\nf 1/1/1 2/1/1 3/1/1\n"
    made.models["model-chair"]["raw_model.obj"] = slanted
    mesh = built(made, tmp_path)
    across = np.cross(
        mesh.vertices[mesh.faces[:, 1]] - mesh.vertices[mesh.faces[:, 0]],
        mesh.vertices[mesh.faces[:, 2]] - mesh.vertices[mesh.faces[:, 0]],
    )
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    assert mesh.normals is not None
    along = np.abs((mesh.normals[mesh.faces[:, 0]] * across).sum(axis=1))
    np.testing.assert_allclose(along, 1.0, atol=1e-6)


def test_a_ray_meets_the_furniture_the_walls_and_nothing_behind_them(tmp_path: Path) -> None:
    mesh = built(house(), tmp_path)
    # From z = 2.9 along -z: front and back of the turned chair, then the wall at z = 0. WallOuter is at z = -0.2.
    np.testing.assert_allclose(depths(mesh, (2.0, 0.45, 2.9), (2.0, 0.45, 0.0)), [1.15, 1.65, 2.9], atol=1e-5)
    # Straight up and down: the ceiling once, though WallTop lies in its plane; the chair, its bottom, the floor.
    assert depths(mesh, (1.0, 1.2, 2.0), (1.001, 2.8, 2.0)) == pytest.approx([1.6], abs=1e-5)
    np.testing.assert_allclose(depths(mesh, (2.6, 1.2, 1.5), (2.6, 0.0, 1.501)), [0.3, 1.2, 1.2], atol=1e-5)
    # Through the window there is nothing; beside it, the wall.
    assert depths(mesh, (2.0, 1.5, 1.4), (4.0, 1.5, 1.4)) == []
    assert depths(mesh, (2.0, 1.5, 0.5), (4.0, 1.5, 0.5)) == pytest.approx([2.0], abs=1e-5)


def test_the_room_is_described_for_cameras_and_lights(tmp_path: Path) -> None:
    room = built(house(), tmp_path).room
    assert room is not None
    np.testing.assert_allclose(room.inside, [[0, 0, 0], [4, 2.8, 3]])
    np.testing.assert_allclose(room.openings, [[[4, 1, 1], [4.2, 2, 2]], [[0.4, 0, 0], [1.3, 2.05, 0]]], atol=1e-12)
    assert len(room.furniture) == 3  # the lamp too; not what has no model


def test_only_what_belongs_to_a_room_is_in_it(tmp_path: Path) -> None:
    bounds = [
        (mesh.vertices.min(axis=0), mesh.vertices.max(axis=0))
        for mesh in (built(house(), tmp_path, n) for n in range(3))
    ]
    np.testing.assert_allclose(bounds[0], [[0, 0, 0], [4.2, 2.8, 3]], atol=1e-12)
    np.testing.assert_allclose(bounds[1], [[6, 0, 0], [10, 2.7, 4]], atol=1e-12)
    np.testing.assert_allclose(bounds[2], [[20, 0, 0], [25.2, 3, 4]], atol=1e-12)  # by `roomId`


def test_an_l_shaped_room_is_the_air_over_its_floor(tmp_path: Path) -> None:
    mesh = built(house(), tmp_path, 1)
    assert mesh.room is not None
    boxes = mesh.room.inside
    sides = boxes[:, 1] - boxes[:, 0]
    assert (sides[:, 0] * sides[:, 2]).sum() == pytest.approx(12.0)  # 2 x 4 and 2 x 2 m
    middle = boxes.mean(axis=1)
    assert not np.any((middle[:, 0] > 8) & (middle[:, 2] > 2))
    assert np.all(boxes[:, 0, 1] == 0)
    assert np.all(boxes[:, 1, 1] == 2.5)  # under the ceiling that hangs below the walls' top
    settings = small(regime="scene", height=48, width=48)
    rng = np.random.default_rng(0)
    for _ in range(50):
        eye = room_camera(rng, settings, boxes).eye
        assert not (eye[0] > 8 and eye[2] > 2)
    outside = replace(
        room_camera(rng, settings, boxes), world_from_camera=look_at(np.array([9.5, 1.6, 3.5]), np.zeros(3))
    )
    assert "outside_room" in room_faults(
        outside, np.full((4, 4), 3.0, np.float32), boxes, np.zeros((0, 2, 3)), settings
    )


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_room_is_rendered_from_inside(tmp_path: Path, number: int) -> None:
    mesh = built(house(), tmp_path, number)
    settings = small(regime="scene", views=3, height=64, width=64)
    rendered = render_views(mesh, origin(f"room {number}"), settings)
    assert len(rendered.samples) == 3, rendered.rejected
    for view in rendered.samples:
        assert (view.hits > 0).mean() > 0.5
        assert view.rgba[view.hits > 0][:, :3].mean() > 20  # the lamps are not shut in


def test_walls_and_furniture_carry_their_textures(tmp_path: Path) -> None:
    mesh = built(house(), tmp_path)
    textured = {m.name for m in mesh.materials if m.base_color_texture is not None}
    assert {"floor", "wallinner", "paint"} <= textured
    assert all(max(m.emissive) == 0 for m in mesh.materials)  # `Ke 1 1 1` of the models is a mistake
    plain = next(m for m in mesh.materials if m.name == "door")
    np.testing.assert_allclose(plain.base_color[:3], ((240 / 255 + 0.055) / 1.055) ** 2.4, rtol=1e-6)
    # The floor is 4 m along u: its texture repeats every metre, and v = 0 is its bottom row.
    place = next(k for k, m in enumerate(mesh.materials) if m.name == "floor")
    corners = np.unique(mesh.faces[mesh.material == place])
    assert mesh.uv is not None
    for vertex, uv in zip(mesh.vertices[corners], mesh.uv[corners]):
        np.testing.assert_allclose(uv, [vertex[0], 1 - (3 - vertex[2])], atol=1e-6)


@pytest.mark.parametrize(
    ("color", "base", "mode"),
    [
        ([255, 0, 0, 255], (1, 0, 0, 1), "OPAQUE"),
        ([0, 255, 0, 51], (0, 1, 0, 0.2), "BLEND"),  # glass
        ([0, 0, 255, 0], (0, 0, 1, 1), "OPAQUE"),  # a mistake
        ([0, 0, 300], (0, 0, 1, 1), "OPAQUE"),
        ([1, 2], None, "OPAQUE"),
        ([float("nan"), 0, 0, 0], None, "OPAQUE"),
        ("red", None, "OPAQUE"),
        (None, None, "OPAQUE"),
    ],
)
def test_a_colour_is_srgb_in_bytes(color: Any, base: tuple[float, ...] | None, mode: str, tmp_path: Path) -> None:
    made = house()
    next(entry for entry in made.json["material"] if entry["uid"] == "plain-living")["color"] = color
    material = next(m for m in built(made, tmp_path).materials if m.name == "door")
    grey = ((220 / 255 + 0.055) / 1.055) ** 2.4  # what the toolbox paints
    np.testing.assert_allclose(material.base_color, base or (grey, grey, grey, 1), atol=1e-6)
    assert material.alpha_mode == mode


def test_a_uv_transform_is_applied_as_the_toolbox_does(tmp_path: Path) -> None:
    made = house()
    floor = next(entry for entry in made.json["material"] if entry["uid"] == "floor-living")
    floor["UVTransform"] = [0, 2, 7, -3, 0, 7, 0, 0, 1]  # row by row; the toolbox uses the upper left 2x2 alone
    mesh = built(made, tmp_path)
    place = next(k for k, m in enumerate(mesh.materials) if m.name == "floor")
    corners = np.unique(mesh.faces[mesh.material == place])
    assert mesh.uv is not None
    for vertex, uv in zip(mesh.vertices[corners], mesh.uv[corners]):
        u, v = vertex[0], 3 - vertex[2]
        np.testing.assert_allclose(uv, [2 * v, 1 + 3 * u], atol=1e-6)


def test_a_lost_texture_costs_the_looks_and_an_unpublished_model_its_piece(tmp_path: Path) -> None:
    made = house()
    del made.textures["jid-wall-living"]
    made.textures["jid-floor-living"] = b"no image"
    del made.models["model-chair"]["model.mtl"]  # then texture.png is the colour all the same
    mesh = built(made, tmp_path)
    assert {"missing_texture", "corrupt_texture", "missing_furniture"} <= mesh.flags
    assert not {"missing_material"} & mesh.flags
    wall = next(m for m in mesh.materials if m.name == "wallinner")
    assert wall.base_color_texture is None
    assert sum(m.base_color_texture is not None for m in mesh.materials) == 2  # chair and lamp


Change = Callable[[House], Any]


def _first(made: House, kind: str) -> dict[str, Any]:
    return next(entry for entry in made.json["mesh"] if entry["type"] == kind)


def _chair(made: House) -> dict[str, Any]:
    return next(each for each in made.json["scene"]["room"][0]["children"] if each["ref"] == "f1")


BAD_ROOMS: dict[str, tuple[Change, str]] = {
    "a valid piece without its model": (lambda h: h.models.pop("model-chair"), "missing_model"),
    "a jid that climbs": (lambda h: h.json["furniture"][0].update(jid="../../etc"), "path_outside_folder"),
    "a jid that is absolute": (lambda h: h.json["furniture"][0].update(jid="/etc"), "path_outside_folder"),
    "a texture that climbs": (lambda h: h.json["material"][0].update(jid="..\\x"), "path_outside_folder"),
    "a quaternion of zeros": (lambda h: _chair(h).update(rot=[0, 0, 0, 0]), "bad_transform"),
    "a quaternion of NaN": (lambda h: _chair(h).update(rot=[0, 0, float("nan"), 1]), "bad_transform"),
    "a quaternion of three": (lambda h: _chair(h).update(rot=[0, 0, 0]), "bad_transform"),
    "a scale of zero": (lambda h: _chair(h).update(scale=[1, 0, 1]), "bad_transform"),
    "a scale of a hundred": (lambda h: _chair(h).update(scale=[100, 100, 100]), "bad_transform"),
    "a place at infinity": (lambda h: _chair(h).update(pos=[float("inf"), 0, 0]), "bad_transform"),
    "a model in centimetres": (
        lambda h: h.models.update({"model-chair": model_files(((-25, 0, -30), (25, 90, 50)))}),
        "furniture_scale",
    ),
    "a model that is no OBJ": (lambda h: h.models["model-chair"].update({"raw_model.obj": b"\0\1"}), "wrong_format"),
    "an empty model": (lambda h: h.models["model-chair"].update({"raw_model.obj": b""}), "empty_file"),
    "a model with NaN": (
        lambda h: h.models["model-chair"].update({"raw_model.obj": b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"}),
        "non_finite",
    ),
    "a wall with NaN": (lambda h: _first(h, "WallInner")["xyz"].__setitem__(4, float("nan")), "non_finite"),
    "a wall a light year away": (lambda h: _first(h, "WallInner")["xyz"].__setitem__(4, 1e16), "non_finite"),
    "a face beyond the vertices": (lambda h: _first(h, "WallInner")["faces"].__setitem__(0, 999), "index_out_of_range"),
    "a face before the vertices": (lambda h: _first(h, "WallInner")["faces"].__setitem__(0, -1), "index_out_of_range"),
    "half a vertex": (lambda h: _first(h, "WallInner")["faces"].__setitem__(0, 0.5), "corrupt"),
    "an open triangle": (lambda h: _first(h, "WallInner")["faces"].pop(), "corrupt"),
    "an open vertex": (lambda h: _first(h, "WallInner")["xyz"].pop(), "corrupt"),
    "vertices in words": (lambda h: _first(h, "WallInner").update(xyz="many"), "corrupt"),
    "vertices in lists": (lambda h: _first(h, "WallInner").update(xyz=[[0, 0, 0]] * 36), "corrupt"),
    "a mesh that is a number": (lambda h: h.json["mesh"].insert(0, 3), "corrupt"),
    "children that are none": (lambda h: h.json["scene"]["room"][0].update(children=[1, 2]), "corrupt"),
    "no floor": (lambda h: _first(h, "Floor").update(type="Ceiling"), "no_floor"),
    "a floor without area": (lambda h: _first(h, "Floor").update(xyz=[0.0] * 12), "no_floor"),
    "a floor of half a metre": (
        lambda h: _first(h, "Floor").update(xyz=[x / 8 for x in _first(h, "Floor")["xyz"]]),
        "degenerate_room",
    ),
    "a floor of 400 m": (
        lambda h: _first(h, "Floor").update(xyz=[x * 100 for x in _first(h, "Floor")["xyz"]]),
        "degenerate_room",
    ),
}


@pytest.mark.parametrize("what", BAD_ROOMS)
def test_a_bad_room_is_rejected_by_type(what: str, tmp_path: Path) -> None:
    change, reason = BAD_ROOMS[what]
    made = house()
    change(made)
    with pytest.raises(Rejected) as refused:
        built(made, tmp_path)
    assert refused.value.reason == reason, refused.value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\xff\xfe", "corrupt"),
        (b"[]", "corrupt"),
        (b"{}", "corrupt"),
        (b'{"scene": {"room": []}}', "no_rooms"),
        (b'{"scene": {"room": {}}}', "corrupt"),
        (b'{"scene": {"room": [1]}}', "corrupt"),
        (b'{"scene": 3}', "corrupt"),
        (b'{"scene": {"room": [{}]}, "mesh": {}}', "corrupt"),
        (b'{"a" 1}', "corrupt"),
        (b"[" * 100_000, "corrupt"),
    ],
)
def test_a_bad_house_is_rejected_by_type(data: bytes, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        read_house(data)
    assert refused.value.reason == reason


def test_a_house_cut_anywhere_is_rejected(tmp_path: Path) -> None:
    data = json.dumps(house().json).encode()
    reasons = set()
    for end in range(0, len(data), 211):
        with pytest.raises(Rejected) as refused:
            read_house(data[:end])
        reasons.add(refused.value.reason)
    assert reasons <= {"truncated", "corrupt"}


def test_a_house_without_shapes_tells_the_same_of_its_rooms(tmp_path: Path) -> None:
    made = house()
    tricky = '": "xyz": [1, 2], \\" "uv":[3] \\'  # looks like a list of numbers, and is a name
    made.json["mesh"][0]["uid"] = made.json["scene"]["room"][0]["children"][0]["ref"] = tricky
    for text in (json.dumps(made.json), json.dumps(made.json, indent=1), json.dumps(made.json, separators=(",", ":"))):
        whole, outline = read_house(text.encode()), read_house(text.encode(), shapes=False)
        assert whole.rooms == outline.rooms
        assert [whole.jids(k) for k in range(3)] == [outline.jids(k) for k in range(3)]
        assert outline.jids(0)[1] == ["jid-floor-living", "jid-wall-living"]  # the tricky one is the floor
        assert len(whole.parts(0)) == 5


def test_sizes_and_counts_are_bounded(tmp_path: Path) -> None:
    made = house()
    with pytest.raises(Rejected, match="file_too_large"):
        read_house(json.dumps(made.json).encode(), replace(Limits(), json_bytes=1000))
    with pytest.raises(Rejected, match="file_too_large"):
        read_house(b'{"a": [' + b"1," * 2000 + b"1]}", replace(Limits(), json_values=1000))
    with pytest.raises(Rejected, match="too_many_faces"):
        built(made, tmp_path / "a", limits=replace(Limits(), faces=63))  # it has 64, furniture counted each time
    assert len(built(made, tmp_path / "b", limits=replace(Limits(), faces=64)).faces) == 64
    with pytest.raises(Rejected, match="too_many_vertices"):
        built(made, tmp_path / "c", limits=replace(Limits(), vertices=100))
    with pytest.raises(Rejected, match="too_many_nodes"):
        built(made, tmp_path / "d", limits=replace(Limits(), nodes=5))
    # Floor and walls take 64 pixels each, which leaves none for the furniture.
    mesh = built(made, tmp_path / "e", limits=replace(Limits(), textures_pixels=128))
    assert "texture_too_large" in mesh.flags
    assert {m.name for m in mesh.materials if m.base_color_texture is not None} == {"floor", "wallinner"}


def test_a_bad_room_costs_no_other(tmp_path: Path) -> None:
    made = house()
    _first(made, "WallInner")["xyz"] = "many"
    assert built(made, tmp_path, 1).room is not None
    made.json["scene"]["room"][1]["children"].append(child("f1", rot=[0, 0, 0, 0]))
    with pytest.raises(Rejected, match="bad_transform"):
        built(made, tmp_path, 1)
    assert built(made, tmp_path, 2).room is not None


@pytest.mark.skipif(not BAD.is_dir(), reason="the shared assets are not here")
@pytest.mark.parametrize(
    ("name", "reason"), [("front3d_missing_model.json", "missing_model"), ("front3d_truncated.json", "truncated")]
)
def test_the_bad_houses_among_the_shared_assets(name: str, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        build_room(read_house((BAD / name).read_bytes()), 0, lambda jid: None, lambda jid: None)
    assert refused.value.reason == reason
