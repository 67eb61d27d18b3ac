"""Evaluation on a small analytic dataset: what is judged, against what, and that the numbers mean what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import shards
from model import WTDiT, ZScore, preset
from tests.shards.scenes import spheres_view
from train import config
from train.evaluation.baselines import mean_stack, repeated_layer0
from train.evaluation.evaluate import evaluate, held_out
from train.evaluation.truth import truth_of
from train.run import Run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> shards.Dataset:
    folder = tmp_path_factory.mktemp("spheres")
    views = [spheres_view(i, 56, 56, layers=3) for i in range(60)]
    rows = shards.write_shard(folder / "shards" / "000000-test.tar", [shards.encode(v) for v in views])
    shards.write_manifest(folder, rows)
    shards.write_dataset_json(folder, {"layers": 3, "size": [56, 56]})
    return shards.open(folder)


@pytest.fixture(scope="module")
def run() -> Run:
    torch.manual_seed(0)
    encoder = {"width": 32, "depth": 1, "heads": 2, "taps": 1, "grid": 2}
    small = preset("tiny", width=32, heads=2, decoder_blocks=3, head_blocks=1, layers=3, encoder=encoder)
    settings = config.from_dict({"data": {"path": "none", "size": 28}, "out": "none"})
    return Run(WTDiT(small).eval(), ZScore((0.0, 0.0, 1.9), (0.2, 0.2, 0.2)), settings, step=7, path=Path("none"))


def test_held_out_rows_are_those_of_the_split_and_a_limit_is_a_fixed_subset(dataset: shards.Dataset) -> None:
    rows = held_out(dataset, ("val", "test"))
    assert {dataset.manifest["split"][row].as_py() for row in rows} == {"val", "test"}
    assert set(held_out(dataset, ("val", "test"), 2)) < set(rows)
    assert held_out(dataset, ("val", "test"), 2) == held_out(dataset, ("val", "test"), 2)
    training = shards.open(dataset.directory, split="train")
    with pytest.raises(ValueError, match=r"no samples in split val.*train \d+"):
        held_out(training, ("val",))


def test_the_truth_keeps_its_hits_through_resizing(dataset: shards.Dataset) -> None:
    view = spheres_view(3, 56, 56, layers=3)
    same = truth_of(view, 3, 56, "black")
    assert np.array_equal(same.hits, view.hits)
    assert np.allclose(same.xyz, view.xyz(), atol=1e-6)
    half = truth_of(view, 3, 28, "black")
    assert set(np.unique(half.hits)) <= set(np.unique(view.hits))


def test_hits_that_share_a_depth_hide_none_behind_them() -> None:
    """The two sides of a sheet at one depth, and a surface behind: three hits, though z changes once."""
    view = spheres_view(3, 8, 8, layers=4)
    depth = np.broadcast_to(np.array([1, 1, 2, 2], np.float32)[:, None, None], (4, 8, 8)).copy()
    truth = truth_of(replace(view, depth=depth, hits=np.full((8, 8), 3, np.uint8)), 4, 8, "black")
    assert (truth.hits == 3).all()


def test_a_split_that_was_trained_on_is_called_that(dataset: shards.Dataset, run: Run) -> None:
    assert not evaluate(run, dataset, seeds=1, steps=1, limit=1).settings["seen_in_training"]
    data = run.config.data.model_copy(update={"path": str(dataset.directory), "split": "all"})
    trained_here = replace(run, config=run.config.model_copy(update={"data": data}))
    assert evaluate(trained_here, dataset, seeds=1, steps=1, limit=1).settings["seen_in_training"]


def test_single_layer_samples_are_judged_and_averaged_on_layer_0(tmp_path: Path, run: Run) -> None:
    views = [replace(spheres_view(i, 28, 28, layers=3), single_layer=True, regime="rgbd") for i in range(40)]
    rows = shards.write_shard(tmp_path / "shards" / "000000-test.tar", [shards.encode(v) for v in views])
    shards.write_manifest(tmp_path, rows)
    shards.write_dataset_json(tmp_path, {"layers": 3, "size": [28, 28]})
    report = evaluate(run, shards.open(tmp_path), seeds=1, steps=1)
    assert "hidden/cd_l1" not in report.methods["mean"]
    assert report.methods["mean"]["layer0/rmse"] > 0


def test_the_mean_is_the_mean(dataset: shards.Dataset) -> None:
    norm = ZScore((0.0, 0.0, 1.9), (0.2, 0.2, 0.2))
    mean = mean_stack(dataset, 3, 56, norm, limit=1000)
    assert mean is not None
    views = list(dataset)
    stack, valid = np.stack([v.xyz() for v in views]), np.stack([v.valid for v in views])
    v, u = 28, 28
    assert mean[1, v, u] == pytest.approx(stack[valid[:, v, u], 1, v, u].mean(0), abs=1e-4)


def test_report(dataset: shards.Dataset, run: Run) -> None:
    report = evaluate(run, dataset, seeds=2, steps=2)
    assert report.settings["samples"] == len(report.samples) == len(held_out(dataset, ("val", "test")))
    assert report.settings["training_step"] == 7
    layer0 = report.methods["layer0"]
    assert layer0["visible/cd_l1"] == pytest.approx(0, abs=1e-6)
    assert layer0["layer0/rmse"] == pytest.approx(0, abs=1e-6)
    assert layer0["hidden/cd_l1"] > 0
    for sample in report.samples:
        assert sample["model_best"]["all/cd_l1"] <= sample["model"]["all/cd_l1"] + 1e-12
    names = set(report.methods["model"])
    assert names == set(report.methods["mean"])
    average = np.mean([s["mean"]["all/cd_l2"] for s in report.samples])
    assert report.methods["mean"]["all/cd_l2"] == pytest.approx(average)


def test_repeated_layer_0() -> None:
    xyz = np.random.default_rng(0).normal(size=(4, 2, 2, 3))
    repeated = repeated_layer0(xyz)
    assert repeated.shape == xyz.shape
    assert (repeated == xyz[:1]).all()
