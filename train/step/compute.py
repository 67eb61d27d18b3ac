"""How a step is computed: what the backward pass computes twice, what is compiled, which attention kernel runs.

None of it changes what is computed but for rounding, nor the names of weights: a block keeps its place and gets another
`forward`. From the inside out: the block's own, compiled; computed again in the backward pass, around that; and FSDP's
hooks, which act where the block is called. So a block computed twice runs the same code as one that is not, its weights
are gathered once for the backward pass, and no hook is ever compiled.
"""

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from model import WTDiT
from train.config import Compute, Config
from train.plan import memory
from train.ranks import sharding
from train.ranks.parallel import Ranks

# Ways in which one block's code is called: four attentions, one or all layers' times, training or not, batch sizes.
GRAPHS = 64
CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what makes cuBLAS deterministic, read when CUDA starts
KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def prepare(model: WTDiT, settings: Config, ranks: Ranks) -> int:
    """Make `model` compute as `settings` ask and put it on the ranks' devices, in place; see `sharding.distribute`.

    Returns how many blocks the backward pass computes again. ValueError as `sharding.group_size`.
    """
    shard = sharding.group_size(ranks, settings.parallel)
    micro_batch = settings.data.batch // (ranks.world * settings.accumulation)
    compiled = compiles(settings.compute, ranks.device)
    twice = memory.recompute(
        settings,
        model.config,
        memory.Placement(ranks.world, shard, micro_batch),
        _bytes_of(ranks.device),
        "compiled" if compiled else "eager",
    )
    if compiled:
        compile_blocks(sharding.blocks_of(model))
    names = [name for name, _ in memory.units(model.config, settings.data.frames)]
    recompute_blocks([model.get_submodule(name) for name in names[:twice]])
    sharding.distribute(model, ranks, settings.parallel)
    return twice


def compiles(settings: Compute, device: torch.device) -> bool:
    return device.type == "cuda" if settings.compile == "auto" else settings.compile


def compile_blocks(blocks: list[nn.Module]) -> None:
    """Let each block's `forward` be compiled when it is first called.

    Blocks are alike, so one compiled graph serves all that attend alike: the code is compiled once for each way of
    calling it, with fixed sizes. What cannot be compiled whole is an error rather than a slow step.
    """
    _allow_graphs()
    # Blocks compute in bf16; the little that autocast leaves in float32 is to stay exact.
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
    for block in blocks:
        block.forward = torch.compile(block.forward, fullgraph=True, dynamic=False)  # type: ignore[method-assign]


def _allow_graphs() -> None:
    """In the thread that calls: torch keeps this limit for each."""
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)


def recompute_blocks(blocks: list[nn.Module]) -> None:
    """Let the backward pass compute these blocks again from their inputs, all that they keep till then."""
    for block in blocks:
        block.forward = _twice(block.forward)  # type: ignore[method-assign]


def _twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    def compute(*args: Any, **kwargs: Any) -> Any:
        # The second time is in autograd's own thread on CUDA. It finds the graphs of this one, if it is set up alike.
        _allow_graphs()
        return forward(*args, **kwargs)

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        # No block draws random numbers, so there is no generator to set back.
        return checkpoint(compute, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return call


@contextmanager
def attention(settings: Compute) -> Iterator[None]:
    """Within the block the named kernel computes attention wherever it can, others where it cannot (float32 for most).

    "math" is the readable one: it stands alone, for it can everything. cuDNN's adds up in any order, and is left out
    where that is not wanted. Hold it around the backward pass as well.
    """
    known = [kernel for name, kernel in KERNELS.items() if not (settings.deterministic and name == "cudnn")]
    if settings.attention == "auto":
        with sdpa_kernel(known) if settings.deterministic else nullcontext():
            yield
        return
    chosen = KERNELS[settings.attention]
    others = [] if settings.attention == "math" else [kernel for kernel in known if kernel != chosen]
    with sdpa_kernel([chosen, *others], set_priority=True):
        yield


@contextmanager
def arithmetic(settings: Config) -> Iterator[None]:
    """Within the block torch computes as exactly as `settings` ask. It begins before CUDA does, and holds all of a run.

    `precision: fp32`: in float32, convolutions too, which cuDNN would do in TF32. `compute.deterministic`: only by
    kernels that give the same bits every time; ValueError where torch has none. Strictly so: where torch is only to
    warn, its attention goes on to add up in any order.
    """
    asked = settings.compute.deterministic
    tf32, strict, warns = (
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    if settings.precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False
    if asked:
        os.environ.setdefault(*CUBLAS)
        torch.use_deterministic_algorithms(True)
    try:
        with _fixed_graphs() if asked else nullcontext():
            yield
    except RuntimeError as error:
        if not asked or "deterministic" not in str(error):
            raise
        raise ValueError(
            f"compute.deterministic: torch has no such way for a step of this run ({str(error).split(',')[0]}); set "
            "compute.deterministic=false"
        ) from error
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        torch.use_deterministic_algorithms(strict, warn_only=warns)


def _fixed_graphs() -> AbstractContextManager[None]:
    """torch.compile chooses no kernel by measuring, where the choice would change how it adds up."""
    from torch._inductor import config  # a second's import, for those who want it

    return config.patch(deterministic=True)  # type: ignore[no-any-return]


def _bytes_of(device: torch.device) -> float | None:
    """Memory of a GPU, None of a CPU, whose memory is not ours alone."""
    return float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None
