"""Codes from residuals: the decoder over whole rows against the formula of docs/format.md, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.layers.prediction import Predictor, reconstruct, residuals, structure


def twin(zigzag: np.ndarray, hit: np.ndarray, predictor: Predictor) -> np.ndarray:
    signed = [int(word >> 1) ^ -int(word & 1) for word in zigzag.tolist()]
    places = list(zip(*np.nonzero(hit)))
    linked = [u > 0 and bool(hit[l, v, u - 1]) for l, v, u in places]
    of_linked = iter(signed[: sum(linked)])
    of_starts = iter(signed[sum(linked) :])
    d: dict[tuple[int, int, int], int] = {}
    q: dict[tuple[int, int, int], int] = {}
    for (l, v, u), has_left in zip(places, linked):
        if has_left:
            d[l, v, u] = next(of_linked) + (d.get((l, v - 1, u), 0) if predictor == "plane" else 0)
            q[l, v, u] = q[l, v, u - 1] + d[l, v, u]
        else:
            candidates = ((l, v - 1, u), (l, v - 1, u + 1), (l, v - 1, u - 1), (l - 1, v, u))
            q[l, v, u] = next(of_starts) + next((q[p] for p in candidates if p in q), 0)
    return np.array([value & 0xFFFFFFFF for value in q.values()], np.uint32).view(np.int32)


@pytest.mark.parametrize("predictor", ["plane", "left"])
@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), layers=st.integers(1, 4), height=st.integers(1, 9), width=st.integers(1, 9))
def test_codes_follow_the_formula(predictor: Predictor, seed: int, layers: int, height: int, width: int) -> None:
    """For any words at all, as damage may leave them, and back for what the encoder makes of them."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, layers + 1, (height, width)) * (rng.random((height, width)) < rng.random())
    hit = np.arange(layers)[:, None, None] < counts
    words = rng.integers(0, 1 << 32, int(hit.sum()), dtype=np.uint32)
    if seed % 2:
        words >>= np.uint32(27)
    q = reconstruct(words, hit, predictor)
    np.testing.assert_array_equal(q, twin(words, hit, predictor))
    codes = rng.integers(1, 1 << 29, words.size, dtype=np.int32)
    np.testing.assert_array_equal(reconstruct(residuals(codes, structure(hit), predictor), hit, predictor), codes)
