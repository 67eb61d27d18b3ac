"""The image encoder: a ViT as in DINOv2 (no registers), whose last blocks are concatenated and projected.

At ViT-L/14 it holds the backbone of MoGe v1, which the paper freezes; the small presets train their own from scratch.
Parameter names are DINOv2's, so that its weights load as they are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks import LayerScale, Mlp
from model.config import EncoderConfig


class EncoderAttention(nn.Module):
    """Plain multi-head self-attention over (B,S,C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BSC: Tensor) -> Tensor:
        q, k, v = self.qkv(x_BSC).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block with LayerScale."""

    def __init__(self, width: int, heads: int, layer_scale: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = EncoderAttention(width, heads)
        self.ls1 = LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)
        self.ls2 = LayerScale(width, layer_scale)

    def forward(self, x_BSC: Tensor) -> Tensor:
        x_BSC = x_BSC + self.ls1(self.attn(self.norm1(x_BSC)))
        return x_BSC + self.ls2(self.mlp(self.norm2(x_BSC)))


class PatchEmbed(nn.Module):
    """Non-overlapping patches -> tokens."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, rgb_B3HW: Tensor) -> Tensor:
        return self.proj(rgb_B3HW).flatten(2).transpose(1, 2)


class ImageEncoder(nn.Module):
    """RGB in [0, 1] -> one token per patch, (B,P,output). Any size that is a multiple of the patch."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: EncoderConfig, patch: int, output: int) -> None:
        super().__init__()
        self.config, self.patch = config, patch
        width = config.width
        self.register_buffer("image_mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.patch_embed = PatchEmbed(patch, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.grid**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.blocks = nn.ModuleList(EncoderBlock(width, config.heads, config.layer_scale) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.final_project = nn.Linear(config.taps * width, output)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)
        self.requires_grad_(not config.frozen)
        self.final_project.requires_grad_(config.train_projection or not config.frozen)
        self.mask_token.requires_grad_(False)  # read by DINOv2's own pre-training only; every such state dict has it

    def positions(self, rows: int, columns: int) -> Tensor:
        """(1, 1 + rows*columns, C): the learned grid, resampled bicubically as DINOv2 does.

        DINOv2 passes scale factors enlarged by 0.1 (against rounding) and these also set where it samples; weights
        trained that way need exactly that, without antialiasing.
        """
        grid = self.config.grid
        if (rows, columns) == (grid, grid):
            return self.pos_embed
        cls_11C, patches_1SC = self.pos_embed[:, :1].float(), self.pos_embed[:, 1:].float()
        patches_1CHW = patches_1SC.transpose(1, 2).unflatten(2, (grid, grid))
        if torch.are_deterministic_algorithms_enabled() and patches_1CHW.requires_grad:
            # Of every row and column what it gives: the same but for rounding. CUDA's way back adds up in any order.
            unit_1GG1 = torch.eye(grid, device=patches_1CHW.device)[None, :, :, None]
            down_GR, across_GC = (_resampled(unit_1GG1, (n + 0.1) / grid, 1.0)[0, :, :, 0] for n in (rows, columns))
            with torch.autocast(patches_1CHW.device.type, enabled=False):
                patches_1CHW = down_GR.T @ patches_1CHW @ across_GC
        else:
            patches_1CHW = _resampled(patches_1CHW, (rows + 0.1) / grid, (columns + 0.1) / grid)
        return torch.cat([cls_11C, patches_1CHW.flatten(2).transpose(1, 2)], dim=1).to(self.pos_embed.dtype)

    def forward(self, rgb_B3HW: Tensor) -> Tensor:
        """(B,3,H,W) in [0, 1] -> (B,P,output); the last `taps` blocks, each through the final norm, concatenated.

        Of a frozen encoder no graph is kept, but for the projection's where that is trained.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen):
            taps_BPC = self._taps(rgb_B3HW)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.final_project.weight.requires_grad):
            return self.final_project(taps_BPC)

    def _taps(self, rgb_B3HW: Tensor) -> Tensor:
        rows, columns = rgb_B3HW.shape[-2] // self.patch, rgb_B3HW.shape[-1] // self.patch
        tokens_BPC = self.patch_embed((rgb_B3HW - self.image_mean) / self.image_std)
        x_BSC = torch.cat([self.cls_token.expand(len(tokens_BPC), -1, -1), tokens_BPC], dim=1)
        x_BSC = x_BSC + self.positions(rows, columns)
        taps = []
        for i, block in enumerate(self.blocks):
            x_BSC = block(x_BSC)
            if i >= len(self.blocks) - self.config.taps:
                taps.append(self.norm(x_BSC)[:, 1:])
        return torch.cat(taps, dim=-1)


def _resampled(x_1CHW: Tensor, down: float, across: float) -> Tensor:
    return F.interpolate(x_1CHW, scale_factor=(down, across), mode="bicubic", antialias=False)
