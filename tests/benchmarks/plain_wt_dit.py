"""WT-DiT as one writes it down first: eager PyTorch, `scaled_dot_product_attention` and nothing fused by hand.

It has the parameters of `model.WTDiT` under the same names, so that it takes the same weights and gives the same
numbers (the benchmarks check that before they time it). Single frames only. Dimensions as in model/wt_dit.py.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import EncoderConfig, WTConfig

Shape = Literal["layer", "ray", "global"]
SHAPES: tuple[Shape, ...] = ("layer", "ray", "global")


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm, self.k_norm = nn.LayerNorm(width // heads), nn.LayerNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x_NSD: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = self.qkv(x_NSD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (N, heads, S, d)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if rope is not None:
            q, k = rotated(q, rope), rotated(k, rope)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class PlainScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))


class PlainMlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PlainBlock(nn.Module):
    def __init__(self, config: WTConfig) -> None:
        super().__init__()
        width = config.width
        self.modulation = nn.Parameter(torch.zeros(6 * width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = PlainAttention(width, config.heads), PlainMlp(width, config.mlp_ratio * width)
        self.ls1, self.ls2 = PlainScale(width), PlainScale(width)

    def forward(self, x_BLPD: Tensor, adaln_BL6D: Tensor, shape: Shape, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        vectors = (adaln_BL6D + self.modulation.unflatten(0, (6, -1))).unsqueeze(2)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = vectors.unbind(3)
        h = self.norm1(x_BLPD) * (1 + scale_a) + shift_a
        x_BLPD = x_BLPD + gate_a * (self.ls1.gamma * apart(self.attn(together(h, shape), rope), shape, x_BLPD))
        h = self.norm2(x_BLPD) * (1 + scale_m) + shift_m
        return x_BLPD + gate_m * (self.ls2.gamma * self.mlp(h))


class PlainTime(nn.Module):
    """Sinusoids of 1000 t, a small network, six vectors for all blocks; in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.projection = nn.Linear(width, 6 * width)

    def forward(self, t_BL: Tensor) -> Tensor:
        with torch.autocast(t_BL.device.type, enabled=False):
            frequencies = 1e4 ** (-torch.arange(128, device=t_BL.device, dtype=torch.float64) / 128)
            angles = 1000 * t_BL.double()[..., None] * frequencies
            wave = torch.cat([angles.cos(), angles.sin()], dim=-1).float()
            return self.projection(F.silu(self.mlp(wave))).unflatten(-1, (6, -1))


class PlainLayer(nn.Module):
    """FiLM of the layers' embeddings and, where the model has one, their term to AdaLN; in float32."""

    def __init__(self, layers: int, width: int, adaln: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(layers, width)
        self.film = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 2 * width))
        self.adaln = nn.Linear(width, 6 * width) if adaln else None

    def modulate(self, x_BLPD: Tensor) -> Tensor:
        with torch.autocast(x_BLPD.device.type, enabled=False):
            gamma_L1D, beta_L1D = self.film(self.embed.weight)[:, None].chunk(2, dim=-1)
            return (x_BLPD.float() * (1 + gamma_L1D) + beta_L1D).to(x_BLPD.dtype)

    def added(self, adaln_BL6D: Tensor) -> Tensor:
        if self.adaln is None:
            return adaln_BL6D
        with torch.autocast(adaln_BL6D.device.type, enabled=False):
            return adaln_BL6D + self.adaln(F.silu(self.embed.weight)).unflatten(-1, (6, -1))


class PlainEncoderAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_BSC: Tensor) -> Tensor:
        q, k, v = self.qkv(x_BSC).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class PlainEncoderBlock(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(config.width, eps=1e-6) for _ in range(2))
        self.attn = PlainEncoderAttention(config.width, config.heads)
        self.mlp = PlainMlp(config.width, 4 * config.width)
        self.ls1, self.ls2 = PlainScale(config.width), PlainScale(config.width)

    def forward(self, x_BSC: Tensor) -> Tensor:
        x_BSC = x_BSC + self.ls1.gamma * self.attn(self.norm1(x_BSC))
        return x_BSC + self.ls2.gamma * self.mlp(self.norm2(x_BSC))


class PlainPatches(nn.Module):
    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)


class PlainEncoder(nn.Module):
    """DINOv2's ViT, its last blocks concatenated and projected; positions as in model/encoder.py."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: EncoderConfig, patch: int, output: int) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.register_buffer("image_mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("image_std", torch.ones(1, 3, 1, 1))
        self.patch_embed = PlainPatches(patch, width)
        self.cls_token, self.mask_token = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, width))
        self.blocks = nn.ModuleList(PlainEncoderBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.final_project = nn.Linear(config.taps * width, output)
        self.requires_grad_(not config.frozen)
        self.final_project.requires_grad_(config.train_projection or not config.frozen)
        self.mask_token.requires_grad_(False)

    def forward(self, rgb_B3HW: Tensor) -> Tensor:
        tokens_BCHW = self.patch_embed.proj((rgb_B3HW - self.image_mean) / self.image_std)
        rows, columns = tokens_BCHW.shape[-2:]
        x_BSC = torch.cat([self.cls_token.expand(len(rgb_B3HW), -1, -1), tokens_BCHW.flatten(2).transpose(1, 2)], dim=1)
        x_BSC = x_BSC + self.positions(rows, columns)
        taps = []
        for i, block in enumerate(self.blocks):
            x_BSC = block(x_BSC)
            if i >= len(self.blocks) - self.config.taps:
                taps.append(self.norm(x_BSC)[:, 1:])
        return self.final_project(torch.cat(taps, dim=-1))

    def positions(self, rows: int, columns: int) -> Tensor:
        grid = self.config.grid
        if (rows, columns) == (grid, grid):
            return self.pos_embed
        square = self.pos_embed[:, 1:].float().transpose(1, 2).unflatten(2, (grid, grid))
        scale = ((rows + 0.1) / grid, (columns + 0.1) / grid)
        square = F.interpolate(square, scale_factor=scale, mode="bicubic", antialias=False)
        return torch.cat([self.pos_embed[:, :1], square.flatten(2).transpose(1, 2)], dim=1)


class PlainHead(nn.Module):
    def __init__(self, config: WTConfig) -> None:
        super().__init__()
        self.layer = PlainLayer(config.layers, config.width)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.head_blocks))
        self.projection = nn.Linear(config.width, 3 * config.patch**2)


class PlainWTDiT(nn.Module):
    """`PlainWTDiT(config).load_state_dict(WTDiT(config).state_dict())`; called like a WTDiT."""

    def __init__(self, config: WTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.encoder = PlainEncoder(config.encoder, config.patch, width)
        self.feature_projection = nn.Linear(width, width // 2)
        self.noise_projection = nn.Linear(6 * config.patch**2, width - width // 2)
        self.time = PlainTime(width)
        self.layer = PlainLayer(config.layers, width, adaln=config.film_adaln)
        self.decoder = nn.ModuleList(PlainBlock(config) for _ in range(config.decoder_blocks))
        self.head = PlainHead(config)

    def forward(self, rgb_B3HW: Tensor, x_t_BLHW3: Tensor, t: Tensor, frames: int = 1) -> Tensor:
        assert frames == 1, "clips are not written down here"
        return self.denoise(self.encode(rgb_B3HW), rgb_B3HW, x_t_BLHW3, t)

    def encode(self, rgb_B3HW: Tensor) -> Tensor:
        return self.encoder(rgb_B3HW)

    def denoise(self, features_BPD: Tensor, rgb_B3HW: Tensor, x_t_BLHW3: Tensor, t: Tensor) -> Tensor:
        config, layers = self.config, x_t_BLHW3.shape[1]
        rows, columns = (side // config.patch for side in x_t_BLHW3.shape[2:4])
        own = tables(rows, columns, config.width // config.heads, x_t_BLHW3.device)
        rope = {"layer": own, "ray": None, "global": tuple(each.repeat(layers, 1) for each in own)}
        t_BL = t[:, None] if t.ndim == 1 else t
        adaln_BL6D = self.time(t_BL)
        adaln = {
            "layer": self.layer.added(adaln_BL6D),
            "ray": adaln_BL6D.mean(1, keepdim=True),
            "global": adaln_BL6D.mean(1, keepdim=True),
        }
        image_BLPD = features_BPD[:, None] + self.layer.embed.weight[:, None]
        image_BLPD = 0.3 * F.layer_norm(image_BLPD, image_BLPD.shape[1:], eps=1e-6)
        rgb_BLHW3 = rgb_B3HW.permute(0, 2, 3, 1)[:, None].expand(-1, layers, -1, -1, -1)
        noisy_BLPE = torch.cat([patches(rgb_BLHW3, config.patch), patches(x_t_BLHW3, config.patch)], dim=-1)
        x_BLPD = torch.cat([self.feature_projection(image_BLPD), self.noise_projection(noisy_BLPE)], dim=-1)
        for i, block in enumerate(self.decoder):
            shape = SHAPES[i % 3]
            if shape == "layer":
                x_BLPD = self.layer.modulate(x_BLPD)
            x_BLPD = block(x_BLPD, adaln[shape], shape, rope[shape])
        adaln_B16D = self.time(t_BL.mean(1, keepdim=True))
        for i, block in enumerate(self.head.blocks):
            shape = SHAPES[i % 3]
            if shape == "layer":
                x_BLPD = self.head.layer.modulate(x_BLPD)
            x_BLPD = block(x_BLPD, adaln_B16D, shape, rope[shape])
        values = self.head.projection(x_BLPD).unflatten(-1, (config.patch, config.patch, 3))
        values = values.unflatten(2, (rows, columns)).transpose(-4, -3)
        return values.flatten(-3, -2).flatten(-4, -3)


def together(x_BLPD: Tensor, shape: Shape) -> Tensor:
    """(N, S, D): the tokens that see each other in a row."""
    if shape == "layer":
        return x_BLPD.flatten(0, 1)
    return x_BLPD.transpose(1, 2).flatten(0, 1) if shape == "ray" else x_BLPD.flatten(1, 2)


def apart(x_NSD: Tensor, shape: Shape, like_BLPD: Tensor) -> Tensor:
    """Inverse of `together`."""
    batch, layers, count, _ = like_BLPD.shape
    if shape == "layer":
        return x_NSD.unflatten(0, (batch, layers))
    if shape == "ray":
        return x_NSD.unflatten(0, (batch, count)).transpose(1, 2)
    return x_NSD.unflatten(1, (layers, count))


def patches(x_BLHWC: Tensor, patch: int) -> Tensor:
    x = x_BLHWC.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return x.transpose(3, 4).flatten(-3).flatten(2, 3)


def tables(rows: int, columns: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(cos, sin), each (P, width), of the patches' rows in one half and columns in the other."""
    exponents = torch.arange(0, width // 2, 2, device=device).float() / (width // 2)
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    turns = [axis.flatten().float()[:, None] * 100.0**-exponents for axis in (y, x)]
    angles = torch.cat([turns[0], turns[0], turns[1], turns[1]], dim=-1)
    return angles.cos(), angles.sin()


def rotated(x_NHSd: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (table.to(x_NHSd.dtype) for table in rope)
    a, b, c, d = x_NHSd.chunk(4, dim=-1)
    return x_NHSd * cos + torch.cat([-b, a, -d, c], dim=-1) * sin
