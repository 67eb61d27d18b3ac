"""Metrics against closed forms and against a brute-force twin."""

import numpy as np
import pytest

from shards import forward_fill, rays
from train.evaluation.alignment import Rule, align_along_rays, align_points, align_scale_shift
from train.evaluation.metrics import chamfer, depth_metrics, distinct, stack_metrics


def brute_force_chamfer(a: np.ndarray, b: np.ndarray, threshold: float) -> tuple[float, float, float]:
    d = np.linalg.norm(a[:, None] - b[None], axis=-1)
    ab, ba = d.min(1), d.min(0)
    precision, recall = (ab < threshold).mean(), (ba < threshold).mean()
    f = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    return (ab.mean() + ba.mean()) / 2, ((ab**2).mean() + (ba**2).mean()) / 2, f


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 30), (200, 150)])
def test_chamfer_equals_brute_force(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, 3)) * 0.05, rng.normal(size=(m, 3)) * 0.05
    got = chamfer(a, b)
    for threshold in (0.01, 0.05):
        l1, l2, f = brute_force_chamfer(a, b, threshold)
        assert got["cd_l1"] == pytest.approx(l1, abs=1e-12)
        assert got["cd_l2"] == pytest.approx(l2, abs=1e-12)
        assert got[f"f@{threshold}"] == pytest.approx(f, abs=1e-12)


def test_chamfer_of_a_shifted_plane_is_the_shift() -> None:
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 30), np.linspace(0, 1, 30)), -1).reshape(-1, 2)
    plane = np.concatenate([grid, np.ones((len(grid), 1))], 1)
    got = chamfer(plane, plane + [0, 0, 0.02])
    assert got["cd_l1"] == pytest.approx(0.02)
    assert got["cd_l2"] == pytest.approx(0.0004)
    assert got["f@0.01"] == 0.0
    assert got["f@0.05"] == 1.0


def test_chamfer_of_concentric_spheres_is_the_difference_of_radii() -> None:
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(4000, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    assert chamfer(direction, direction * 1.1)["cd_l1"] == pytest.approx(0.1, rel=0.01)


def test_chamfer_with_nothing_predicted_is_infinite_and_scores_zero() -> None:
    got = chamfer(np.zeros((0, 3)), np.zeros((4, 3)))
    assert got["cd_l1"] == np.inf
    assert got["f@0.05"] == 0.0


def test_alignment_recovers_scale_and_shift_and_never_mirrors() -> None:
    z = np.random.default_rng(1).uniform(1, 3, 500)
    assert align_scale_shift((z - 0.7) / 2.5, z) == pytest.approx((2.5, 0.7))
    assert align_scale_shift(-z, z)[0] == 1.0
    scale, shift = align_scale_shift(np.full(500, 9.0), z)
    assert scale == 1.0
    assert shift + 9.0 == pytest.approx(z.mean())
    assert align_points(np.array([1.0, 2.0, 3.0]), 2.0, 0.5).tolist() == [2.0, 4.0, 6.5]


def test_depth_metrics_of_a_constant_ratio() -> None:
    t = np.linspace(1, 5, 100)
    got = depth_metrics(1.3 * t, t)
    assert got["absrel"] == pytest.approx(0.3)
    assert got["mae"] == pytest.approx(0.3 * t.mean())
    assert got["rmse"] == pytest.approx(0.3 * np.sqrt(np.mean(t**2)))
    assert (got["delta1"], got["delta2"], got["delta3"]) == (0.0, 1.0, 1.0)
    assert depth_metrics(-t, t)["delta3"] == 0.0  # a point behind the camera is never within a ratio


@pytest.fixture
def stack() -> tuple[np.ndarray, np.ndarray]:
    """Two planes at z = 2 and 2.5, the second behind half of the first; tilted, so that the alignment is defined."""
    peeled = np.full((3, 16, 16), np.inf, np.float32)
    peeled[0, 2:14, 2:14] = 2.0 + np.linspace(0, 0.2, 12)[None]
    peeled[1, 2:14, 2:8] = 2.5
    depth, hits = forward_fill(peeled)
    K = np.array([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]])
    return rays(K, 16, 16)[None] * depth[..., None], hits


def along_rays(xyz: np.ndarray, scale: float, shift: float) -> np.ndarray:
    return xyz * (scale * xyz[..., 2:] + shift) / np.where(xyz[..., 2:] == 0, 1, xyz[..., 2:])


def test_the_truth_and_any_scaled_and_shifted_truth_are_perfect(stack: tuple[np.ndarray, np.ndarray]) -> None:
    xyz, hits = stack
    similar, slid = (xyz - [0, 0, 0.3]) / 1.7, along_rays(xyz, 1 / 1.7, -0.3)
    rules: list[tuple[Rule, np.ndarray]] = [("none", xyz), ("ray", xyz), ("ray", slid), ("similar", similar)]
    for rule, predicted in rules:
        got = stack_metrics(predicted, xyz, hits, rule=rule)
        for name in ("visible", "hidden", "all"):
            assert got[f"{name}/cd_l1"] == pytest.approx(0.0, abs=1e-9)
            assert got[f"{name}/f@0.01"] == pytest.approx(1.0)
        assert got["depth/mae"] == pytest.approx(0.0, abs=1e-9)
        assert max(got[f"layer{k}/rmse"] for k in range(3)) == pytest.approx(0.0, abs=1e-9)
    assert stack_metrics(slid, xyz, hits, rule="similar")["all/cd_l1"] > 0.01  # the rules are not the same
    assert stack_metrics(similar, xyz, hits, rule="ray")["all/cd_l1"] > 0.01
    assert stack_metrics(slid, xyz, hits, rule="none")["all/cd_l1"] > 0.01


def test_aligned_points_stay_on_the_rays_of_their_pixels() -> None:
    """Unprojection: what a point projects to is what it projected to before, but where it has no ray."""
    rng = np.random.default_rng(3)
    xyz = rng.normal(size=(500, 3)) + [0, 0, 8]
    moved = align_along_rays(xyz, 1.7, -2.0, float(np.median(xyz[:, 2])))
    assert moved[:, 2] == pytest.approx(1.7 * xyz[:, 2] - 2.0)
    assert moved[:, :2] / moved[:, 2:] == pytest.approx(xyz[:, :2] / xyz[:, 2:])
    behind = align_along_rays(np.array([[0.3, -0.2, 1e-9], [0.3, -0.2, -4.0]]), 1.0, 2.0, 2.0)
    assert np.abs(behind[:, :2]).max() <= 0.3 * 2.0 / 0.2 + 1e-6  # as if at a tenth of the median depth


def test_a_repeated_perfect_layer_0_is_perfect_where_visible_and_wrong_where_hidden(
    stack: tuple[np.ndarray, np.ndarray],
) -> None:
    xyz, hits = stack
    got = stack_metrics(np.repeat(xyz[:1], 3, 0), xyz, hits)
    assert got["visible/cd_l1"] == pytest.approx(0.0, abs=1e-9)
    assert got["layer0/rmse"] == pytest.approx(0.0, abs=1e-9)
    assert got["hidden/cd_l1"] > 0.05
    assert got["hidden/f@0.05"] < 1.0
    assert got["layer1/rmse"] == pytest.approx(got["layer2/rmse"])  # layer 2 repeats layer 1 in the truth


def test_distinct_points_count_each_surface_once(stack: tuple[np.ndarray, np.ndarray]) -> None:
    xyz, hits = stack
    assert len(distinct(xyz, hits, 0)) == hits.sum()
    assert len(distinct(xyz, hits, 1)) == (hits > 0).sum()


def test_single_layer_truth_judges_layer_0_alone(stack: tuple[np.ndarray, np.ndarray]) -> None:
    xyz, hits = stack
    got = stack_metrics(xyz, xyz, hits, single_layer=True)
    assert "hidden/cd_l1" not in got
    assert "all/cd_l1" not in got
    assert "layer1/rmse" not in got
