"""Parts of the model on a GPU: a whole prediction, a block of each shape, attention by kernel.

`train_gpu.py infer` and `train_gpu.py rays` run them and say what they measure.
"""

import copy
import itertools
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from model import WTConfig, WTDiT, flops, sample
from model.attention import CYCLE, Shape
from model.blocks import Block, LayerConditioning
from model.rope import Rope, spatial
from tests.benchmarks.gpu_rows import Bench, autocast, batch_on
from tests.benchmarks.train_cpu import Products
from train.data.batch import Batch
from train.ranks import sharding
from train.step import compute

# Bytes that a block must move per token and channel beside what its products read and write, if everything between two
# products is one pass: residual stream of 4 bytes, the rest of 2. Forward: norm 6, attention 8 (q, k, v, result),
# residual with norm 12, GELU 16, residual 10. Backward: gate 8, GELU 24, norm and residual 14, gate 4, attention 16,
# norm 14.
LEAST_BYTES = 52 + 80


# ---------------------------------------------------------------- infer


def inference(bench: Bench, size: int, steps: int) -> None:
    """Rows of seconds for `steps` steps of the sampler."""
    with torch.device(bench.device):
        model = WTDiT(bench.shape())
    model.eval().requires_grad_(False)
    ways = [
        ("compiled, bf16 matrices", True, True, True),
        ("compiled, autocast", True, True, False),
        ("eager, autocast", False, True, False),
        ("eager, float32", False, False, False),
    ]
    for images in (1, 4):
        batch = batch_on(bench.device, size, images, model.config.layers)
        for name, compiled, half, cast in ways[: None if images == 1 else -1]:  # float32 takes long, of one image too
            bench.attempt(f"{name}, {images}", partial(_predicted, bench, model, batch, steps, compiled, half, cast))
            unprepare(model)


def _predicted(
    bench: Bench, model: WTDiT, batch: Batch, steps: int, compiled: bool, half: bool, cast: bool
) -> dict[str, Any]:
    images, size = len(batch.rgb), batch.rgb.shape[-1]
    seeds = [torch.Generator(bench.device).manual_seed(k) for k in range(images)]
    network = in_bf16(model) if cast else model
    if compiled:
        compute.compile_blocks(sharding.blocks_of(network))
    with autocast(bench.device, half):
        seconds = bench.seconds(lambda: sample(network, batch.rgb, batch.valid, seeds, steps), most=5)
    count = flops(model.config, size, size)
    mfu = (
        {} if bench.peak is None else {"MFU": images * (count.encoder + steps * count.denoiser) / seconds / bench.peak}
    )
    return {"s": seconds, "s_image": seconds / images, **mfu, "GB": bench.allocated()}


def in_bf16(model: WTDiT) -> WTDiT:
    """A copy whose matrices that autocast would cast are bf16: the same numbers, without the casts."""
    copied = copy.deepcopy(model)
    outside = [copied.feature_projection, copied.noise_projection, copied.head.projection]
    for part in (*sharding.blocks_of(copied), copied.encoder, *outside):
        for layer in part.modules():
            if isinstance(layer, nn.Linear):
                layer.bfloat16()
    return copied


def unprepare(model: WTDiT) -> None:
    """Blocks compute as their class says again."""
    for block in sharding.blocks_of(model):
        block.__dict__.pop("forward", None)


# ---------------------------------------------------------------- rays


def rays(bench: Bench, size: int, samples: int) -> None:
    """Rows of the copy's bandwidth, of a block of each shape, of attention alone by kernel."""
    shape, rows = bench.shape(), size // bench.shape().patch
    bandwidth = _bandwidth(bench)
    rope = spatial(rows, rows, shape.width // shape.heads, bench.device)
    for of, compiled in itertools.product(CYCLE, (True, False)):
        name = f"{of} block, {'compiled' if compiled else 'eager'}"
        bench.attempt(name, partial(_block, bench, shape, of, rope, samples, rows**2, compiled, bandwidth))
    for of, (kernel, backend) in itertools.product(CYCLE, compute.KERNELS.items()):
        measure = partial(_attention, bench, shape, of, samples, rows**2, backend, bandwidth)
        bench.attempt(f"{of} attention, {kernel}", measure)


def _bandwidth(bench: Bench) -> float:
    """Bytes read and written in a second by a copy of 1 GiB."""
    source = torch.randn(2**16 if bench.small else 2**28, device=bench.device)
    target = torch.empty_like(source)
    found = 2 * source.numel() * 4 / bench.seconds(lambda: target.copy_(source))
    bench.row("copy", TB_s=found / 1e12)
    return found


def _block(
    bench: Bench,
    shape: WTConfig,
    of: Shape,
    rope: Rope,
    samples: int,
    patches: int,
    compiled: bool,
    bandwidth: float,
) -> dict[str, Any]:
    device, layers = bench.device, shape.layers
    block = Block(shape.width, shape.heads, shape.mlp_ratio, shape.layer_scale).to(device)
    layer = LayerConditioning(layers, shape.width).to(device)
    x = torch.randn(samples, layers, patches, shape.width, device=device, requires_grad=True)
    adaln = torch.randn(samples, layers if of == "layer" else 1, 6, shape.width, device=device)
    upstream = torch.randn_like(x)

    weights = [*block.parameters(), *layer.parameters(), x]

    def both() -> None:
        film = layer.modulation() if of == "layer" else None
        with autocast(device, True):
            result = block(x, adaln, of, None if of == "ray" else rope, film=film)
        torch.autograd.grad(result, weights, upstream, allow_unused=True)  # which adds up nothing over the runs

    with Products() as products:
        both()
    arithmetic = bench.seconds(products.again())
    if compiled:
        compute.compile_blocks([block])
    seconds = bench.seconds(both)
    moved = LEAST_BYTES * x.numel() / bandwidth
    return {
        "ms": 1000 * seconds,
        "products_ms": 1000 * arithmetic,
        "TFLOP_s": products.flops / arithmetic / 1e12,
        "rest_ms": 1000 * (seconds - arithmetic),
        "bytes_ms": 1000 * moved,
        "over_bytes": (seconds - arithmetic) / moved,
    }


def _attention(
    bench: Bench, shape: WTConfig, of: Shape, samples: int, patches: int, kernel: SDPBackend, bandwidth: float
) -> dict[str, Any]:
    layers, heads, width = shape.layers, shape.heads, shape.width
    count, seen = {
        "layer": (samples * layers, patches),
        "ray": (samples * patches, layers),
        "global": (samples, layers * patches),
    }[of]
    size = (count, heads, seen, width // heads)
    q, k, v = (torch.randn(size, device=bench.device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    upstream = torch.randn(size, device=bench.device, dtype=torch.bfloat16)

    def forward() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    with sdpa_kernel(kernel):
        with torch.no_grad():
            seconds = bench.seconds(forward)
        both = bench.seconds(lambda: torch.autograd.grad(forward(), (q, k, v), upstream))
    numbers = q.numel()
    return {
        "ms": 1000 * both,
        "forward_ms": 1000 * seconds,
        "TFLOP_s": 4 * numbers * seen / seconds / 1e12,
        "over_bytes": seconds * bandwidth / (8 * numbers),  # forward: q, k, v read and the result written, 2 bytes each
    }
