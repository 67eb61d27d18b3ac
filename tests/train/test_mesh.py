"""Layers as triangles: a sphere's area, its normals, its cuts, and files that independent readers understand."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from tests.train.spheres import rays, sphere, stack
from train.prediction.mesh import Mesh, cuts, triangulate
from train.prediction.mesh_files import write_mesh
from train.prediction.prediction import HIDDEN_GREY

CENTRE, RADIUS = np.array([0.1, -0.05, 2.0]), 0.5


def ball(size: int, layers: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """xyz, exists and an image of one colour, of a sphere that a model has predicted without a fault."""
    xyz, valid = stack(sphere(size, tuple(CENTRE), RADIUS), layers)
    return xyz, np.repeat(valid[None], layers, 0), np.full((size, size, 3), (1, 0.5, 0), np.float32)


def areas(mesh: Mesh) -> np.ndarray:
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def normals(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Of each triangle its middle and its normal, not of unit length."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    return (a + b + c) / 3, np.cross(b - a, c - a)


@pytest.mark.parametrize("size", [112, 250])
def test_a_closed_sphere_has_the_area_of_a_sphere_and_no_hole(size: int) -> None:
    """Its limb lies up to a pixel within the silhouette, where a sphere is steepest; the walls make up for it."""
    mesh = triangulate(*ball(size), closed=True)
    assert areas(mesh).sum() == pytest.approx(4 * np.pi * RADIUS**2, rel=0.02)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.01)  # positive: its normals point outwards


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_has_the_area_of_the_surface_above_its_pixels(layer: int) -> None:
    """Over a pixel of size p at depth z a surface has the area (p z)^2 / (|d| cos), summed here on a fine grid, over a
    rectangle within the silhouette."""
    size, fine = 112, 6
    z, d = sphere(size * fine, tuple(CENTRE), RADIUS)[layer], rays(size * fine)
    length = np.linalg.norm(d, axis=-1)
    cosine = np.abs(((d * z[..., None] - CENTRE) / RADIUS * d).sum(-1)) / length
    xyz, exists, rgb = ball(size)
    top, bottom, left, right = 44, 68, 46, 76
    there = np.zeros_like(exists[[layer]])
    there[:, top : bottom + 1, left : right + 1] = True
    assert (exists[[layer]] | ~there).all()
    mesh = triangulate(xyz[[layer]], there, rgb)
    middle = fine // 2  # the centre of pixel k is where fine pixel k * fine + middle begins
    covered = np.s_[top * fine + middle : bottom * fine + middle, left * fine + middle : right * fine + middle]
    expected = (z**2 / (length * cosine))[covered].sum() / (500 / 512 * size * fine) ** 2
    assert areas(mesh).sum() == pytest.approx(expected, rel=2e-3)


def test_normals_point_out_of_a_solid_in_both_frames(tmp_path: Path) -> None:
    mesh = triangulate(*ball(112, layers=6))  # layers 2 to 5 repeat layer 1, and make nothing
    middle, normal = normals(mesh)
    assert len(mesh.vertices) == 2 * ball(112)[1][0].sum() - (
        len(ball(112)[1][0].nonzero()[0]) * 2 - len(mesh.vertices)
    )
    assert ((normal * (middle - CENTRE)).sum(1) > 0).all()
    for name, turned in (("a.glb", np.array([1, -1, -1])), ("a.ply", np.ones(3))):
        loaded = trimesh.load(write_mesh(tmp_path / name, {"ball": mesh}), force="mesh", process=False)
        np.testing.assert_allclose(loaded.vertices, mesh.vertices * turned, atol=1e-6)
        outward = loaded.triangles_center - CENTRE * turned
        assert ((loaded.face_normals * outward).sum(1) > 0).all()


def test_it_is_cut_between_two_surfaces_and_nowhere_else() -> None:
    """A sphere before a wall: no triangle of layer 0 spans both; without the sphere the wall is whole."""
    size = 160
    wall = np.full((1, size, size), 4.0)
    xyz, valid = stack(np.concatenate([sphere(size, tuple(CENTRE), RADIUS), wall]), 1)
    rgb = np.zeros((size, size, 3), np.float32)
    mesh = triangulate(xyz, valid[None], rgb)
    z = mesh.vertices[:, 2][mesh.faces]
    assert ((z < 3).all(axis=1) | (z > 3).all(axis=1)).all()
    assert len(mesh.vertices) > 0.97 * size**2
    whole, valid = stack(wall, 1)
    assert len(triangulate(whole, valid[None], rgb).faces) == 2 * (size - 1) ** 2


@pytest.mark.parametrize("jump", [0.12, 0.4, 2.0])
@pytest.mark.parametrize("size", [112, 504])
def test_a_step_between_two_planes_is_cut(jump: float, size: int) -> None:
    depth = np.full((1, 20, 20), 2.0)
    depth[:, :, 10:] += jump
    xyz = (rays(size)[:20, :20] * depth[..., None]).astype(np.float32)
    there = np.ones((20, 20), bool)
    across, down = cuts(xyz[0], there, 1), cuts(xyz[0], there, 0)
    assert across[:, 9].all()
    assert across.sum() == 20
    assert not down.any()


@pytest.mark.parametrize("size", [64, 112, 250])
@pytest.mark.parametrize("layer", [0, 1])
def test_no_smooth_surface_is_cut(size: int, layer: int) -> None:
    xyz, exists, _ = ball(size)
    for axis in (0, 1):
        assert not cuts(xyz[layer], exists[layer], axis).any()
    d = rays(size)
    depth = 1 / (1 - 0.95 * d[..., 1] / d[..., 1].max())  # a floor, to 39 times as far as it is near
    for axis in (0, 1):
        assert not cuts((d * depth[..., None]).astype(np.float32), np.ones((size, size), bool), axis).any()


def test_holes_are_left_open_and_corners_are_filled() -> None:
    """Of four pixels three make one triangle; a pixel that is missing takes no more than its own away."""
    xyz = (rays(4) * 2).astype(np.float32)[None]
    there = np.ones((1, 4, 4), bool)
    rgb = np.zeros((4, 4, 3), np.float32)
    whole = areas(triangulate(xyz, there, rgb)).sum()
    for v, u, lost in ((0, 0, 0.5), (0, 1, 1.0), (1, 1, 2.0)):  # in squares
        holed = there.copy()
        holed[0, v, u] = False
        mesh = triangulate(xyz, holed, rgb)
        assert areas(mesh).sum() == pytest.approx(whole * (9 - lost) / 9, rel=1e-5)
        assert (normals(mesh)[1][:, 2] < 0).all()


def test_colours_are_the_image_in_front_and_grey_or_the_image_behind() -> None:
    xyz, exists, rgb = ball(40)
    for hidden, behind in (("grey", [HIDDEN_GREY] * 3), ("image", [255, 128, 0])):
        mesh = triangulate(xyz, exists, rgb, hidden)  # type: ignore[arg-type]
        front = mesh.vertices[:, 2] < CENTRE[2] - 0.2
        assert (mesh.colours[front] == [255, 128, 0]).all()
        assert (mesh.colours[mesh.vertices[:, 2] > CENTRE[2]] == behind).all()


@pytest.mark.parametrize("closed", [False, True])
def test_layers_without_a_point_and_stacks_without_a_triangle(tmp_path: Path, closed: bool) -> None:
    xyz, exists, rgb = ball(40, layers=3)
    exists[1] = False
    xyz[1] = np.nan  # what is not there need not be a number
    mesh = triangulate(xyz, exists, rgb, closed=closed)
    assert np.isfinite(mesh.vertices).all()
    for nothing in (np.zeros_like(exists), exists & (np.indices((40, 40)).sum(0) % 2 == 0)):
        mesh = triangulate(xyz, nothing, rgb, closed=closed)
        assert mesh.faces.shape == (0, 3)
        for name in ("a.glb", "a.ply"):
            write_mesh(tmp_path / name, {"nothing": mesh})
        assert (tmp_path / "a.glb").read_bytes().startswith(b"glTF")


def test_a_glb_has_a_node_of_each_name_with_what_is_said_of_it(tmp_path: Path) -> None:
    mesh = triangulate(*ball(30))
    points = Mesh(mesh.vertices, np.zeros((0, 3), np.int32), mesh.colours)
    path = write_mesh(tmp_path / "a.glb", {"ball": mesh, "dots": points}, {"dots": {"scale": 1.5}})
    scene = trimesh.load(path)
    assert set(scene.graph.nodes_geometry) == {"ball", "dots"}
    assert len(scene.geometry["ball"].faces) == len(mesh.faces)
    assert isinstance(scene.geometry["dots"], trimesh.PointCloud)
    about, binary = glb(path)
    assert [node["name"] for node in about["nodes"]] == ["ball", "dots"]
    assert about["nodes"][1]["extras"] == {"scale": 1.5}
    assert "extras" not in about["nodes"][0]
    colour = np.frombuffer(binary, "<f4", 4 * len(mesh.vertices), about["bufferViews"][1]["byteOffset"]).reshape(-1, 4)
    front = mesh.vertices[:, 2] < CENTRE[2] - 0.2
    np.testing.assert_allclose(colour[front], np.broadcast_to([1, 0.21586, 0, 1], colour[front].shape), atol=1e-4)
    for view in about["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= about["buffers"][0]["byteLength"] == len(binary)


def glb(path: Path) -> tuple[dict, bytes]:
    """The JSON and the binary chunk, by the glTF 2.0 specification."""
    data = path.read_bytes()
    assert struct.unpack_from("<4sII", data) == (b"glTF", 2, len(data))
    length, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON"
    size, second = struct.unpack_from("<I4s", data, 20 + length)
    assert (second, 28 + length + size) == (b"BIN\0", len(data))
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    mesh = triangulate(*ball(30))
    with pytest.raises(ValueError, match=r"meshes are written as \.glb or \.ply, not as \.obj"):
        write_mesh(tmp_path / "a.obj", {"ball": mesh})
    broken = Mesh(np.full_like(mesh.vertices, np.inf), mesh.faces, mesh.colours)
    with pytest.raises(ValueError, match="vertices of ball are finite"):
        write_mesh(tmp_path / "a.glb", {"ball": broken})
    assert not list(tmp_path.iterdir())
