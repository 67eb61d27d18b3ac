"""The solvers against flows that are known in closed form, against plain twins, and the sampler against an oracle."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from model import WTDiT, calls, preset, sample
from model.config import WTConfig
from model.flow import correlated, noise_fill
from model.sampler import euler, gaussian, heun, multistep, times

B, L, H, W = 3, 6, 8, 8
SOLVERS = {"euler": euler, "heun": heun, "multistep": multistep}
EACH = pytest.mark.parametrize("solver", SOLVERS)
MEAN, DEVIATION = 0.7, 0.5


class Network(nn.Module):
    """Stands for a WT-DiT that answers `predict(x_t, t)`, and remembers what it was asked."""

    def __init__(self, predict, shift=1.0):
        super().__init__()
        self.predict, self.config, self.asked = predict, WTConfig(time_shift=shift), []

    def encode(self, rgb):
        return None

    def denoise(self, features, rgb, x_t, t, frames):
        self.asked.append((x_t, t))
        return self.predict(x_t, t)


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeds(*values):
    return [torch.Generator().manual_seed(value) for value in values]


X0, VALID, RGB = seeded(B, L, H, W, 3), seeded(B, H, W, seed=1) < 0.3, seeded(B, 3, H, W, seed=2).sigmoid()


def oracle(shift=1.0):
    return Network(lambda x_t, t: X0, shift)


def small_model(**changes):
    torch.manual_seed(0)
    sizes = {"width": 32, "heads": 2, "decoder_blocks": 3, "head_blocks": 1, "patch": 4}
    model = WTDiT(preset("tiny", **sizes, **changes))
    nn.init.normal_(model.head.projection.weight, std=0.1)  # it starts at zero, and with it every prediction
    return model.eval()


def of_gaussian(x, t):
    """E[x0 | x_t] of data ~ N(MEAN, DEVIATION^2): what a network that has learnt all there is answers."""
    variance = (1 - t) ** 2 * DEVIATION**2 + t**2
    return MEAN + (1 - t) * DEVIATION**2 / variance * (x - (1 - t) * MEAN)


def error(solver, steps, shift):
    """Largest distance, over noise within 2.5 deviations, from where the exact flow map MEAN + DEVIATION * x_1 ends."""
    x = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)
    found = SOLVERS[solver](of_gaussian, x, times(steps, shift))
    return (found - (MEAN + DEVIATION * x)).abs().max().item()


@pytest.mark.parametrize(
    ("solver", "order", "shift", "finest"),
    [
        ("euler", 1, 1.0, 20),  # no finer: below t = 0.05 its clamp is at work
        ("euler", 1, 3.0, 56),
        ("heun", 2, 1.0, 128),
        ("heun", 2, 3.0, 256),
        ("multistep", 2, 1.0, 256),
        ("multistep", 2, 3.0, 512),
        ("multistep", 2, 0.3, 256),
    ],
)
def test_half_the_step_gives_half_or_a_quarter_of_the_error(solver, order, shift, finest):
    """Convergence of order 1, 2 and 2 to the known flow of Gaussian data, at even times and at moved ones."""
    errors = [error(solver, finest // k, shift) for k in (4, 2, 1)]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([order, order], abs=0.25)
    assert orders[-1] == pytest.approx(order, abs=0.1)
    assert errors[-1] < {1: 0.1, 2: 1e-3}[order]


def test_for_the_same_passes_of_the_network_the_second_order_solvers_are_nearer_to_the_flow():
    for passes in (15, 31, 63):
        first = error("euler", passes, 1.0)
        assert error("multistep", passes, 1.0) < first / 2
        assert error("heun", (passes + 1) // 2, 1.0) < first / 2
        assert calls("heun", (passes + 1) // 2) == calls("multistep", passes) == passes


def test_the_clamp_keeps_euler_from_the_flow_and_the_others_have_none():
    """However many its steps, Euler's error stays at 0.04 of a flow whose ends differ by 2.5."""
    assert error("euler", 1000, 1.0) > 0.04
    assert error("heun", 1000, 1.0) < 1e-5
    assert error("multistep", 1000, 1.0) < 1e-5


@pytest.mark.parametrize(("solver", "left"), [("euler", 0.05 * 0.8**4), ("heun", 0.01), ("multistep", 0.01)])
def test_below_the_clamp_eulers_noise_shrinks_more_slowly_than_t(solver, left):
    """x0 = 0 known, 100 even steps: noise is t of what it was, but from 0.05 on Euler's shrinks by 1 - 0.01/0.05."""
    asked = []

    def predict(x, t):
        asked.append((t, x.item()))
        return torch.zeros_like(x)

    SOLVERS[solver](predict, torch.tensor([3.0], dtype=torch.float64), times(100))
    assert asked[-1] == (pytest.approx(0.01), pytest.approx(3.0 * left))


def by_velocities(F, x, times):
    """Heun's method as every textbook has it, in NumPy."""
    for t, t_next in pairwise(times[:-1]):
        v = (x - F(x, t)) / t
        ahead = x + (t_next - t) * v
        x = x + (t_next - t) * (v + (ahead - F(ahead, t_next)) / t_next) / 2
    return F(x, times[-2])


def by_quadrature(F, x, times):
    """The multistep method from what it assumes: d(x/s) = x0(s) d(1/s), x0 on a line in s^2 through the last two."""
    before = None
    for t, t_next in pairwise(times[:-1]):
        x0 = F(x, t)
        slope = 0.0 if before is None else (before[1] - x0) / (before[0] ** 2 - t**2)
        inverse = np.linspace(1 / t, 1 / t_next, 20_001)
        moving = x0 + slope * (inverse[:, None] ** -2 - t**2)
        x = t_next * (x / t + np.trapezoid(moving, inverse, axis=0))
        before = t, x0
    return F(x, times[-2])


@pytest.mark.parametrize("shift", [1.0, 0.3, 10.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_solvers_equal_their_plain_twins(steps, shift):
    def bend(x, t):  # no flow of anything: the twins must agree on any network
        return 0.3 * x**2 / (1 + x**2) + 0.5 * t - t**3

    start = np.linspace(-2.0, 2.0, 7)
    for solver, twin in (("heun", by_velocities), ("multistep", by_quadrature)):
        found = SOLVERS[solver](bend, torch.from_numpy(start), times(steps, shift))
        np.testing.assert_allclose(found.numpy(), twin(bend, start, times(steps, shift)), atol=1e-7)


@pytest.mark.parametrize("shift", [1.0, 4.0])
def test_the_multistep_method_follows_a_parabola_exactly(shift):
    """Where x bends evenly, x(t) = a + b t + c t^2, x0 is a - c t^2. The first step, which is Euler's, leaves the path
    by c (1 - t)^2, and from then on that offset only shrinks as t does: steps of any length add nothing to it."""
    a, b, c = 0.4, -1.0, 2.5
    asked = []

    def predict(x, t):
        asked.append((t, x.item()))
        return torch.tensor(a - c * t**2, dtype=torch.float64)

    multistep(predict, torch.tensor(a + b + c, dtype=torch.float64), times(12, shift))
    offsets = [(x - (a + b * t + c * t**2)) / t for t, x in asked[1:]]
    first = asked[1][0]
    assert offsets == pytest.approx([-c * (1 - first) ** 2 / first] * 11)


@EACH
def test_a_network_that_has_learnt_gaussian_data_is_sampled_along_its_flow(solver):
    """The whole of `sample`, clips included: from the correlated noise that its generator gives to the exact end."""
    network = Network(lambda x_t, t: of_gaussian(x_t, t[0]), shift=3.0)
    valid = torch.ones(4, H, W, dtype=torch.bool)
    found = sample(network, torch.zeros(4, 3, H, W), valid, seeds(5, 6), 40, frames=2, solver=solver)
    start = correlated(gaussian((4, L, H, W, 3), seeds(5, 6), torch.device("cpu"), 2), 2, 0.5)
    bound = {"euler": 0.3, "heun": 0.03, "multistep": 0.03}[solver]
    assert (found - (MEAN + DEVIATION * start)).abs().max() < bound
    assert (found - (MEAN + DEVIATION * start)).abs().mean() < bound / 3


@pytest.mark.parametrize("shift", [1.0, 8.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 33, 100])
@EACH
def test_the_sampler_returns_an_oracles_points_at_any_step_count(solver, steps, shift):
    network = oracle(shift)
    out = sample(network, RGB, VALID, torch.Generator().manual_seed(0), steps, solver=solver)
    assert torch.equal(out, X0)
    asked = torch.stack([t for _, t in network.asked])
    assert asked.shape == (calls(solver, steps), B)
    even = 1 - torch.arange(steps) / steps
    expected = shift * even / (1 + (shift - 1) * even)
    if solver == "heun":  # here, and where Euler's step ends
        expected = expected.repeat_interleave(2)[1:]
    torch.testing.assert_close(asked[:, 0], expected)


@EACH
def test_the_sampler_walks_the_straight_line_to_an_oracle(solver):
    """With x0 known, x_t at valid pixels is (1 - t) x0 + t x1 for the x1 it started from, as in training."""
    network = oracle()
    sample(network, RGB, torch.ones_like(VALID), torch.Generator().manual_seed(0), 20, solver=solver)
    start = network.asked[0][0]
    for x_t, t in network.asked:
        torch.testing.assert_close(x_t, (1 - t[0]) * X0 + t[0] * start, atol=1e-4, rtol=1e-4)


@EACH
def test_every_pass_gets_fresh_noise_at_invalid_pixels(solver):
    network = oracle()
    sample(network, RGB, VALID, torch.Generator().manual_seed(0), 10, solver=solver)
    outside = torch.stack([x_t.movedim(1, -1)[~VALID].flatten() for x_t, _ in network.asked])
    assert outside.std() == pytest.approx(1, abs=0.05)
    assert (torch.corrcoef(outside) - torch.eye(calls(solver, 10))).abs().max() < 0.1


@EACH
def test_sampling_replays_and_a_sample_does_not_depend_on_its_batch(solver):
    model, rgb, valid = small_model(), RGB[:2], torch.ones(2, H, W)
    both = sample(model, rgb, valid, seeds(1, 2), 4, solver=solver)
    assert torch.equal(both, sample(model, rgb, valid, seeds(1, 2), 4, solver=solver))
    alone = sample(model, rgb[1:], valid[1:], seeds(2), 4, solver=solver)
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)
    assert (both - sample(model, rgb, valid, seeds(3, 4), 4, solver=solver)).abs().mean() > 1e-4


@pytest.mark.parametrize(("steps", "frames"), [(1, 1), (20, 1), (50, 1), (5, 3)])
def test_euler_takes_the_papers_steps_bit_for_bit(steps, frames):
    """The order in which numbers are drawn and rounded is part of what a seed means: it may not change."""
    model = small_model(time_shift=1.0)
    with torch.no_grad():
        own = seeds(*range(B // frames))
        x = x0 = correlated(gaussian((B, L, H, W, 3), own, RGB.device, frames), frames, 0.5)
        for k in range(steps):
            t, t_next = 1 - k / steps, 1 - (k + 1) / steps
            filled = noise_fill(x, VALID, gaussian((B, L, H, W, 3), own, RGB.device, frames))
            x0 = model(RGB, filled, torch.full((B,), t), frames)
            x = x + (t_next - t) * (x - x0) / max(t, 0.05)
    assert torch.equal(sample(model, RGB, VALID, seeds(*range(B // frames)), steps, frames), x0)


@EACH
def test_what_a_network_says_besides_coordinates_comes_with_the_last_of_them(solver):
    """A fourth number per point (the logit that it is there) takes no part in the walk."""
    asked = []

    def predict(x_t, t):
        asked.append(x_t)
        return torch.cat([of_gaussian(x_t, t[0]), t[0].expand(*x_t.shape[:-1], 1)], dim=-1)

    plain = Network(lambda x_t, t: of_gaussian(x_t, t[0]))
    expected = sample(plain, RGB, VALID, seeds(1, 2, 3), 6, solver=solver)
    out = sample(Network(predict), RGB, VALID, seeds(1, 2, 3), 6, solver=solver)
    assert torch.equal(out[..., :3], expected)
    assert torch.equal(out[..., 3], torch.full((B, L, H, W), 1 / 6))
    assert {x_t.shape[-1] for x_t in asked} == {3}


@EACH
def test_a_layer_that_the_pass_before_denies_is_shown_as_noise(solver):
    """Eq. 7 per layer, of a model with masks: where the logit is negative, but for the first layer, which is always
    there. The first pass sees all layers on the line that the walk begins with."""
    denied = (seeded(B, L, H, W, seed=4) < 0) & VALID[:, None]
    denied[:, 0] = False
    logits = torch.where(denied, -1.0, 1.0)
    logits[:, 0] = -1.0

    network = Network(lambda x_t, t: torch.cat([X0, logits[..., None]], dim=-1))
    sample(network, RGB, VALID, seeds(1, 2, 3), 8, solver=solver)
    there = VALID[:, None] & ~denied
    passes = [(x_t, t[0]) for x_t, t in network.asked]
    for x_t, t in passes[1:]:
        line = (1 - t) * X0 + t * passes[0][0]
        torch.testing.assert_close(x_t[there], line[there], atol=1e-4, rtol=1e-4)
    noise = torch.stack([x_t[denied].flatten() for x_t, _ in passes[1:]])
    assert noise.std() == pytest.approx(1, abs=0.05)
    assert (torch.corrcoef(noise) - torch.eye(len(noise))).abs().max() < 0.15


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="0 steps"):
        sample(oracle(), RGB, VALID, torch.Generator(), 0)
    with pytest.raises(ValueError, match="solver 'huen' is unknown; did you mean 'heun'"):
        sample(oracle(), RGB, VALID, torch.Generator(), 2, solver="huen")
    with pytest.raises(ValueError, match="solver 'rk' is unknown; choose one of euler, heun, multistep"):
        calls("rk", 4)
    with pytest.raises(ValueError, match="3 images are no whole number of clips of 2 frames"):
        sample(oracle(), RGB, VALID, torch.Generator(), 2, frames=2)
    with pytest.raises(ValueError, match="1 generators were given for 3 samples"):
        gaussian((3, 2), [torch.Generator()], torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("count", [1, 2])
def test_a_gpu_gets_the_noise_that_the_cpu_draws(count):
    """Bit for bit, from pinned memory and without waiting, while more is drawn: nothing may be overwritten."""
    own = seeds(*range(count))
    generator = own[0] if count == 1 else own

    def draw(device, draws=20):
        for seed, each in enumerate(own):
            each.manual_seed(seed)
        return [gaussian((2, L, 64, 64, 3), generator, torch.device(device)) for _ in range(draws)]

    for there, here in zip(draw("cuda"), draw("cpu"), strict=True):
        assert torch.equal(there.cpu(), here)


@EACH
def test_a_layer_that_is_said_not_to_be_there_is_filled_with_noise(solver):
    """A model with masks denies some layers: from its first answer on it sees fresh noise in their place."""
    denied = seeded(B, L, H, W, seed=5) > 0
    denied[:, 0] = False
    logits = torch.where(denied, -1.0, 1.0)[..., None]
    network = Network(lambda x_t, t: torch.cat([X0, logits], dim=-1))
    out = sample(network, RGB, torch.ones_like(VALID), torch.Generator().manual_seed(0), 4, solver=solver)
    assert torch.equal(out, torch.cat([X0, logits], dim=-1))
    (first, _), *later = network.asked
    replay = torch.Generator().manual_seed(0)
    noises = [gaussian((B, L, H, W, 3), replay, RGB.device) for _ in range(len(network.asked) + 1)]
    assert torch.equal(first, noises[0])  # the prior: at first all layers may be there
    for (x_t, _), noise in zip(later, noises[2:], strict=True):
        assert torch.equal(x_t[denied], noise[denied])
        assert (x_t[~denied] != noise[~denied]).float().mean() > 0.99
