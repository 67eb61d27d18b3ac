"""Which assets are kept, and what is said of those that are not."""

import json
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.sources import AssetRef, licences, parse
from cluster.sources.filters import NAMES, Filters, Tally
from cluster.sources.uid_lists import Uids
from render import Material, Mesh, Rejected

LICENCES = [
    "CC-BY-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-ND-4.0",
    "CC0-1.0",
    "MIT",
    "unknown",
    "ours alone",
    "All-Rights-Reserved",
]
CATEGORIES = ["chair", "Alarm Clock", "animals-pets"]

refs = st.builds(
    AssetRef,
    uid=st.sampled_from([f"u{i}" for i in range(6)]),
    source=st.sampled_from(["one", "two"]),
    licence=st.sampled_from(LICENCES),
    locator=st.just(""),
    triangles=st.none() | st.integers(0, 20),
    animated=st.none() | st.booleans(),
    categories=st.lists(st.sampled_from(CATEGORIES), max_size=2).map(tuple),
)
uid_lists = st.frozensets(st.sampled_from([*(f"u{i}" for i in range(6)), "one/u1"]), min_size=1).map(Uids)
filters = st.builds(
    Filters,
    licences=st.lists(
        st.sampled_from(["default", "redistributable", "commercial", "any", "unknown", "CC-BY-4.0", "CC-BY-ND"]),
        min_size=1,
    ).map(tuple),
    categories=st.lists(st.sampled_from(["chair", "alarm_clock"]), unique=True).map(tuple),
    animated=st.none() | st.booleans(),
    fewest=st.none() | st.integers(0, 20),
    most=st.none() | st.integers(0, 20),
    only=st.none() | uid_lists,
    without=st.none() | uid_lists,
)


def mesh(triangles: int, animated: bool = False) -> Mesh:
    vertices = np.zeros((3, 3))
    faces = np.zeros((triangles, 3), np.int32)
    pose = (lambda t: vertices) if animated else None
    return Mesh(vertices, faces, np.zeros(triangles, np.int32), (Material(),), pose=pose, duration=float(animated))


@given(filters, refs, st.booleans())
def test_an_asset_is_kept_if_every_filter_alone_keeps_it(chosen: Filters, ref: AssetRef, own: bool) -> None:
    everything = Filters(licences=("any",))
    alone = {
        "only": replace(everything, only=chosen.only),
        "without": replace(everything, without=chosen.without),
        "licence": replace(everything, licences=chosen.licences),
        "category": replace(everything, categories=chosen.categories),
        "animated": replace(everything, animated=chosen.animated),
        "triangles": replace(everything, fewest=chosen.fewest, most=chosen.most),
    }
    assert tuple(alone) == NAMES
    dropping = [name for name, each in alone.items() if each.excludes(ref, own) is not None]
    assert chosen.excludes(ref, own) == (dropping[0] if dropping else None)


@given(filters, refs, st.booleans())
def test_nothing_but_the_ref_matters_and_filters_travel(chosen: Filters, ref: AssetRef, own: bool) -> None:
    copy = pickle.loads(pickle.dumps(chosen))
    assert copy.excludes(ref, own) == chosen.excludes(ref, own)
    assert copy.to_json() == chosen.to_json() == json.loads(json.dumps(chosen.to_json()))


@given(refs, st.booleans())
def test_more_licences_never_drop_more(ref: AssetRef, own: bool) -> None:
    kept = {
        word: Filters.parse(licence=word).excludes(ref, own) is None
        for word in ("commercial", "redistributable", "default", "any", "unknown", "unrecognised", "commercial,unknown")
    }
    assert kept["commercial"] <= kept["redistributable"] <= kept["default"] <= kept["any"]
    assert kept["commercial,unknown"] == (kept["commercial"] or kept["unknown"])
    assert kept["default"] == (kept["redistributable"] or (own and kept["unknown"]))
    assert not kept["unrecognised"] or not (kept["default"] or kept["unknown"])
    assert kept["any"]
    assert Filters().excludes(ref, own) == Filters.parse().excludes(ref, own)


@pytest.mark.parametrize("word", ["default", "redistributable", "commercial", "any", "unrecognised"])
def test_a_catalogue_that_writes_a_word_of_the_filter_opens_nothing(word: str) -> None:
    for said in (word, word.title(), f"{word}-1.0"):
        for own in (False, True):
            asset = AssetRef("u", "s", said, "")
            for asked in ("default", "redistributable", "commercial", "unknown", "CC-BY"):
                assert Filters.parse(licence=asked).excludes(asset, own) == "licence"
            assert Filters.parse(licence="unrecognised").excludes(asset, own) is None


@pytest.mark.parametrize(
    ("said", "theirs", "own"),
    [
        ("", False, True),  # nothing is stated: the user knows
        ("3D-FRONT Terms of Use", False, True),  # the user has signed them
        ("No redistribution. All rights reserved.", False, False),
        ("CC-BY-NC-SA-ND", False, False),
        ("CC BY NoDeriv", False, False),
        ("personal use only", False, False),
        ("non-commercial", False, False),
        ("by-nc", True, True),
    ],
)
def test_what_is_stated_and_not_understood_is_not_kept_by_default(said: str, theirs: bool, own: bool) -> None:
    assert (Filters().excludes(AssetRef("u", "s", said, ""), False) is None) is theirs
    assert (Filters().excludes(AssetRef("u", "s", said, ""), True) is None) is own
    assert Filters.parse(licence="any").excludes(AssetRef("u", "s", said, ""), False) is None


@given(refs)
def test_what_the_catalogue_does_not_say_is_left_to_the_mesh(ref: AssetRef) -> None:
    silent = replace(ref, triangles=None, animated=None)
    assert Filters(licences=("any",), animated=True, fewest=5, most=9).excludes(silent, True) is None


@given(st.integers(0, 20), st.booleans(), st.none() | st.booleans(), st.none() | st.integers(0, 20))
def test_the_mesh_is_judged_as_a_catalogue_that_is_right_would_be(
    triangles: int, animated: bool, asked: bool | None, fewest: int | None
) -> None:
    chosen = Filters(licences=("any",), animated=asked, fewest=fewest, most=15)
    said = AssetRef("u", "s", "unknown", "", triangles=triangles, animated=animated)
    if chosen.excludes(said, True) is None:
        chosen.check(mesh(triangles, animated))
        chosen.for_workers().check(mesh(triangles, animated))
        return
    for each in (chosen, chosen.for_workers()):
        with pytest.raises(Rejected) as error:
            each.check(mesh(triangles, animated))
        assert error.value.reason == "filtered"


def test_both_ends_of_a_range_belong_to_it() -> None:
    chosen = Filters.parse(licence="any", triangles="5-9")
    kept = [n for n in range(12) if chosen.excludes(AssetRef("u", "s", "MIT", "", triangles=n), True) is None]
    assert kept == [5, 6, 7, 8, 9]
    assert Filters.parse(triangles="-9").excludes(AssetRef("u", "s", "MIT", "", triangles=0), True) is None


@given(filters, st.lists(refs, max_size=30), st.booleans())
def test_the_tally_counts_every_asset_once(chosen: Filters, listed: list[AssetRef], own: bool) -> None:
    tally = Tally(chosen)
    kept = list(tally.among(iter(listed), own))
    assert kept == [ref for ref in listed if chosen.excludes(ref, own) is None]
    assert tally.kept == len(kept)
    assert tally.kept + sum(tally.dropped.values()) == len(listed)
    assert set(tally.dropped) <= set(NAMES)
    assert (f"{len(listed) - len(kept):,} of {len(listed):,} assets" in tally.line()) == (len(kept) < len(listed))
    assert all("\n" not in text for text in [tally.line(), *tally.remarks()])


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("500-200k", (500, 200_000)),
        ("500-", (500, None)),
        ("-1.5", None),
        ("-200_000", (None, 200_000)),
        (" 1,000 - 2M ", (1000, 2_000_000)),
        ("7-7", (7, 7)),
        ("9-5", None),
        ("500", None),
        ("-", None),
        ("", None),
        ("a-b", None),
        ("1--2", None),
        ("9" * 20 + "-", None),
    ],
)
def test_ranges_of_triangles(text: str, bounds: tuple[int | None, int | None] | None) -> None:
    if bounds is not None:
        chosen = Filters.parse(triangles=text)
        assert (chosen.fewest, chosen.most) == bounds
        return
    with pytest.raises(ValueError, match="--triangles"):
        Filters.parse(triangles=text)


@pytest.mark.parametrize(
    ("licence", "message"),
    [
        ("redistributble", "did you mean redistributable"),
        ("comercial", "did you mean commercial"),
        ("CC-BY-NCC-4.0", r"did you mean CC-BY-NC-4\.0"),
        ("any,zzzzzz", "'zzzzzz' is no licence that is known"),
        (" ,", "is empty"),
    ],
)
def test_a_licence_that_is_none_is_refused_by_its_nearest_name(licence: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Filters.parse(licence=licence)
    assert "\n" not in str(error.value)


def test_spellings_of_a_category_are_one() -> None:
    chosen = Filters.parse(category=["Alarm clock", "chair,alarm-clock"])
    assert chosen.categories == ("alarm_clock", "chair")
    for name in ("alarm_clock", "Alarm Clock", "ALARM-CLOCK"):
        assert chosen.excludes(AssetRef("u", "s", "MIT", "", categories=(name,)), True) is None
    assert chosen.excludes(AssetRef("u", "s", "MIT", "", categories=("clock",)), True) == "category"
    assert chosen.excludes(AssetRef("u", "s", "MIT", ""), True) == "category"


def test_a_list_of_uids_is_its_content_however_it_is_written(tmp_path: Path) -> None:
    written = {
        "a.txt": "# ours\nu1\n\n  u2  \nu1\r\none/u3\n",
        "plain": "\ufeffone/u3\nu2\nu1",
        "c.csv": 'name,uid\n"x,y",u1\n,u2\n,one/u3\n,\n',
        "d.json": '["u2", "one/u3", "u1"]',
    }
    said = []
    for name, text in written.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        chosen = Filters.parse(only=tmp_path / name)
        said.append(chosen.to_json())
        assert name not in json.dumps(said[-1])
        kept = [
            (source, uid)
            for source in ("one", "two")
            for uid in ("u1", "u2", "u3")
            if chosen.excludes(AssetRef(uid, source, "MIT", ""), False) is None
        ]
        assert kept == [("one", "u1"), ("one", "u2"), ("one", "u3"), ("two", "u1"), ("two", "u2")]
    assert all(each == said[0] for each in said)
    assert said[0]["only"]["uids"] == 3
    (tmp_path / "a.txt").write_text("u1\nu2\n")
    assert Filters.parse(only=tmp_path / "a.txt").to_json() != said[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"# nothing\n", "names no asset"),
        ("a.txt", b"\xff\xfe\x00", "is not UTF-8"),
        ("a.csv", b"uuid,x\n1,2\n", "did you mean 'uuid'"),
        ("a.csv", b"x,y\n1,2\n", "no column uid"),
        ("a.json", b"{", "--without"),
        ("a.json", b'{"a": 1}', "is no list of texts"),
        ("a.json", b"[" * 100_000, "--without"),
    ],
)
def test_a_file_that_lists_no_uids_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        Filters.parse(without=tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_of_uids_that_is_none_or_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--only .* does not exist"):
        Filters.parse(only=tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="is no file"):
        Filters.parse(only=tmp_path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"has 1,099,511,627,776 bytes"):
        Filters.parse(only=tmp_path / "large")


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json"])
def test_a_list_that_is_too_long_is_not_read_to_its_end(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.sources.uid_lists.MOST", 1000)
    uids = [f"u{i}" for i in range(200_000)]
    written = {"a.txt": "\n".join(uids), "a.csv": "\n".join(["uid", *uids]), "a.json": json.dumps(uids)}
    (tmp_path / name).write_text(written[name])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="split the job") as error:
            Filters.parse(only=tmp_path / name)
        assert "\n" not in str(error.value)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(written[name])  # a list of them takes 30 times as much
    finally:
        tracemalloc.stop()


def test_what_is_asked_for_and_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "uids").write_text("objects-s0-000001\nobjects-s0-000099\n")
    tally = Tally(Filters.parse(only=tmp_path / "uids"))
    assert [ref.uid for ref in tally.of(parse("procedural:objects?count=3"))] == ["objects-s0-000001"]
    assert tally.remarks() == ["1 of the 2 uids of --only are in no source, such as objects-s0-000099"]
    assert tally.line() == "2 of 3 assets filtered out: only 2"
    tally = Tally(Filters.parse(category="chiar"))
    assert not list(tally.among([AssetRef("u", "s", "MIT", "", categories=("chair",))], True))
    assert tally.remarks() == ["no asset has the category 'chiar': did you mean 'chair'?"]


def test_the_line_names_the_licences_that_were_dropped() -> None:
    tally = Tally(Filters())
    said = ["by-nd", "by-nd", "by", "Other"]
    assert len(list(tally.among([AssetRef(str(i), "s", each, "") for i, each in enumerate(said)], False))) == 1
    assert tally.line() == "3 of 4 assets filtered out: licence 3 (CC-BY-ND-4.0 2, unknown 1)"
    assert licences.normal("by-nd") == "CC-BY-ND-4.0"
