"""Compression artifacts as JPEG makes them (ITU-T T.81, Annex A and K; JFIF 1.02), as arithmetic on tensors.

No file is written: what a file loses is lost in rounding the coefficients of 8 x 8 cosine transforms, and in keeping
the colour at half the resolution (4:2:0). The transforms are products of matrices in float64, which no setting of
reduced precision (TF32, autocast) touches: a coefficient that is rounded to another step is another picture.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

BLOCK = 16  # pixels a side that share the coefficients of their colour
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)  # T.81, table K.1
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)  # table K.2


def jpeg(rgb: Tensor, quality: int) -> Tensor:
    """(3,H,W) float32, taken within [0,1] -> what an image file of `quality` (1 to 100, as libjpeg counts) shows."""
    height, width = rgb.shape[1:]
    red, green, blue = _padded(_levels(rgb * 255), BLOCK)
    luma = _levels(0.299 * red + 0.587 * green + 0.114 * blue)
    blue_less = _levels(128 - 0.168735892 * red - 0.331264108 * green + 0.5 * blue)
    red_less = _levels(128 + 0.5 * red - 0.418687589 * green - 0.081312411 * blue)
    luma = _coded(luma[None], _steps(_LUMINANCE, quality, rgb.device))[0]
    chroma = _coded(_halved(torch.stack([blue_less, red_less])), _steps(_CHROMINANCE, quality, rgb.device))
    blue_less, red_less = _doubled(_doubled(chroma, 1), 2).sub_(128)
    rgb = torch.stack(
        [
            luma + 1.402 * red_less,
            luma - 0.344136286 * blue_less - 0.714136286 * red_less,
            luma + 1.772 * blue_less,
        ]
    )
    return _levels(rgb[:, :height, :width]).div_(255)


def _levels(x: Tensor) -> Tensor:
    """To the nearest of 256 levels."""
    return (x + 0.5).floor_().clamp_(0, 255)


def _padded(x: Tensor, multiple: int) -> Tensor:
    """(C,H,W) with its last row and column repeated up to multiples."""
    below, beside = -x.shape[1] % multiple, -x.shape[2] % multiple
    if not below and not beside:
        return x
    return torch.nn.functional.pad(x[None], (0, beside, 0, below), mode="replicate")[0]


def _halved(x: Tensor) -> Tensor:
    """(C,H,W) -> (C,H/2,W/2): means of 2 x 2, rounded down and up in turns, as libjpeg does."""
    total = x[:, 0::2, 0::2] + x[:, 0::2, 1::2] + x[:, 1::2, 0::2] + x[:, 1::2, 1::2]
    bias = 1 + torch.arange(total.shape[-1], device=x.device) % 2
    return total.add_(bias).div_(4).floor_()


def _doubled(x: Tensor, axis: int) -> Tensor:
    """Twice as long along an axis: 3/4 of the nearest sample and 1/4 of the next nearest."""
    length = x.shape[axis]
    before, after = (
        (x.narrow(axis, 0, 1), x.narrow(axis, 0, length - 1)),
        (
            x.narrow(axis, 1, length - 1),
            x.narrow(axis, length - 1, 1),
        ),
    )
    sides = [(0.75 * x).add_(torch.cat(side, axis), alpha=0.25) for side in (before, after)]
    return torch.stack(sides, axis + 1).flatten(axis, axis + 1)


def _coded(x: Tensor, steps: Tensor) -> Tensor:
    """(C,H,W) levels -> the levels that are left after the coefficients of every 8 x 8 were rounded to the steps."""
    channels, height, width = x.shape
    basis = _basis(x.device)
    blocks = (x - 128).to(torch.float64).view(channels, height // 8, 8, width // 8, 8)
    coefficients = torch.matmul(basis, (blocks @ basis.T).flatten(3)).view(blocks.shape)
    kept = (coefficients / steps).add_(0.5).floor_().mul_(steps)
    back = torch.matmul(basis.T, (kept @ basis).flatten(3)).view(blocks.shape)
    return _levels(back.view(channels, height, width).add_(128).to(torch.float32))


@lru_cache(maxsize=512)  # a tensor that is made of numbers on a GPU waits for the GPU
def _steps(base: tuple[int, ...], quality: int, device: torch.device) -> Tensor:
    """(8,1,8) float64: the steps of a quality, by libjpeg's rule, down and across."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = [min(max((step * percent + 50) // 100, 1), 255) for step in base]
    return torch.tensor(steps, dtype=torch.float64, device=device).view(8, 1, 8)


@lru_cache(maxsize=32)
def _basis(device: torch.device) -> Tensor:
    """(8,8) float64 of the orthonormal cosine transform: row k, sample n."""
    scale = [math.sqrt((1 if k == 0 else 2) / 8) for k in range(8)]
    rows = [[scale[k] * math.cos((2 * n + 1) * k * math.pi / 16) for n in range(8)] for k in range(8)]
    return torch.tensor(rows, dtype=torch.float64, device=device)
