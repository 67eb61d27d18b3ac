"""ScanNet, MegaDepth, BlendedMVS, ARKitScenes, Argoverse 2 and Waymo: files as their public descriptions have them, of
a world of known geometry, give back its metres, colours and poses.
"""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from shards.rgbd import Frame, Unreadable, open_corpus
from shards.rgbd.base import Scene
from tests.shards.rgbd import corpora
from tests.shards.rgbd.corpora import POSES, H, K, W
from tests.shards.rgbd.stage import assert_on_stage, pose_of, read_all, world_points


def test_megadepth(tmp_path: Path) -> None:
    corpora.megadepth(tmp_path)
    frames = read_all("megadepth", tmp_path)
    assert list(frames) == ["0001/dense0:0_a.jpg", "0001/dense0:1_a.jpg"]
    for frame, pose in zip(frames.values(), POSES):
        assert_on_stage(frame, 1e-5)
        assert np.allclose(pose_of(frame), pose, atol=1e-9)
        assert np.allclose(frame.K, K)
        assert frame.flags == ("relative_scale",)
        assert not frame.depth[:5].any()


def test_megadepth_where_the_archive_unpacks_and_models_of_d2net(tmp_path: Path) -> None:
    corpora.megadepth(tmp_path / "phoenix/S6/zl548/MegaDepth_v1")
    scene = tmp_path / "phoenix/S6/zl548/MegaDepth_v1/0001/dense0"
    model = tmp_path / "Undistorted_SfM/0001/sparse-txt"
    model.mkdir(parents=True)
    for name in ("cameras.txt", "images.txt"):
        (scene / name).rename(model / name)
    assert_on_stage(read_all("megadepth", tmp_path)["0001/dense0:0_a.jpg"], 1e-5)


def test_megadepth_rejects_ordinal_maps_and_lenses(tmp_path: Path) -> None:
    corpora.megadepth(tmp_path)
    corpora.megadepth(tmp_path, "0002")
    with h5py.File(tmp_path / "0001/dense0/depths/0_a.h5", "r+") as file:
        file["depth"][0, 0] = -1  # background of a segmented photograph
    cameras = tmp_path / "0002/dense0/cameras.txt"
    cameras.write_text(cameras.read_text().replace("PINHOLE", "OPENCV"))
    assert reason("megadepth", tmp_path, "0001/dense0", "0_a.jpg") == "unreadable_depth"
    assert reason("megadepth", tmp_path, "0002/dense0", "0_a.jpg") == "distorted_camera"


def test_blendedmvs(tmp_path: Path) -> None:
    corpora.blendedmvs(tmp_path)
    frames = read_all("blendedmvs", tmp_path)
    assert len(frames) == 2
    for frame, pose in zip(frames.values(), POSES):
        assert_on_stage(frame, 1e-5)
        assert np.allclose(pose_of(frame), pose, atol=1e-9)
        assert np.allclose(frame.K, K)
        assert frame.flags == ("relative_scale",)


def test_scannet_as_exported(tmp_path: Path) -> None:
    """Depth of another resolution and other intrinsics is that of the picture's rays, and colour fits the points."""
    corpora.scannet(tmp_path)
    frames = read_all("scannet", tmp_path)
    assert list(frames) == ["scene0003_00:0", "scene0003_00:1"]
    for frame, pose in zip(frames.values(), POSES):
        assert W > frame.depth.shape[1] > corpora.W_DEPTH
        assert_on_stage(near(frame), 0.002, edges=0.05, levels=1.3)  # half a pixel off gives 5 mm and 1.6 levels
        assert np.allclose(pose_of(frame), pose, atol=1e-5)


def test_scannet_sens_is_the_export(tmp_path: Path) -> None:
    corpora.scannet(tmp_path / "a", "scene0003_01")
    corpora.scannet_sens(tmp_path / "b")
    exported, packed = read_all("scannet", tmp_path / "a"), read_all("scannet", tmp_path / "b")
    assert list(exported) == list(packed)
    for name, frame in packed.items():
        assert np.array_equal(frame.depth, exported[name].depth)
        assert np.array_equal(frame.image, exported[name].image)
        assert np.allclose(frame.K, exported[name].K, rtol=1e-6)
    assert packed["scene0003_01:1"].world_from_camera is None  # tracking was lost


def test_scannet_cameras_apart(tmp_path: Path) -> None:
    """Extrinsics that are not the identity: points move from the depth camera to the colour camera."""
    motion = np.eye(4)
    motion[:3, 3] = 0.03, -0.02, 0.01
    corpora.scannet(tmp_path, motion=motion)
    frames = read_all("scannet", tmp_path)
    for frame in frames.values():
        assert_on_stage(near(frame), 0.03, edges=0.02)  # a point stands for the pixel that it falls into


def test_scannet_truncated_keeps_whole_frames(tmp_path: Path) -> None:
    path = corpora.scannet_sens(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    assert list(read_all("scannet", tmp_path)) == ["scene0003_01:0"]


def test_scans_of_a_room_are_one_place(tmp_path: Path) -> None:
    corpora.scannet(tmp_path, "scene0003_00")
    corpora.scannet(tmp_path, "scene0003_01")
    assert [scene.place for scene in open_corpus("scannet", tmp_path).scenes()] == ["scene0003"] * 2


@pytest.mark.parametrize("high", [False, True])
def test_arkitscenes(tmp_path: Path, high: bool) -> None:
    corpora.arkitscenes(tmp_path, high=high)
    frames = read_all("arkitscenes", tmp_path)
    assert list(frames) == ["Training/41069021:41069021_305.244.png", "Training/41069021:41069021_1007.343.png"]
    for frame, pose in zip(frames.values(), POSES):
        assert frame.depth.shape == ((2 * H, 2 * W) if high else (H, W))
        assert_on_stage(frame, 0.001)
        assert np.allclose(pose_of(frame), pose, atol=1e-9)
        assert high or not frame.depth[:, :10].any()  # of no confidence


def test_arkitscenes_prefers_the_laser_scanner_and_takes_what_is_asked(tmp_path: Path) -> None:
    corpora.arkitscenes(tmp_path)
    corpora.arkitscenes(tmp_path, high=True)
    (high, *_), (low, *_) = (
        list(read_all("arkitscenes", tmp_path, {"depth": which}).values()) for which in ("auto", "lowres")
    )
    assert high.depth.shape == (2 * H, 2 * W)
    assert low.depth.shape == (H, W)
    with pytest.raises(ValueError, match="give lowres, highres or auto"):
        open_corpus("arkitscenes", tmp_path, {"depth": "mid"})


def test_arkitscenes_venues_are_places(tmp_path: Path) -> None:
    corpora.arkitscenes(tmp_path, "41069021")
    corpora.arkitscenes(tmp_path, "41069025")
    assert len({scene.place for scene in open_corpus("arkitscenes", tmp_path).scenes()}) == 2
    (tmp_path / "metadata.csv").write_text("video_id,visit_id,fold\n41069021,7,Training\n41069025,7,Training\n")
    assert {scene.place for scene in open_corpus("arkitscenes", tmp_path).scenes()} == {"visit-7"}


@pytest.mark.parametrize("sky", ["Up", "Right", "Down", "Left"])
def test_arkitscenes_upright(tmp_path: Path, sky: str) -> None:
    """A picture that lies on its side is turned, and shows the same world in the same place."""
    corpora.arkitscenes(tmp_path)
    (tmp_path / "metadata.csv").write_text(f"video_id,visit_id,fold,sky_direction\n41069021,NA,Training,{sky}\n")
    stored, _ = read_all("arkitscenes", corpora_without_metadata(tmp_path)).values()
    frame, _ = read_all("arkitscenes", tmp_path).values()
    assert_on_stage(frame, 0.001)
    assert frame.depth.shape == ((H, W) if sky in ("Up", "Down") else (W, H))
    top = {"Up": stored.image[0], "Right": stored.image[:, -1], "Down": stored.image[-1, ::-1]}
    assert np.array_equal(frame.image[0], top.get(sky, stored.image[::-1, 0]))


def corpora_without_metadata(folder: Path) -> Path:
    other = folder.with_name(f"{folder.name}-stored")
    corpora.arkitscenes(other)
    return other


def test_argoverse2(tmp_path: Path) -> None:
    """The sweep was taken 20 ms before the picture, 30 cm and 3.4 degrees away; the lens is not applied."""
    points = corpora.argoverse2(tmp_path)
    (frame,) = read_all("argoverse2", tmp_path).values()
    assert frame.flags == ("sparse",)
    assert np.allclose(pose_of(frame), POSES[0], atol=1e-4)
    assert len(world_points(frame)[0]) > 1000
    local = (np.c_[points, np.ones(len(points))] @ np.linalg.inv(POSES[0]).T)[:, :3]
    u, v = (K[:2, :2] @ (local[:, :2] / local[:, 2:]).T + K[:2, 2:]).astype(int)
    within = (u >= 0) & (u < W) & (v >= 0) & (v < H)
    at = np.full((H, W), np.inf)
    np.minimum.at(at, (v[within], u[within]), local[within, 2])
    kept = frame.depth > 0
    assert kept.sum() > 0.95 * np.isfinite(at).sum()  # what is hidden over the ball's edge went
    assert np.mean(np.abs(frame.depth[kept] - at[kept]) < 1e-3) > 0.9  # float32 moves some over a pixel's border
    assert_on_stage(frame, 0.06, share=0.05, levels=8, edges=0.02)  # half a pixel where the ray falls


def test_argoverse2_needs_a_sweep_in_time(tmp_path: Path) -> None:
    corpora.argoverse2(tmp_path)
    (lidar,) = tmp_path.glob("val/*/sensors/lidar/*.feather")
    lidar.rename(lidar.with_name(f"{corpora.SWEEP - 10**8}.feather"))
    scene = next(iter(open_corpus("argoverse2", tmp_path).scenes()))
    assert reason("argoverse2", tmp_path, scene.name, f"{corpora.CENTRES}/{corpora.SHOT}") == "missing_file"


def test_waymo(tmp_path: Path) -> None:
    """Range images, the motion of the vehicle while they were taken, the lens: the points are those of the stage."""
    points = corpora.waymo(tmp_path)
    (frame,) = read_all("waymo", tmp_path).values()
    assert frame.flags == ("sparse",)
    assert np.allclose(pose_of(frame), POSES[0], atol=1e-6)
    assert np.allclose(frame.K, K)
    assert np.count_nonzero(frame.depth) > 0.8 * len(points) > 800
    assert_on_stage(frame, 0.06, share=0.05, levels=9, edges=0.02)


def test_waymo_rejects_a_lens_that_folds_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "BEAMS", 4)
    corpora.waymo(tmp_path)
    path = next((tmp_path / "training" / "camera_calibration").iterdir())
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    at = table.column_names.index("[CameraCalibrationComponent].intrinsic.k1")
    pq.write_table(table.set_column(at, table.column_names[at], [[-3.0]]), path)
    scene = next(iter(open_corpus("waymo", tmp_path).scenes()))
    assert reason("waymo", tmp_path, scene.name, f"{corpora.TIME}/front") == "distorted_camera"


def test_pictures_and_depth_of_different_sizes(tmp_path: Path) -> None:
    corpora.blendedmvs(tmp_path)
    project = next(tmp_path.iterdir())
    Image.new("RGB", (W, H - 1)).save(project / "blended_images" / "00000000.jpg")
    assert reason("blendedmvs", tmp_path, project.name, "00000000") == "size_mismatch"


def near(frame: Frame) -> Frame:
    """Without what is 5 metres away: there a pixel of these small pictures spans decimetres of the floor."""
    return replace(frame, depth=np.where(frame.depth < 5, frame.depth, np.float32(0)))


def reason(corpus: str, folder: Path, scene: str, frame: str) -> str:
    reader = open_corpus(corpus, folder)
    (found,) = (each for each in reader.scenes() if each.name == scene)
    assert isinstance(found, Scene)
    with pytest.raises(Unreadable) as error:
        reader.read(found, frame)
    return error.value.reason
