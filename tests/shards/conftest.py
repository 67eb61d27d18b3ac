"""One small dataset on disk, made once; a test that damages it takes a copy."""

import shutil
from pathlib import Path

import pytest

from shards import Sample, encode, write_dataset_json, write_manifest, write_shard
from tests.shards.scenes import spheres_clip, spheres_view


def samples() -> list[Sample]:
    views: list[Sample] = [spheres_view(i, 24, 28) for i in range(30)]
    return [*views, spheres_clip(40, height=24, width=28)]


def write_dataset(root: Path, per_shard: int = 12) -> Path:
    everything = samples()
    rows = []
    for begin in range(0, len(everything), per_shard):
        part = everything[begin : begin + per_shard]
        path = root / "shards" / f"{begin // per_shard:06d}-unit.tar"
        rows += write_shard(path, (encode(sample) for sample in part))
    write_manifest(root, rows)
    write_dataset_json(root, {"layers": 6, "size": [24, 28], "job": {"seed": 0}})
    return root


@pytest.fixture(scope="session")
def dataset_on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def dataset_copy(dataset_on_disk: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset_on_disk, tmp_path / "copy"))
