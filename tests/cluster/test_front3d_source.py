"""`front3d:`: rooms listed and loaded, from folders and from archives, and what is said of others."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import worldtrace
from cluster.scratch import private_folder
from cluster.sources import Source, extract, parse, trees
from cluster.sources.filters import Filters, Tally
from cluster.sources.front3d import Front3dSource
from render import Mesh, Rejected
from tests.cluster.houses import House, child, house, write_files

ROOMS = ["house-a/LivingRoom-1", "house-a/Bedroom-2", "house-a/Library-3"]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return house().write(tmp_path / "plain")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return house().write(tmp_path / "packed", packed=True)


def meshes(source: Source) -> list[Mesh]:
    return [source.load(ref, None)[0] for ref in source.assets()]


def refused(source: Source, uid: str) -> str:
    ref = next(ref for ref in source.assets() if ref.uid == uid)
    with pytest.raises(Rejected) as error:
        source.load(ref, None)
    return error.value.reason


def test_rooms_are_listed_in_the_order_of_their_house(plain: Path) -> None:
    other = house()
    other.name = "house-0"
    other.write(plain)
    source = parse(f"front3d:{plain}")
    refs = list(source.assets())
    assert [ref.uid for ref in refs] == [room.replace("house-a", "house-0") for room in ROOMS] + ROOMS
    assert [ref.categories for ref in refs[:3]] == [("LivingRoom",), ("Bedroom",), ("Library",)]
    assert source.regime == "scene"
    assert source.own_terms
    assert not source.remote
    assert len({ref.sha256 for ref in refs}) == 6  # the same rooms of another house are other assets
    assert list(source.assets()) == refs
    assert parse(source.text) == source == pickle.loads(pickle.dumps(source))


def test_rooms_can_be_filtered_and_their_terms_are_the_user_s(plain: Path) -> None:
    source = parse(f"front3d:{plain}")
    assert [ref.uid for ref in Tally(Filters.parse()).of(source)] == ROOMS
    assert [ref.uid for ref in Tally(Filters.parse(category="Bedroom")).of(source)] == ROOMS[1:2]
    assert not list(Tally(Filters.parse(licence="redistributable")).of(source))


def test_archives_and_folders_give_the_same_assets_and_bytes(plain: Path, packed: Path) -> None:
    one, other = parse(f"front3d:{plain}"), parse(f"front3d:{packed}")
    assert list(one.assets()) != []
    for a, b in zip(one.assets(), other.assets(), strict=True):
        assert (a.uid, a.sha256, a.licence, a.categories) == (b.uid, b.sha256, b.licence, b.categories)
        (mesh, origin), (twin, twin_origin) = one.load(a, None), other.load(b, None)
        assert origin == twin_origin
        assert origin.sha256 == a.sha256
        for name in ("vertices", "faces", "normals", "uv", "material"):
            np.testing.assert_array_equal(getattr(mesh, name), getattr(twin, name))
        assert mesh.room is not None
        assert twin.room is not None
        np.testing.assert_array_equal(mesh.room.furniture, twin.room.furniture)


def test_the_three_may_lie_anywhere_and_models_come_in_parts(plain: Path, packed: Path, tmp_path: Path) -> None:
    whole = list(parse(f"front3d:{plain}").assets())
    assert list(parse(f"front3d:{plain}/3D-FRONT").assets()) == whole  # the others lie beside
    parts = tmp_path / "a b+c"  # a plus sign is one
    for jid in ("model-chair", "model-lamp"):
        write_files(
            parts / jid,
            {f"x/{jid}/{path.name}": path.read_bytes() for path in (plain / "3D-FUTURE-model" / jid).iterdir()},
            packed=True,
        )
    shutil.move(packed / "3D-FRONT.zip", tmp_path / "houses.zip")
    shutil.move(packed / "3D-FRONT-texture.zip", tmp_path / "t.zip")
    future = "&".join(f"future={parts}/{jid}/x.zip" for jid in ("model-chair", "model-lamp"))
    source = parse(f"front3d:{tmp_path}/houses.zip?{future}&textures={tmp_path}/t.zip")
    assert [ref.sha256 for ref in source.assets()] == [ref.sha256 for ref in whole]
    assert parse(source.text) == source
    assert len(meshes(source)) == 3
    for number, jid in enumerate(("model-chair", "model-lamp"), 1):
        shutil.move(parts / jid / "x.zip", packed / f"3D-FUTURE-model-part{number}.zip")
    (packed / "3D-FUTURE-model.zip").unlink()
    shutil.move(tmp_path / "houses.zip", packed / "3D-FRONT.zip")
    shutil.move(tmp_path / "t.zip", packed / "3D-FRONT-texture.zip")
    found = parse(f"front3d:{packed}")
    assert isinstance(found, Front3dSource)
    assert len(found.future) == 2
    assert [ref.sha256 for ref in found.assets()] == [ref.sha256 for ref in whole]


def test_a_list_of_rooms_is_skipped(plain: Path, tmp_path: Path) -> None:
    skip = tmp_path / "bad rooms.txt"
    skip.write_text("# known to be bad\n\nhouse-a/Bedroom-2   # walls inside out\nhouse-z/LivingRoom-1\n")
    source = parse(f"front3d:{plain}?skip={skip}")
    assert [ref.uid for ref in source.assets()] == [ROOMS[0], ROOMS[2]]
    assert parse(source.text) == source
    skip.write_text("house-a\n")
    assert list(source.assets()) == []
    skip.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as text"):
        list(source.assets())


def test_loading_a_room_reads_what_it_needs_and_leaves_nothing(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    chunks = extract.Archive._chunks

    def noted(self: extract.Archive, name: str, limit: int) -> object:
        read.append(name)
        return chunks(self, name, limit)

    source = parse(f"front3d:{packed}")
    refs = list(source.assets())
    folders = []

    @contextmanager
    def watched(size: int | None = None) -> Iterator[Path]:
        with private_folder(size) as folder:
            folders.append(folder)
            yield folder
            assert [path.name for path in folder.glob("*/*")] == ["model-chair"]

    monkeypatch.setattr(extract.Archive, "_chunks", noted)
    monkeypatch.setattr(trees, "private_folder", watched)
    source.load(refs[1], None)
    assert sorted(read) == [
        "3D-FRONT/house-a.json",
        *(f"3D-FUTURE-model/model-chair/{name}" for name in ("model.mtl", "raw_model.obj", "texture.png")),
    ]
    assert len(folders) == 1
    assert not folders[0].exists()
    read.clear()
    assert len(list(source.assets())) == 3
    assert read == ["3D-FRONT/house-a.json"]  # of models and textures only the table


def test_files_that_change_after_the_listing_are_refused(plain: Path) -> None:
    source = parse(f"front3d:{plain}")
    refs = list(source.assets())
    model = plain / "3D-FUTURE-model" / "model-lamp" / "raw_model.obj"
    model.write_bytes(model.read_bytes() + b"\n# edited\n")
    with pytest.raises(Rejected, match="changed"):
        source.load(refs[0], None)
    assert source.load(refs[1], None)[1].sha256 == refs[1].sha256  # it has no lamp
    made = house()
    made.json["scene"]["room"][1]["children"].pop()
    made.write(plain)
    with pytest.raises(Rejected, match="changed"):
        source.load(refs[1], None)
    listed = list(source.assets())
    assert [a.sha256 == b.sha256 for a, b in zip(refs, listed)] == [False, False, False]
    made.json["scene"]["room"].clear()
    made.write(plain)
    with pytest.raises(Rejected, match="no_rooms"):
        source.load(refs[1], None)


def test_what_cannot_be_read_is_listed_and_ends_in_the_ledger(plain: Path) -> None:
    houses = plain / "3D-FRONT"
    data = (houses / "house-a.json").read_bytes()
    (houses / "b-cut.json").write_bytes(data[: len(data) // 2])
    (houses / "c-empty.json").write_bytes(b"")
    (houses / ".hidden.json").write_bytes(b"")
    made = house()
    made.name, made.json["furniture"][0]["jid"] = "d-climbs", "../../x"
    made.json["furniture"].append({"uid": "gone", "jid": "model-gone", "valid": True})
    made.json["scene"]["room"][1]["children"] = [child("gone"), child("bed/floor")]
    made.json["scene"]["room"].append({**made.json["scene"]["room"][1]})
    made.write(plain)
    source = parse(f"front3d:{plain}")
    by_uid = {ref.uid: ref for ref in source.assets()}
    assert list(by_uid)[:2] == ["b-cut", "c-empty"]
    assert "d-climbs/Bedroom-2#2" in by_uid  # one instanceid, two rooms
    assert by_uid["b-cut"].sha256 is by_uid["c-empty"].sha256 is None
    assert refused(source, "b-cut") in ("truncated", "corrupt")
    assert refused(source, "c-empty") == "truncated"
    assert refused(source, "d-climbs/LivingRoom-1") == "path_outside_folder"
    assert refused(source, "d-climbs/Bedroom-2") == "missing_model"
    (houses / "b-cut.json").write_bytes(data)  # it has become a house, which was not listed
    assert len(list(source.assets())) > len(by_uid)
    with pytest.raises(Rejected, match="changed"):
        source.load(by_uid["b-cut"], None)


def test_members_that_lie_cost_the_rooms_that_need_them(packed: Path) -> None:
    path = packed / "3D-FUTURE-model.zip"
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"model-lamp/raw_model.obj"))
    data[at + 8] |= 1  # encrypted
    path.write_bytes(data)
    source = parse(f"front3d:{packed}")
    assert refused(source, ROOMS[0]) == "encrypted"
    refs = {ref.uid: ref for ref in source.assets()}
    assert source.load(refs[ROOMS[1]], None)[0].room is not None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?futur=x", "did you mean 'future'"),
        ("?textures=", "gives no textures"),
        ("?textures=a&textures=b", "gives textures twice"),
        ("?textures=nowhere", "nowhere does not exist"),
        ("?skip=nowhere.txt", "nowhere.txt does not exist"),
    ],
)
def test_a_source_that_is_none_is_refused_in_one_sentence(query: str, message: str, plain: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        parse(f"front3d:{plain}{query}")
    assert "\n" not in str(error.value)


def test_a_missing_part_is_named(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        parse("front3d:nowhere")
    with pytest.raises(ValueError, match="names no folder or archive"):
        parse("front3d:")
    shutil.rmtree(plain / "3D-FRONT-texture")
    with pytest.raises(ValueError, match=r"no 3D-FRONT-texture .* add \?textures=PATH"):
        parse(f"front3d:{plain}")
    (plain / "3D-FRONT-texture").mkdir()
    shutil.rmtree(plain / "3D-FUTURE-model")
    with pytest.raises(ValueError, match=r"no 3D-FUTURE-model .* add \?future=PATH"):
        parse(f"front3d:{plain}")
    empty = tmp_path / "empty"
    for name in ("3D-FRONT", "3D-FUTURE-model", "3D-FRONT-texture"):
        (empty / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no house"):
        list(parse(f"front3d:{empty}").assets())
    (tmp_path / "broken.zip").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="cannot be read as a zip"):
        list(parse(f"front3d:{tmp_path}/broken.zip?future={empty}&textures={empty}").assets())


def _places(value: object, at: tuple = ()) -> list[tuple]:
    """The paths of everything in a JSON value, lists of numbers as one."""
    found = [at]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, list) and len(value) > 12:
        return found
    for key, inner in items:
        found += _places(inner, (*at, key))
    return found


def test_whatever_a_house_says_ends_as_a_room_or_a_rejection(plain: Path) -> None:
    """Any one value of the JSON replaced by one of another kind."""
    rng = np.random.default_rng(0)
    strange = [None, True, -1, 0, 1e308, float("nan"), 10**400, "", "x", "../x", [], [[]], {}, [1, 2, 3], [None] * 4]
    path = plain / "3D-FRONT" / "house-a.json"
    source = parse(f"front3d:{plain}")
    whole = house().json
    places = _places(whole)[1:]
    reasons: list[str] = []
    rooms = 0
    for case in rng.permutation(len(places))[:150]:
        made = house().json
        *way, last = places[case]
        holder = made
        for key in way:
            holder = holder[key]
        holder[last] = strange[int(rng.integers(len(strange)))]
        path.write_text(json.dumps(made))
        for ref in source.assets():
            try:
                assert source.load(ref, None)[0].room is not None
                rooms += 1
            except Rejected as error:
                reasons.append(str(error))
    assert not [reason for reason in reasons if reason.startswith("unreadable")]
    assert len(reasons) > 20
    assert rooms > 100


def test_names_that_no_file_can_hold_are_escaped(plain: Path) -> None:
    """Half of a surrogate pair, which JSON can spell, a terminal's escape, and a file's name that is not UTF-8."""
    made = house().json
    first, second, third = made["scene"]["room"]
    first["instanceid"], first["type"] = "Bed\ud800", "\x1b[31mred"
    second["instanceid"] = "Bed\udfff"
    third["children"] = [{**child("odd"), "pos": None}]
    made["furniture"].append({"uid": "odd", "jid": "jid\udc80", "valid": True})
    (plain / "3D-FRONT" / "house-a.json").write_text(json.dumps(made))
    os.rename(plain / "3D-FRONT" / "house-a.json", os.fsencode(plain / "3D-FRONT") + b"/b\xff.json")
    source = parse(f"front3d:{plain}")
    refs = list(source.assets())
    assert [ref.uid for ref in refs] == ["b\\udcff/Bed\\ud800", "b\\udcff/Bed\\udfff", "b\\udcff/Library-3"]
    assert refs[0].categories == ("\\x1b[31mred",)
    assert [source.load(ref, None)[1].uid for ref in refs[:2]] == [ref.uid for ref in refs[:2]]
    with pytest.raises(Rejected, match="path_outside_folder") as error:
        source.load(refs[2], None)
    assert error.value.message.encode()


def test_a_house_whose_rooms_share_everything_costs_no_more_than_its_size(plain: Path) -> None:
    """A thousand rooms of one instanceid, and a thousand meshes that belong to it: a million pairs in 60 KB."""
    made = house().json
    room = {"instanceid": "r", "type": "x", "children": []}
    many = {**made, "scene": {"room": [room] * 1000}, "mesh": [{"uid": str(k), "roomId": "r"} for k in range(1000)]}
    (plain / "3D-FRONT" / "house-a.json").write_text(json.dumps(many))
    source = parse(f"front3d:{plain}")
    (ref,) = source.assets()
    assert (ref.uid, ref.sha256) == ("house-a", None)
    assert refused(source, "house-a") == "too_many_nodes"
    children = [{"ref": "bed/floor"}] * 1000
    listing = {**made, "scene": {"room": [{**room, "children": children}] * 1000}}
    (plain / "3D-FRONT" / "house-a.json").write_text(json.dumps(listing))
    assert refused(source, "house-a") == "too_many_nodes"
    few = {**many, "scene": {"room": [room] * 50}}
    (plain / "3D-FRONT" / "house-a.json").write_text(json.dumps(few))
    assert len(list(source.assets())) == 50


def test_a_hundred_houses_are_listed(tmp_path: Path) -> None:
    made: House = house()
    text = json.dumps(made.json)
    made.write(tmp_path, packed=True)
    with zipfile.ZipFile(tmp_path / "3D-FRONT.zip", "a") as archive:
        for number in range(100):
            archive.writestr(f"3D-FRONT/h{number:03d}.json", text)
    assert len(list(parse(f"front3d:{tmp_path}").assets())) == 303


def test_a_room_becomes_a_picture(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    with pytest.raises(SystemExit) as end:
        worldtrace.main(["render", "--preview", f"front3d:{packed}", "--size", "48", "--views", "2", "--out", str(out)])
    assert end.value.code == 0
    assert "front3d/house-a/LivingRoom-1, the first asset of its source; 2 of 2 views kept" in capsys.readouterr().out
    with Image.open(out) as page:
        assert page.format == "PNG"
