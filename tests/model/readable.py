"""The slow readable twin of WT-DiT's decoder: one sample, one head, one token at a time, straight from the paper."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention import Attention
from model.blocks import Block


def turned(x_d: Tensor, y: int, x: int, base: float = 100.0) -> Tensor:
    """2D RoPE of one head vector at patch (y, x): pairs (i, i + d/4) turn by y, then by x."""
    out, half, quarter = x_d.clone(), len(x_d) // 2, len(x_d) // 4
    for axis, position in enumerate((y, x)):
        for i in range(quarter):
            angle = position * base ** (-2 * i / half)
            a, b = x_d[axis * half + i], x_d[axis * half + quarter + i]
            out[axis * half + i] = a * math.cos(angle) - b * math.sin(angle)
            out[axis * half + quarter + i] = b * math.cos(angle) + a * math.sin(angle)
    return out


def attend(module: Attention, x_LPD: Tensor, shape: str, columns: int) -> Tensor:
    """The attention of one sample: every token looks at the tokens of its layer, of its ray, or at all of them."""
    layers, patches, width = x_LPD.shape
    head = width // module.heads
    out = torch.zeros_like(x_LPD)
    for h in range(module.heads):
        q, k, v = (module.qkv.weight.view(3, module.heads, head, width)[i, h] for i in range(3))
        vectors = {}
        for l in range(layers):
            for p in range(patches):
                query = F.layer_norm(q @ x_LPD[l, p], (head,), module.q_norm.weight, module.q_norm.bias)
                key = F.layer_norm(k @ x_LPD[l, p], (head,), module.k_norm.weight, module.k_norm.bias)
                if shape != "ray":
                    query, key = turned(query, *divmod(p, columns)), turned(key, *divmod(p, columns))
                vectors[l, p] = query, key, v @ x_LPD[l, p]
        for l, p in vectors:
            seen = [
                (m, q)
                for m, q in vectors
                if shape == "global" or (shape == "layer" and m == l) or (shape == "ray" and q == p)
            ]
            scores = torch.stack([vectors[l, p][0] @ vectors[s][1] / math.sqrt(head) for s in seen])
            mixed = sum(w * vectors[s][2] for w, s in zip(scores.softmax(0), seen, strict=True))
            out[l, p, h * head : (h + 1) * head] = mixed
    return module.proj(out)


def block(module: Block, x_LPD: Tensor, adaln_L6D: Tensor, shape: str, columns: int) -> Tensor:
    """One DiT block of one sample, with a time vector per layer."""
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
        (adaln_L6D[:, i] + module.modulation.chunk(6)[i])[:, None] for i in range(6)
    )
    h = module.norm1(x_LPD) * (1 + scale_a) + shift_a
    x_LPD = x_LPD + gate_a * module.ls1.gamma * attend(module.attn, h, shape, columns)
    h = module.norm2(x_LPD) * (1 + scale_m) + shift_m
    return x_LPD + gate_m * module.ls2.gamma * module.mlp.fc2(F.gelu(module.mlp.fc1(h)))
