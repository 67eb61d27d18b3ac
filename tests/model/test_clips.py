"""Clips: correlated noise, one scale, blocks through time, and what a single frame must not notice."""

import math

import pytest
import torch
from torch import nn

from model import LogMedian, WTDiT, ZScore, correlated, objective, preset, sample
from model.config import WTConfig
from tests.model import readable

T, L, H, W = 4, 6, 8, 8


class Recorder(nn.Module):
    """A network that answers with given points and remembers its input."""

    def __init__(self, x0):
        super().__init__()
        self.x0, self.config, self.asked = x0, WTConfig(), []

    def forward(self, rgb, x_t, t, frames):
        return self.denoise(None, rgb, x_t, t, frames)

    def encode(self, rgb):
        return None

    def denoise(self, features, rgb, x_t, t, frames):
        self.asked.append((x_t, t, frames))
        return self.x0


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clip_model(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"width": 32, "heads": 2, "decoder_blocks": 6, "head_blocks": 3, "patch": 4, "layer_scale": 0.1}
    model = WTDiT(preset("tiny", **{**sizes, "encoder": {"width": 16, "heads": 2, "depth": 2, "grid": 4}, **changes}))
    nn.init.normal_(model.head.projection.weight, std=0.3)
    return model


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.5, 1.0])
def test_frames_share_what_they_are_told_to_and_clips_nothing(rho):
    """Variance 1, correlation rho between any two frames of a clip, 0 between clips: of 60,000 numbers each."""
    noise = correlated(seeded(2 * T, L, 100, 100, 1), T, rho).flatten(1)
    expected = torch.block_diag(*[torch.full((T, T), rho).fill_diagonal_(1)] * 2)
    torch.testing.assert_close(noise @ noise.T / noise.shape[1], expected, atol=0.02, rtol=0)
    torch.testing.assert_close(noise.mean(dim=1), torch.zeros(2 * T), atol=0.02, rtol=0)


def test_a_single_frame_keeps_its_noise_and_so_does_a_clip_without_correlation():
    noise = seeded(6, L, H, W, 3)
    assert torch.equal(correlated(noise, 1, 0.5), noise)
    assert torch.equal(correlated(noise, 3, 0.0), noise)
    with pytest.raises(ValueError, match=r"correlation 1\.5"):
        correlated(noise, 3, 1.5)


def test_what_a_clip_starts_from_is_a_function_of_its_own_noise():
    noise = seeded(2 * T, L, H, W, 3)
    torch.testing.assert_close(correlated(noise, T, 0.5)[T:], correlated(noise[T:], T, 0.5), atol=0, rtol=0)


def test_the_objective_mixes_correlated_noise_in_and_fills_with_independent_noise():
    x0, noise = torch.zeros(2 * T, L, 40, 40, 3), seeded(2 * T, L, 40, 40, 3)
    valid = torch.rand(2 * T, 40, 40, generator=torch.Generator().manual_seed(1)) < 0.5
    valid[1:T] = valid[0]  # of the first clip the same pixels in every frame
    network = Recorder(x0)
    objective(network, torch.zeros(2 * T, 3, 40, 40), x0, valid, torch.ones(2 * T, L), noise, frames=T, correlation=0.5)
    x_t, _, frames = network.asked[0]
    assert frames == T
    inside = x_t[:T].movedim(1, -1)[valid[:T]].reshape(T, -1)
    outside = x_t[:T].movedim(1, -1)[~valid[:T]].reshape(T, -1)
    torch.testing.assert_close(torch.corrcoef(inside), torch.full((T, T), 0.5).fill_diagonal_(1), atol=0.04, rtol=0)
    torch.testing.assert_close(torch.corrcoef(outside), torch.eye(T), atol=0.04, rtol=0)
    assert torch.equal(outside, noise[:T].movedim(1, -1)[~valid[:T]].reshape(T, -1))


@pytest.mark.parametrize("rho", [0.3, 0.5, 1.0])
def test_what_fills_a_pixel_tells_nothing_of_the_noise_that_other_frames_have_there(rho):
    """An object that comes in: a pixel is seen by the last 3, 2, 1 of 4 frames. Of 180,000 numbers each, all that
    the network sees at t = 1: correlated by rho among the frames that see the pixel, and not at all besides."""
    x0, noise = torch.zeros(T, L, 100, 300, 3), seeded(T, L, 100, 300, 3)
    valid = torch.zeros(T, 100, 300, dtype=torch.bool)
    for first in (1, 2, 3):
        valid[first:, :, 100 * (first - 1) : 100 * first] = True
    network = Recorder(x0)
    objective(network, torch.zeros(T, 3, 100, 300), x0, valid, torch.ones(T, L), noise, frames=T, correlation=rho)
    for first in (1, 2, 3):
        columns = slice(100 * (first - 1), 100 * first)
        seen = network.asked[0][0][:, :, :, columns].flatten(1)
        expected = torch.eye(T)
        expected[first:, first:] = torch.full((T - first, T - first), rho).fill_diagonal_(1)
        torch.testing.assert_close(seen @ seen.T / seen.shape[1], expected, atol=0.012, rtol=0)
        assert torch.equal(seen[:first], noise[:first, :, :, columns].flatten(1))


def test_noise_of_pixels_that_all_frames_see_does_not_depend_on_the_mask():
    noise, everywhere = seeded(2 * T, L, H, W, 3), torch.ones(2 * T, H, W, dtype=torch.bool)
    torch.testing.assert_close(correlated(noise, T, 0.5, everywhere), correlated(noise, T, 0.5))
    assert torch.equal(correlated(noise, 1, 0.5, everywhere), noise)


def test_the_sampler_starts_as_training_does_and_ends_at_the_points():
    x0, valid = seeded(2 * T, L, 40, 40, 3, seed=3), torch.ones(2 * T, 40, 40, dtype=torch.bool)
    valid[:, :20] = False
    network = Recorder(x0)
    generators = [torch.Generator().manual_seed(s) for s in (5, 6)]
    out = sample(network, torch.zeros(2 * T, 3, 40, 40), valid, generators, steps=4, frames=T, correlation=0.5)
    assert torch.equal(out, x0)
    assert [frames for *_, frames in network.asked] == [T] * 4
    first, second = network.asked[0][0], network.asked[1][0]
    expected = torch.block_diag(*[torch.full((T, T), 0.5).fill_diagonal_(1)] * 2)
    torch.testing.assert_close(torch.corrcoef(first[:, :, 20:].flatten(1)), expected, atol=0.04, rtol=0)
    torch.testing.assert_close(torch.corrcoef(first[:, :, :20].flatten(1)), torch.eye(2 * T), atol=0.04, rtol=0)
    both = torch.stack([first[:, :, :20].flatten(), second[:, :, :20].flatten()])
    assert abs(torch.corrcoef(both)[0, 1]) < 0.01  # drawn anew at every step


def test_a_clip_is_sampled_alike_in_any_batch():
    model = clip_model(temporal=True).eval()
    rgb, valid = torch.rand(4, 3, H, W), torch.ones(4, H, W)

    def seeds(*values):
        return [torch.Generator().manual_seed(v) for v in values]

    both = sample(model, rgb, valid, seeds(1, 2), 3, frames=2)
    torch.testing.assert_close(both[2:], sample(model, rgb[2:], valid[2:], seeds(2), 3, frames=2), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="4 generators were given for 2 samples"):
        sample(model, rgb, valid, seeds(1, 2, 3, 4), 3, frames=2)
    with pytest.raises(ValueError, match="4 images are no whole number of clips of 3 frames"):
        sample(model, rgb, valid, seeds(1), 3, frames=3)


def test_frames_of_a_clip_share_one_median():
    """What does not move between frames does not move in normalised space either, whatever else comes into view."""
    z = torch.tensor([[2.0, 2.0], [2.0, 8.0], [4.0, 4.0], [4.0, 4.0]]).view(4, 1, 1, 2)
    xyz, valid = torch.stack([z, -z, z], dim=-1), torch.ones(4, 1, 2)
    x, m = LogMedian().forward(xyz, valid, frames=2)
    assert m.tolist() == [2, 2, 4, 4]
    assert x[1, 0, 0, 1, 2] == pytest.approx(math.log(4))
    torch.testing.assert_close(LogMedian().inverse(x, m), xyz)
    assert LogMedian().forward(xyz, valid)[1].tolist() == [2, 2, 4, 4]  # by themselves: the lower of 2 and 8
    valid[1, 0, 0] = 0
    assert LogMedian().forward(xyz, valid)[1].tolist() == [2, 8, 4, 4]
    assert LogMedian().forward(xyz, valid, frames=2)[1].tolist() == [2, 2, 4, 4]
    scores = ZScore((0.0, 0.0, 1.0), (1.0, 1.0, 2.0))
    assert torch.equal(scores.forward(xyz, valid, frames=2)[0], scores.forward(xyz, valid)[0])


@pytest.mark.parametrize("film_adaln", [False, True])
def test_a_warm_started_model_is_the_static_one_at_a_single_frame(film_adaln):
    """WT-D with the weights of WT-O, its temporal blocks at their own start: equal bit for bit at T = 1 (App. B)."""
    still, clips = clip_model(film_adaln=film_adaln).eval(), clip_model(1, temporal=True, film_adaln=film_adaln).eval()
    outcome = clips.load_state_dict(still.state_dict(), strict=False)
    assert not outcome.unexpected_keys
    assert {name.split(".")[0] for name in outcome.missing_keys} == {"temporal"}
    rgb, x_t, t = torch.rand(3, 3, H, W), seeded(3, L, H, W, 3), torch.rand(3, L)
    with torch.no_grad():
        assert torch.equal(clips(rgb, x_t, t), still(rgb, x_t, t))
        assert torch.equal(clips(rgb, x_t, t, frames=1), still(rgb, x_t, t, frames=1))
    valid, generator = torch.ones(3, H, W), torch.Generator()
    predicted = [sample(m, rgb, valid, generator.manual_seed(0), 3) for m in (still, clips)]
    assert torch.equal(*predicted)
    losses = [objective(m, rgb, x_t, valid, t, seeded(3, L, H, W, 3, seed=2)) for m in (still, clips)]
    assert losses[0].total == losses[1].total


def test_at_first_a_clip_is_coupled_through_time_but_little_and_the_coupling_can_be_learnt():
    still, clips = clip_model(), clip_model(1, temporal=True)
    clips.load_state_dict(still.state_dict(), strict=False)
    rgb, x_t, t = torch.rand(2 * T, 3, H, W), seeded(2 * T, L, H, W, 3), torch.full((2 * T, L), 0.5)
    with torch.no_grad():
        uncoupled, coupled = still(rgb, x_t, t, frames=T), clips(rgb, x_t, t, frames=T)
    difference = (coupled - uncoupled).abs().max() / uncoupled.std()
    assert 0 < difference < 1e-2
    objective(clips, rgb, x_t, torch.ones(2 * T, H, W), t, seeded(2 * T, L, H, W, 3, seed=2), frames=T).total.backward()
    for name, parameter in clips.temporal.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("frames", "correlation"), [(1, 0.5), (3, 0.5), (2, 1.0)])
def test_the_objective_equals_its_readable_twin(frames, correlation):
    """Pixel by pixel, with jittered weights, a single-layer sample, and NaN where nothing is valid or supervised."""
    generator = torch.Generator().manual_seed(7)
    shape, batch = (6, 3, 2, 3, 3), 6
    x0, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    valid = torch.rand(batch, 2, 3, generator=generator) < 0.6
    weight = torch.where(valid, 1.0, 0.0)
    weight[0], weight[2, 0, 1], weight[3] = 0.0, 0.25, 1.0
    x0[1][:, ~(valid[1] | (weight[1] > 0))] = torch.nan
    single, t = [False, False, True, False, True, False], torch.rand(batch, 3, generator=generator)

    def predict(given):
        return 0.7 * given + 0.1 * given.sum(dim=(1, 2, 3), keepdim=True).sin()

    expected = readable.objective(predict, x0, valid, t, noise, single, weight, 0.3, frames, correlation)
    found = objective(
        lambda rgb, x_t, t, frames: predict(x_t),
        torch.zeros(batch, 3, 2, 3),
        x0,
        valid,
        t,
        noise,
        torch.tensor(single),
        weight,
        0.3,
        frames,
        correlation,
    )
    torch.testing.assert_close(torch.stack(found[:3]), torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_a_frame_of_a_clip_counts_in_the_loss_as_an_image_does():
    x0, noise, rgb = seeded(2 * T, L, H, W, 3), seeded(2 * T, L, H, W, 3, seed=1), torch.zeros(2 * T, 3, H, W)
    valid, t = torch.rand(2 * T, H, W, generator=torch.Generator().manual_seed(2)) < 0.5, torch.rand(2 * T, L)
    guess = Recorder(seeded(2 * T, L, H, W, 3, seed=4))
    clips, images = (objective(guess, rgb, x0, valid, t, noise, frames=frames) for frames in (T, 1))
    assert clips.total == images.total
    assert torch.equal(clips.error_L, images.error_L)
