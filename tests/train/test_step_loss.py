"""The loss of a micro-batch: every clip has times and noise of its own, and all of its frames have the same times."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model import ZScore, draw_times
from model.times import Phase
from tests.train.conftest import Settings
from train.data.batch import Batch
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
