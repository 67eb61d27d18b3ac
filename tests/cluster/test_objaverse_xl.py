"""`objaverse-xl:` against a server that stands for the hub, GitHub, Thingiverse and the Smithsonian."""

import hashlib
import io
import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trimesh
from PIL import Image

from cluster import sources
from cluster.sources.base import AssetRef, Unavailable
from cluster.sources.objaverse_xl import Hosts, ObjaverseXLSource
from render import Rejected
from tests.cluster.hub import OBJAVERSE, QUICK, XL, Hub, glb, packed, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
UID = "f" * 32
GITHUB = f"https://github.com/maker/things/blob/{COMMIT}/"
RAW, MEDIA = f"/raw/maker/things/{COMMIT}/", f"/media/maker/things/{COMMIT}/"
SMITHSONIAN = "https://3d-api.si.edu/content/document/3d_package:1/resources/vase%E2%80%93150k.glb"
OBJ = b"mtllib look/%s.mtl\nusemtl red\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


def table(rows: list[tuple[Any, Any, Any, Any]]) -> bytes:
    names = ("fileIdentifier", "license", "fileType", "sha256")
    columns: dict[str, list[Any]] = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    columns["source"] = ["x"] * len(rows)
    columns["metadata"] = ["{}"] * len(rows)
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def pointer(data: bytes) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha(data)}\nsize {len(data)}\n".encode()


@pytest.fixture(scope="module")
def shop() -> Iterator[Hub]:
    with serving() as hub:
        gltf = trimesh.Scene(trimesh.creation.box()).export(file_type="gltf")
        names = {"parts/box one.glb": glb(), "stored.glb": glb(1), "sub/chair.obj": OBJ % b"chair"}
        names |= {f"box/{name}": data for name, data in gltf.items()}
        for name, data in names.items():
            hub.put(RAW + quote(name), data)
        hub.put(RAW + "stored.glb", pointer(glb(1)))
        hub.put(MEDIA + "stored.glb", glb(1))
        hub.put(RAW + "sub/look/chair.mtl", b"newmtl red\nmap_Kd tex/red%20paint.png\nmap_Bump gone.png\n")
        hub.put(RAW + "sub/tex/red%2520paint.png", pointer(png()))  # a name that holds "%20" itself
        hub.put(MEDIA + "sub/tex/red%2520paint.png", png())
        hub.put("/si/content/document/3d_package:1/resources/vase%E2%80%93150k.glb", glb(2))
        stl = trimesh.creation.box().export(file_type="stl")
        hub.put("/thing/download:456", stl)
        hub.put(OBJAVERSE + "object-paths.json.gz", packed({UID: f"glbs/000-000/{UID}.glb"}), linked=True)
        hub.put(OBJAVERSE + f"glbs/000-000/{UID}.glb", glb(3), linked=True)
        kinds = {"parts/box one.glb": "glb", "stored.glb": "glb", "sub/chair.obj": "obj", "box/model.gltf": "gltf"}
        rows: list[Any] = [
            (GITHUB + name, licence, kind, sha(names[name]))
            for (name, kind), licence in zip(kinds.items(), ["MIT License", None, "Apache License 2.0", "Other"])
        ]
        rows.insert(1, (GITHUB + "rig.fbx", "MIT License", "fbx", sha(b"")))
        hub.put(XL + "github/github.parquet", table(rows), linked=True)
        hub.put(XL + "github/alignment.parquet", table(rows[:1]), linked=True)
        thing = (
            "https://www.thingiverse.com/thing:123/file?fileId=456",
            "Creative Commons - Attribution",
            "stl",
            sha(stl),
        )
        hub.put(XL + "thingiverse/thingiverse.parquet", table([thing]), linked=True)
        hub.put(XL + "smithsonian/smithsonian.parquet", table([(SMITHSONIAN, "CC0", "glb", sha(glb(2)))]), linked=True)
        fab = [("https://sketchfab.com/3d-models/" + each, "by", "glb", sha(glb(3))) for each in (UID, "e" * 32)]
        hub.put(XL + "sketchfab/sketchfab.parquet", table(fab), linked=True)
        hub.put(XL + "sketchfab/alignment.parquet", table(fab[:1]), linked=True)
        yield hub


def parse(hub: Hub, text: str) -> ObjaverseXLSource:
    found = sources.parse(text)
    assert isinstance(found, ObjaverseXLSource)
    hosts = Hosts(f"{hub.url}/raw", f"{hub.url}/media", f"{hub.url}/thing", f"{hub.url}/si")
    return replace(found, policy=QUICK, hosts=hosts)


def ref(publisher: str, kind: str, identifier: str, sha256: str | None) -> AssetRef:
    return AssetRef(identifier, f"objaverse-xl:{publisher}", "MIT", f"{publisher} {kind} {identifier}", sha256)


def fetched(source: ObjaverseXLSource, asset: AssetRef, folder: Path) -> set[str]:
    folder.mkdir()
    main = source.fetch(asset, folder)
    found = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
    assert main in found
    return found


def test_each_set_lists_what_can_be_loaded_in_the_order_of_the_catalogue(hub: Hub) -> None:
    refs = list(parse(hub, "objaverse-xl:github").assets())
    assert [each.uid.removeprefix(GITHUB) for each in refs] == [
        "parts/box one.glb",
        "stored.glb",
        "sub/chair.obj",
        "box/model.gltf",
    ]
    assert [each.licence for each in refs] == ["MIT", "unknown", "Apache-2.0", "unknown"]
    assert all(each.sha256 and each.source == "objaverse-xl:github" for each in refs)
    everything = list(parse(hub, "objaverse-xl:all").assets())
    assert [each.source.partition(":")[2] for each in everything] == [
        *["github"] * 4,
        "thingiverse",
        "smithsonian",
        *["sketchfab"] * 2,
    ]
    assert [each.uid for each in parse(hub, "objaverse-xl:alignment").assets()] == [
        GITHUB + "parts/box one.glb",
        f"https://sketchfab.com/3d-models/{UID}",
    ]


def test_types_start_and_count(hub: Hub) -> None:
    everything = [each.uid for each in parse(hub, "objaverse-xl:all").assets()]
    assert [each.uid for each in parse(hub, "objaverse-xl:all?start=2&count=3").assets()] == everything[2:5]
    kinds = [each.uid for each in parse(hub, "objaverse-xl:all?type=gltf,.OBJ,stl").assets()]
    assert kinds == [everything[2], everything[3], everything[4]]
    with pytest.raises(ValueError, match="holds no object"):
        list(parse(hub, "objaverse-xl:smithsonian?type=ply").assets())


def test_every_asset_of_all_is_fetched_and_loaded(hub: Hub, tmp_path: Path) -> None:
    source = parse(hub, "objaverse-xl:all")
    loaded = 0
    for index, asset in enumerate(source.assets()):
        folder = tmp_path / str(index)
        folder.mkdir()
        if asset.uid.endswith("e" * 32):
            with pytest.raises(Rejected, match="missing"):
                source.fetch(asset, folder)
            continue
        mesh, origin = source.load(asset, folder / source.fetch(asset, folder))
        assert origin.sha256 == asset.sha256
        assert origin.uid == asset.uid
        assert "missing_texture" not in mesh.flags or asset.uid.endswith("chair.obj")  # its bump map is gone
        loaded += 1
    assert loaded == 7


def test_companions_lie_as_they_are_named(hub: Hub, tmp_path: Path) -> None:
    source = parse(hub, "objaverse-xl:github")
    chair = next(each for each in source.assets() if each.uid.endswith("chair.obj"))
    assert fetched(source, chair, tmp_path / "chair") == {"asset.obj", "look/chair.mtl", "tex/red%20paint.png"}
    mesh, _ = source.load(chair, tmp_path / "chair" / "asset.obj")
    assert mesh.materials[0].base_color_texture is not None
    assert hub.paths()[-1].endswith("sub/gone.png")


def test_a_companion_that_cannot_be_had_now_makes_the_asset_wait(hub: Hub, tmp_path: Path) -> None:
    """Else it would be rendered without its texture, once and for all."""
    source = parse(hub, "objaverse-xl:github")
    chair = next(each for each in source.assets() if each.uid.endswith("chair.obj"))
    hub.ill(MEDIA + "sub/tex/red%2520paint.png", "status", 503)
    with pytest.raises(Unavailable):
        fetched(source, chair, tmp_path / "chair")


def test_nothing_is_asked_for_outside_of_the_folder(hub: Hub, tmp_path: Path) -> None:
    source = parse(hub, "objaverse-xl:github")
    uris = ["../secret.bin", "/etc/passwd", "http://evil/x.bin", "file:///etc/passwd", "%2e%2e/secret.bin", "a/../../x",
            "..\\x", "~/x", "asset.gltf", "x" * 300, "b/c", "b", "", ".", "y/../asset.gltf", "\ud800.bin"]  # fmt: skip
    data = json.dumps(
        {"asset": {"version": "2.0"}, "buffers": [{"uri": uri, "byteLength": 1} for uri in uris]}
    ).encode()
    hub.put(RAW + "in/bad.gltf", data)
    hub.put(RAW + "in/b/c", b"c")
    hub.put(RAW + "in/b", b"b")
    for name in ("in/asset.gltf", "in/y/../asset.gltf"):
        hub.put(RAW + name, b"another file")
    assert fetched(source, ref("github", "gltf", GITHUB + "in/bad.gltf", sha(data)), tmp_path / "f") == {
        "asset.gltf",
        "b/c",
    }
    assert (tmp_path / "f" / "asset.gltf").read_bytes() == data
    assert set(hub.paths()) <= {RAW + "in/bad.gltf", RAW + "in/b/c"}
    assert {each.name for each in tmp_path.iterdir()} == {"f"}


def test_companions_have_bounds(hub: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    source = parse(hub, "objaverse-xl:github")
    data = json.dumps({"buffers": [{"uri": f"{i}.bin"} for i in range(5000)]}).encode()
    hub.put(RAW + "in/many.gltf", data)
    monkeypatch.setattr("cluster.sources.companions.MOST", 20)
    with pytest.raises(Rejected, match="too_many_files"):
        fetched(source, ref("github", "gltf", GITHUB + "in/many.gltf", sha(data)), tmp_path / "many")
    data = json.dumps({"buffers": [{"uri": f"{i}.bin"} for i in range(4)]}).encode()
    hub.put(RAW + "in/large.gltf", data)
    for i in range(4):
        hub.put(RAW + f"in/{i}.bin", bytes(1000))
    monkeypatch.setattr("cluster.sources.objaverse_xl._GitHub.__init__.__defaults__", (2500,))
    with pytest.raises(Rejected, match="file_too_large"):
        fetched(source, ref("github", "gltf", GITHUB + "in/large.gltf", sha(data)), tmp_path / "large")


@pytest.mark.parametrize(
    ("publisher", "kind", "identifier"),
    [
        ("github", "glb", "https://github.com/a/b/blob/main/x.glb"),
        ("github", "glb", f"https://github.com/../b/blob/{COMMIT}/x.glb"),
        ("github", "glb", f"https://github.com/a/b/blob/{COMMIT}/../../x.glb"),
        ("github", "glb", f"https://evil.com/a/b/blob/{COMMIT}/x.glb"),
        ("thingiverse", "stl", "https://www.thingiverse.com/thing:1/file?fileId=2/../x"),
        ("smithsonian", "glb", "https://si.edu.evil.com/x.glb"),
        ("smithsonian", "glb", "https://evilsi.edu/x.glb"),
        ("smithsonian", "glb", "http://3d-api.si.edu/x.glb"),
        ("smithsonian", "glb", "http://169.254.169.254/x.glb"),
    ],
)
def test_a_catalogue_sends_us_nowhere_else(
    hub: Hub, tmp_path: Path, publisher: str, kind: str, identifier: str
) -> None:
    with pytest.raises(Rejected, match="bad_address"):
        fetched(parse(hub, "objaverse-xl:all"), ref(publisher, kind, identifier, "0" * 64), tmp_path / "f")
    assert hub.asked == []


def test_missing_and_modified_objects(hub: Hub, tmp_path: Path) -> None:
    source = parse(hub, "objaverse-xl:github")
    with pytest.raises(Rejected) as caught:
        fetched(source, ref("github", "glb", GITHUB + "gone.glb", "0" * 64), tmp_path / "a")
    assert caught.value.reason == "missing"
    for index, name in enumerate(("parts/box one.glb", "stored.glb")):
        with pytest.raises(Rejected) as caught:
            fetched(source, ref("github", "glb", GITHUB + name, "0" * 64), tmp_path / f"b{index}")
        assert caught.value.reason == "checksum"
    assert not any(path.startswith(MEDIA) for path in hub.paths())  # the pointer said so
    with pytest.raises(Rejected) as caught:
        fetched(source, ref("github", "glb", GITHUB + "stored.glb", None), tmp_path / "c")
    assert caught.value.reason == "checksum"


def test_a_transfer_that_was_spoilt_once_is_repeated(hub: Hub, tmp_path: Path) -> None:
    source = parse(hub, "objaverse-xl:github")
    box = next(iter(source.assets()))
    hub.ill(RAW + "parts/box%20one.glb", "wrong", times=1)
    assert fetched(source, box, tmp_path / "f") == {"asset.glb"}


def test_thingiverse_bans_and_that_is_not_the_objects_fault(hub: Hub, tmp_path: Path) -> None:
    source = parse(hub, "objaverse-xl:thingiverse")
    thing = next(iter(source.assets()))
    assert thing.licence.startswith("CC-BY")
    hub.ill("/thing/download:456", "status", 403)
    with pytest.raises(Unavailable, match="403"):
        fetched(source, thing, tmp_path / "f")


@pytest.mark.parametrize("how", ["html", "wrong"])
def test_a_catalogue_is_checked_when_it_comes(hub: Hub, tmp_path: Path, how: str) -> None:
    hub.ill("/cdn" + XL + "smithsonian/smithsonian.parquet", how)
    with pytest.raises(OSError, match="the catalogue"):
        list(parse(hub, "objaverse-xl:smithsonian").assets())
    hub.ills.clear()
    assert len(list(parse(hub, "objaverse-xl:smithsonian").assets())) == 1


@pytest.mark.parametrize("data", [b"", b"PAR1 and nothing PAR1", table([])[:-9] + b"\0" * 9, "columns"])
def test_a_damaged_catalogue_says_which_file(hub: Hub, tmp_path: Path, data: Any) -> None:
    if data == "columns":
        out = io.BytesIO()
        pq.write_table(pa.table({"fileIdentifier": ["x"]}), out)
        data = out.getvalue()
    file = tmp_path / "home" / "smithsonian" / "smithsonian.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"smithsonian.parquet is damaged.*delete it"):
        list(parse(hub, "objaverse-xl:smithsonian").assets())


def test_strange_rows_do_not_end_the_listing(hub: Hub, tmp_path: Path) -> None:
    rows = [(None, None, "glb", "0" * 64), ("x", "MIT", None, "0" * 64), (SMITHSONIAN, None, "GLB", "nothing"),
            ("y", None, ".glb", None)]  # fmt: skip
    file = tmp_path / "home" / "smithsonian" / "smithsonian.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(table(rows))
    refs = list(parse(hub, "objaverse-xl:smithsonian").assets())
    assert [(each.uid, each.sha256, each.licence) for each in refs] == [
        (SMITHSONIAN, None, "unknown"),
        ("y", None, "unknown"),
    ]


@pytest.mark.parametrize("text", ["objaverse-xl:all", "objaverse-xl:github?type=glb,obj&start=3&count=9"])
def test_the_text_gives_the_same_source_again(hub: Hub, text: str) -> None:
    source = parse(hub, text)
    assert source.text == text
    assert parse(hub, source.text) == source
    assert pickle.loads(pickle.dumps(source)) == source


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("objaverse-xl:githbu", r"unknown set 'githbu': did you mean 'github'\?"),
        ("objaverse-xl:github?type=fbx", r"unknown type 'fbx'"),
        ("objaverse-xl:github?types=glb", r"did you mean 'type'\?"),
        ("objaverse-x:github", r"did you mean objaverse"),
    ],
)
def test_what_is_wrong_with_a_text(hub: Hub, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(hub, text)
