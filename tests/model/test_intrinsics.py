"""The camera behind a pointmap is found again: exactly from exact points, closely from noisy ones."""

import numpy as np
import pytest
import torch

from model import fit_intrinsics

H, W = 60, 80
K = torch.tensor([[[70.0, 0, 44.5], [0, 90.0, 27.25], [0, 0, 1]], [[300.0, 0, 40], [0, 300.0, 30], [0, 0, 1]]]).double()
BOTH = pytest.mark.parametrize("errors_in", ["points", "pixels"])


@pytest.fixture
def pointmap():
    generator = torch.Generator().manual_seed(0)
    v, u = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], dim=-1).double() @ K.inverse().mT[:, None]
    depth = 1 + 3 * torch.rand(2, H, W, 1, generator=generator).double()
    return rays * depth, torch.rand(2, H, W, generator=generator) < 0.5


def ball(focal, centre=(252.0, 252.0), size=504, fill=2 / 3):
    """A unit-wide sphere as a released model is shown it, and its K: its outline `fill` of the image wide, seen by a
    camera of this focal length (in pixels) off whose axis the image may be cut. xyz (1,H,W,3), valid (1,H,W)."""
    camera = torch.tensor([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]]).double()
    v, u = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], dim=-1).double() @ camera.inverse().mT
    axis = torch.tensor([size / 2, size / 2, 1.0]).double() @ camera.inverse().mT
    axis = axis / axis.norm()
    sine = np.sin(np.arctan(fill * size / 2 / focal))
    middle = 0.5 / sine * axis
    along, squared = (rays * middle).sum(dim=-1), rays.square().sum(dim=-1)
    root = along**2 - squared * (middle.square().sum() - 0.25)
    depth = (along - root.clamp(min=0).sqrt()) / squared
    return (rays * depth[..., None])[None], (root > 0)[None], camera


def noisy(xyz, seed):
    """Each coordinate off by 1 % of its point's depth, independently: what "1 % noise" is taken to mean here."""
    noise = torch.randn(xyz.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return xyz + 0.01 * xyz[..., 2:] * noise


def focal_errors(fitted, camera):
    return [abs(float(fitted[0, axis, axis] / camera[axis, axis]) - 1) for axis in (0, 1)]


@BOTH
def test_exact_points_give_the_exact_camera(pointmap, errors_in):
    torch.testing.assert_close(fit_intrinsics(*pointmap, errors_in), K, atol=1e-8, rtol=1e-10)


CAMERAS = [(496.0, (252.0, 252.0)), (250.0, (252.0, 252.0)), (1500.0, (252.0, 252.0)), (500.0, (-100.0, 700.0))]


@pytest.mark.parametrize(("focal", "centre"), CAMERAS)
@BOTH
def test_a_true_layer_in_float32_gives_the_focal_length_within_a_ten_thousandth(focal, centre, errors_in):
    xyz, valid, camera = ball(focal, centre)
    fitted = fit_intrinsics(xyz.float(), valid, errors_in)
    assert max(focal_errors(fitted, camera)) < 1e-4
    torch.testing.assert_close(fitted[0], camera, atol=0.01, rtol=0)


@pytest.mark.parametrize(("focal", "centre"), CAMERAS)
def test_one_per_cent_of_noise_gives_the_focal_length_within_half_a_per_cent(focal, centre):
    xyz, valid, camera = ball(focal, centre)
    for seed in range(3):
        assert max(focal_errors(fit_intrinsics(noisy(xyz, seed), valid), camera)) < 0.005


def test_errors_taken_to_be_in_pixels_shorten_the_focal_length_by_what_they_add_to_the_slopes():
    """E[f] = f S/(S + N): S the variance of the true X/Z, N that of its noise, 0.01^2 (1 + (X/Z)^2) for 1 % noise."""
    xyz, valid, camera = ball(1500.0)
    slope = (xyz[..., 0] / xyz[..., 2])[valid]
    expected = slope.var() / (slope.var() + 1e-4 * (1 + slope.square().mean()))
    assert expected < 0.98
    found = torch.stack([fit_intrinsics(noisy(xyz, seed), valid, "pixels")[0, 0, 0] for seed in range(4)]).mean()
    assert float(found / camera[0, 0]) == pytest.approx(float(expected), abs=2e-3)


def test_noise_in_depth_alone_does_not_move_the_camera():
    """Points that slide along their rays keep X/Z: this is why a monocular depth's errors leave the camera alone."""
    xyz, valid, camera = ball(496.0)
    noise = torch.randn(xyz[..., :1].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for errors_in in ("points", "pixels"):
        torch.testing.assert_close(fit_intrinsics(xyz * (1 + 0.1 * noise), valid, errors_in)[0], camera)


def test_both_fits_are_numpys(pointmap):
    """A line through (X/Z, u) and one through (u, X/Z), turned round; the first focal length is r^2 of the second."""
    xyz, valid = pointmap
    xyz = noisy(xyz, 1)
    points, pixels = fit_intrinsics(xyz, valid, "points").numpy(), fit_intrinsics(xyz, valid, "pixels").numpy()
    rows, columns = (index + 0.5 for index in np.nonzero(valid[0].numpy()))
    for axis, pixel in ((0, columns), (1, rows)):
        x, _, z = np.moveaxis(xyz[0][valid[0]].numpy(), -1, 0)[[axis, 1 - axis, 2]]
        slope, offset = np.polyfit(pixel, x / z, 1)
        np.testing.assert_allclose(points[0, axis, [axis, 2]], [1 / slope, -offset / slope], rtol=1e-9)
        np.testing.assert_allclose(pixels[0, axis, [axis, 2]], np.polyfit(x / z, pixel, 1), rtol=1e-9)
        r = np.corrcoef(x / z, pixel)[0, 1]
        np.testing.assert_allclose(pixels[0, axis, axis], r**2 * points[0, axis, axis], rtol=1e-9)


def test_points_outside_the_mask_behind_the_camera_or_not_finite_do_not_count(pointmap):
    xyz, valid = pointmap
    xyz = torch.where(valid[..., None], xyz, torch.nan)
    xyz[:, 10:20] = -xyz[:, 10:20]
    torch.testing.assert_close(fit_intrinsics(xyz, torch.ones_like(valid)), K, atol=1e-8, rtol=1e-10)


@BOTH
def test_depth_does_not_change_the_camera(pointmap, errors_in):
    xyz, valid = pointmap
    torch.testing.assert_close(fit_intrinsics(xyz * 7, valid, errors_in), fit_intrinsics(xyz, valid, errors_in))


def test_too_few_points_are_refused(pointmap):
    xyz, valid = pointmap
    few = valid.clone()
    few[1] = False
    few[1, 0, :9] = True
    with pytest.raises(ValueError, match="sample 1 has 9 pixels"):
        fit_intrinsics(xyz, few)


@pytest.mark.parametrize("case", ["one line of sight", "one column", "mirrored"])
@BOTH
def test_points_that_no_camera_explains_are_refused(pointmap, case, errors_in):
    xyz, valid = pointmap
    xyz, valid = xyz.clone(), valid.clone()
    if case == "one line of sight":
        xyz[1] = xyz[1, ..., 2:] * torch.tensor([1 / 3, 1 / 7, 1.0])
    elif case == "one column":
        valid[1] = False
        valid[1, :, 5] = True
        xyz = noisy(xyz, 2)
    else:
        xyz[1, ..., 0] *= -1
    with pytest.raises(ValueError, match="no focal length fits the points of sample 1"):
        fit_intrinsics(xyz, valid, errors_in)


def test_an_unknown_fit_is_refused(pointmap):
    with pytest.raises(ValueError, match="errors_in is 'rays'; choose 'points' or 'pixels'"):
        fit_intrinsics(*pointmap, "rays")
