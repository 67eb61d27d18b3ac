"""The loss on held-out samples: always the same ones, the same number on any number of ranks, no trace in training."""

import io
import math
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import shards
from model import WTDiT, ZScore, objective
from tests.shards.scenes import spheres_clip, spheres_view
from tests.train import several
from tests.train.conftest import SIZE, Settings, write_dataset
from train import config
from train.config import Config
from train.ranks.parallel import Ranks
from train.reports import validation
from train.reports.sheets import Row, draw_rows
from train.reports.validation import Evaluated, HeldOut, times_of, validate
from train.run import build

ALONE = Ranks(0, 1, torch.device("cpu"))
MAP = ZScore((0.0, 0.0, 3.0), (1.0, 1.0, 1.0))


@pytest.fixture
def evaluating(settings: Settings) -> Settings:
    """The micro model; all eight views of spheres are held out."""
    return lambda **changes: settings(
        **{
            "evaluation__every": 5,
            "evaluation__split": "all",
            "evaluation__samples": 7,
            "evaluation__pictures": 2,
            "data__batch": 3,
            **changes,
        }
    )


def quiet(_: str) -> None:
    pass


def opened(c: Config) -> HeldOut:
    found = HeldOut.open(c, quiet)
    assert found is not None
    return found


def random_model(c: Config) -> WTDiT:
    """Whose head is not zero, as at the start of a training."""
    model, _ = build(c)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.projection.weight, std=0.3)
    return model


def run(c: Config, ranks: Ranks = ALONE, model: WTDiT | None = None, stop: Any = lambda: False) -> Evaluated | None:
    return validate(model or random_model(c), MAP, opened(c), ranks, stop, 5, Path(c.out), quiet)


def test_the_loss_is_that_of_training_on_the_same_samples_times_and_noise(evaluating: Settings) -> None:
    """Against the objective of all samples in one batch; they are all layered, so its mean is over equals."""
    c = evaluating(evaluation__pictures=0)
    found, held_out, model = run(c), opened(c), random_model(c)
    assert found is not None
    items = [held_out.read(k, 6) for k in range(7)]
    rgb, xyz, valid, noise = (torch.cat([getattr(s, name) for s in items]) for name in ("rgb", "xyz", "valid", "noise"))
    x0, _ = MAP.forward(xyz, valid)
    with torch.no_grad():
        whole = objective(model, rgb, x0, valid, times_of(range(7), 6, 0, model.config.time_shift), noise)
    assert found.loss == pytest.approx(float(whole.total), rel=1e-5)
    assert found.endpoint == pytest.approx(float(whole.endpoint), rel=1e-5)
    assert found.layers == pytest.approx(whole.layers_L.tolist(), rel=1e-5)
    assert (found.samples, found.unusable, found.split) == (7, 0, "all")


def evaluated(ranks: Ranks, tree: dict[str, Any], shard: int | None = None) -> tuple[float, list[float], bool]:
    c = config.from_dict(tree)
    model = random_model(c)
    if shard is not None:
        from train.ranks import sharding

        sharding.distribute(model, ranks, c.parallel)
    found = run(c, ranks, model)
    assert found is not None
    return found.loss, found.layers, found.picture is not None


def pixels(path: Path | None) -> np.ndarray:
    assert path is not None
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [None, 2])
def test_any_number_of_ranks_finds_the_same_loss(evaluating: Settings, shard: int | None) -> None:
    """Seven samples do not divide among them, and four ranks have more than one of them idle for the pictures."""
    c = evaluating(data__batch=4, parallel__shard=shard or 1, objective__lambda_mono=0.5)
    alone = run(c)
    assert alone is not None
    picture = pixels(alone.picture)
    for world in (2, 4):
        found = several.on(world, evaluated, config.to_dict(c), shard)
        assert all(rank == (found[0][0], found[0][1], k == 0) for k, rank in enumerate(found))  # bit for bit
        assert found[0][0] == pytest.approx(alone.loss, rel=1e-6)
        assert found[0][1] == pytest.approx(alone.layers, rel=1e-6)
        assert np.abs(pixels(alone.picture) - picture).mean() < 0.1  # drawn anew, each by the rank that had the sample


def stopped(ranks: Ranks, tree: dict[str, Any], after: int) -> tuple[bool, int]:
    c, calls = config.from_dict(tree), 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > after

    return run(c, ranks, stop=stop) is None, calls


@pytest.mark.slow
def test_a_signal_ends_an_evaluation_on_all_ranks_after_the_same_batch(evaluating: Settings, tmp_path: Path) -> None:
    c = evaluating(data__batch=2)  # a sample at a time on each rank: four rounds, and one for the pictures
    for after, called in ((0, 1), (2, 3), (4, 5)):
        assert several.on(2, stopped, config.to_dict(c), after) == [(True, called)] * 2
    assert several.on(2, stopped, config.to_dict(c), 5) == [(False, 5)] * 2
    assert [p.name for p in (tmp_path / "run" / "pictures").iterdir()] == ["step-000005.png"]


def test_an_evaluation_that_is_stopped_leaves_nothing(evaluating: Settings) -> None:
    c = evaluating()
    assert run(c, stop=lambda: True) is None
    assert not Path(c.out).exists()


def test_nothing_that_training_depends_on_is_touched(evaluating: Settings) -> None:
    c = evaluating()
    model = random_model(c)
    model.train()
    model.get_submodule("encoder").eval()
    modes = [m.training for m in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    numbers = torch.get_rng_state(), random.getstate()
    run(c, model=model)
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert random.getstate() == numbers[1]
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.is_grad_enabled()


def test_two_evaluations_differ_by_the_weights_alone(evaluating: Settings) -> None:
    c = evaluating()
    one, two = run(c), run(c)
    assert one is not None
    assert two is not None
    assert (one.loss, one.layers) == (two.loss, two.layers)
    changed = random_model(c)
    with torch.no_grad():
        changed.head.projection.bias.add_(0.1)
    other = run(c, model=changed)
    assert other is not None
    assert other.loss != one.loss


def test_times_are_those_of_samples_and_spread_evenly() -> None:
    t = times_of(range(64), 6, 3, 1.0)
    assert torch.equal(times_of([17, 40], 6, 3, 1.0), t[[17, 40]])
    assert torch.equal(t, t[:, :1].expand(-1, 6))
    assert not torch.equal(t, times_of(range(64), 6, 4, 1.0))
    offset = validation.seed_of(3, "evaluation") % 2**32 / 2**32
    for count in (8, 21, 64):  # in any bin of 1 / count of the distribution there are at most two
        quantiles = np.array([(offset + k * validation.GOLDEN) % 1 for k in range(count)])
        assert np.bincount((quantiles * count).astype(int), minlength=count).max() <= 2


def test_samples_are_chosen_by_the_manifest_and_shared_out_as_the_mixture_is(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    other = write_dataset(tmp_path / "other", [spheres_view(i, 28, 28) for i in range(20, 32)], 28)
    mixed = [
        {"path": str(dataset), "weight": 0.25, "split": "all"},
        {"path": str(other), "weight": 0.75, "split": "all"},
    ]
    c = settings(data__path=mixed, evaluation__every=1, evaluation__split="all", evaluation__samples=8)
    rows = opened(c).rows
    assert [source for source, _ in rows].count(0) == 2
    assert len(set(rows)) == 8
    assert rows == opened(settings(**{"data__path": mixed, "evaluation__every": 1, "evaluation__split": "all",
                                      "evaluation__samples": 8, "seed": 9, "data__batch": 8})).rows  # fmt: skip
    whole = settings(data__path=mixed, evaluation__every=1, evaluation__split="all", evaluation__samples=500)
    assert len(set(opened(whole).rows)) == 20
    assert opened(c).hash != opened(settings(evaluation__every=1, evaluation__split="all")).hash


def test_without_held_out_samples_there_is_one_sentence(settings: Settings) -> None:
    said: list[str] = []
    assert HeldOut.open(settings(), said.append) is None
    assert not said
    empty = settings(evaluation__every=1, evaluation__split="test", data__where="split <> 'test'")
    assert HeldOut.open(empty, said.append) is None
    assert len(said) == 1
    assert "is in split test, so there is no validation loss; name another evaluation.split" in said[0]
    said.clear()
    assert HeldOut.open(settings(evaluation__every=1, evaluation__split="all"), said.append) is not None
    assert said == ["evaluation: the run trains on split all too: its validation loss is of samples it has seen"]


def test_a_sample_that_cannot_be_read_is_counted_and_left_out(
    evaluating: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = evaluating(data__batch=2)
    whole = run(c)
    read = HeldOut.read

    def damaged(self: HeldOut, number: int, layers: int) -> Any:
        if number in (1, 2, 3):  # one of a batch, and a whole one
            raise shards.CorruptSample("spheres", "its bytes are not those that were written")
        return read(self, number, layers)

    monkeypatch.setattr(HeldOut, "read", damaged)
    found = run(c)
    assert whole is not None
    assert found is not None
    assert (found.samples, found.unusable) == (4, 3)
    assert found.line().endswith("3 could not be read")
    assert 0.3 * whole.loss < found.loss < 3 * whole.loss
    monkeypatch.setattr(HeldOut, "read", lambda *_: (_ for _ in ()).throw(OSError("gone")))
    none = run(c)
    assert none is not None
    assert math.isnan(none.loss)
    assert none.facts()["loss"] is None
    assert none.facts()["layers"] == [None] * 6
    assert none.picture is None


def test_a_capture_judges_its_layer_alone(settings: Settings, tmp_path: Path) -> None:
    views = [replace(spheres_view(i, 28, 28), single_layer=True, regime="rgbd", depth=spheres_view(i, 28, 28).depth[:1],
                     hits=np.minimum(spheres_view(i, 28, 28).hits, 1)) for i in range(2)]  # fmt: skip
    path = write_dataset(tmp_path / "captures", list(views), 28)
    c = settings(data__path=str(path), evaluation__every=1, evaluation__split="all", evaluation__pictures=1)
    found = run(c)
    assert found is not None
    assert found.layers[0] > 0
    assert all(math.isnan(x) for x in found.layers[1:])
    assert found.facts()["layers"][1:] == [None] * 5


def test_a_clip_is_judged_by_its_first_frames(settings: Settings, clips: Path) -> None:
    """With temporal blocks; the short clip of three has two frames."""
    c = settings(
        data__path=str(clips), data__frames=2, model__temporal=True, evaluation__every=1, evaluation__split="all"
    )
    held_out = opened(c)
    item = held_out.read(0, 6)
    assert item.rgb.shape == (2, 3, SIZE, SIZE)
    assert item.noise.shape == item.xyz.shape == (2, 6, SIZE, SIZE, 3)
    found = run(c)
    assert found is not None
    assert (found.samples, found.unusable) == (3, 0)
    with Image.open(found.picture or "") as sheet:
        single = draw_rows(
            [Row("", np.zeros((4, 4, 3)), np.ones((4, 4), bool), np.ones((6, 4, 4)), np.ones((6, 4, 4)))]
        )
        assert sheet.size == (single.shape[1], 3 * 2 * single.shape[0])  # three clips, the first and the last frame
    short = settings(data__path=str(clips), data__frames=4, model__temporal=True, evaluation__every=1,
                     evaluation__split="all")  # fmt: skip
    with pytest.raises(ValueError, match=r"3 frames, and data\.frames asks for 4"):
        opened(short).read(0, 6)


def test_a_clip_whose_object_leaves_is_judged_and_drawn(settings: Settings, tmp_path: Path) -> None:
    """Its last frame, which the sheet shows, has no valid pixel."""
    whole = spheres_clip(0, 3, height=48, width=48)
    left = whole.frames[2]
    gone = replace(left, rgba=left.rgba * 0, hits=left.hits * 0, depth=left.depth * 0)
    path = write_dataset(tmp_path / "leaving", [shards.Clip(whole.key, (*whole.frames[:2], gone))], 48)
    c = settings(
        data__path=str(path), data__frames=3, model__temporal=True, evaluation__every=1, evaluation__split="all"
    )
    assert not opened(c).read(0, 6).valid[2].any()
    found = run(c)
    assert found is not None
    assert found.picture is not None
    assert (found.samples, found.unusable) == (1, 0)


def test_a_row_without_a_valid_pixel_has_empty_layers() -> None:
    depth, valid = np.ones((2, 16, 16), np.float32), np.zeros((16, 16), bool)
    page = draw_rows([Row("key", np.ones((16, 16, 3)), valid, depth, depth + np.nan)])
    for x in (168, 332):
        for y in (18, 200):
            assert (page[y : y + 160, x : x + 160] == (24, 24, 28)).all()


def test_a_full_disk_costs_the_picture_alone(evaluating: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Path:
        raise OSError("No space left on device")

    monkeypatch.setattr(validation, "write_sheet", full)
    said: list[str] = []
    c = evaluating()
    found = validate(random_model(c), MAP, opened(c), ALONE, lambda: False, 5, Path(c.out), said.append)
    assert found is not None
    assert found.picture is None
    assert said == ["the predictions of step 5 cannot be drawn: No space left on device; training goes on"]


def test_a_sheet_shows_depth_in_turbo_within_the_mask() -> None:
    """A ramp under its own range: near is red, far is blue, and a prediction that is right has the truth's colours."""
    ramp = np.tile(np.linspace(1, 2, 160, dtype=np.float32), (160, 1))
    valid = np.zeros((160, 160), bool)
    valid[40:] = True
    page = draw_rows([Row("key", np.ones((160, 160, 3)), valid, ramp[None], np.stack([ramp, ramp + 5]))])
    assert page.dtype == np.uint8
    true, right, wrong = (page[y : y + 160, x : x + 160] for y, x in ((18, 168), (200, 168), (200, 332)))
    assert np.array_equal(true[:, :], right)
    assert (true[:40] == (24, 24, 28)).all()
    near, far = true[100, 5].astype(int), true[100, 155].astype(int)
    assert near[0] > near[2] + 60
    assert far[2] > far[0] + 60
    assert len(np.unique(wrong[60:].reshape(-1, 3), axis=0)) == 1


@pytest.mark.slow
def test_losses_with_and_without_evaluation_are_the_same_bits(evaluating: Settings, tmp_path: Path) -> None:
    from rich.console import Console

    from train.loop import train
    from train.reports import log

    found = []
    for name, every in (("with", 2), ("without", 0)):
        c = evaluating(out=str(tmp_path / name), evaluation__every=every, steps=6, augment__enabled=True, data__batch=4)
        train(c, Console(file=io.StringIO()))
        found.append([line["loss"] for line in log.read(Path(c.out))])
        assert len(log.events(Path(c.out), "evaluation")) == (3 if every else 0)
    assert found[0] == found[1]
    assert len(found[0]) == 6


def told_to_stop(ranks: Ranks, tree: dict[str, Any]) -> tuple[int, str]:
    """A training whose rank 1 is told to stop while it reads the third held-out sample of the first evaluation."""
    from rich.console import Console

    from train.loop import train

    caught: list[signal.Signals] = []
    read = HeldOut.read

    def reading(self: HeldOut, number: int, layers: int) -> Any:
        if ranks.rank == ranks.world - 1 and number == 3 and not caught:
            caught.append(signal.SIGTERM)
        return read(self, number, layers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeldOut, "read", reading)
        outcome = train(config.from_dict(tree), Console(file=io.StringIO()), caught)
    return outcome.step, str(outcome.stopped_by and outcome.stopped_by.name)


@pytest.mark.slow
def test_a_signal_in_an_evaluation_is_obeyed_at_once_and_nothing_is_lost(evaluating: Settings, tmp_path: Path) -> None:
    from train import checkpoints
    from train.reports import log

    for world in (1, 2):
        c = evaluating(
            out=str(tmp_path / str(world)), steps=8, evaluation__every=3, data__batch=2, evaluation__samples=8
        )
        tree = config.to_dict(c)
        found = several.on(2, told_to_stop, tree) if world == 2 else [told_to_stop(ALONE, tree)]
        assert found == [(3, "SIGTERM")] * world
        saved = checkpoints.latest(Path(c.out), quiet)
        assert saved is not None
        assert saved.step == 3
        assert not log.events(Path(c.out), "evaluation")
        assert not (Path(c.out) / "pictures").exists()
        assert [line["step"] for line in log.read(Path(c.out))] == [1, 2, 3]
