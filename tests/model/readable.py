"""Slow readable twins of the network and its objective: one sample, one head, one token or one pixel at a time."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention import Attention
from model.blocks import Block
from model.encoder import EncoderAttention, ImageEncoder


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


def attend_through_time(module: Attention, x_TLPD: Tensor) -> Tensor:
    """The attention of one clip: every token looks at its own layer and patch in all frames, turned by (t, 0)."""
    frames, layers, patches, width = x_TLPD.shape
    head = width // module.heads
    out = torch.zeros_like(x_TLPD)
    for h in range(module.heads):
        q, k, v = (module.qkv.weight.view(3, module.heads, head, width)[i, h] for i in range(3))
        for l in range(layers):
            for p in range(patches):
                tokens = x_TLPD[:, l, p]
                norms = (module.q_norm, module.k_norm)
                queries, keys = (
                    [turned(F.layer_norm(w @ x, (head,), n.weight, n.bias), t, 0) for t, x in enumerate(tokens)]
                    for w, n in zip((q, k), norms, strict=True)
                )
                for t in range(frames):
                    scores = torch.stack([queries[t] @ key / math.sqrt(head) for key in keys])
                    mixed = sum(w * (v @ x) for w, x in zip(scores.softmax(0), tokens, strict=True))
                    out[t, l, p, h * head : (h + 1) * head] = mixed
    return module.proj(out)


def attend_in_image(module: EncoderAttention, x_SC: Tensor) -> Tensor:
    """The encoder's attention of one image: every token looks at all."""
    width = x_SC.shape[1]
    head = width // module.heads
    out = torch.zeros_like(x_SC)
    for h in range(module.heads):
        own = slice(h * head, (h + 1) * head)
        weights = [part[own] for part in module.qkv.weight.chunk(3)]
        biases = [part[own] for part in module.qkv.bias.chunk(3)]
        q, k, v = ([w @ x + b for x in x_SC] for w, b in zip(weights, biases, strict=True))
        for s, query in enumerate(q):
            scores = torch.stack([query @ key / math.sqrt(head) for key in k])
            out[s, own] = sum(w * value for w, value in zip(scores.softmax(0), v, strict=True))
    return module.proj(out)


def encode(module: ImageEncoder, rgb_3HW: Tensor) -> Tensor:
    """One image of as many patches as the encoder has positions -> (P,output), as DINOv2 and the release have it."""
    patch, grid = module.patch, module.config.grid
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    tokens = [module.cls_token[0, 0] + module.pos_embed[0, 0]]
    for row in range(grid):
        for column in range(grid):
            pixels = rgb_3HW[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            pixels = (pixels - mean[:, None, None]) / std[:, None, None]
            kernel = module.patch_embed.proj
            token = torch.stack([(w * pixels).sum() for w in kernel.weight]) + kernel.bias
            tokens.append(token + module.pos_embed[0, 1 + row * grid + column])
    x_SC, taps = torch.stack(tokens), []
    for each in module.blocks:
        x_SC = x_SC + each.ls1.gamma * attend_in_image(each.attn, each.norm1(x_SC))
        x_SC = x_SC + each.ls2.gamma * each.mlp.fc2(F.gelu(each.mlp.fc1(each.norm2(x_SC))))
        taps.append(module.norm(x_SC)[1:])
    return module.final_project(torch.cat(taps[-module.config.taps :], dim=1))


def objective(
    predict: Callable[[Tensor], Tensor],
    x0_BLHW3: Tensor,
    valid_BHW: Tensor,
    t_BL: Tensor,
    noise_BLHW3: Tensor,
    single_layer_B: Sequence[bool],
    weight_BHW: Tensor,
    monotonicity_weight: float,
    frames: int,
    correlation: float,
) -> tuple[float, float, float]:
    """(total, endpoint, monotonicity) of Eq. 3, 4, 7 and 8, pixel by pixel; `predict` sees what the network does."""
    batch, layers, height, width, _ = x0_BLHW3.shape
    pixels = [(v, u) for v in range(height) for u in range(width)]
    given = torch.zeros_like(x0_BLHW3)
    for b in range(batch):
        clip = b // frames
        for l in range(layers):
            for v, u in pixels:
                given[b, l, v, u] = noise_BLHW3[b, l, v, u]
                if valid_BHW[b, v, u]:
                    seen = [k for k in range(clip * frames, (clip + 1) * frames) if valid_BHW[k, v, u]]
                    row = root(len(seen), correlation)[seen.index(b)]
                    mixed = sum(float(r) * noise_BLHW3[k, l, v, u] for r, k in zip(row, seen, strict=True))
                    given[b, l, v, u] = (1 - t_BL[b, l]) * x0_BLHW3[b, l, v, u] + t_BL[b, l] * mixed
    x0_hat = predict(given)

    endpoints, penalties = [], []
    for b in range(batch):
        error = pairs = weight = pair_weight = 0.0
        for v, u in pixels:
            w = float(weight_BHW[b, v, u])
            for l in range(1 if single_layer_B[b] else layers):
                if w > 0:
                    error += w * float((x0_hat[b, l, v, u] - x0_BLHW3[b, l, v, u]).square().sum()) / 3
                weight += w
                if l > 0:
                    pairs += w * max(0.0, float(x0_hat[b, l - 1, v, u, 2] - x0_hat[b, l, v, u, 2])) ** 2
                    pair_weight += w
        endpoints.append(error / weight if weight else 0.0)
        penalties.append(pairs / pair_weight if pair_weight else 0.0)
    endpoint, penalty = sum(endpoints) / batch, sum(penalties) / batch
    return endpoint + monotonicity_weight * penalty, endpoint, penalty


def root(count: int, correlation: float) -> Tensor:
    """The symmetric square root of the covariance of `count` frames' noise at one pixel, by its eigenvectors."""
    covariance = torch.full((count, count), correlation, dtype=torch.float64).fill_diagonal_(1)
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T
