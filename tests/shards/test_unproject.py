"""Points of layers against the slow twin: every ray of the image in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import LayeredView, Origin, forward_fill, rays
from shards.unproject import slopes, unproject

STRAIGHT = np.array([[70.0, 0, 31.0], [0, 66.0, 33.5], [0, 0, 1]])
SKEWED = np.array([[70.0, 4.5, 31.0], [-2.5, 66.0, 33.5], [0, 0, 1]])


def twin(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    return (rays(K, *depth.shape[1:])[None] * depth[..., None].astype(np.float64)).astype(np.float32)


def filled(seed: int, layers: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Random depth with rays of any number of hits, in a box of random size."""
    rng = np.random.default_rng(seed)
    depth = np.sort(rng.uniform(0.5, 5, (layers, height, width)).astype(np.float32), axis=0)
    depth[np.arange(layers)[:, None, None] >= rng.integers(0, layers + 1, (height, width))] = np.inf
    depth[:, : rng.integers(0, height)] = np.inf
    depth[:, :, rng.integers(1, width + 1) :] = np.inf
    return forward_fill(depth)


@pytest.mark.parametrize("K", [STRAIGHT, SKEWED], ids=["straight", "skewed"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), layers=st.integers(1, 7), height=st.integers(1, 40), width=st.integers(1, 40))
def test_points_are_those_of_the_twin(K: np.ndarray, seed: int, layers: int, height: int, width: int) -> None:
    """Within two roundings of float32; the rounding of a slope near the principal point is absolute, of u in K^-1."""
    depth, hits = filled(seed, layers, height, width)
    points, expected = unproject(depth, hits, K), twin(depth, K)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points, expected, rtol=2.5e-7, atol=1e-14)
    assert np.array_equal(points[..., 2], depth)
    assert not points[:, hits == 0].any()


def test_a_view_gives_its_points() -> None:
    depth, hits = filled(3, 6, 48, 60)
    image = np.zeros((48, 60, 4), np.uint8)
    view = LayeredView("key", image, hits, depth, SKEWED, np.eye(4), "object", Origin("a", "b", "0" * 64))
    assert np.array_equal(view.xyz(), unproject(depth, hits, SKEWED))


@pytest.mark.parametrize("K", [STRAIGHT, SKEWED], ids=["straight", "skewed"])
def test_slopes_are_rays(K: np.ndarray) -> None:
    x, y = slopes(K, 30, 50)
    expected = rays(K, 30, 50)
    np.testing.assert_allclose(np.broadcast_to(x, (30, 50)), expected[..., 0], rtol=1e-7, atol=1e-14)
    np.testing.assert_allclose(np.broadcast_to(y, (30, 50)), expected[..., 1], rtol=1e-7, atol=1e-14)


def test_nothing_is_seen() -> None:
    assert not unproject(np.zeros((2, 5, 6), np.float32), np.zeros((5, 6), np.uint8), STRAIGHT).any()
