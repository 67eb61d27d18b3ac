"""The three attention shapes against the readable twin, and what each lets a token see."""

import pytest
import torch

from model.attention import CYCLE, Attention, gather, scatter
from model.blocks import Block
from model.rope import rotary, rotate, spatial, temporal
from tests.model import readable

L, ROWS, COLUMNS, D, HEADS = 3, 2, 3, 16, 2
P = ROWS * COLUMNS


def rope_of(shape):
    return None if shape == "ray" else spatial(ROWS, COLUMNS, D // HEADS)


def _randomise(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module


@pytest.mark.parametrize("shape", CYCLE)
def test_block_equals_its_readable_twin(shape):
    torch.manual_seed(1)
    block = _randomise(Block(D, HEADS, 4, 1.0))
    x, adaln = torch.randn(2, L, P, D), torch.randn(2, L, 6, D)
    with torch.no_grad():
        out = block(x, adaln, shape, rope_of(shape))
        for i in range(2):
            torch.testing.assert_close(
                out[i], readable.block(block, x[i], adaln[i], shape, COLUMNS), atol=1e-4, rtol=1e-4
            )


@pytest.mark.parametrize("shape", CYCLE)
def test_a_token_sees_exactly_its_layer_its_ray_or_everything(shape):
    torch.manual_seed(2)
    attention = _randomise(Attention(D, HEADS))
    x = torch.randn(2, L, P, D)
    moved = x.clone()
    moved[0, 1, 4] += 1.0  # one token: sample 0, layer 1, patch 4
    with torch.no_grad():
        changed = (attention(moved, shape, rope_of(shape)) - attention(x, shape, rope_of(shape))).abs().amax(-1) > 1e-6
    expected = torch.zeros(2, L, P, dtype=torch.bool)
    if shape == "layer":
        expected[0, 1] = True
    elif shape == "ray":
        expected[0, :, 4] = True
    else:
        expected[0] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("shape", ["ray", "global"])
def test_attention_knows_no_order_of_layers(shape):
    """Permuting layers permutes the result: FiLM alone breaks that symmetry (section 3.2)."""
    torch.manual_seed(3)
    attention, x, order = _randomise(Attention(D, HEADS)), torch.randn(1, L, P, D), torch.tensor([2, 0, 1])
    with torch.no_grad():
        torch.testing.assert_close(
            attention(x[:, order], shape, rope_of(shape)), attention(x, shape, rope_of(shape))[:, order]
        )


@pytest.mark.parametrize("shape", [*CYCLE, "time"])
def test_scatter_undoes_gather(shape):
    x = torch.randn(6, L, P, HEADS, D // HEADS)
    assert torch.equal(scatter(gather(x, shape, 3), shape, L, P), x.flatten(3))


def test_through_time_a_token_sees_its_layer_and_patch_in_every_frame_of_its_clip():
    torch.manual_seed(5)
    attention, rope = _randomise(Attention(D, HEADS)), temporal(6, 3, D // HEADS)
    x = torch.randn(6, L, P, D)  # two clips of three frames
    moved = x.clone()
    moved[4, 1, 2] += 1.0
    with torch.no_grad():
        changed = (attention(moved, "time", rope, 3) - attention(x, "time", rope, 3)).abs().amax(-1) > 1e-6
        reversed_ = attention(x[:3].flip(0), "time", temporal(3, 3, D // HEADS), 3).flip(0)
        assert (reversed_ - attention(x, "time", rope, 3)[:3]).abs().max() > 1e-3  # order in time matters
    expected = torch.zeros(6, L, P, dtype=torch.bool)
    expected[3:, 1, 2] = True
    assert torch.equal(changed, expected)


def test_attention_through_time_equals_its_readable_twin():
    torch.manual_seed(6)
    attention, x = _randomise(Attention(D, HEADS)), torch.randn(6, L, P, D)
    with torch.no_grad():
        out = attention(x, "time", temporal(6, 3, D // HEADS), 3)
        for clip in range(2):
            own = slice(3 * clip, 3 * clip + 3)
            expected = readable.attend_through_time(attention, x[own])
            torch.testing.assert_close(out[own], expected, atol=1e-4, rtol=1e-4)


def test_film_comes_before_the_block_and_differs_by_layer():
    block = _randomise(Block(D, HEADS, 4, 1.0))
    x, adaln, gamma, beta = (
        torch.randn(2, L, P, D),
        torch.randn(2, L, 6, D),
        torch.randn(L, 1, D),
        torch.randn(L, 1, D),
    )
    with torch.no_grad():
        out = block(x, adaln, "layer", rope_of("layer"), film=(gamma, beta))
        for l in range(L):
            modulated = x[:, l : l + 1] * (1 + gamma[l]) + beta[l]
            expected = block(modulated, adaln[:, l : l + 1], "layer", rope_of("layer"))
            torch.testing.assert_close(out[:, l : l + 1], expected, atol=1e-4, rtol=1e-4)


def test_rope_sees_relative_positions_only_and_keeps_lengths():
    torch.manual_seed(4)
    q, k = torch.randn(16), torch.randn(16)

    def score(at_q, at_k):
        tables = rotary(torch.tensor([at_q, at_k]), 16)
        turned_q, turned_k = rotate(torch.stack([q, k]), tables)
        torch.testing.assert_close(turned_q.norm(), q.norm())
        return turned_q @ turned_k

    torch.testing.assert_close(score((0, 0), (2, 5)), score((3, 1), (5, 6)), atol=1e-4, rtol=1e-4)
    assert abs(score((0, 0), (2, 5)) - score((0, 0), (5, 2))) > 1e-2
