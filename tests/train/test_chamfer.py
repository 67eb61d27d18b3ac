"""Nearest neighbours among parts of a set, against all pairs; Chamfer and F-scores against closed forms."""

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pykdtree import kdtree

from train.evaluation.chamfer import PointSet, chamfer, scores, search_alone


def all_pairs(a: np.ndarray, b: np.ndarray, threshold: float) -> tuple[float, float, float]:
    d = np.linalg.norm(a[:, None] - b[None], axis=-1)
    ab, ba = d.min(1), d.min(0)
    precision, recall = (ab < threshold).mean(), (ba < threshold).mean()
    f = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    return (ab.mean() + ba.mean()) / 2, ((ab**2).mean() + (ba**2).mean()) / 2, f


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 30), (200, 150)])
def test_chamfer_equals_all_pairs(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, 3)) * 0.05, rng.normal(size=(m, 3)) * 0.05
    got = chamfer(a, b)
    for threshold in (0.01, 0.05):
        l1, l2, f = all_pairs(a, b, threshold)
        assert got["cd_l1"] == pytest.approx(l1, abs=1e-12)
        assert got["cd_l2"] == pytest.approx(l2, abs=1e-12)
        assert got[f"f@{threshold}"] == pytest.approx(f, abs=1e-12)


def test_distances_to_parts_equal_all_pairs() -> None:
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(300, 3)), rng.normal(size=(120, 3))
    points[50:60] = points[40:50]  # repeated points
    parts = {"few": rng.random(300) < 0.1, "most": rng.random(300) < 0.9, "none": np.zeros(300, bool)}
    asked = {"few": rng.random(120) < 0.5, "most": np.ones(120, bool), "none": rng.random(120) < 0.3}
    d = np.linalg.norm(queries[:, None] - points[None], axis=-1)
    to_all, to_parts = PointSet(points, parts).distances(queries, asked)
    assert to_all == pytest.approx(d.min(1), abs=1e-12)
    for part in ("few", "most"):
        assert to_parts[part] == pytest.approx(d[:, parts[part]].min(1)[asked[part]], abs=1e-12)
    assert len(to_parts["none"]) == asked["none"].sum()
    assert np.isinf(to_parts["none"]).all()


def test_points_that_are_one_and_the_same_keep_their_parts_and_cost_no_square() -> None:
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(600, 3)), rng.normal(size=(100, 3))
    points[100:500] = points[100 + np.arange(400) % 2]  # 200 at each of two places
    parts = {"first": np.arange(600) < 301, "odd": np.arange(600) % 2 == 1, "one": np.arange(600) == 300}
    asked = {part: rng.random(100) < 0.5 for part in parts}
    d = np.linalg.norm(queries[:, None] - points[None], axis=-1)
    known = PointSet(points, parts)
    to_all, to_parts = known.distances(queries, asked)
    assert known.tree.n == 202
    assert to_all == pytest.approx(d.min(1), abs=1e-12)
    for part, members in parts.items():
        assert to_parts[part] == pytest.approx(d[:, members].min(1)[asked[part]], abs=1e-12)
    constant = np.tile([0.0, 0.0, 2.0], (200_000, 1))
    began = time.process_time()
    assert chamfer(constant, constant + [0, 0, 0.5])["cd_l1"] == pytest.approx(0.5)
    assert time.process_time() - began < 5  # of 4e10 pairs it would be minutes


def test_a_set_without_points_is_infinitely_far_and_scores_zero() -> None:
    some = np.zeros((4, 3))
    for got in (chamfer(some[:0], some), chamfer(some, some[:0])):
        assert got["cd_l1"] == got["cd_l2"] == np.inf
        assert got["f@0.05"] == 0.0
    to_all, to_parts = PointSet(some[:0], {"p": np.zeros(0, bool)}).distances(some, {"p": np.ones(4, bool)})
    assert np.isinf(to_all).all()
    assert np.isinf(to_parts["p"]).all()


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


def test_f_is_the_harmonic_mean_of_precision_and_recall() -> None:
    got = scores(np.array([0.0, 0.0, 0.02, 1.0]), np.array([0.005, 0.02]))
    assert got["f@0.01"] == pytest.approx(2 * 0.5 * 0.5 / 1.0)
    assert got["f@0.05"] == pytest.approx(2 * 0.75 * 1.0 / 1.75)


def test_a_thread_of_a_pool_searches_by_itself() -> None:
    openmp = ctypes.CDLL(kdtree.__file__)
    if not hasattr(openmp, "omp_get_max_threads"):
        pytest.skip("pykdtree was built without OpenMP")
    openmp.omp_set_num_threads(3)  # of this thread, and of it alone
    with ThreadPoolExecutor(1, initializer=search_alone) as pool:
        assert pool.submit(openmp.omp_get_max_threads).result() == 1
    assert openmp.omp_get_max_threads() == 3
    openmp.omp_set_num_threads(1)
