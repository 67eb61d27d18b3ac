"""What torch.compile makes of a block: a graph per attention shape, the same numbers, and no product of L x L x d.

The CPU's back end generates C++ where CUDA's generates Triton, from the same fused loops.
"""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter
from torch._inductor.utils import run_and_get_code

from model.attention import CYCLE, along_rays, gather, scatter
from model.blocks import Block
from model.rope import spatial, temporal

B, L, ROWS, COLUMNS, D, HEADS, T = 4, 6, 2, 3, 32, 2, 2
P, HEAD = ROWS * COLUMNS, D // HEADS


def arguments(shape, seed=0):
    """What a block of this shape is called with, but for the tokens."""
    torch.manual_seed(seed)
    rope = {"ray": None, "time": temporal(B, T, HEAD)}.get(shape, spatial(ROWS, COLUMNS, HEAD))
    film = (torch.randn(L, 1, D), torch.randn(L, 1, D)) if shape == "layer" else None
    return torch.randn(B, 1, 6, D), shape, rope, T if shape == "time" else 1, film


def blocks(shape, count=1):
    torch.manual_seed(1)
    return [Block(D, HEADS, 4, 0.5) for _ in range(count)]


@pytest.fixture(autouse=True)
def clean():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("shape", [*CYCLE, "time"])
def test_a_block_is_one_graph_and_all_blocks_of_a_shape_share_it(shape):
    counter = CompileCounter()
    first, second = blocks(shape, 2)
    x = torch.randn(B, L, P, D, requires_grad=True)
    for block in (first, second):
        block.compile(backend=counter, fullgraph=True, dynamic=False)
        out = block(x, *arguments(shape))
        torch.testing.assert_close(out, block.forward(x, *arguments(shape)), atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 1


def test_rays_written_out_are_the_general_attention_forward_and_backward():
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, L, P, HEADS, HEAD, requires_grad=True) for _ in range(3))
    towards = torch.randn(B, L, P, D)

    def general(q, k, v):
        out = F.scaled_dot_product_attention(*(gather(x, "ray") for x in (q, k, v)))
        return scatter(out, "ray", L, P)

    torch.testing.assert_close(along_rays(q, k, v), general(q, k, v), atol=1e-6, rtol=1e-5)
    fused, twin = (torch.autograd.grad((f(q, k, v) * towards).sum(), (q, k, v)) for f in (along_rays, general))
    for a, b in zip(fused, twin, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)
    q, k, v = (x.detach().bfloat16() for x in (q, k, v))
    exact = general(q.float(), k.float(), v.float())
    errors = [(f(q, k, v).float() - exact).abs().max() for f in (along_rays, general)]
    assert along_rays(q, k, v).dtype == torch.bfloat16
    assert errors[0] <= max(errors[1], 2**-8 * exact.abs().max())
    large = torch.full((1, L, 1, 1, HEAD), 40.0)  # scores of 6,400: their exponentials alone would overflow
    assert along_rays(large, large, large).isfinite().all()


@pytest.mark.slow  # 30 s of CPU: it generates a block with its gradients
def test_compiled_rays_move_no_more_than_their_tokens():
    """The generated code's buffers: nothing of L x L x d, forward or backward, and the numbers of the eager block."""
    (block,) = blocks("ray")
    x = torch.randn(B, L, P, D, requires_grad=True)
    expected = block(x, *arguments("ray"))
    expected_gradient = torch.autograd.grad(expected.square().sum(), x)[0]
    block.compile(fullgraph=True, dynamic=False)

    def step():
        out = block(x, *arguments("ray"))
        return out, torch.autograd.grad(out.square().sum(), x)[0]

    with torch._inductor.config.patch(force_disable_caches=True):
        (out, gradient), codes = run_and_get_code(step)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-4, rtol=1e-4)
    sizes = [
        math.prod(int(n) for n in found.split(",") if n.strip())
        for code in codes
        for found in re.findall(r"empty_strided_cpu\(\(([\d, ]*)\)", code)
    ]
    assert len(codes) == 2
    assert len(sizes) > 10
    # The widest things a block holds are the MLP's hidden channels, 4 D; all L x L products of a ray would take L D.
    assert max(sizes) <= B * L * P * 4 * D < B * L * P * L * D


@pytest.mark.slow  # 10 s a shape: two compilations
@pytest.mark.parametrize("shape", [*CYCLE, "time"])
def test_compiled_in_bf16_a_block_is_as_exact_as_eager(shape):
    (block,) = blocks(shape)
    x = torch.randn(B, L, P, D)
    with torch.no_grad():
        exact = block(x, *arguments(shape))
        with torch.autocast("cpu", torch.bfloat16):
            eager = block(x, *arguments(shape))
            block.compile(fullgraph=True, dynamic=False)
            compiled = block(x, *arguments(shape))
    assert compiled.dtype == torch.float32
    spread = (exact - x).std()
    errors = [(found - exact).square().mean().sqrt() / spread for found in (eager, compiled)]
    assert errors[1] < 1.2 * errors[0] < 0.03
