"""Voxels of a stack: those of the analytic surface, in the decoders' frame, and a transform that leads back."""

from dataclasses import replace

import numpy as np
import pytest

from tests.train.analytic_stacks import camera, sphere_prediction, stack_prediction
from train.downstream import voxels
from train.downstream.stack import Stack, stack_of
from train.downstream.voxels import GLB_FROM_CANONICAL, SparseStructure, upright, voxelize, write_sparse
from train.prediction.archive import write_npz

CENTRE, RADIUS = np.array([0.1, -0.05, 2.0]), 0.5


@pytest.fixture(scope="module")
def sphere() -> Stack:
    return stack_of(sphere_prediction(256, tuple(CENTRE), RADIUS))


def _grid(structure: SparseStructure) -> np.ndarray:
    grid = np.zeros((structure.resolution,) * 3, bool)
    grid[tuple(structure.coords[:, 1:].T)] = True
    return grid


def _sphere_voxels(structure: SparseStructure, solid: bool) -> np.ndarray:
    """The voxels that the sphere's surface passes through: the nearest corner of the box inside, the farthest out."""
    side = structure.resolution
    centres = (np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1) + 0.5) / side - 0.5
    transform = structure.canonical_from_camera
    middle = transform[:3, :3] @ CENTRE + transform[:3, 3]
    radius = RADIUS * np.cbrt(np.linalg.det(transform[:3, :3]))
    offset = np.abs(centres - middle)
    nearest = np.linalg.norm(np.maximum(offset - 0.5 / side, 0), axis=-1)
    farthest = np.linalg.norm(offset + 0.5 / side, axis=-1)
    return (nearest <= radius) & (solid | (farthest >= radius))


@pytest.mark.parametrize("resolution", [32, 64])
def test_a_sphere_becomes_the_voxels_that_its_surface_passes(sphere: Stack, resolution: int) -> None:
    structure = voxelize(sphere, resolution)
    got, true = _grid(structure), _sphere_voxels(structure, solid=False)
    assert (got & true).sum() / (got | true).sum() > 0.85
    assert (got & ~true).sum() < 0.01 * got.sum()  # nothing but the surface
    assert got.any(axis=(1, 2)).all()  # the whole cube is used, along every axis
    assert got.any(axis=(0, 2)).all()
    assert got.any(axis=(0, 1)).all()


def test_solid_fills_the_sphere(sphere: Stack) -> None:
    structure = voxelize(sphere, 48, fill="solid")
    got, true = _grid(structure), _sphere_voxels(structure, solid=True)
    assert (got & true).sum() / (got | true).sum() > 0.95


def test_coords_are_what_the_decoders_take(sphere: Stack) -> None:
    coords = voxelize(sphere, 64).coords
    assert coords.dtype == np.int32
    assert coords.shape[1] == 4
    assert (coords[:, 0] == 0).all()
    assert coords.min() == 0
    assert coords.max() == 63
    order = np.argwhere(_grid(voxelize(sphere, 64)))  # as torch.argwhere of an occupancy gives them
    np.testing.assert_array_equal(coords[:, 1:], order)


@pytest.mark.parametrize(("elevation", "azimuth"), [(0, 0), (25, 0), (-30, 70)])
def test_centres_lead_back_to_the_points_within_half_a_voxel(sphere: Stack, elevation: float, azimuth: float) -> None:
    structure = voxelize(sphere, 64, elevation, azimuth)
    back = structure.camera_from_canonical
    at = structure.centres @ back[:3, :3].T + back[:3, 3]
    size = np.cbrt(np.linalg.det(back[:3, :3])) / 64
    distance = np.abs(np.linalg.norm(at - CENTRE, axis=1) - RADIUS)
    pixel = 2 / 281.6  # at the outline front and back are joined by a strip, up to half a pixel within the sphere
    assert distance.max() <= np.sqrt(3) / 2 * size + pixel / 2  # a voxel's centre from a surface that passes the voxel
    # and every point lies in a voxel that is there
    forth = structure.canonical_from_camera
    canonical = sphere.points @ forth[:3, :3].T + forth[:3, 3]
    index = np.floor((canonical + 0.5) * 64).astype(int)
    assert _grid(structure)[tuple(index.T)].all()
    np.testing.assert_allclose(structure.canonical_from_camera @ back, np.eye(4), atol=1e-12)


def test_the_level_camera_stands_before_the_front_and_sees_up_as_z() -> None:
    rotation = upright()
    np.testing.assert_allclose(rotation @ [0, -1, 0], [0, 0, 1], atol=1e-12)  # up in the image is z
    np.testing.assert_allclose(rotation @ [0, 0, 1], [0, 1, 0], atol=1e-12)  # forward is +y: the camera is at -y
    np.testing.assert_allclose(rotation @ [1, 0, 0], [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(("elevation", "azimuth"), [(0, 0), (20, 0), (-40, 30), (60, -120)])
def test_a_camera_that_looks_down_stands_above(elevation: float, azimuth: float) -> None:
    rotation = upright(elevation, azimuth)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0
    to_camera = rotation @ [0, 0, -1]
    assert np.degrees(np.arcsin(to_camera[2])) == pytest.approx(elevation)
    assert np.degrees(np.arctan2(to_camera[0], -to_camera[1])) == pytest.approx(azimuth)  # from -y, counter-clockwise
    assert (rotation @ [1, 0, 0])[2] == pytest.approx(0)  # not rolled


def test_an_upward_direction_says_what_an_elevation_says() -> None:
    tilt = np.radians(35)
    np.testing.assert_allclose(upright(up=np.array([0, -3 * np.cos(tilt), -3 * np.sin(tilt)])), upright(35), atol=1e-12)
    with pytest.raises(ValueError, match="no direction"):
        upright(up=np.zeros(3))
    with pytest.raises(ValueError, match="straight along"):
        upright(up=np.array([0, 0, 1.0]))


def test_a_mesh_of_the_decoder_comes_back_to_the_camera(sphere: Stack) -> None:
    structure = voxelize(sphere, 64, elevation=20, azimuth=45)
    forth = structure.canonical_from_camera
    canonical = sphere.points @ forth[:3, :3].T + forth[:3, 3]
    exported = canonical @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # the exporter's own line: z-up to y-up
    np.testing.assert_allclose(exported, canonical @ GLB_FROM_CANONICAL[:3, :3].T, atol=1e-12)
    back = structure.camera_from_glb
    np.testing.assert_allclose(exported @ back[:3, :3].T + back[:3, 3], sphere.points, atol=1e-6)


def test_stray_points_do_not_shrink_the_object(sphere: Stack) -> None:
    prediction = sphere_prediction(256, tuple(CENTRE), RADIUS)
    xyz = prediction.xyz.copy()
    seen = np.argwhere(prediction.valid)
    for row, column in seen[[500, 9000]]:  # two pixels of layer 1 far behind, at two distances
        xyz[0, 1, row, column] *= 20 if row < 128 else 3
        xyz[0, 2:, row, column] = xyz[0, 1, row, column]
    stray = stack_of(type(prediction)(prediction.rgb, prediction.valid, xyz, prediction.K, (0,), name="x"), flyers=True)
    clean = voxelize(sphere, 64)
    np.testing.assert_allclose(voxelize(stray, 64).canonical_from_camera, clean.canonical_from_camera, atol=2e-2)


def test_points_off_their_rays_cost_no_more(sphere: Stack) -> None:
    """x and y of a hostile file: neighbours far apart would be filled with samples, 4 GB of them at 64 x 64."""
    x_y = np.random.default_rng(0).normal(size=(*sphere.there.shape, 2)).astype(np.float32)
    torn = replace(sphere, xyz=np.concatenate([x_y, sphere.xyz[..., 2:]], axis=-1))
    np.testing.assert_array_equal(voxelize(torn, 32).coords, voxelize(sphere, 32).coords)


def test_samples_are_taken_some_at_a_time_and_not_without_end(sphere: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = voxelize(sphere, 32)
    monkeypatch.setattr(voxels, "AT_ONCE", 1000)
    parts = voxelize(sphere, 32)
    np.testing.assert_array_equal(parts.coords, whole.coords)
    np.testing.assert_array_equal(parts.rgb, whole.rgb)
    monkeypatch.setattr(voxels, "MOST_SAMPLES", 10_000)
    with pytest.raises(ValueError, match="so torn that they take"):
        voxelize(sphere, 32)


def test_one_point_is_one_voxel_in_the_middle() -> None:
    depth = np.full((4, 16, 16), np.nan)
    depth[0, 5, 9] = 3.0
    structure = voxelize(stack_of(stack_prediction(depth, camera(16))), 16)
    assert len(structure.coords) == 1
    assert structure.coords[0].tolist() == [0, 8, 8, 8]


def test_nothing_to_voxelize_is_said(tmp_path) -> None:
    empty = stack_prediction(np.full((4, 16, 16), np.nan), camera(16))
    with pytest.raises(ValueError, match="no pixel has a point"):
        stack_of(empty)
    with pytest.raises(ValueError, match="--resolution 4"):
        voxelize(stack_of(sphere_prediction(32)), 4)


def test_the_file_holds_both_directions(sphere: Stack, tmp_path) -> None:
    structure = voxelize(sphere, 32, elevation=10)
    with np.load(write_sparse(tmp_path / "s.npz", structure), allow_pickle=False) as file:
        np.testing.assert_array_equal(file["coords"], structure.coords)
        np.testing.assert_allclose(file["canonical_from_camera"] @ file["camera_from_canonical"], np.eye(4), atol=1e-12)
        assert int(file["resolution"]) == 32
        assert file["camera_from_glb"].shape == (4, 4)
    import trimesh

    cloud = trimesh.load(write_sparse(tmp_path / "s.ply", structure))
    back = ((np.asarray(cloud.vertices) + 0.5) * 32).astype(np.int32)  # as TRELLIS's dataset reads its voxels/*.ply
    np.testing.assert_array_equal(back, structure.coords[:, 1:])


def test_visible_voxels_have_the_images_colours() -> None:
    prediction = sphere_prediction(128)
    rgb = np.zeros((128, 128, 3), np.float32)
    rgb[..., 0] = 1
    red = type(prediction)(rgb, prediction.valid, prediction.xyz, prediction.K, (0,), name="red")
    structure = voxelize(stack_of(red), 32)
    front = structure.centres[:, 1] < -0.2
    assert (structure.rgb[front] == [255, 0, 0]).all()
    assert (structure.rgb[structure.centres[:, 1] > 0.2] == 150).all()


def test_the_command(tmp_path, capsys) -> None:
    import worldtrace

    write_npz(tmp_path / "it.npz", [sphere_prediction(64)])
    for arguments, code, says in (
        (["--out", str(tmp_path / "s.npz")], 0, "voxels"),
        (["--out", str(tmp_path / "s.ply"), "--up", "0,-1,-0.2"], 0, "wrote"),
        (["--out", str(tmp_path / "s.obj")], 2, "use .npz or .ply"),
        (["--out", str(tmp_path / "s.npz"), "--up", "0,1"], 2, "no direction"),
        (["--out", str(tmp_path / "s.npz"), "--up", "0,-1,0", "--elevation", "3"], 2, "give one of them"),
        (["--out", str(tmp_path / "it.npz")], 2, "the prediction itself"),
        (["--out", str(tmp_path / "s.npz"), "--seed", "7"], 2, "no seed 7; it has 0"),
        (["--out", str(tmp_path / "s.npz"), "--frame", "1"], 2, "no frame 1"),
    ):
        with pytest.raises(SystemExit) as exit_:
            worldtrace.main(["voxelize", str(tmp_path / "it.npz"), *arguments])
        assert exit_.value.code == code
        captured = capsys.readouterr()
        assert says in captured.out + captured.err
