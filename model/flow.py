"""The objective: flow matching on normalised points, the network predicting x0 (paper, 3.1 and App. A).

x_t = (1 - t) x0 + t noise. Random numbers come in as tensors or generators, so that training replays exactly.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.regression import blank

MONOTONICITY_WEIGHT = 0.1  # lambda of App. A
MASK_WEIGHT = 1.0  # of the cross-entropy of masks, which the paper tried and left; it gives no number
CORRELATION = 0.5  # rho of the prior noise of a clip's frames (released value)

# (rgb, x_t, t, frames) -> x0, as `WTDiT.forward`
Network = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class Loss(NamedTuple):
    """`total` (scalar, with gradient) = `endpoint` + lambda * `monotonicity`, and with masks their weight times their
    cross-entropy; the rest is for logs.

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
    exists_BLHW: Tensor | None = None,
    mask_weight: float = MASK_WEIGHT,
    regression: bool = False,
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

    For a model with masks (`WTConfig.masks`), and for no other, give `exists_BLHW` (bool): its points count only where
    a layer is there, elsewhere it sees noise (or x_t would tell it), and `mask_weight` times the cross-entropy of its
    logits is added to `total`. With `regression` the network is asked once, without noise: `t_BL` and `noise_BLHW3` are
    not looked at (model/regression.py).
    """
    there_BLHW = valid_BHW.bool()[:, None].expand(x0_BLHW3.shape[:-1])
    if exists_BLHW is not None:
        there_BLHW = there_BLHW & exists_BLHW
    if regression:
        answer = model(rgb_B3HW, blank(valid_BHW, x0_BLHW3.shape[1]), torch.ones_like(t_BL), frames).float()
    else:
        t_BL111 = t_BL[:, :, None, None, None]
        x_t = (1 - t_BL111) * x0_BLHW3 + t_BL111 * correlated(noise_BLHW3, frames, correlation, valid_BHW)
        answer = model(rgb_B3HW, noise_fill(x_t, there_BLHW, noise_BLHW3), t_BL, frames).float()
    x0_hat = answer[..., :3]

    supervised_BLHW = supervision(valid_BHW if weight_BHW is None else weight_BHW, x0_BLHW3.shape[1], single_layer_B)
    of_points_BLHW = supervised_BLHW if exists_BLHW is None else supervised_BLHW * exists_BLHW
    endpoint, error_L, weight_L = endpoint_loss(x0_hat, x0_BLHW3, of_points_BLHW)
    monotonicity = monotonicity_penalty(x0_hat[..., 2], of_points_BLHW)
    total = endpoint + monotonicity_weight * monotonicity
    if exists_BLHW is not None:
        total = total + mask_weight * existence_loss(answer[..., 3], exists_BLHW, supervised_BLHW)
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


def noise_fill(x_BLHW3: Tensor, there: Tensor, noise_BLHW3: Tensor) -> Tensor:
    """Eq. 7: noise in place of the points where there are none; `there` bool (B,H,W), or per layer (B,L,H,W)."""
    there = there.bool() if there.ndim == 4 else there.bool()[:, None]
    return torch.where(there[..., None], x_BLHW3, noise_BLHW3)


def layers_there(answer_BLHWC: Tensor, valid_BHW: Tensor) -> Tensor:
    """(B,L,H,W) bool: where a network's answer says that a layer is there. All are at valid pixels if it has no masks;
    with them (C = 4) those whose logit is positive, and the first, which is there by definition."""
    there_BLHW = valid_BHW.bool()[:, None].expand(answer_BLHWC.shape[:-1])
    if answer_BLHWC.shape[-1] == 3:
        return there_BLHW
    return torch.cat([there_BLHW[:, :1], there_BLHW[:, 1:] & (answer_BLHWC[:, 1:, ..., 3] > 0)], dim=1)


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


def existence_loss(logit_BLHW: Tensor, exists_BLHW: Tensor, weight_BLHW: Tensor) -> Tensor:
    """Binary cross-entropy of the layers behind the first, which is there wherever a pixel is valid: the mean over the
    supervised elements of each sample, then over samples; 0 for a sample without one."""
    logit, exists, weight = logit_BLHW[:, 1:], exists_BLHW[:, 1:].float(), weight_BLHW[:, 1:]
    entropy = F.binary_cross_entropy_with_logits(logit, exists, reduction="none") * weight
    return (entropy.sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp(min=1e-6)).mean()


def monotonicity_penalty(z_hat_BLHW: Tensor, weight_BLHW: Tensor) -> Tensor:
    """Eq. 8: mean of relu(z_l - z_{l+1})^2 over adjacent layers and valid pixels, then over samples.

    Only pairs of supervised layers count: a single-layer sample must not shape the layers behind (Eq. 4).
    """
    pair_BKHW = torch.minimum(weight_BLHW[:, :-1], weight_BLHW[:, 1:])
    violation_BKHW = torch.relu(z_hat_BLHW[:, :-1] - z_hat_BLHW[:, 1:]).square() * pair_BKHW
    return (violation_BKHW.sum(dim=(1, 2, 3)) / pair_BKHW.sum(dim=(1, 2, 3)).clamp(min=1e-6)).mean()
