"""What a source lists, and what it says of a text that is none."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import shards
from cluster.sources import FileSource, ProceduralSource, common_regime, parse
from cluster.sources.base import uid_of
from cluster.sources.filters import Filters, Tally
from render import Rejected


def test_a_procedural_source_lists_what_its_query_says() -> None:
    source = parse("procedural:objects?count=3&start=5")
    assert source == ProceduralSource("objects", count=3, start=5)
    refs = list(source.assets())
    assert [ref.uid for ref in refs] == ["objects-s0-000005", "objects-s0-000006", "objects-s0-000007"]
    assert {ref.licence for ref in refs} == {"CC0-1.0"}
    assert parse(source.text) == source


def test_recipes_differ_by_kind_seed_and_index_and_by_nothing_else() -> None:
    texts = ["objects?count=2", "objects?count=2&seed=1", "rooms?count=2", "actors?count=2", "objects?count=2&start=2"]
    hashes = [ref.sha256 for text in texts for ref in parse(f"procedural:{text}").assets()]
    assert len(set(hashes)) == 10
    longer = [ref.sha256 for ref in parse("procedural:objects?count=9").assets()]
    assert longer[:4] == hashes[:2] + hashes[-2:]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("procedural:objets", "did you mean procedural:objects"),
        ("procedural:objects?cuont=3", "did you mean 'count'"),
        ("procedural:objects?zzz=3", "the keys are count, start, seed"),
        ("procedural:objects?count=0", "count is '0'"),
        ("procedural:objects?count=-1", "count is '-1'"),
        ("procedural:objects?count=", "count is ''"),
        ("procedural:objects?count=2&count=3", "gives 'count' twice"),
        ("procedual:objects", "did you mean procedural:"),
        ("nowhere/at/all", "does not exist"),
    ],
)
def test_a_text_that_is_no_source_is_refused_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        parse(text)
    assert "\n" not in str(error.value)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "pack" / "models"
    for name in (
        "b/chair.GLB",
        "a.obj",
        "a.mtl",
        "b/chair.bin",
        "z.json",
        ".hidden/x.glb",
        "b/._chair.glb",
        "photo.png",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "pack" / "MANIFEST.csv").write_text("path,licence\nmodels/a.obj,CC-BY-4.0\nmodels/z.json,\n")
    return folder


def test_a_folder_lists_its_3d_files_and_not_their_companions(models: Path) -> None:
    refs = list(parse(str(models)).assets())
    assert [ref.uid for ref in refs] == ["a.obj", "z.json", "b/chair.GLB"]
    assert [ref.licence for ref in refs] == ["CC-BY-4.0", "unknown", "unknown"]
    assert {ref.source for ref in refs} == {"folder:models"}
    assert refs[0].sha256 == hashlib.sha256(b"a.obj").hexdigest()
    assert list(parse(f"{models}/").assets()) == refs


def test_a_file_is_a_source_of_one(models: Path) -> None:
    (ref,) = parse(str(models / "a.obj")).assets()
    assert (ref.uid, ref.licence, ref.source) == ("a.obj", "CC-BY-4.0", "folder:models")
    with pytest.raises(ValueError, match="is no 3D file"):
        parse(str(models / "photo.png"))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(ValueError, match="holds no 3D file"):
        list(FileSource(str(tmp_path)).assets())


def test_a_dataset_in_the_folder_is_no_asset_of_it(models: Path) -> None:
    refs = list(parse(str(models)).assets())
    (models / "b" / "out" / "units").mkdir(parents=True)
    (models / "b" / "out" / "units" / "000000-aa.json").write_text("{}")
    (models / "b" / "out" / ".render.lock").touch()  # as while the job runs that lists
    assert list(parse(str(models)).assets()) == refs
    (models / "b" / "out" / ".render.lock").unlink()
    shards.write_dataset_json(models / "b" / "out", {"layers": 6, "size": [8, 8]})
    assert list(parse(str(models)).assets()) == refs
    (models / "b" / "dataset.json").write_text("{}")  # of something else
    assert "b/dataset.json" in {ref.uid for ref in parse(str(models)).assets()}


def test_what_is_no_regular_file_is_listed_and_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.obj")
    (tmp_path / "b.obj").symlink_to("b.obj")
    (tmp_path / "c.obj").symlink_to("nowhere")
    source = parse(str(tmp_path))
    refs = list(source.assets())
    assert [(ref.uid, ref.sha256) for ref in refs] == [("a.obj", None), ("b.obj", None), ("c.obj", None)]
    for ref in refs:
        with pytest.raises(Rejected) as error:
            source.load(ref, None)
        assert error.value.reason == "unreadable"


def test_a_link_out_of_the_folder_is_rejected_unopened(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = models.parent / "secret.glb"
    secret.write_text("secret")
    (models / "b" / "link.glb").symlink_to("../../secret.glb")
    (models / "b" / "zero.obj").symlink_to("/dev/zero")
    (models / "c.obj").symlink_to("a.obj")
    (models.parent / "door").symlink_to(models)
    for path in (models, models.parent / "door"):
        source = parse(str(path))
        refs = {ref.uid: ref for ref in source.assets()}
        assert refs["c.obj"].sha256 == refs["a.obj"].sha256
        for name in ("b/link.glb", "b/zero.obj"):
            assert refs[name].sha256 is None
            with pytest.raises(Rejected, match="leads out of") as error:
                source.load(refs[name], None)
            assert error.value.reason == "path_outside_folder"
    monkeypatch.setattr("render.load", lambda path: path)
    given = parse(str(models / "b" / "link.glb"))  # by the user
    (ref,) = given.assets()
    assert given.load(ref, None)[0] == ref.locator


def test_a_file_that_changes_or_goes_after_the_listing_is_rejected(models: Path) -> None:
    source = parse(str(models))
    changed, gone, _ = source.assets()
    Path(changed.locator).write_text("other")
    Path(gone.locator).unlink()
    for ref, reason in ((changed, "changed"), (gone, "unreadable")):
        with pytest.raises(Rejected) as error:
            source.load(ref, None)
        assert error.value.reason == reason


def test_folder_spells_a_path_whatever_it_begins_with(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parse(f"folder:{models}") == parse(str(models))
    models.rename(tmp_path / "s3:models")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"unknown scheme 's3'.*a folder of that name: \./s3:models"):
        parse("s3:models")
    source = parse("folder:s3:models")
    assert source.text == "folder:s3:models"
    assert source == parse(source.text) == parse("./s3:models")
    assert [ref.uid for ref in source.assets()] == ["a.obj", "z.json", "b/chair.GLB"]


@pytest.mark.parametrize("slow", [0.0, 1e9])
def test_hashes_belong_to_their_files_whether_threads_read_them_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    monkeypatch.setattr("cluster.sources.files._SLOW", slow)
    monkeypatch.setattr("cluster.sources.files._BLOCK", 50)
    for index in range(130):
        (tmp_path / f"{index:03d}.obj").write_text(f"{index}" * (index + 1))
    os.mkfifo(tmp_path / "077.ply")
    expected = {path.name: path for path in sorted(tmp_path.iterdir())}
    refs = list(parse(str(tmp_path)).assets())
    assert [ref.uid for ref in refs] == list(expected)
    for ref in refs:
        fifo = ref.uid == "077.ply"
        assert ref.sha256 == (None if fifo else hashlib.sha256(expected[ref.uid].read_bytes()).hexdigest())


def test_a_table_may_state_more_than_licences_and_damaged_rows_cost_only_themselves(models: Path) -> None:
    (models / "MANIFEST.csv").write_text(
        "path,licence,triangles,animated,category\n"
        "a.obj,CC BY-NC 4.0,120,Yes,chair; Alarm clock\n"
        "b/chair.GLB,all of ours,-3,maybe,\n"
        "z.json\n\n../outside.obj,by\n"
    )
    refs = {ref.uid: ref for ref in parse(str(models)).assets()}
    said = [(ref.licence, ref.triangles, ref.animated, ref.categories) for ref in refs.values()]
    assert said == [
        ("CC-BY-NC-4.0", 120, True, ("chair", "Alarm clock")),
        ("unknown", None, None, ()),
        ("all of ours", None, None, ()),
    ]


@pytest.mark.parametrize(
    "table",
    [
        b"\xef\xbb\xbfpath,licence\na.obj,CC-BY-ND-4.0\n",  # as Excel writes it
        b"path,license\na.obj,CC-BY-ND-4.0\n",
        b'"Path", Licence \r\n a.obj , CC-BY-ND-4.0 \r\n',
        b'path;licence;category\na.obj;CC-BY-ND-4.0;"one;two"\n',
        b"path\tlicence\na.obj\tCC-BY-ND-4.0\n",
        "path,licence\na.obj,CC-BY-ND-4.0\n".encode("utf-16"),
        b"path,licence\nb\\..\\a.obj,CC-BY-ND-4.0\n",
        b"path,licence\na.obj,CC-BY-ND-4.0\na.obj,\n./a.obj,CC0\n",
        b"path,licence\n./a.obj,CC0\nb/../a.obj,by-nd\nlink.obj,MIT\n",
        b'path,licence\na.obj,"CC-BY-ND 4.0, all rights reserved"\n',
    ],
)
def test_what_a_table_forbids_is_not_rendered_however_it_is_written(models: Path, table: bytes) -> None:
    (models / "link.obj").symlink_to(models / "a.obj")
    (models / "MANIFEST.csv").write_bytes(table)
    tally = Tally(Filters())
    kept = [ref.uid for ref in tally.of(parse(str(models)))]
    assert kept
    assert "a.obj" not in kept
    assert tally.dropped["licence"] >= 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"path,lisence\na.obj,CC0\n", "no column 'licence' \\(did you mean 'lisence'"),
        (b"file,licence\na.obj,CC0\n", "no column 'path'"),
        (b"path,licence,license\na.obj,CC0,ND\n", "several columns 'licence'"),
        (b"", "no column 'path'"),
        (b'path,licence\n"a.obj,CC-BY-ND-4.0\nz.json,CC0\n', "line 3"),
        (b'path,licence\na.obj,"CC0\nz.json,"\n', "several lines"),
        (b"path,licence\na.obj,CC BY 4.0, no derivatives\n", "has 3 fields, the header 2"),
        (b"path,licence\na.obj,by-nd\nz.json," + b"x" * 140_000, "line 3.*field limit"),
        (b"path,licence\na.obj,caf\xe9\n", "no UTF-8 text"),
        ("path,licence\na.obj,CC0\n".encode("utf-16-le"), "no column"),
    ],
)
def test_a_table_that_cannot_be_understood_is_an_error(models: Path, table: bytes, message: str) -> None:
    (models / "MANIFEST.csv").write_bytes(table)
    with pytest.raises(ValueError, match=rf"MANIFEST\.csv.*{message}") as error:
        list(parse(str(models)).assets())
    assert "\n" not in str(error.value)


def test_names_that_are_no_text_become_uids_that_are(tmp_path: Path) -> None:
    names = [b"a\xff.obj", b"a\xfe.obj", b"a\\xff.obj", b"b\x1b[31m\n.obj", b"d\xff/c.obj", "é.obj".encode()]
    for name in names:
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    source = parse(str(tmp_path))
    refs = list(source.assets())
    uids = {ref.uid for ref in refs}
    assert len(uids) == len(refs) == len(names)
    assert {"a\\xff.obj", "é.obj"} <= uids
    assert all(uid.isprintable() and uid.encode().decode() == uid for uid in uids)
    assert uids == {ref.uid for ref in source.assets()}
    for ref in refs:
        mesh, origin = source.load(ref, None)
        assert (len(mesh.faces), origin.uid) == (1, ref.uid)
    with pytest.raises(ValueError, match="is no text") as error:
        parse(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"d\xff")))
    assert str(error.value).isprintable()


@example("\ud800", "\\ud800")
@example("\x1b", "\x9b")
@given(st.text(st.characters(), max_size=8), st.text(st.characters(), max_size=8))
def test_different_names_are_different_uids(one: str, other: str) -> None:
    assert (uid_of(one) == uid_of(other)) == (one == other)
    assert uid_of(one).encode().decode() == uid_of(uid_of(one))


def test_rows_that_name_no_asset_are_told(models: Path) -> None:
    rows = "a.obj,by\nb/chiar.glb,by\ngone.ply,by\nreadme.txt,by\n../other.obj,by\n"
    (models / "MANIFEST.csv").write_text(f"path,licence\n{rows}")
    tally = Tally(Filters())
    assert len(list(tally.of(parse(str(models))))) == 3
    where = models.resolve()
    assert tally.remarks() == [
        f"{where / 'MANIFEST.csv'} names 2 files that are not there, such as {where / 'b' / 'chiar.glb'}"
    ]
    tally = Tally(Filters())
    assert len(list(tally.of(parse(str(models / "a.obj"))))) == 1
    assert not tally.remarks()


def test_sources_of_one_job_share_a_regime() -> None:
    objects, rooms = parse("procedural:objects"), parse("procedural:rooms")
    assert common_regime([objects, objects]) == "object"
    assert common_regime([rooms]) == "scene"
    with pytest.raises(ValueError, match=r"as object.*as scene.*separate jobs"):
        common_regime([objects, rooms])


def test_a_file_that_announces_a_terabyte_is_listed_at_once_and_rejected(tmp_path: Path) -> None:
    with (tmp_path / "a.obj").open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    source = FileSource(str(tmp_path))
    (ref,) = source.assets()
    assert ref.sha256 is None
    with pytest.raises(Rejected, match=r"file_too_large: a\.obj has 1099511627776 bytes"):
        source.load(ref, None)
