"""The objective against its definition."""

import pytest
import torch
from torch import nn

from model import WTDiT, objective, preset, sample
from model.flow import endpoint_loss, monotonicity_penalty, noise_fill, supervision

B, L, H, W = 3, 6, 8, 8


class Oracle(nn.Module):
    """Answers with the points it was given and remembers what it was asked."""

    def __init__(self, x0):
        super().__init__()
        self.x0, self.asked = x0, []

    def forward(self, rgb, x_t, t, frames):
        self.asked.append((x_t, t))
        return self.x0


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(B, L, H, W, 3, generator=generator)
    x0[..., 2] = x0[..., 2].sort(dim=1).values  # front to back
    valid = torch.rand(B, H, W, generator=generator) < 0.6
    return {
        "rgb_B3HW": torch.rand(B, 3, H, W, generator=generator),
        "x0_BLHW3": x0,
        "valid_BHW": valid,
        "t_BL": torch.rand(B, L, generator=generator),
        "noise_BLHW3": torch.randn(B, L, H, W, 3, generator=generator),
    }


def small_model():
    torch.manual_seed(0)
    model = WTDiT(preset("tiny", width=32, heads=2, decoder_blocks=3, head_blocks=1, patch=4))
    nn.init.normal_(model.head.projection.weight, std=0.1)  # it starts at zero, and with it every prediction
    return model


def garbage_outside(batch):
    """The same batch with NaN wherever the target is meaningless."""
    spoilt = torch.where(batch["valid_BHW"][:, None, :, :, None], batch["x0_BLHW3"], torch.nan)
    return {**batch, "x0_BLHW3": spoilt}


def test_a_perfect_prediction_costs_nothing(batch):
    loss = objective(Oracle(batch["x0_BLHW3"]), **batch)
    assert loss.total == loss.endpoint == loss.monotonicity == 0
    assert (loss.layers_L == 0).all()


def test_the_endpoint_loss_is_the_mean_over_supervised_elements(batch):
    """Eq. 3 spelt out: mean over the valid pixels of a sample, then over samples."""
    x0, valid = batch["x0_BLHW3"], batch["valid_BHW"]
    error = torch.randn(B, L, H, W, 3, generator=torch.Generator().manual_seed(1))
    loss, error_L, weight_L = endpoint_loss(x0 + error, x0, supervision(valid, L))
    layers = error_L / weight_L
    expected = torch.stack([error[b][:, valid[b]].square().mean() for b in range(B)]).mean()
    torch.testing.assert_close(loss, expected)
    per_layer = torch.stack([torch.cat([error[b, l][valid[b]] for b in range(B)]).square().mean() for l in range(L)])
    torch.testing.assert_close(layers, per_layer)


def test_the_network_sees_x_t_inside_and_noise_outside(batch):
    oracle = Oracle(batch["x0_BLHW3"])
    objective(oracle, **batch)
    seen, t = oracle.asked[0]
    x0, noise, t_BL111 = batch["x0_BLHW3"], batch["noise_BLHW3"], batch["t_BL"][:, :, None, None, None]
    inside = batch["valid_BHW"][:, None, :, :, None].expand_as(x0)
    assert torch.equal(t, batch["t_BL"])
    torch.testing.assert_close(seen[inside], ((1 - t_BL111) * x0 + t_BL111 * noise)[inside])
    assert torch.equal(seen[~inside], noise[~inside])


def test_what_stands_at_invalid_pixels_reaches_neither_network_nor_loss(batch):
    model = small_model()
    results = []
    for values in (batch, garbage_outside(batch)):
        model.zero_grad()
        loss = objective(model, **values)
        loss.total.backward()
        results.append((loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (clean, clean_gradient), (spoilt, spoilt_gradient) = results
    assert clean.total == spoilt.total > 0
    assert all(torch.equal(a, b) for a, b in zip(clean_gradient, spoilt_gradient, strict=True))


def test_noise_fill_keeps_the_one_and_takes_the_other(batch):
    x, valid, noise = batch["x0_BLHW3"], batch["valid_BHW"], batch["noise_BLHW3"]
    filled = noise_fill(x, valid, noise)
    assert torch.equal(filled.movedim(1, -1)[valid], x.movedim(1, -1)[valid])
    assert torch.equal(filled.movedim(1, -1)[~valid], noise.movedim(1, -1)[~valid])


def test_a_single_layer_sample_supervises_layer_zero_only(batch):
    """Eq. 4, the monotonicity penalty included: the hidden layers get no gradient from it."""
    single = torch.tensor([True, False, True])
    guess = torch.randn(B, L, H, W, 3, generator=torch.Generator().manual_seed(2), requires_grad=True)
    loss = objective(Oracle(guess), **batch, single_layer_B=single)
    loss.total.backward()
    reached = guess.grad.abs().sum(dim=(2, 3, 4)) > 0
    assert torch.equal(reached, ~single[:, None] | (torch.arange(L) == 0))
    assert objective(Oracle(guess), **batch, single_layer_B=torch.ones(B)).layers_L[1:].isnan().all()


def test_weights_count_pixels_in_proportion(batch):
    """A pixel of weight 1/4 counts a quarter, one of weight 0 not at all, whether the network saw it or not."""
    x0 = batch["x0_BLHW3"]
    guess = x0.clone()
    guess[:, :, 0, 0, 0] += 1
    weight = torch.zeros(B, H, W)
    weight[:, 0, 0], weight[:, 3, 3] = 0.25, 1.0
    loss = objective(Oracle(guess), **batch, weight_BHW=weight)
    assert loss.endpoint == pytest.approx((0.25 / 3) / 1.25)


def test_a_sample_without_valid_pixels_costs_nothing_and_is_finite(batch):
    valid = batch["valid_BHW"].clone()
    valid[1] = False
    guess = torch.randn_like(batch["x0_BLHW3"]).requires_grad_()
    loss = objective(Oracle(guess), **{**batch, "valid_BHW": valid})
    loss.total.backward()
    assert loss.total.isfinite()
    assert guess.grad[1].abs().max() == 0


def test_monotonicity_is_one_sided_and_squared():
    """Eq. 8 by hand: of two adjacent pairs one is out of order by 2, at one of the two pixels."""
    z = torch.tensor([[1.0, 1.0], [3.0, 3.0], [1.0, 9.0]]).view(1, 3, 1, 2)
    assert monotonicity_penalty(z, torch.ones(1, 3, 1, 2)) == pytest.approx(2**2 / 4)
    assert monotonicity_penalty(z.sort(dim=1).values, torch.ones(1, 3, 1, 2)) == 0
    assert monotonicity_penalty(z, torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2)) == 0


def test_total_adds_the_weighted_penalty(batch):
    guess = batch["x0_BLHW3"].flip(1)
    for weight in (0.1, 0.7):
        loss = objective(Oracle(guess), **batch, monotonicity_weight=weight)
        assert loss.monotonicity > 0
        torch.testing.assert_close(loss.total, loss.endpoint + weight * loss.monotonicity)


def test_overfits_one_sample():
    """Two spheres' worth of layers at 28x28: the loss falls by ten in 60 steps, and the sampler finds the points."""
    torch.manual_seed(0)
    v, u = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    bulge = (0.8 - u**2 - v**2).clamp(min=0)
    valid = (bulge > 0)[None]
    z = torch.stack([-bulge, -bulge / 2, bulge / 2, bulge, bulge, bulge])
    x0 = torch.stack([u.expand(6, -1, -1), v.expand(6, -1, -1), z], dim=-1)[None]
    rgb = bulge.expand(1, 3, -1, -1)
    model = WTDiT(preset("tiny", width=64, heads=2, encoder={"width": 32, "heads": 2}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        x0_4, noise, t = x0.expand(4, -1, -1, -1, -1), torch.randn(4, *x0.shape[1:]), torch.rand(4, 1).expand(-1, 6)
        loss = objective(model, rgb.expand(4, -1, -1, -1), x0_4, valid.expand(4, -1, -1), t, noise)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.endpoint.item())
    assert sum(losses[-5:]) / 5 < losses[0] / 10
    out = sample(model.eval(), rgb, valid, torch.Generator().manual_seed(0), 5)
    assert (out - x0)[0].movedim(0, 2)[valid[0]].abs().mean() < 0.15
