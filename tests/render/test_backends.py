"""Backends: what cannot run says so in one sentence; what they share is exact; those that run here agree."""

import importlib.util

import numpy as np
import pytest
import warp as wp

from render.backends import (
    NvdiffrastPeeler,
    PyrenderPeeler,
    ReferencePeeler,
    WarpPeeler,
    clip_from_camera,
    on_planes,
    peeler,
)
from render.cameras import Camera, intrinsics, look_at
from render.hits import Hits, hits_of
from render.mesh import Material, Mesh
from render.peel import peel
from render.rays import Shots
from render.views import render_views
from tests.render.shapes import box, origin, small, sphere

NO_CUDA = not wp.is_cuda_available()


def camera(height: int = 45, width: int = 61) -> Camera:
    pose = look_at(np.array([0.4, 0.9, 2.1]), np.zeros(3), 0.1)
    return Camera(intrinsics(50.0, height, width, 29.5, 24.5), pose, height, width, {})


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("--backend ")
    assert "use --backend cpu" in text or "use --layers 1" in text or "use --backend cuda" in text
    return text


@pytest.mark.skipif(not NO_CUDA, reason="this machine has a CUDA device")
def test_cuda_asked_for_by_name_is_never_replaced():
    with pytest.raises(ValueError, match="no CUDA device is visible to Warp") as error:
        render_views(box(), origin("box"), small(backend="cuda"))
    one_line(error)


@pytest.mark.skipif(importlib.util.find_spec("nvdiffrast") is not None, reason="nvdiffrast is installed")
def test_nvdiffrast_says_that_it_is_not_installed():
    with pytest.raises(ValueError, match="nvdiffrast is not installed") as error:
        render_views(box(), origin("box"), small(backend="nvdiffrast"))
    one_line(error)


@pytest.mark.skipif(importlib.util.find_spec("pyrender") is not None, reason="pyrender is installed")
def test_pyrender_says_that_it_is_not_installed():
    with pytest.raises(ValueError, match="pyrender cannot be imported") as error:
        render_views(box(), origin("box"), small(backend="pyrender", layers=1))
    one_line(error)


def test_pyrender_refuses_more_than_the_layer_that_it_has():
    with pytest.raises(ValueError, match="holds layer 0 only, but 6 layers are asked for") as error:
        render_views(box(), origin("box"), small(backend="pyrender"))
    one_line(error)


def test_auto_is_the_device_there_is():
    for name, device in (("auto", "cpu" if NO_CUDA else "cuda"), ("cpu", "cpu")):
        assert render_views(box(), origin("box"), small(backend=name)).samples[0].info["backend"] == device


def test_the_clip_matrix_puts_pixels_and_planes_where_opengl_wants_them():
    c = camera()
    points = np.random.default_rng(0).uniform([-1, -1, 0.5], [1, 1, 9], (50, 3))
    clip = np.concatenate([points, np.ones((50, 1))], axis=1) @ clip_from_camera(c.K, 45, 61, 0.1, 10.0).T
    device = clip[:, :3] / clip[:, 3:]
    image = points @ c.K.T
    image = image[:, :2] / image[:, 2:]
    np.testing.assert_allclose((device[:, :2] + 1) / 2 * [61, 45], image, atol=1e-9)
    for z, expected in ((0.1, -1.0), (10.0, 1.0)):
        near = clip_from_camera(c.K, 45, 61, 0.1, 10.0) @ [0, 0, z, 1]
        assert near[2] / near[3] == pytest.approx(expected)


def test_depth_by_ray_and_plane_is_the_peel_s():
    mesh, c = sphere(3), camera()
    vertices = c.from_world(mesh.vertices)
    depth, triangle = peel(vertices, mesh.faces, c.K, 45, 61, 3, backend="cpu")
    again, facing = on_planes(vertices, mesh.faces, c.K, triangle)
    np.testing.assert_allclose(again, depth, rtol=1e-6)
    assert set(np.unique(facing[0])) == {0, 1}
    assert set(np.unique(facing[1])) == {-1, 0}


def test_a_peeler_follows_its_vertices():
    mesh, c = box(), camera()
    peeling = peeler("cpu", mesh.vertices, mesh.faces)
    assert isinstance(peeling, WarpPeeler)
    shots = Shots.of([c])
    before = hits_of(peeling.keys(shots, 2, 1e-3).numpy())
    forward = c.world_from_camera[:3, 2]
    peeling.update(mesh.vertices + 0.5 * forward)
    after = hits_of(peeling.keys(shots, 2, 1e-3).numpy())
    middle = (0, 0, 24 * 61 + 29)
    assert after.depth[middle] == pytest.approx(before.depth[middle] + 0.5, abs=1e-4)


class Recorded(ReferencePeeler):
    """A reference backend whose hits are known: each pixel has one, at the depth of its number in the image."""

    name = "recorded"

    def peel(
        self, K: np.ndarray, height: int, width: int, slots: int, near: float, camera_from_world: np.ndarray
    ) -> Hits:
        depth = np.full((slots, height, width), np.inf, np.float32)
        depth[0] = 1 + np.arange(width) + 1000 * np.arange(height)[:, None]
        found = np.isfinite(depth)
        return Hits(depth, np.where(found, 0, -1).astype(np.int32), found.astype(np.int8))


def test_the_window_of_a_reference_backend_is_cut_from_its_whole_image():
    mesh = box()
    recorded = Recorded(mesh.vertices, mesh.faces, "cpu")
    shots = Shots.of([camera(), camera()])
    np.testing.assert_array_equal(recorded.windows(shots, 1e-3), [[0, 0, 45, 61]] * 2)
    part = shots.within(np.array([[10, 20, 5, 7], [40, 54, 5, 7]]))
    hits = hits_of(recorded.keys(part, 3, 1e-3).numpy())
    for view, (row, column) in enumerate(part.origins):
        v, u = np.mgrid[row : row + 5, column : column + 7]
        np.testing.assert_array_equal(hits.depth[view, 0].reshape(5, 7), 1 + u + 1000 * v)
        assert (hits.triangle[view, 1:] == -1).all()


def test_windows_hold_their_boxes_and_stay_in_the_image():
    shots = Shots.of([camera()] * 3)
    boxes = np.array([[0, 0, 4, 9], [30, 50, 15, 11], [0, 0, 0, 0]])
    part = shots.within(boxes, border=1)
    assert part.size == (16, 12)
    for (row, column), (top, left, height, width) in zip(part.origins, boxes):
        assert 0 <= row <= max(top - 1, 0)
        assert 0 <= column <= max(left - 1, 0)
        assert min(top + height + 1, 45) <= row + 16 <= 45
        assert min(left + width + 1, 61) <= column + 12 <= 61
    fine = part.scaled(2)
    assert fine.size == (32, 24)
    assert fine.image == (90, 122)
    np.testing.assert_array_equal(fine.origins, 2 * part.origins)
    np.testing.assert_allclose(part.camera_from_world @ part.world_from_camera, [np.eye(4)] * 3, atol=1e-12)


def reference(name: str) -> object:
    """A peeler of a sphere by a reference backend, or a skip that says why there is none."""
    mesh = sphere(3)
    try:
        made = NvdiffrastPeeler if name == "nvdiffrast" else PyrenderPeeler
        c = camera()
        pose = np.linalg.inv(c.world_from_camera)
        pose[3] = 0, 0, 0, 1
        return made(mesh.vertices, mesh.faces).peel(c.K, 45, 61, 1, 1e-3, pose)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["nvdiffrast", "pyrender"])
def test_reference_backends_agree_with_the_peel(name):
    hits = reference(name)
    mesh, c = sphere(3), camera()
    depth, _ = peel(c.from_world(mesh.vertices), mesh.faces, c.K, 45, 61, 1, backend="cpu")
    found = np.isfinite(depth)
    assert (np.isfinite(hits.depth) == found).mean() > 0.999
    both = found & np.isfinite(hits.depth)
    assert np.quantile(np.abs(hits.depth[both] / depth[both] - 1), 0.99) < 1e-4


@pytest.fixture(scope="module")
def opengl() -> None:
    """Skips, and says why, where pyrender or an OpenGL context is not to be had."""
    try:
        peeling = PyrenderPeeler(box().vertices, box().faces)
        peeling.keys(Shots.of([camera(8, 8)]), 1, 1e-3)
    except ValueError as error:
        pytest.skip(str(error))


def two_boxes() -> Mesh:
    """A red one, and a green one to its right that it hides in part."""
    red, green = box(), box((0.7, 1.0, 0.5))
    return Mesh(
        np.concatenate([red.vertices + [-0.3, 0, 0.4], green.vertices + [0.35, 0.1, -0.5]]),
        np.concatenate([red.faces, green.faces + len(red.vertices)]).astype(np.int32),
        np.repeat(np.arange(2, dtype=np.int32), [len(red.faces), len(green.faces)]),
        (Material(base_color=(0.8, 0.05, 0.05, 1.0)), Material(base_color=(0.05, 0.8, 0.05, 1.0))),
    )


@pytest.mark.parametrize("shape", ["sphere", "two boxes"])
def test_the_windows_of_pyrender_hold_the_hits_of_the_peel(opengl, shape):
    mesh = sphere(3) if shape == "sphere" else two_boxes()
    other = Camera(intrinsics(40.0, 45, 61), look_at(np.array([-1.9, 0.3, 1.6]), np.zeros(3)), 45, 61, {})
    shots = Shots.of([camera(), other])
    theirs, ours = PyrenderPeeler(mesh.vertices, mesh.faces), WarpPeeler("cpu", mesh.vertices, mesh.faces)
    for part in (shots, shots.within(np.array([[9, 14, 30, 37], [12, 20, 30, 37]]))):
        a, b = (hits_of(np.array(peeling.keys(part, 1, 1e-3).numpy())) for peeling in (theirs, ours))
        assert a.depth.shape == b.depth.shape == (2, 1, part.size[0] * part.size[1])
        assert (b.triangle >= 0).mean() > 0.2
        assert ((a.triangle >= 0) == (b.triangle >= 0)).mean() > 0.999
        same = a.triangle == b.triangle
        assert same.mean() > 0.99  # the others lie on edges, where a card snaps corners to a grid
        np.testing.assert_allclose(a.depth[same], b.depth[same], rtol=1e-6)
        np.testing.assert_array_equal(a.facing[same], b.facing[same])
    if shape == "two boxes":
        assert {0, 1} == set(mesh.material[b.triangle[b.triangle >= 0]])


def test_a_picture_by_pyrender_is_shaded_from_its_triangles_as_any_other(opengl):
    """Colour is Warp's: the same light, materials and samples, and so the same picture but at edges."""
    a, b = (
        render_views(two_boxes(), origin("boxes"), small(backend=name, layers=1, views=2)).samples
        for name in ("pyrender", "cpu")
    )
    for theirs, ours in zip(a, b, strict=True):
        assert (theirs.info["backend"], ours.info["backend"]) == ("pyrender", "cpu")
        rgb = ours.rgba[..., :3].astype(int)
        for one, other in ((0, 1), (1, 0)):
            assert ((ours.hits > 0) & (rgb[..., one] > rgb[..., other] + 40)).sum() > 20
        differs = np.abs(theirs.rgba.astype(int) - ours.rgba).max(axis=-1)
        assert (differs > 3).mean() < 0.01
        assert (theirs.hits == ours.hits).mean() > 0.998
        both = (theirs.hits > 0) & (ours.hits > 0)
        assert np.median(np.abs(theirs.depth[0][both] / ours.depth[0][both] - 1)) < 1e-6
