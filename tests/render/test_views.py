"""`render_views` against known geometry: what it returns is where it says it is, and is the same every time."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import trimesh

import render
from render.cameras import Camera, intrinsics, look_at
from render.frames import Stage
from render.mesh import Material, Mesh, Rejected, Room
from render.views import render_views, sample_key
from shards.contract import LayeredView, Origin
from tests.render.shapes import box, camera_along_z, layers_of, mesh_of, origin, quads, small, sphere, texture


def views_of(mesh: Mesh, **changes: object) -> list[LayeredView]:
    rendered = render_views(mesh, origin("asset"), small(**changes))
    assert rendered.rejected == []
    assert all(isinstance(view, LayeredView) for view in rendered.samples)
    return rendered.samples  # type: ignore[return-value]


def world_points(view: LayeredView) -> np.ndarray:
    """True hits (N,3) in the frame of the normalised asset."""
    pose = view.world_from_camera
    return view.xyz().astype(np.float64)[view.hit] @ pose[:3, :3].T + pose[:3, 3]


def test_a_sphere_has_the_depths_of_the_sphere():
    for view in views_of(sphere(6), views=3):
        assert view.hits.max() == 2
        points = world_points(view)
        # the facets of this icosphere lie within 2e-4 of the sphere of diameter 1
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.5, atol=2e-4)
        eye = view.world_from_camera[:3, 3]
        first = view.xyz()[0][view.valid] @ view.world_from_camera[:3, :3].T + eye
        assert (np.sum(first * (eye - first), axis=1) > -0.02).all()  # layer 0 is the side that faces the camera


def test_every_hit_of_a_box_lies_on_the_box_and_hits_come_in_pairs():
    extents = np.array([1.0, 0.6, 0.8])
    for view in views_of(box((5.0, 3.0, 4.0)), views=4):
        points = world_points(view)
        np.testing.assert_allclose(np.abs(points / (extents / 2)).max(axis=1), 1.0, atol=2e-5)
        assert set(np.unique(view.hits)) == {0, 2}
        assert view.info["normalisation"]["scale"] == pytest.approx(0.2)


def test_layers_of_a_real_shape_lie_on_its_surface():
    shape = trimesh.creation.torus(1.0, 0.35, major_sections=24, minor_sections=12)
    shape.apply_translation([3.0, -2.0, 7.0])
    view = views_of(mesh_of(shape), height=40, width=52)[0]
    n = view.info["normalisation"]
    back = world_points(view) / n["scale"] + n["offset"]  # x_normalised = (x_asset - offset) * scale
    nearest = np.full(len(back), np.inf)
    for triangle in shape.triangles:
        closest = trimesh.triangles.closest_point(np.broadcast_to(triangle, (len(back), 3, 3)), back)
        nearest = np.minimum(nearest, np.linalg.norm(closest - back, axis=1))
    assert nearest.max() < 1e-5
    assert view.size == (40, 52)


def test_filled_layers_repeat_the_last_hit():
    view = views_of(sphere(3), layers=4)[0]
    np.testing.assert_array_equal(view.depth[2], view.depth[1])
    np.testing.assert_array_equal(view.depth[3], view.depth[1])
    assert not view.depth[:, ~view.valid].any()


def test_the_same_bytes_twice_and_whatever_else_is_rendered():
    mesh = box(material=Material(base_color=(0.3, 0.5, 0.7, 1.0)))
    four, eight = views_of(mesh, views=4), views_of(mesh, views=8)
    again = views_of(mesh, views=4)
    for a, b, c in zip(four, eight, again):
        for other in (b, c):
            assert a.key == other.key
            assert json.dumps(a.info) == json.dumps(other.info)
            for name in ("rgba", "hits", "depth", "K", "world_from_camera"):
                assert getattr(a, name).tobytes() == getattr(other, name).tobytes()
    assert len({view.rgba.tobytes() for view in eight}) == 8
    assert views_of(mesh, seed=1)[0].rgba.tobytes() != four[0].rgba.tobytes()


def test_keys_are_slugs_with_hash_and_view():
    made = Origin("A Chair/No.7 (final).glb", "test", "0123456789abcdef" * 4)
    assert re.fullmatch("a-chair-no-7-final-glb-[0-9a-f]{12}-v003", sample_key(made, "v", 3))
    assert sample_key(made, "v", 3) == sample_key(replace(made, licence="CC0-1.0"), "v", 3)
    assert re.fullmatch("asset-[0-9a-f]{12}-c000", sample_key(Origin("日本", "test", "ff" * 32), "c", 0))
    others = [replace(made, uid="a chair/no.7 (final).glb"), replace(made, source="x"), replace(made, sha256="0" * 64)]
    assert len({sample_key(each, "v", 3) for each in [made, *others]}) == 4
    assert len(sample_key(Origin("x" * 500, "test", "ff" * 32), "v", 1234)) <= 80


def test_info_is_json_and_says_how_the_view_was_made():
    info = views_of(box())[0].info
    assert json.loads(json.dumps(info)) == info
    for name in (
        "view",
        "seed",
        "camera",
        "light",
        "exposure",
        "normalisation",
        "flags",
        "overflow",
        "backend",
        "slots",
    ):
        assert name in info
    assert info["backend"] == "cpu"


HALF = np.full((16, 16, 4), 255, np.uint8)
HALF[:, :8, 3] = 0  # the left half is cut out


def test_a_mask_cuts_every_layer():
    cut = Material(base_color_texture=texture(HALF), alpha_mode="MASK")
    mesh = quads([0.0, 0.5, 1.0], (cut, cut, Material()), size=1.0)
    layers = layers_of(Stage(mesh, small(), {}), camera_along_z(40, 2.0, 60.0))
    v, u = np.mgrid[:40, :40] + 0.5
    f = 20 / np.tan(np.radians(30))
    x, y = (u - 20) / f, (v - 20) / f
    expected = sum(
        ((np.abs(x) * z < 1) & (np.abs(y) * z < 1) & ((x > 0) | solid)).astype(int)
        for z, solid in ((2.0, False), (2.5, False), (3.0, True))
    )
    np.testing.assert_array_equal(layers.hits, expected)
    assert {0, 1, 3} <= set(np.unique(layers.hits))


def test_opaque_ignores_alpha_and_blend_is_geometry_from_half_on():
    clear = np.full((4, 4, 4), 255, np.uint8)
    clear[..., 3] = 0
    opaque = Material(base_color_texture=texture(clear), alpha_mode="OPAQUE")
    thick = Material(base_color=(1.0, 1.0, 1.0, 0.51), alpha_mode="BLEND")
    faint = Material(base_color=(1.0, 1.0, 1.0, 0.49), alpha_mode="BLEND")
    mesh = quads([0.0, 0.5, 1.0], (faint, thick, opaque), size=3.0)
    layers = layers_of(Stage(mesh, small(), {}), camera_along_z())
    assert (layers.hits == 2).all()
    np.testing.assert_allclose(layers.depth[:2, 16, 16], [2.5, 3.0], rtol=1e-6)


def mixture() -> Mesh:
    """Boxes, cut-out panes and glass of every strength, at random."""
    rng = np.random.default_rng(2)
    glass = [Material(base_color=(0.6, 0.7, 0.8, a), alpha_mode="BLEND") for a in (0.2, 0.4, 0.45, 0.6)]
    cut = Material(base_color_texture=texture(rng.integers(0, 256, (8, 8, 4))), alpha_mode="MASK")
    materials = (Material(), cut, *glass)
    panes = quads(np.linspace(0, 1, 12).tolist(), tuple(materials[k % 6] for k in range(12)), size=0.5)
    vertices = panes.vertices.reshape(12, 4, 3) * rng.uniform(0.3, 1, (12, 1, 1)) + rng.uniform(-0.4, 0.4, (12, 1, 3))
    return Mesh(vertices.reshape(-1, 3), panes.faces, panes.material, panes.materials, uv=panes.uv)


@pytest.mark.parametrize("mesh", [mixture(), box(), sphere(3)], ids=["mixture", "box", "sphere"])
def test_alpha_equals_hard_validity_at_one_sample_a_pixel(mesh):
    for view in views_of(mesh, views=4, samples=1, min_coverage=0.0):
        np.testing.assert_array_equal(view.rgba[..., 3] > 127, view.valid)
        assert view.info["measures"]["alpha_iou"] == 1.0


def test_alpha_agrees_with_hard_validity_at_two_by_two():
    for view in views_of(sphere(5), views=4, height=160, width=160):
        shown = view.rgba[..., 3] > 127
        assert (shown & view.valid).sum() >= 0.99 * (shown | view.valid).sum()


def test_alpha_equals_hard_validity_where_things_are_thinner_than_a_pixel():
    rods = [trimesh.creation.box((0.004, 1.0, 0.004)).apply_translation([x, 0, 0]) for x in np.linspace(-0.5, 0.5, 40)]
    for view in views_of(mesh_of(trimesh.util.concatenate(rods)), views=4, min_coverage=0.0):
        assert view.valid.any()
        np.testing.assert_array_equal(view.rgba[..., 3] > 127, view.valid)
        assert view.rgba[view.valid][:, :3].max(axis=1).min() > 0  # every pixel has a colour
        assert view.info["measures"]["contradictions"] > 0  # which the samples alone would not have given


def test_coincident_faces_are_one_surface_and_shells_keep_both_sides():
    once = box()
    twice = Mesh(
        np.vstack([once.vertices, once.vertices + 1e-6]), np.vstack([once.faces, once.faces + 8]),
        np.zeros(24, np.int32), once.materials,
    )  # fmt: skip
    for view in views_of(twice, views=3):
        interior = view.hits[view.hits > 0]
        assert (interior == 2).mean() > 0.97  # but for slivers at the silhouette, where the copy sticks out
    shell = box((1.0, 1e-6, 1.0))
    stage = Stage(shell, small(), {})
    camera = Camera(intrinsics(40.0, 32, 32), look_at(np.array([0.0, 2, 0.3]), np.zeros(3)), 32, 32, {})
    assert (layers_of(stage, camera).hits[16, 16]) == 2


def test_surfaces_closer_than_four_errors_of_the_stored_depths_are_one():
    # panes 1.4 wide, so that 1e-4 of the diagonal is less than 4 times the error of a depth of 2
    camera = camera_along_z(distance=2.0)
    for gap, expected in ((3e-4, 1), (6e-4, 2)):
        mesh = quads([0.0, gap], (Material(), Material()), size=0.7)
        stage = Stage(mesh, small(), {})
        assert stage.tolerance < 3e-4
        assert layers_of(stage, camera).hits[16, 16] == expected


def test_overflow_is_counted_and_more_slots_are_peeled_before_it_is():
    # panes all but one of which are cut away: the last, and only, surface is beyond the first slots
    clear = Material(base_color=(1.0, 1.0, 1.0, 0.0), alpha_mode="MASK")
    mesh = quads(np.linspace(0, 1, 30).tolist() + [1.5], (*[clear] * 30, Material()), size=3.0)
    enough = layers_of(Stage(mesh, small(layers=2, slots_limit=32), {}), camera_along_z())
    assert enough.overflow == 0
    assert (enough.hits == 1).all()
    assert enough.slots == 32
    short = layers_of(Stage(mesh, small(layers=2, slots_limit=16), {}), camera_along_z())
    assert short.overflow == 32 * 32
    assert not short.hits.any()


def test_more_surfaces_than_layers_is_not_overflow():
    mesh = quads(np.linspace(0, 1, 9).tolist(), tuple([Material()] * 9), size=3.0)
    layers = layers_of(Stage(mesh, small(layers=6), {}), camera_along_z())
    assert layers.overflow == 0
    assert (layers.hits == 6).all()


ROOM = np.array([[-2.5, 0.0, -2.0], [2.5, 2.6, 2.0]])


def room(furniture: np.ndarray | None = None) -> Mesh:
    walls = trimesh.creation.box(extents=ROOM[1] - ROOM[0])
    walls.apply_translation(ROOM.mean(axis=0))
    walls.invert()
    mesh = mesh_of(walls, Material(base_color=(0.8, 0.7, 0.6, 1.0)))
    boxes = np.zeros((0, 2, 3)) if furniture is None else furniture
    return Mesh(mesh.vertices, mesh.faces, mesh.material, mesh.materials, room=Room(ROOM, boxes))


def test_a_room_stays_in_metres_and_is_seen_from_a_person_s_height():
    views = views_of(room(), regime="scene", views=4)
    for view in views:
        eye = view.world_from_camera[:3, 3]
        assert 1.4 <= eye[1] <= 1.8
        assert view.info["normalisation"] == {"scale": 1.0, "offset": [0.0, 0.0, 0.0]}
        assert (view.hits == 1).all()
        points = world_points(view)
        on_wall = np.minimum(np.abs(points - ROOM[0]), np.abs(points - ROOM[1])).min(axis=1)
        assert on_wall.max() < 1e-5
        assert view.depth[0].min() >= 0.5
        assert 0.15 < view.rgba[..., :3].mean() / 255 < 0.95


def test_a_room_full_of_furniture_gives_a_typed_rejection():
    full = np.array([[[-3.0, 0.0, -3.0], [3.0, 3.0, 3.0]]])
    rendered = render_views(room(full), origin("room"), small(regime="scene", views=2, scene_tries=5))
    assert rendered.samples == []
    assert [(view, reason) for view, reason, _ in rendered.rejected] == [
        (0, "camera_placement"),
        (1, "camera_placement"),
    ]
    assert "inside_furniture" in rendered.rejected[0][2]


def test_a_view_with_too_few_pixels_is_rejected_with_its_count():
    rendered = render_views(sphere(2), origin("ball"), small(min_coverage=1.0))
    assert rendered.samples == []
    view, reason, message = rendered.rejected[0]
    assert (view, reason) == (0, "too_few_pixels")
    assert "4096" in message


def test_a_mesh_without_extent_is_the_asset_s_rejection():
    mesh = Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]], np.int32), np.zeros(1, np.int32), (Material(),))
    with pytest.raises(Rejected, match="zero_extent"):
        render_views(mesh, origin("point"), small())


def test_seconds_are_told_by_stage():
    seconds = render_views(box(), origin("box"), small()).seconds
    assert {"normalise", "prepare", "peel", "shade"} <= set(seconds)
    assert all(value >= 0 for value in seconds.values())


def test_the_front_door_has_what_it_promises():
    for name in render.__all__:
        assert getattr(render, name) is not None
