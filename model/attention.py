"""One self-attention, four shapes: within a layer, along a ray, over a frame, through time (paper, section 3.2)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.rope import Rope, rotate

Shape = Literal["layer", "ray", "global", "time"]
# Rays with more layers than this are left to the general kernel: written out, they take layers^2 products.
LONGEST_RAY = 8
CYCLE: tuple[Shape, ...] = ("layer", "ray", "global")


def shape_of(block: int) -> Shape:
    """Which tokens block number `block` lets attend to each other: the decoder and the head cycle through the three."""
    return CYCLE[block % 3]


def gather(x_BLPHd: Tensor, shape: Shape, frames: int = 1) -> Tensor:
    """Tokens that attend to each other, side by side: (N, H, S, d) with S = P (layer), L (ray), L*P (global), T (time).

    For "time" the batch holds clips of `frames` consecutive frames; the other shapes keep to one frame.
    """
    if shape == "layer":
        return x_BLPHd.transpose(2, 3).flatten(0, 1)
    if shape == "ray":
        return x_BLPHd.permute(0, 2, 3, 1, 4).flatten(0, 1)
    if shape == "time":
        return x_BLPHd.unflatten(0, (-1, frames)).permute(0, 2, 3, 4, 1, 5).flatten(0, 2)
    return x_BLPHd.flatten(1, 2).transpose(1, 2)


def scatter(x_NHSd: Tensor, shape: Shape, layers: int, patches: int) -> Tensor:
    """Inverse of `gather`, heads merged: (B, L, P, H*d)."""
    if shape == "layer":
        x_BLPHd = x_NHSd.unflatten(0, (-1, layers)).transpose(2, 3)
    elif shape == "ray":
        x_BLPHd = x_NHSd.unflatten(0, (-1, patches)).permute(0, 3, 1, 2, 4)
    elif shape == "time":
        x_BLPHd = x_NHSd.unflatten(0, (-1, layers, patches)).permute(0, 4, 1, 2, 3, 5).flatten(0, 1)
    else:
        x_BLPHd = x_NHSd.transpose(1, 2).unflatten(1, (layers, patches))
    return x_BLPHd.flatten(3)


def along_rays(q_BLPHd: Tensor, k_BLPHd: Tensor, v_BLPHd: Tensor) -> Tensor:
    """Attention of each ray's L tokens to one another, written out as L x L products: (B,L,P,H*d), sums in float32.

    For a compiler, which makes a handful of kernels of it that read each query, key and value once or twice and never
    hold an L x L x d product. Kernels for long sequences spend a tile of 64 or 128 rows on the 6 tokens of a ray.
    Uncompiled it would move L times the bytes: there `scaled_dot_product_attention` says the same.
    """
    scale = q_BLPHd.shape[-1] ** -0.5
    queries, keys, values = (x.unbind(1) for x in (q_BLPHd, k_BLPHd, v_BLPHd))  # L times (B,P,H,d) each
    out = []
    for query in queries:
        # Cast where they are used: cast once before, all of q, k and v would be kept in float32 for the backward pass.
        scores = [(query.float() * key.float()).sum(-1) * scale for key in keys]
        largest = scores[0].detach()
        for score in scores[1:]:
            largest = torch.maximum(largest, score.detach())
        weights = [torch.exp(score - largest) for score in scores]
        total = sum(weights[1:], weights[0])
        mixed = [(w / total)[..., None] * value.float() for w, value in zip(weights, values, strict=True)]
        out.append(sum(mixed[1:], mixed[0]).to(v_BLPHd.dtype))
    return torch.stack(out, dim=1).flatten(3)


class Attention(nn.Module):
    """Multi-head self-attention with LayerNorm on queries and keys: qkv without bias, projection with one.

    Nothing here hinders any kernel that `torch.nn.attention.sdpa_kernel` may choose around it: no mask, heads of 64 in
    the full models, channels last and contiguous.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = nn.LayerNorm(width // heads)
        self.k_norm = nn.LayerNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BLPD: Tensor, shape: Shape, rope: Rope | None, frames: int = 1) -> Tensor:
        """(B,L,P,D) -> (B,L,P,D). `rope` holds tables that broadcast to (B,L,P,H,d); along a ray there are none."""
        _, layers, patches, _ = x_BLPD.shape
        q, k, v = self.qkv(x_BLPD).unflatten(-1, (3, self.heads, -1)).unbind(3)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        if shape == "ray" and layers <= LONGEST_RAY and torch.compiler.is_compiling():
            return self.proj(along_rays(q, k, v))
        q, k, v = (gather(x, shape, frames) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(scatter(out, shape, layers, patches))
