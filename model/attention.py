"""One self-attention, three shapes: within a layer, along a ray, over everything (paper, section 3.2)."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from model.rope import Rope, rotate

Shape = Literal["layer", "ray", "global"]
SHAPES: tuple[Shape, ...] = ("layer", "ray", "global")


def shape_of(block: int) -> Shape:
    """Which tokens block number `block` lets attend to each other: the decoder and the head cycle through the three."""
    return SHAPES[block % 3]


def gather(x_BLPHd: Tensor, shape: Shape) -> Tensor:
    """Tokens that attend to each other, side by side: (N, H, S, d) with S = P (layer), L (ray) or L*P (global)."""
    if shape == "layer":
        return x_BLPHd.transpose(2, 3).flatten(0, 1)
    if shape == "ray":
        return x_BLPHd.permute(0, 2, 3, 1, 4).flatten(0, 1)
    return x_BLPHd.flatten(1, 2).transpose(1, 2)


def scatter(x_NHSd: Tensor, shape: Shape, layers: int, patches: int) -> Tensor:
    """Inverse of `gather`, heads merged: (B, L, P, H*d)."""
    if shape == "layer":
        x_BLPHd = x_NHSd.unflatten(0, (-1, layers)).transpose(2, 3)
    elif shape == "ray":
        x_BLPHd = x_NHSd.unflatten(0, (-1, patches)).permute(0, 3, 1, 2, 4)
    else:
        x_BLPHd = x_NHSd.transpose(1, 2).unflatten(1, (layers, patches))
    return x_BLPHd.flatten(3)


class Attention(nn.Module):
    """Multi-head self-attention with LayerNorm on queries and keys: qkv without bias, projection with one."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = nn.LayerNorm(width // heads)
        self.k_norm = nn.LayerNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BLPD: Tensor, shape: Shape, rope: Rope) -> Tensor:
        """(B,L,P,D) -> (B,L,P,D). `rope` holds tables (P, d), unused along rays (one position)."""
        _, layers, patches, _ = x_BLPD.shape
        q, k, v = self.qkv(x_BLPD).unflatten(-1, (3, self.heads, -1)).unbind(3)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if shape != "ray":
            table = rope[0][:, None], rope[1][:, None]  # over heads; the same (y, x) for every layer
            q, k = rotate(q, table), rotate(k, table)
        out = F.scaled_dot_product_attention(gather(q, shape), gather(k, shape), gather(v, shape))
        return self.proj(scatter(out, shape, layers, patches))
