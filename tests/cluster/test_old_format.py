"""A job that an older version of the format began: as it is where it is finished, refused where it is not."""

import shutil
from pathlib import Path

import pytest

import shards
from cluster.dataset import render_dataset
from shards import layout
from tests.cluster.boxes import SETTINGS, Boxes
from tests.cluster.conftest import ALONE, COUNT, contents


def test_a_finished_job_of_version_1_stands_and_an_unfinished_one_is_refused(
    undisturbed: Path, tmp_path: Path, scratch: str
) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    header = {**shards.read_dataset_json(out), "version": 1}
    (out / layout.DATASET_JSON).write_bytes(shards.dataset_json(header))
    before = contents(out)
    assert render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=ALONE).views == 2 * COUNT
    assert contents(out) == before
    min((out / layout.SHARDS).iterdir()).unlink()
    before = contents(out)
    with pytest.raises(ValueError, match=r"begun in version 1 of the format.*finish it with the worldtrace that began"):
        render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=ALONE)
    assert contents(out) == before
