"""The bytes that are counted are those that torch holds: what autograd saves, what the optimizer allocates."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from model import WTConfig, WTDiT, objective, preset
from model.attention import Shape
from model.blocks import Block
from model.rope import spatial, temporal
from train import config
from train.config import Config
from train.plan import memory
from train.step import compute

SHAPES: tuple[Shape, ...] = ("layer", "ray", "global", "time")
GIB = 2.0**30


def settings(**changes: object) -> Config:
    tree = {"data": {"path": "nowhere"}, "out": "nowhere", "precision": "bf16", **changes}
    return config.from_dict(tree)


def saved(call: Callable[[], object], *modules: nn.Module) -> int:
    """Bytes that autograd keeps of a forward pass: distinct storages, without those of weights and buffers."""
    own = {t.untyped_storage().data_ptr() for m in modules for t in (*m.parameters(), *m.buffers())}
    found: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)  # so that no storage is used twice
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    assert result is not None
    return sum(found.values())


def kept(shape: Shape, half: bool, prepare: Callable[[nn.Module], nn.Module]) -> tuple[int, int]:
    """(what autograd saves in a block, what is counted): 2 samples or frames, 6 layers, 100 patches, D = 256."""
    sized = WTConfig(width=256, heads=4)
    torch.manual_seed(0)
    block = Block(sized.width, sized.heads, sized.mlp_ratio, 1e-4)
    x = torch.randn(2, 6, 100, sized.width, requires_grad=True)
    adaln = torch.randn(2, 6 if shape == "layer" else 1, 6, sized.width, requires_grad=True)
    head_dim = sized.width // sized.heads
    rope = {"ray": None, "time": temporal(2, 2, head_dim)}.get(shape, spatial(10, 10, head_dim))
    film = tuple(torch.randn(6, 1, sized.width, requires_grad=True) for _ in "gb") if shape == "layer" else None
    call = prepare(block)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        measured = saved(lambda: call(x, adaln, shape, rope, 2 if shape == "time" else 1, film), block)
    mode: memory.Mode = "eager" if call is block else "compiled"
    return measured, memory.kept_by_block(sized, shape, 2 * 6 * 100, half, mode)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_block_keeps_is_counted(shape: Shape, half: bool) -> None:
    measured, counted = kept(shape, half, lambda block: block)
    assert counted == pytest.approx(measured, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_compiled_block_keeps_is_counted(shape: Shape) -> None:
    """What is saved is decided before kernels are made, and the device is not asked."""
    torch._dynamo.reset()
    measured, counted = kept(shape, True, lambda block: torch.compile(block, backend="aot_eager_decomp_partition"))  # type: ignore[arg-type, return-value]
    assert counted == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ["frozen", "projection", "tiny"])
def test_what_a_forward_pass_keeps_is_counted(name: str, half: bool) -> None:
    """The whole objective: encoder, fusion, FiLM, blocks, head, loss at full resolution."""
    small = {"width": 64, "depth": 2, "heads": 2, "taps": 2, "grid": 4, "train_projection": name == "projection"}
    sized = (
        preset("tiny")
        if name == "tiny"
        else preset("wt_o", width=256, heads=4, decoder_blocks=6, head_blocks=3, encoder=small)
    )
    torch.manual_seed(0)
    network, size, batch = WTDiT(sized), 112, 2
    x0 = torch.randn(batch, sized.layers, size, size, 3)
    valid, t, rgb = torch.ones(batch, size, size).bool(), torch.rand(batch, 6), torch.rand(batch, 3, size, size)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        measured = saved(lambda: objective(network, rgb, x0, valid, t, torch.randn_like(x0)), network)
    assert memory.activations(sized, size, 1, batch, half, "eager") == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("count", [0, 3, 8])
def test_what_blocks_keep_that_are_computed_twice_is_counted(count: int) -> None:
    """Beside it the peak: of the last block, which is computed again while all the others' inputs are still kept."""
    sized, size, batch = preset("tiny"), 112, 2
    torch.manual_seed(0)
    network = WTDiT(sized)
    names = [name for name, _ in memory.units(sized)]
    assert len(names) == 8
    compute.recompute_blocks([network.get_submodule(name) for name in names[:count]])
    x0 = torch.randn(batch, sized.layers, size, size, 3)
    valid, t, rgb = torch.ones(batch, size, size).bool(), torch.rand(batch, 6), torch.rand(batch, 3, size, size)
    measured = saved(lambda: objective(network, rgb, x0, valid, t, torch.randn_like(x0)), network)
    counted = memory.activations(sized, size, 1, batch, False, "eager", count)
    tokens = batch * 6 * (size // sized.patch) ** 2
    if count == len(names):
        counted -= max(memory.kept_by_block(sized, shape, tokens, False, "eager") for shape in SHAPES)
    assert counted == pytest.approx(measured, rel=0.1)


def test_what_persists_is_counted_to_the_byte() -> None:
    """Against the tensors themselves: a model, its gradients, AdamW's moments and a copy of what is trained."""
    sized = preset("tiny")
    network = WTDiT(sized)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moments = sum(v.nbytes for s in optimizer.state.values() for k, v in s.items() if k != "step")
    items = memory.persistent(settings(), memory.parameters(sized), memory.Placement(1, 1, 2))
    assert items == {
        "weights": sum(p.nbytes for p in network.parameters()),
        "gradients": sum(p.grad.nbytes for p in trained if p.grad is not None),
        "Adam's moments": moments,
        "averages (EMA)": sum(p.nbytes for p in trained),
    }


def test_wt_o_is_counted_by_hand() -> None:
    """1,705,047,628 weights of 4 bytes, 1,394,385,996 of them trained (facts: 1705.05M and 1394.39M)."""
    counted = memory.parameters(preset("wt_o"))
    assert (counted.all, counted.trained) == (1_705_047_628, 1_394_385_996)
    # a block: modulation 6 D, qkv 3 D^2, proj D^2 + D, MLP 8 D^2 + 5 D, norms 4 D and 4 x 64, two LayerScales
    assert counted.block == 12 * 1536**2 + 18 * 1536 + 256
    one = memory.persistent(settings(), counted, memory.Placement(1, 1, 2))
    assert sum(one.values()) == 4 * 1_705_047_628 + 16 * 1_394_385_996  # 29.1 GB
    eight = memory.persistent(settings(), counted, memory.Placement(8, 8, 2))
    assert sum(eight.values()) == pytest.approx(sum(one.values()) / 8, rel=1e-6)
    whole = memory.persistent(settings(accumulation=4), counted, memory.Placement(8, 8, 2))
    assert whole["gradients"] == 4 * 1_394_385_996, "until the last micro-batch gradients are whole"


def test_units_are_the_models_blocks_in_the_order_of_the_forward_pass() -> None:
    sized = preset("tiny", temporal=True)
    network = WTDiT(sized)
    called: list[str] = []
    for name, module in network.named_modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    for frames in (1, 2):
        called.clear()
        network(torch.rand(2, 3, 28, 28), torch.randn(2, 6, 28, 28, 3), torch.rand(2), frames)
        assert [name for name, _ in memory.units(sized, frames)] == called
    assert sum(shape == "time" for _, shape in memory.units(sized, 2)) == 2


def test_as_few_blocks_as_possible_are_computed_twice() -> None:
    sized = preset("wt_o")
    last = len(memory.units(sized))
    assert memory.blocks_to_recompute(sized, 504, 1, 2, float("inf")) == 0
    assert memory.blocks_to_recompute(sized, 504, 1, 2, 0) == last == 48
    for budget in (10e9, 20e9, 30e9, 40e9):
        count = memory.blocks_to_recompute(sized, 504, 1, 2, budget)
        assert 0 < count < last
        assert memory.activations(sized, 504, 1, 2, recomputed=count) <= budget
        assert memory.activations(sized, 504, 1, 2, recomputed=count - 1) > budget


def test_more_needs_more() -> None:
    """Of pixels, samples, frames, of what is not compiled; less, the more is computed twice."""
    sized = preset("wt_d")

    def bytes_of(size: int = 196, frames: int = 1, samples: int = 2, **more: object) -> int:
        return memory.activations(sized, size, frames, samples, **more)  # type: ignore[arg-type]

    assert bytes_of() < bytes_of(size=504) < bytes_of(size=504, samples=4)
    assert bytes_of(frames=16) > 16 * bytes_of(frames=1, half=True) * 0.9
    assert bytes_of() < bytes_of(mode="eager") < bytes_of(mode="eager", half=False)
    counts = [bytes_of(recomputed=n) for n in range(48)]
    assert counts == sorted(counts, reverse=True)
    assert bytes_of(recomputed=48) > counts[47] - bytes_of() / 40, (
        "the last block needs room while it is computed again"
    )


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [
        ("keep", 1.0, 0),
        ("recompute", 1e15, 48),
        ("auto", None, 0),
        ("auto", 1e15, 0),
        ("auto", 1.0, 48),
        ("1e15", 1.0, 0),
        (1, 1e15, 48),
    ],
)
def test_what_compute_activations_asks_for(asked: object, device: float | None, expected: int) -> None:
    run = settings(compute={"activations": asked})
    assert memory.recompute(run, preset("wt_o"), memory.Placement(1, 1, 2), device) == expected


def test_auto_fills_the_device_and_no_more() -> None:
    run, sized = settings(data={"path": "x", "size": 504}), preset("wt_o")
    on = memory.Placement(1, 1, 2)
    counted = memory.parameters(sized)
    for device in (50e9, 60e9, 80e9):
        count = memory.recompute(run, sized, on, device)
        space = memory.room(run, sized, counted, on, device)
        assert 0 < count < 48
        assert memory.activations(sized, 504, 1, 2, recomputed=count) <= space
        assert memory.activations(sized, 504, 1, 2, recomputed=count - 1) > space


@pytest.mark.parametrize(
    ("shard", "world", "per_node", "expected"),
    [("node", 16, 8, 8), ("all", 16, 8, 16), (4, 16, 8, 4), (1, 16, 8, 1), ("node", 1, 8, 1), ("node", 4, 8, 4)],
)
def test_groups_that_hold_one_copy(shard: object, world: int, per_node: int, expected: int) -> None:
    assert memory.placement(settings(parallel={"shard": shard}), world, per_node).shard == expected


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({"accumulation": 4}, 64, None),
        ({"accumulation": 16}, 64, r"accumulation 16; for 64 ranks accumulation may be 1, 2, 4, 8$"),
        ({}, 100, r"batch 512 is not a multiple of 100 ranks x accumulation 1; the largest number .* is 64$"),
        ({}, 1024, r"the largest number of ranks up to 1024 that divides the batch is 512$"),
        ({"parallel": {"shard": 3}}, 8, r"parallel\.shard: 3 does not divide 8 ranks; choose one of 1, 2, 4, 8, node"),
    ],
)
def test_work_that_cannot_be_divided_is_refused(changes: dict[str, object], world: int, message: str | None) -> None:
    if message is None:
        assert memory.placement(settings(**changes), world, 8).micro_batch == 2, "App. B: 64 GPUs x 2 x 4"
        return
    with pytest.raises(ValueError, match=message) as error:
        memory.placement(settings(**changes), world, 8)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", ["lots", -1, 0, True, None, "20 bananas"])
def test_activations_are_a_word_or_a_size(given: object) -> None:
    with pytest.raises(ValueError, match=r"compute\.activations: expected auto, keep, recompute, or a size such as 20"):
        settings(compute={"activations": given})
    assert settings(compute={"activations": "1.5 GiB"}).compute.activation_bytes == int(1.5 * GIB)
