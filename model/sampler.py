"""The sampler: the flow ODE from noise to points (paper, 3.1 and App. B, "Inference"), by one of three solvers.

The network predicts x0, so dx/dt = (x - x0)/t. Over a step from t to t' < t with x0 held still this is solved by

    x' = x + (t' - t) (x - x0)/t,                                                  (euler)

exactly: a blend of x and x0. A better solver knows how x0 moves meanwhile. Along a solution dx0/dt = -t x'', so x0 is a
smooth function of t^2. With x0(s) = x0 + b (s^2 - t^2) within the step, the ODE in the form d(x/s) = x0(s) d(1/s) gives

    x' = euler - b (t - t')^2,    b = (x0_before - x0)/(t_before^2 - t^2),         (multistep)

its slope b taken from the step before, whatever the two steps' lengths: the second-order method of Adams and Bashforth,
but in x0. While x0 stands still it stays exact however long the steps are, and it weighs the difference of two x0 by
1/(2k + 1) at t = k/n, where velocities extrapolated near t = 0 would blow the network's errors up. The same idea with
x0 linear in t, or in the logarithm of the signal-to-noise ratio as in DPM-Solver++(2M), costs logarithms, and that of
the latter is infinite at t = 1.

Heun's method looks ahead instead: it averages the velocity here and at the end of Euler's step, which is

    x' = euler + (t - t')/(2 t') (x0' - x0).                                       (heun)

The last step, to t' = 0, returns x0 itself. That costs a second-order solver nothing: x0 is off by t^2 x''/2 there.
"""

import difflib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from model.flow import CORRELATION, correlated, layers_there, noise_fill
from model.times import shifted
from model.wt_dit import WTDiT

CLAMP = 0.05  # smallest t by which Euler divides (released value)

Solver = Literal["euler", "heun", "multistep"]
Generators = torch.Generator | Sequence[torch.Generator]
Endpoint = Callable[[Tensor, float], Tensor]  # (x_t, t) -> x0, of the shape of x_t


@torch.no_grad()
def sample(
    model: WTDiT,
    rgb_B3HW: Tensor,
    valid_BHW: Tensor,
    generator: Generators,
    steps: int = 20,
    frames: int = 1,
    correlation: float = CORRELATION,
    solver: Solver = "euler",
) -> Tensor:
    """Normalised points (B,L,H,W,3): the network's last prediction; what stands at invalid pixels means nothing.

    What a network predicts of a point besides its three coordinates (the logit that it is there) comes with them.

    The ODE is solved from t = 1 to 0 in `steps` steps of `solver` (`calls` says how many passes of the network that
    is), at even times moved by the model's `time_shift`. The last step returns the prediction x0 itself.

    rgb in [0, 1]; valid bool. `generator` is one, or one per sample (then a sample's result does not depend on the
    batch it is in). At each pass invalid pixels are filled with fresh noise (Eq. 7), so all solvers start alike and
    then use the generator up at their own rate. So are layers which the pass before says are not there, of a model with
    masks.

    Of clips, `frames` frames long, the batch holds the frames one after the other, and a sample is a clip. Valid pixels
    start from noise correlated as in training; the fill of Eq. 7 is independent of it, as there.

    ValueError for less than one step, an unknown solver, a batch that is no whole number of clips, or generators that
    are not one per sample.
    """
    calls(solver, steps)
    batch, _, height, width = rgb_B3HW.shape
    if frames < 1 or batch % frames:
        raise ValueError(f"sampler: {batch} images are no whole number of clips of {frames} frames")
    shape = (batch, model.config.layers, height, width, 3)
    device = rgb_B3HW.device
    features = model.encode(rgb_B3HW)

    prediction = x = correlated(gaussian(shape, generator, device, frames), frames, correlation)

    there = valid_BHW.bool()[:, None].expand(shape[:-1])

    def endpoint(x: Tensor, t: float) -> Tensor:
        nonlocal prediction, there
        filled = noise_fill(x, there, gaussian(shape, generator, device, frames))
        t_B = torch.full((batch,), t, device=device)
        prediction = model.denoise(features, rgb_B3HW, filled, t_B, frames).float()
        there = layers_there(prediction, valid_BHW)
        return prediction[..., :3]

    _SOLVERS[solver](endpoint, x, times(steps, model.config.time_shift))
    return prediction


def calls(solver: Solver, steps: int) -> int:
    """Passes of the network that `sample` makes: one a step, but two a step of Heun's, except for the last.

    ValueError for less than one step or an unknown solver.
    """
    if solver not in _SOLVERS:
        close = difflib.get_close_matches(str(solver), list(_SOLVERS), n=1, cutoff=0.5)
        known = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(_SOLVERS)}"
        raise ValueError(f"sampler: solver {solver!r} is unknown; {known}")
    if steps < 1:
        raise ValueError(f"sampler: {steps} steps asked for; at least 1 is needed")
    return 2 * steps - 1 if solver == "heun" else steps


def times(steps: int, shift: float = 1.0) -> list[float]:
    """The steps + 1 times from 1 to 0: even ones, moved towards noise by `shift` (`WTConfig.time_shift`)."""
    return [shifted(1 - k / steps, shift) for k in range(steps + 1)]


def euler(endpoint: Endpoint, x: Tensor, times: Sequence[float]) -> Tensor:
    """The paper's solver, the velocity divided by max(t, 0.05) as in the release.

    20 even steps never reach the clamp (their last t is 0.05, and it returns x0). More do, and then they solve another
    ODE below 0.05, one that leaves noise in x which the network, asked at that t, does not expect. The other solvers
    need no clamp: they are written in x0 and in ratios of times, so no error is divided by a small t.
    """
    for t, t_next in pairwise(times[:-1]):
        x = x + (t_next - t) * (x - endpoint(x, t)) / max(t, CLAMP)
    return endpoint(x, times[-2])


def heun(endpoint: Endpoint, x: Tensor, times: Sequence[float]) -> Tensor:
    """Heun's second-order method, two passes a step. As in EDM (Karras et al. 2022) the last step is Euler's."""
    for t, t_next in pairwise(times[:-1]):
        x0 = endpoint(x, t)
        ahead = _hold(x, x0, t, t_next)
        x = ahead + (t - t_next) / (2 * t_next) * (endpoint(ahead, t_next) - x0)
    return endpoint(x, times[-2])


def multistep(endpoint: Endpoint, x: Tensor, times: Sequence[float]) -> Tensor:
    """The second-order method of the head of this file, one pass a step. The first step is Euler's: none is before."""
    before: tuple[float, Tensor] | None = None
    for t, t_next in pairwise(times[:-1]):
        x0 = endpoint(x, t)
        x = _hold(x, x0, t, t_next)
        if before is not None:
            t_before, x0_before = before
            x = x + (t - t_next) ** 2 / (t_before**2 - t**2) * (x0 - x0_before)
        before = t, x0
    return endpoint(x, times[-2])


def _hold(x: Tensor, x0: Tensor, t: float, t_next: float) -> Tensor:
    """The exact step from t to t_next while x0 stands still."""
    return x0 + t_next / t * (x - x0)


_SOLVERS: dict[Solver, Callable[[Endpoint, Tensor, Sequence[float]], Tensor]] = {
    "euler": euler,
    "heun": heun,
    "multistep": multistep,
}


def gaussian(shape: Sequence[int], generator: Generators, device: torch.device, frames: int = 1) -> Tensor:
    """Standard normal float32 on `device`, drawn on the generators' own device.

    Several generators are one per sample, that is, one per `frames` of shape[0].
    """
    if isinstance(generator, torch.Generator):
        return _moved(torch.randn(tuple(shape), generator=generator, device=generator.device), device)
    if len(generator) * frames != shape[0]:
        raise ValueError(
            f"{len(generator)} generators were given for {shape[0] // frames} samples; give one, or one per sample"
        )
    own = (frames, *shape[1:])
    return _moved(torch.cat([torch.randn(own, generator=g, device=g.device) for g in generator]), device)


def _moved(noise: Tensor, device: torch.device) -> Tensor:
    """On `device`. From pinned memory a GPU is not waited for: the CPU draws the next noise during this pass."""
    if device.type == "cuda" and noise.device.type == "cpu":
        return noise.pin_memory().to(device, non_blocking=True)
    return noise.to(device)
