"""Points of surfaces in front of a sample's camera: on the shape that was rendered, and where its layers are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

import shards
from cluster.surfaces import make_surfaces, surface_points
from render.mesh import Mesh
from render.views import render_views
from shards import Clip, LayeredView, Origin, surface_file
from shards.surface_file import INDEX, SurfacePoints, read_surface, surface_name, write_index, write_surface
from tests.render.shapes import box, small, sphere
from train.evaluation.surfaces import Surfaces, within


def origin(name: str) -> Origin:
    return Origin(name, "test", f"{name:0<64}", "CC0-1.0")


def rendered(mesh: Mesh, folder: Path, **changes: object) -> list[LayeredView]:
    """Views (a clip's frames) of an asset whose points are in `folder`: made at the times that they show."""
    of = origin("a")
    found = render_views(mesh, of, small(**{"height": 64, "width": 64, "views": 2, **changes}))
    assert not found.rejected
    views = [v for s in found.samples for v in (s.frames if isinstance(s, Clip) else (s,))]
    times = sorted({float(v.info["time"]) for v in views if v.info.get("time") is not None})
    folder.mkdir(exist_ok=True)
    write_index(folder, {})
    write_surface(folder, of, surface_points(mesh, 20_000, 5, np.array(times) if times else None))
    return views


def test_points_of_a_sphere_lie_on_the_sphere_in_front_of_the_camera(tmp_path: Path) -> None:
    """An icosphere of radius 3 about (10, -20, 5): rendered with diameter 1 about the origin of the world."""
    unit = sphere(4)
    mesh = replace(unit, vertices=unit.vertices / np.linalg.norm(unit.vertices, axis=1).max() * 3 + [10, -20, 5])
    for view in rendered(mesh, tmp_path, crop=0.0):
        points = Surfaces(tmp_path).points(view)
        assert points.shape == (20_000, 3)
        centre = np.linalg.inv(view.world_from_camera)[:3, 3]
        radius = np.linalg.norm(points - centre, axis=1)
        assert radius.max() < 0.5 + 1e-3
        assert radius.min() > 0.498, "between corners an icosphere of 5,120 faces is flat"
        # what is seen of it agrees with the layers: the near half with layer 0, the far half with layer 1
        near = np.einsum("nc,nc->n", points - centre, points) < 0
        inner = view.hits == 2
        for layer, half in ((0, points[near]), (1, points[~near])):
            seen = view.xyz()[layer][inner].astype(np.float64)
            assert cKDTree(half).query(seen)[0].max() < 0.03
            pixel = (half @ np.asarray(view.K).T)[:, :2] / half[:, 2:]
            u, v = np.floor(pixel).astype(int).T
            # away from the outline, where a pixel spans much depth
            steady = inner[v, u] & (np.abs(np.einsum("nc,nc->n", half - centre, half)) > 0.5 * 0.5 * half[:, 2])
            assert steady.mean() > 0.4
            pixels = np.abs(view.depth[layer, v, u] - half[:, 2]) / (half[:, 2] / view.K[0, 0])
            assert pixels[steady].mean() < 0.6
            assert pixels[steady].max() < 2, (
                "half a diagonal of a pixel, where the slope is up to 1.7, and its curvature"
            )


def test_layers_of_a_view_lie_on_the_sampled_surface(tmp_path: Path) -> None:
    for view in rendered(box((1.0, 0.6, 0.8)), tmp_path):
        points = Surfaces(tmp_path).points(view)
        layers = view.xyz()[view.hit]
        assert cKDTree(points).query(layers)[0].max() < 0.04
        assert points.shape == (20_000, 3), "all of it, whatever the picture shows"


def test_an_animated_asset_is_there_at_the_time_of_each_frame(tmp_path: Path) -> None:
    cube = box((1.0, 1.0, 1.0))
    mesh = replace(cube, duration=1.0, pose=lambda t: cube.vertices + [3 * t, 0, 0])
    frames = rendered(mesh, tmp_path, regime="dynamic", frames=4, views=1, crop=0.0)
    assert len({frame.info["time"] for frame in frames}) == 4
    for frame in frames:
        points = Surfaces(tmp_path).points(frame)
        assert cKDTree(points).query(frame.xyz()[frame.hit])[0].max() < 0.03
    elsewhere = replace(frames[0], info={**frames[0].info, "time": frames[0].info["time"] + 0.01})
    with pytest.raises(ValueError, match=r"no points of the time .* they were made for another dataset"):
        Surfaces(tmp_path).points(elsewhere)
    nowhen = replace(frames[0], info={**frames[0].info, "time": float("nan")})
    with pytest.raises(ValueError, match="no points of the time nan"):
        Surfaces(tmp_path).points(nowhen)
    timeless = replace(frames[0], info={k: v for k, v in frames[0].info.items() if k != "time"})
    with pytest.raises(ValueError, match="the asset moves, and the sample does not say at what time"):
        Surfaces(tmp_path).points(timeless)


def test_of_a_scene_only_what_is_in_the_picture(tmp_path: Path) -> None:
    (view, *_) = rendered(box((1.0, 0.6, 0.8)), tmp_path)
    whole = Surfaces(tmp_path).points(view)
    K = view.K @ np.diag([3.0, 3.0, 1.0])  # a long lens
    seen = Surfaces(tmp_path).points(replace(view, K=K, regime="scene"))
    assert 0 < len(seen) < len(whole)
    walked = replace(view, K=K, regime="dynamic", info={**view.info, "camera": {"kind": "room"}})
    assert np.array_equal(Surfaces(tmp_path).points(walked), seen), "a clip that walks through a room"
    pixel = (seen @ K.T)[:, :2] / seen[:, 2:]
    assert pixel.min() >= 0
    assert pixel.max() < 64
    judged = K - np.array([[0, 0, 16], [0, 0, 8], [0, 0, 0]])  # rows 8 to 39, columns 16 to 55 of the stored picture
    part = Surfaces(tmp_path).points(replace(view, K=K, regime="scene"), judged, (32, 40))
    inner = (pixel[:, 0] >= 16) & (pixel[:, 0] < 56) & (pixel[:, 1] >= 8) & (pixel[:, 1] < 40)
    assert 0 < inner.sum() < len(seen)
    assert np.array_equal(part, seen[inner])
    assert len(within(np.array([[0, 0, -1.0], [0, 0, 1.0], [9, 0, 1.0]]), view.K, 64, 64)) == 1


def test_missing_and_wrong_files_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"has no surfaces.json: give a folder that `worldtrace cluster surfaces"
    ):
        Surfaces(tmp_path / "none")
    (view, *_) = rendered(box(), tmp_path / "a")
    surfaces = Surfaces(tmp_path / "a")
    stranger = replace(view, origin=replace(view.origin, sha256="f" * 64))
    with pytest.raises(FileNotFoundError, match=r"has no points of test/a .*\.npz\): make them by"):
        surfaces.points(stranger)
    with pytest.raises(ValueError, match=r"does not say how its asset was scaled \(info.normalisation\)"):
        surfaces.points(replace(view, info={}))
    path = tmp_path / "a" / surface_name(view.origin)
    whole = path.read_bytes()
    path.rename(tmp_path / "a" / surface_name(stranger.origin))
    with pytest.raises(ValueError, match="does not hold the points of test/a"):
        Surfaces(tmp_path / "a").points(stranger)
    for damaged in (b"", whole[: len(whole) // 2], b"PK" + whole[2:200]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is no file of surface points: .*; make it again"):
            Surfaces(tmp_path / "a").points(view)
    (tmp_path / "a" / INDEX).write_text('{"format": "else"}')
    with pytest.raises(ValueError, match="is not of worldtrace surfaces, version 1: make the points again"):
        Surfaces(tmp_path / "a")


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tmp_path.joinpath("x").mkdir()
    for times in (None, np.array([0.25, 0.5])):
        points = rng.normal(size=(1 if times is None else 2, 50, 3)) * 1e6
        write_surface(tmp_path, origin("b"), SurfacePoints(points, times))
        first = (tmp_path / surface_name(origin("b"))).read_bytes()
        read = read_surface(tmp_path, origin("b"))
        assert np.array_equal(read.points, points)
        assert (read.times is None) == (times is None)
        write_surface(tmp_path, origin("b"), SurfacePoints(points, times))
        assert (tmp_path / surface_name(origin("b"))).read_bytes() == first


def test_times_are_numbers(tmp_path: Path) -> None:
    write_surface(tmp_path, origin("b"), SurfacePoints(np.zeros((2, 5, 3)), np.array([np.nan, 1.0])))
    with pytest.raises(ValueError, match="holds points or times that are not finite"):
        read_surface(tmp_path, origin("b"))


def test_what_could_not_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface_file, "LARGEST", 1000)
    with pytest.raises(ValueError, match="2 times of 50 points are more than 0 MiB: ask for fewer points"):
        write_surface(tmp_path, origin("c"), SurfacePoints(np.zeros((2, 50, 3)), np.array([0.0, 1.0])))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> shards.Dataset:
    """Two procedural objects of the split test, as a job would have rendered them; dataset.json names their source."""
    from cluster.sources import parse

    folder = tmp_path_factory.mktemp("objects")
    source = parse("procedural:objects?count=80")
    samples: list[shards.Sample] = []
    for ref in source.assets():
        if shards.split_of(str(ref.sha256)) == "test" and len(samples) < 4:
            mesh, of = source.load(ref, None)
            samples += render_views(mesh, of, small(views=2)).samples
    rows = shards.write_shard(folder / "shards" / "000000-test.tar", [shards.encode(sample) for sample in samples])
    shards.write_manifest(folder, rows)
    config = {"layers": 6, "size": [32, 32], "job": {"sources": ["procedural:objects?count=80"]}}
    shards.write_dataset_json(folder, config)
    return shards.open(folder)


def test_the_command_finds_the_assets_again_and_goes_on(dataset: shards.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "points"
    summary = make_surfaces(dataset, out, count=3000)
    assert (summary.made, summary.stood, summary.lost) == (2, 0, [])
    surfaces = Surfaces(out)
    for view in dataset:
        assert isinstance(view, LayeredView)
        assert cKDTree(surfaces.points(view)).query(view.xyz()[view.hit])[0].mean() < 0.05
    files = {path.name: path.read_bytes() for path in out.glob("*.npz")}
    one = next(iter(sorted(files)))
    (out / one).write_bytes(files[one][:100])
    again = make_surfaces(dataset, out, count=3000)
    assert (again.made, again.stood) == (1, 1)
    assert {path.name: path.read_bytes() for path in out.glob("*.npz")} == files
    with pytest.raises(ValueError, match="holds points made with count 3000, not 10: give another --out"):
        make_surfaces(dataset, out, count=10)
    with pytest.raises(ValueError, match=r"is not empty and holds no surfaces\.json: give a new --out"):
        make_surfaces(dataset, tmp_path, count=10)


def test_an_asset_that_is_not_there_or_not_the_same_is_named(dataset: shards.Dataset, tmp_path: Path) -> None:
    lost = make_surfaces(dataset, tmp_path / "a", sources=["procedural:objects?count=2&seed=1"], count=10)
    assert [reason for _, reason, _ in lost.lost] == ["not_found"] * 2
    assert lost.lines()[0].endswith("points of 0 assets written; 2 could not be sampled")
    with pytest.raises(ValueError, match="no samples in split train; name another --split"):
        make_surfaces(dataset, tmp_path / "b", splits=("train",))
