"""NYU Depth V2, ETH3D and MoGe's layout: files as their public descriptions have them give back the stage's metres."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

import shards
from shards.rgbd import Frame, Unreadable, colmap, open_corpus
from shards.rgbd.base import Scene, checked
from shards.rgbd.eth3d import framing, nearest_known
from shards.rgbd.plan import Selection, Settings
from shards.rgbd.write import import_corpus
from tests.shards.rgbd import judged
from tests.shards.rgbd.corpora import POSES
from tests.shards.rgbd.stage import assert_on_stage, photograph, pose_of, read_all


def near(frame: Frame) -> Frame:
    """Without what is 5 metres away: there a pixel of these small pictures spans decimetres of the floor."""
    return replace(frame, depth=np.where(frame.depth < 5, frame.depth, np.float32(0)))


def posed(frame: Frame, number: int) -> Frame:
    """With the pose that the files do not hold, so that its points can be compared with the stage."""
    return replace(frame, world_from_camera=POSES[number % 2])


def test_nyu(tmp_path: Path) -> None:
    judged.nyu(tmp_path)
    frames = read_all("nyu", tmp_path)
    assert list(frames) == ["test/kitchen_0004:0001", "train/living_room_0046a:0002", "train/living_room_0046b:0003"]
    for number, frame in enumerate(frames.values()):
        assert frame.depth.shape == (427, 561)
        assert frame.world_from_camera is None
        assert_on_stage(posed(frame, number), 1e-5, share=0.9, levels=1)
        assert not frame.depth[200 - 44 : 220 - 44, 300 - 40 : 340 - 40].any(), "a hole of the sensor"


def test_nyu_painted_in_and_crops(tmp_path: Path) -> None:
    judged.nyu(tmp_path)
    filled = read_all("nyu", tmp_path, {"depth": "filled"})["test/kitchen_0004:0001"]
    assert_on_stage(posed(filled, 0), 1e-5, share=0.9, levels=1)
    assert filled.depth[160:170, 270:290].all(), "no hole is left"
    whole = read_all("nyu", tmp_path, {"crop": "none"})["test/kitchen_0004:0001"]
    assert whole.depth.shape == (480, 640)
    assert (whole.image[:7] == 255).all()
    bordered = read_all("nyu", tmp_path, {"crop": "border"})["test/kitchen_0004:0001"]
    assert bordered.depth.shape == (467, 625)
    assert not (bordered.image == 255).all(axis=-1).any(), "no white border is left"
    assert np.array_equal(bordered.depth, whole.depth[7:474, 7:632])
    with pytest.raises(ValueError, match="option crop of corpus nyu is 'eigen': give toolbox or border or none"):
        open_corpus("nyu", tmp_path, {"crop": "eigen"})


def test_nyu_without_its_split_and_as_exported(tmp_path: Path) -> None:
    judged.nyu(tmp_path / "a", splits=False)
    scenes = list(open_corpus("nyu", tmp_path / "a").scenes())
    assert scenes == [
        Scene("kitchen_0004", "kitchen_0004"),
        Scene("living_room_0046a", "living_room_0046"),
        Scene("living_room_0046b", "living_room_0046"),
    ]
    judged.nyu_exported(tmp_path / "b")
    frames = read_all("nyu", tmp_path / "b")
    assert list(frames) == ["test/bathroom:rgb_00045.jpg"]
    assert_on_stage(posed(frames["test/bathroom:rgb_00045.jpg"], 0), 0.001, share=0.9, levels=1)


def test_nyu_that_is_damaged(tmp_path: Path) -> None:
    judged.nyu(tmp_path)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    scene = Scene("test/kitchen_0004", "kitchen_0004")
    with pytest.raises(Unreadable, match="holds 3 images, 3 depth maps"):
        open_corpus("nyu", tmp_path).read(scene, "0004")
    with h5py.File(path, "r+") as file:
        del file["rawDepths"]
        file["rawDepths"] = h5py.ExternalLink("/etc/passwd", "x")
        letters = file["#refs#/1"]
        letters[:2] = [[ord(".")], [ord("/")]]
    with pytest.raises(Unreadable, match="has no array 'rawDepths' of its own"):
        open_corpus("nyu", tmp_path).read(scene, "0001")
    with pytest.raises(ValueError, match=r"nyu_depth_v2_labeled.mat cannot be read: .*names a scene './"):
        list(open_corpus("nyu", tmp_path).scenes())
    scipy.io.savemat(tmp_path / "splits.mat", {"testNdxs": np.zeros((200, 200))})
    with pytest.raises(ValueError, match="cannot be read: "):
        list(open_corpus("nyu", tmp_path).scenes())


def test_nyu_reads_names_from_its_own_file_alone(tmp_path: Path) -> None:
    judged.nyu(tmp_path, splits=False)
    (tmp_path / "secret").write_bytes("hunt".encode("utf-16-le"))

    def told(**how: Any) -> str:
        with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "r+") as file:
            del file["#refs#/1"]
            file.create_dataset("#refs#/1", (4, 1), np.uint16, **how)
            file["scenes"][0, 1] = file["#refs#/1"].ref
        with pytest.raises(ValueError, match="cannot be read: ") as caught:
            list(open_corpus("nyu", tmp_path).scenes())
        return str(caught.value)

    assert "is no text" in told(external=[(str(tmp_path / "secret"), 0, 8)])
    layout = h5py.VirtualLayout((4, 1), np.uint16)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (4, 1))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.array([[104], [117], [110], [116]], np.uint16)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "r+") as file:
        del file["#refs#/2"]
        file["scenes"][0, 2] = file.create_virtual_dataset("#refs#/2", layout).ref
    assert "is no text" in told(data=np.full((4, 1), ord("a"), np.uint16))
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "r+") as file:
        file["scenes"][0, 2] = file["#refs#/0"].ref
    assert "is no text" in told(maxshape=(None, None), chunks=(1 << 20, 1), compression="gzip")


def test_nyu_split_of_anything_but_numbers_is_refused(tmp_path: Path) -> None:
    """scipy goes through a struct of 600 million elements and no field one by one, which takes for ever."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    judged.nyu(tmp_path, splits=False)
    head = element(6, struct.pack("<II", 2, 0)) + element(5, struct.pack("<ii", 60000, 10000))
    fields = struct.pack("<HHI", 5, 4, 32) + element(1, b"")
    both = [element(14, head + element(1, name) + fields) for name in (b"trainNdxs", b"testNdxs")]
    (tmp_path / "splits.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\0\1IM" + b"".join(both))
    with pytest.raises(ValueError, match=r"trainNdxs of splits.mat is no list of numbers, but \(60000, 10000\) struct"):
        list(open_corpus("nyu", tmp_path).scenes())


@pytest.mark.parametrize("corpus", ["nyu", "eth3d"])
def test_a_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str) -> None:
    if corpus == "nyu":
        judged.nyu_exported(tmp_path / "in")
    else:
        judged.eth3d(tmp_path / "in" / "training", ("kicker",))
    options = {} if corpus == "nyu" else {"side": "63"}
    there = read_all(corpus, tmp_path / "in", options)
    monkeypatch.chdir(tmp_path)
    here = read_all(corpus, Path("in"), options)
    assert list(here) == list(there)
    assert here
    assert all(np.array_equal(here[name].depth, there[name].depth) for name in there)


def test_eth3d_lens() -> None:
    """Against the equations written out once more; the frame that the real lens fills touches its photograph."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-0.9, 0.9, (2, 500))
    fx, fy, cx, cy, *terms = judged.LENS
    lens = colmap.Lens("THIN_PRISM_FISHEYE", 189, 126, (fx, fy), (cx, cy), tuple(terms))
    assert np.allclose(lens.project(x, y), judged.distorted(x, y), atol=1e-9)
    assert np.allclose(judged.undistorted(*lens.project(x, y)), [x, y], atol=1e-6)
    real = colmap.Lens("THIN_PRISM_FISHEYE", 6048, 4032, judged.FOCAL, judged.CENTRE, judged.DISTORTION)
    K, height, width = framing(504, real)
    assert (height, width) == (504, 756)
    assert K[0, 0] == K[1, 1] == pytest.approx(3411 / 8, rel=0.1)
    assert not real.folds(1.0)
    v, u = np.mgrid[0:504, 0:756] + 0.5
    at, down = real.project((u - 378) / K[0, 0], (v - 252) / K[1, 1])
    assert 0 <= at.min() <= at.max() < 6048
    assert 0 <= down.min() <= down.max() < 4032
    assert min(at.min(), 6048 - at.max(), down.min(), 4032 - down.max()) < 1, "as wide as the lens allows"
    folding = replace(real, distortion=(-300.0, 0, 0, 0, 0, 0, 0, 0))
    with pytest.raises(Unreadable, match="no pinhole frame lies within what the THIN_PRISM_FISHEYE lens sees"):
        framing(504, folding)


@pytest.mark.parametrize("images", ["distorted", "undistorted"])
def test_eth3d(tmp_path: Path, images: str) -> None:
    judged.eth3d(tmp_path)
    frames = read_all("eth3d", tmp_path, {"side": "63", "images": images})
    assert list(frames) == [
        "indoor/kicker:DSC_0286.JPG",
        "indoor/kicker:DSC_0287.JPG",
        "outdoor/courtyard:DSC_0286.JPG",
        "outdoor/courtyard:DSC_0287.JPG",
    ]
    for number, frame in enumerate(frames.values()):
        assert frame.image.shape[0] == 63
        assert_on_stage(near(frame), 0.06, levels=None, edges=0.02)  # of a photograph of 189x126, half of it holes
        assert np.allclose(pose_of(frame), POSES[number % 2], atol=1e-9)
        assert np.allclose(checked(frame).depth, frame.depth)
        assert frame.image[-20:].max(axis=-1).min() > 0, "no black corner below (above is the sky)"


@pytest.mark.parametrize("images", ["distorted", "undistorted"])
def test_eth3d_is_not_shifted(tmp_path: Path, images: str) -> None:
    """Of nine cameras, half a pixel apart, the one whose K the frame has sees what is in the frame."""
    judged.eth3d(tmp_path, ("kicker",), holes=0.0)
    for frame, pose in zip(read_all("eth3d", tmp_path, {"side": "120", "images": images}).values(), POSES):
        apart = {}
        for shift in [(right, down) for right in (-0.5, 0, 0.5) for down in (-0.5, 0, 0.5)]:
            K = frame.K + np.array([[0, 0, shift[0]], [0, 0, shift[1]], [0, 0, 0]])
            image, z, _ = photograph(K, pose, *frame.depth.shape)
            known = (z > 0) & (z < 5) & (frame.depth > 0)
            colours = np.abs(frame.image.astype(float) - image)[known].mean()
            apart[shift] = float(np.abs(frame.depth - z)[known].mean()), colours
        assert min(apart, key=lambda shift: apart[shift][0]) == (0, 0)
        assert min(apart, key=lambda shift: apart[shift][1]) == (0, 0)
        assert apart[0, 0][1] < 1.5


def test_eth3d_in_scenes_of_the_papers_sides(tmp_path: Path) -> None:
    judged.eth3d(tmp_path, ("electro", "terrains"))
    assert [scene.name for scene in open_corpus("eth3d", tmp_path).scenes()] == ["indoor/terrains", "outdoor/electro"]
    papers = {"outdoor": "courtyard,facade,meadow,playground,terrace,terrains"}
    assert [s.name for s in open_corpus("eth3d", tmp_path, papers).scenes()] == ["indoor/electro", "outdoor/terrains"]


def test_eth3d_that_is_damaged(tmp_path: Path) -> None:
    judged.eth3d(tmp_path, ("kicker",))
    scene, frame = Scene("indoor/kicker", "kicker"), "DSC_0286.JPG"

    def reason() -> str:
        with pytest.raises(Unreadable) as caught:
            open_corpus("eth3d", tmp_path, {"side": "63"}).read(scene, frame)
        return caught.value.reason

    depth = tmp_path / "kicker" / "ground_truth_depth" / "dslr_images" / frame
    whole = depth.read_bytes()
    depth.write_bytes(whole[:-4])
    assert reason() == "truncated"
    depth.write_bytes(whole)
    calibration = tmp_path / "kicker" / "dslr_calibration_jpg"
    cameras = (calibration / "cameras.txt").read_text()
    (calibration / "cameras.txt").unlink()
    (calibration / "cameras.txt").write_text(cameras.replace("THIN_PRISM_FISHEYE", "FOV"))
    colmap.lenses.cache_clear()
    assert reason() == "distorted_camera"
    (calibration / "cameras.txt").write_text(cameras.replace(" 189 126 ", " 190 126 "))
    colmap.lenses.cache_clear()
    assert reason() == "size_mismatch"


def test_the_nearest_known_pixel_is_taken() -> None:
    """Against a search through all pixels."""
    rng = np.random.default_rng(1)
    depth = np.where(rng.random((40, 50)) < 0.03, rng.uniform(1, 9, (40, 50)), 0).astype(np.float32)
    u, v = rng.uniform(-2, 52, (2, 300))
    found = nearest_known(depth, u, v, footprint=12)
    rows, columns = np.nonzero(depth)
    for x, y, z in zip(u, v, found):
        if not (0 <= x < 50 and 0 <= y < 40):
            assert z == 0
            continue
        far = np.hypot(rows - int(y), columns - int(x))
        if z:
            assert z in depth[rows[far == far.min()], columns[far == far.min()]]
            assert far.min() <= 7
        else:
            assert far.min() > 6
    assert 0.3 < (found > 0).mean() < 0.99


def test_moge_layout(tmp_path: Path) -> None:
    judged.moge(tmp_path)
    frames = read_all("moge", tmp_path)
    assert list(frames) == ["a:a/0000", "b:b/0001"]
    for number, frame in enumerate(frames.values()):
        assert np.allclose(frame.K, judged.MOGE_K)
        assert not frame.depth[:5].any()
        assert frame.flags == ()
        assert_on_stage(posed(frame, number), 2e-3)  # a code is 3e-5 of the depth
    assert read_all("moge", tmp_path, {"relative": "true"})["a:a/0000"].flags == ("relative_scale",)
    judged.moge(tmp_path / "unit", unit=2.0)
    again = read_all("moge", tmp_path / "unit")["a:a/0000"]
    assert np.allclose(again.depth, 2 * frames["a:a/0000"].depth, rtol=1e-6)


def test_moge_that_lies(tmp_path: Path) -> None:
    judged.moge(tmp_path / "in")
    reader = open_corpus("moge", tmp_path / "in")
    with pytest.raises(Unreadable) as caught:
        reader.read(Scene("x"), "../in/a/0000/../../../elsewhere")
    assert caught.value.reason == "missing_file"
    (tmp_path / "in" / "a" / "0000" / "meta.json").write_text('{"intrinsics": [[1, 2], [3]]}')
    with pytest.raises(Unreadable, match="no intrinsics of 3x3 numbers"):
        reader.read(Scene("a"), "a/0000")
    (tmp_path / "in" / "b" / "0001" / "depth.png").write_bytes(
        (tmp_path / "in" / "b" / "0001" / "depth.png").read_bytes().replace(b"near", b"neap")
    )
    with pytest.raises(Unreadable):
        reader.read(Scene("b"), "b/0001")


def test_moge_beyond_all_numbers(tmp_path: Path) -> None:
    judged.moge(tmp_path, unit=1e300)
    with pytest.raises(Unreadable, match="unit 1e"):
        open_corpus("moge", tmp_path).read(Scene("a"), "a/0000")


def test_what_is_imported_can_be_chosen_by_its_side(tmp_path: Path) -> None:
    judged.eth3d(tmp_path / "eth3d")
    settings = Settings("eth3d", (("side", "63"),), size=63)
    out = tmp_path / "out"
    summary = import_corpus(tmp_path / "eth3d", str(out), settings, Selection(), workers=0)
    assert (summary.frames, summary.scenes, dict(summary.rejected)) == (4, 2, {})
    indoor = shards.open(out, where="asset like 'eth3d/indoor/%'")
    assert {view.origin.uid for view in indoor} == {"eth3d/indoor/kicker"}
    assert set(indoor.manifest["regime"].to_pylist()) == {"rgbd"}
    assert all(isinstance(view, shards.LayeredView) and view.single_layer for view in indoor)
