"""3D-FUTURE, Google Scanned Objects, Toys4K and Truebones as they are downloaded."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import trimesh

from cluster.sources import AssetRef, Source, extract, packs, parse
from render import Rejected, render_views
from tests.cluster.houses import half_black, house, model_files, write_files
from tests.render.shapes import small

ANIMATED = Path(__file__).parents[2].parent / "shared" / "assets" / "animated"
OBJ = b"v 0 0 0\nv 1 0 0\nv 0 2 0\nv 0 0 4\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


def listed(source: Source) -> dict[str, AssetRef]:
    refs = list(source.assets())
    assert refs == list(source.assets())
    assert parse(source.text) == source == pickle.loads(pickle.dumps(source))
    assert source.own_terms
    assert not source.remote
    return {ref.uid: ref for ref in refs}


def test_paths_hold_in_a_worker_that_stands_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    future(tmp_path / "here", packed=False)
    write_files(tmp_path / "here" / "gso" / "Shoe", scanned())
    write_files(tmp_path / "here" / "toys" / "ball", {"a.obj": OBJ})
    house().write(tmp_path / "here" / "front")
    monkeypatch.chdir(tmp_path / "here")
    sources = [parse(text) for text in ("future3d:.", "gso:gso", "toys4k:toys")]
    sources.append(parse("front3d:front/3D-FRONT?future=front/3D-FUTURE-model"))
    monkeypatch.chdir(tmp_path)
    for source in sources:
        assert str(tmp_path) not in source.text  # what the user wrote, for it goes into dataset.json
        ref = next(ref for ref in source.assets() if ref.sha256)
        assert source.load(ref, None)[1].sha256 == ref.sha256


def reason(source: Source, ref: AssetRef) -> tuple[str, str]:
    with pytest.raises(Rejected) as error:
        source.load(ref, None)
    return error.value.reason, error.value.message


def future(folder: Path, packed: bool) -> Path:
    files = {f"3D-FUTURE-model/m{k}/{name}": data for k in range(3) for name, data in
             model_files(((0, 0, 0), (1, 1 + k, 2))).items()}  # fmt: skip
    info = [
        {"model_id": "m0", "super-category": "Chair", "category": "Armchair", "style": None},
        {"model_id": "m1", "super-category": "Bed", "category": None},
        {"model_id": "gone", "super-category": "Lighting", "category": "Floor Lamp"},
        "no entry",
    ]
    files["3D-FUTURE-model/model_info.json"] = json.dumps(info).encode()
    files["3D-FUTURE-model/m0/normalized_model.obj"] = b"another"
    write_files(folder, files, packed)
    return folder


@pytest.mark.parametrize("where", ["", "3D-FUTURE-model", "3D-FUTURE-model.zip"])
def test_every_model_of_3d_future_is_listed_with_its_category(where: str, tmp_path: Path) -> None:
    folder = future(tmp_path / "f", packed=where.endswith(".zip"))
    source = parse(f"future3d:{folder / where}")
    refs = listed(source)
    assert list(refs) == ["gone", "m0", "m1", "m2"]
    assert refs["m0"].categories == ("Chair", "Armchair")
    assert refs["m1"].categories == ("Bed",)
    assert refs["m2"].categories == ()
    mesh, origin = source.load(refs["m1"], None)
    assert origin.sha256 == refs["m1"].sha256
    np.testing.assert_allclose([mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)], [[0, 0, 0], [1, 2, 2]])
    assert len(mesh.faces) == 12  # of six quads
    assert all(m.base_color_texture is not None for m in (mesh.materials[k] for k in np.unique(mesh.material)))
    assert all(max(m.emissive) == 0 for m in mesh.materials)
    assert reason(source, refs["gone"])[0] == "missing_model"
    rendered = render_views(mesh, origin, small())
    assert len(rendered.samples) == 1


def test_3d_future_in_an_archive_and_in_a_folder_is_one(tmp_path: Path) -> None:
    one, other = (parse(f"future3d:{future(tmp_path / name, name == 'packed')}") for name in ("packed", "plain"))
    assert [ref.sha256 for ref in one.assets()] == [ref.sha256 for ref in other.assets()]


def model_info(path: Path, data: bytes, mode: int = 0o100644) -> Path:
    """An archive of one model with this model_info.json."""
    info = zipfile.ZipInfo("3D-FUTURE-model/model_info.json")
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("3D-FUTURE-model/m0/raw_model.obj", OBJ)
        archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def test_a_catalogue_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    lies = {
        "a bomb": model_info(tmp_path / "bomb.zip", b" " * (20 << 20)),
        "a link": model_info(tmp_path / "link.zip", b"/etc/passwd", 0o120777),
        "no JSON": model_info(tmp_path / "text.zip", b"<html>"),
    }
    for what, path in lies.items():
        with pytest.raises(ValueError, match=r"model_info\.json .* download it again") as error:
            list(parse(f"future3d:{path}").assets())
        assert "\n" not in str(error.value), what


def scanned(top: str = "") -> dict[str, bytes]:
    """An object as Gazebo has it: z up, the texture apart from the .mtl that names it."""
    obj = b"mtllib model.mtl\nusemtl m\nvt 0 0\nvt 1 0\nvt 0 1\nvn 0 0 1\n" + OBJ.replace(
        b"f 1 3 2", b"f 1/1/1 3/2/1 2/3/1"
    )
    return {
        f"{top}meshes/model.obj": obj,
        f"{top}meshes/model.mtl": b"newmtl m\nKd 0.1 0.1 0.1\nmap_Kd texture.png\n",
        f"{top}materials/textures/texture.png": half_black((200, 30, 30)),
        f"{top}metadata.pbtxt": b'name: "Shoe_A"\ncategories {\n  first: "Shoe"\n}\n',
        f"{top}thumbnails/0.jpg": b"",
    }


def test_scanned_objects_are_upright_and_textured(tmp_path: Path) -> None:
    write_files(tmp_path / "Shoe_A", scanned())
    write_files(tmp_path / "z", scanned("Shoe_B/"), packed=True)
    shutil.move(tmp_path / "z" / "Shoe_B.zip", tmp_path / "Shoe_B.zip")
    (tmp_path / "z").rmdir()
    with zipfile.ZipFile(tmp_path / "Shoe_C.zip", "w") as archive:  # as downloaded: nothing around
        for name, data in scanned().items():
            archive.writestr(name, data)
    (tmp_path / "Shoe_D.zip").write_bytes(b"<html>quota exceeded</html>")
    with zipfile.ZipFile(tmp_path / "Shoe_E.zip", "w") as archive:
        archive.writestr("readme", "")
    (tmp_path / "notes").mkdir()
    source = parse(f"gso:{tmp_path}")
    refs = listed(source)
    assert list(refs) == ["Shoe_A", "Shoe_B", "Shoe_C", "Shoe_D", "Shoe_E"]
    assert {ref.licence for ref in refs.values()} == {"CC-BY-4.0"}
    for uid in ("Shoe_A", "Shoe_B", "Shoe_C"):
        assert refs[uid].categories == ("Shoe",)
        mesh, origin = source.load(refs[uid], None)
        assert origin.sha256 == refs[uid].sha256
        # (x, y, z) with z up becomes (x, z, -y): a turn, so that no side is mirrored.
        np.testing.assert_allclose([mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)], [[0, 0, -2], [1, 4, 0]])
        assert mesh.normals is not None
        assert [0.0, 1.0, 0.0] in mesh.normals.tolist()
        used = [mesh.materials[k] for k in np.unique(mesh.material)]
        assert any(m.base_color_texture is not None and m.base_color[:3] == (1, 1, 1) for m in used)
        assert "missing_texture" not in mesh.flags
    assert refs["Shoe_D"].sha256 is refs["Shoe_E"].sha256 is None
    assert reason(source, refs["Shoe_D"])[0] == "unreadable"
    assert reason(source, refs["Shoe_E"])[0] == "missing_model"


def test_a_scan_without_its_texture_keeps_its_shape(tmp_path: Path) -> None:
    files = scanned()
    del files["materials/textures/texture.png"]
    write_files(tmp_path / "Shoe", files)
    source = parse(f"gso:{tmp_path}")
    (ref,) = source.assets()
    assert "missing_texture" in source.load(ref, None)[0].flags
    (tmp_path / "Shoe" / "meshes" / "model.obj").write_bytes(OBJ)
    assert reason(source, ref)[0] == "changed"


@pytest.mark.parametrize("packed", [False, True])
def test_toys_are_listed_by_category(packed: bool, tmp_path: Path) -> None:
    top = "toys4k/"
    files = {
        f"{top}airplane/airplane_000/mesh.obj": b"mtllib x.mtl\nusemtl red\n" + OBJ,
        f"{top}airplane/airplane_000/x.mtl": b"newmtl red\nKd 1 0 0\n",
        f"{top}airplane/airplane_000/airplane_000_attribution.txt": b"We obtained this asset under a CC atribution "
        b"license from https://example.org from the creator x.",
        f"{top}ball/ball_001/ball_001.blend": b"BLENDER-v280",
        f"{top}ball/ball_002/ball_002.blend": b"BLENDER-v280",
        f"{top}ball/ball_002/ball_002.obj": OBJ,
        "__MACOSX/toys4k/ball/._x.obj": b"",
    }
    write_files(tmp_path, files, packed)
    source = parse(f"toys4k:{tmp_path / 'toys4k'}{'.zip' if packed else ''}")
    refs = listed(source)
    assert list(refs) == [
        "airplane/airplane_000/mesh.obj",
        "ball/ball_001/ball_001.blend",
        "ball/ball_002/ball_002.obj",
    ]
    plane, ball, converted = refs.values()
    assert (plane.licence, ball.licence) == ("CC-BY", "unknown")
    assert (plane.categories, ball.categories) == (("airplane",), ("ball",))
    mesh, origin = source.load(plane, None)
    assert origin.sha256 == plane.sha256
    assert len(mesh.faces) == 4
    assert mesh.materials[mesh.material[0]].base_color[:3] == (1, 0, 0)
    assert source.load(converted, None)[1].uid == converted.uid
    why, message = reason(source, ball)
    assert why == "unsupported_format"
    assert "convert it to .glb with Blender" in message


def test_a_packed_toy_has_what_it_names_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All models at the top of the archive, and far more images than any of them names."""
    textured = b"mtllib sub/../M.mtl\nusemtl red\nvt 0 0\nvt 1 0\nvt 0 1\n" + OBJ.replace(b"f 1 3 2", b"f 1/1 3/2 2/3")
    files = {f"a{k:03d}.png": b"x" for k in range(250)}
    files |= {"m.obj": textured, "m.mtl": b"newmtl red\nKd 1 0 0\nmap_Kd z.png\n", "z.png": half_black((9, 9, 9))}
    files |= {"itself.obj": b"mtllib itself.obj\n" + OBJ, "nothing.obj": b"mtllib ../x.mtl no.mtl\n" + OBJ}
    write_files(tmp_path / "packed", {f"t/{name}": data for name, data in files.items()}, packed=True)
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    read: list[str] = []
    chunks = extract.Archive._chunks

    def noted(self: extract.Archive, name: str, limit: int) -> Iterator[bytes]:
        read.append(PurePosixPath(name).name)
        return chunks(self, name, limit)

    for path in (tmp_path / "packed" / "t.zip", tmp_path / "flat.zip"):
        source = parse(f"toys4k:{path}")
        refs = listed(source)
        read.clear()
        with monkeypatch.context() as patch:
            patch.setattr(extract.Archive, "_chunks", noted)
            mesh, _ = source.load(refs["m.obj"], None)
        used = [mesh.materials[k] for k in np.unique(mesh.material)]
        assert all(material.base_color_texture is not None for material in used)
        assert not mesh.flags & {"missing_material", "missing_texture"}
        assert read == ["m.obj", "m.mtl", "z.png"]
        assert len(source.load(refs["itself.obj"], None)[0].faces) == 4
        assert reason(source, refs["nothing.obj"])[0] == "path_outside_folder"
        with monkeypatch.context() as patch:
            patch.setattr(packs, "TOTAL", len(textured) + 100)
            assert reason(source, refs["m.obj"])[0] == "file_too_large"


@pytest.mark.skipif(not ANIMATED.is_dir(), reason="the shared assets are not here")
def test_creatures_move(tmp_path: Path) -> None:
    (tmp_path / "Fox").mkdir()
    shutil.copy(ANIMATED / "fox.glb", tmp_path / "Fox" / "run.glb")
    (tmp_path / "Fox" / "run.fbx").write_bytes(b"Kaydara FBX Binary")
    (tmp_path / "Fox" / "walk.fbx").write_bytes(b"Kaydara FBX Binary")
    source = parse(f"truebones:{tmp_path}")
    assert source.regime == "dynamic"
    refs = list(listed(source).values())
    assert [ref.uid for ref in refs] == ["Fox/run.glb", "Fox/walk.fbx"]
    assert refs[0].categories == ("Fox",)
    mesh, _ = source.load(refs[0], None)
    assert mesh.pose is not None
    assert refs[0].animated
    assert "convert it to .glb with Blender" in reason(source, refs[1])[1]


def test_a_creature_that_does_not_move_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "box.glb").write_bytes(trimesh.creation.box().export(file_type="glb"))
    source = parse(f"truebones:{tmp_path}")
    (ref,) = source.assets()
    assert reason(source, ref)[0] == "not_animated"


@pytest.mark.parametrize("scheme", ["future3d", "gso", "toys4k", "truebones"])
def test_a_folder_of_nothing_is_refused_in_one_sentence(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="check the path") as error:
        list(parse(f"{scheme}:{tmp_path}").assets())
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError):
        parse(f"{scheme}:nowhere")
    with pytest.raises(ValueError, match="it takes none"):
        parse(f"{scheme}:{tmp_path}?count=3")


def test_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    strange = "a\udcff"  # as Python has the byte 0xff of a file's name
    write_files(tmp_path / "future" / "3D-FUTURE-model" / strange, model_files(((0, 0, 0), (1, 1, 2))))
    info = [{"model_id": "b\ud800", "category": "c\ud800"}]
    (tmp_path / "future" / "3D-FUTURE-model" / "model_info.json").write_text(json.dumps(info))
    write_files(tmp_path / "gso" / strange, scanned())
    write_files(tmp_path / "toys" / strange, {"x.obj": OBJ})
    for scheme, uid in (("future", "a\\udcff"), ("gso", "a\\udcff"), ("toys", "a\\udcff/x.obj")):
        source = parse({"future": "future3d", "toys": "toys4k"}.get(scheme, scheme) + f":{tmp_path / scheme}")
        refs = listed(source)
        assert json.dumps([[ref.uid, *ref.categories] for ref in refs.values()], ensure_ascii=False).encode()
        assert source.load(refs[uid], None)[1].uid == uid
        if scheme == "future":
            assert refs["b\\ud800"].categories == ("c\\ud800",)
            assert reason(source, refs["b\\ud800"])[1].encode()


def test_an_asset_that_changed_is_refused(tmp_path: Path) -> None:
    folder = future(tmp_path, packed=False)
    source = parse(f"future3d:{folder}")
    ref = listed(source)["m2"]
    (folder / "3D-FUTURE-model" / "m2" / "texture.png").unlink()
    assert reason(source, ref)[0] == "changed"
