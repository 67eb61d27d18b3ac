"""Counted operations: equal to what torch counts of a forward pass on the meta device, and the known figures."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model import WTDiT, flops, preset, presets, training_flops
from model.flops import tokens_of


def counted(config, height, width, frames=1):
    """(encoder, denoiser) as torch counts them, without a byte of memory."""
    with torch.device("meta"):
        model = WTDiT(config)
        rgb, x_t = torch.empty(frames, 3, height, width), torch.empty(frames, config.layers, height, width, 3)
        t = torch.empty(frames)
    found = []
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counter:
            features = model.encode(rgb)
        found.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            model.denoise(features, rgb, x_t, t, frames)
        found.append(counter.get_total_flops())
    return found


@pytest.mark.parametrize(
    ("name", "size", "frames"),
    [
        *((name, (196, 196), 1) for name in sorted(presets)),
        ("wt_o", (504, 504), 1),
        ("wt_s", (840, 840), 1),
        ("wt_d", (336, 336), 16),
        ("wt_o", (196, 294), 1),
        ("tiny", (28, 56), 3),
    ],
)
def test_the_count_is_torchs(name, size, frames):
    config = presets[name]
    ours = flops(config, *size, frames)
    encoder, denoiser = counted(config, *size, frames)
    assert ours.encoder == pytest.approx(encoder, rel=0.001)
    assert ours.denoiser == pytest.approx(denoiser, rel=0.001)
    assert ours.forward == ours.encoder + ours.denoiser


def test_wt_o_at_504_has_the_known_figures():
    """28.1 TFLOP behind the encoder; 85.4 for a training step with it, the encoder's projection trained or not."""
    config = presets["wt_o"]
    assert round(flops(config, 504, 504).denoiser / 1e12, 1) == 28.1
    assert training_flops(config, 504, 504) / 1e12 == pytest.approx(85.4, rel=0.001)
    trained = preset("wt_o", encoder={"train_projection": True})
    assert round(training_flops(trained, 504, 504) / 1e12, 1) == 85.4
    assert tokens_of(config, 504, 504) == 6 * 36 * 36


def test_a_training_step_counts_what_is_trained_three_times():
    """Against torch's count of a step: the first layer of each path needs no gradient of its input."""
    for changes in ({"frozen": False}, {"frozen": True}, {"frozen": True, "train_projection": True}):
        config = preset("tiny", layers=3, encoder=changes)
        with torch.device("meta"):
            model = WTDiT(config)
            rgb, x_t, t = torch.empty(1, 3, 112, 112), torch.empty(1, 3, 112, 112, 3), torch.empty(1)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(rgb, x_t, t).sum().backward()
        assert training_flops(config, 112, 112) == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_a_clip_costs_its_frames_and_the_blocks_through_time():
    config, still = presets["wt_d"], presets["wt_o"]
    one, clip = flops(config, 336, 336), flops(config, 336, 336, 16)
    assert one == flops(still, 336, 336)
    assert clip.encoder == 16 * one.encoder
    assert clip.parts["global"] == 16 * one.parts["global"]
    blocks = config.decoder_blocks // 3
    assert clip.parts["time"] == blocks * 4 * 16 * tokens_of(config, 336, 336, 16) * config.width
    assert clip.parts["mlp"] / (16 * one.parts["mlp"]) == pytest.approx((48 + blocks) / 48)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"500x504.*multiples of the patch, 14"):
        flops(presets["wt_o"], 500, 504)
