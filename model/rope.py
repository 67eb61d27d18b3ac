"""Rotary positions: each head is split into a half turned by y and a half turned by x (released: base 100).

The release rounds angles to the queries' dtype before it takes cosines and sines; ours are taken in float32 and rounded
then. In float32 that is the same; in bf16 an angle of 30 would be off by up to 0.06. Tables are made anew for every
pass: some twenty small kernels, which nothing waits for, and no state that could be stale.
"""

import torch
from torch import Tensor

# (cos, sin), shaped to broadcast against queries and keys (B,L,P,H,head_dim)
Rope = tuple[Tensor, Tensor]


def rotary(positions_S2: Tensor, head_dim: int, base: float = 100.0) -> tuple[Tensor, Tensor]:
    """(cos, sin), each (S, head_dim), of integer positions (S,2) = (y, x); half of the head turns with either."""
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, device=positions_S2.device, dtype=torch.float32) / half
    angles_S2F = positions_S2.float()[:, :, None] * base**-exponents
    angles_SD = torch.cat([angles_S2F, angles_S2F], dim=-1).flatten(1)  # per axis: every frequency twice (rotate-half)
    return angles_SD.cos(), angles_SD.sin()


def patch_positions(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """(rows*columns, 2) integer (y, x) of the patches in row-major order."""
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.stack([y, x], dim=-1).flatten(0, 1)


def spatial(rows: int, columns: int, head_dim: int, device: torch.device | None = None) -> Rope:
    """Tables (P,1,d) of the patches' (y, x): the same for every layer and head."""
    cos_PD, sin_PD = rotary(patch_positions(rows, columns, device), head_dim)
    return cos_PD[:, None], sin_PD[:, None]


def temporal(batch: int, frames: int, head_dim: int, device: torch.device | None = None) -> Rope:
    """Tables (B,1,1,1,d) of the frames' (t, 0) in a batch of B = clips * frames."""
    t = torch.arange(batch, device=device) % frames
    cos_BD, sin_BD = rotary(torch.stack([t, torch.zeros_like(t)], dim=-1), head_dim)
    return cos_BD[:, None, None, None], sin_BD[:, None, None, None]


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Turns x (..., head_dim) by tables that broadcast against it; dot products then see relative positions only."""
    cos, sin = rope
    axes = x.unflatten(-1, (2, 2, -1))  # (y | x), (first half | second half), frequency
    turned = torch.stack([-axes[..., 1, :], axes[..., 0, :]], dim=-2).flatten(-3)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)
