"""What the frames of a clip have in common is said once, and comes back in each."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import Clip, CorruptSample, decode, encode
from shards.shared import merged, parted
from tests.shards.scenes import spheres_clip, spheres_view
from tests.shards.test_sample import assert_same

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([0.0, 1.0, "a"]) | st.lists(st.integers(0, 1)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
MAPS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@settings(max_examples=100, deadline=None)
@given(st.lists(MAPS, min_size=1, max_size=4))
def test_parted_maps_are_merged_again(frames: list[dict]) -> None:
    shared, rest = parted(frames)
    again = [merged(shared, own) for own in rest]
    assert json.dumps(again, sort_keys=True) == json.dumps(frames, sort_keys=True)  # tells 1 from 1.0 and from true
    if len(frames) == 1:
        assert shared == frames[0]


def test_a_clip_says_once_what_its_frames_share() -> None:
    clip = spheres_clip(5, frames=6)
    encoded = encode(clip)
    meta = json.loads(encoded.members["json"])
    assert meta["shared"]["K"] == clip.frames[0].K.tolist()
    assert meta["shared"]["info"]["view"] == 5
    assert all("K" not in frame for frame in meta["frames"])
    again = decode(clip.key, encoded.members)
    assert isinstance(again, Clip)
    for frame, made in zip(again.frames, clip.frames, strict=True):
        assert_same(made, frame)
    longer = encode(spheres_clip(5, frames=12))
    grown = len(longer.members["json"]) - len(encoded.members["json"])
    assert grown < 6 * 0.4 * len(encode(spheres_view(5)).members["json"])


@pytest.mark.parametrize(
    "change",
    [
        {"shared": 3},
        {"shared": {"info": {"flags": 1}}},
        {"shared": {"K": 1}},
        {"shared": {"key": "else"}},
        {"frames": [3, 3]},
        {"version": 1},
        {"clip": False},
    ],
    ids=str,
)
def test_what_cannot_be_shared_is_refused(change: dict) -> None:
    encoded = encode(spheres_clip(2, frames=2, height=8, width=8))
    meta = {**json.loads(encoded.members["json"]), **change}
    with pytest.raises(CorruptSample):
        decode("clip-2-c000", {**encoded.members, "json": json.dumps(meta).encode()})


def test_a_forged_clip_unfolds_to_a_bounded_size() -> None:
    encoded = encode(spheres_clip(2, frames=2, height=8, width=8))
    meta = json.loads(encoded.members["json"])
    meta["shared"]["info"]["note"] = "x" * 20000
    meta["frames"] = [{}] * 60000
    with pytest.raises(CorruptSample, match="share"):
        decode("clip-2-c000", {**encoded.members, "json": json.dumps(meta).encode()})
