"""The camera behind a pointmap is found again: exactly from exact points, closely from noisy ones."""

import pytest
import torch

from model import fit_intrinsics

H, W = 60, 80
K = torch.tensor([[[70.0, 0, 44.5], [0, 90.0, 27.25], [0, 0, 1]], [[300.0, 0, 40], [0, 300.0, 30], [0, 0, 1]]]).double()


@pytest.fixture
def pointmap():
    generator = torch.Generator().manual_seed(0)
    v, u = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], dim=-1).double() @ K.inverse().mT[:, None]
    depth = 1 + 3 * torch.rand(2, H, W, 1, generator=generator).double()
    return rays * depth, torch.rand(2, H, W, generator=generator) < 0.5


def test_exact_points_give_the_exact_camera(pointmap):
    torch.testing.assert_close(fit_intrinsics(*pointmap), K, atol=1e-8, rtol=1e-10)


def test_points_outside_the_mask_behind_the_camera_or_not_finite_do_not_count(pointmap):
    xyz, valid = pointmap
    xyz = torch.where(valid[..., None], xyz, torch.nan)
    xyz[:, 10:20] = -xyz[:, 10:20]
    torch.testing.assert_close(fit_intrinsics(xyz, torch.ones_like(valid)), K, atol=1e-8, rtol=1e-10)


def test_noisy_points_give_a_close_camera(pointmap):
    xyz, valid = pointmap
    noise = torch.randn(xyz.shape, generator=torch.Generator().manual_seed(1)).double()
    fitted = fit_intrinsics(xyz + 0.002 * xyz[..., 2:] * noise, valid)
    assert ((fitted - K).abs() / K[:, :1, :1]).max() < 0.01


def test_depth_does_not_change_the_camera(pointmap):
    xyz, valid = pointmap
    torch.testing.assert_close(fit_intrinsics(xyz * 7, valid), fit_intrinsics(xyz, valid))


def test_too_few_or_degenerate_points_are_refused(pointmap):
    xyz, valid = pointmap
    few = valid.clone()
    few[1] = False
    few[1, 0, :9] = True
    with pytest.raises(ValueError, match="sample 1 has 9 pixels"):
        fit_intrinsics(xyz, few)
    with pytest.raises(ValueError, match="one line of sight"):
        fit_intrinsics(torch.ones_like(xyz), valid)
