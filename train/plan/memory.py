"""How many bytes training takes on one device, counted from the config alone: no GPU, no weights, no data.

What persists (weights, gradients, moments, averages) is exact. What the forward pass keeps for the backward one is
counted tensor by tensor; tests compare it with what autograd saves. What lies in between (temporary tensors, buffers of
libraries, gaps) is estimated, and marked so. `blocks_to_recompute` turns the count around.

Where activations do not fit, the first n blocks of the forward pass drop theirs and compute them again in the backward
one. The first, because their turn comes when the others have been freed already: the one block that is computed again
needs no room beside what the forward pass ended with.

D width, H heads, h bytes of a number in matrix products (2 under bf16 autocast, else 4). The residual stream, the norms
and all weights are float32 in either case.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from model import WTConfig, WTDiT
from model.attention import LONGEST_RAY, Shape, shape_of
from train.config import Config

FLOAT = 4  # bytes
# What a GPU does not give to tensors: an estimate. CUDA's context and kernels, NCCL's and cuBLAS' buffers ...
RESERVED = 2.0e9
# ... and gaps between tensors in what torch has taken from the device, as a part of it.
GAPS = 0.06

Mode = Literal["eager", "compiled"]


@dataclass(frozen=True)
class Parameters:
    """Numbers of weights: all, those that are trained, those of the largest block, those outside of all blocks.

    `parts` of the model by name: (all, trained).
    """

    all: int
    trained: int
    block: int
    outside: int
    parts: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@functools.lru_cache(maxsize=8)
def parameters(config: WTConfig) -> Parameters:
    """Counted on the model itself, which is built without memory (meta)."""
    with torch.device("meta"):
        model = WTDiT(config)
    every, trained = model.parameter_counts()
    blocks = [*model.encoder.blocks, *model.decoder, *model.temporal, *model.head.blocks]
    sizes = [_count(block)[0] for block in blocks]
    parts = {name: _count(part) for name, part in model.named_children()}
    return Parameters(every, trained, max(sizes), every - sum(sizes), parts)


def _count(part: nn.Module) -> tuple[int, int]:
    sizes = [(p.numel(), p.requires_grad) for p in part.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def units(config: WTConfig, frames: int = 1) -> list[tuple[str, Shape]]:
    """(name in the model, attention shape) of the blocks that may be computed twice, in the order of the forward pass.

    Temporal blocks are skipped for single frames.
    """
    found: list[tuple[str, Shape]] = []
    for i in range(config.decoder_blocks):
        found.append((f"decoder.{i}", shape_of(i)))
        if config.temporal and frames > 1 and shape_of(i) == "global":
            found.append((f"temporal.{i // 3}", "time"))
    return found + [(f"head.blocks.{i}", shape_of(i)) for i in range(config.head_blocks)]


def kept_by_block(config: WTConfig, shape: Shape, tokens: int, half: bool, mode: Mode) -> int:
    """Bytes that one block's forward pass over `tokens` tokens keeps for its backward pass.

    Eager, per token, in units of D: float32: input and output of either norm and of either LayerScale's gate (6);
    h bytes: input of qkv (1), q, k, v (3), q and k turned (2), result of attention (1) and of its projection (1), input
    of the MLP (1), before and after the GELU (2 ratio), result of the MLP (1). Along a ray tokens are gathered in
    memory: v and the result of attention lie there twice. Layer-wise blocks keep what FiLM changes. The norms keep a
    mean and a deviation each, attention a logarithm for each head. Under autocast linear layers keep their weights in
    bf16 as well.

    Compiled, what costs memory traffic alone is computed again: of float32 the inputs of the norms stay (2). Along a
    ray attention is written out then, and keeps q, k and v in float32 (3) in place of what the kernel keeps.
    """
    h, ratio, width = (2 if half else FLOAT), config.mlp_ratio, config.width
    if mode == "eager":
        wide = (7 if shape == "layer" else 6) * FLOAT + (12 if shape == "ray" else 10) * h
    elif shape == "ray" and config.layers <= LONGEST_RAY:
        wide = 5 * FLOAT + 8 * h
    else:
        wide = 2 * FLOAT + 10 * h
    small = FLOAT * (4 + 5 * config.heads)
    weights = (4 + 2 * ratio) * width**2 * 2 if half else 0
    return tokens * ((wide + 2 * ratio * h) * width + small) + weights


def kept_by_recomputed(config: WTConfig, tokens: int) -> int:
    """Bytes that a block keeps which is computed again: its input, float32."""
    return tokens * config.width * FLOAT


def kept_outside(config: WTConfig, size: int, samples: int, half: bool) -> int:
    """Bytes kept for the backward pass outside of the decoder's and head's blocks, `samples` images of `size` pixels.

    Fusion keeps what it projects, the head its input. At full resolution: the prediction's error, and the relu and
    pairs of Eq. 8. An encoder that is trained keeps its blocks, one whose projection is, the input of that.
    """
    h, width, layers = (2 if half else FLOAT), config.width, config.layers
    patches = (size // config.patch) ** 2
    tokens, values = samples * layers * patches, 3 * config.patch**2
    fusion = tokens * (width * (FLOAT + h) + 2 * values * h)
    head = tokens * width * h
    pixels = samples * layers * size**2
    loss = (
        pixels * FLOAT * (3 + 1 + 3)
    )  # error of three coordinates; its weight; of Eq. 8 the relu, its square, the pair
    c, seen, encoder = config.encoder.width, samples * (patches + 1), 0
    if config.encoder.frozen and config.encoder.train_projection:
        encoder = samples * patches * config.encoder.taps * c * h
    if not config.encoder.frozen:
        block = seen * (c * (2 * FLOAT + 16 * h) + 4 * FLOAT + FLOAT * config.encoder.heads) + (
            24 * c**2 if half else 0
        )
        taps = seen * c * config.encoder.taps * (FLOAT + h) + samples * patches * width * h
        encoder = config.encoder.depth * block + taps
    return fusion + head + loss + encoder


def activations(
    config: WTConfig,
    size: int,
    frames: int,
    micro_batch: int,
    half: bool = True,
    mode: Mode = "compiled",
    recomputed: int = 0,
) -> int:
    """Bytes that the forward pass of a micro-batch keeps, its first `recomputed` blocks computed again later.

    `micro_batch` samples, each of `frames` frames of `size` x `size` pixels.
    """
    samples = micro_batch * frames
    tokens = samples * config.layers * (size // config.patch) ** 2
    total = kept_outside(config, size, samples, half)
    for i, (_, shape) in enumerate(units(config, frames)):
        twice = i < recomputed
        total += kept_by_recomputed(config, tokens) if twice else kept_by_block(config, shape, tokens, half, mode)
    # All are computed again: then the last of them is, while nothing has been freed yet.
    if recomputed >= len(units(config, frames)):
        total += max(kept_by_block(config, shape, tokens, half, mode) for _, shape in units(config, frames))
    return total


def blocks_to_recompute(
    config: WTConfig,
    size: int,
    frames: int,
    micro_batch: int,
    budget_bytes: float,
    half: bool = True,
    mode: Mode = "compiled",
) -> int:
    """How many blocks, the first of `units`, must be computed twice for the activations to fit into `budget_bytes`.

    0: all may be kept. All of them: they fit then, or nothing does.
    """
    last = len(units(config, frames))
    for count in range(last):
        if activations(config, size, frames, micro_batch, half, mode, count) <= budget_bytes:
            return count
    return last


@dataclass(frozen=True)
class Placement:
    """How a run lies on its devices: `world` ranks, groups of `shard` of which hold one copy of the weights."""

    world: int
    shard: int
    micro_batch: int  # samples that one rank takes at a time


def placement(settings: Config, world: int, per_node: int) -> Placement:
    """The share of each of `world` ranks, `per_node` on each machine. ValueError where they cannot divide the work."""
    parts = world * settings.accumulation
    if settings.data.batch % parts:
        raise ValueError(
            f"data.batch {settings.data.batch} is not a multiple of {world} ranks x accumulation "
            f"{settings.accumulation}; {_nearest_accumulation(settings, world)}"
        )
    chosen = settings.parallel.shard
    shard = world if chosen == "all" else math.gcd(world, per_node) if chosen == "node" else chosen
    if world % shard:
        fitting = ", ".join(str(n) for n in range(1, world + 1) if world % n == 0)
        raise ValueError(f"parallel.shard: {shard} does not divide {world} ranks; choose one of {fitting}, node or all")
    return Placement(world, shard, settings.data.batch // parts)


def _nearest_accumulation(settings: Config, world: int) -> str:
    batch = settings.data.batch
    if batch % world:
        below = max(n for n in range(1, min(world, batch) + 1) if batch % n == 0)
        return f"the largest number of ranks up to {world} that divides the batch is {below}"
    fitting = [n for n in range(1, batch // world + 1) if batch // world % n == 0]
    return f"for {world} ranks accumulation may be {', '.join(map(str, fitting))}"


def persistent(settings: Config, counted: Parameters, on: Placement) -> dict[str, int]:
    """Bytes on each device from one step to the next: item -> bytes. Exact, but for the rounding of shards.

    With accumulation, gradients are whole on every rank until the last micro-batch of a step hands them out.
    """
    whole_gradients = on.shard == 1 or settings.accumulation > 1
    return {
        "weights": _share(counted.all, on.shard),
        "gradients": counted.trained * FLOAT if whole_gradients else _share(counted.trained, on.shard),
        "Adam's moments": 2 * _share(counted.trained, on.shard),
        "averages (EMA)": _share(counted.trained, on.shard),
    }


def passing(settings: Config, config: WTConfig, counted: Parameters, on: Placement) -> dict[str, int]:
    """Bytes that come and go within a step, but for activations: item -> bytes. The last one is an estimate.

    Of sharded weights the block in use and the next one are whole, and their gradients on the way out; so is what lies
    outside of blocks. Batches: two on the device, and the points, the noise, x_t and its filled form of the one in use.
    """
    gathered = 4 * counted.block * FLOAT + counted.outside * FLOAT if on.shard > 1 else 0
    size, layers = settings.data.size, config.layers
    samples = on.micro_batch * settings.data.frames
    batch = samples * size**2 * ((3 + layers + 1) * FLOAT + 1)
    points = samples * layers * size**2 * 3 * FLOAT
    tokens = samples * layers * (size // config.patch) ** 2
    temporary = tokens * config.width * (2 * config.mlp_ratio * (2 if settings.precision == "bf16" else FLOAT) + 8)
    return {
        "gathered weights": gathered,
        "batches, points, noise": 2 * batch + 4 * points,
        "temporary (estimate)": temporary,
    }


def room(settings: Config, config: WTConfig, counted: Parameters, on: Placement, device_bytes: float) -> float:
    """Bytes left for activations on a device of `device_bytes`; below 0 where not even the rest fits."""
    usable = device_bytes * (1 - GAPS) - RESERVED
    taken = {**persistent(settings, counted, on), **passing(settings, config, counted, on)}
    return usable - sum(taken.values())


def recompute(
    settings: Config, config: WTConfig, on: Placement, device_bytes: float | None, mode: Mode = "compiled"
) -> int:
    """What `compute.activations` comes to: how many blocks, the first of `units`, are computed twice.

    keep: none. recompute: all. A size: as many as activations of that size need. auto: as many as the device needs;
    none where `device_bytes` is None (a CPU).
    """
    asked = settings.compute.activations
    if asked == "keep" or (asked == "auto" and device_bytes is None):
        return 0
    if asked == "recompute":
        return len(units(config, settings.data.frames))
    if asked == "auto" and device_bytes is not None:
        budget = room(settings, config, parameters(config), on, device_bytes)
    else:
        budget = settings.compute.activation_bytes
    half = settings.precision == "bf16"
    return blocks_to_recompute(config, settings.data.size, settings.data.frames, on.micro_batch, budget, half, mode)


def _share(count: int, shard: int) -> int:
    """Bytes of float32 that one of `shard` ranks holds of `count` numbers."""
    return -(-count // shard) * FLOAT
