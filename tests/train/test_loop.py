"""Training on a small real dataset: it learns, it can be interrupted anywhere, and it notices what goes wrong."""

import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

import shards
from model import Loss, ZScore, objective, presets, to_released
from tests.train.conftest import Settings
from train import checkpoints, config, loop, resume, signals
from train.checkpoints import pieces
from train.loop import train
from train.ranks.parallel import Ranks
from train.reports import log
from train.reports.reports import Reports
from train.reports.validation import HeldOut, validate
from train.run import build, load_run
from train.step import loss as step
from train.step.loss import draws


def quiet() -> Console:
    return Console(file=io.StringIO())


def losses(out: str) -> list[float]:
    return [line["loss"] for line in log.read(Path(out))]


def final(out: str) -> checkpoints.Found:
    found = checkpoints.latest(Path(out))
    assert found is not None
    return found


def same_weights(a: str, b: str) -> bool:
    return final(a).step == final(b).step and same_tensors(final(a), final(b))


def same_tensors(one: checkpoints.Found, two: checkpoints.Found, but: Sequence[str] = ()) -> bool:
    """Weights, averages and the optimizer's state, bit for bit."""
    a, b = (checkpoints.read(found, checkpoints.GROUPS) for found in (one, two))
    return all(
        torch.equal(value, b[name][key])
        for name, part in a.items()
        for key, value in part.items()
        if not key.startswith(tuple(but))
    )


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


def test_another_config_is_refused_in_the_same_folder(settings: Settings) -> None:
    train(settings(steps=2), quiet())
    with pytest.raises(
        ValueError, match=r"another config \(optimizer.lr: 0.002 -> 0.003; seed: 0 -> 1\).*another out="
    ):
        train(settings(steps=2, optimizer__lr=3e-3, seed=1), quiet())


def test_other_samples_are_refused_and_a_moved_dataset_is_not(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    train(settings(steps=1), quiet())
    moved = shutil.copytree(dataset, tmp_path / "moved")
    assert train(settings(steps=2, data__path=str(moved)), quiet()).step == 2
    rows = shards.read_manifest(moved).to_pylist()
    shards.write_manifest(moved, rows[:-1])
    with pytest.raises(ValueError, match="trained on other samples"):
        train(settings(steps=3, data__path=str(moved)), quiet())


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


def test_a_size_that_is_no_multiple_of_the_patch_is_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"data\.size: 30 is not a multiple"):
        train(settings(data__size=30), quiet())


def test_a_frozen_encoder_needs_weights(settings: Settings) -> None:
    c = settings(model__encoder={"width": 32, "depth": 2, "heads": 2, "frozen": True})
    with pytest.raises(ValueError, match=r"model\.start: not set"):
        train(c, quiet())


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


def test_a_warm_start_keeps_the_normalisation_of_its_weights(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    c = settings(steps=1, model__normalisation="log_median")
    train(c, quiet())
    for kind, kept in (("auto", "log_median"), ("zscore", "zscore")):
        second = settings(steps=1, out=str(tmp_path / kind), model__start=c.out, model__normalisation=kind)
        train(second, quiet())
        assert load_run(second.out).normalisation.kind == kept


def test_a_start_from_released_weights_brings_the_released_statistics(settings: Settings, tmp_path: Path) -> None:
    for film_adaln, kind in ((False, "zscore"), (True, "log_median")):
        c = settings(model__film_adaln=film_adaln)
        network, _ = build(c)
        torch.save({"ema_state_dict": to_released(network.state_dict())}, tmp_path / "model.pt")
        again, inherited = build(
            settings(model__film_adaln=film_adaln, model__start=str(tmp_path / "model.pt"), seed=5)
        )
        assert inherited is not None
        assert inherited.kind == kind
        assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), network.state_dict().values()))
        if isinstance(inherited, ZScore):
            assert inherited == ZScore((-0.002366, -0.004008, 1.904278), (0.280865, 0.315927, 0.706423))


def test_a_start_that_does_not_fit_is_named(settings: Settings, tmp_path: Path) -> None:
    train(settings(steps=1), quiet())
    with pytest.raises(ValueError, match=r"run holds another model.* is \d+x\d+.* there and .* here") as error:
        build(settings(model__width=64, model__start=str(tmp_path / "run")))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="absent there"):
        build(settings(model__film_adaln=True, model__start=str(tmp_path / "run")))
    for content in (b"# A readme\n", b"", b"PK\x03\x04 cut"):
        (tmp_path / "README.md").write_bytes(content)
        with pytest.raises(ValueError, match=r"README\.md: holds no weights") as error:
            build(settings(model__start=str(tmp_path / "README.md")))
        assert "\n" not in str(error.value)


def test_a_preset_that_changed_under_a_run_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    train(settings(steps=1), quiet())
    monkeypatch.setitem(presets, "tiny", replace(presets["tiny"], time_shift=3.0))
    with pytest.raises(ValueError, match=r"preset tiny is now \(time_shift: 10\.0 -> 3\.0\)"):
        train(settings(steps=2), quiet())


def test_scenes_are_trained_under_the_log_median(settings: Settings, tmp_path: Path) -> None:
    from tests.shards.scenes import spheres_view
    from tests.train.conftest import write_dataset

    path = write_dataset(tmp_path / "scenes", [spheres_view(i, 28, 28, regime="scene") for i in range(2)], 28)
    c = settings(steps=2, data__path=str(path), precision="bf16")
    train(c, quiet())
    assert load_run(c.out).normalisation.kind == "log_median"
    assert all(math.isfinite(x) for x in losses(c.out))


def test_metrics_of_a_killed_writer_are_read_up_to_the_break(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [line["step"] for line in log.read(tmp_path)] == [1, 2]


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
        until = time.monotonic() + 60
        while len(log.read(Path(c.out))) < 3:
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.05)
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


def test_two_runs_in_one_folder_are_refused(settings: Settings) -> None:
    c = settings(steps=2)
    here = resume.alone_in(Path(c.out), Ranks(0, 1, torch.device("cpu")))
    with here, pytest.raises(ValueError, match="another process trains there now"):
        train(c, quiet())
    assert train(c, quiet()).step == 2


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
