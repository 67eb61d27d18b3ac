"""An imported corpus trains, alone and beside samples of several layers."""

import json
from pathlib import Path

import pytest

from shards import encode, write_dataset_json, write_manifest, write_shard
from shards.rgbd.plan import Settings
from shards.rgbd.write import import_corpus
from tests.shards.rgbd import corpora
from tests.shards.scenes import spheres_view


@pytest.mark.slow
def test_a_mixture_trains(tmp_path: Path) -> None:
    """0.6 layered, 0.4 RGBD: the loss of every layer is known, that of RGBD counts for layer 0 alone (Eq. 4)."""
    from train.config import load
    from train.loop import train

    for scene in range(4):
        corpora.scannet(tmp_path / "scans", f"scene{scene:04d}_00")
    import_corpus(tmp_path / "scans", str(tmp_path / "rgbd"), Settings("scannet", size=56), workers=0)
    rows = write_shard(tmp_path / "layered/shards/000000-a.tar", (encode(spheres_view(i, 56, 56)) for i in range(8)))
    write_manifest(tmp_path / "layered", rows)
    write_dataset_json(tmp_path / "layered", {"layers": 6, "size": [56, 56]})
    layered = {"path": str(tmp_path / "layered"), "weight": 0.6, "split": "all"}
    rgbd = {"path": str(tmp_path / "rgbd"), "weight": 0.4, "split": "all"}
    for name, sources in {"alone": [rgbd | {"weight": 1.0}], "mixed": [layered, rgbd]}.items():
        settings = load(
            "tiny",
            [
                f"data.path={json.dumps(sources)}",
                *("data.size=56", "data.batch=6", "data.workers=0", "steps=2", "log.every=1", "augment.enabled=true"),
                f"out={tmp_path / name}",
            ],
        )
        train(settings)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses = [line["layers"] for line in lines if "layers" in line]
        assert len(losses) == 2
        for of_step in losses:
            assert of_step[0] > 0
            assert all((loss is not None and loss > 0) == (name == "mixed") for loss in of_step[1:])
