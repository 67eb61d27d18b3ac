"""Both maps invert, keep the order of depths, and agree with their equations."""

import math

import pytest
import torch

from model import LogMedian, ZScore
from model.normalisation import from_dict, to_dict

B, L, H, W = 2, 3, 5, 4
MAPS = [ZScore((0.1, -0.2, 1.9), (0.3, 0.4, 0.7)), LogMedian()]


@pytest.fixture
def points():
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(B, L, H, W, 1, generator=generator).mul(20).add(0.3).sort(dim=1).values
    xyz = torch.cat([torch.randn(B, L, H, W, 2, generator=generator) * z, z], dim=-1)
    return xyz, torch.rand(B, H, W, generator=generator) < 0.7


@pytest.mark.parametrize("normalisation", MAPS, ids=lambda m: m.kind)
def test_inverse_gives_the_points_back(normalisation, points):
    xyz, valid = points
    x, scale = normalisation.forward(xyz, valid)
    back = normalisation.inverse(x, scale)
    torch.testing.assert_close(back.movedim(1, -1)[valid], xyz.movedim(1, -1)[valid], atol=1e-4, rtol=1e-5)
    assert (x.movedim(1, -1)[~valid] == 0).all()


@pytest.mark.parametrize("normalisation", MAPS, ids=lambda m: m.kind)
def test_order_of_depths_is_kept(normalisation, points):
    """What the monotonicity penalty rests on (App. A)."""
    xyz, _ = points
    x, _ = normalisation.forward(xyz, torch.ones(B, H, W))
    assert (x[..., 2].diff(dim=1) > 0).all()


@pytest.mark.parametrize("normalisation", MAPS, ids=lambda m: m.kind)
def test_invalid_pixels_influence_nothing(normalisation, points):
    xyz, valid = points
    spoilt = torch.where(valid[:, None, :, :, None], xyz, torch.nan)
    for clean, other in zip(normalisation.forward(xyz, valid), normalisation.forward(spoilt, valid), strict=True):
        assert torch.equal(clean, other)


def test_z_score_of_its_own_statistics_is_standard(points):
    xyz, _ = points
    flat = xyz.view(-1, 3)
    x, scale = ZScore(tuple(flat.mean(0).tolist()), tuple(flat.std(0).tolist())).forward(xyz, torch.ones(B, H, W))
    torch.testing.assert_close(x.view(-1, 3).mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.view(-1, 3).std(0), torch.ones(3))
    assert torch.equal(scale, torch.ones(B))


def test_log_median_by_hand():
    """Eq. 6 with median depth 4: a point (-4, 8, 16) goes to (-ln 2, ln 3, ln 4)."""
    xyz = torch.tensor([[-4.0, 8.0, 16.0], [0.0, 0.0, 4.0], [1.0, 1.0, 2.0]]).view(1, 1, 1, 3, 3)
    x, m = LogMedian().forward(xyz, torch.ones(1, 1, 3))
    assert m.tolist() == [4.0]
    expected = [[-math.log(2), math.log(3), math.log(4)], [0, 0, 0], [math.log(1.25), math.log(1.25), math.log(0.5)]]
    torch.testing.assert_close(x[0, 0, 0], torch.tensor(expected))
    torch.testing.assert_close(LogMedian().inverse(x) * 4, xyz)  # without m: in units of m


def test_log_median_does_not_see_the_scale_of_a_scene(points):
    xyz, valid = points
    x, m = LogMedian().forward(xyz, valid)
    scaled, scaled_m = LogMedian().forward(37 * xyz, valid)
    torch.testing.assert_close(x, scaled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(37 * m, scaled_m)


def test_log_median_of_an_empty_mask_is_finite(points):
    x, m = LogMedian().forward(points[0], torch.zeros(B, H, W))
    assert (x == 0).all()
    assert m.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("normalisation", MAPS, ids=lambda m: m.kind)
def test_it_is_the_same_where_torch_is_to_be_deterministic(normalisation, points):
    """Bit for bit: of an odd, an even and no number of depths, where some are equal."""
    xyz, valid = points[0].repeat(2, 1, 1, 1, 1), points[1].repeat(2, 1, 1)
    xyz[0, :, 0], valid[2:] = xyz[0, :, 1], False
    valid[2, 0, 0] = True
    plain = [*normalisation.forward(xyz, valid), *normalisation.forward(xyz, valid, frames=2)]
    torch.use_deterministic_algorithms(True)
    try:
        found = [*normalisation.forward(xyz, valid), *normalisation.forward(xyz, valid, frames=2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(*pair) for pair in zip(plain, found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_z_score_rounds_its_statistics_to_the_type_of_the_points(points, dtype):
    xyz, own = points[0].to(dtype), MAPS[0]
    mean, std = (torch.tensor(values, dtype=dtype) for values in (own.mean, own.std))
    assert torch.equal(own.forward(xyz, torch.ones(B, H, W))[0], (xyz - mean) / std)
    assert torch.equal(own.inverse(xyz), xyz * std + mean)


@pytest.mark.parametrize("normalisation", MAPS, ids=lambda m: m.kind)
def test_dict_round_trip(normalisation):
    assert from_dict(to_dict(normalisation)) == normalisation


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="'sigmoid'"):
        from_dict({"kind": "sigmoid"})
    with pytest.raises(ValueError, match="positive"):
        ZScore((0, 0, 0), (1, 0, 1))
