"""Prediction: replayable, independent of the batch, and a point cloud that shows each surface once."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model import WTDiT, ZScore, preset
from train import config
from train.prediction import prediction
from train.prediction.ask import Asked
from train.prediction.batch import compile_for, predict_batch
from train.prediction.predict import answer
from train.prediction.prediction import HIDDEN_GREY, Prediction, point_cloud, typical
from train.ranks import sharding
from train.run import Run
from train.step import compute


@pytest.fixture(scope="module")
def run() -> Run:
    torch.manual_seed(0)
    small = preset(
        "tiny",
        width=32,
        heads=2,
        decoder_blocks=3,
        head_blocks=1,
        layers=3,
        encoder={"width": 32, "depth": 1, "heads": 2, "taps": 1, "grid": 2},
    )
    settings = config.from_dict({"data": {"path": "none", "size": 28}, "out": "none"})
    network = WTDiT(small)
    torch.nn.init.normal_(network.head.projection.weight, std=0.1)  # it starts at zero, which would predict one thing
    return Run(network.eval(), ZScore((0.0, 0.0, 1.9), (0.3, 0.3, 0.5)), settings, step=0, path=Path("none"))


@pytest.fixture(scope="module")
def image() -> tuple[np.ndarray, np.ndarray]:
    rgb = np.random.default_rng(0).uniform(size=(28, 28, 3)).astype(np.float32)
    valid = np.zeros((28, 28), bool)
    valid[5:20, 8:25] = True
    return rgb, valid


def predict(run: Run, rgb: np.ndarray, valid: np.ndarray, seeds: tuple[int, ...] = (0,), steps: int = 2) -> Prediction:
    return answer(run, [Asked("name", rgb[None], valid[None], ("name",))], seeds, steps)[0][0]


def test_a_prediction_replays_and_its_seeds_differ(run: Run, image: tuple[np.ndarray, np.ndarray]) -> None:
    first = predict(run, *image, seeds=(0, 1), steps=3)
    assert first.xyz.shape == (2, 3, 28, 28, 3)
    assert np.array_equal(first.xyz, predict(run, *image, seeds=(0, 1), steps=3).xyz)
    assert not np.allclose(first.xyz[0], first.xyz[1])
    assert (first.xyz[:, :, ~image[1]] == 0).all()


def test_a_prediction_does_not_depend_on_its_batch(run: Run, image: tuple[np.ndarray, np.ndarray]) -> None:
    rgb, valid = image
    together, _ = predict_batch(run, np.stack([rgb, rgb[::-1]]), np.stack([valid, valid]), [(0, "a"), (5, "b")], 2)
    alone, _ = predict_batch(run, rgb[None], valid[None], [(0, "a")], 2)
    assert np.allclose(together[:1], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "setting", "batches", "expected"),
    [("cuda", "auto", 32, True), ("cuda", "auto", 31, False), ("cuda", False, 99, False), ("cpu", True, 99, False)],
)
def test_blocks_are_compiled_for_many_predictions_on_a_gpu(
    run: Run, monkeypatch: pytest.MonkeyPatch, device: str, setting: str | bool, batches: int, expected: bool
) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(compute, "compile_blocks", compiled.extend)
    there = [SimpleNamespace(device=torch.device(device))]
    monkeypatch.setattr(run.model, "parameters", lambda: iter(there))
    chosen = run.config.compute.model_copy(update={"compile": setting})
    asked = replace(run, config=run.config.model_copy(update={"compute": chosen}))
    assert compile_for(asked, batches) == expected
    assert compiled == (sharding.blocks_of(run.model) if expected else [])


def test_nothing_valid_is_an_error(run: Run, image: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="no valid pixel"):
        predict(run, image[0], np.zeros_like(image[1]))


def test_the_point_cloud_leaves_out_repeats_and_colours_what_is_visible() -> None:
    valid = np.array([[True, True], [True, False]])
    xyz = np.zeros((3, 2, 2, 3), np.float32)
    xyz[..., 2] = 2.0
    xyz[1, 0, 0, 2] = 2.5  # a second surface at one pixel, repeated by layer 2
    xyz[2, 0, 0, 2] = 2.5
    xyz[1, 0, 1, 2] = 2.001  # a repeat of layer 0, within half a percent
    rgb = np.full((2, 2, 3), 0.2, np.float32)
    points, colours = point_cloud(xyz, rgb, valid)
    assert len(points) == 4
    assert (colours[:3] == 51).all()
    assert points[3].tolist() == [0, 0, 2.5]
    assert (colours[3] == HIDDEN_GREY).all()


def test_the_typical_stack_is_the_one_amid_the_others() -> None:
    valid = np.ones((2, 2), bool)
    base = np.random.default_rng(0).normal(size=(3, 2, 2, 3))
    assert typical(np.stack([base - 1, base + 0.1, base + 1, base + 9]), valid) == 1


def test_the_typical_stack_is_the_one_of_least_mean_distance() -> None:
    rng = np.random.default_rng(1)
    xyz, valid = rng.normal(size=(9, 2, 5, 4, 3)), rng.random((5, 4)) < 0.6
    apart = [[np.linalg.norm(one[:, valid] - other[:, valid], axis=-1).mean() for one in xyz] for other in xyz]
    assert typical(xyz, valid) == int(np.sum(apart, axis=1).argmin())
    assert typical(xyz, np.zeros((5, 4), bool)) == 0


def test_of_many_seeds_some_pixels_tell_which_is_typical(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    root = np.sqrt

    def counted(x: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += x.size
        return np.asarray(root(x))

    monkeypatch.setattr(np, "sqrt", counted)
    monkeypatch.setattr(prediction, "MOST_DISTANCES", 1 << 22)
    off = np.random.default_rng(2).permutation(np.arange(1024) - 511)
    xyz = np.broadcast_to(off[:, None, None, None, None], (1024, 2, 40, 40, 3)).astype(np.float32)
    assert abs(off[typical(xyz, np.ones((40, 40), bool))]) <= 1
    assert 1 << 20 < compared <= 1 << 22
