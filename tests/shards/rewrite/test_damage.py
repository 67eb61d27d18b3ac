"""Shards with damage: no damaged sample is copied, none that is whole is lost, and what is restored comes back."""

from collections.abc import Callable
from pathlib import Path

import pytest

import shards
from shards import ledger
from shards.check.verify import inspect
from shards.rewrite import choice, rewrite
from shards.rewrite.inputs import open_input
from shards.rewrite.plan import Cut
from tests.shards.rewrite.rewriting import Killed, contents, made, samples

DAMAGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "flipped": (lambda path: flip(path, 600), 1),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-20_000]), 11),
    "missing": (lambda path: path.unlink(), 12),
}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", DAMAGES)
def test_no_damaged_sample_is_copied(source: Path, dataset_copy: Path, tmp_path: Path, name: str) -> None:
    damage, most = DAMAGES[name]
    damage(min((dataset_copy / "shards").iterdir()))
    one = open_input(dataset_copy)
    to = [choice.everything(one)]
    with pytest.raises(shards.CorruptSample, match=r"spheres.*000000-unit.tar: .*--skip-damaged"):
        made("reshard", [one], to, tmp_path / "out")
    (there,) = made("reshard", [one], to, tmp_path / "out", skip_damaged=True)
    assert 1 <= len(there.lost) <= most
    assert there.samples + len(there.lost) == 31
    assert samples(tmp_path / "out").items() <= samples(source).items()
    assert [sample.key for sample in shards.open(tmp_path / "out")] == list(samples(tmp_path / "out"))
    config = shards.read_dataset_json(tmp_path / "out")
    assert (config["lost"], config["statistics"]) == (len(there.lost), None)
    with (tmp_path / "out" / "ledger.parquet").open("rb") as file:
        rows = list(ledger.rows(file))
    assert [row["reason"] for row in rows] == ["damaged"] * len(there.lost)
    assert all("000000-unit.tar" in row["message"] for row in rows)


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("skip", [True, False])
def test_what_was_restored_since_is_not_left_out(
    source: Path, dataset_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, skip: bool
) -> None:
    """A run with --skip-damaged is killed, the shard restored, and the run gone on with."""
    path = min((dataset_copy / "shards").iterdir())
    good = path.read_bytes()
    DAMAGES[name][0](path)
    one = open_input(dataset_copy)
    to = [choice.everything(one)]
    made("reshard", [one], to, tmp_path / "finished", skip_damaged=True)
    with pytest.raises(ValueError, match=r"without \d+ damaged samples: give --skip-damaged"):
        made("reshard", [one], to, tmp_path / "finished")

    def dies(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(rewrite, "_finish", dies)
        with pytest.raises(Killed):
            made("reshard", [one], to, tmp_path / "out", skip_damaged=True)
    if not skip:
        with pytest.raises(shards.CorruptSample):
            made("reshard", [open_input(dataset_copy)], to, tmp_path / "out")
    path.write_bytes(good)
    (there,) = made("reshard", [open_input(dataset_copy)], to, tmp_path / "out", skip_damaged=skip)
    assert (there.samples, there.lost) == (31, [])
    made("reshard", [open_input(dataset_copy)], to, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_damage_between_the_contents_of_a_sample_is_mended_on_the_way(
    source: Path, dataset_copy: Path, tmp_path: Path
) -> None:
    """The manifest knows sizes and hashes, so headers and padding can be made anew."""
    row = shards.open(dataset_copy).manifest.to_pylist()[5]
    flip(dataset_copy / "shards" / row["shard"], row["offset"] + 100)
    flip(dataset_copy / "shards" / row["shard"], row["offset"] + row["bytes"] - 1)
    one = open_input(dataset_copy)
    made("reshard", [one], [choice.everything(one)], tmp_path / "out", cut=Cut(12, None))
    assert shards.open(tmp_path / "out").hash == shards.open(source).hash
    assert inspect(tmp_path / "out").problems == []
