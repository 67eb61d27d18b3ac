"""Views rendered together are the views rendered one by one, byte for byte, whatever each of them needs."""

from dataclasses import replace

import numpy as np
import pytest

from render import RenderSettings, procedural, render_views
from render.frames import Stage
from render.mesh import Material, Mesh
from shards import LayeredView, encode
from tests.render.shapes import box, camera_along_z, origin, quads, small, sphere


def members(
    mesh: Mesh, settings: RenderSettings, together: int, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, bytes]]:
    monkeypatch.setattr(Stage, "batch", property(lambda stage: together))
    result = render_views(mesh, origin("batch"), settings)
    views: list[dict[str, bytes] | str] = [encode(sample).members for sample in result.samples]
    for view, reason, message in result.rejected:
        views.insert(view, f"{reason}: {message}")
    assert len(views) == settings.views
    return views


@pytest.mark.parametrize("together", [2, 5, 64])
@pytest.mark.parametrize("kind", ["objects", "rooms"])
def test_a_batch_is_its_views(kind, together, monkeypatch):
    mesh = procedural.make(kind, 0, 3)
    settings = small(views=5, samples=2, regime="scene" if kind == "rooms" else "object")
    one_by_one = members(mesh, settings, 1, monkeypatch)
    assert one_by_one == members(mesh, settings, together, monkeypatch)


def test_views_that_need_more_slots_do_not_change_the_others(monkeypatch):
    """Behind each other stand panes that are cut away; from the side of the solid one they hide nothing."""
    clear = Material(base_color=(1.0, 1.0, 1.0, 0.0), alpha_mode="MASK")
    mesh = quads([*np.linspace(0, 1, 16), 1.1], (*[clear] * 16, Material()))
    settings = small(views=6, slots_limit=32)
    one_by_one = members(mesh, settings, 1, monkeypatch)
    assert one_by_one == members(mesh, settings, 6, monkeypatch)
    samples = render_views(mesh, origin("batch"), settings).samples
    assert {sample.info["slots"] for sample in samples if isinstance(sample, LayeredView)} == {10, 20}


def test_the_frames_of_a_camera_path_are_taken_together(monkeypatch):
    settings = small(regime="dynamic", frames=5, views=2)
    assert members(box(), settings, 1, monkeypatch) == members(box(), settings, 3, monkeypatch)


def test_rejected_views_leave_the_others_in_place(monkeypatch):
    settings = small(views=6, min_coverage=0.1)
    one_by_one = members(sphere(2), settings, 1, monkeypatch)
    assert {type(view) for view in one_by_one} == {dict, str}
    assert one_by_one == members(sphere(2), settings, 4, monkeypatch)


def test_nothing_lies_outside_the_window():
    """The same view with the whole image for a window: what windows leave out is empty."""
    mesh = sphere(2)
    settings = small()
    stage = Stage(replace(mesh, vertices=mesh.vertices / 2), settings, {})
    camera = camera_along_z()
    framed = stage.framed([camera])
    whole = framed.within(np.array([[0, 0, settings.height, settings.width]]))
    assert framed.size[0] < settings.height
    a, b = stage.layers(framed)[0], stage.layers(whole)[0]
    for name in ("depth", "hits", "facing"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
