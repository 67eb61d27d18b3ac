"""WT-DiT: an image and a noisy stack of points in, the clean stack out (paper, section 3.2 and App. B).

Dimensions: B samples, L layers, P patches in row-major order, D width, H and W pixels. It knows nothing of parallelism.
"""

import torch
from torch import Tensor, nn

from model.attention import shape_of
from model.blocks import Block, LayerConditioning, TimeConditioning
from model.config import WTConfig
from model.encoder import ImageEncoder
from model.rope import Rope, spatial, temporal

# Initial LayerScale of temporal blocks (App. B): a model warm-started from a static one begins as that one.
TEMPORAL_LAYER_SCALE = 1e-5
# The fused image tokens are brought to this standard deviation before their projection (released value).
FEATURE_SCALE = 0.3


def patchify(x_BHWC: Tensor, patch: int) -> Tensor:
    """(...,H,W,C) -> (...,P,patch*patch*C), a patch's values in the order (row, column, channel)."""
    x = x_BHWC.unflatten(-3, (-1, patch)).unflatten(-2, (-1, patch))  # ..., h, ph, w, pw, C
    return x.transpose(-4, -3).flatten(-3).flatten(-3, -2)


def unpatchify(x_BPE: Tensor, patch: int, height: int) -> Tensor:
    """Inverse of `patchify`: (...,P,patch*patch*C) -> (...,H,W,C)."""
    x = x_BPE.unflatten(-2, (height // patch, -1)).unflatten(-1, (patch, patch, -1))  # ..., h, w, ph, pw, C
    return x.transpose(-4, -3).flatten(-3, -2).flatten(-4, -3)


def standardised(x_BLPD: Tensor, frames: int = 1) -> Tensor:
    """Mean 0 and deviation 1 jointly over the frames, layers, patches and channels of each clip, in float32.

    `F.layer_norm` says the same, but on a GPU it gives each of these few rows of millions of numbers to one block.
    """
    clips_NE = x_BLPD.float().unflatten(0, (-1, frames)).flatten(1)
    centred_NE = clips_NE - clips_NE.mean(dim=1, keepdim=True)
    variance_N1 = centred_NE.square().mean(dim=1, keepdim=True)
    return (centred_NE * torch.rsqrt(variance_N1 + 1e-6)).view(x_BLPD.shape).to(x_BLPD.dtype)


class Head(nn.Module):
    """The last blocks, with a layer conditioning of their own, and the projection of a token to its patch's points."""

    def __init__(self, config: WTConfig) -> None:
        super().__init__()
        self.layer = LayerConditioning(config.layers, config.width)
        self.blocks = nn.ModuleList(_block(config, config.layer_scale) for _ in range(config.head_blocks))
        self.projection = nn.Linear(config.width, config.answers * config.patch**2)
        nn.init.zeros_(self.projection.weight)  # the first prediction is the training set's mean, not noise
        nn.init.zeros_(self.projection.bias)

    def forward(self, x_BLPD: Tensor, adaln_B16D: Tensor, rope: Rope) -> Tensor:
        film = self.layer.modulation()
        for i, block in enumerate(self.blocks):
            if shape_of(i) == "layer":
                x_BLPD = block(x_BLPD, adaln_B16D, "layer", rope, film=film)
            else:
                x_BLPD = block(x_BLPD, adaln_B16D, shape_of(i), None if shape_of(i) == "ray" else rope)
        return self.projection(x_BLPD)


class WTDiT(nn.Module):
    """The network F of Eq. 3: predicts x0 (normalised points) from x_t, t and the image.

    `encode` depends on the image alone, so that a sampler runs it once; `denoise` is called at every step.

    Where it starts differently from the release: there all blocks of the decoder begin as copies of one, here each is
    drawn by itself; and here the last projection begins at zero, so that the first prediction is the mean.
    """

    def __init__(self, config: WTConfig) -> None:
        super().__init__()
        self.config = config
        width, values = config.width, 3 * config.patch**2
        self.encoder = ImageEncoder(config.encoder, config.patch, width)
        self.feature_projection = nn.Linear(width, width // 2)
        self.noise_projection = nn.Linear(2 * values, width - width // 2)
        self.time = TimeConditioning(width)
        self.layer = LayerConditioning(config.layers, width, adaln=config.film_adaln)
        self.decoder = nn.ModuleList(_block(config, config.layer_scale) for _ in range(config.decoder_blocks))
        globals_ = config.decoder_blocks // 3 if config.temporal else 0
        self.temporal = nn.ModuleList(_block(config, TEMPORAL_LAYER_SCALE) for _ in range(globals_))
        self.head = Head(config)

    def forward(self, rgb_B3HW: Tensor, x_t_BLHW3: Tensor, t: Tensor, frames: int = 1) -> Tensor:
        """RGB in [0, 1], noise-filled x_t (normalised), t (B,) or per layer (B,L) in [0, 1] -> x0 (B,L,H,W,3).

        A model with masks answers (B,L,H,W,4): after the point the logit that the layer is there.

        Of clips, `frames` frames long, the batch holds the frames one after the other.
        """
        return self.denoise(self.encode(rgb_B3HW), rgb_B3HW, x_t_BLHW3, t, frames)

    def encode(self, rgb_B3HW: Tensor) -> Tensor:
        """RGB (B,3,H,W) in [0, 1] -> image tokens (B,P,D). ValueError where H or W is not a multiple of the patch."""
        height, width = rgb_B3HW.shape[-2:]
        patch = self.config.patch
        if height % patch or width % patch:
            raise ValueError(f"image is {height}x{width}; both sides must be multiples of the patch, {patch}")
        return self.encoder(rgb_B3HW)

    def denoise(self, features_BPD: Tensor, rgb_B3HW: Tensor, x_t_BLHW3: Tensor, t: Tensor, frames: int = 1) -> Tensor:
        """`encode`'s tokens, RGB (B,3,H,W), noise-filled x_t (B,L,H,W,3), t (B,) or (B,L) -> x0 (B,L,H,W,3).

        With a time per layer (phase (i) of the curriculum) layer-wise blocks see each layer's own; ray-wise and global
        blocks, whose tokens mix layers, see the mean of the AdaLN vectors; the head sees the mean time. Temporal blocks
        are skipped for single frames.
        """
        height, width = x_t_BLHW3.shape[2:4]
        patch, head_dim, device = self.config.patch, self.config.width // self.config.heads, x_t_BLHW3.device
        rope = spatial(height // patch, width // patch, head_dim, device)
        time_rope = temporal(len(x_t_BLHW3), frames, head_dim, device) if frames > 1 else None
        t_BL = t[:, None] if t.ndim == 1 else t
        adaln_BL6D = self.time(t_BL)
        adaln_B16D = adaln_BL6D.mean(dim=1, keepdim=True)
        film, layer_L6D = self.layer.modulation(), self.layer.adaln_L6D()
        layerwise_BL6D = adaln_BL6D if layer_L6D is None else adaln_BL6D + layer_L6D

        x_BLPD = self.fuse(features_BPD, rgb_B3HW, x_t_BLHW3, frames)
        for i, block in enumerate(self.decoder):
            if shape_of(i) == "layer":
                x_BLPD = block(x_BLPD, layerwise_BL6D, "layer", rope, film=film)
            elif shape_of(i) == "ray":
                x_BLPD = block(x_BLPD, adaln_B16D, "ray", None)
            else:
                x_BLPD = block(x_BLPD, adaln_B16D, "global", rope)
                if frames > 1 and self.config.temporal:
                    x_BLPD = self.temporal[i // 3](x_BLPD, adaln_B16D, "time", time_rope, frames)
        x0_BLPE = self.head(x_BLPD, self.time(t_BL.mean(dim=1, keepdim=True)), rope)
        return unpatchify(x0_BLPE, patch, height)

    def fuse(self, features_BPD: Tensor, rgb_B3HW: Tensor, x_t_BLHW3: Tensor, frames: int = 1) -> Tensor:
        """Pixel-aligned fusion (B,L,P,D): image tokens in one half of the channels, RGB and noisy XYZ in the other.

        The image tokens are normalised jointly over a whole clip, layers, patches and channels.
        """
        layers, patch = x_t_BLHW3.shape[1], self.config.patch
        image_BLPD = FEATURE_SCALE * standardised(features_BPD[:, None] + self.layer.embed.weight[:, None], frames)
        rgb_BPE = patchify(rgb_B3HW.permute(0, 2, 3, 1), patch)
        noisy_BLPE = torch.cat([rgb_BPE[:, None].expand(-1, layers, -1, -1), patchify(x_t_BLHW3, patch)], dim=-1)
        return torch.cat([self.feature_projection(image_BLPD), self.noise_projection(noisy_BLPE)], dim=-1)

    def parameter_counts(self) -> tuple[int, int]:
        """(all, trainable) parameters."""
        sizes = [(p.numel(), p.requires_grad) for p in self.parameters()]
        return sum(n for n, _ in sizes), sum(n for n, trainable in sizes if trainable)


def _block(config: WTConfig, layer_scale: float) -> Block:
    return Block(config.width, config.heads, config.mlp_ratio, layer_scale)
