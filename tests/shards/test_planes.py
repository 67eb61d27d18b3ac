"""Optional planes: what comes back, how exactly, and that nothing else is touched by them."""

import dataclasses
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import Clip, CorruptSample, LayeredView, decode, encode, generator
from shards.layers.planes import NORMAL_BOUND, PLANES, decode_plane, encode_plane, planes_in
from tests.shards.scenes import spheres_clip, spheres_view


def with_planes(view: LayeredView, seed: int = 0) -> LayeredView:
    """Random normals, sides and materials at the true hits."""
    rng = generator(seed, "planes")
    normals = rng.normal(size=(*view.depth.shape, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    hit = view.hit
    planes = {
        "normals": np.where(hit[..., None], normals, 0).astype(np.float32),
        "facing": np.where(hit, np.where(rng.random(hit.shape) < 0.5, 1, -1), 0).astype(np.int8),
        "material": np.where(hit, rng.integers(0, 1 << rng.integers(1, 29), hit.shape), -1).astype(np.int32),
    }
    return dataclasses.replace(view, planes=planes)


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between unit vectors (...,3), radians."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30), st.integers(0, 3))
def test_planes_come_back(seed: int, height: int, width: int, spheres: int) -> None:
    view = with_planes(spheres_view(seed % 1000, height, width, count=max(spheres, 3)), seed)
    encoded = encode(view)
    assert planes_in(encoded.members) == tuple(sorted(PLANES))
    assert encoded.row["planes"] == sorted(PLANES)
    again = decode(view.key, encoded.members, PLANES)
    assert isinstance(again, LayeredView)
    for name in ("facing", "material"):
        np.testing.assert_array_equal(again.planes[name], view.planes[name])
        assert again.planes[name].dtype == view.planes[name].dtype
    assert (angles(again.planes["normals"], view.planes["normals"])[view.hit] <= NORMAL_BOUND).all()
    assert (again.planes["normals"][~view.hit] == 0).all()
    assert dict(decode(view.key, encoded.members).planes) == {}


def test_the_bound_of_normals_holds_everywhere_on_the_sphere() -> None:
    rng = generator(0, "sphere")
    normals = rng.normal(size=(1, 300, 400, 3))
    normals[0, :6, 0] = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]
    normals[0, 6:100] *= [1, 1, 1e-4]  # along the edge of the unfolded octahedron
    normals[0, 100:200] *= [1, 1e-4, 1]
    normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)
    hits = np.ones((300, 400), np.uint8)
    again = decode_plane("normals", encode_plane("normals", hits, normals), hits, 1)
    assert angles(again, normals).max() <= NORMAL_BOUND
    np.testing.assert_allclose(np.linalg.norm(again, axis=-1), 1, atol=1e-6)


def test_a_clip_has_planes_in_every_frame_or_in_none() -> None:
    clip = spheres_clip(3, height=12, width=14)
    whole = Clip(clip.key, tuple(map(with_planes, clip.frames)))
    encoded = encode(whole)
    assert encoded.row["planes"] == sorted(PLANES)
    again = decode(clip.key, encoded.members, ["facing"])
    assert isinstance(again, Clip)
    for frame, made in zip(again.frames, whole.frames, strict=True):
        assert set(frame.planes) == {"facing"}
        np.testing.assert_array_equal(frame.planes["facing"], made.planes["facing"])
    mixed = Clip(clip.key, (whole.frames[0], *clip.frames[1:]))
    with pytest.raises(ValueError, match="same planes"):
        encode(mixed)


def test_layers_and_image_are_the_same_bytes_with_and_without_planes() -> None:
    view = spheres_view(4, 20, 20)
    plain, more = encode(view).members, encode(with_planes(view)).members
    assert {name: more[name] for name in plain} == plain
    assert set(more) - set(plain) == {"normals.zst", "facing.zst", "material.zst"}


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("normals", lambda a, hit: np.where(hit[..., None], a * 2, 0), "unit length"),
        ("normals", lambda a, hit: a.astype(np.float64), "expected"),
        ("normals", lambda a, hit: a + np.float32(1), "no hit"),
        ("facing", lambda a, hit: np.zeros_like(a), "1 or -1"),
        ("material", lambda a, hit: np.where(hit, -5, -1).astype(np.int32), "from 0 to"),
        ("colour", lambda a, hit: a, "no plane 'colour'"),
    ],
)
def test_what_is_no_plane_is_refused(name: str, change, match: str) -> None:  # type: ignore[no-untyped-def]
    view = with_planes(spheres_view(1, 12, 12))
    values = view.planes.get(name, view.planes["facing"])
    wrong = dataclasses.replace(view, planes={**view.planes, name: change(values, view.hit)})
    with pytest.raises(ValueError, match=match):
        encode(wrong)


def test_a_plane_that_is_not_there_is_named() -> None:
    view = spheres_view(0, 12, 12)
    with pytest.raises(ValueError, match="has no plane normals: it has none"):
        decode(view.key, encode(view).members, ["normals"])


@pytest.mark.parametrize("name", PLANES)
def test_every_flipped_bit_and_every_truncation_is_found(name: str) -> None:
    view = with_planes(spheres_view(1, 9, 10))
    data = encode(view).members[f"{name}.zst"]
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptSample, match=name):
            decode_plane(name, bytes(damaged), view.hits, 6)  # type: ignore[arg-type]
    for length in range(len(data)):
        with pytest.raises(CorruptSample, match=name):
            decode_plane(name, data[:length], view.hits, 6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "at", [(8, "<H", 2), (10, "<B", 1), (11, "<B", 1), (12, "<I", 5), (24, "<Q", 3), (48, "<Q", 9)]
)
def test_a_well_signed_lie_is_refused(at: tuple[int, str, int]) -> None:
    view = with_planes(spheres_view(1, 9, 10))
    data = bytearray(encode(view).members["normals.zst"])
    offset, form, value = at
    struct.pack_into(form, data, offset, value)
    struct.pack_into("<I", data, 68, zlib.crc32(data[:68]))
    with pytest.raises(CorruptSample, match="normals"):
        decode_plane("normals", bytes(data), view.hits, 6)
