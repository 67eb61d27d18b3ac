"""Taskonomy, TartanAir v2, ParallelDomain and Aria Synthetic Environments: files as their public descriptions
have them, of a world of known geometry, give back its metres, colours and poses.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.rgbd import Unreadable, open_corpus
from shards.rgbd import aria_synthetic as aria
from shards.rgbd.base import checked, intrinsics
from shards.rgbd.pose import NED, OPENGL
from tests.shards.rgbd.stage import (
    SKY,
    assert_on_stage,
    camera,
    colour,
    met,
    photograph,
    pose_of,
    read_all,
)

H, W = 48, 64


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def quaternion(R: np.ndarray) -> np.ndarray:
    """(w, x, y, z) by the eigenvector of the 4x4 form: another way than the reader's inverse."""
    (a, b, c), (d, e, f), (g, h, i) = R
    N = [[a + e + i, h - f, c - g, d - b], [h - f, a - e - i, b + d, c + g]]
    N += [[c - g, b + d, e - a - i, f + h], [d - b, c + g, f + h, i - a - e]]
    return np.asarray(np.linalg.eigh(np.array(N))[1][:, -1])


# ---------------------------------------------------------------- Taskonomy

FOV = 1.1
SQUARE = 64


def write_taskonomy(root: Path, by_task: bool, older: bool = False, **camera_fields: Any) -> np.ndarray:
    pose = camera()
    focal = SQUARE / 2 / math.tan(FOV / 2)
    image, z, _ = photograph(intrinsics(focal, focal, SQUARE / 2, SQUARE / 2), pose, SQUARE, SQUARE)
    stored = np.where(z > 0, np.rint(z * 512), 0xFFFF).astype(np.uint16)

    def place(task: str) -> Path:
        return root / (f"{task}/taskonomy/allensville" if by_task else f"allensville/{task}")

    stem = "point_12_view_3_domain"
    write_png(place("rgb") / f"{stem}_rgb.png", image)
    write_png(place("depth_zbuffer") / f"{stem}_depth_zbuffer.png", stored)
    info = {"field_of_view_rads": FOV, "camera_location": pose[:3, 3].tolist(), **camera_fields}
    info.setdefault("camera_rotation_final_quaternion", quaternion(pose[:3, :3] @ OPENGL[:3, :3]).tolist())
    folder, domain = ("points", "fixatedpose") if older else ("point_info", "point_info")
    place(folder).mkdir(parents=True, exist_ok=True)
    (place(folder) / f"{stem}_{domain}.json").write_text(json.dumps(info))
    return pose


@pytest.mark.parametrize(("by_task", "older"), [(False, False), (True, False), (False, True)])
def test_taskonomy_in_its_layouts(tmp_path: Path, by_task: bool, older: bool) -> None:
    pose = write_taskonomy(tmp_path, by_task, older)
    (frame,) = read_all("taskonomy", tmp_path).values()
    assert_on_stage(frame, 0.5 / 512 * 1.5)
    assert np.allclose(pose_of(frame), pose)


def test_taskonomy_masks_and_absurd_cameras(tmp_path: Path) -> None:
    write_taskonomy(tmp_path, by_task=True)
    mask = np.full((SQUARE, SQUARE), 255, np.uint8)
    mask[:, :40] = 0
    write_png(tmp_path / "mask_valid/taskonomy/allensville/point_12_view_3_domain_depth_zbuffer.png", mask)
    (frame,) = read_all("taskonomy", tmp_path).values()
    assert not frame.depth[:, :40].any()
    assert frame.depth[:, 40:].any()
    for bad in ({"field_of_view_rads": "wide"}, {"field_of_view_rads": 7.0}, {"camera_location": ["x"] * 3}):
        write_taskonomy(tmp_path, True, **bad)
        with pytest.raises(Unreadable) as caught:
            read_all("taskonomy", tmp_path)
        assert caught.value.reason in ("absurd_intrinsics", "absurd_pose")


def test_taskonomy_angles_of_blender(tmp_path: Path) -> None:
    """Straight down at rotation 0, along +y of the world after a quarter turn about x: as a camera of Blender."""
    write_taskonomy(tmp_path, True)
    path = next(tmp_path.glob("point_info/taskonomy/allensville/*.json"))
    for angles, forward, down in (((0, 0, 0), (0, 0, -1), (0, -1, 0)), ((math.pi / 2, 0, 0), (0, 1, 0), (0, 0, -1))):
        info = {"field_of_view_rads": FOV, "camera_location": [0, 0, 0], "camera_rotation_final": angles}
        path.write_text(json.dumps(info))
        (frame,) = read_all("taskonomy", tmp_path).values()
        assert np.allclose(pose_of(frame)[:3, 2], forward)
        assert np.allclose(pose_of(frame)[:3, 1], down)


# ---------------------------------------------------------------- TartanAir v2


def write_tartanair(
    root: Path, environment: str = "OldTownFall", side: int = 64, name: str = "lcam_front"
) -> np.ndarray:
    pose = camera()
    run = root / environment / "Data_easy" / "P002"
    image, z, _ = photograph(intrinsics(side / 2, side / 2, side / 2, side / 2), pose, side, side)
    z = np.where(z > 0, z, 65504.0).astype("<f4")  # the sky
    bgra = z[..., None].view(np.uint8)  # as cv2.imwrite takes it
    for number in range(2):
        write_png(run / f"image_{name}/{number:06d}_{name}.png", image)
        write_png(run / f"depth_{name}/{number:06d}_{name}_depth.png", np.ascontiguousarray(bgra[..., [2, 1, 0, 3]]))
    theirs = pose @ np.linalg.inv(NED)
    w, x, y, zq = quaternion(theirs[:3, :3])
    line = " ".join(map(repr, map(float, (*theirs[:3, 3], x, y, zq, w))))
    (run / f"pose_{name}.txt").write_text(f"{line}\n{line}\n")
    return pose


def test_tartanair_floats_in_png_and_its_axes(tmp_path: Path) -> None:
    pose = write_tartanair(tmp_path)
    frames = read_all("tartanair", tmp_path)
    assert list(frames) == [f"OldTownFall/Data_easy/P002:00000{i}_lcam_front" for i in range(2)]
    for frame in frames.values():
        assert_on_stage(frame, 1e-5)
        assert np.allclose(pose_of(frame), pose)
        assert frame.depth.max() < SKY


def test_tartanair_cameras_places_and_lost_poses(tmp_path: Path) -> None:
    write_tartanair(tmp_path)
    write_tartanair(tmp_path, "OldTownSummer", name="rcam_left")
    write_tartanair(tmp_path, "OldTownFallExposure")
    places = {s.name: s.place for s in open_corpus("tartanair", tmp_path, {"cameras": "all"}).scenes()}
    assert set(places.values()) == {"OldTown"}, "one town fills one split, whatever season and exposure"
    assert len(read_all("tartanair", tmp_path, {"cameras": "rcam_left"})) == 2
    with pytest.raises(ValueError, match="'lcam_fish' is none of"):
        open_corpus("tartanair", tmp_path, {"cameras": "lcam_fish"})
    pose = tmp_path / "OldTownFall/Data_easy/P002/pose_lcam_front.txt"
    pose.write_text(pose.read_text().splitlines()[0])
    with pytest.raises(Unreadable, match="has 1 lines, none for frame 1"):
        read_all("tartanair", tmp_path)


# ---------------------------------------------------------------- ParallelDomain


def write_parallel_domain(root: Path, lens: dict[str, float] | None = None, far: float = np.inf) -> np.ndarray:
    pose = camera(pitch=0.05)  # a good part of the picture is sky
    K = intrinsics(60.0, 61.0, W / 2 + 1.25, H / 2 - 0.75)
    image, z, _ = photograph(K, pose, H, W)
    scene = root / "scene_000000"
    write_png(scene / "rgb/Front/000000000000000005.png", np.dstack([image, np.full((H, W), 255, np.uint8)]))
    (scene / "depth/Front").mkdir(parents=True, exist_ok=True)
    depth = np.where(z > 0, z, far).astype(np.float32)
    np.savez_compressed(scene / "depth/Front/000000000000000005.npz", data=depth)
    q = dict(zip(("qw", "qx", "qy", "qz"), quaternion(pose[:3, :3]).tolist(), strict=True))
    where = {"rotation": q, "translation": dict(zip("xyz", pose[:3, 3].tolist(), strict=True))}
    shot = {"filename": "rgb/Front/000000000000000005.png", "pose": where, "height": H, "width": W}
    shot["annotations"] = {"2": "semantic", "6": "depth/Front/000000000000000005.npz"}
    data = [
        {"key": "aa", "id": {"name": "Front"}, "datum": {"image": shot}},
        {"key": "bb", "id": {"name": "Lidar"}, "datum": {"point_cloud": {"filename": "x.npz"}}},
    ]
    whole = {"samples": [{"datum_keys": ["aa", "bb"], "calibration_key": "cc"}], "data": data}
    (scene / "scene_0a1b.json").write_text(json.dumps(whole))
    of_front = {"fx": 60.0, "fy": 61.0, "cx": K[0, 2] - 0.5, "cy": K[1, 2] - 0.5, **(lens or {})}  # skew 0 is left out
    calibration = {"names": ["Lidar", "Front"], "intrinsics": [{}, of_front], "extrinsics": [{}, {}]}
    (scene / "calibration").mkdir(exist_ok=True)
    (scene / "calibration/cc.json").write_text(json.dumps(calibration))
    return pose


@pytest.mark.parametrize("far", [np.inf, 0.0, 5000.0])
def test_parallel_domain_depth_calibration_and_pose(tmp_path: Path, far: float) -> None:
    pose = write_parallel_domain(tmp_path, far=far)
    frames = read_all("parallel_domain", tmp_path)
    assert list(frames) == ["scene_000000:Front.000000"]
    frame = checked(frames["scene_000000:Front.000000"])
    assert_on_stage(frame, 1e-5, share=0.3)
    assert frame.depth.max() < SKY
    assert np.allclose(pose_of(frame), pose)
    assert read_all("parallel_domain", tmp_path, {"cameras": "Rear"}) == {}


@pytest.mark.parametrize("lens", [{"fisheye": 1}, {"fisheye": True}, {"k1": -0.02}, {"xi": 0.4}])
def test_parallel_domain_lenses_are_never_ignored(tmp_path: Path, lens: dict[str, float]) -> None:
    write_parallel_domain(tmp_path, lens)
    with pytest.raises(Unreadable) as caught:
        read_all("parallel_domain", tmp_path)
    assert caught.value.reason == "distorted_camera"


def test_parallel_domain_scene_files_that_may_count(tmp_path: Path) -> None:
    write_parallel_domain(tmp_path)
    scene = tmp_path / "scene_000000"
    (scene / "scene_ffff.json").write_text('{"samples": [], "data": []}')
    with pytest.raises(Unreadable, match="0 scene files that may count"):
        read_all("parallel_domain", tmp_path)
    listed = {"scene_splits": {"0": {"filenames": ["scene_000000/scene_0a1b.json"]}}}
    (tmp_path / "scene_dataset_v1.0.json").write_text(json.dumps(listed))
    assert len(read_all("parallel_domain", tmp_path)) == 1
    (tmp_path / "scene_dataset_v1.0.json").write_text('{"scene_splits": []}')
    with pytest.raises(Unreadable) as caught:
        read_all("parallel_domain", tmp_path)
    assert caught.value.reason == "unreadable_scene"


# ---------------------------------------------------------------- Aria Synthetic Environments


def unprojected(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Rays (...,3) with z = 1 through pixels of the sensor (704, centres at whole numbers), NaN outside of the cone.

    The inverse of the published equations: the tangential part by fixed point, the radial one by a table.
    """
    seen = np.stack([(u - aria.CENTRE[0]) / aria.FOCAL, (v - aria.CENTRE[1]) / aria.FOCAL], axis=-1)
    p = np.array(aria.TANGENTIAL)
    xy = seen
    for _ in range(8):
        xy = seen - 2 * (xy @ p)[..., None] * xy - (xy**2).sum(-1, keepdims=True) * p
    angles = np.linspace(0, aria.CONE, 20001)
    radii = angles * (1 + sum(k * angles ** (2 * n) for n, k in enumerate(aria.RADIAL, start=1)))
    radius = np.linalg.norm(xy, axis=-1, keepdims=True)
    angle = np.interp(radius, radii, angles, right=np.nan)
    return np.concatenate([np.tan(angle) / radius * xy, np.ones_like(angle)], axis=-1)


def write_aria(root: Path, size: int = 704) -> np.ndarray:
    """A scene as the sensor of the glasses sees it, lying on its side. -> world_from_camera of the sensor."""
    scene = root / "17"
    upright = np.eye(4)
    upright[:3, :3] = aria.SENSOR_FROM_UPRIGHT
    pose = camera() @ np.linalg.inv(upright)
    grid = (np.arange(size) + 0.5) * 704 / size - 0.5
    rays = unprojected(*np.meshgrid(grid, grid))
    inside = np.isfinite(rays[..., 0])
    rays = np.where(inside[..., None], rays, [0, 0, 1])
    distance = np.where(inside, met(rays, pose), 0)
    points = rays / np.linalg.norm(rays, axis=-1, keepdims=True) * distance[..., None]
    image = np.where(distance[..., None] > 0, colour(points @ pose[:3, :3].T + pose[:3, 3]), 0).astype(np.uint8)
    (scene / "rgb").mkdir(parents=True)
    Image.fromarray(image).save(scene / "rgb/vignette0000001.jpg", quality=95)
    write_png(scene / "depth/depth0000001.png", np.rint(distance * 1000).astype(np.uint16))
    device = pose @ np.linalg.inv(aria.DEVICE_FROM_CAMERA)
    w, x, y, z = quaternion(device[:3, :3])
    row = ",".join(map(repr, map(float, (*device[:3, 3], x, y, z, w))))
    lines = ["graph_uid,tracking_timestamp_us,utc_timestamp_ns,tx,ty,tz,qx,qy,qz,qw,quality", *[f"a,1,2,{row},1"] * 2]
    (scene / "trajectory.csv").write_text("\n".join(lines) + "\n")
    return pose


def test_aria_is_rectified_upright_and_in_metres(tmp_path: Path) -> None:
    write_aria(tmp_path)
    (frame,) = read_all("aria_synthetic", tmp_path, {"size": "256"}).values()
    assert np.allclose(pose_of(frame), camera(), atol=1e-9), "the picture stands as the stage's camera does"
    # the files hold millimetres; where the ball ends, the nearest pixel stands for its whole width
    assert_on_stage(frame, 6e-4, edges=0.01)
    assert_on_stage(frame, 0.06)
    K = frame.K
    assert K[0, 0] == pytest.approx(128 / math.tan(math.radians(40)))
    assert K[0, 2] == K[1, 2] == 128


def test_the_lens_of_aria() -> None:
    """On the axis a ray meets the principal point; in the cone the projection inverts the table; outside: nothing."""
    u, v = aria.project(np.array([[0.0, 0, 1], [0, 0, -1], [5, 0, 1]]), 704)
    assert (u[0], v[0]) == (aria.CENTRE[0] + 0.5, aria.CENTRE[1] + 0.5)
    assert u[1:].tolist() == v[1:].tolist() == [-1, -1]
    pixels = np.random.default_rng(1).uniform(120, 580, (2, 400))
    rays = unprojected(*pixels)
    there = np.array(aria.project(rays, 704)) - 0.5
    assert np.abs(there - pixels).max() < 1e-3
    assert np.allclose(np.array(aria.project(rays, 1408)), (there + 0.5) * 2), "centres at +0.5 scale without a shift"


def test_the_lens_is_that_of_the_official_library() -> None:
    """CameraCalibration.project of projectaria_tools for getAseRgbCalibration(704), centres at whole numbers."""
    points = [[1.890241253243, 3.17013243701, 4.670142793073], [3.692559030797, 1.174247474476, 4.02832178928]]
    points += [[-0.17068745272, -0.046493347778, 5.947545293032]]
    theirs = [[471.9444805638077, 540.5863396331304], [607.4094998556736, 428.48738644740234]]
    theirs += [[349.1184038474506, 346.8655016774062]]
    assert np.abs(np.stack(aria.project(np.array(points), 704), axis=-1) - 0.5 - theirs).max() < 1e-7


def test_aria_refuses_other_sizes_and_goes_without_trajectory(tmp_path: Path) -> None:
    write_aria(tmp_path)
    (tmp_path / "17/trajectory.csv").unlink()
    (frame,) = read_all("aria_synthetic", tmp_path, {"size": "64"}).values()
    assert frame.world_from_camera is None
    write_png(tmp_path / "17/depth/depth0000001.png", np.ones((512, 512), np.uint16))
    with pytest.raises(Unreadable, match="known are 704x704"):
        read_all("aria_synthetic", tmp_path)
    with pytest.raises(ValueError, match="give 5 to 90 degrees"):
        open_corpus("aria_synthetic", tmp_path, {"fov": "120"})
