"""`worldtrace render` as a user types it, on assets that the project makes and on real ones that are broken."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import shards
import worldtrace
from cluster.cli import image_size
from tests.cluster.conftest import contents

BAD = Path(__file__).parents[2].parent / "shared" / "assets" / "bad"
DECODED = {"meshopt_required.glb", "draco_required.glb"}  # sound: most readers cannot read their extension


def run(*arguments: str | Path) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        worldtrace.main(["render", *map(str, arguments)])
    return end.value.code


@pytest.mark.usefixtures("local_ray")
def test_procedural_objects_become_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["procedural:objects?count=4", "--views", "2", "--size", "56x64", "--shard-views", "4"]
    assert run(*common, "--out", tmp_path / "a", "--workers", "2") == 0
    assert "4 of 4 assets done" in capsys.readouterr().out
    dataset = shards.open(tmp_path / "a")
    assert len(dataset) >= 6
    for sample in dataset:
        assert isinstance(sample, shards.LayeredView)
        assert (sample.size, sample.layers, sample.regime) == ((56, 64), 6, "object")
        assert np.all(np.diff(sample.depth, axis=0)[:, sample.valid] >= 0)
    assert run(*common, "--out", tmp_path / "b", "--workers", "1") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("kind", "regime"), [("rooms", "scene"), ("actors", "dynamic")])
def test_rooms_and_actors_have_their_own_regime(kind: str, regime: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--views", "1", "--frames", "3", "--size", "48", "--workers", "1"]
    assert run(f"procedural:{kind}?count=1", *options, "--out", out) == 0
    (sample,) = shards.open(out)
    assert sample.regime == regime
    assert len(sample.frames) == 3 if isinstance(sample, shards.Clip) else regime == "scene"


@pytest.mark.usefixtures("local_ray")
@pytest.mark.skipif(not BAD.is_dir(), reason=f"the broken assets are not at {BAD}")
def test_broken_assets_are_counted_and_the_job_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(BAD, "--views", "1", "--size", "32", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    rows = pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()
    companions = {".mtl", ".png", ".bin"}
    files = {path.relative_to(BAD).as_posix() for path in BAD.rglob("*") if path.is_file()}
    assert {row["asset"] for row in rows} == {name for name in files if Path(name).suffix not in companions}
    for row in rows:
        assert row["attempt"] == 1, row
        if row["status"] == "done":
            assert row["flags"] or row["asset"] in DECODED, f"{row['asset']} is broken, and passed without a flag"
        else:
            assert (row["status"], bool(row["message"])) == ("rejected", True), row
            assert row["reason"].replace("_", "").isalnum(), row
    rejected = [row for row in rows if row["status"] == "rejected"]
    assert len(rejected) > len(rows) // 2
    assert f"{len(rejected)} rejected" in said


@pytest.mark.usefixtures("local_ray")
def test_a_job_without_a_single_view_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "empty.obj").touch()
    for _ in range(2):  # also where the finished dataset is found
        assert run(tmp_path / "models", "--size", "32", "--workers", "1", "--out", tmp_path / "out") == 1
        said = capsys.readouterr()
        assert "0 of 1 assets done | 1 rejected (empty_file 1)" in said.out
        assert f"{tmp_path / 'out'} holds no view: none of 1 assets gave one" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "source 'nowhere' does not exist"),
        (["procedural:objects", "--size", "big"], "--size 'big' is no image size"),
        (["procedural:objects", "procedural:rooms"], "separate jobs"),
        (["procedural:objects", "--viws", "3"], "--views"),
        (["procedural:objects", "--size", "4"], "height"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_sizes() -> None:
    assert image_size("504") == (504, 504)
    assert image_size("378x504") == image_size("378X504") == (378, 504)
    for text in ("", "x", "5x", "x5", "-5", "5x5x5", "5.0"):
        with pytest.raises(ValueError, match="is no image size"):
            image_size(text)
