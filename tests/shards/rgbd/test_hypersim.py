"""Hypersim: files as its public description has them, of a world of known geometry, give back its metres and poses."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from shards.rgbd import Unreadable
from shards.rgbd.base import checked
from shards.rgbd.hypersim import split_rays, tone_mapped
from shards.rgbd.pose import OPENGL
from tests.shards.rgbd.stage import assert_on_stage, camera, colour, met, pose_of, read_all, world_points

H, W = 48, 64
STRAIGHT = np.diag([math.tan(0.5), math.tan(0.5) * H / W, -1.0])
# a lens that is shifted and tilted: its image plane is not perpendicular to the axis of the camera
SHIFTED = np.array([[0.55, 0, 0], [0, 0.41, 0.52], [0, 0, -1]])  # the axis passes below the picture
TILTED = np.array([[0.55, 0, 0.06], [0, 0.41, -0.08], [0.02, -0.15, -0.97]])
METRES = 0.0254


def write_hypersim(root: Path, camera_from_uv: np.ndarray, preview: bool = False) -> np.ndarray:
    """-> world_from_camera (OpenCV axes) of the camera whose positions are in the files."""
    pose = camera()
    scene = root / "ai_001_001"
    geometry, final = scene / "images/scene_cam_00_geometry_hdf5", scene / "images/scene_cam_00_final_hdf5"
    detail = scene / "_detail/cam_00"
    for folder in (geometry, final, detail, scene / "images/scene_cam_00_final_preview"):
        folder.mkdir(parents=True)
    u = (np.arange(W) + 0.5) / W * 2 - 1
    v = 1 - (np.arange(H) + 0.5) / H * 2
    uv1 = np.stack([*np.meshgrid(u, v), np.ones((H, W))], axis=-1)
    directions = uv1 @ camera_from_uv.T @ OPENGL[:3, :3]  # the files' camera looks along -z
    distance = met(directions, pose)
    points = directions / np.linalg.norm(directions, axis=-1, keepdims=True) * distance[..., None]
    painted = colour(points @ pose[:3, :3].T + pose[:3, 3])
    painted[distance == 0] = 0
    save = {
        geometry / "frame.0003.depth_meters.hdf5": np.where(distance > 0, distance, np.nan).astype(np.float32),
        geometry / "frame.0003.render_entity_id.hdf5": np.where(distance > 0, 7, -1).astype(np.int32),
        detail / "camera_keyframe_positions.hdf5": np.tile(pose[:3, 3] / METRES, (5, 1)) + np.arange(-3, 2)[:, None],
        detail / "camera_keyframe_orientations.hdf5": np.tile(pose[:3, :3] @ OPENGL[:3, :3], (5, 1, 1)),
    }
    if not preview:
        save[final / "frame.0003.color.hdf5"] = (painted / 255.0) ** 2.2
    for path, array in save.items():
        with h5py.File(path, "w") as file:
            file["dataset"] = array
    Image.fromarray(painted).save(scene / "images/scene_cam_00_final_preview/frame.0003.tonemap.jpg", quality=95)
    (scene / "_detail/metadata_scene.csv").write_text(
        f"parameter_name,parameter_value\nmeters_per_asset_unit,{METRES}\n"
    )
    names = [f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3)]
    values = [repr(float(x)) for x in camera_from_uv.reshape(-1)]
    (root / "metadata_camera_parameters.csv").write_text(
        f"scene_name,settings_units_info_meters_scale,{','.join(names)}\nai_001_001,1,{','.join(values)}\n"
    )
    return pose


@pytest.mark.parametrize("lens", [STRAIGHT, TILTED, SHIFTED], ids=["straight", "tilted", "shifted"])
def test_hypersim_distances_become_z_whatever_the_lens(tmp_path: Path, lens: np.ndarray) -> None:
    pose = write_hypersim(tmp_path, lens)
    frame = checked(read_all("hypersim", tmp_path)["ai_001_001:cam_00.0003"])
    assert_on_stage(frame, 1e-5, share=0.3, levels=None)
    assert np.array_equal(pose_of(frame)[:3, 3], pose[:3, 3] / METRES * METRES)
    turned = pose_of(frame)[:3, :3].T @ pose[:3, :3]
    assert np.allclose(turned, np.eye(3), atol=1e-9) == (lens is not TILTED), "a tilted plane is looked at squarely"


def test_hypersim_colour_is_tone_mapped_or_taken_from_the_preview(tmp_path: Path) -> None:
    write_hypersim(tmp_path / "a", STRAIGHT)
    write_hypersim(tmp_path / "b", STRAIGHT, preview=True)
    (a,), (b,) = (read_all("hypersim", tmp_path / name).values() for name in "ab")
    assert (a.flags, b.flags) == ((), ("preview",))
    assert_on_stage(b, 1e-5, levels=10)  # small JPEGs halve the resolution of colour
    shown = a.image[a.depth > 0] / 255
    brightness = shown**2.2 @ [0.3, 0.59, 0.11]
    assert np.percentile(brightness, 90) ** (1 / 2.2) == pytest.approx(0.8, abs=0.01)
    points, seen = world_points(a)
    painted = colour(points)
    ratio = (seen / np.maximum(painted, 1))[(painted > 60) & (seen < 255)]
    assert ratio.std() / ratio.mean() < 0.01, "one exposure for all of the picture"


def test_tone_mapping_of_darkness_and_of_broken_pixels() -> None:
    black = np.full((2, 2, 3), 5e-5)  # shown as it is, 3 of 255
    assert tone_mapped(black, np.ones((2, 2), bool)).max() == 0
    burnt = np.full((2, 2, 3), 0.5)
    burnt[0, 0], burnt[0, 1] = np.nan, np.inf
    assert tone_mapped(burnt, np.array([[0, 0], [1, 1]], bool)).tolist() == [[[0] * 3, [255] * 3], [[204] * 3] * 2]


def test_the_split_of_a_ray_matrix_gives_the_same_rays() -> None:
    K, R = split_rays(TILTED, H, W)
    assert K[1:].tolist() == [[0, *K[1, 1:]], [0, 0, 1]]
    assert np.allclose(R @ R.T, np.eye(3))
    pixels = np.random.default_rng(0).uniform([0, 0], [W, H], (50, 2))
    ours = np.c_[pixels, np.ones(50)] @ np.linalg.inv(K).T @ R.T
    uv = np.c_[pixels[:, 0] / W * 2 - 1, 1 - pixels[:, 1] / H * 2, np.ones(50)]
    theirs = uv @ TILTED.T @ OPENGL[:3, :3]
    assert np.allclose(np.cross(ours, theirs), 0, atol=1e-12)
    assert ((ours * theirs).sum(-1) > 0).all()


def test_hypersim_asks_for_the_table_of_cameras(tmp_path: Path) -> None:
    write_hypersim(tmp_path, STRAIGHT)
    table = tmp_path / "metadata_camera_parameters.csv"
    table.write_text(table.read_text().replace("ai_001_001", "ai_001_002"))
    with pytest.raises(Unreadable, match="no row for ai_001_001"):
        read_all("hypersim", tmp_path)
    table.unlink()
    with pytest.raises(ValueError, match=r"metadata_camera_parameters\.csv is missing: copy it there"):
        read_all("hypersim", tmp_path)
