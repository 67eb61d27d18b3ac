"""The optional planes of a rendered view: analytic normals, sides and materials, and what the settings say."""

import dataclasses

import numpy as np
import pytest

from render import render_views
from render.layer_faces import with_planes
from render.mesh import Material
from render.settings import settings_of
from shards import LayeredView, decode, encode
from shards.layers.planes import NORMAL_BOUND, PLANES
from tests.render.shapes import origin, quads, small, sphere

ALL = small(planes=PLANES)


def test_a_sphere_is_seen_from_its_front_and_then_from_its_back() -> None:
    view = render_views(sphere(), origin("sphere"), ALL).samples[0]
    assert isinstance(view, LayeredView)
    again = decode(view.key, encode(view).members, PLANES)
    assert isinstance(again, LayeredView)
    hit = view.hit
    assert (again.planes["facing"][0][hit[0]] == 1).all()
    assert (again.planes["facing"][1][hit[1]] == -1).all()
    assert (again.planes["facing"][~hit] == 0).all()
    # The mesh is centred at 0 with radius 1/2: a point of it, in the world, is half its normal.
    rotation, eye = view.world_from_camera[:3, :3], view.world_from_camera[:3, 3]
    outward = (view.xyz() @ rotation.T + eye) / 0.5 @ rotation
    normals = again.planes["normals"].astype(np.float64)
    cosine = (outward * normals).sum(-1)
    assert (cosine[0][hit[0]] > 0.995).all()  # flat triangles of a sphere of 5120
    assert (cosine[1][hit[1]] < -0.995).all()  # turned to the viewer
    assert ((view.xyz() * normals).sum(-1)[hit] < 1e-3).all()
    assert (again.planes["material"][hit] == 0).all()
    assert (np.abs(normals - view.planes["normals"])[hit] <= NORMAL_BOUND).all()


def test_materials_are_numbered_as_in_the_mesh() -> None:
    mesh = quads([0.0, 0.2, 0.4], (Material(), Material(), Material()))
    view = render_views(mesh, origin("quads"), small(planes=("material",))).samples[0]
    assert isinstance(view, LayeredView)
    full = view.hits == 3
    assert full.any()
    seen = view.planes["material"][:3, full]
    assert {tuple(column) for column in seen.T.tolist()} <= {(0, 1, 2), (2, 1, 0)}
    assert (view.planes["material"][3:] == -1).all()


def test_a_hit_that_the_second_peel_misses_looks_at_the_camera() -> None:
    mesh = sphere()
    view = render_views(mesh, origin("sphere"), small()).samples[0]
    assert isinstance(view, LayeredView)
    hits, depth = view.hits.copy(), view.depth.copy()
    v, u = np.argwhere(hits == 0)[0]
    hits[v, u], depth[:, v, u] = 1, 1.5
    forged = with_planes(mesh, dataclasses.replace(view, hits=hits, depth=depth), ALL)
    assert forged.info["planes_missed"] == 1
    assert (forged.planes["facing"][0, v, u], forged.planes["material"][0, v, u]) == (1, 0)
    np.testing.assert_allclose(np.cross(forged.planes["normals"][0, v, u], forged.xyz()[0, v, u]), 0, atol=1e-6)
    encode(forged)


def test_planes_do_not_change_the_view() -> None:
    plain = encode(render_views(sphere(3), origin("sphere"), small()).samples[0])
    more = encode(render_views(sphere(3), origin("sphere"), ALL).samples[0])
    assert {name: more.members[name] for name in plain.members} == plain.members


def test_settings_name_the_planes() -> None:
    assert settings_of({}, ["planes=normals,facing"]).planes == ("facing", "normals")
    assert settings_of({}, ['planes=["material"]']).planes == ("material",)
    assert settings_of({}, ["planes=normals"]).stated()["planes"] == ["normals"]
    assert "planes" not in settings_of({}).stated()
    with pytest.raises(ValueError, match=r"there is no plane 'normal': did you mean 'normals'"):
        settings_of({}, ["planes=normal"])
