"""How a run ends before its last step: by a signal, at any moment, or by an error."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from model import Loss
from tests.train.conftest import Settings
from tests.train.runs import final, losses, quiet, same_weights, under_way
from train import config, loop, signals
from train.loop import train
from train.reports import log


def test_sigterm_leaves_a_checkpoint_and_no_traceback(settings: Settings, tmp_path: Path) -> None:
    c = settings(steps=100_000, data__workers=1, log__tensorboard=False)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.to_dict(c)))
    code = "import sys, typer; from train.cli import train; typer.run(train)"
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "c.yaml")],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        under_way(process, c.out)
        os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does: the workers get it too
        text, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, text
    assert "SIGTERM: saved step" in text
    assert "Traceback" not in text
    done = final(c.out).step
    assert done >= 3
    assert [json.loads(x)["step"] for x in (Path(c.out) / "metrics.jsonl").read_text().splitlines()][-1] == done


def test_an_error_ends_the_process_and_its_workers(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    """The workers ignore SIGTERM, so an exit that only asks them to leave would never come."""
    copy = shutil.copytree(dataset, tmp_path / "copy")
    next((copy / "shards").iterdir()).unlink()
    c = settings(
        data__path=str(copy), data__workers=1, model__normalisation="log_median"
    )  # which reads no sample itself
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.to_dict(c)))
    ended = subprocess.run(
        [sys.executable, "-m", "worldtrace", "train", str(tmp_path / "c.yaml")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("worldtrace train: ")
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stderr


def test_a_signal_drops_the_step_under_way(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in the first of three micro-batches of step 4: the second is not computed, and step 3 is what counts."""
    whole = settings(out=str(tmp_path / "whole"), steps=5, data__batch=6, accumulation=3, augment__enabled=True)
    train(whole, quiet())
    broken = whole.model_copy(update={"out": str(tmp_path / "broken")})
    caught: list[signal.Signals] = []
    sound, calls = loop.loss_of, 0

    def then_signalled(*args: Any) -> Loss:
        nonlocal calls
        calls += 1
        if calls == 10:
            caught.append(signal.SIGTERM)
        return sound(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "loss_of", then_signalled)
        ended = train(broken, quiet(), caught)
    assert (ended.step, ended.stopped_by, calls) == (3, signal.SIGTERM, 10)
    assert final(broken.out).step == 3
    assert [line["step"] for line in log.read(Path(broken.out))] == [1, 2, 3]
    train(broken, quiet())
    assert losses(broken.out) == losses(whole.out)
    assert same_weights(whole.out, broken.out)


def test_a_signal_before_the_first_step_saves_what_is_there(settings: Settings) -> None:
    ended = train(settings(steps=2), quiet(), [signal.SIGTERM])
    assert ended.line("run").startswith("SIGTERM: saved step 0 of 2")
    assert train(settings(steps=2), quiet(), [signal.SIGTERM]).step == 0
    assert train(settings(steps=2), quiet()).step == 2
    assert len(losses(settings().out)) == 2


def test_a_signal_that_is_told_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler tells every process, torchrun its ranks as well; a later one ends the process."""
    ended: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    try:
        with signals.noted() as caught:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
            assert (caught, ended) == ([signal.SIGTERM], [])
            monkeypatch.setattr(signals, "TWICE", 0.0)
            os.kill(os.getpid(), signal.SIGTERM)
            assert (caught, ended) == ([signal.SIGTERM], [signal.SIGTERM])
        with signals.noted(again=True) as caught:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            assert (caught, ended) == ([signal.SIGTERM] * 2, [signal.SIGTERM]), "a driver that is told so later on"
    finally:
        signal.signal(signal.SIGTERM, before)
