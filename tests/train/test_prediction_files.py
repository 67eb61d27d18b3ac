"""What a prediction is written as, read back by others' readers: OpenEXR, PIL, trimesh, numpy."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import trimesh
from PIL import Image

from tests.train.spheres import sphere, stack
from train.evaluation.truth import Truth
from train.prediction import output
from train.prediction.archive import read_npz
from train.prediction.depth_files import depth_names
from train.prediction.pictures import Shown, prediction_sheet, spread
from train.prediction.prediction import Prediction, new_points

SIZE = 48
EVERY = tuple(f"a{suffix}" for suffix in output.SUFFIXES)


def ball(t: int = 0, size: int = SIZE, layers: int = 6, seeds: int = 3, noise: float = 0.0) -> Prediction:
    """A sphere that goes to the right from frame to frame, told by several seeds that all but agree."""
    xyz, valid = stack(sphere(size, (0.05 * t, 0, 2)), layers)
    rng = np.random.default_rng(t)
    drawn = np.stack([xyz * (1 + noise * rng.normal(size=(*xyz.shape[:3], 1))) for _ in range(seeds)])
    rgb = np.broadcast_to(np.where(valid[..., None], [1, 0.5, 0], 0), (size, size, 3)).astype(np.float32)
    K = np.repeat(
        np.array([[500 / 512 * size, 0, size / 2], [0, 500 / 512 * size, size / 2], [0, 0, 1]])[None], seeds, 0
    )
    return Prediction(rgb, valid, drawn.astype(np.float32), K, tuple(range(seeds)), name="ball")


def test_the_exr_has_the_layers_and_says_how_many_are_true(tmp_path: Path) -> None:
    made = ball()
    output.write([made], [tmp_path / "a.exr"])
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        channels = {name: channel.pixels for name, channel in file.channels().items()}
        about = json.loads(file.header()["worldtrace"])
    for l in range(6):
        assert channels[f"L{l}.Z"].dtype == np.float32
        np.testing.assert_array_equal(channels[f"L{l}.Z"], made.xyz[0, l, ..., 2])
    new = new_points(made.xyz[0], made.exists[0])
    np.testing.assert_array_equal(channels["hits"], new.sum(axis=0))  # of a sphere they are the first ones
    np.testing.assert_array_equal(channels["RGBA"][..., 3], made.valid)
    np.testing.assert_allclose(channels["RGBA"][made.valid][:, 1], 0.214, atol=0.003)  # linear
    assert about["key"] == "ball"
    np.testing.assert_allclose(about["K"], made.K[0])  # type: ignore[index]


def test_png_layers_come_back_within_half_a_code(tmp_path: Path) -> None:
    made = ball()
    lines = output.write([made], [tmp_path / "a.depth.png"])
    assert f"a.L0.depth.png to {tmp_path / 'a.L5.depth.png'}: 16 bit, 0 is no point" in lines[-1]
    new = new_points(made.xyz[0], made.exists[0])
    for l, path in enumerate(depth_names(tmp_path / "a.depth.png", 6)):
        with Image.open(path) as picture:
            assert picture.mode == "I;16"
            codes, scale = np.asarray(picture), float(picture.text["depth_scale"])  # type: ignore[attr-defined]
            assert json.loads(picture.text["worldtrace"])["layer"] == l  # type: ignore[attr-defined]
        np.testing.assert_array_equal(codes > 0, new[l])
        assert np.abs(codes * scale - made.xyz[0, l, ..., 2])[new[l]].max(initial=0) <= scale / 2 * 1.001
    assert scale * 65535 == pytest.approx(made.xyz[..., 2].max())


def test_a_point_at_the_camera_is_still_a_point(tmp_path: Path) -> None:
    made = ball(layers=1, seeds=1)
    xyz = made.xyz.copy()
    v, u = np.argwhere(made.valid)[0]
    xyz[0, 0, v, u, 2] = -0.5
    output.write([replace(made, xyz=xyz)], [tmp_path / "a.depth.png"])
    assert np.asarray(Image.open(tmp_path / "a.L0.depth.png"))[v, u] == 1


def test_points_and_triangles_are_chosen_by_mesh(tmp_path: Path) -> None:
    made = ball()
    points = int(new_points(made.xyz[0], made.exists[0]).sum())
    for suffix in (".glb", ".ply"):
        output.write([made], [tmp_path / f"p{suffix}"])
        lines = output.write([made], [tmp_path / f"m{suffix}"], mesh=True, closed=True, hidden="image")
        cloud, mesh = (trimesh.load(tmp_path / f"{name}{suffix}") for name in "pm")
        cloud, mesh = (next(iter(each.geometry.values())) if suffix == ".glb" else each for each in (cloud, mesh))
        assert len(cloud.vertices) == points
        assert lines[-1].endswith(f": {len(mesh.faces)} triangles")
        assert mesh.is_watertight


def test_what_is_hidden_is_grey_or_as_the_image(tmp_path: Path) -> None:
    made = ball(seeds=1)
    for hidden, colour in (("grey", (150, 150, 150)), ("image", (255, 128, 0))):
        output.write([made], [tmp_path / "a.ply"], hidden=hidden)  # type: ignore[arg-type]
        cloud = trimesh.load(tmp_path / "a.ply")
        assert (np.asarray(cloud.colors)[cloud.vertices[:, 2] > 2.1][:, :3] == colour).all()
        assert (np.asarray(cloud.colors)[: made.valid.sum(), :3] == (255, 128, 0)).all()


def test_a_clip_is_one_npz_and_one_sheet_and_a_file_per_frame_of_all_else(tmp_path: Path) -> None:
    frames = [ball(t) for t in range(10)]
    lines = output.write(frames, [tmp_path / name for name in EVERY])
    assert len(read_npz(tmp_path / "a.npz")) == 10
    assert "in 10 frames" in lines[0]
    for suffix in (".glb", ".ply", ".exr"):
        assert [path.name for path in sorted(tmp_path.glob(f"*{suffix}"))] == [f"a.{t:04d}{suffix}" for t in range(10)]
    assert len(list(tmp_path.glob("a.*.L?.depth.png"))) == 60
    scales = {Image.open(path).text["depth_scale"] for path in tmp_path.glob("*.depth.png")}  # type: ignore[attr-defined]
    assert len(scales) == 1
    sheets = [path.name for path in tmp_path.glob("*.png") if "depth" not in path.name]
    assert sheets == ["a.png"]
    with Image.open(tmp_path / "a.png") as page:  # eight frames of ten, with a row of the deviation each
        assert page.height > 16 * page.width / 8


def test_layers_that_are_not_there_are_in_no_file(tmp_path: Path) -> None:
    made = ball(seeds=1)
    exists = made.exists.copy()
    exists[:, 1:] = False
    xyz = np.where(exists[..., None], made.xyz, np.nan).astype(np.float32)
    output.write([replace(made, xyz=xyz, exists=exists)], [tmp_path / name for name in EVERY])
    output.write([replace(made, xyz=xyz, exists=exists)], [tmp_path / "m.glb"], mesh=True)
    assert len(trimesh.load(tmp_path / "a.ply").vertices) == made.valid.sum()
    assert not np.asarray(Image.open(tmp_path / "a.L1.depth.png")).any()
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        assert file.channels()["hits"].pixels.max() == 1
        assert not file.channels()["L1.Z"].pixels.any()


@pytest.mark.parametrize("name", [name for name in EVERY if name.endswith((".glb", ".ply", ".depth.png"))])
def test_points_that_are_no_numbers_are_refused_and_leave_no_file(tmp_path: Path, name: str) -> None:
    made = ball(seeds=1)
    xyz = made.xyz.copy()
    xyz[0, 0][made.valid] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        output.write([replace(made, xyz=xyz)], [tmp_path / name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.gif"], r"its suffix says what is written; use one of .glb, .ply, .png, .depth.png, .exr, .npz"),
        (["a"], "its suffix says what is written"),
        ([".depth.png"], "it has no name before .depth.png"),
        (["b.png", "b.png"], "given twice"),
        (["photo.png"], "is the picture itself"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_computed(names: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        output.check([Path(name) for name in names], [Path("photo.png")])
    output.check([Path(name) for name in EVERY], [Path("photo.png")])


def test_a_prediction_is_judged_and_shown_beside_its_truth(tmp_path: Path) -> None:
    """At half its size and moved away it is the truth again after alignment, on the sheet too: same colours."""
    made = ball(seeds=1)
    truth = Truth("ball", made.rgb, made.valid, made.xyz[0], new_points(made.xyz[0], made.exists[0]).sum(0), False)
    scaled = (made.xyz - [0, 0, 0.7]) * made.valid[..., None] / 2
    lines = output.write([replace(made, xyz=scaled.astype(np.float32))], [tmp_path / "a.png"], [truth])
    assert "layer-0 AbsRel 0.0000" in lines[1]
    page = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    tile = (page.shape[1] - 4) // 7
    rows = [page[22 + k * (160 + 22) + 18 :, tile:][:160] for k in (0, 1)]
    assert np.abs(rows[0] - rows[1]).mean() < 2


def test_the_deviation_of_seeds_is_that_of_their_depth() -> None:
    xyz, exists = np.zeros((2, 1, 2, 2, 3), np.float32), np.ones((2, 1, 2, 2), bool)
    xyz[1, ..., 2] = 0.5
    exists[1, 0, 0, 0] = False
    found = spread(xyz, exists)
    assert found is not None
    np.testing.assert_allclose(found[0], [[0, 0.25], [0.25, 0.25]])
    assert spread(xyz[:1], exists[:1]) is None


def test_a_sheet_of_nothing_is_still_a_sheet(tmp_path: Path) -> None:
    nothing = np.zeros((20, 30), bool)
    stacked = np.full((6, 20, 30, 3), np.nan)
    shown = Shown(np.zeros((20, 30, 3)), nothing, stacked, np.zeros((6, 20, 30), bool), spread=np.zeros((6, 20, 30)))
    with Image.open(prediction_sheet(tmp_path / "a.png", [shown], "nothing")) as page:
        assert page.width == 4 + 7 * 164


@pytest.mark.slow
def test_all_formats_of_a_504_pixel_prediction_take_less_than_ten_seconds(tmp_path: Path) -> None:
    """CPU time: a loaded machine tells nothing about this code."""
    made = ball(size=504, seeds=8, noise=0.001)
    began = time.process_time()
    output.write([made], [tmp_path / name for name in EVERY])
    output.write([made], [tmp_path / "m.glb", tmp_path / "m.ply"], mesh=True, closed=True)
    assert time.process_time() - began < 10
