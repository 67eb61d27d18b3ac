"""A run whose dataset grows between two starts: the new samples come in, and the run stays exact."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

import shards
from shards import History, Sequence
from shards.order.sequence import DATA_JSON, opened
from tests.train import ranks
from tests.train.conftest import Settings
from tests.train.test_damage import write_shards
from train import checkpoints
from train.data.stream import Stream
from train.loop import train
from train.reports import log


def run(c: object, said: io.StringIO | None = None) -> None:
    train(c, Console(file=said or io.StringIO(), width=1000))  # type: ignore[arg-type]


def write_dataset(directory: Path) -> Path:
    shards.write_manifest(directory, write_shards(directory, 1, 2))
    shards.write_dataset_json(directory, {"layers": 6, "size": [16, 16]})
    return directory


def grow(directory: Path) -> None:
    """Two shards more: one sorts before those that are there, one after."""
    rows = shards.read_manifest(directory).to_pylist()
    shards.write_manifest(directory, [*rows, *write_shards(directory, 0, 1), *write_shards(directory, 3, 1)])


def final(out: str) -> dict[str, dict[str, torch.Tensor]]:
    found = checkpoints.latest(Path(out))
    assert found is not None
    return checkpoints.read(found, checkpoints.GROUPS)


def test_a_run_on_data_that_grow_is_exact(settings: Settings, tmp_path: Path) -> None:
    """Batch 4: step 3 ends at index 12, in the middle of the second epoch of 8; then there are 16 rows."""
    outs = {}
    for name, stops in (("at once", [7]), ("in parts", [5, 7])):
        path = write_dataset(tmp_path / name)
        common = {
            "data__path": str(path),
            "data__size": 14,
            "data__window": 1,
            "out": str(tmp_path / f"{name} run"),
        }
        run(settings(**common, steps=3))
        grow(path)
        for steps in stops:
            said = io.StringIO()
            run(settings(**common, steps=steps), said)
            assert ("grown from 8 to 16 samples" in said.getvalue()) == (steps == stops[0])
        outs[name] = common["out"]
    assert [line["loss"] for line in log.read(Path(outs["at once"]))] == [
        line["loss"] for line in log.read(Path(outs["in parts"]))
    ]
    one, two = (final(out) for out in outs.values())
    assert all(torch.equal(value, two[part][key]) for part in one for key, value in one[part].items())
    history = History.read(Path(outs["at once"]))
    assert history is not None
    assert [(g.first, g.rows) for g in history.generations] == [(0, (8,)), (12, (16,))]
    data = opened(history.mixed)
    sequence = Sequence(history.mixed, data, history.seed, history)
    keys = [data[0].key(at.row) for at in sequence.located(0, 40)]
    assert sorted(keys[:8]) == sorted(keys[8:12] + [k for k in keys[12:24] if k in keys[:8]]), "epoch 1, once each"
    assert sorted(keys[8:24]) == sorted(keys[24:40]) == sorted(data[0].keys)


def test_what_did_not_just_grow_is_refused_and_says_which(settings: Settings, tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "data")
    run(settings(data__path=str(path), data__size=14, steps=2))
    grow(path)
    rows = [row for row in shards.read_manifest(path).to_pylist() if row["shard"] != "000002-spheres.tar"]
    shards.write_manifest(path, rows)
    with pytest.raises(ValueError, match=r"run was trained on other samples .*000002-spheres\.tar .* is gone") as error:
        run(settings(data__path=str(path), data__size=14, steps=3))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_from_before_there_were_notes_goes_on_while_its_data_stay(settings: Settings, tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "data")
    c = settings(data__path=str(path), data__size=14, steps=2)
    run(c)
    notes = Path(c.out) / DATA_JSON
    notes.unlink()
    run(settings(data__path=str(path), data__size=14, steps=3))
    assert notes.is_file()
    grow(path)
    notes.unlink()
    with pytest.raises(ValueError, match=r"no data\.json there says on which"):
        run(settings(data__path=str(path), data__size=14, steps=4))


def test_notes_of_another_run_are_not_believed(settings: Settings, tmp_path: Path) -> None:
    one, other = write_dataset(tmp_path / "one"), write_dataset(tmp_path / "other")
    grow(other)
    for name, path in (("a", one), ("b", other)):
        run(settings(data__path=str(path), data__size=14, steps=2, out=str(tmp_path / name)))
    shutil.copyfile(tmp_path / "b" / DATA_JSON, tmp_path / "a" / DATA_JSON)
    run(settings(data__path=str(one), data__size=14, steps=3, out=str(tmp_path / "a")))
    assert json.loads((tmp_path / "a" / DATA_JSON).read_text())["generations"][0]["rows"] == [8]


@pytest.mark.slow
def test_all_ranks_follow_the_growth(settings: Settings, tmp_path: Path) -> None:
    kept = {}
    for world in (1, 2):
        path = write_dataset(tmp_path / f"data{world}")
        common = {"data__path": str(path), "data__size": 14, "out": str(tmp_path / f"run{world}")}
        for steps in (3, 6):
            c = settings(**common, steps=steps)
            assert ranks.run(c, world) == [0] * world, ranks.said(c, 0)
            if steps == 3:
                grow(path)
        kept[world] = [line["loss"] for line in log.read(Path(c.out))]
    assert kept[2] == pytest.approx(kept[1], rel=2e-4)


def test_a_stream_of_a_filter_and_of_a_group(settings: Settings, tmp_path: Path) -> None:
    path = str(write_dataset(tmp_path / "data"))
    whole = shards.open(path)
    wanted = [whole.keys[row] for row in (1, 6)]
    some = {"path": path, "split": "all", "where": f"key IN ({', '.join(repr(key) for key in wanted)})"}
    group = {"weight": 1, "of": [some, {"path": path, "split": "all", "weight": 3}]}
    c = settings(data__path=[{"path": path, "split": "all", "weight": 1}, group], data__size=14)
    stream = Stream(c.data, c.augment, 6, c.seed)
    assert stream.sequence.shares.tolist() == [0.5, 0.125, 0.375]
    places = [stream.sequence[i] for i in range(200)]
    rare = [i for i, (s, _) in enumerate(places) if s == 1]
    assert {stream.view(i)[0].key for i in rare} == set(wanted)
    nothing = settings(data__path=[{"path": path, "where": "z_max > 1e9"}])
    with pytest.raises(ValueError, match=f"{path}: no samples in split 'train' where z_max > 1e9"):
        Stream(nothing.data, nothing.augment, 6, 0)
    wrong = settings(data__path=[{"path": path, "split": "all", "where": "regme = 'object'"}])
    with pytest.raises(ValueError, match="regime") as error:
        Stream(wrong.data, wrong.augment, 6, 0)
    assert path in str(error.value)
