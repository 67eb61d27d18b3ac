"""Training on a small real dataset: it learns, it can be interrupted anywhere, and it notices what goes wrong."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from model import Loss, objective
from tests.train.conftest import Settings
from tests.train.runs import final, losses, quiet, same_tensors, same_weights
from train import checkpoints, loop
from train.checkpoints import pieces
from train.loop import train
from train.ranks.parallel import Ranks
from train.reports import log
from train.reports.reports import Reports
from train.reports.validation import HeldOut, validate
from train.run import load_run
from train.step import loss as step
from train.step.loss import draws


def test_a_short_training_lowers_the_loss_of_every_layer(settings: Settings) -> None:
    c = settings(steps=40, data__batch=8, objective__shared_times_from=20, log__every=5)
    assert train(c, quiet()).step == 40
    lines = log.read(Path(c.out))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert all(last < 0.8 * first for first, last in zip(lines[0]["layers"], lines[-1]["layers"]))
    assert [line["phase"] for line in lines] == ["independent"] * 4 + ["shared"] * 4
    assert {"endpoint", "monotonicity", "lr", "grad_norm", "samples_per_second", "data_wait", "skipped"} <= set(
        lines[0]
    )
    with Image.open(Path(c.out) / "training.png") as picture:
        assert picture.size[0] > 1000


@pytest.mark.parametrize("stop", [5, 8])
def test_an_interrupted_run_goes_on_bit_for_bit(settings: Settings, tmp_path: Path, stop: int) -> None:
    """12 steps at once, against a run that dies after step `stop`, before that step's checkpoint is written."""
    whole = settings(out=str(tmp_path / "whole"), augment__enabled=True, steps=12)
    train(whole, quiet())
    broken = settings(out=str(tmp_path / "broken"), augment__enabled=True, checkpoint__every=4, steps=12)

    class Killed(Exception):
        pass

    def dies(step: int, *_: Any) -> None:
        if step == stop:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reports, "step", dying(Reports.step, dies))
        with pytest.raises(Killed):
            train(broken, quiet())
    assert final(broken.out).step == 4
    train(broken, quiet())
    assert losses(broken.out) == losses(whole.out)
    assert len(losses(whole.out)) == 12
    assert same_weights(whole.out, broken.out)


def dying(original: Any, dies: Any) -> Any:
    def step(self: Reports, number: int, *rest: Any) -> None:
        original(self, number, *rest)
        dies(number)

    return step


def test_accumulation_takes_the_same_steps(settings: Settings, tmp_path: Path) -> None:
    """Same samples, times and noise; the mean of micro-batch gradients is the batch's, but for rounding."""
    once = settings(out=str(tmp_path / "once"), steps=3)
    twice = settings(out=str(tmp_path / "twice"), steps=3, accumulation=2)
    train(once, quiet())
    train(twice, quiet())
    assert losses(twice.out) == pytest.approx(losses(once.out), rel=1e-4)


def test_noise_belongs_to_the_sample_not_to_the_batch() -> None:
    x0 = torch.zeros(4, 6, 8, 8, 3)
    uniform, noise = draws(3, torch.tensor([5, 6, 7, 8]), x0)
    alone = draws(3, torch.tensor([7]), x0[:1])
    assert torch.equal(uniform[2:3], alone[0])
    assert torch.equal(noise[2:3], alone[1])
    assert not torch.equal(noise[0], noise[1])
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(noise, draws(4, torch.tensor([5, 6, 7, 8]), x0)[1])


def test_a_corrupt_newest_checkpoint_costs_steps_not_the_run(settings: Settings) -> None:
    c = settings(steps=6, checkpoint__every=2)
    train(c, quiet())
    newest = next((checkpoints.steps(Path(c.out))[-1] / "model").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    said = io.StringIO()
    assert train(c, Console(file=said, width=1000)).step == 6
    assert f"damaged checkpoint passed over: {newest}" in said.getvalue()
    assert "goes on at step 4" in said.getvalue()
    assert [line["step"] for line in log.read(Path(c.out))] == list(range(1, 7))


def test_a_non_finite_loss_leaves_the_weights_alone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def sometimes(*args: Any, **kwargs: Any) -> Loss:
        nonlocal calls
        calls += 1
        found = objective(*args, **kwargs)
        return found._replace(total=found.total * math.nan) if calls == 4 else found

    monkeypatch.setattr(step, "objective", sometimes)
    c = settings(steps=4, checkpoint__every=1)
    train(c, quiet())
    before, after = (checkpoints.find(path) for path in checkpoints.steps(Path(c.out)))
    assert (before.step, after.step) == (3, 4)
    assert same_tensors(before, after, but=["guard."])
    assert int(checkpoints.read(after, ["optimizer"])["optimizer"]["guard.skipped"]) == 1
    assert log.read(Path(c.out))[-1]["skipped"] == 1
    assert log.read(Path(c.out))[-1]["loss"] is None


def test_a_full_disk_costs_a_checkpoint_not_the_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    whole = pieces._write

    def sometimes(path: Path, part: Any) -> Any:
        return (full if "step-000004" in str(path) else whole)(path, part)

    monkeypatch.setattr(pieces, "_write", sometimes)
    said = io.StringIO()
    c = settings(steps=6, checkpoint__every=2, checkpoint__keep=9)
    assert train(c, Console(file=said, width=1000)).step == 6
    assert [p.name for p in checkpoints.steps(Path(c.out))] == ["step-000002", "step-000006"]
    assert "step-000004 cannot be written: No space left on device; training goes on" in said.getvalue()
    monkeypatch.setattr(pieces, "_write", full)
    with pytest.raises(OSError, match="step-000007 cannot be written"):
        train(settings(steps=7), quiet())


def test_a_finished_run_stays_finished_and_more_steps_prolong_it(settings: Settings) -> None:
    train(settings(steps=2), quiet())
    assert train(settings(steps=2), quiet()).step == 2
    assert train(settings(steps=4), quiet()).step == 4
    assert len(losses(settings().out)) == 4


def test_a_run_opens_with_its_averaged_weights_and_starts_another(settings: Settings, tmp_path: Path) -> None:
    c = settings(steps=3)
    train(c, quiet())
    run, averaged = load_run(c.out), checkpoints.weights(final(c.out))
    assert (run.step, run.config, run.normalisation.kind) == (3, c, "zscore")
    assert not run.model.training
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, averaged[name]), name
    second = settings(
        steps=1, out=str(tmp_path / "second"), model__start=c.out, optimizer__lr=1e-9, optimizer__min_lr=0
    )
    train(second, quiet())
    for name, value in load_run(second.out).model.state_dict().items():
        assert torch.allclose(value, averaged[name], atol=1e-6), name


def test_metrics_of_a_killed_writer_are_read_up_to_the_break(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [line["step"] for line in log.read(tmp_path)] == [1, 2]


@pytest.mark.parametrize("fails_at", [2, 4])
def test_an_evaluation_that_was_cut_short_is_made_up(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    common: dict[str, Any] = {
        "steps": 4,
        "checkpoint__every": 2,
        "evaluation__every": 2,
        "evaluation__split": "all",
        "evaluation__samples": 2,
        "evaluation__pictures": 0,
    }
    whole = settings(out=str(tmp_path / "whole"), **common)
    train(whole, quiet())
    broken = settings(out=str(tmp_path / "broken"), **common)

    class Killed(Exception):
        pass

    def killed(*args: Any) -> Any:
        if args[5] == fails_at:
            raise Killed
        return sound(*args)

    sound = loop.validate
    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", killed)
        with pytest.raises(Killed):
            train(broken, quiet())
    train(broken, quiet())
    one, two = (
        [(line["step"], line["loss"], line["layers"]) for line in log.events(Path(c.out), "evaluation")]
        for c in (whole, broken)
    )
    assert one == two
    assert [step for step, *_ in one] == [2, 4]
    train(broken, quiet())
    assert len(log.events(Path(broken.out), "evaluation")) == 2, "and only once"


def test_a_full_device_is_one_sentence(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Loss:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(loop, "loss_of", full)
    with pytest.raises(ValueError, match=r"memory of cpu is full \(CUDA out of memory\): raise accumulation") as error:
        train(settings(), quiet())
    assert "\n" not in str(error.value)


def test_an_evaluation_is_of_the_averaged_weights(settings: Settings) -> None:
    changes: dict[str, Any] = {"evaluation__split": "all", "evaluation__samples": 4, "evaluation__pictures": 0}
    c = settings(steps=8, ema=0.8, evaluation__every=8, **changes)
    train(c, quiet())
    (told,) = log.events(Path(c.out), "evaluation")
    run, held_out = load_run(c.out), HeldOut.open(c)
    assert held_out is not None
    alone, out = Ranks(0, 1, torch.device("cpu")), Path(c.out)
    averaged = validate(run.model, run.normalisation, held_out, alone, lambda: False, 8, out)
    run.model.load_state_dict(checkpoints.read(final(c.out))["model"])
    last = validate(run.model, run.normalisation, held_out, alone, lambda: False, 8, out)
    assert averaged is not None
    assert last is not None
    assert told["loss"] == pytest.approx(averaged.loss, rel=1e-5)
    assert told["loss"] != pytest.approx(last.loss, rel=1e-3)
