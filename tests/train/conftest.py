"""A small real dataset: spheres with analytic layers, written with the shards room's own writer."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import shards
from tests.shards.scenes import spheres_clip, spheres_view
from tests.threads import one_thread
from tests.train.released_hub import hub, released
from train.config import Config, from_dict

__all__ = ["hub", "one_thread", "released"]  # for all tests here

SIZE = 28
MICRO: dict[str, Any] = {
    "preset": "tiny",
    "width": 32,
    "heads": 2,
    "decoder_blocks": 3,
    "head_blocks": 1,
    "patch": 7,
    "encoder": {"width": 32, "depth": 2, "heads": 2},
}  # takes a step in milliseconds


def write_dataset(directory: Path, samples: list[shards.Sample], size: int) -> Path:
    (directory / "shards").mkdir(parents=True)
    rows = shards.write_shard(directory / "shards" / "000000-spheres.tar", [shards.encode(s) for s in samples])
    shards.write_manifest(directory, rows)
    shards.write_dataset_json(
        directory,
        {
            "layers": samples[0].frames[0].layers if isinstance(samples[0], shards.Clip) else samples[0].layers,
            "size": [size, size],
        },
    )
    return directory


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight views of spheres, 48x48, six layers."""
    views: list[shards.Sample] = [spheres_view(i, 48, 48) for i in range(8)]
    return write_dataset(tmp_path_factory.mktemp("spheres") / "dataset", views, 48)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples: list[shards.Sample] = [spheres_clip(i, 3, height=48, width=48) for i in range(3)]
    return write_dataset(tmp_path_factory.mktemp("clips") / "dataset", samples, 48)


@pytest.fixture(autouse=True)
def no_licence_said_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks of what this user was told lie elsewhere, and none is left in the real cache."""
    monkeypatch.setattr("train.weights.marks", lambda: tmp_path / "told")


Settings = Callable[..., Config]


@pytest.fixture
def settings(dataset: Path, tmp_path: Path) -> Settings:
    """settings(**changes): a micro model on 28x28 images; optimizer__lr=1e-3 changes optimizer.lr."""

    def make(**changes: Any) -> Config:
        tree: dict[str, Any] = {
            "data": {"path": str(dataset), "split": "all", "size": SIZE, "batch": 4, "workers": 0},
            "model": deepcopy(MICRO),  # `changes` reach into it
            "augment": {"enabled": False},
            "objective": {"shared_times_from": 5},
            "optimizer": {"lr": 2e-3, "min_lr": 2e-4, "warmup": 5},
            "log": {"every": 1, "tensorboard": False},
            "checkpoint": {"every": 1000, "keep": 2},
            "device": "cpu",
            "out": str(tmp_path / "run"),
            "steps": 20,
        }
        for path, value in changes.items():
            *sections, leaf = path.split("__")
            node = tree
            for section in sections:
                node = node.setdefault(section, {})
            node[leaf] = value
        if isinstance(tree["data"]["path"], list) and "data__split" not in changes:
            del tree["data"]["split"]  # each source has its own
        return from_dict(tree)

    return make
