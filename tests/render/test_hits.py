"""Keys hold a hit exactly, and their order is that of (depth, triangle)."""

import numpy as np
import warp as wp

from render import keys
from render.hits import EMPTY, Hits, hits_of, keys_of


def some_hits(seed: int = 0) -> Hits:
    random = np.random.default_rng(seed)
    shape = (3, 5, 7)
    triangle = random.integers(0, 2**31 - 1, shape).astype(np.int32)
    triangle[random.random(shape) < 0.3] = -1
    depth = np.exp(random.normal(0, 20, shape)).astype(np.float32)
    facing = random.choice(np.array([-1, 1], np.int8), shape)
    return Hits(
        np.where(triangle >= 0, depth, np.float32(np.inf)), triangle, np.where(triangle >= 0, facing, 0).astype(np.int8)
    )


def test_keys_hold_hits_exactly():
    hits = some_hits()
    for array, again in zip(hits, hits_of(keys_of(hits)), strict=True):
        assert array.dtype == again.dtype
        np.testing.assert_array_equal(array, again)


def test_keys_sort_by_depth_and_then_triangle_with_the_empty_last():
    hits = Hits(*(array.reshape(-1) for array in some_hits()))
    hits.depth[:20] = np.where(np.isfinite(hits.depth[:20]), np.float32(1.5), np.float32(np.inf))
    order = np.argsort(keys_of(hits), kind="stable")
    np.testing.assert_array_equal(order, np.lexsort((hits.triangle, hits.depth)))


@wp.kernel
def taken_apart(key: wp.array(dtype=wp.uint64), same: wp.array(dtype=wp.int32)):
    i = wp.tid()
    back = wp.uint64(0)
    if keys.is_back(key[i]):
        back = wp.uint64(1)
    if key[i] == keys.EMPTY or keys.key_of(keys.depth_of(key[i]), keys.triangle_of(key[i]), back) == key[i]:
        same[i] = 1


def test_kernels_read_the_same_keys():
    values = np.append(keys_of(some_hits(1)).reshape(-1), np.uint64(EMPTY))
    same = wp.zeros(len(values), dtype=wp.int32, device="cpu")
    wp.launch(
        taken_apart, dim=len(values), inputs=[wp.array(values, dtype=wp.uint64, device="cpu"), same], device="cpu"
    )
    assert same.numpy().all()
