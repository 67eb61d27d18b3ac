"""The loss of a micro-batch: times and noise of its clips, a regression that has neither, masks of its layers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model import LogitNormal, PlateauedLogitNormal, ZScore, draw_times
from model.times import Phase
from tests.train.conftest import Settings
from train.data.batch import Batch, existing
from train.step.loss import draws, loss_of

MAP = ZScore((0.0, 0.0, 2.0), (1.0, 1.0, 1.0))


def batch_of(frames: int, *index: int) -> Batch:
    images, size = frames * len(index), 8
    valid = torch.ones(images, size, size, dtype=torch.bool)
    return Batch(
        rgb=torch.rand(images, 3, size, size),
        depth=torch.full((images, 6, size, size), 2.0),
        K=torch.tensor([[8.0, 0, 4], [0, 8, 4], [0, 0, 1]], dtype=torch.float64).repeat(images, 1, 1),
        valid=valid,
        weight=valid.float(),
        single_layer=torch.zeros(images, dtype=torch.bool),
        index=torch.tensor(index),
    )


@pytest.mark.parametrize("phase", ["independent", "shared"])
@pytest.mark.parametrize("frames", [1, 3])
def test_frames_have_the_times_of_their_clip(frames: int, phase: Phase, settings: Settings) -> None:
    seen: list[Tensor] = []

    def network(rgb: Tensor, x_t: Tensor, t: Tensor, count: int) -> Tensor:
        assert count == frames
        seen.append(t)
        return x_t

    c: Any = settings(seed=3)
    loss_of(network, 1.0, MAP, batch_of(frames, 7, 40), c, phase)
    uniform, _ = draws(3, torch.tensor([7, 40]), torch.zeros(2, 6, 1, 1, 3))
    expected = draw_times(uniform, phase, 1.0)
    assert not torch.equal(expected[0], expected[1])
    assert torch.equal(seen[0], torch.stack([expected[i // frames] for i in range(2 * frames)]))


def test_noise_and_times_of_a_sample_do_not_depend_on_the_batch_it_is_in() -> None:
    both = draws(3, torch.tensor([7, 40]), torch.zeros(6, 6, 8, 8, 3))
    alone = draws(3, torch.tensor([40]), torch.zeros(3, 6, 8, 8, 3))
    assert torch.equal(both[0][1:], alone[0])
    assert torch.equal(both[1][3:], alone[1])
    assert not torch.equal(both[1][:3], both[1][3:])


def test_a_regression_sees_neither_times_nor_noise(settings: Settings) -> None:
    """Two samples that differ in their index alone, by which noise and times are drawn, cost the same."""
    seen: list[tuple[Tensor, Tensor]] = []

    def network(rgb: Tensor, x_t: Tensor, t: Tensor, count: int) -> Tensor:
        seen.append((x_t, t))
        return torch.full((*x_t.shape[:-1], 3), 0.3)

    c: Any = settings(objective={"kind": "regression"})
    batch = replace(batch_of(1, 7), valid=torch.arange(64).view(1, 8, 8) % 3 > 0)
    one, other = (
        loss_of(network, 1.0, MAP, replace(batch, index=torch.tensor([i])), c, "independent") for i in (7, 40)
    )
    assert torch.equal(one.total, other.total)
    for x_t, t in seen:
        assert (t == 1).all()
        assert torch.equal(x_t[0, :, :, :, 0] == 0, batch.valid.expand(6, -1, -1))


def test_layers_exist_up_to_the_last_hit_of_a_ray() -> None:
    depth = torch.tensor([[1.0, 1, 1, 1], [1, 2, 2, 2], [1, 2, 2, 3], [0, 0, 0, 0]]).view(2, 2, 4).permute(2, 0, 1)
    exists = existing(depth[None], torch.tensor([[[True, True], [True, False]]]))[0].flatten(1).T
    assert exists.tolist() == [[True, False, False, False], [True, True, False, False], [True] * 4, [False] * 4]


def test_masks_are_learned_beside_the_points_that_are_there(settings: Settings) -> None:
    """Points of layers that are not there cost nothing; the masks cost their cross-entropy, by hand."""
    batch = batch_of(1, 7)
    depth = batch.depth.clone()
    depth[:, 1:, :, :4] = 3.0  # two surfaces on one half of the rays, one on the other
    batch = replace(batch, depth=depth)
    exists = torch.zeros(1, 6, 8, 8, dtype=torch.bool)
    exists[:, 0] = True
    exists[:, 1, :, :4] = True
    x0, _ = MAP.forward(batch.xyz, batch.valid, 1)
    logits = torch.linspace(-2, 2, 6).view(1, 6, 1, 1).expand(1, 6, 8, 8)

    def network(rgb: Tensor, x_t: Tensor, t: Tensor, count: int) -> Tensor:
        _, noise = draws(c.seed, batch.index, x0)
        assert torch.equal(x_t[~exists], noise[~exists])  # nothing is told of layers that are not there
        assert (x_t[exists] - noise[exists]).abs().min() > 0
        wrong_where_there_is_nothing = torch.where(exists[..., None], x0, 50.0)
        return torch.cat([wrong_where_there_is_nothing, logits[..., None]], dim=-1)

    c: Any = settings(objective={"lambda_mask": 0.5, "lambda_mono": 1.0}, model={"preset": "tiny", "masks": True})
    loss = loss_of(network, 1.0, MAP, batch, c, "shared")
    right = torch.where(exists, logits, -logits).double()[:, 1:]
    assert loss.endpoint == 0 == loss.monotonicity
    assert loss.total.item() == pytest.approx(0.5 * torch.log1p(torch.exp(-right)).mean().item())
    assert loss.weight_L.tolist() == [64, 32, 0, 0, 0, 0]


@pytest.mark.parametrize("schedule", ["logit_normal", "plateaued"])
def test_times_come_from_the_schedule_that_is_asked_for(schedule: str, settings: Settings) -> None:
    seen: list[Tensor] = []

    def network(rgb: Tensor, x_t: Tensor, t: Tensor, count: int) -> Tensor:
        seen.append(t)
        return x_t

    c: Any = settings(seed=3, objective={"schedule": schedule})
    density = {"logit_normal": LogitNormal(), "plateaued": PlateauedLogitNormal()}[schedule]
    for phase in ("independent", "shared"):
        loss_of(network, 1.0, MAP, batch_of(1, 7, 40), c, phase)
    uniform, _ = draws(3, torch.tensor([7, 40]), torch.zeros(2, 6, 1, 1, 3))
    assert torch.equal(seen[0], density.draw(uniform))
    assert torch.equal(seen[1], density.draw(uniform[:, :1]).expand(2, 6))
