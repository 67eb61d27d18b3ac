"""What the decoder is made of: the DiT block, and how time and layer index modulate it (paper, section 3.2)."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from model.attention import Attention, Shape
from model.rope import Rope

# (gamma, beta), each (L,1,D): the residual stream becomes x * (1 + gamma) + beta
Film = tuple[Tensor, Tensor]


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast on this device, for what has to stay float32; "meta" has none to switch off."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class LayerScale(nn.Module):
    """A learned gain per channel on a residual branch."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm DiT block: x += gate * LayerScale(f(norm(x) * (1 + scale) + shift)), attention and then MLP.

    The six vectors (shift, scale, gate for either branch) are a learned vector of the block plus the time projection
    that all blocks share (AdaLN-single); the gate is plain, without 1 +. Layer-wise blocks first apply the layers' FiLM
    to the residual stream: here rather than before the block, so that a compiler fuses it with the norm that follows.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int, layer_scale: float) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(6 * width) / math.sqrt(width))
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_ratio * width)
        self.ls2 = LayerScale(width, layer_scale)

    def forward(
        self,
        x_BLPD: Tensor,
        adaln_BL6D: Tensor,
        shape: Shape,
        rope: Rope | None,
        frames: int = 1,
        film: Film | None = None,
    ) -> Tensor:
        """(B,L,P,D) -> (B,L,P,D); `adaln_BL6D` has 1 or L layers; `rope` and `frames` as in `Attention`."""
        if film is not None:  # in float32, as the time's vectors are
            gamma_L1D, beta_L1D = film
            x_BLPD = (x_BLPD.float() * (1 + gamma_L1D) + beta_L1D).to(x_BLPD.dtype)
        adaln_BL16D = (adaln_BL6D + self.modulation.unflatten(0, (6, -1))).unsqueeze(2)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = adaln_BL16D.unbind(3)
        h_BLPD = self.norm1(x_BLPD) * (1 + scale_a) + shift_a
        x_BLPD = x_BLPD + gate_a * self.ls1(self.attn(h_BLPD, shape, rope, frames))
        return x_BLPD + gate_m * self.ls2(self.mlp(self.norm2(x_BLPD) * (1 + scale_m) + shift_m))


class TimeConditioning(nn.Module):
    """Diffusion time -> the AdaLN vectors shared by all blocks, always in float32."""

    frequencies = 128

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = nn.Linear(2 * self.frequencies, width), nn.Linear(width, width)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)
        self.act = nn.SiLU()
        self.projection = nn.Linear(width, 6 * width)
        for linear in (first, second):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, t_BL: Tensor) -> Tensor:
        """t in [0, 1], (B, 1 or L) -> (B, 1 or L, 6, D). Sinusoids of 1000 t with float64 frequencies, as released."""
        with full_precision(t_BL.device):
            k = torch.arange(self.frequencies, device=t_BL.device, dtype=torch.float64)
            angles = 1000 * t_BL.double()[..., None] * 1e4 ** (-k / self.frequencies)
            wave = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.projection.weight.dtype)
            return self.projection(self.act(self.mlp(wave))).unflatten(-1, (6, -1))


class LayerConditioning(nn.Module):
    """Which layer a token belongs to: an embedding, its FiLM (gamma, beta), and with `adaln` a term to AdaLN.

    FiLM is what breaks the symmetry between layers, for none of the three attentions sees the layer index. FiLM and the
    AdaLN term start at zero: at first every layer is treated alike.
    """

    def __init__(self, layers: int, width: int, adaln: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(layers, width)
        last = nn.Linear(width, 2 * width)
        self.film = nn.Sequential(nn.Linear(width, width), nn.GELU(), last)
        self.act = nn.SiLU()
        self.adaln = nn.Linear(width, 6 * width) if adaln else None
        nn.init.normal_(self.embed.weight, std=0.02)
        for linear in (last, self.adaln):
            if linear is not None:
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)

    def modulation(self) -> Film:
        """(gamma, beta), each (L,1,D) in float32: the same before every layer-wise block."""
        with full_precision(self.embed.weight.device):
            gamma_LD, beta_LD = self.film(self.embed.weight).float().chunk(2, dim=-1)
            return gamma_LD[:, None], beta_LD[:, None]

    def adaln_L6D(self) -> Tensor | None:
        """The layers' own term to AdaLN (L,6,D), None where the model has none."""
        if self.adaln is None:
            return None
        with full_precision(self.embed.weight.device):
            return self.adaln(self.act(self.embed.weight)).unflatten(-1, (6, -1))
