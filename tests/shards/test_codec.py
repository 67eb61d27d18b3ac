"""The bytes of `layers.zst`: the stated bound holds, lossless is lossless, damage is found, sizes are bounded."""

import struct
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import CorruptSample, forward_fill, generator
from shards.layers.codec import DEFAULT_BOUND, Choice, decode_layers, encode_layers, read_header
from shards.layers.container import MAX_ELEMENTS
from shards.layers.packing import Packing, pack, unpack
from shards.layers.planes import decode_plane, encode_plane
from tests.shards.scenes import spheres_view


@st.composite
def stacks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(hits, depth): any shape, any pattern of hits from none to all, surfaces from smooth to noise, any scale."""
    layers, height, width = draw(st.integers(1, 7)), draw(st.integers(1, 13)), draw(st.integers(1, 13))
    rng = generator(draw(st.integers(0, 2**32)), "stack")
    fill = draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]))
    spread = draw(st.sampled_from([0.0, 1e-6, 0.1, 3.0]))
    scale = 10.0 ** draw(st.integers(-8, 8))
    steps = rng.exponential(0.05, (layers, height, width)) + spread * rng.random((layers, height, width))
    depth = (scale * (0.1 + np.cumsum(steps, axis=0))).astype(np.float32)
    depth[rng.random(depth.shape) > fill] = np.inf
    filled, hits = forward_fill(depth)
    return hits, filled


@settings(max_examples=200, deadline=None)
@given(stacks(), st.sampled_from(["auto", "inverse", "log"]), st.sampled_from([1e-6, 5e-5, 1e-2]))
def test_the_stated_bound_holds_and_nothing_else_changes(
    stack: tuple[np.ndarray, np.ndarray], codec: Choice, bound: float
) -> None:
    hits, depth = stack
    data = encode_layers(hits, depth, codec, bound)
    again_hits, again = decode_layers(data)
    header = read_header(data)
    assert header.codec == codec or header.codec in {"auto": ("inverse", "log", "steps"), "inverse": ("log",)}[codec]
    assert header.bound == (0.0 if header.codec == "steps" else bound)
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again_hits, hits)
    exact = depth.astype(np.float64)
    assert (np.abs(again - exact) <= header.bound * exact).all()
    assert (np.diff(again, axis=0) >= 0).all()  # quantising is monotone: the layers stay in order
    filled, refound = forward_fill(np.where(np.arange(len(depth))[:, None, None] < hits, again, np.inf))
    np.testing.assert_array_equal(filled, again)
    np.testing.assert_array_equal(refound, hits)


@settings(max_examples=60, deadline=None)
@given(stacks())
def test_float32_is_lossless(stack: tuple[np.ndarray, np.ndarray]) -> None:
    hits, depth = stack
    data = encode_layers(hits, depth, codec="float32")
    again_hits, again = decode_layers(data)
    assert read_header(data).bound == 0.0
    np.testing.assert_array_equal(again_hits, hits)
    np.testing.assert_array_equal(again.view(np.uint32), depth.view(np.uint32))


def test_depths_over_too_many_orders_of_magnitude_for_steps_of_inverse_depth_are_logarithmic() -> None:
    depth = np.array([[[1e-6, 1e6]]], np.float32)
    for codec in ("auto", "inverse"):
        data = encode_layers(np.ones((1, 2), np.uint8), depth, codec)
        assert read_header(data).codec == "log"
        np.testing.assert_allclose(decode_layers(data)[1], depth, rtol=DEFAULT_BOUND)


def test_every_positive_float32_has_a_logarithmic_code() -> None:
    every = np.array([[[1e-45, np.finfo(np.float32).tiny, 1.0, np.finfo(np.float32).max]]], np.float32)
    _, again = decode_layers(encode_layers(np.ones((1, 4), np.uint8), every, "log"))
    np.testing.assert_allclose(again.astype(np.float64), every.astype(np.float64), rtol=DEFAULT_BOUND)


def _sensor(noise: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """A room of one layer as a sensor sees it: holes, relative noise, depth in steps of `step` metres (0: in none)."""
    rng = generator(3, "sensor")
    v, u = np.mgrid[0:96, 0:128] / 100
    z = np.minimum(1 / (0.2 + 0.1 * u + 0.3 * v), 1 / (0.6 - 0.1 * u)) * (1 + noise * rng.normal(size=u.shape))
    z = np.rint(z / step) * step if step else z
    hits = (rng.random(u.shape) > 0.05).astype(np.uint8)
    return hits, np.where(hits > 0, z, 0).astype(np.float32)[None]


@pytest.mark.parametrize("step", [1e-3, float(np.float32(1e-3)), 1 / 5000, 1 / 512])
def test_depth_in_steps_comes_back_exactly_and_is_smaller(step: float) -> None:
    hits, depth = _sensor(0.001, step)
    data = encode_layers(hits, depth)
    assert read_header(data).codec == "steps"
    assert read_header(data).bound == 0.0
    np.testing.assert_array_equal(decode_layers(data)[1].view(np.uint32), depth.view(np.uint32))
    assert len(data) < len(encode_layers(hits, depth, "inverse"))


def test_noisy_depth_is_coded_in_the_smallest_way() -> None:
    hits, depth = _sensor(0.01, 0.0)
    data = encode_layers(hits, depth)
    assert read_header(data).codec == "log"
    assert read_header(data).predictor == "left"
    assert len(data) < len(encode_layers(hits, depth, "inverse"))
    clean = encode_layers(*_sensor(0.0, 0.0))
    assert read_header(clean).codec == "inverse"


def test_a_codec_that_cannot_hold_the_depths_says_so() -> None:
    with pytest.raises(ValueError, match=r"no multiples of a known step.*choose auto"):
        encode_layers(*_sensor(0.01, 0.0), "steps")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 20), max_size=40), st.sampled_from(["words", "nibbles"]))
def test_words_are_packed_and_unpacked(words: list[int], packing: Packing) -> None:
    array = np.array(words, np.uint32)
    data = pack(array, packing)
    np.testing.assert_array_equal(unpack(memoryview(data), array.size, packing), array)
    for wrong in (data + b"\0\0\0\0", data[:-1]):
        if wrong != data:
            with pytest.raises(ValueError, match=r"residuals|buffer"):
                unpack(memoryview(wrong), array.size, packing)


def test_every_flipped_bit_and_every_truncation_is_found() -> None:
    view = spheres_view(1, 12, 14)
    data = encode_layers(view.hits, view.depth)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptSample):
            decode_layers(bytes(damaged))
    for length in range(len(data)):
        with pytest.raises(CorruptSample):
            decode_layers(data[:length])
    with pytest.raises(CorruptSample):
        decode_layers(data + b"\0")


def _forged(data: bytes, payload: bytes | None = None, **fields: float) -> bytes:
    """`data` with other header fields or payload and right checksums: only the checks of meaning can refuse it."""
    names = ("magic", "version", "codec", "layout", "L", "H", "W", "count", "bound", "step", "raw", "compressed")
    header = dict(zip(names, struct.unpack_from("<8sHBBIIIQddQQ", data)))
    frame = data[72:] if payload is None else zstandard.ZstdCompressor().compress(payload)
    header |= {"compressed": len(frame), **({} if payload is None else {"raw": len(payload)}), **fields}
    head = struct.pack("<8sHBBIIIQddQQI", *[header[name] for name in names], zlib.crc32(frame))
    return head + struct.pack("<I", zlib.crc32(head)) + frame


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 3},
        {"version": 0},
        {"version": 1},
        {"codec": 7},
        {"layout": 0x13},
        {"layout": 0x21},
        {"layout": 0x11},
        {"L": 0},
        {"L": 1},
        {"H": 1 << 30, "W": 1 << 30},
        {"H": MAX_ELEMENTS, "W": 2, "raw": 2 * MAX_ELEMENTS},
        {"bound": -1.0},
        {"bound": float("nan")},
        {"bound": float("inf")},
        {"count": 1 << 60},
        {"raw": 1 << 40},
        {"step": float("nan")},
        {"step": -1.0},
        {"step": 1e-300},
        {"step": 1e300},
    ],
    ids=str,
)
def test_a_well_signed_lie_is_refused(fields: dict[str, float]) -> None:
    view = spheres_view(0, 12, 14)
    data = encode_layers(view.hits, view.depth)
    decode_layers(_forged(data))  # the forgery itself is sound
    with pytest.raises(CorruptSample):
        decode_layers(_forged(data, **fields))


def test_residuals_that_make_no_depth_are_refused() -> None:
    view = spheres_view(0, 12, 14)
    data = encode_layers(view.hits, view.depth)
    payload = bytearray(zstandard.ZstdDecompressor().decompress(data[72:]))
    payload[12 * 14 :] = bytes(len(payload) - 12 * 14)  # every q becomes 0, that is z = infinity
    with pytest.raises(CorruptSample, match="out of range"):
        decode_layers(_forged(data, bytes(payload)))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_random_payloads_decode_to_valid_layers_or_are_refused(seed: int) -> None:
    view = spheres_view(0, 12, 14)
    data = encode_layers(view.hits, view.depth)
    payload = bytearray(zstandard.ZstdDecompressor().decompress(data[72:]))
    rng = generator(seed, "payload")
    for at in rng.integers(0, len(payload), 4):
        payload[at] = rng.integers(256)
    try:
        hits, depth = decode_layers(_forged(data, bytes(payload)))
    except CorruptSample:
        return
    assert (depth[:, hits > 0] > 0).all()
    assert np.isfinite(depth).all()


@pytest.mark.parametrize("wrong", ["nan", "zero", "unfilled", "background", "too many hits"])
def test_depth_that_breaks_the_contract_is_refused(wrong: str) -> None:
    view = spheres_view(0)
    hits, depth = view.hits.copy(), view.depth.copy()
    v, u = np.argwhere(hits == 2)[0]
    if wrong == "nan":
        depth[0, v, u] = np.nan
    elif wrong == "zero":
        depth[0, v, u] = 0
    elif wrong == "unfilled":
        depth[5, v, u] += 1
    elif wrong == "background":
        depth[:, hits == 0] = 1
    else:
        hits[v, u] = 7
    with pytest.raises(ValueError, match=r"depth|hits"):
        encode_layers(hits, depth)


def test_a_plane_costs_less_than_two_bits_per_hit() -> None:
    """1/z of a plane is affine in the image: what remains is the rounding of second differences."""
    v, u = np.mgrid[0:200, 0:200] / 200
    depth = (1 / (0.5 + 0.13 * u + 0.07 * v)).astype(np.float32)[None]
    data = encode_layers(np.ones((200, 200), np.uint8), depth)
    assert read_header(data).bound == DEFAULT_BOUND
    assert 8 * len(data) / depth.size < 2.0


def test_an_image_is_as_long_as_webp_allows_and_no_longer() -> None:
    """A column of millions of pixels fits in a thousand bytes, and takes half a minute and gigabytes to sum up."""
    for shape in ((16383, 1), (1, 16383)):
        hits, depth = np.ones(shape, np.uint8), np.ones((1, *shape), np.float32)
        data = encode_layers(hits, depth)
        np.testing.assert_array_equal(decode_layers(data)[0], hits)
        for name, side in (("H", 16384), ("W", 16384), ("H", 0)):
            longer = {"H": shape[0], "W": shape[1], name: side}
            pixels = longer["H"] * longer["W"]
            forged = _forged(data, bytes(pixels), codec=1, layout=0, count=0, step=0.0, **longer)
            with pytest.raises(CorruptSample, match="outside the limits"):
                decode_layers(forged)
    for shape in ((16384, 1), (1, 16384), (0, 4)):
        with pytest.raises(ValueError, match="cannot be stored"):
            encode_layers(np.zeros(shape, np.uint8), np.zeros((1, *shape), np.float32))


@pytest.mark.parametrize("bound", [-1.0, -5e-324, float("nan"), float("inf")])
def test_a_bound_that_bounds_nothing_is_refused(bound: float) -> None:
    view = spheres_view(0, 12, 14)
    with pytest.raises(CorruptSample, match="no bound"):
        decode_layers(_forged(encode_layers(view.hits, view.depth), bound=bound))
    facing = encode_plane("facing", view.hits, view.hit.astype(np.int8))
    assert decode_plane("facing", _forged(facing), view.hits, 6).any()
    with pytest.raises(CorruptSample, match="no bound"):
        decode_plane("facing", _forged(facing, bound=bound), view.hits, 6)
