"""Two ranks see the samples of one and take its steps; what befalls one of them, all decide on together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import shards
from tests.train import ranks
from tests.train.conftest import Settings
from tests.train.runs import final, losses, quiet, same_tensors, same_weights, under_way
from train import checkpoints, config
from train.config import Config
from train.data.stream import Schedule
from train.loop import train
from train.reports import log

ROOT = Path(__file__).parents[2]
SAME = 1e-5  # relative, between sums in another order


def weights(out: str) -> dict[str, torch.Tensor]:
    return checkpoints.read(final(out))["model"]


def far(a: str, b: str) -> float:
    """Largest difference between two runs' weights."""
    one, two = weights(a), weights(b)
    return max(float((value - two[name]).abs().max()) for name, value in one.items())


@pytest.fixture
def alone(settings: Settings, tmp_path: Path) -> Config:
    """Eight undisturbed steps of one rank."""
    c = settings(out=str(tmp_path / "alone"), steps=8, augment__enabled=True)
    train(c, quiet())
    return c


def test_two_ranks_take_the_steps_of_one(alone: Config, settings: Settings, tmp_path: Path) -> None:
    """With augmentation, jittered masks (weights below 1) and accumulation: losses, layers, norms and weights."""
    for accumulation in (1, 2):
        c = settings(
            out=str(tmp_path / f"two{accumulation}"), steps=8, augment__enabled=True, accumulation=accumulation
        )
        assert ranks.run(c, 2) == [0, 0], ranks.said(c, 0) + ranks.said(c, 1)
        for one, two in zip(log.read(Path(alone.out)), log.read(Path(c.out)), strict=True):
            for name in ("loss", "endpoint", "monotonicity", "grad_norm"):
                assert two[name] == pytest.approx(one[name], rel=2e-4), (name, one["step"])
            assert two["layers"] == pytest.approx(one["layers"], rel=2e-4)
        assert losses(c.out)[0] == pytest.approx(losses(alone.out)[0], rel=SAME)
        assert far(alone.out, c.out) < 2e-4
        assert ", over 2 ranks" in ranks.said(c, 0)
        assert ranks.held(c, 2)[1]["model"]
        assert ranks.said(c, 1).splitlines()[1:] == ["ended at 8, None"], "only rank 0 reports"
        assert sorted(p.name for p in Path(c.out).iterdir()) == [
            "checkpoints",
            "config.yaml",
            "data.json",
            "metrics.jsonl",
            "training.png",
        ]


def test_a_run_goes_on_with_another_number_of_ranks(alone: Config, settings: Settings, tmp_path: Path) -> None:
    """Two ranks, one, two again: the losses of a run that one rank did alone; optimizer and average included."""
    out = str(tmp_path / "changing")
    common: dict[str, Any] = {"out": out, "augment__enabled": True, "checkpoint__every": 1}
    for stop, world in ((3, 2), (5, 1), (8, 2)):
        c = settings(steps=8, **common)
        if world == 1:
            keep_until(c, stop)
        else:
            assert ranks.run(c, world, "term", rank=0, step=stop) == [0, 0], ranks.said(c, 0) + ranks.said(c, 1)
        assert final(out).step == stop
    assert losses(out) == pytest.approx(losses(alone.out), rel=2e-4)
    assert far(alone.out, out) < 2e-4
    one, two = (checkpoints.read(final(each), checkpoints.GROUPS) for each in (alone.out, out))
    for part in ("ema", "optimizer"):
        for name, value in one[part].items():
            assert torch.allclose(value, two[part][name], rtol=1e-2, atol=1e-4), (part, name)


def keep_until(settings: Config, step: int) -> None:
    """Train on one rank, and stop after `step`."""
    caught: list[signal.Signals] = []

    class Stop(list):  # type: ignore[type-arg]
        def __bool__(self) -> bool:
            return len(checkpoints.steps(Path(settings.out))) > 0 and final(settings.out).step >= step - 1

        def __getitem__(self, _: Any) -> Any:
            return signal.SIGTERM

    assert train(settings, quiet(), Stop(caught)).step == step


def test_ranks_share_out_every_batch() -> None:
    for world in (1, 2, 4):
        for accumulation in (1, 2):
            parts = [list(Schedule(3, 5, 8, accumulation, rank, world)) for rank in range(world)]
            for step in (0, 1):
                rows = [row for part in parts for row in part[step * accumulation : (step + 1) * accumulation]]
                found = [index for row in rows for index in row]
                assert sorted(found) == list(range((3 + step) * 8, (4 + step) * 8))


@pytest.mark.parametrize("fault", ["nan", "spike"])
def test_a_step_that_one_rank_cannot_take_no_rank_takes(settings: Settings, fault: str) -> None:
    c = settings(steps=8, checkpoint__every=1, checkpoint__keep=9, optimizer__warmup=2, objective__shared_times_from=0)
    assert ranks.run(c, 2, fault, step=6) == [0, 0], ranks.said(c, 0) + ranks.said(c, 1)
    before, after = (checkpoints.find(Path(c.out) / "checkpoints" / f"step-00000{k}") for k in (5, 6))
    assert same_tensors(before, after, but=["guard."])
    assert [line["skipped"] for line in log.read(Path(c.out))] == [0] * 5 + [1] * 3
    assert ("a spike" if fault == "spike" else "a non-finite loss") in ranks.said(c, 0)


def test_a_signal_to_one_rank_stops_all_after_the_same_step(settings: Settings) -> None:
    c = settings(steps=50)
    assert ranks.run(c, 2, "term", rank=1, step=4) == [0, 0], ranks.said(c, 0) + ranks.said(c, 1)
    assert final(c.out).step == 4, "the ranks hear of it before they take the next step"
    assert [ranks.said(c, k).splitlines()[-1] for k in (0, 1)] == ["ended at 4, 15"] * 2


def test_an_error_of_one_rank_ends_the_others_with_it(settings: Settings) -> None:
    c = settings(steps=8)
    began = time.monotonic()
    assert ranks.run(c, 2, "error", rank=1, step=2) == [2, 2]
    assert time.monotonic() - began < 30
    assert ranks.said(c, 1) == "worldtrace train: a fault of this rank alone\n"
    (line,) = [line for line in ranks.said(c, 0).splitlines() if line.startswith("worldtrace train: ")]
    assert "rank 1 of 2, on " in line
    assert "has ended with an error: a fault of this rank alone; the same command goes on" in line
    assert "Traceback" not in ranks.said(c, 0)


def test_a_killed_rank_ends_the_others_and_a_second_run_goes_on_bit_for_bit(settings: Settings) -> None:
    c = settings(steps=8, checkpoint__every=3, augment__enabled=True)
    assert ranks.run(c, 2, "kill", rank=1, step=7) == [2, -signal.SIGKILL]
    assert "rank 1 of 2, on " in ranks.said(c, 0)
    assert "has ended without a word, as one that was killed" in ranks.said(c, 0)
    assert "Traceback" not in ranks.said(c, 0)
    assert final(c.out).step in (3, 6), "the last one may still have been on its way to the disk"
    assert ranks.run(c, 2) == [0, 0]
    whole = settings(steps=8, out=f"{c.out}-whole", augment__enabled=True)
    assert ranks.run(whole, 2) == [0, 0]
    assert losses(c.out) == losses(whole.out)
    assert same_weights(c.out, whole.out)


def test_a_rank_that_hangs_is_named_and_all_end(settings: Settings) -> None:
    c = settings(steps=8, parallel__timeout=2.0)
    assert ranks.run(c, 2, "hang", rank=1, step=3) == [2, 2], ranks.said(c, 0) + ranks.said(c, 1)
    for rank in (0, 1):
        line = ranks.said(c, rank).splitlines()[-1]
        assert line.startswith("worldtrace train: rank 1 of 2, on ")
        assert "has not moved for " in line
        assert ": at step 3 it computes, in train/ranks.py:" in line
        assert " < train/loop.py:" in line


@pytest.mark.slow
def test_data_that_never_come_are_named_and_who_reads_them_is_ended(settings: Settings) -> None:
    c = settings(steps=50, data__workers=1, parallel__timeout=10.0)
    assert ranks.run(c, 2, "stuck data", rank=1, step=5) == [2, 2], ranks.said(c, 0) + ranks.said(c, 1)
    for rank in (0, 1):
        line = ranks.said(c, rank).splitlines()[-1]
        assert line.startswith("worldtrace train: rank 1 of 2, on ")
        assert " it waits for data, in " in line
        assert " < train/loop.py:" in line
    until = time.monotonic() + 20  # a forkserver ends when it notices that it is alone
    while readers(c.out) and time.monotonic() < until:
        time.sleep(0.1)
    assert not readers(c.out), "a frozen process outlives nobody"


def readers(out: str) -> list[int]:
    """Processes that still have the log of a rank open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link).startswith(out) for link in (process / "fd").iterdir()):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_damage_of_all_ranks_is_counted_together(settings: Settings) -> None:
    c = settings(steps=8)
    assert ranks.run(c, 2, "damage", rank=1, step=3) == [2, 2]
    line = "4 of 16 samples cannot be used, more than 0.1%: 4 damaged"
    assert line in ranks.said(c, 0)
    assert line in ranks.said(c, 1)
    noted = [json.loads(text)["index"] for text in (Path(c.out) / "damaged.jsonl").read_text().splitlines()]
    assert noted == [10, 11, 14, 15], "rank 1 has the second half of each batch of four"


def test_what_rank_0_refuses_all_refuse_in_one_sentence(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    train(settings(steps=1), quiet())
    for changes, reason in (
        ({"seed": 3}, "another config (seed: 0 -> 3)"),
        ({"data__batch": 3}, "data.batch 3 is not a multiple of 2 ranks"),
        ({"data__path": str(tmp_path / "absent")}, "absent"),
    ):
        c = settings(steps=2, **changes)
        assert ranks.run(c, 2) == [2, 2]
        for rank in (0, 1):
            assert ranks.said(c, rank).startswith("worldtrace train: ")
            assert reason in ranks.said(c, rank)
            assert ranks.said(c, rank).count("\n") == 1


def test_ranks_that_see_different_files_are_refused(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    """Another dataset, another config, an `out` that is a folder of each machine by itself."""
    fewer = shutil.copytree(dataset, tmp_path / "fewer")
    shards.write_manifest(fewer, shards.read_manifest(fewer).to_pylist()[:-1])
    c = settings(steps=2)
    for other, reason in (
        (settings(steps=2, data__path=str(fewer)), "data.path: rank 1 on "),
        (settings(steps=2, optimizer__lr=1e-3), "optimizer.lr: rank 1 on "),
        (settings(steps=2, out=str(tmp_path / "elsewhere")), "is not the folder that rank 0 writes to on "),
    ):
        assert ranks.run(c, 2, other=other) == [2, 2]
        for rank in (0, 1):
            assert reason in ranks.said(c, rank)
            assert ranks.said(c, rank).count("\n") == 1
    assert not [path for path in Path(c.out).rglob("*") if path.is_file()], "nothing was begun, and no mark is left"
    moved = settings(steps=2, data__path=str(shutil.copytree(dataset, tmp_path / "moved")), data__workers=1)
    assert ranks.run(c, 2, other=moved) == [0, 0], "the same samples, mounted elsewhere"


def test_an_environment_without_a_rank_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="RANK: found None in the environment, where WORLD_SIZE is '2'"):
        train(settings(), quiet())


def test_torchrun_runs_the_same_code_and_hands_on_a_signal(settings: Settings, tmp_path: Path) -> None:
    c = settings(steps=100_000, data__workers=1)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.to_dict(c)))
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "worldtrace"]
        + ["train", str(tmp_path / "c.yaml")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        under_way(process, c.out, 90)
        os.kill(process.pid, signal.SIGTERM)
        text, _ = process.communicate(timeout=40)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert text.count("SIGTERM: saved step") == 1
    assert final(c.out).step >= 3
    shutil.rmtree(c.out)
