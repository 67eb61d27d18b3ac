"""The bytes of `layers.zst`: the stated bound holds, lossless is lossless, damage is found, sizes are bounded."""

import struct
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import CorruptSample, forward_fill, generator
from shards.codec import DEFAULT_BOUND, MAX_ELEMENTS, decode_layers, encode_layers, read_header
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


@settings(max_examples=150, deadline=None)
@given(stacks(), st.sampled_from([1e-6, 5e-5, 1e-2]))
def test_the_stated_bound_holds_and_nothing_else_changes(stack: tuple[np.ndarray, np.ndarray], bound: float) -> None:
    hits, depth = stack
    data = encode_layers(hits, depth, bound=bound)
    again_hits, again = decode_layers(data)
    header = read_header(data)
    assert header.codec == ("inverse" if header.bound else "float32")
    assert header.bound in (0.0, bound)
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


def test_depths_over_too_many_orders_of_magnitude_are_kept_losslessly() -> None:
    depth = np.array([[[1e-6, 1e6]]], np.float32)
    data = encode_layers(np.ones((1, 2), np.uint8), depth)
    assert read_header(data).codec == "float32"
    np.testing.assert_array_equal(decode_layers(data)[1], depth)


def test_a_pixel_by_pixel_reader_written_from_the_format_agrees() -> None:
    """The slow twin: docs/format.md as nested loops, without a line of the codec."""
    view = spheres_view(3, 23, 31, count=4)
    data = encode_layers(view.hits, view.depth)
    step = struct.unpack_from("<d", data, 40)[0]
    payload = zstandard.ZstdDecompressor().decompress(data[72:])
    layers, height, width = struct.unpack_from("<III", data, 12)
    hits = np.frombuffer(payload, np.uint8, height * width).reshape(height, width)
    n = int(hits.sum())
    planes = np.frombuffer(payload, np.uint8, offset=height * width).reshape(4, n).astype(np.int64)
    zigzag = planes[0] + (planes[1] << 8) + (planes[2] << 16) + (planes[3] << 24)
    signed = [int(z // 2) if z % 2 == 0 else -int(z // 2) - 1 for z in zigzag]

    def is_hit(l: int, v: int, u: int) -> bool:
        return l >= 0 and 0 <= v < height and 0 <= u < width and hits[v, u] > l

    pixels = [(l, v, u) for l in range(layers) for v in range(height) for u in range(width) if is_hit(l, v, u)]
    linked = [p for p in pixels if is_hit(p[0], p[1], p[2] - 1)]
    starts = [p for p in pixels if not is_hit(p[0], p[1], p[2] - 1)]
    r = dict(zip(linked + starts, signed))
    q: dict[tuple[int, int, int], int] = {}
    d: dict[tuple[int, int, int], int] = {}
    for l, v, u in pixels:
        if is_hit(l, v, u - 1):
            d[l, v, u] = r[l, v, u] + d.get((l, v - 1, u), 0)
            q[l, v, u] = q[l, v, u - 1] + d[l, v, u]
        else:
            parents = [(l, v - 1, u), (l, v - 1, u + 1), (l, v - 1, u - 1), (l - 1, v, u)]
            parent = next((p for p in parents if is_hit(*p)), None)
            q[l, v, u] = r[l, v, u] + (q[parent] if parent else 0)
    depth = np.zeros((layers, height, width), np.float32)
    for l, v, u in pixels:
        depth[l:, v, u] = np.float32(1.0 / (q[l, v, u] * step))
    np.testing.assert_array_equal(decode_layers(data)[1], depth)


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
    names = ("magic", "version", "codec", "reserved", "L", "H", "W", "count", "bound", "step", "raw", "compressed")
    header = dict(zip(names, struct.unpack_from("<8sHBBIIIQddQQ", data)))
    frame = data[72:] if payload is None else zstandard.ZstdCompressor().compress(payload)
    header |= {"compressed": len(frame), **fields}
    head = struct.pack("<8sHBBIIIQddQQI", *[header[name] for name in names], zlib.crc32(frame))
    return head + struct.pack("<I", zlib.crc32(head)) + frame


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"codec": 7},
        {"L": 0},
        {"L": 1},
        {"H": 1 << 30, "W": 1 << 30},
        {"H": MAX_ELEMENTS, "W": 2, "raw": 2 * MAX_ELEMENTS},
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
