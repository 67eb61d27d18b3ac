"""A training step on CUDA: nothing waits for the device, and it computes what it computes on a CPU."""

import io
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from model import Normalisation
from tests.train import several
from tests.train.conftest import Settings
from tests.train.test_compute import ALONE, LAYERWISE, of_decoder
from tests.train.test_no_waiting import MAPS, demanding, steps_of
from tests.train.test_sharding import inputs, loss_of, model_of, one_step
from tests.train.test_update import Net, Twin, bits, equal, give, gradients, settings_with
from train.config import Compute
from train.loop import train
from train.ranks import sharding
from train.ranks.parallel import Ranks
from train.reports import log
from train.step import compute
from train.step.update import Update

DEVICE = torch.device("cuda")
GPUS = torch.cuda.device_count()

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """What makes the CPU wait for the GPU raises."""
    before = torch.cuda.get_sync_debug_mode()
    yield
    torch.cuda.set_sync_debug_mode(before)


def on_gpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(DEVICE) for name, value in values.items()}


def test_taken_and_refused_steps_are_those_of_the_twin() -> None:
    settings = settings_with(weight_decay=0.1)
    ours, twin = Update(Net().to(DEVICE), settings), Twin(Net().to(DEVICE), settings)
    for step, loss in enumerate([1.0, 1.1, math.nan, 0.9, 50.0, 1.2, *(1.0 - 0.01 * k for k in range(20)), 1e3, 0.5]):
        found = on_gpu(gradients(step, ours.weights, scale=1.0 if step % 2 else 1e-3))
        give(ours, found)
        for name, value in found.items():
            twin.weights[name].grad = value.clone()
        before = bits(ours)
        value = torch.tensor(loss, dtype=torch.float64, device=DEVICE)
        verdict = ours.step(value, ours.norm(), 1e-2 / (1 + step), step > 2)
        assert int(verdict.refused) == twin.step(loss, 1e-2 / (1 + step), step > 2), step
        assert equal(before, bits(ours)) == bool(verdict.refused)
        for name, p in ours.weights.items():
            assert torch.equal(p, twin.weights[name]), (name, step)
            assert torch.allclose(ours.average[name], twin.average[name], rtol=1e-6, atol=1e-8), (name, step)


def test_a_step_waits_for_nothing(settings: Settings, no_waiting: None) -> None:
    """Forward, backward, norm, update: taken, refused and taken again, blocks kept and computed twice."""
    model = model_of()
    compute.prepare(model, settings(compute__compile=False, compute__activations="recompute"), Ranks(0, 1, DEVICE))
    update = Update(model, settings(compute__compile=False))
    batch = [part.to(DEVICE) for part in inputs()]
    loss_of(model, 1, *batch).backward()  # libraries start up, and may wait
    update.step(torch.ones((), device=DEVICE), update.norm(), 1e-3, warm=True)
    spoilt = torch.full((), torch.nan, device=DEVICE)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    for factor in (None, spoilt, None):
        loss = loss_of(model, 1, *batch)
        loss.backward()
        update.step(loss.detach() if factor is None else loss.detach() * factor, update.norm(), 1e-3, warm=True)
    torch.cuda.set_sync_debug_mode("default")
    assert update.counts() == (3, 1, 0)


@pytest.mark.parametrize("normalisation", MAPS, ids=lambda m: m.kind)
def test_a_whole_step_waits_for_nothing(settings: Settings, normalisation: Normalisation, no_waiting: None) -> None:
    """From a batch in pinned memory to the line of the log: photometry, points, normalisation, draws, tally too."""
    _, update, step = steps_of(demanding(settings), normalisation, DEVICE)
    for number in (1, 2):  # libraries start up, and what is made once is made
        step(number)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    for number in (3, 4, 5):
        step(number)
    torch.cuda.set_sync_debug_mode("default")
    assert update.counts() == (5, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_that_went_on_is_bit_for_bit_one_that_was_left_in_peace(compiled: bool, settings: Settings) -> None:
    """The whole loop, in bf16, photometry on the device, blocks computed twice, with compute.deterministic."""
    found = gone_on(settings, "cuda", compute__compile=compiled)
    assert found[0] == found[1]


def gone_on(settings: Settings, device: str, **changes: Any) -> list[list[dict[str, Any]]]:
    """What metrics.jsonl says of each step: of eight in one go, and again from the checkpoint after the fourth on."""
    c = demanding(
        settings,
        **{
            "device": device,
            "precision": "bf16",
            "steps": 8,
            "checkpoint__every": 4,
            "compute__deterministic": True,
            **changes,
        },
    )
    out, found = Path(c.out), []
    for _ in range(2):
        train(c, Console(file=io.StringIO()))
        lines = log.read(out)
        assert [line["step"] for line in lines] == list(range(1, 9))
        found.append([{name: line[name] for name in ("step", "loss", "layers", "grad_norm")} for line in lines])
        shutil.rmtree(out / "checkpoints" / "step-000008")
    return found


@pytest.mark.parametrize("kernel", list(compute.KERNELS))
def test_any_kernel_computes_the_same(kernel: str) -> None:
    model, twin = model_of().to(DEVICE), model_of().to(DEVICE)
    batch = [part.to(DEVICE) for part in inputs()]
    with torch.autocast("cuda", torch.bfloat16):
        with compute.attention(Compute(attention=kernel)):
            loss = loss_of(model, 1, *batch)
            loss.backward()
        expected = loss_of(twin, 1, *batch)
    assert torch.allclose(loss, expected, rtol=2e-2)


@pytest.mark.slow
def test_compiled_blocks_compute_the_same() -> None:
    """In bf16, half of the blocks computed twice, on one graph for each attention."""
    model, twin = model_of(LAYERWISE).to(DEVICE), model_of(LAYERWISE).to(DEVICE)
    compute.compile_blocks(sharding.blocks_of(model))
    compute.recompute_blocks(of_decoder(model)[:2])
    batch = [part.to(DEVICE) for part in inputs()]
    for half, tolerance in ((False, 1e-4), (True, 5e-2)):
        for each in (model, twin):
            each.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            losses = [loss_of(each, 1, *batch) for each in (model, twin)]
        for loss in losses:
            loss.backward()
        assert torch.allclose(*losses, rtol=tolerance)
        for (name, p), q in zip(model.named_parameters(), twin.parameters()):
            if q.grad is not None:
                assert p.grad is not None, name
                assert float((p.grad - q.grad).norm()) <= tolerance * (float(q.grad.norm()) + 1e-6), name


def test_memory_of_the_device_decides_what_is_computed_twice(settings: Settings) -> None:
    assert compute.prepare(model_of(), settings(compute__compile=False), Ranks(0, 1, DEVICE)) == 0, "a micro model fits"
    assert compute.prepare(model_of(), settings(), ALONE) == 0


@pytest.mark.skipif(GPUS < 2, reason="one GPU or none: NCCL takes one rank for each")
@pytest.mark.parametrize("shard", ["all", 1])
def test_a_step_over_nccl_is_that_of_one_gpu(shard: int | str) -> None:
    size = shard if isinstance(shard, int) else 2
    of_all = several.on(2, one_step, shard, 1, 2, {}, seconds=120, device="cuda")
    for loss, gradient, _, held in of_all:
        assert abs(loss) < 1e-5
        assert gradient < 1e-5
        assert held == pytest.approx(1 / size, rel=0.05)
    assert len({found[2] for found in of_all}) == size
