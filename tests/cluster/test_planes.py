"""Optional planes from the settings of a job to the samples of its dataset."""

from pathlib import Path

import pytest

import shards
from cluster.dataset import render_dataset
from shards import LayeredView, decode
from shards.check import verify
from shards.layers.planes import PLANES
from tests.cluster.boxes import SETTINGS, Boxes
from tests.cluster.conftest import ALONE


@pytest.mark.usefixtures("local_ray")
def test_a_job_writes_the_planes_it_is_asked_for(tmp_path: Path, scratch: str) -> None:
    settings = SETTINGS.model_copy(update={"planes": ("facing", "material", "normals")})
    render_dataset([Boxes(1, scratch)], tmp_path / "out", settings, means=ALONE)
    dataset = shards.open(tmp_path / "out")
    assert dataset.config["job"]["render"]["planes"] == sorted(PLANES)
    assert shards.read_manifest(tmp_path / "out")["planes"].to_pylist() == [sorted(PLANES)] * len(dataset)
    for row in range(len(dataset)):
        view = decode(dataset.keys[row], dataset.members(row), PLANES)
        assert isinstance(view, LayeredView)
        assert (view.planes["facing"][0][view.valid] == 1).all()  # a box is closed: seen from outside, then from within
        assert ((view.planes["facing"] != 0) == view.hit).all()
    assert verify.verify(tmp_path / "out") == []
