"""The objective and the sampler: flow matching on normalised points, the network predicting x0 (paper, 3.1 and App. A).

x_t = (1 - t) x0 + t noise. Random numbers come in as tensors or generators, so that training replays exactly.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.times import shifted
from model.wt_dit import WTDiT

MONOTONICITY_WEIGHT = 0.1  # lambda of App. A
CORRELATION = 0.5  # rho of the prior noise of a clip's frames (released value)
CLAMP = 0.05  # smallest t by which the sampler divides (released value): v grows as 1/t, the network's error with it

# (rgb, x_t, t, frames) -> x0, as `WTDiT.forward`
Network = Callable[[Tensor, Tensor, Tensor, int], Tensor]
Generators = torch.Generator | Sequence[torch.Generator]


class Loss(NamedTuple):
    """`total` (scalar, with gradient) = `endpoint` + lambda * `monotonicity`; the rest is for logs.

    `error_L` and `weight_L` are the batch's squared error and weight per layer, both summed over samples and pixels, so
    that they can be summed over the parts of a batch as well.
    """

    total: Tensor
    endpoint: Tensor
    monotonicity: Tensor
    error_L: Tensor
    weight_L: Tensor

    @property
    def layers_L(self) -> Tensor:
        """The batch's mean squared error per layer, NaN where no sample supervises the layer."""
        return self.error_L / self.weight_L


def objective(
    model: Network,
    rgb_B3HW: Tensor,
    x0_BLHW3: Tensor,
    valid_BHW: Tensor,
    t_BL: Tensor,
    noise_BLHW3: Tensor,
    single_layer_B: Tensor | None = None,
    weight_BHW: Tensor | None = None,
    monotonicity_weight: float = MONOTONICITY_WEIGHT,
    frames: int = 1,
    correlation: float = CORRELATION,
) -> Loss:
    """The training loss of one batch: Eq. 3 gated by Eq. 4, plus lambda times Eq. 8.

    `model`: a WTDiT, or what stands for it (a data parallel one). rgb in [0, 1]; x0 normalised and forward-filled;
    valid bool, the mask the network is told of (through noise fill); t from `draw_times`; noise standard normal.
    `weight_BHW` >= 0 (default: valid) is each pixel's weight in the loss, for pixels whose support a jittered mask
    changed. x0 may hold anything, NaN too, where weight and valid are 0.

    Of clips, `frames` frames long, the batch holds the frames one after the other, each with its clip's times; a frame
    counts in the loss as an image does. The noise comes in independent; what the points are mixed with is correlated
    between the frames of a clip, by `correlation`.

    At invalid pixels x_t is never used, so the noise drawn for it serves as the fresh noise of Eq. 7. In clips, too, it
    is independent of all else that the network sees: frames share the noise of their valid pixels alone.
    """
    t_BL111 = t_BL[:, :, None, None, None]
    x_t = (1 - t_BL111) * x0_BLHW3 + t_BL111 * correlated(noise_BLHW3, frames, correlation, valid_BHW)
    x0_hat = model(rgb_B3HW, noise_fill(x_t, valid_BHW, noise_BLHW3), t_BL, frames).float()

    supervised_BLHW = supervision(valid_BHW if weight_BHW is None else weight_BHW, x0_BLHW3.shape[1], single_layer_B)
    endpoint, error_L, weight_L = endpoint_loss(x0_hat, x0_BLHW3, supervised_BLHW)
    monotonicity = monotonicity_penalty(x0_hat[..., 2], supervised_BLHW)
    total = endpoint + monotonicity_weight * monotonicity
    return Loss(total, endpoint.detach(), monotonicity.detach(), error_L, weight_L)


def correlated(noise_NLHW3: Tensor, frames: int, rho: float, valid_NHW: Tensor | None = None) -> Tensor:
    """Independent noise of N = clips * frames images -> standard normal noise, correlated by rho within a clip.

    The distribution of sqrt(rho) * shared + sqrt(1 - rho) * own (the release's prior), but made of the frames' own
    noise alone: by the symmetric square root of the covariance (1 - rho) I + rho 1 1^T. So a single frame keeps its
    noise bit for bit, and a clip takes as many random numbers as its frames.

    With `valid_NHW` a pixel shares noise among the k frames that see it there, by the root of their own k x k
    covariance: what they get has the same distribution, and is independent of the noise of the other frames. What
    stands at invalid pixels then means nothing. ValueError for a rho outside [0, 1].
    """
    if not 0 <= rho <= 1:
        raise ValueError(f"noise of clips: correlation {rho} must lie between 0 and 1")
    if frames == 1 or rho == 0:
        return noise_NLHW3
    own = math.sqrt(1 - rho)
    clips_BTLHW3 = noise_NLHW3.unflatten(0, (-1, frames))
    if valid_NHW is None:
        common = (math.sqrt(1 - rho + rho * frames) - own) / frames
        shared = common * clips_BTLHW3.sum(dim=1, keepdim=True)
    else:
        valid_BTHW = valid_NHW.bool().unflatten(0, (-1, frames))
        count_B1HW = valid_BTHW.sum(dim=1, keepdim=True, dtype=noise_NLHW3.dtype)
        common_B1HW = ((1 - rho + rho * count_B1HW).sqrt() - own) / count_B1HW.clamp(min=1)
        seen = torch.where(valid_BTHW[:, :, None, :, :, None], clips_BTLHW3, 0.0)
        shared = common_B1HW[:, :, None, :, :, None] * seen.sum(dim=1, keepdim=True)
    return (own * clips_BTLHW3 + shared).flatten(0, 1)


def noise_fill(x_BLHW3: Tensor, valid_BHW: Tensor, noise_BLHW3: Tensor) -> Tensor:
    """Eq. 7: noise in place of the points at invalid pixels."""
    return torch.where(valid_BHW.bool()[:, None, :, :, None], x_BLHW3, noise_BLHW3)


def supervision(weight_BHW: Tensor, layers: int, single_layer_B: Tensor | None = None) -> Tensor:
    """A of Eq. 3 as float weights (B,L,H,W), gated by Eq. 4: a single-layer sample supervises layer 0 only."""
    weight_BLHW = weight_BHW.float()[:, None].expand(-1, layers, -1, -1)
    if single_layer_B is None:
        return weight_BLHW
    hidden_L = torch.arange(layers, device=weight_BHW.device) >= 1
    gate_BL = ~(single_layer_B.bool()[:, None] & hidden_L)
    return weight_BLHW * gate_BL[:, :, None, None]


def endpoint_loss(x0_hat_BLHW3: Tensor, x0_BLHW3: Tensor, weight_BLHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 3: (squared error; per layer (L,) and without gradient: sum of the weighted errors, sum of the weights).

    The paper leaves the mean open. Ours is over the supervised elements of each sample, then over samples: a small
    object counts as much as a large one, and the loss of a batch does not depend on how it is split over processes.
    A sample without a supervised element counts as 0.
    """
    target_BLHW3 = torch.where(weight_BLHW[..., None] > 0, x0_BLHW3, 0.0)  # selected first: 0 * NaN would be NaN
    error_BLHW = (x0_hat_BLHW3 - target_BLHW3).square().mean(dim=-1) * weight_BLHW
    loss_B = error_BLHW.sum(dim=(1, 2, 3)) / weight_BLHW.sum(dim=(1, 2, 3)).clamp(min=1e-6)
    return loss_B.mean(), error_BLHW.detach().sum(dim=(0, 2, 3)), weight_BLHW.sum(dim=(0, 2, 3))


def monotonicity_penalty(z_hat_BLHW: Tensor, weight_BLHW: Tensor) -> Tensor:
    """Eq. 8: mean of relu(z_l - z_{l+1})^2 over adjacent layers and valid pixels, then over samples.

    Only pairs of supervised layers count: a single-layer sample must not shape the layers behind (Eq. 4).
    """
    pair_BKHW = torch.minimum(weight_BLHW[:, :-1], weight_BLHW[:, 1:])
    violation_BKHW = torch.relu(z_hat_BLHW[:, :-1] - z_hat_BLHW[:, 1:]).square() * pair_BKHW
    return (violation_BKHW.sum(dim=(1, 2, 3)) / pair_BKHW.sum(dim=(1, 2, 3)).clamp(min=1e-6)).mean()


@torch.no_grad()
def sample(
    model: WTDiT,
    rgb_B3HW: Tensor,
    valid_BHW: Tensor,
    generator: Generators,
    steps: int = 20,
    frames: int = 1,
    correlation: float = CORRELATION,
) -> Tensor:
    """Normalised points (B,L,H,W,3) by Euler's method from t = 1 to 0; what stands at invalid pixels means nothing.

    The times are even, then moved by the model's `time_shift`.

    rgb in [0, 1]; valid bool. `generator` is one, or one per sample (then a sample's result does not depend on the
    batch it is in). The velocity is (x_t - x0) / max(t, 0.05). The last step returns the prediction x0 itself: with 20
    steps Euler does that anyway (its last t is 0.05), with more the clamp would leave noise in the result.

    Of clips, `frames` frames long, the batch holds the frames one after the other, and a sample is a clip. Valid pixels
    start from noise correlated as in training; the fill of Eq. 7 is independent of it, as there.
    """
    if steps < 1:
        raise ValueError(f"sampler: {steps} steps asked for; at least 1 is needed")
    batch, _, height, width = rgb_B3HW.shape
    if frames < 1 or batch % frames:
        raise ValueError(f"sampler: {batch} images are no whole number of clips of {frames} frames")
    shape = (batch, model.config.layers, height, width, 3)
    features = model.encode(rgb_B3HW)
    x = correlated(gaussian(shape, generator, rgb_B3HW.device, frames), frames, correlation)
    x0 = x
    for step in range(steps):
        t, t_next = (shifted(1 - k / steps, model.config.time_shift) for k in (step, step + 1))
        filled = noise_fill(x, valid_BHW, gaussian(shape, generator, x.device, frames))
        x0 = model.denoise(features, rgb_B3HW, filled, torch.full((batch,), t, device=x.device), frames).float()
        x = x + (t_next - t) * (x - x0) / max(t, CLAMP)
    return x0


def gaussian(shape: Sequence[int], generator: Generators, device: torch.device, frames: int = 1) -> Tensor:
    """Standard normal float32 on `device`, drawn on the generators' own device.

    Several generators are one per sample, that is, one per `frames` of shape[0].
    """
    if isinstance(generator, torch.Generator):
        return torch.randn(tuple(shape), generator=generator, device=generator.device).to(device)
    if len(generator) * frames != shape[0]:
        raise ValueError(
            f"{len(generator)} generators were given for {shape[0] // frames} samples; give one, or one per sample"
        )
    own = (frames, *shape[1:])
    return torch.cat([torch.randn(own, generator=g, device=g.device) for g in generator]).to(device)
