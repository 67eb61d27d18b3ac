"""Update against the readable path it stands for; what it promises of refused steps, of the device and of shards."""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from model import WTDiT, preset
from tests.train import several
from train.config import Config, from_dict
from train.ranks import sharding
from train.ranks.parallel import Ranks
from train.ranks.sharding import plain
from train.step.update import HOPELESS, REASONS, RUNNING, Update

SPIKE = 4.0


def settings_with(**optimizer: Any) -> Config:
    return from_dict({"data": {"path": "x"}, "out": "y", "optimizer": {"spike": SPIKE, **optimizer}})


class Net(nn.Module):
    """Matrices, vectors, a frozen weight and a buffer; of rows that ranks cannot share evenly."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.frozen = nn.Linear(5, 7), nn.Linear(7, 1), nn.Linear(2, 2).requires_grad_(False)
        self.register_buffer("scale", torch.ones(3))


class Twin:
    """The same, step by step on the CPU: torch's AdamW, and a guard and an average in plain Python."""

    def __init__(self, model: nn.Module, settings: Config) -> None:
        self.model, self.settings = model, settings
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        decayed = [p for p in self.weights.values() if p.ndim >= 2]
        rest = [p for p in self.weights.values() if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": settings.optimizer.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=1.0, betas=settings.optimizer.betas, fused=True)
        self.average = {name: p.detach().clone() for name, p in self.weights.items()}
        self.running: float | None = None
        self.updates = self.skipped = 0

    def step(self, loss: float, rate: float, warm: bool) -> int:
        norm = float(nn.utils.clip_grad_norm_(list(self.weights.values()), self.settings.optimizer.clip))
        refused = 0
        if not math.isfinite(loss):
            refused = 1
        elif not math.isfinite(norm):
            refused = 2
        elif warm and self.running is not None and loss > SPIKE * self.running:
            refused = 3
        if math.isfinite(loss):
            running = loss if self.running is None else self.running
            self.running = RUNNING * running + (1 - RUNNING) * min(loss, SPIKE * running)
        if refused:
            self.skipped += 1
            return refused
        self.updates += 1
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        keep = min(self.settings.ema, (1 + self.updates) / (10 + self.updates))
        current = [p.detach() for p in self.weights.values()]
        torch._foreach_lerp_(list(self.average.values()), current, 1 - keep)
        return 0


def gradients(step: int, weights: dict[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(step)
    return {name: scale * torch.randn(p.shape, generator=g) for name, p in weights.items()}


def give(update: Update, found: dict[str, Tensor]) -> None:
    for name, value in found.items():
        update.weights[name].grad = value.clone()


def bits(update: Update) -> dict[str, Tensor]:
    """All that a step may change, but for the guard's own."""
    return {
        f"{part}.{name}": plain(value).clone()
        for part, values in update.tensors().items()
        for name, value in values.items()
        if not name.startswith("guard.")
    }


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def test_taken_and_refused_steps_are_those_of_the_twin() -> None:
    """To the bit: weights, moments, average, running mean. Clipped gradients and others, with every kind of refusal."""
    settings = settings_with(weight_decay=0.1)
    ours, twin = Update(Net(), settings), Twin(Net(), settings)
    losses = [1.0, 1.1, math.nan, 0.9, 50.0, 1.2, math.inf, *(1.0 - 0.01 * k for k in range(20)), 1e3, 0.5]
    seen = set()
    for step, loss in enumerate(losses):
        found = gradients(step, ours.weights, scale=1.0 if step % 2 else 1e-3)
        if step == 10:
            found["first.bias"][3] = math.inf
        give(ours, found)
        for name, value in found.items():
            twin.weights[name].grad = value.clone()
        warm = step > 2
        verdict = ours.step(torch.tensor(loss, dtype=torch.float64), ours.norm(), 1e-2 / (1 + step), warm)
        assert int(verdict.refused) == twin.step(loss, 1e-2 / (1 + step), warm), step
        assert all(torch.equal(p, twin.weights[name]) for name, p in ours.weights.items()), step
        assert all(torch.equal(value, twin.average[name]) for name, value in ours.average.items()), step
        assert float(ours.running) == twin.running
        seen.add(int(verdict.refused))
    moments = {
        f"{kind}.{name}": twin.adamw.state[p][kind]
        for name, p in twin.weights.items()
        for kind in ("exp_avg", "exp_avg_sq")
    }
    assert equal(moments, ours.moments)
    assert seen == set(range(len(REASONS)))
    assert ours.counts()[:2] == (twin.updates, twin.skipped)


@pytest.mark.parametrize(
    ("loss", "gradient", "reason"),
    [(math.nan, 1.0, 1), (-math.inf, 1.0, 1), (1.0, math.inf, 2), (1.0, math.nan, 2), (4.1, 1.0, 3)],
)
def test_a_refused_step_leaves_everything(loss: float, gradient: float, reason: int) -> None:
    update = Update(Net(), settings_with())
    for step in range(3):
        give(update, gradients(step, update.weights))
        update.step(torch.tensor(1.0), update.norm(), 1e-3, warm=True)
    before = bits(update)
    found = gradients(9, update.weights)
    found["last.weight"][0, 1] = gradient
    give(update, found)
    verdict = update.step(torch.tensor(loss), update.norm(), 1e-3, warm=True)
    assert int(verdict.refused) == reason
    assert float(verdict.running) == 1.0
    assert equal(before, bits(update))
    assert update.counts() == (3, 1, 1)
    assert all(p.grad is None for p in update.weights.values())


def test_a_spike_is_judged_once_warm_up_is_over() -> None:
    update = Update(Net(), settings_with())
    refused = []
    for loss, warm in ((1.0, True), (5.0, False), (5.0, True), (4.0, True)):
        give(update, gradients(0, update.weights))
        refused.append(int(update.step(torch.tensor(loss), update.norm(), 1e-3, warm).refused))
    assert refused == [0, 0, 3, 0], "the first loss is compared with nothing"


def test_a_token_of_the_encoder_is_a_vector_and_its_positions_are_a_matrix() -> None:
    model = WTDiT(preset("tiny", width=32, heads=2, decoder_blocks=3, head_blocks=1))
    decayed, rest = Update(model, settings_with()).optimizer.param_groups
    where = {p.untyped_storage().data_ptr(): name for name, p in model.named_parameters()}
    names = [{where[p.untyped_storage().data_ptr()] for p in group["params"]} for group in (decayed, rest)]
    assert {"encoder.pos_embed", "encoder.patch_embed.proj.weight", "head.projection.weight"} <= names[0]
    assert {"encoder.cls_token", "encoder.norm.weight", "head.projection.bias"} <= names[1]


def test_matrices_decay_and_vectors_do_not_and_frozen_weights_have_no_state() -> None:
    update = Update(Net(), settings_with(weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in update.model.named_parameters()}
    give(update, {name: torch.zeros_like(p) for name, p in update.weights.items()})
    update.step(torch.tensor(1.0), update.norm(), 0.1, warm=False)
    for name, p in update.model.named_parameters():
        decays = name in ("first.weight", "last.weight")
        assert torch.allclose(p, before[name] * (0.95 if decays else 1.0)), name
    names = update.tensors()["optimizer"].keys() | update.tensors()["ema"].keys()
    assert not [name for name in names if "frozen" in name]
    assert {"frozen.weight", "scale"} <= update.tensors()["model"].keys()


def test_a_weight_without_a_gradient_stays_and_counts_its_own_steps() -> None:
    """Temporal blocks take no part in single frames; Adam must not decay them then, nor age their moments."""
    update = Update(Net(), settings_with())
    found = gradients(0, update.weights)
    del found["first.weight"]
    before = update.weights["first.weight"].detach().clone()
    give(update, found)
    update.step(torch.tensor(1.0), update.norm(), 1e-2, warm=False)
    assert torch.equal(update.weights["first.weight"], before)
    assert dict(zip(update.weights, update.steps.tolist())) == {name: float(name in found) for name in update.weights}


def test_a_loss_that_rose_for_good_is_accepted_and_a_hopeless_run_ends() -> None:
    update = Update(Net(), settings_with())
    for loss in (1.0, *[8.0] * HOPELESS):
        give(update, gradients(0, update.weights, 0.1))
        verdict = update.step(torch.tensor(loss), update.norm(), 1e-4, warm=True)
    assert not int(verdict.refused)
    for _ in range(HOPELESS):
        update.counts()
        give(update, gradients(0, update.weights))
        update.step(torch.tensor(math.nan), update.norm(), 1e-4, warm=True)
    with pytest.raises(ValueError, match=r"50 steps in a row .* a non-finite loss; lower optimizer\.lr"):
        update.counts()


def test_the_average_stands_in_for_the_weights_within_the_block() -> None:
    update = Update(Net(), settings_with())
    for step in range(4):
        give(update, gradients(step, update.weights))
        update.step(torch.tensor(1.0), update.norm(), 1e-1, warm=False)
    before, average = bits(update), {name: value.clone() for name, value in update.average.items()}
    with update.averaged():
        assert equal({name: p.detach() for name, p in update.weights.items()}, average)
        assert not equal(before, bits(update))
    assert equal(before, bits(update))
    with suppress(KeyError), update.averaged():
        raise KeyError
    assert equal(before, bits(update))


def test_the_average_of_a_short_run_forgets_its_start() -> None:
    """With w = u after update u, a fixed decay of 0.9995 would still be near the start after 200 updates."""
    model = nn.Linear(1, 1, bias=False)
    update = Update(model, settings_with(weight_decay=0.0))
    update.average["weight"].zero_()
    expected = 0.0
    for u in range(1, 201):
        with torch.no_grad():
            model.weight.fill_(u)
        give(update, {"weight": torch.zeros(1, 1)})
        update.step(torch.tensor(1.0), update.norm(), 0.0, warm=False)
        keep = min(0.9995, (1 + u) / (10 + u))
        expected = keep * expected + (1 - keep) * u
    assert float(update.average["weight"]) == pytest.approx(expected, rel=1e-5)
    assert expected > 0.8 * 200


def test_what_is_loaded_in_place_goes_on_bit_for_bit() -> None:
    def steps(update: Update, first: int, last: int) -> None:
        for step in range(first, last):
            give(update, gradients(step, update.weights))
            loss = math.nan if step == 3 else 1.0 + step % 3
            update.step(torch.tensor(loss), update.norm(), 1e-2, warm=True)

    whole, again = Update(Net(), settings_with()), Update(Net(), settings_with())
    steps(whole, 0, 5)
    for part, values in whole.tensors().items():
        for name, value in again.tensors()[part].items():
            value.copy_(values[name])
    for update in (whole, again):
        steps(update, 5, 9)
    assert equal(bits(whole), bits(again))
    assert whole.counts() == again.counts()
    assert torch.equal(whole.running, again.running)
    storages = [value.untyped_storage().data_ptr() for values in whole.tensors().values() for value in values.values()]
    assert len(set(storages)) == len(storages), "each is saved on its own"


class NoReading(TorchDispatchMode):
    """Raises where a number is read from the device, which would make the CPU wait for it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def test_no_number_is_read_from_the_device() -> None:
    update = Update(Net(), settings_with())
    with pytest.raises(AssertionError, match="waits"), NoReading():
        float(update.running)
    for loss in (1.0, math.nan, 100.0, 1.0):
        give(update, gradients(0, update.weights))
        value = torch.tensor(loss)
        with NoReading():
            update.step(value, update.norm(), 1e-3, warm=True)
    assert update.counts() == (2, 2, 0)


@pytest.fixture(autouse=True)
def one_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def over_ranks(ranks: Ranks, shard: int) -> tuple[float, list[float], list[tuple[int, ...]], bool]:
    """Updates over shards against one process: (worst difference, norms, shapes that a checkpoint sees, loaded)."""
    from tests.train.test_sharding import inputs, loss_of, model_of, on_rank
    from train.config import Parallel

    settings = settings_with(lr=1e-3)
    model, twin = on_rank(ranks), model_of()
    sharding.distribute(model, ranks, Parallel(shard=shard))
    ours, theirs = Update(model, settings), Update(twin, settings)
    norms = []
    batch = inputs(4)
    mine = [part.chunk(ranks.world)[ranks.rank] for part in batch]
    for step in range(4):
        loss = torch.tensor(math.nan if step == 2 else 1.0)
        loss_of(model, 1, *mine).backward()
        loss_of(twin, 1, *batch).backward()
        for update in (ours, theirs):
            norm = update.norm()
            norms.append(float(norm))
            update.step(loss, norm, 1e-3, warm=True)
    here, there = ours.tensors(), theirs.tensors()
    worst, shapes = 0.0, []
    for part, values in here.items():
        assert values.keys() == there[part].keys()
        for name, value in values.items():
            full = value.full_tensor() if hasattr(value, "full_tensor") else value
            shapes.append(tuple(full.shape))
            assert full.shape == there[part][name].shape, name
            if part != "optimizer":  # Adam divides by the root of moments that may be all but 0: compared by weights
                worst = max(worst, float((full.double() - there[part][name].double()).abs().max()))

    with torch.no_grad():
        here["optimizer"]["exp_avg.feature_projection.weight"].fill_(3.0)
        here["model"]["feature_projection.weight"].fill_(2.0)
    loaded = bool((ours.moments["exp_avg.feature_projection.weight"] == 3).all())
    loaded &= bool((plain(model.feature_projection.weight) == 2).all())
    with ours.averaged():
        loaded &= not bool((plain(model.feature_projection.weight) == 2).any())
    return worst, norms, shapes, loaded


@pytest.mark.parametrize(("world", "shard"), [(2, 1), (4, 4)])
def test_over_shards_it_is_what_it_is_in_one_process(world: int, shard: int) -> None:
    """The norm too, the same bits on all; what a checkpoint is loaded into are the weights and moments themselves."""
    of_all = several.on(world, over_ranks, shard)
    for worst, norms, shapes, loaded in of_all:
        assert worst < 2e-5  # of a rate of 1e-3: Adam's sign of a gradient that is all but 0
        assert norms[::2] == pytest.approx(norms[1::2], rel=1e-5)
        assert norms[::2] == of_all[0][1][::2]
        assert shapes == of_all[0][2]
        assert loaded
