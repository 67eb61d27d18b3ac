"""What a stage does between the kernels: looking deeper, remembering shadow maps, sharing out memory."""

from types import SimpleNamespace

import numpy as np
import pytest

from render import frames
from render.frames import CUT_SLOTS, Stage
from render.lights import object_lights
from render.mesh import Material, Mesh
from render.views import render_views
from shards.randomness import generator
from tests.render.shapes import box, camera_along_z, origin, quads, small, sphere

CLEAR = Material(base_color=(1.0, 1.0, 1.0, 0.0), alpha_mode="MASK")


def behind_clear_panes(panes: int, size: float) -> Mesh:
    return quads([*np.linspace(0, 1, panes), 1.5], (*[CLEAR] * panes, Material()), size=size)


def test_what_is_first_behind_more_clear_panes_than_are_looked_at_at_once_is_found():
    stage = Stage(behind_clear_panes(2 * CUT_SLOTS, 4.0), small(), {})
    np.testing.assert_allclose(stage.coarse_depth([camera_along_z(32, distance=2.0)]), 3.5, rtol=1e-6)


def test_a_view_of_nothing_is_rejected_however_few_pixels_are_asked_for():
    rendered = render_views(box(), origin("a"), small(min_coverage=0.0, near=50.0))
    assert [reason for _, reason, _ in rendered.rejected] == ["too_few_pixels"]


def test_pixels_that_all_samples_missed_count_as_contradictions():
    settings = small(views=4, min_coverage=0.0, framing=(0.9, 0.9), framing_median=0.9, crop=0.0)
    filled = 0
    for view in render_views(box((1.0, 0.002, 0.002)), origin("rod"), settings).samples:
        pixels = int(np.count_nonzero(view.hits))
        thin = int(np.count_nonzero((view.rgba[..., 3] == 128) & (view.hits > 0)))
        assert view.info["measures"]["alpha_iou"] <= 1 - 0.9 * thin / pixels
        filled += thin
    assert filled > 0


@pytest.mark.parametrize("samples", [1, 2])
def test_alpha_is_a_behind_more_panes_than_colour_usually_looks_through(samples):
    settings = small(views=4, layers=32, slots_limit=32, samples=samples, min_coverage=0.0)
    for view in render_views(behind_clear_panes(33, 1.0), origin("panes"), settings).samples:
        np.testing.assert_array_equal(view.rgba[..., 3] > 127, view.hits > 0)


def test_maps_of_the_same_lights_are_cast_once_and_again_when_the_mesh_has_moved():
    mesh = sphere(2)
    stage, camera = Stage(mesh, small(), {}), camera_along_z()
    lights = [object_lights(generator(0, "a", 0, "light"), camera, np.zeros(3), 1.0)]
    first = stage.shadows(lights, indoors=False)
    assert stage.shadows(lights, indoors=False) is first
    others = [object_lights(generator(0, "a", 1, "light"), camera, np.zeros(3), 1.0)]
    assert stage.shadows(others, indoors=False) is not first
    again = stage.shadows(lights, indoors=False)
    np.testing.assert_array_equal(again.depth.numpy(), first.depth.numpy())
    stage.move(mesh.vertices * 0.5, None)
    assert stage.shadows(lights, indoors=False) is not again


def test_a_batch_fits_its_share_of_a_gpu_and_what_one_call_can_number(monkeypatch):
    stage = Stage(sphere(2), small(height=504, width=504), {})
    assert stage.batch == 1  # on a CPU
    stage.peeler = SimpleNamespace(device=SimpleNamespace(is_cuda=True))
    assert 48 <= stage.batch <= frames.BATCH
    monkeypatch.setattr(frames, "BATCH_BYTES", 200 << 20)
    few = stage.batch
    assert 1 <= few < 8
    monkeypatch.setattr(frames, "CORNER_BYTES", 1 << 20)  # as if the mesh had 10000 times the vertices
    assert stage.batch < few
    monkeypatch.setattr(frames, "PEELED_FACES", 3 * len(sphere(2).faces))
    monkeypatch.setattr(frames, "BATCH_BYTES", 1 << 50)
    assert stage.batch == 3
    runs = list(stage._runs(np.arange(7), (504, 504), 10))
    assert [len(run) for run in runs] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(runs), np.arange(7))
