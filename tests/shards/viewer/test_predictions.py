"""Predictions are read as they were written, and judged as `worldtrace eval` judges them."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards import write_points
from shards.viewer import Predictions
from shards.viewer import predictions as predicted
from tests.shards.scenes import spheres_clip, spheres_view

VIEW = spheres_view(1, 48, 48)
RNG = np.random.default_rng(2)


def written(path: Path, count: int = 2, noise: float = 0.0, scale: float = 1.0, **changes: np.ndarray) -> Path:
    """As train/prediction/output.py writes it: xyz (S,L,H,W,3), rgb in [0,1], valid, seeds, K."""
    xyz = np.stack([scale * VIEW.xyz() + noise * RNG.normal(size=(*VIEW.depth.shape, 3)) for _ in range(count)])
    arrays = {
        "xyz": (xyz * VIEW.valid[None, None, ..., None]).astype(np.float32),
        "rgb": (VIEW.rgba[..., :3] / 255).astype(np.float32),
        "valid": VIEW.valid,
        "seeds": np.arange(count) + 5,
        "K": np.repeat(VIEW.K[None], count, 0),
    }
    np.savez_compressed(path, **{**arrays, **changes})
    return path


def test_an_npz_is_read_as_it_was_written(tmp_path: Path) -> None:
    written(tmp_path / f"{VIEW.key}.npz")
    found = Predictions(tmp_path).of(VIEW.key)
    assert isinstance(found, predicted.Prediction)
    assert found.seeds == (5, 6)
    np.testing.assert_allclose(found.xyz[1], VIEW.xyz(), atol=1e-6)
    np.testing.assert_array_equal(found.rgb[VIEW.valid], VIEW.rgba[..., :3][VIEW.valid])
    assert Predictions(tmp_path).of("another") is None
    assert isinstance(Predictions(tmp_path / f"{VIEW.key}.npz", "another").of("another"), predicted.Prediction)


def test_layers_that_a_model_denies_are_not_shown(tmp_path: Path) -> None:
    exists = np.broadcast_to(VIEW.valid, (2, *VIEW.depth.shape)).copy()
    exists[1, 2:] = False
    found = predicted.read_npz(written(tmp_path / "a.npz", exists=exists))
    stacks = [predicted.stack_of(found, seed, filled=True) for seed in (0, 1)]
    np.testing.assert_array_equal(np.stack([stack.there for stack in stacks]), exists)
    with pytest.raises(ValueError, match="does not fit"):
        predicted.read_npz(written(tmp_path / "b.npz", exists=exists[:, :3]))
    clip = np.zeros((2, 3, 6, 48, 48, 3), np.float32)
    with pytest.raises(ValueError, match="clip of 3 frames"):
        predicted.read_npz(written(tmp_path / "c.npz", xyz=clip))


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
@pytest.mark.parametrize("count", [0, 17])
def test_points_come_back_as_they_were(tmp_path: Path, suffix: str, count: int) -> None:
    xyz = RNG.normal(size=(count, 3)).astype(np.float32)
    rgb = RNG.integers(0, 256, (count, 3)).astype(np.uint8)
    write_points(tmp_path / f"key{suffix}", xyz, rgb)
    found = Predictions(tmp_path).of("key")
    assert isinstance(found, predicted.Cloud)
    np.testing.assert_array_equal(found.xyz, xyz)
    np.testing.assert_array_equal(found.rgb, rgb)


def test_layers_win_over_points(tmp_path: Path) -> None:
    written(tmp_path / "key.npz")
    write_points(tmp_path / "key.ply", np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8))
    assert isinstance(Predictions(tmp_path).of("key"), predicted.Prediction)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nend_header\n0 0 0\n"),
        ("a.ply", b"ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\nend_header\n"),
        ("a.ply", b""),
        ("a.glb", b"glTF" + bytes(40)),
        ("a.glb", b"glTF\2\0\0\0\xff\0\0\0\xff\xff\xff\x7fJSON{}"),
        ("a.npz", b"PK\3\4 no archive"),
        ("a.npz", b""),
    ],
)
def test_files_that_are_something_else_are_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        Predictions(tmp_path).of("a")


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for changes in (
        {"xyz": np.zeros((1, 6, 48, 48), np.float32)},
        {"valid": np.zeros((4, 4), bool)},
        {"seeds": np.arange(9)},
        {"rgb": np.array([{}], object)},
    ):
        with pytest.raises(ValueError, match=r"a\.npz"):
            predicted.read_npz(written(tmp_path / "a.npz", **changes))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("xyz.npy", b"")
    with pytest.raises(ValueError, match="no array rgb"):
        predicted.read_npz(tmp_path / "b.npz")


def test_an_array_beyond_all_measure_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicted, "LARGEST", 1000)
    with pytest.raises(ValueError, match="more than the 1000 that are read"):
        predicted.read_npz(written(tmp_path / "a.npz"))


def test_what_is_not_finite_is_not_drawn(tmp_path: Path) -> None:
    xyz = np.repeat(VIEW.xyz()[None], 2, 0)
    v, u = np.argwhere(VIEW.valid)[0]
    xyz[1, 2, v, u, 0] = np.nan
    found = predicted.read_npz(written(tmp_path / "a.npz", xyz=xyz))
    assert not found.valid[v, u]
    assert np.isfinite(found.xyz).all()


def test_repeats_of_a_surface_are_drawn_once(tmp_path: Path) -> None:
    found = predicted.read_npz(written(tmp_path / "a.npz"))
    stack = predicted.stack_of(found, 0, filled=False)
    apart = np.linalg.norm(np.diff(VIEW.xyz(), axis=0), axis=-1) > predicted.REPEAT * np.median(
        VIEW.depth[0][VIEW.valid]
    )
    np.testing.assert_array_equal(stack.there[0], VIEW.valid)
    np.testing.assert_array_equal(stack.there[1], apart[0] & VIEW.valid)
    assert predicted.stack_of(found, 0, filled=True).there.sum() == 6 * VIEW.valid.sum()


def test_a_perfect_prediction_has_no_error_and_alignment_undoes_a_scale(tmp_path: Path) -> None:
    grid = predicted.on_grid(VIEW, 6, (48, 48))
    assert grid is not None
    true, hits = grid
    np.testing.assert_allclose(true, VIEW.xyz(), atol=1e-6)
    np.testing.assert_array_equal(hits, VIEW.hits)
    both = VIEW.valid
    found = predicted.read_npz(written(tmp_path / "a.npz", scale=1.25))
    table, distance = predicted.errors(found.xyz[0], both, true, hits)
    assert [e.layer for e in table] == list(range(int(VIEW.hits.max())))
    for e in table:
        assert e.absrel == pytest.approx(0.25, rel=1e-4)
        assert e.pixels == (VIEW.hits > e.layer).sum()
        at = VIEW.hits > e.layer
        assert e.distance == pytest.approx(
            float(np.linalg.norm(0.25 * VIEW.xyz()[e.layer], axis=-1)[at].mean()), rel=1e-4
        )
    assert np.isnan(distance[~VIEW.hit]).all()
    moved = predicted.aligned(found.xyz[0], true, both)
    table, _ = predicted.errors(moved, both, true, hits)
    assert max(e.distance for e in table) < 1e-5


@pytest.mark.parametrize(("height", "width", "size", "layers"), [(48, 48, 24, 6), (40, 56, 32, 4), (56, 40, 64, 8)])
def test_the_truth_is_that_of_the_trainer(height: int, width: int, size: int, layers: int) -> None:
    pytest.importorskip("torch")
    from train.evaluation.alignment import align_along_rays, align_scale_shift
    from train.evaluation.truth import truth_of

    view = spheres_view(4, height, width)
    truth = truth_of(view, layers, size, "black")
    grid = predicted.on_grid(view, layers, (size, size))
    assert grid is not None
    xyz, hits = grid
    np.testing.assert_array_equal(hits > 0, truth.valid)
    np.testing.assert_allclose(xyz, truth.xyz, atol=1e-5)
    right = 1.3 * truth.xyz + 0.2 + 0.05 * RNG.normal(size=truth.xyz.shape)
    mirrored = np.concatenate([right[..., :2], 20 - 3 * right[..., 2:]], axis=-1)  # what is near is far
    for guess in (right.astype(np.float32), mirrored.astype(np.float32)):
        z = guess[0, ..., 2][truth.valid]
        scale, shift = align_scale_shift(z, truth.xyz[0, ..., 2][truth.valid])
        expected = align_along_rays(guess, scale, shift, float(np.median(z)))
        np.testing.assert_allclose(predicted.aligned(guess, xyz, truth.valid), expected, atol=1e-4, rtol=1e-5)


def test_another_grid_is_not_compared() -> None:
    assert predicted.on_grid(VIEW, 6, (24, 30)) is None


def test_a_single_layer_is_judged_by_its_first() -> None:
    grid = predicted.on_grid(replace(VIEW, single_layer=True), 6, (48, 48))
    assert grid is not None
    assert grid[1].max() == 1


def test_metrics_of_a_report_are_found_by_key(tmp_path: Path) -> None:
    sample = {"key": "k", "model": {"all/cd_l1": 0.25, "all/cd_l2": None}, "layer0": {"all/cd_l1": 0.5}}
    report = {"samples": [{**sample, "each": {"model": [{"all/cd_l1": 0.2}, {"all/cd_l1": 0.3}]}}]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    for place in (tmp_path, tmp_path / "report.json"):
        known = Predictions(place)
        assert known.metrics("k") == {"model": {"all/cd_l1": 0.25}, "layer0": {"all/cd_l1": 0.5}}
        assert known.metrics("other") == {}
        assert known.of("k") is None
    for bad in ("[]", '{"samples": [{}]}', "{", '{"samples": [{"key": "k", "m": {"a": "x"}}]}'):
        (tmp_path / "report.json").write_text(bad)
        with pytest.raises(ValueError, match="not a report"):
            Predictions(tmp_path)


def test_a_place_without_predictions_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor a file"):
        Predictions(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no prediction"):
        Predictions(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"a prediction is \.npz"):
        Predictions(tmp_path / "a.txt")
    shutil.rmtree(tmp_path)


def test_of_a_clip_the_first_frame_is_what_is_predicted() -> None:
    clip = spheres_clip(2, height=24, width=24)
    grid = predicted.on_grid(clip.frames[0], 6, (24, 24))
    assert grid is not None
    np.testing.assert_allclose(grid[0], clip.frames[0].xyz(), atol=1e-6)


def test_what_the_trainer_writes_is_what_is_read(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from train.prediction import output, predict

    xyz = np.stack([VIEW.xyz(), 1.1 * VIEW.xyz()]).astype(np.float32)
    rgb = (VIEW.rgba[..., :3] / 255).astype(np.float32)
    prediction = predict.Prediction(rgb, VIEW.valid, xyz, None, (3, 7))
    paths = [tmp_path / f"key{suffix}" for suffix in predicted.SUFFIXES]
    output.write([prediction], paths)
    found = Predictions(tmp_path).of("key")
    assert isinstance(found, predicted.Prediction)
    assert found.seeds == (3, 7)
    np.testing.assert_array_equal(found.xyz, xyz)
    np.testing.assert_array_equal(found.rgb, VIEW.rgba[..., :3])
    stack = predicted.stack_of(found, predict.typical(xyz, VIEW.valid), filled=False)
    for path in paths[1:]:
        cloud = Predictions(path).of("key")
        assert isinstance(cloud, predicted.Cloud)
        np.testing.assert_array_equal(cloud.xyz, stack.xyz[stack.there])  # and repeats are left out by the same rule
