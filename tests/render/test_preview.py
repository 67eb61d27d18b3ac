"""The preview: which triangle each layer is, and a picture on which nothing is missing."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from render import procedural
from render.layer_faces import layer_faces, vertices_of
from render.mesh import Material, Mesh, Rejected
from render.preview import BACK, FRONT, facing_picture, frames_of, hits_picture, normals_picture, part_of, preview
from render.views import render_views
from shards.contract import LayeredView
from shards.sheet import BACKDROP
from tests.render.shapes import box, mesh_of, origin, quads, small, texture


def one_view(mesh: Mesh, **changes: object) -> LayeredView:
    (sample,) = render_views(mesh, origin("asset"), small(**changes)).samples
    return frames_of(sample)[-1]


def assert_on_their_triangles(mesh: Mesh, view: LayeredView) -> None:
    """Every hit of every layer lies within the triangle that it is said to be, on the side it is said to be seen from,
    and the normal is that of the triangle, turned to the viewer."""
    faces = layer_faces(mesh, view, 1e-3)
    hit = view.hit
    assert ((faces.triangle >= 0) == hit).all()
    assert ((faces.facing != 0) == hit).all()
    assert (faces.normal[~hit] == 0).all()
    pose = view.world_from_camera
    vertices = (vertices_of(mesh, view) - pose[:3, 3]) @ pose[:3, :3]
    corners = vertices[mesh.faces[faces.triangle[hit]]]
    points = view.xyz().astype(np.float64)[hit]
    normal = faces.normal[hit].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1.0, atol=1e-6)
    for k in range(3):
        edge = corners[:, (k + 1) % 3] - corners[:, k]
        np.testing.assert_allclose((edge * normal).sum(axis=1) / np.linalg.norm(edge, axis=1), 0.0, atol=1e-5)
    assert ((normal * points).sum(axis=1) < 1e-6).all()  # towards the viewer
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.sign((outward * -points).sum(axis=1)) == faces.facing[hit]).all()
    # in the plane, and within the edges by barycentric coordinates
    weights = trimesh.triangles.points_to_barycentric(corners, points)
    again = (weights[..., None] * corners).sum(axis=1)
    np.testing.assert_allclose(again, points, atol=2e-5)
    assert weights.min() > -1e-3


def test_layers_of_a_box_alternate_and_have_the_normals_of_its_sides():
    mesh = box()
    view = one_view(mesh)
    assert_on_their_triangles(mesh, view)
    faces = layer_faces(mesh, view, 1e-3)
    assert set(np.unique(faces.facing[0][view.valid])) == {1}
    assert set(np.unique(faces.facing[1][view.valid])) == {-1}
    world = faces.normal[view.hit] @ view.world_from_camera[:3, :3].T
    # exactly a side of the box at every pixel, those at its edges and outline too
    np.testing.assert_allclose(np.sort(np.abs(world), axis=1), np.broadcast_to([0, 0, 1], world.shape), atol=1e-6)


@pytest.mark.parametrize("kind", ["objects", "rooms", "actors"])
def test_layers_of_procedural_assets_lie_on_their_triangles(kind: str):
    mesh = procedural.make(kind, 0, 2)
    regime = {"objects": "object", "rooms": "scene", "actors": "dynamic"}[kind]
    view = one_view(mesh, regime=regime, frames=3)
    if kind == "actors":
        assert view.info["time"] > 0  # another pose than that of the mesh
    assert_on_their_triangles(mesh, view)


def test_what_alpha_cut_away_is_no_layer():
    hole = np.full((8, 8, 4), 255, np.uint8)
    hole[:, 4:, 3] = 0
    cut = Material(base_color_texture=texture(hole), alpha_mode="MASK")
    mesh = quads([0.0, 0.5, 1.0], (cut, Material(), Material()))
    view = one_view(mesh)
    first = layer_faces(mesh, view, 1e-3).triangle[0][view.valid] // 2
    assert set(np.unique(first)) >= {0, 1}  # the first square where it is whole, the second through its hole
    assert_on_their_triangles(mesh, view)


def test_two_sides_at_one_depth_are_two_layers():
    sheet = quads([0.0], (Material(),))
    faces = np.concatenate([sheet.faces, sheet.faces[:, ::-1]])
    mesh = replace(sheet, faces=faces, material=np.zeros(4, np.int32))
    view = one_view(mesh)
    assert (view.hits[view.valid] == 2).all()
    found = layer_faces(mesh, view, 1e-3)
    np.testing.assert_array_equal(found.facing[0], -found.facing[1])
    assert (found.triangle[0] != found.triangle[1])[view.valid].all()


def test_colours():
    assert facing_picture(np.array([[1, -1, 0]], np.int8)).tolist() == [[[*FRONT], [*BACK], [*BACKDROP]]]
    axes = np.array([[[0, 0, -1], [1, 0, 0], [0, -1, 0], [0, 0, 0]]], np.float32)  # viewer, right, up, none
    assert normals_picture(axes).tolist() == [[[128, 128, 255], [255, 128, 128], [128, 255, 128], [*BACKDROP]]]
    colors = hits_picture(np.arange(7, dtype=np.uint8)[None], 6)[0]
    assert colors[0].tolist() == [*BACKDROP]
    assert len({tuple(color) for color in colors.tolist()}) == 7


def test_the_part_that_is_shown_holds_every_valid_pixel():
    valid = np.zeros((40, 60), bool)
    assert part_of(valid) == (slice(0, 40), slice(0, 60))
    valid[10, 20] = valid[15, 59] = True
    rows, columns = part_of(valid)
    assert valid[rows, columns].sum() == 2
    assert (rows.start, columns.stop) == (10 - 4, 60)
    assert rows.stop - rows.start < 20


@pytest.mark.parametrize(("regime", "images"), [("object", 3), ("dynamic", 12)])
def test_a_block_of_three_rows_for_every_image(regime: str, images: int):
    settings = small(views=3, regime=regime, frames=5, layers=4)
    page, rendered = preview(mesh_of(trimesh.creation.torus(1.0, 0.3)), settings, origin("torus"), tile=64)
    assert rendered.rejected == []
    assert page.width == 4 + 5 * (64 + 4)
    empty, _ = preview(box(), settings.model_copy(update={"views": 1, "regime": "object"}), origin("torus"), tile=64)
    block = 3 * (64 + 18 + 4) + 4 + 2 * 4
    heading = empty.height - block
    assert page.height == heading + images * block
    assert (np.asarray(page) != BACKDROP).any(axis=(1, 2))[heading:].reshape(images, block).any(axis=1).all()


def test_a_view_without_enough_pixels_is_named_and_shown():
    settings = small(views=2)
    kept, _ = preview(box(), settings, origin("box"), tile=64)
    page, rendered = preview(box(), settings.model_copy(update={"min_coverage": 0.9}), origin("box"), tile=64)
    assert [reason for _, reason, _ in rendered.rejected] == ["too_few_pixels"] * 2
    block = 3 * (64 + 18 + 4) + 4 + 2 * 4
    wanted, shown = np.asarray(kept), np.asarray(page)
    np.testing.assert_array_equal(shown[-block:], wanted[-block:])  # the second view, as if it were kept
    assert page.height > kept.height  # and a line for each that says why it is not


def test_a_view_that_cannot_be_shown_is_named():
    settings = small(regime="scene", views=1, scene_tries=1)
    cell = mesh_of(trimesh.creation.box(extents=(0.4, 0.4, 0.4)))  # no camera keeps half a metre in it
    page, rendered = preview(cell, settings, origin("cell"))
    assert [reason for _, reason, _ in rendered.rejected] == ["camera_placement"]
    red = (np.asarray(page).astype(int) @ [1, -1, 0] > 100).any(axis=1)
    assert red.any()


def test_an_asset_that_cannot_be_normalised_is_rejected():
    flat = replace(box(), vertices=np.zeros((8, 3)))
    with pytest.raises(Rejected):
        preview(flat, small(), origin("flat"))
