"""Weights shared out over ranks: the step of one process, a part of the memory, the same bits where they are held."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model import WTConfig, WTDiT, preset, sample
from tests.train import several
from train.config import Parallel
from train.ranks import sharding
from train.ranks.heartbeat import BACKSTOP
from train.ranks.parallel import Ranks
from train.ranks.sharding import plain

FROZEN = {"width": 32, "depth": 2, "heads": 2, "frozen": True}
# An odd width of the head's projection and three heads: rows that two and four ranks cannot share evenly.
SHAPE = preset(
    "tiny", width=36, heads=3, decoder_blocks=3, head_blocks=2, patch=7, layers=5, temporal=True, encoder=FROZEN
)


def model_of(shape: WTConfig = SHAPE, seed: int = 0) -> WTDiT:
    """No weight is zero, so that every one has a gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WTDiT(shape)
        for p in model.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.02)
    return model


def on_rank(ranks: Ranks, shape: WTConfig = SHAPE) -> WTDiT:
    if ranks.first:
        return model_of(shape)
    with torch.device("meta"):
        return WTDiT(shape)


def inputs(clips: int = 4, frames: int = 1, layers: int = SHAPE.layers) -> tuple[Tensor, Tensor, Tensor]:
    """RGB, x_t and a time for each of `clips * frames` images of 14x14."""
    g = torch.Generator().manual_seed(1)
    n = clips * frames
    x_t = torch.randn(n, layers, 14, 14, 3, generator=g)
    return torch.rand(n, 3, 14, 14, generator=g), x_t, torch.rand(clips, generator=g).repeat_interleave(frames)


def loss_of(model: WTDiT, frames: int, *batch: Tensor) -> Tensor:
    return model(*batch, frames).float().square().mean()


def digest(tensors: Any) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(plain(tensor.detach()).cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def one_step(
    ranks: Ranks, shard: int | str, frames: int, accumulation: int, encoder: dict[str, bool]
) -> tuple[float, float, str, float]:
    """(loss off by, worst gradient off by, digest of own gradients, part of the numbers held) against one process."""
    shape = replace(SHAPE, encoder=replace(SHAPE.encoder, **encoder))
    model, twin = on_rank(ranks, shape), model_of(shape).to(ranks.device)
    sharding.distribute(model, ranks, Parallel(shard=shard))
    batch = [part.to(ranks.device) for part in inputs(4, frames)]
    mine = [part.chunk(ranks.world)[ranks.rank] for part in batch]
    own = torch.zeros(1, device=ranks.device)
    for k in range(accumulation):
        sharding.accumulating(model, last=k == accumulation - 1)
        loss = loss_of(model, frames, *(part.chunk(accumulation)[k] for part in mine)) / accumulation
        loss.backward()
        own += loss.detach()
    whole = loss_of(twin, frames, *batch)
    whole.backward()
    worst = 0.0
    gradients = []
    for (name, p), q in zip(model.named_parameters(), twin.parameters()):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None and q.grad is not None:
            worst = max(worst, float((p.grad.full_tensor() - q.grad).abs().max()))
            gradients.append(p.grad)
    held = sum(plain(p).numel() for p in model.parameters()) / sum(p.numel() for p in twin.parameters())
    return float(ranks.gather_on_device(own).mean() - whole.detach()), worst, digest(gradients), held


@pytest.mark.parametrize(
    ("world", "shard", "frames", "accumulation", "encoder"),
    [
        (2, "all", 1, 1, {"train_projection": True}),
        (2, 1, 1, 2, {}),
        (4, 2, 1, 1, {"frozen": False}),
        (4, "all", 2, 1, {}),
        (2, "node", 2, 2, {"frozen": False}),
    ],
)
def test_a_step_is_that_of_one_process(
    world: int, shard: int | str, frames: int, accumulation: int, encoder: dict[str, bool]
) -> None:
    """Encoders frozen or not, temporal blocks that take part or do not, micro-batches; a rank holds its part only."""
    size = shard if isinstance(shard, int) else world
    of_all = several.on(world, one_step, shard, frames, accumulation, encoder)
    for loss, gradient, _, held in of_all:
        assert abs(loss) < 1e-6
        assert gradient < 1e-6
        assert held == pytest.approx(1 / size, rel=0.05)
    digests = [found[2] for found in of_all]
    assert digests == digests[:size] * (world // size), "replicas have the same bits"
    assert len(set(digests)) == size


def weights_and_samples(ranks: Ranks, shard: int | str) -> tuple[list[str], bool, str]:
    model, twin = on_rank(ranks), model_of()
    shapes = {name: value.shape for name, value in twin.state_dict().items()}
    sharding.distribute(model, ranks, Parallel(shard=shard))
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes, "names and shapes stay"
    full = {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, value in model.state_dict().items()
    }
    wrong = [name for name, value in twin.state_dict().items() if not torch.equal(full[name], value)]

    rgb, valid = inputs()[0][:1], torch.ones(1, 14, 14, dtype=torch.bool)
    there = sample(model, rgb, valid, torch.Generator().manual_seed(0), steps=2)
    same = torch.equal(there, sample(twin, rgb, valid, torch.Generator().manual_seed(0), steps=2))

    other = model_of(seed=7)
    known = {name: value.detach() for name, value in other.named_parameters()} if ranks.first else {}
    sharding.load_full(model, known, ranks)
    assert not known
    loss_of(model, 1, *inputs()).backward()  # after a sampler, with weights that changed since
    loss_of(other, 1, *inputs()).backward()
    p, q = model.feature_projection.weight.grad, other.feature_projection.weight.grad
    assert p is not None
    assert q is not None
    same = same and torch.allclose(p.full_tensor(), q, atol=1e-6)  # type: ignore[attr-defined]

    error = ""
    try:
        sharding.load_full(model, {"head.nose": torch.zeros(1)} if ranks.first else {}, ranks)
    except ValueError as raised:
        error = str(raised)
    return wrong, same, error


def patience(ranks: Ranks) -> list[float]:
    model = on_rank(ranks)
    sharding.distribute(model, ranks, Parallel(shard=1, timeout=1000.0))
    mesh = model.time.projection.weight.device_mesh  # type: ignore[union-attr]
    groups = [mesh.get_group(name) for name in ("replicate", "shard")]
    return [each._get_backend(ranks.device).options._timeout.total_seconds() for each in groups]


def test_groups_of_shards_are_as_patient_as_the_run() -> None:
    """Not less than who watches over the ranks and knows more, whatever torch gives to new groups."""
    for seconds in several.on(2, patience):
        assert seconds == [1000.0 * BACKSTOP] * 2


def test_everybody_gets_the_weights_of_rank_0() -> None:
    """Bit for bit, buffers too; a sampler's `encode` and `denoise` gather them, and what is loaded later counts."""
    for wrong, same, error in several.on(2, weights_and_samples, "all"):
        assert not wrong
        assert same
        assert "head.nose" in error


def test_a_number_of_shards_that_does_not_divide_the_ranks_is_refused() -> None:
    ranks = Ranks(0, 6, torch.device("cpu"))
    assert sharding.group_size(ranks, Parallel(shard=3)) == 3
    assert sharding.group_size(ranks, Parallel(shard="all")) == 6
    with pytest.raises(ValueError, match=r"parallel.shard: 4 does not divide the 6 ranks .* 1, 2, 3, 6, node or all"):
        sharding.group_size(ranks, Parallel(shard=4))


@pytest.mark.parametrize(
    ("hosts", "size"),
    [([("a", "2")] * 2 + [("b", "2")] * 2, 2), ([("a", "1")] + [("b", "3")] * 3, 1), ([("a", "")] * 4, 4)],
)
def test_a_node_is_what_the_machines_have_in_common(
    hosts: list[tuple[str, str]], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOCAL_WORLD_SIZE where it is told, else ranks that name one host; a copy never lies over two machines."""
    monkeypatch.setattr(Ranks, "gather_objects", lambda self, own: hosts)
    assert sharding.group_size(Ranks(0, 4, torch.device("cpu")), Parallel()) == size


def test_one_rank_is_not_wrapped() -> None:
    model = model_of()
    kept = list(model.parameters())
    sharding.distribute(model, Ranks(0, 1, torch.device("cpu")), Parallel(shard="all"))
    assert all(a is b for a, b in zip(kept, model.parameters()))
    sharding.accumulating(model, last=False)
