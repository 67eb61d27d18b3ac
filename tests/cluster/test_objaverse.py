"""`objaverse:` against a server that answers like the hub, by the package's own annotation functions."""

import gzip
import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import objaverse
import pytest

import shards
from cluster import sources
from cluster.dataset import Means, render_dataset
from cluster.sources import hub as catalogues
from cluster.sources.base import Unavailable
from cluster.sources.filters import Filters
from cluster.sources.objaverse import ObjaverseSource
from render import Rejected
from tests.cluster.boxes import SETTINGS
from tests.cluster.conftest import ledger
from tests.cluster.hub import OBJAVERSE, QUICK, Hub, glb, packed, serving

LICENCES = ["by", "by-nc", "by-nc-sa", "by-sa", "cc0", "by-nd"]
LVIS = {"chair": [0, 3, 7], "armchair": [3], "car_(automobile)": [8], "Christmas_tree": [5], "ghost": [999]}


def uid(index: int) -> str:
    return hashlib.md5(str(index).encode()).hexdigest()


def path(index: int) -> str:
    return f"glbs/000-{index % 3:03d}/{uid(index)}.glb"


def annotation(index: int) -> dict[str, Any]:
    return {
        "uid": uid(index),
        "name": f"thing {index}",
        "license": LICENCES[index % len(LICENCES)],
        "faceCount": 100 * index,
        "animationCount": index % 2,
        "categories": [{"name": "furniture-home"}],
        "tags": [{"name": f"tag{index}", "slug": "x"}, {"name": "furniture-home"}],
        "description": "long " * 200,
    }


@pytest.fixture(scope="module")
def shop() -> Iterator[Hub]:
    """Twelve objects in three folders."""
    with serving() as hub:
        indices = range(12)
        hub.put(OBJAVERSE + "object-paths.json.gz", packed({uid(i): path(i) for i in indices}), linked=True)
        lvis = {name: [uid(i) for i in members] for name, members in LVIS.items()}
        hub.put(OBJAVERSE + "lvis-annotations.json.gz", packed(lvis), linked=True)
        for folder in range(3):
            members = {uid(i): annotation(i) for i in indices if i % 3 == folder}
            hub.put(OBJAVERSE + f"metadata/000-{folder:03d}.json.gz", packed(members), linked=True)
        for i in indices:
            hub.put(OBJAVERSE + path(i), glb(i), linked=True)
        yield hub


def parse(text: str, cache: Path | None = None) -> ObjaverseSource:
    if cache is not None:
        text += f"{'&' if '?' in text else '?'}cache={cache}"
    found = sources.parse(text)
    assert isinstance(found, ObjaverseSource)
    return replace(found, policy=QUICK)


def uids(source: ObjaverseSource) -> list[str]:
    return [ref.uid for ref in source.assets()]


def test_all_objects_are_listed_in_the_order_of_their_paths(hub: Hub, tmp_path: Path) -> None:
    source = parse("objaverse:all")
    refs = list(source.assets())
    assert [ref.locator for ref in refs] == sorted(path(i) for i in range(12))
    by_uid = {ref.uid: ref for ref in refs}
    for i in range(12):
        ref = by_uid[uid(i)]
        assert ref.source == "objaverse"
        assert ref.sha256 is None
        assert ref.triangles == (100 * i or None)
        assert ref.animated is (i % 2 == 1)
        assert ref.categories == ("furniture-home", f"tag{i}")
    names = ["CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-SA-4.0", "CC0-1.0", "CC-BY-ND-4.0"]
    assert [by_uid[uid(i)].licence for i in range(6)] == names
    assert uids(source) == [ref.uid for ref in refs]


def test_catalogues_are_brought_once(hub: Hub, tmp_path: Path) -> None:
    first = uids(parse("objaverse:all", tmp_path / "cache"))
    brought = len(hub.asked)
    assert brought == 2 * 4  # the paths and three folders, each by way of the CDN
    assert uids(parse("objaverse:all", tmp_path / "cache")) == first
    assert len(hub.asked) == brought


def test_the_package_reads_what_we_brought(hub: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    """So the layout is that of the package: nothing is left for it to download."""
    list(parse("objaverse:lvis").assets())
    monkeypatch.setattr(objaverse, "_VERSIONED_PATH", str(tmp_path / "home" / "hf-objaverse-v1"))
    monkeypatch.setattr("urllib.request.urlretrieve", None)
    chosen = [uid(i) for i in (0, 3, 5, 7, 8)]
    assert objaverse.load_annotations(chosen) == {uid(i): annotation(i) for i in (0, 3, 5, 7, 8)}
    assert len(objaverse.load_lvis_annotations()) == len(LVIS)


def test_start_and_count_cut_from_that_order_and_read_no_more(hub: Hub) -> None:
    everything = uids(parse("objaverse:all"))
    for start, count in ((0, 3), (2, 5), (10, 100), (11, None)):
        more = f"&count={count}" if count else ""
        assert uids(parse(f"objaverse:all?start={start}{more}")) == everything[start : start + (count or 99)]
    with pytest.raises(ValueError, match="holds no object"):
        uids(parse("objaverse:all?start=12"))


def test_only_the_annotations_needed_are_brought(hub: Hub) -> None:
    uids(parse("objaverse:all?count=4"))
    folders = [each for each in hub.paths() if "/metadata/" in each and each.startswith(OBJAVERSE)]
    assert folders == [OBJAVERSE + "metadata/000-000.json.gz"]


def test_lvis_and_its_categories(hub: Hub) -> None:
    in_order = sorted(range(12), key=path)
    assert uids(parse("objaverse:lvis")) == [uid(i) for i in in_order if i in (0, 3, 5, 7, 8)]
    refs = {ref.uid: ref for ref in parse("objaverse:lvis?category=chair,armchair").assets()}
    assert set(refs) == {uid(0), uid(3), uid(7)}
    assert refs[uid(3)].categories[:2] == ("chair", "armchair")
    assert uids(parse("objaverse:lvis?category=CAR_(automobile),christmas tree")) == [uid(i) for i in (8, 5)]


def test_an_unknown_category_names_the_nearest(hub: Hub) -> None:
    with pytest.raises(ValueError, match=r"unknown category 'armchiar': did you mean 'armchair'\?"):
        uids(parse("objaverse:lvis?category=armchiar"))


def test_a_list_of_uids(hub: Hub, tmp_path: Path) -> None:
    listed = tmp_path / "mine.txt"
    listed.write_text(f"# mine\n{uid(4)}\nobjaverse/{uid(1)}\n{'0' * 32}\n")
    source = parse(f"objaverse:uids?file={listed}")
    assert sorted(uids(source)) == sorted([uid(4), uid(1)])
    assert [each for each in hub.paths() if each.startswith(OBJAVERSE + "metadata")] == [
        OBJAVERSE + "metadata/000-001.json.gz"
    ]
    with pytest.raises(FileNotFoundError, match=r"nothere.txt does not exist"):
        parse("objaverse:uids?file=nothere.txt")


@pytest.mark.parametrize(
    "text",
    [
        "objaverse:all",
        "objaverse:all?start=3&count=2",
        "objaverse:lvis?category=chair,a%26b",
        "objaverse:lvis?category=car_(automobile)&count=7",
    ],
)
def test_the_text_gives_the_same_source_again(hub: Hub, tmp_path: Path, text: str) -> None:
    source = parse(text)
    assert parse(source.text) == source
    assert parse(text, tmp_path).text == source.text  # where downloads are kept changes nothing of the dataset
    assert pickle.loads(pickle.dumps(source)) == source


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("objaverse:lvsi", r"unknown set 'lvsi': did you mean 'lvis'\?"),
        ("objaverse:", "unknown set ''"),
        ("objaverse:all?cuont=3", r"unknown key 'cuont': did you mean 'count'\?"),
        ("objaverse:all?count=0", "at least 1"),
        ("objaverse:all?count=3&count=4", "twice"),
        ("objaverse:all?cache=", "empty"),
        ("objaverse:lvis?category=,", "empty"),
        ("objaverse:all?category=chair", "category belongs to objaverse:lvis"),
        ("objaverse:uids", "needs one"),
        ("objaverse:all?file=x", "belongs to objaverse:uids"),
        ("objavrse:all", r"did you mean objaverse:...\?"),
    ],
)
def test_what_is_wrong_with_a_text(hub: Hub, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["huggingface.co", "ftp://x", "https://me:hf_secret@host"])
def test_a_wrong_endpoint_is_named(hub: Hub, monkeypatch: Any, text: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", text)
    with pytest.raises(ValueError, match="HF_ENDPOINT") as caught:
        parse("objaverse:all")
    assert "hf_secret" not in str(caught.value)


def test_a_catalogue_that_cannot_be_had_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    hub.ill(OBJAVERSE + "object-paths.json.gz", "status", 503)
    with pytest.raises(OSError, match=r"HTTP 503.*check the network") as caught:
        uids(parse("objaverse:all"))
    assert "\n" not in str(caught.value)
    hub.ills.clear()
    hub.ill(OBJAVERSE + "metadata/000-001.json.gz", "html")
    with pytest.raises(OSError, match="HTML"):
        uids(parse("objaverse:all"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        packed({"a": 1})[:-4],
        packed([1, 2]),
        packed({"a": "../../etc/x.glb"}),
        packed({"a": "glbs/000-000/b.glb"}),
        packed({"a": {}}),
        gzip.compress(b"[" + b"{}," * 5_100_000 + b"{}]", 1),  # a gigabyte as objects
        gzip.compress(b"[" * 100_000, 1),
    ],
)
def test_a_damaged_catalogue_says_which_file(hub: Hub, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "cache" / "hf-objaverse-v1" / "object-paths.json.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"object-paths.json.gz.*delete it"):
        uids(parse("objaverse:all", tmp_path / "cache"))


def test_strange_annotations_cost_what_they_say_and_no_more(hub: Hub, tmp_path: Path) -> None:
    strange: Any = [
        {"license": None, "faceCount": "12", "animationCount": True, "categories": "x", "tags": [{"name": 5}, 3, {}]},
        {"license": ["by"], "faceCount": -5, "tags": [{"name": "t" * 1000}] + [{"name": f"{i}"} for i in range(99)]},
        "nothing",
    ]
    members = dict(zip([uid(i) for i in (0, 3, 6)], strange))
    file = tmp_path / "cache" / "hf-objaverse-v1" / "metadata" / "000-000.json.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(packed(members))  # object 9 is missing
    refs = {ref.uid: ref for ref in parse("objaverse:all", tmp_path / "cache").assets()}
    for i in (0, 3, 6, 9):
        ref = refs[uid(i)]
        assert (ref.licence, ref.triangles, ref.animated) == ("unknown", None, None)
        assert len(ref.categories) <= 32
        assert all(len(name) <= 64 for name in ref.categories)


def test_fetch_and_load(hub: Hub, tmp_path: Path) -> None:
    source = parse("objaverse:all")
    refs = {ref.uid: ref for ref in source.assets()}
    folder = tmp_path / "new"
    folder.mkdir()
    name = source.fetch(refs[uid(2)], folder)
    assert [each.name for each in folder.iterdir()] == [name]
    mesh, origin = source.load(refs[uid(2)], folder / name)
    assert len(mesh.faces) == 12
    assert origin.sha256 == hashlib.sha256(glb(2)).hexdigest()
    assert (origin.uid, origin.source, origin.licence) == (uid(2), "objaverse", "CC-BY-NC-SA-4.0")
    assert not (tmp_path / "home" / "hf-objaverse-v1" / "glbs").exists()  # objects are not kept unless asked


def test_a_cache_keeps_objects_and_is_used(hub: Hub, tmp_path: Path) -> None:
    source = parse("objaverse:all", tmp_path / "cache")
    ref = next(iter(source.assets()))
    folders = [tmp_path / f"new{index}" for index in range(3)]
    for folder in folders:
        folder.mkdir()
        if folder is folders[1]:
            hub.asked.clear()
        if folder is folders[2]:  # a download of another program that was cut off
            kept = tmp_path / "cache" / "hf-objaverse-v1" / ref.locator
            kept.write_bytes(kept.read_bytes()[:-9])
        source.fetch(ref, folder)
    data = [(folder / f"{ref.uid}.glb").read_bytes() for folder in folders]
    assert data[0] == data[1] == data[2]
    assert len(hub.asked) == 2  # for the last one


def test_objects_of_the_packages_own_cache_are_not_brought(hub: Hub, tmp_path: Path) -> None:
    source = parse("objaverse:all", tmp_path / "cache")
    ref = next(iter(source.assets()))
    kept = tmp_path / "home" / "hf-objaverse-v1" / ref.locator
    kept.parent.mkdir(parents=True)
    kept.write_bytes(glb(77))
    hub.asked.clear()
    (tmp_path / "new").mkdir()
    name = source.fetch(ref, tmp_path / "new")
    assert (tmp_path / "new" / name).read_bytes() == glb(77)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("how", "what", "error", "said"),
    [
        ("status", 404, Rejected, "missing"),
        ("status", 403, Rejected, "forbidden"),
        ("status", 429, Unavailable, "HTTP 429"),
        ("html", None, Unavailable, "HTML"),
    ],
)
def test_what_becomes_of_objects_that_cannot_be_had(
    hub: Hub, tmp_path: Path, how: str, what: Any, error: type, said: str
) -> None:
    source = parse("objaverse:all")
    ref = next(iter(source.assets()))
    hub.ill(OBJAVERSE + ref.locator, how, what)
    (tmp_path / "new").mkdir()
    with pytest.raises(error, match=said):
        source.fetch(ref, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_an_object_that_the_hub_serves_wrong_is_rejected(hub: Hub, tmp_path: Path) -> None:
    """Its sha256 comes with the redirection."""
    source = parse("objaverse:all")
    ref = next(iter(source.assets()))
    hub.ill("/cdn" + OBJAVERSE + ref.locator, "wrong")
    (tmp_path / "new").mkdir()
    with pytest.raises(Rejected, match="checksum"):
        source.fetch(ref, tmp_path / "new")


def test_a_dataset_of_objaverse(hub: Hub, local_ray: None, tmp_path: Path) -> None:
    """Through the job: one object is gone, one is throttled for longer than a fetch tries, one is served wrong."""
    source = parse("objaverse:all?start=2&count=5")
    gone, throttled, wrong, *fine = source.assets()
    address = OBJAVERSE + throttled.locator
    hub.ill(OBJAVERSE + gone.locator, "status", 404)
    hub.ill(address, "status", (429, {"Retry-After": "0"}), times=QUICK.attempts + 1)
    hub.ill("/cdn" + OBJAVERSE + wrong.locator, "wrong")
    out = tmp_path / "out"
    means, filters = Means(workers=2, fetchers=3), Filters.parse(licence="any")
    render_dataset([source], out, SETTINGS, shard_views=8, means=means, filters=filters)
    rows = {row["asset"]: row for row in ledger(out)}
    said = {asset: (row["status"], row["reason"]) for asset, row in rows.items()}
    assert said == {
        gone.uid: ("rejected", "missing"),
        wrong.uid: ("rejected", "checksum"),
        **{ref.uid: ("done", None) for ref in (throttled, *fine)},
    }
    assert hub.paths().count(address) == QUICK.attempts + 2
    index = {uid(i): i for i in range(12)}
    for sample in shards.read_manifest(out).to_pylist():
        sha256 = hashlib.sha256(glb(index[sample["asset"]])).hexdigest()
        assert sample["asset_sha256"] == sha256 == rows[sample["asset"]]["sha256"]


def test_sources_do_not_import_what_they_do_not_use() -> None:
    code = "import json, sys, cluster.sources; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"requests", "pandas", "objaverse"} & set(loaded)


def test_a_catalogue_that_unfolds_to_gigabytes_of_objects_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b"[" + b"{}," * 5_100_000 + b"{}]", 1))
    with pytest.raises(ValueError, match=r"holds more than 10,000,000 values\): delete it"):
        catalogues.read_json(path)
