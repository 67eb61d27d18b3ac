"""The network as a whole: shapes, patches, conditioning, and what must not influence what."""

import math

import pytest
import torch
import torch.nn.functional as F

from model import WTDiT, preset
from model.wt_dit import patchify, standardised, unpatchify
from tests.model import readable

SMALL = {"width": 32, "heads": 2, "decoder_blocks": 3, "head_blocks": 3, "patch": 4, "layers": 4, "layer_scale": 1.0}
SMALL_ENCODER = {"width": 16, "heads": 2, "depth": 2, "taps": 2, "grid": 4}


def small_model(**changes):
    torch.manual_seed(0)
    model = WTDiT(preset("tiny", **{**SMALL, "encoder": SMALL_ENCODER, **changes}))
    with torch.no_grad():  # away from the zero initialisations, so that every path matters
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def inputs(height=16, width=16, batch=2):
    generator = torch.Generator().manual_seed(1)
    rgb = torch.rand(batch, 3, height, width, generator=generator)
    return rgb, torch.randn(batch, 4, height, width, 3, generator=generator)


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (20, 12), (4, 4)])
def test_any_multiple_of_the_patch_goes_through(size):
    rgb, x_t = inputs(*size)
    x0 = small_model()(rgb, x_t, torch.tensor([0.3, 0.9]))
    assert x0.shape == x_t.shape
    assert x0.isfinite().all()


def test_a_size_between_patches_is_refused():
    with pytest.raises(ValueError, match=r"16x18.*multiples of the patch, 4"):
        small_model()(*inputs(16, 18), torch.tensor([0.3, 0.9]))


def test_patches_are_row_major_with_rows_columns_channels_inside():
    image = torch.arange(4 * 6 * 2).view(1, 4, 6, 2)
    tokens = patchify(image, 2)
    assert tokens.shape == (1, 6, 8)
    assert torch.equal(tokens[0, 1], image[0, 0:2, 2:4].flatten())
    assert torch.equal(tokens[0, 3], image[0, 2:4, 0:2].flatten())
    assert torch.equal(unpatchify(tokens, 2, 4), image)


def test_encoding_once_equals_encoding_at_every_step():
    model = small_model()
    rgb, x_t = inputs()
    t = torch.tensor([0.2, 0.7])
    with torch.no_grad():
        assert torch.equal(model.denoise(model.encode(rgb), rgb, x_t, t), model(rgb, x_t, t))


@pytest.mark.parametrize("film_adaln", [False, True])
def test_equal_times_per_layer_equal_one_time(film_adaln):
    model = small_model(film_adaln=film_adaln)
    rgb, x_t = inputs()
    t = torch.tensor([0.2, 0.7])
    with torch.no_grad():
        torch.testing.assert_close(model(rgb, x_t, t[:, None].expand(-1, 4)), model(rgb, x_t, t), atol=1e-5, rtol=1e-5)


def test_the_prediction_depends_on_each_input():
    model = small_model(film_adaln=True)
    rgb, x_t = inputs()
    t = torch.tensor([0.2, 0.7])[:, None].repeat(1, 4)
    with torch.no_grad():
        base = model(rgb, x_t, t)
        later = t.clone()
        later[:, 2] = 0.9
        for changed in (model(rgb.flip(-1), x_t, t), model(rgb, x_t.flip(2), t), model(rgb, x_t, later)):
            assert (changed - base).abs().mean() > 1e-3


def test_with_a_time_per_layer_each_part_sees_the_times_that_are_meant_for_it():
    """Layer-wise blocks each layer's own, ray-wise and global ones the mean of the vectors, the head the mean time."""
    model = small_model(film_adaln=True)
    rgb, x_t = inputs()
    t = torch.tensor([[0.1, 0.9, 0.3, 0.2], [0.5, 0.6, 0.95, 0.05]])
    seen = []
    for part in (*model.decoder, model.head):
        part.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    with torch.no_grad():
        model(rgb, x_t, t)
        own = model.time(t)
        mean, of_mean = own.mean(dim=1, keepdim=True), model.time(t.mean(dim=1, keepdim=True))
        expected = [own + model.layer.adaln_L6D(), mean, mean, of_mean]
    assert (mean - of_mean).abs().max() > 0.1
    for found, meant in zip(seen, expected, strict=True):
        torch.testing.assert_close(found, meant)


def test_samples_do_not_influence_each_other():
    model = small_model()
    rgb, x_t = inputs()
    t = torch.tensor([0.2, 0.7])
    with torch.no_grad():
        torch.testing.assert_close(model(rgb, x_t, t)[1:], model(rgb[1:], x_t[1:], t[1:]), atol=1e-5, rtol=1e-5)


def test_layers_are_alike_until_their_conditioning_says_otherwise():
    """With layer embeddings equal and FiLM at zero, swapping two layers of the input swaps them in the output."""
    model = small_model(film_adaln=True)
    rgb, x_t = inputs()
    t = torch.tensor([0.2, 0.7])
    order = torch.tensor([1, 0, 2, 3])
    with torch.no_grad():
        assert (model(rgb, x_t[:, order], t) - model(rgb, x_t, t)[:, order]).abs().max() > 1e-2
        for layer in (model.layer, model.head.layer):
            layer.embed.weight.copy_(layer.embed.weight[:1].clone().expand_as(layer.embed.weight))
        torch.testing.assert_close(model(rgb, x_t[:, order], t), model(rgb, x_t, t)[:, order], atol=1e-4, rtol=1e-4)


def test_a_frozen_encoder_gets_no_gradient_and_everything_else_does():
    model = small_model(film_adaln=True, encoder={**SMALL_ENCODER, "frozen": True})
    rgb, x_t = inputs()
    model(rgb, x_t, torch.tensor([0.2, 0.7])).square().mean().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, _ in model.named_parameters() if name.startswith("encoder.")}


def test_the_encoder_equals_its_readable_twin():
    encoder = small_model().encoder
    rgb = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        out = encoder(rgb)
        for i in range(2):
            torch.testing.assert_close(out[i], readable.encode(encoder, rgb[i]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frames", [1, 2])
def test_image_tokens_are_standardised_jointly_over_a_clip(frames):
    """Against torch's own layer norm over the same numbers, gradients included."""
    x = torch.randn(4, 3, 5, 8, generator=torch.Generator().manual_seed(4)).mul(3).add(2).requires_grad_()
    clips = x.unflatten(0, (-1, frames))
    expected = F.layer_norm(clips, clips.shape[1:], eps=1e-6).flatten(0, 1)
    towards = torch.arange(8.0)
    torch.testing.assert_close(standardised(x, frames), expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad((y * towards).square().sum(), x)[0] for y in (standardised(x, frames), expected)]
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-4)


def cubic(distance):
    """The bicubic kernel of torch and OpenCV, a = -0.75."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def resampled(values, count):
    """`values` at `count` places along their axis, border values repeated; DINOv2 puts place i at (i + 1/2) grid /
    (count + 0.1) - 1/2 of the grid, whether that thins out the values or not."""
    found = []
    for i in range(count):
        x = (i + 0.5) * len(values) / (count + 0.1) - 0.5
        taps = [math.floor(x) + k for k in (-1, 0, 1, 2)]
        found.append(sum(cubic(x - tap) * values[min(max(tap, 0), len(values) - 1)] for tap in taps))
    return found


@pytest.mark.parametrize(("rows", "columns"), [(7, 3), (3, 7), (4, 5), (2, 2)])
def test_positions_off_the_learned_grid_are_dinov2s(rows, columns):
    """A function of the row and one of the column, each in a channel of its own, against the kernel written out."""
    encoder = small_model().encoder
    assert torch.equal(encoder.positions(4, 4), encoder.pos_embed)
    down, across = [0.0, 1.0, 2.0, 7.0], [3.0, -1.0, 0.0, 2.0]
    with torch.no_grad():
        grid_yxC = encoder.pos_embed[0, 1:].view(4, 4, 16)
        grid_yxC[..., 0] = torch.tensor(down)[:, None]
        grid_yxC[..., 1] = torch.tensor(across)[None]
        found = encoder.positions(rows, columns)
    assert torch.equal(found[:, 0], encoder.pos_embed[:, 0])
    found = found[0, 1:].view(rows, columns, 16)
    expected_y = torch.tensor(resampled(down, rows))[:, None].expand(rows, columns)
    expected_x = torch.tensor(resampled(across, columns))[None].expand(rows, columns)
    torch.testing.assert_close(found[..., 0], expected_y, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[..., 1], expected_x, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("rows", "columns"), [(7, 3), (3, 7), (2, 2)])
def test_positions_are_the_same_where_torch_is_to_be_deterministic(rows, columns):
    """And so is the way back, which CUDA's bicubic has not."""
    encoder = small_model(encoder={"width": 16, "heads": 2, "depth": 2, "grid": 4, "frozen": False}).encoder
    upstream = torch.randn(1, 1 + rows * columns, 16)
    found = []
    for strict in (False, True):
        torch.use_deterministic_algorithms(strict)
        try:
            with torch.autocast("cpu", torch.bfloat16):
                result = encoder.positions(rows, columns)
            found.append((result, *torch.autograd.grad(result, encoder.pos_embed, upstream)))
            bicubic = "Bicubic" in str(graph(result))
        finally:
            torch.use_deterministic_algorithms(False)
        assert bicubic is not strict
    for plain, other in zip(*found, strict=True):
        torch.testing.assert_close(plain, other, atol=1e-5, rtol=1e-5)


def graph(tensor):
    """The names of all steps of the way back."""
    seen, waiting = [], [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        seen.append(node.name())
        waiting += [before for before, _ in node.next_functions if before is not None]
    return seen


def test_a_clip_of_one_frame_is_a_still_and_frames_of_a_longer_one_are_coupled():
    """A temporal model warm-started from a static one gives its numbers bit for bit at T = 1 (App. B)."""
    still, clip = small_model(), small_model(temporal=True)
    clip.load_state_dict(still.state_dict(), strict=False)
    rgb, x_t = inputs(batch=4)
    t = torch.full((4,), 0.4)
    moved = x_t.clone()
    moved[1] += 1
    with torch.no_grad():
        assert torch.equal(clip(rgb, x_t, t), still(rgb, x_t, t))
        reached = (clip(rgb, moved, t, frames=2) - clip(rgb, x_t, t, frames=2)).abs().amax(dim=(1, 2, 3, 4)) > 1e-4
    assert reached.tolist() == [True, True, False, False]
