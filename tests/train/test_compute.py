"""How a step is computed changes nothing but rounding: blocks compiled, computed twice, with another attention."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch._dynamo.utils import counters

from model import WTConfig, WTDiT, sample
from tests.train import several
from tests.train.conftest import Settings
from tests.train.test_sharding import SHAPE, inputs, loss_of, model_of, on_rank
from train.config import Compute, Parallel
from train.plan import memory
from train.ranks import sharding
from train.ranks.parallel import Ranks
from train.step import compute

ALONE = Ranks(0, 1, torch.device("cpu"))
LAYERWISE = replace(SHAPE, film_adaln=True, encoder=replace(SHAPE.encoder, frozen=False))  # as the scene models


@pytest.fixture(autouse=True)
def no_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def gradients(model: WTDiT, frames: int, batch: tuple[Tensor, ...], half: bool) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = loss_of(model, frames, *batch)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check_same(model: WTDiT, twin: WTDiT, half: bool, tolerance: float, frames: int = 1, each: bool = False) -> None:
    """`each`: every layer has its own time, as in phase (i) of the curriculum."""
    assert list(model.state_dict()) == list(twin.state_dict())
    rgb, x_t, t = inputs(4 // frames, frames)
    batch = (rgb, x_t, t[:, None] * torch.linspace(0.5, 1, SHAPE.layers) if each else t)
    loss, found = gradients(model, frames, batch, half)
    loss_, expected = gradients(twin, frames, batch, half)
    assert float((loss - loss_).abs()) <= tolerance * float(loss_)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        limit = tolerance * max(float(value.abs().max()), 1e-3)
        assert float((found[name] - value).abs().max()) <= limit, name


def of_decoder(model: WTDiT) -> list[torch.nn.Module]:
    return sharding.blocks_of(model)[len(model.encoder.blocks) :]


@pytest.mark.parametrize("count", [1, 4, None])
def test_blocks_computed_twice_give_the_same_bits(count: int | None) -> None:
    model, twin = model_of(LAYERWISE), model_of(LAYERWISE)
    compute.recompute_blocks(of_decoder(model)[:count])
    for half in (False, True):
        check_same(model, twin, half, 0.0)
        check_same(model, twin, half, 0.0, each=True)
        check_same(model, twin, half, 0.0, frames=2)


def kept(model: WTDiT, batch: tuple[Tensor, ...]) -> int:
    """Bytes that the forward pass keeps for the backward one, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        loss = loss_of(model, 1, *batch)
    del loss
    return sum(size for place, size in found.items() if place not in weights)


def test_each_block_computed_twice_keeps_less() -> None:
    sizes = []
    for count in range(3):
        model = model_of()
        compute.recompute_blocks(of_decoder(model)[:count])
        sizes.append(kept(model, inputs()))
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", 0), ("keep", 0), ("recompute", 4), ("10 KB", 4), ("1 MB", None), ("1 GB", 0)]
)
def test_the_blocks_are_those_that_the_plan_counts(asked: str, expected: int | None, settings: Settings) -> None:
    """The first ones, as many as train/plan/memory.py says; on a CPU none unless asked for."""
    config = settings(compute__activations=asked)
    model = model_of(shape_of(config.model.overrides))
    count = compute.prepare(model, config, ALONE)
    assert count == (
        expected if expected is not None else memory.recompute(config, model.config, ON_ONE, None, "eager")
    )
    names = [name for name, _ in memory.units(model.config)]
    assert ["forward" in vars(model.get_submodule(name)) for name in names] == [k < count for k in range(len(names))]


ON_ONE = memory.Placement(1, 1, 4)


def shape_of(overrides: dict[str, Any]) -> WTConfig:
    from model import preset

    return preset("tiny", **overrides)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Graphs are captured and differentiated as for inductor, but not compiled: seconds instead of minutes."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    return lambda: counters["stats"]["unique_graphs"]


def test_blocks_that_attend_alike_share_one_graph(quick: Callable[[], int]) -> None:
    """Of 6 blocks in the decoder, 3 in the head and an encoder: layer (of either), ray, global and the encoder's."""
    shape = replace(SHAPE, decoder_blocks=6, head_blocks=3, encoder=replace(SHAPE.encoder, frozen=False))
    model, twin = model_of(shape), model_of(shape)
    compute.compile_blocks(sharding.blocks_of(model))
    compute.recompute_blocks(of_decoder(model)[:4])
    batch = inputs()
    for _ in range(2):
        loss, _ = gradients(model, 1, batch, False)
        assert torch.allclose(loss, gradients(twin, 1, batch, False)[0], rtol=1e-6)
    assert quick() == 4
    gradients(model, 2, (*batch[:2], batch[2][::2].repeat_interleave(2)), False)
    assert quick() == 5, "and one through time"
    loss = loss_of(model, 1, *batch)
    backward = threading.Thread(target=loss.backward)  # as on CUDA, where autograd has a thread of its own
    backward.start()
    backward.join()
    assert quick() == 5


def test_a_block_may_be_compiled_as_often_in_the_thread_that_computes_it_again() -> None:
    """autograd's own on CUDA, where torch's limit of graphs is 8 unless that thread is told."""
    block, found = torch.nn.Linear(2, 2), []
    plain = block.forward

    def forward(x: Tensor) -> Tensor:
        found.append((threading.get_ident(), torch._dynamo.config.recompile_limit))
        return plain(x)

    block.forward = forward  # type: ignore[method-assign]
    compute.recompute_blocks([block])
    loss = block(torch.ones(1, 2)).sum()
    backward = threading.Thread(target=loss.backward)
    backward.start()
    backward.join()
    (here, _), (there, limit) = found
    assert here != there
    assert limit >= compute.GRAPHS


def compiled_over_shards(ranks: Ranks) -> tuple[int, float]:
    torch.compile = functools.partial(torch.compile, backend="aot_eager")  # type: ignore[assignment]
    model, twin = on_rank(ranks, LAYERWISE), model_of(LAYERWISE)
    compute.compile_blocks(sharding.blocks_of(model))
    compute.recompute_blocks(of_decoder(model)[:2])
    sharding.distribute(model, ranks, Parallel(shard="all"))
    batch = inputs()
    for _ in range(2):
        loss_of(model, 1, *(part.chunk(ranks.world)[ranks.rank] for part in batch)).backward()
    loss_of(twin, 1, *batch).backward()
    worst = max(
        float((p.grad.full_tensor() / 2 - q.grad).abs().max())  # type: ignore[attr-defined,union-attr,operator]
        for p, q in zip(model.parameters(), twin.parameters())
        if q.grad is not None
    )
    return counters["stats"]["unique_graphs"], worst


@pytest.mark.slow
def test_sharded_blocks_share_their_graphs_too() -> None:
    """FSDP's hooks stay outside of the graphs, and its weights do not make each block another one."""
    for graphs, worst in several.on(2, compiled_over_shards, seconds=120):
        assert graphs <= 5
        assert worst < 1e-6


@pytest.mark.slow
def test_compiled_blocks_compute_the_same() -> None:
    """By inductor, forward and backward, half of the blocks computed twice; a sampler as well."""
    model, twin = model_of(LAYERWISE), model_of(LAYERWISE)
    compute.compile_blocks(sharding.blocks_of(model))
    compute.recompute_blocks(of_decoder(model)[:2])
    check_same(model, twin, False, 1e-5)
    check_same(model, twin, True, 3e-2)
    rgb, valid = inputs()[0][:1], torch.ones(1, 14, 14, dtype=torch.bool)
    here, there = (sample(m, rgb, valid, torch.Generator().manual_seed(0), steps=2) for m in (model, twin))
    assert torch.allclose(here, there, atol=1e-5)
    assert counters["stats"]["unique_graphs"] <= 3 * 5, "float32, bf16, sampler: four attentions, head apart"


@pytest.mark.parametrize("kernel", ["auto", "cudnn", "flash", "efficient", "math"])
def test_any_kernel_computes_the_same(kernel: str) -> None:
    """A name that this device or number format has no kernel for is a preference, not an error."""
    model, twin = model_of(), model_of()
    with compute.attention(Compute(attention=kernel)):
        loss, found = gradients(model, 1, inputs(), False)
    loss_, expected = gradients(twin, 1, inputs(), False)
    assert torch.allclose(loss, loss_, rtol=1e-5)
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())


def test_the_kernel_is_chosen_within_the_block_only() -> None:
    def state() -> tuple[Any, ...]:
        names = ("cudnn", "flash", "mem_efficient", "math")
        return (*(getattr(torch._C, f"_get_{n}_sdp_enabled")() for n in names), torch._C._get_sdp_priority_order())

    before = state()
    with compute.attention(Compute(attention="math")):
        assert state()[:4] == (False, False, False, True)
    with compute.attention(Compute(attention="cudnn")):
        assert state()[4][0] == int(compute.KERNELS["cudnn"])
        assert all(state()[:4])
    assert state() == before


def flags() -> tuple[bool, bool, bool, bool]:
    from torch._inductor import config

    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.allow_tf32,
        config.deterministic,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_arithmetic_is_as_exact_as_asked_within_the_block(
    precision: str, deterministic: bool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strictly: torch's flash attention is deterministic only where torch is not merely to warn."""
    monkeypatch.delenv(compute.CUBLAS[0], raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = flags()
    config = settings(precision=precision, compute__deterministic=deterministic)
    with contextlib.suppress(KeyError), compute.arithmetic(config):
        assert flags() == (deterministic, False, precision == "bf16", deterministic)
        assert os.environ.get(compute.CUBLAS[0]) == (":4096:8" if deterministic else None)
        raise KeyError
    assert flags() == before
    monkeypatch.setenv(compute.CUBLAS[0], ":16:8")
    with compute.arithmetic(config):
        assert os.environ[compute.CUBLAS[0]] == ":16:8", "a choice of the user's stays"


def test_what_torch_cannot_do_deterministically_is_one_sentence(settings: Settings) -> None:
    def unordered() -> None:
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))

    with compute.arithmetic(settings()):
        unordered()
    expected = r"^compute\.deterministic: .*\(put_.* does not have a deterministic implementation\); set compute\.d"
    with pytest.raises(ValueError, match=expected), compute.arithmetic(settings(compute__deterministic=True)):
        unordered()
    with pytest.raises(RuntimeError, match="gone"), compute.arithmetic(settings(compute__deterministic=True)):
        raise RuntimeError("gone")


@pytest.mark.parametrize("kernel", ["auto", "flash", "efficient", "math"])
def test_cudnn_is_left_out_where_sums_are_to_be_ordered(kernel: str) -> None:
    chosen: Any = {"attention": kernel, "deterministic": True}
    with compute.attention(Compute(**chosen)):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled() is (kernel != "math")
    with pytest.raises(ValueError, match=r"cudnn adds up gradients in any order.*choose auto"):
        Compute(attention="cudnn", deterministic=True)


@pytest.mark.parametrize(("shape", "tolerance"), [(SHAPE, 0.0), (LAYERWISE, 1e-2)], ids=["frozen", "all trained"])
def test_a_step_is_the_same_where_torch_is_to_be_deterministic(
    shape: WTConfig, tolerance: float, settings: Settings
) -> None:
    """On a CPU bit for bit, but for the resampled positions of a trained encoder; all of it has a way for torch."""
    c = settings(precision="bf16", compute__deterministic=True)
    loss, found = gradients(model_of(shape), 1, inputs(), True)
    with compute.arithmetic(c), compute.attention(c.compute):
        loss_, expected = gradients(model_of(shape), 1, inputs(), True)
        again = gradients(model_of(shape), 1, inputs(), True)
    assert abs(float(loss - loss_)) <= tolerance * float(loss)
    for name, value in expected.items():
        assert float((found[name] - value).norm()) <= tolerance * float(value.norm()), name
        assert torch.equal(again[1][name], value), name


@pytest.mark.parametrize(("asked", "cpu", "cuda"), [("auto", False, True), (True, True, True), (False, False, False)])
def test_blocks_are_compiled_on_a_gpu_or_when_asked(asked: Any, cpu: bool, cuda: bool) -> None:
    assert compute.compiles(Compute(compile=asked), torch.device("cpu")) is cpu
    assert compute.compiles(Compute(compile=asked), torch.device("cuda")) is cuda
