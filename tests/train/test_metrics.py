"""The metrics of a stack against closed forms, and against a slow twin that looks at all pairs of points."""

import numpy as np
import pytest

from shards import forward_fill, rays
from train.evaluation.alignment import RULES, Rule, align_along_rays, align_points, align_scale_shift
from train.evaluation.metrics import TrueStack, depth_metrics, distinct, judge, stack_metrics


def test_alignment_recovers_scale_and_shift_and_never_mirrors() -> None:
    z = np.random.default_rng(1).uniform(1, 3, 500)
    assert align_scale_shift((z - 0.7) / 2.5, z) == pytest.approx((2.5, 0.7))
    assert align_scale_shift(-z, z)[0] == 1.0
    scale, shift = align_scale_shift(np.full(500, 9.0), z)
    assert scale == pytest.approx(np.median(z) / 9.0)
    assert scale * 9.0 + shift == pytest.approx(z.mean())
    assert align_scale_shift(np.zeros(500), z) == pytest.approx((1.0, z.mean()))
    assert align_points(np.array([1.0, 2.0, 3.0]), 2.0, 0.5).tolist() == [2.0, 4.0, 6.5]


@pytest.mark.parametrize("tilt", [0.5, -0.3, 0.0])
@pytest.mark.parametrize("rule", ["ray", "similar"])
def test_a_prediction_is_judged_alike_in_any_unit(tilt: float, rule: Rule) -> None:
    """Also where the fit would mirror it, or its visible depth is constant."""
    ray = rays(np.array([[24.0, 0, 12], [0, 24, 12], [0, 0, 1]]), 24, 24)
    depth = 2 + np.array([0, 0.3, 0.6])[:, None, None] + np.zeros((3, 24, 24))
    true, predicted = ((depth + slope * ray[..., 0])[..., None] * ray for slope in (1.0, tilt))
    hits = np.full((24, 24), 3)
    metres, *others = (stack_metrics(predicted * unit, true, hits, rule=rule) for unit in (1, 1e-6, 0.1, 1000))
    for other in others:
        assert other == pytest.approx(metres, rel=1e-6, abs=1e-9)


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


def spheres(radius: float, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """(xyz (2,H,W,3), hits): front and back of a sphere at (0, 0, 4), seen by a camera of 60 degrees."""
    ray = rays(np.array([[0.86 * size, 0, size / 2], [0, 0.86 * size, size / 2], [0, 0, 1]]), size, size)
    along = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
    middle = 4.0 * along[..., 2]
    half = radius**2 - (16.0 - middle**2)
    root = np.sqrt(np.maximum(half, 0))
    xyz = np.stack([along * (middle - root)[..., None], along * (middle + root)[..., None]])
    hits = np.where(half > 0, 2, 0).astype(np.uint8)
    return np.where(hits[None, ..., None] > 0, xyz, 0), hits


def test_a_sphere_of_another_radius_is_off_by_the_difference() -> None:
    """Concentric spheres: every point is the difference of radii from the other sphere, front and back alike."""
    (small, inside), (large, _) = spheres(0.8), spheres(0.85)
    got = stack_metrics(large, small, inside, rule="none")
    for part in ("visible", "hidden", "all"):
        assert 0.05 <= got[f"{part}/cd_l1"] < 0.057  # never nearer; at the rim pixels sample the spheres sparsely
        assert got[f"{part}/f@0.01"] == 0.0


def slow_metrics(predicted: np.ndarray, exists: np.ndarray, true: np.ndarray, hits: np.ndarray) -> dict[str, float]:
    """All pairs, pixel by pixel, of stacks that need no alignment."""
    layers = len(true)
    sets: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {n: ([], []) for n in ("visible", "hidden", "all")}
    for v, u in np.argwhere(hits > 0):
        there = [k for k in range(layers) if exists[k, v, u]]
        sets["visible"][0].extend(predicted[k, v, u] for k in there if k == 0)
        sets["hidden"][0].extend(predicted[k, v, u] for k in ([k for k in there if k > 0] or there[:1]))
        sets["all"][0].extend(predicted[k, v, u] for k in there)
        known = range(hits[v, u])
        sets["visible"][1].append(true[0, v, u])
        sets["hidden"][1].extend(true[k, v, u] for k in ([k for k in known if k > 0] or [0]))
        sets["all"][1].extend(true[k, v, u] for k in known)
    found = {}
    for name, pair in sets.items():
        a, b = (np.array(points, np.float64).reshape(-1, 3) for points in pair)
        d = np.linalg.norm(a[:, None] - b[None], axis=-1)
        found[f"{name}/cd_l1"] = (d.min(1).mean() + d.min(0).mean()) / 2
        found[f"{name}/cd_l2"] = ((d.min(1) ** 2).mean() + (d.min(0) ** 2).mean()) / 2
        for t in (0.01, 0.05):
            precision, recall = (d.min(1) < t).mean(), (d.min(0) < t).mean()
            found[f"{name}/f@{t}"] = 2 * precision * recall / max(precision + recall, 1e-12)
    return found


@pytest.mark.parametrize("kind", ["all there", "some there", "repeated"])
def test_stacks_equal_the_slow_twin(kind: str) -> None:
    rng = np.random.default_rng(5)
    peeled = np.sort(rng.uniform(1, 2, size=(4, 12, 12)), axis=0).astype(np.float32)
    peeled[rng.integers(0, 5, size=(12, 12)) <= np.arange(4)[:, None, None]] = np.inf
    depth, hits = forward_fill(peeled)
    true = rays(np.array([[14.0, 0, 6], [0, 14, 6], [0, 0, 1]]), 12, 12)[None] * depth[..., None]
    predicted = true + rng.normal(size=true.shape) * 0.03
    exists = np.broadcast_to(hits > 0, true.shape[:-1])
    if kind == "some there":
        exists = exists & (rng.random(true.shape[:-1]) < 0.6)
    if kind == "repeated":
        predicted[2:] = predicted[1]
        predicted[1, :6] = predicted[0, :6]
    got = stack_metrics(predicted, true, hits, exists=exists, rule="none")
    for name, value in slow_metrics(predicted, exists, true, hits).items():
        assert got[name] == pytest.approx(value, abs=1e-12), name


def test_a_stack_with_the_masks_of_the_truth_is_perfect_and_denied_points_do_not_count(
    stack: tuple[np.ndarray, np.ndarray],
) -> None:
    xyz, hits = stack
    exists = np.arange(3)[:, None, None] < hits[None]
    spoilt = np.where(exists[..., None], xyz, np.nan)  # what is not there may be anything
    got = stack_metrics(spoilt, xyz, hits, exists=exists)
    for part in ("visible", "hidden", "all"):
        assert got[f"{part}/cd_l1"] == pytest.approx(0.0, abs=1e-9)
        assert got[f"{part}/f@0.01"] == pytest.approx(1.0)
    fewer = exists.copy()
    fewer[1] = False  # the hidden surface is lost: nothing wrong is said, but something is missing
    lost = stack_metrics(xyz, xyz, hits, exists=fewer)
    assert lost["visible/cd_l1"] == pytest.approx(0.0, abs=1e-9)
    assert lost["all/cd_l1"] > 0.01
    assert "layer1/rmse" not in lost
    none = stack_metrics(xyz, xyz, hits, exists=np.zeros_like(exists))
    assert none["depth/coverage"] == none["all/f@0.05"] == 0.0
    assert none["all/cd_l1"] == none["depth/mae"] == np.inf


def test_the_unit_divides_lengths_and_leaves_ratios(stack: tuple[np.ndarray, np.ndarray]) -> None:
    xyz, hits = stack
    predicted = xyz + np.random.default_rng(0).normal(size=xyz.shape) * 0.01
    for rule in RULES:
        plain, halved = (judge([TrueStack(xyz, hits, unit=unit)], [predicted], rule=rule) for unit in (1.0, 2.0))
        assert halved["all/cd_l1"] == pytest.approx(plain["all/cd_l1"] / 2)
        assert halved["all/cd_l2"] == pytest.approx(plain["all/cd_l2"] / 4)
        assert halved["depth/absrel"] == pytest.approx(plain["depth/absrel"])
        assert halved["depth/rmse"] == pytest.approx(plain["depth/rmse"] / 2)
        assert halved["layer1/rmse"] == pytest.approx(plain["layer1/rmse"] / 2)


def test_a_clip_is_aligned_as_a_whole_and_averaged_over_its_frames(stack: tuple[np.ndarray, np.ndarray]) -> None:
    xyz, hits = stack
    true = [TrueStack(xyz, hits), TrueStack(xyz * 1.5, hits)]
    scaled = judge(true, [xyz * 2, xyz * 3])
    assert scaled["all/cd_l1"] == pytest.approx(0.0, abs=1e-9)
    flicker = judge(true, [xyz * 2, xyz * 2])  # each frame alone could be aligned: the clip cannot
    assert flicker["all/cd_l1"] > 0.05
    noisy = [xyz + np.random.default_rng(k).normal(size=xyz.shape) * 0.01 for k in range(2)]
    same = [TrueStack(xyz, hits)] * 2
    both = judge(same, noisy, rule="none")
    each = [stack_metrics(p, xyz, hits, rule="none") for p in noisy]
    for name, value in both.items():
        assert value == pytest.approx((each[0][name] + each[1][name]) / 2)


def test_surfaces_of_the_asset_are_what_all_layers_are_judged_by(stack: tuple[np.ndarray, np.ndarray]) -> None:
    xyz, hits = stack
    points = distinct(xyz, hits, 0)
    got = judge([TrueStack(xyz, hits, surface=points)], [xyz])
    assert got["surface/cd_l1"] == pytest.approx(0.0, abs=1e-9)
    moved = judge([TrueStack(xyz, hits, surface=points + [0, 0, 0.02])], [xyz])
    assert 0 < moved["surface/cd_l1"] <= 0.02 + 1e-9
    assert moved["all/cd_l1"] == pytest.approx(0.0, abs=1e-9)
    assert "surface/cd_l1" not in judge([TrueStack(xyz, hits, single_layer=True, surface=points)], [xyz])


def test_a_prediction_of_another_size_is_refused(stack: tuple[np.ndarray, np.ndarray]) -> None:
    xyz, hits = stack
    with pytest.raises(ValueError, match=r"\(3, 8, 16, 3\) cannot be judged by 3 layers of 16x16 pixels"):
        stack_metrics(xyz[:, :8], xyz, hits)
    with pytest.raises(ValueError, match="3 layers"):
        stack_metrics(xyz[:2], xyz, hits)


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
