"""Each flag of a view, raised by a case made for it and by no ordinary one."""

import numpy as np
import pytest
import trimesh

from render.extent import Extent
from render.frames import Layers
from render.mesh import Material, Mesh
from render.verdicts import REJECTING, measures, mesh_flags, rejection, single_holes, view_flags
from shards.contract import forward_fill
from tests.render.shapes import box, camera_along_z, mesh_of, quads, small, sphere, texture


def view(
    hits: int = 2, gap: float = 0.5, valid: np.ndarray | None = None, overflow: int = 0
) -> tuple[Layers, np.ndarray]:
    """Layers of 32x32 pixels with `hits` surfaces at equal gaps, and an image that agrees with them."""
    shown = np.ones((32, 32), bool) if valid is None else valid
    depth = np.full((6, 32, 32), np.inf, np.float32)
    for layer in range(hits):
        depth[layer][shown] = 2.0 + gap * layer
    filled, count = forward_fill(depth)
    facing = np.where(np.arange(6)[:, None, None] < count, 1 - 2 * (np.arange(6)[:, None, None] % 2), 0).astype(np.int8)
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[shown] = [128, 128, 128, 255]
    return Layers(filled, count, facing, overflow, 10, (slice(0, 32), slice(0, 32))), rgba


def flags(
    layers: Layers,
    rgba: np.ndarray,
    distance: float = 2.0,
    indoors: bool = False,
    moved: tuple[int, int, int] = (0, 0, 0),
) -> set[str]:
    settings = small(height=32, width=32, min_coverage=1 / 16)  # 64 pixels
    numbers = measures(layers, moved)
    extent = Extent.of(box().vertices)
    return view_flags(layers, rgba, numbers, camera_along_z(32, distance), extent, settings, indoors)


def test_an_ordinary_view_has_no_flags_and_is_kept():
    layers, rgba = view()
    assert flags(layers, rgba) == set()
    assert rejection(set(), measures(layers), small()) is None


def test_too_few_pixels():
    few = np.zeros((32, 32), bool)
    few[:7, :9] = True
    assert "too_few_pixels" in flags(*view(valid=few))
    few[:8, :8] = True
    assert "too_few_pixels" not in flags(*view(valid=few))


def test_inside_needs_both_the_box_and_odd_hits():
    assert "camera_inside" in flags(*view(hits=1), distance=0.1)
    assert "camera_inside" not in flags(*view(hits=2), distance=0.1)  # among open parts
    assert "camera_inside" not in flags(*view(hits=1), distance=3.0)  # an open surface seen from outside
    assert "camera_inside" not in flags(*view(hits=1), distance=0.1, indoors=True)


def test_open_surfaces_lack_their_pair():
    assert "open_surface" in flags(*view(hits=1))
    assert "open_surface" not in flags(*view(hits=1), indoors=True)
    assert measures(view(hits=3)[0])["pairs_1_0"] == 1.0
    assert measures(view(hits=3)[0])["pairs_3_2"] == 0.0


def test_thin_is_a_gap_of_less_than_a_hundredth():
    assert "thin" in flags(*view(gap=0.009))
    assert "thin" not in flags(*view(gap=0.011))


def test_single_missing_pixels_are_holes_and_windows_are_not():
    valid = np.ones((32, 32), bool)
    valid[10, 10] = valid[20, 5] = False
    valid[14:18, 14:18] = False
    assert single_holes(valid) == 2
    assert "holes" not in flags(*view(valid=valid))
    valid[1:31:5, 1:31:5] = False
    assert "holes" in flags(*view(valid=valid))


def test_contradicting_alpha_is_a_mismatch():
    layers, rgba = view()
    assert "alpha_mismatch" in flags(layers, rgba, moved=(100, 50, 6))
    assert "alpha_mismatch" not in flags(layers, rgba, moved=(100, 50, 5))  # of 1024 pixels
    numbers = measures(layers, (100, 50, 6))
    assert numbers["alpha_iou"] == pytest.approx((1024 - 100) / (1024 + 50), abs=1e-5)
    assert numbers["contradictions"] == pytest.approx(6 / 1024, abs=1e-6)


def test_overflow_and_darkness():
    assert "overflow" in flags(*view(overflow=2))
    assert "overflow" not in flags(*view(overflow=1))  # one pixel in a thousand is let pass
    layers, rgba = view()
    rgba[..., :3] = 10
    assert "dark" in flags(layers, rgba)


def test_what_is_rejected_is_what_the_policy_names():
    layers, _ = view()
    for flag in ("too_few_pixels", "camera_inside", "holes", "overflow", "thin", "dark", "open_surface"):
        verdict = rejection({flag}, measures(layers), small())
        assert (verdict is not None) == (flag in REJECTING)
        assert verdict is None or verdict[0] == flag


def test_flags_of_the_asset():
    assert mesh_flags(sphere()) == {"untextured"}
    assert mesh_flags(mesh_of(trimesh.creation.box((1, 1, 0.009)))) == {"untextured", "flat"}
    skin = Material(base_color_texture=texture(np.full((2, 2, 4), 255)))
    assert mesh_flags(quads([0.0, 1.0], (skin, skin))) == set()
    red, blue = (Material(base_color=(r, 0.0, 1 - r, 1.0)) for r in (0.0, 1.0))
    assert mesh_flags(quads([0.0, 1.0], (red, blue))) == set()
    mesh = box()
    painted = Mesh(mesh.vertices, mesh.faces, mesh.material, mesh.materials, colors=np.ones((8, 4), np.float32))
    assert mesh_flags(painted) == set()
    lossy = Mesh(mesh.vertices, mesh.faces, mesh.material, mesh.materials, flags=frozenset({"missing_texture"}))
    assert "missing_texture" in mesh_flags(lossy)
