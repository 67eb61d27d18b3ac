"""The generic folder: every way of giving depth, intrinsics, poses and masks that its docstring promises."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
from PIL import Image

import shards
from shards.rgbd import Unreadable, open_corpus
from shards.rgbd.base import intrinsics
from shards.rgbd.plan import Settings
from shards.rgbd.write import import_corpus
from tests.shards.rgbd.stage import assert_on_stage, camera, photograph, pose_of, read_all

H, W = 48, 64
K = intrinsics(55.0, 57.0, 33.0, 22.5)


def write_pfm(path: Path, array: np.ndarray) -> None:
    rows = np.ascontiguousarray(array[::-1], "<f4")
    path.write_bytes(b"Pf\n%d %d\n-1.0\n" % (array.shape[1], array.shape[0]) + rows.tobytes())


def write_exr(path: Path, array: np.ndarray, channel: str = "Z") -> None:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {channel: np.ascontiguousarray(array, np.float32)}).write(str(path))


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "png": lambda path, z: Image.fromarray(np.rint(z * 1000).astype(np.uint16)).save(path),
    "npy": lambda path, z: np.save(path, z.astype(np.float32)),
    "pfm": write_pfm,
    "exr": write_exr,
}


def write_folder(
    root: Path, kind: str = "npy", depth: np.ndarray | None = None, given: dict[str, Any] | None = None
) -> np.ndarray:
    """One frame, `a`; the pose in poses/a.txt. -> z (H,W)."""
    image, z, _ = photograph(K, camera(), H, W)
    for name in ("images", "depth", "poses"):
        (root / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / "images/a.png")
    WRITERS[kind](root / f"depth/a.{kind}", z if depth is None else depth)
    (root / "poses/a.txt").write_text("\n".join(" ".join(map(repr, row)) for row in camera()[:3].tolist()))
    (root / "intrinsics.json").write_text(json.dumps({"K": K.tolist()} if given is None else given))
    return z


def only(frames: dict[str, Any]) -> Any:
    (frame,) = frames.values()
    return frame


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_every_kind_of_depth(tmp_path: Path, kind: str) -> None:
    write_folder(tmp_path / "rooms", kind)
    frames = read_all("folder", tmp_path / "rooms")
    assert list(frames) == ["rooms:a.png"]
    assert_on_stage(only(frames), 1e-3 if kind == "png" else 1e-5)
    assert np.array_equal(pose_of(only(frames)), camera())


def test_units_codes_and_distances(tmp_path: Path) -> None:
    _, z, distance = photograph(K, camera(), H, W)
    stored = np.where(z > 0, distance * 250, 65535)
    write_folder(tmp_path, "npy", stored)
    options = {"depth_scale": "250", "depth_kind": "distance", "unknown": "65535"}
    frame = only(read_all("folder", tmp_path, options))
    assert np.allclose(frame.depth, z, rtol=1e-6)
    near = only(read_all("folder", tmp_path, {**options, "far": "4", "relative": "true", "sparse": "true"}))
    assert near.depth.max() <= 4
    assert near.flags == ("relative_scale", "sparse")


def fields(pixel_centre: float, scale: float = 1.0) -> dict[str, float]:
    shift = 0.5 - pixel_centre
    named = {"fx": K[0, 0] * scale, "fy": K[1, 1] * scale}
    named |= {"cx": K[0, 2] * scale - shift, "cy": K[1, 2] * scale - shift, "pixel_centre": pixel_centre}
    return named if scale == 1 else {**named, "width": W * scale, "height": H * scale}


@pytest.mark.parametrize("given", [fields(0.5), fields(0), fields(0.5, 2.0), fields(0, 0.5)])
def test_intrinsics_mean_the_same_camera(tmp_path: Path, given: dict[str, float]) -> None:
    write_folder(tmp_path, given=given)
    frame = only(read_all("folder", tmp_path))
    assert np.allclose(frame.K, K)


def test_scenes_with_common_and_own_intrinsics_and_poses(tmp_path: Path) -> None:
    for scene in ("attic", "cellar"):
        write_folder(tmp_path / scene)
        (tmp_path / scene / "intrinsics.json").unlink()
        (tmp_path / scene / "poses/a.txt").unlink()
    (tmp_path / "intrinsics.json").write_text(json.dumps({"K": K.tolist()}))
    (tmp_path / "cellar/intrinsics").mkdir()
    own = {"K": K.tolist(), "world_from_camera": camera().tolist()}
    (tmp_path / "cellar/intrinsics/a.json").write_text(json.dumps(own))
    frames = read_all("folder", tmp_path)
    assert list(frames) == ["attic:a.png", "cellar:a.png"]
    assert frames["attic:a.png"].world_from_camera is None
    assert_on_stage(frames["cellar:a.png"], 1e-5)


def test_masks_and_depth_of_another_resolution(tmp_path: Path) -> None:
    fine, coarse = (np.diag([n, n, 1.0]) @ K for n in (8, 4))
    image, _, _ = photograph(fine, camera(), 8 * H, 8 * W)
    _, z, _ = photograph(coarse, camera(), 4 * H, 4 * W)
    write_folder(tmp_path, depth=z, given={"K": fine.tolist()})
    Image.fromarray(image).save(tmp_path / "images/a.png")
    (tmp_path / "masks").mkdir()
    mask = np.full((4 * H, 4 * W), 255, np.uint8)
    mask[:, : 2 * W] = 0
    Image.fromarray(mask).save(tmp_path / "masks/a.png")
    frame = only(read_all("folder", tmp_path))
    height, width = frame.depth.shape
    assert (height, width) == (5 * H, 5 * W), "1.25 times as fine as its depth"
    assert not frame.depth[:, : width // 2 - 1].any()
    assert_on_stage(frame, 2e-3, share=0.3, edges=0.03)  # where the ball ends, the nearest pixel stands alone
    assert_on_stage(frame, 0.1, share=0.3)
    Image.fromarray(np.ascontiguousarray(image[:, : 5 * W])).save(tmp_path / "images/a.png")
    with pytest.raises(Unreadable) as caught:
        read_all("folder", tmp_path)
    assert caught.value.reason == "size_mismatch"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"fx": 1, "fy": 1, "cx": 1, "cy": 1, "pixel_center": 0}, "did you mean 'pixel_centre'"),
        ({"fx": 50, "fy": 50, "cx": 32, "cy": 24, "k1": 0.1}, "key 'k1'"),
        ({"fx": 50, "fy": 50, "cx": 32}, "cy of the intrinsics is None"),
        ({"K": [[1, 0], [0, 1]]}, "not 3x3 numbers"),
        ({"K": K.tolist(), "fx": 3}, "one of the two"),
        ({}, "one of the two"),
        ({"K": K.tolist(), "pixel_centre": 0.25}, "pixel_centre is 0.25"),
        ({"K": K.tolist(), "width": 0}, "intrinsics are of"),
        ({"fx": 10**400, "fy": 50, "cx": 32, "cy": 24}, "fx of the intrinsics is 10000"),
        ({"K": [[10**400, 0, 32], [0, 50, 24], [0, 0, 1]]}, "not 3x3 numbers"),
        ([1, 2], "not a map"),
    ],
)
def test_what_is_amiss_with_intrinsics_is_said(tmp_path: Path, given: Any, says: str) -> None:
    write_folder(tmp_path, given=given)
    with pytest.raises(Unreadable, match=says) as caught:
        read_all("folder", tmp_path)
    assert caught.value.reason == "unreadable_camera"


@pytest.mark.filterwarnings("error")
def test_depth_beyond_single_precision_is_unknown(tmp_path: Path) -> None:
    """And nobody hears of it, who reads a million frames."""
    z = write_folder(tmp_path / "in", kind="npy")
    path = next((tmp_path / "in" / "depth").iterdir())
    np.save(path, np.where(np.arange(z.shape[1]) < 20, 1e300, np.load(path).astype(float)))
    import_corpus(tmp_path / "in", str(tmp_path / "out"), Settings("folder", size=48), workers=0)
    view = shards.open(tmp_path / "out")[0]
    assert isinstance(view, shards.LayeredView)
    assert not view.hits[:, :8].any()
    assert view.hits[:, 32:].any()


def damaged_exr(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda root: (root / "depth/a.exr").unlink(), "missing_file"),
        (lambda root: np.save(root / "depth/a.npy", np.ones((H, W))), "missing_file"),  # two kinds of depth
        (lambda root: damaged_exr(root / "depth/a.exr"), "unreadable_depth"),
        (lambda root: (root / "depth/a.exr").write_bytes(b"v/1\x01\x02\0\0\0"), "unreadable_depth"),
        (lambda root: (root / "intrinsics.json").unlink(), "missing_file"),
        (lambda root: (root / "poses/a.txt").write_text("1 2 3"), "absurd_pose"),
        (lambda root: Image.new("RGB", (W, H)).save(root / "images/a.jpg"), "unreadable_scene"),
    ],
)
def test_damage_has_a_typed_reason(tmp_path: Path, change: Callable[[Path], Any], reason: str) -> None:
    write_folder(tmp_path, "exr")
    change(tmp_path)
    with pytest.raises(Unreadable) as caught:
        read_all("folder", tmp_path)
    assert caught.value.reason == reason


def test_exr_channels(tmp_path: Path) -> None:
    z = write_folder(tmp_path, "exr")
    write_exr(tmp_path / "depth/a.exr", z, "anything")
    assert_on_stage(only(read_all("folder", tmp_path)), 1e-5)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}

    def of(names: Iterable[str]) -> None:
        planes = {name: np.full((H, W), float(i + 1), np.float32) for i, name in enumerate(names)}
        OpenEXR.File(header, planes).write(str(tmp_path / "depth/a.exr"))

    of(["A", "V", "Y"])
    assert set(np.unique(only(read_all("folder", tmp_path)).depth)) == {2}
    of(["A", "U"])
    with pytest.raises(Unreadable, match="none is a depth"):
        read_all("folder", tmp_path)


@pytest.mark.parametrize(
    ("option", "value"), [("depth_kind", "zbuffer"), ("depth_scale", "-1"), ("far", "nan"), ("unknown", "none")]
)
def test_options_are_checked_at_once(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"option {option} of corpus folder"):
        open_corpus("folder", tmp_path, {option: value})
