"""`worldtrace shards order`: what a dataset, a config and a run's folder say of any step."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import shards
from shards import History, Order, Sequence, Windows
from shards.cli import app
from shards.order import mixture
from shards.order.growth import row_counts
from shards.order.sequence import opened


def run(*words: object) -> list[str]:
    result = CliRunner().invoke(app, ["order", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_the_keys_of_a_dataset(dataset_on_disk: Path) -> None:
    train = shards.open(dataset_on_disk, "train")
    order = Order(len(train), 3, train.hash)
    expected = [train.keys[order[g]] for g in range(4000, 4008)]
    assert run(dataset_on_disk, "--seed", 3, "--batch", 4, "--step", 1000) == expected[:4]
    assert run(dataset_on_disk, "--seed", 3, "--batch", 4, "--step", 1000, "--count", 8) == expected
    windows = Windows(
        row_counts(train), 1, 3, Sequence(_one(dataset_on_disk, window=1), [train], 3).generations[0].hashes[0]
    )
    assert run(dataset_on_disk, "--seed", 3, "--batch", 4, "--window", 1) == [train.keys[windows[g]] for g in range(4)]
    some = shards.open(dataset_on_disk, where="L1 > 0.2")
    assert 0 < len(some) < 31
    assert sorted(run(dataset_on_disk, "--split", "all", "--where", "L1 > 0.2", "--batch", len(some))) == sorted(
        some.keys
    )


def _one(path: Path, **values: object) -> mixture.Mixed:
    return mixture.parse([{"path": str(path), **values}])


def test_a_config_and_what_it_says(dataset_on_disk: Path, tmp_path: Path) -> None:
    sources = [
        {"path": str(dataset_on_disk), "split": "all", "weight": 3e-1},
        {"path": str(dataset_on_disk), "weight": 0.7},
    ]
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"data": {"path": sources, "batch": 8}, "seed": 4, "out": "o"}))
    mixed = mixture.parse(sources)
    sequence = Sequence(mixed, opened(mixed), 4)
    expected = [sequence.datasets[at.source].key(at.row) for at in sequence.located(8 * 10**6, 8)]
    assert run(config, "--step", 10**6) == expected
    lines = [json.loads(line) for line in run(config, "--step", 10**6, "--json")]
    assert [line["key"] for line in lines] == expected
    assert lines[0].keys() == {"index", "step", "epoch", "source", "shard", "row", "key"}
    assert [(line["index"], line["step"]) for line in lines] == [(8 * 10**6 + i, 10**6) for i in range(8)]
    table = run(config, "--step", 10**6, "--long")
    assert table[0].split() == ["index", "epoch", "source", "shard", "key"]
    assert [row.split()[-1] for row in table[1:]] == expected
    config.write_text(yaml.safe_dump({"data": {"path": str(dataset_on_disk), "split": "all"}, "out": "o"}))
    assert len(run(config)) == 512, "the trainer's default"
    with pytest.raises(ValueError, match="give --batch"):
        run(dataset_on_disk)
    for nothing in ("nosuch", tmp_path / "mix.yaml"):
        with pytest.raises(FileNotFoundError, match="no such file or folder"):
            run(nothing, "--step", 1)
    assert len(run(config, "--batch", 5)) == 5


def test_a_run_and_how_its_data_grew(dataset_copy: Path, tmp_path: Path) -> None:
    mixed = _one(dataset_copy, split="all")
    rows = shards.read_manifest(dataset_copy).to_pylist()
    last = max(row["shard"] for row in rows)
    shards.write_manifest(dataset_copy, [row for row in rows if row["shard"] != last])
    before = Sequence(mixed, opened(mixed), 7)
    history = History.begun(mixed, opened(mixed), 7, 6)
    keys = [before.datasets[0].key(at.row) for at in before.located(0, 60)]
    history.write(tmp_path)
    shards.write_manifest(dataset_copy, rows)
    assert run(tmp_path, "--count", 60) == keys, "rows that the run has not met are not in its order"
    history = history.resumed(mixed, opened(mixed), 30)
    history.write(tmp_path)
    after = run(tmp_path, "--step", 0, "--count", 60 + 31)
    assert after[:30] == keys[:30]
    assert {row["key"] for row in rows} == set(after[24:55]), "the epoch in progress is completed with what came"
    assert run(tmp_path, "--step", 9) == after[54:60]
    with pytest.raises(ValueError, match="run of seed 7"):
        run(tmp_path, "--seed", 1)


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {path: x}\n")
    with pytest.raises(ValueError, match=r"run without data\.json: give its config"):
        run(tmp_path, "--batch", 1)
    (tmp_path / "c.yaml").write_text("steps: 3\n")
    with pytest.raises(ValueError, match=r"no data\.path"):
        run(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("data: [1\n")
    with pytest.raises(ValueError, match="not YAML") as error:
        run(tmp_path / "c.yaml")
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        run(tmp_path / "absent", "--batch", 1)


def test_a_condition_of_a_mixture_is_named_by_its_key(dataset_on_disk: Path) -> None:
    with pytest.raises(ValueError, match=r": where: .*nosuch") as error:
        opened(mixture.parse([{"path": str(dataset_on_disk), "where": "nosuch > 1"}]))
    assert "--where" not in str(error.value)
