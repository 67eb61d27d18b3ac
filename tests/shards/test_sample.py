"""A sample and its members: what goes in comes out, exactly where the format says so."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shards import Clip, CorruptSample, LayeredView, decode, encode, generator, rays, split_of
from shards.image import decode_rgba, encode_rgba
from shards.manifest import SCHEMA
from shards.sample import describe, read_meta
from tests.shards.scenes import spheres_clip, spheres_view


def assert_same(a: LayeredView, b: LayeredView) -> None:
    """`b` is `a` decoded: everything equal but depth (5e-5) and colour where alpha is 0."""
    np.testing.assert_array_equal(a.hits, b.hits)
    np.testing.assert_allclose(b.depth, a.depth, rtol=5e-5)
    np.testing.assert_array_equal(a.rgba[..., 3], b.rgba[..., 3])
    seen = a.rgba[..., 3] > 0
    np.testing.assert_array_equal(a.rgba[seen], b.rgba[seen])
    assert a.K.tobytes() == b.K.tobytes()
    assert a.world_from_camera.tobytes() == b.world_from_camera.tobytes()
    for name in ("key", "regime", "origin", "single_layer", "info"):
        assert getattr(a, name) == getattr(b, name)


@pytest.mark.parametrize("shape", [(48, 56), (1, 1), (7, 129), (112, 112)])
@pytest.mark.parametrize("layers", [1, 6])
def test_a_view_comes_back(shape: tuple[int, int], layers: int) -> None:
    view = spheres_view(4, *shape, layers=layers)
    encoded = encode(view)
    assert list(encoded.members) == ["json", "layers.zst", "rgba.webp"]
    again = decode(encoded.key, encoded.members)
    assert isinstance(again, LayeredView)
    assert_same(view, again)


def test_a_clip_comes_back_with_numbered_frames() -> None:
    clip = spheres_clip(2, frames=3)
    encoded = encode(clip)
    assert "002.rgba.webp" in encoded.members
    assert "json" in encoded.members
    again = decode(encoded.key, encoded.members)
    assert isinstance(again, Clip)
    assert again.key == clip.key
    for a, b in zip(clip.frames, again.frames, strict=True):
        assert_same(a, b)


def test_a_still_clip_stays_a_clip() -> None:
    clip = spheres_clip(2, frames=1)
    assert isinstance(decode(clip.key, encode(clip).members), Clip)


def test_the_manifest_row_is_a_description_of_the_sample() -> None:
    view = dataclasses.replace(spheres_view(1), single_layer=True)
    row = encode(view).row
    assert row["coverage"] == [float((view.hits > l).mean()) for l in range(6)]
    assert row["z_min"] == view.depth[view.hit].min()
    assert row["z_max"] == view.depth[view.hit].max()
    assert (row["layers"], row["height"], row["width"], row["frames"], row["view"]) == (6, 48, 56, 1, 1)
    assert row["flags"] == ["untextured"]
    assert row["single_layer"] is True
    assert row["split"] == split_of(view.origin.sha256)


def test_info_may_hold_numpy_values_and_nothing_that_json_cannot() -> None:
    view = dataclasses.replace(
        spheres_view(0), info={"view": np.int64(3), "light": np.arange(3.0), "flags": frozenset("ba")}
    )
    again = decode(view.key, encode(view).members)
    assert isinstance(again, LayeredView)
    assert again.info == {"view": 3, "light": [0.0, 1.0, 2.0], "flags": ["a", "b"]}
    for bad in (object(), float("nan")):
        with pytest.raises(ValueError, match=view.key):
            encode(dataclasses.replace(view, info={"x": bad}))


@pytest.mark.parametrize("key", ["", "a.b", "A", "a b", "ä", "../x", "x" * 81])
def test_keys_that_would_confuse_an_archive_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        encode(dataclasses.replace(spheres_view(0), key=key))


def _edited(members: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    return {**members, "json": json.dumps({**json.loads(members["json"]), **changes}).encode()}


def test_damaged_members_are_named() -> None:
    view = spheres_view(0)
    good = encode(view).members
    other = encode(spheres_view(1, 20, 20)).members
    cases = {
        "json": [b"", b"{", b"[]", b"\xff"],
        "layers.zst": [b"", good["layers.zst"][:-1], other["layers.zst"]],
        "rgba.webp": [b"", good["rgba.webp"][:40], other["rgba.webp"], b"\x89PNG\r\n\x1a\n" + bytes(40)],
    }
    for suffix, variants in cases.items():
        for data in variants:
            with pytest.raises(CorruptSample, match=view.key):
                decode(view.key, {**good, suffix: data})
        with pytest.raises(CorruptSample, match=f"{suffix} is missing"):
            decode(view.key, {name: data for name, data in good.items() if name != suffix})
    first = json.loads(good["json"])["frames"][0]
    for change in (
        {"version": 99},
        {"key": "other"},
        {"frames": []},
        {"frames": [first, first]},
        {"regime": "dream"},
        {"origin": {}},
        {"frames": [{**first, "K": [[1, 0], [0, 1]]}]},
        {"frames": [{**first, "K": "three"}]},
        {"frames": [{**first, "info": 5}]},
        {"frames": [7]},
        {"frames": 7},
        {"origin": 7},
        {"frames": [{**first, "world_from_camera": None}]},
    ):
        with pytest.raises(CorruptSample, match=view.key):
            decode(view.key, _edited(good, **change))


HOSTILE = [
    5,
    -1,
    2**40,
    10**400,
    1.5,
    float("nan"),
    True,
    None,
    "x",
    "\ud800",
    "a\0b",
    [],
    ["x"],
    [[1.0]],
    {},
    {"a": 1},
]


def _places(node: object, path: tuple = ()) -> Iterator[tuple]:
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in items:
        yield from _places(child, (*path, name))


def test_whatever_the_json_member_holds_a_manifest_can_be_made_of_what_is_decoded() -> None:
    """Every value of the JSON replaced by every kind of value: CorruptSample, or a sample that the schema fits."""
    clip = spheres_clip(2, frames=2, height=4, width=4)
    good = encode(clip).members
    decoded = refused = 0
    for path in _places(json.loads(good["json"])):
        for value in HOSTILE:
            meta = {"": json.loads(good["json"])}
            node: Any = meta
            for name in ("", *path)[:-1]:
                node = node[name]
            node[("", *path)[-1]] = value
            try:
                sample = decode(clip.key, {**good, "json": json.dumps(meta[""]).encode()})
            except CorruptSample:
                refused += 1
                continue
            decoded += 1
            assert isinstance(sample, Clip)
            row = {**describe(clip.key, sample.frames), "shard": "a.tar", "offset": 0, "bytes": 0, "sha256": ""}
            pa.Table.from_pylist([row], schema=SCHEMA).validate(full=True)
            rays(sample.frames[0].K, 4, 4)
            encode(sample)
    assert decoded > 100
    assert refused > 700


@pytest.mark.parametrize(
    "K", [np.zeros((3, 3)), np.diag([1, 0, 1]), np.diag([1, 1, 2]), np.ones((3, 3)), np.diag([1e-310, 1, 1])]
)
def test_a_camera_that_sees_nothing_is_neither_written_nor_read(K: np.ndarray) -> None:
    view = spheres_view(0, 4, 4)
    with pytest.raises(ValueError, match="K is not invertible"):
        encode(dataclasses.replace(view, K=K))
    good = encode(view).members
    first = json.loads(good["json"])["frames"][0]
    with pytest.raises(CorruptSample, match="K is not invertible"):
        decode(view.key, _edited(good, frames=[{**first, "K": K.tolist()}]))


@pytest.mark.parametrize(
    "K",
    [
        [[0, 50, 20], [50, 0, 20], [0, 0, 1]],
        [[-50, 0, 20], [0, 50, 20], [0, 0, 1]],
        [[50, 0, 2], [0, -50, 2], [0, 0, 1]],
    ],
)
def test_focal_lengths_are_positive(K: list[list[float]]) -> None:
    """Who shows a camera divides by them; a mirrored or turned one is another pose."""
    view = spheres_view(0, 4, 4)
    with pytest.raises(ValueError, match="focal length"):
        encode(dataclasses.replace(view, K=np.array(K, np.float64)))
    good = encode(view).members
    first = json.loads(good["json"])["frames"][0]
    with pytest.raises(CorruptSample, match="focal length"):
        decode(view.key, _edited(good, frames=[{**first, "K": K}]))


def test_the_frames_of_a_clip_agree_in_what_the_manifest_says_once() -> None:
    clip = spheres_clip(2, frames=3, height=4, width=4)
    odd = dataclasses.replace(clip.frames[1], single_layer=True)
    with pytest.raises(ValueError, match=r"frame 1 differs.* single_layer"):
        Clip(clip.key, (clip.frames[0], odd, clip.frames[2]))
    good = encode(clip).members
    meta = json.loads(good["json"])
    assert meta["shared"].pop("single_layer") is False
    frames = [{**frame, "single_layer": t == 1} for t, frame in enumerate(meta["frames"])]
    with pytest.raises(CorruptSample, match="differ in single_layer"):
        read_meta(clip.key, _edited(good, shared=meta["shared"], frames=frames))


def test_a_fresh_process_writes_the_same_bytes() -> None:
    program = (
        "import hashlib; from shards import encode; from tests.shards.scenes import spheres_clip, spheres_view\n"
        "for s in (spheres_view(3), spheres_clip(2)):\n"
        "    print(hashlib.sha256(repr(sorted(encode(s).members.items())).encode()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=root, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout.decode()
        for seed in ("1", "2")
    }
    assert len(runs) == 1
    assert len(runs.pop().split()) == 2


def test_encoding_what_was_decoded_changes_nothing_more() -> None:
    """A dataset may be written again (merge, reshard) without drifting away from the truth."""
    view = spheres_view(3, 40, 40)
    once = decode(view.key, encode(view).members)
    twice = decode(view.key, encode(once).members)
    assert isinstance(once, LayeredView)
    assert isinstance(twice, LayeredView)
    np.testing.assert_allclose(twice.depth, view.depth, rtol=1e-4)
    assert_same(once, twice)


def test_rgba_survives_wherever_it_can_be_seen() -> None:
    rng = np.random.default_rng(5)
    rgba = rng.integers(0, 256, (33, 47, 4), dtype=np.uint8)
    rgba[rng.random((33, 47)) < 0.3, 3] = 0
    again = decode_rgba(encode_rgba(rgba), 33, 47)
    np.testing.assert_array_equal(again[..., 3], rgba[..., 3])
    np.testing.assert_array_equal(again[rgba[..., 3] > 0], rgba[rgba[..., 3] > 0])


def test_splits_are_nine_to_a_half_to_a_half_and_never_move() -> None:
    counts = Counter(split_of(f"{i:064x}") for i in range(20000))
    assert abs(counts["train"] - 18000) < 150
    assert abs(counts["val"] - 1000) < 120
    assert abs(counts["test"] - 1000) < 120
    # these three are part of the format: a change would leak assets between the splits of existing datasets
    assert [split_of(f"{i:064x}") for i in (1, 2, 4)] == ["train", "val", "test"]


def test_damage_that_no_hash_has_caught_still_ends_as_a_corrupt_sample() -> None:
    """Flips and truncations of members, decoded without the manifest: a sample or CorruptSample, nothing else."""
    clip = spheres_clip(2, frames=2, height=12, width=14)
    good = encode(clip).members
    rng = generator(0, "damage")
    refused = 0
    for i in range(600):
        suffix = sorted(good)[i % len(good)]
        data = bytearray(good[suffix])
        if i % 3 == 0:
            del data[rng.integers(len(data)) :]
        else:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        try:
            decode(clip.key, {**good, suffix: bytes(data)})
        except CorruptSample:
            refused += 1
    assert refused > 300


def test_photographs_are_close_and_what_is_rendered_is_exact() -> None:
    """Opaque images of regime rgbd are photographs; one that has a silhouette is kept as it is."""
    v, u = np.mgrid[0:96, 0:96]
    rgba = np.stack([128 + 90 * np.sin(u / 9), 128 + 90 * np.cos(v / 11), u + v, np.full(u.shape, 255)], -1)
    rgba = (rgba + generator(0, "photograph").normal(0, 3, rgba.shape)).clip(0, 255).astype(np.uint8)
    rgba[..., 3] = 255
    view = dataclasses.replace(spheres_view(0, 96, 96), rgba=rgba)
    seen = rgba.copy()
    seen[0, 0, 3] = 254
    sizes = {}
    cases = (("scene", "scene", rgba, True), ("photo", "rgbd", rgba, False), ("cut", "rgbd", seen, True))
    for name, regime, image, exact in cases:
        encoded = encode(dataclasses.replace(view, rgba=image, regime=regime))  # type: ignore[arg-type]
        sizes[name] = len(encoded.members["rgba.webp"])
        again = decode(view.key, encoded.members)
        assert isinstance(again, LayeredView)
        assert np.array_equal(again.rgba, image) == exact
        assert np.abs(again.rgba.astype(int) - image).mean() < 3
        np.testing.assert_array_equal(again.rgba[..., 3], image[..., 3])
    assert sizes["photo"] < 0.5 * sizes["scene"]
