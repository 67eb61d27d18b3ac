"""The door: real assets, bad ones, the folder that nobody leaves, and what a parser's surprise becomes."""

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from render import draco
from render.limits import DEFAULT, Limits
from render.load import load, read, sound
from render.mesh import Rejected
from tests.render.gltf_files import quad_file

ASSETS = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
needs_assets = pytest.mark.skipif(not ASSETS.is_dir(), reason="the real assets are not beside this checkout")

# What becomes of each bad file: a reason, or (with a +) the flag of an accepted mesh.
BAD = {
    "accessor_count_overflow.gltf": "truncated",
    "all_points_identical.ply": "zero_extent",
    "bad_magic.glb": "wrong_format",
    "comments_only.obj": "no_faces",
    "corrupt_embedded_png.gltf": "+corrupt_texture",
    "draco_required.glb": "+" if draco.available() else "unsupported_extension",
    "empty.obj": "empty_file",
    "front3d_missing_model.json": "unsupported_format",
    "front3d_truncated.json": "unsupported_format",
    "glb_length_lies.glb": "truncated",
    "glb_named.obj": "wrong_format",
    "index_out_of_range.glb": "index_out_of_range",
    "meshopt_required.glb": "+",
    "missing_buffer.gltf": "missing_buffer",
    "missing_texture.gltf": "+missing_texture",
    "missing_texture.obj": "+missing_texture",
    "nan_animation_keys.glb": "non_finite_animation",
    "nan_vertices.ply": "non_finite",
    "node_cycle.gltf": "node_cycle",
    "path_traversal/inside/absolute_uri_texture.gltf": "path_outside_folder",
    "path_traversal/inside/encoded_parent_texture.gltf": "path_outside_folder",
    "path_traversal/inside/mtl_parent_texture.obj": "path_outside_folder",
    "path_traversal/inside/parent_dir_texture.gltf": "path_outside_folder",
    "path_traversal/inside/system_file_texture.gltf": "path_outside_folder",
    "png_named.glb": "wrong_format",
    "points_only.glb": "no_faces",
    "skin_joint_out_of_range.glb": "index_out_of_range",
    "stl_count_lies.stl": "truncated",
    "truncated.glb": "truncated",
    "truncated_binary.ply": "truncated",
    "unknown_required_extension.gltf": "unsupported_extension",
    "zero_area_faces.obj": "zero_area",
    "zero_scale_node.gltf": "zero_extent",
}
COMPANIONS = {".mtl", ".png", ".bin"}


def outcome(path: Path, limits: Limits = DEFAULT) -> str:
    try:
        mesh = load(path, limits)
    except Rejected as rejected:
        return rejected.reason if rejected.message else "a rejection without a message"
    return "+" + ",".join(sorted(mesh.flags))


def manifest() -> list[dict[str, str]]:
    if not ASSETS.is_dir():
        return []
    with (ASSETS / "MANIFEST.csv").open() as file:
        return [row for row in csv.DictReader(file) if not row["path"].startswith("bad/")]


@needs_assets
@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_asset_ends_with_its_reason(name: str) -> None:
    assert outcome(ASSETS / "bad" / name) == BAD[name]


@needs_assets
def test_no_bad_asset_is_left_out_of_the_table() -> None:
    files = [p for p in (ASSETS / "bad").rglob("*") if p.is_file() and p.suffix not in COMPANIONS]
    assert {str(p.relative_to(ASSETS / "bad")) for p in files} == set(BAD)


@needs_assets
@pytest.mark.parametrize("row", manifest(), ids=lambda row: row["name"])
def test_a_real_asset_has_all_its_triangles(row: dict[str, str]) -> None:
    if row["name"] == "gpu_instancing_teapots":
        pytest.skip("its instances make 7.7 million triangles; the manifest counts one of each (see the slow test)")
    raw = read(ASSETS / row["path"], Limits())
    assert len(raw.faces) == int(row["triangles"])
    mesh = sound(raw)
    assert 0 < len(mesh.faces) <= len(raw.faces)
    assert len(mesh.faces) == len(raw.faces) or "dropped_faces" in mesh.flags
    assert mesh.vertices.dtype == np.float64
    assert mesh.faces.dtype == np.int32
    assert np.isfinite(mesh.vertices).all()
    assert sorted(set(mesh.faces.reshape(-1).tolist())) == list(range(len(mesh.vertices)))
    assert mesh.material.shape == (len(mesh.faces),)
    assert 0 <= mesh.material.min() <= mesh.material.max() < len(mesh.materials)
    for name, array, width in [("normals", mesh.normals, 3), ("uv", mesh.uv, 2), ("colors", mesh.colors, 4)]:
        assert array is None or (array.shape, array.dtype) == ((len(mesh.vertices), width), np.float32), name
    if mesh.normals is not None:
        np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)
    assert (mesh.duration > 0) == (row["animated"] == "y") == (mesh.pose is not None)
    if row["textured"] == "y" and not mesh.flags & {"missing_texture", "unsupported_texture"}:
        assert any(material.base_color_texture is not None for material in mesh.materials)


@needs_assets
def test_gpu_instances_are_all_there() -> None:
    mesh = read(ASSETS / "objects/gpu_instancing_teapots/24_gpu_instancing.gltf", Limits())
    assert len(mesh.faces) == 7_656_770


def test_what_is_no_file_is_the_users_mistake(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.glb", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no such file"):
            load(path)


def test_unknown_formats_are_named(tmp_path: Path) -> None:
    for name in ("a.fbx", "a.json", "a"):
        (tmp_path / name).write_bytes(b"something")
        assert outcome(tmp_path / name) == "unsupported_format"


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = quad_file().write(tmp_path)
    assert outcome(path, Limits(file_bytes=path.stat().st_size)) == "+"
    assert outcome(path, Limits(file_bytes=path.stat().st_size - 1)) == "file_too_large"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ZeroDivisionError("by zero"), "unreadable"),
        (RecursionError("deep"), "unreadable"),
        (MemoryError(), "out_of_memory"),
        (Rejected("corrupt", "as it was"), "corrupt"),
    ],
)
def test_a_parsers_surprise_becomes_a_rejection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: str
) -> None:
    def explode(*_: object) -> None:
        raise raised

    monkeypatch.setitem(sys.modules["render.load"]._READERS, ".glb", explode)
    path = quad_file().write(tmp_path)
    assert outcome(path) == expected


# The folder that nobody leaves: a canary lies outside, in a colour that must not turn up.

CANARY = np.full((4, 4, 4), [255, 0, 255, 255], np.uint8)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "inside"
    folder.mkdir()
    Image.fromarray(CANARY).save(tmp_path / "canary.png")
    Image.fromarray(CANARY * np.uint8(0)).save(folder / "own.png")
    return folder


def gltf_with_image(folder: Path, uri: str) -> Path:
    file = quad_file(material=0)
    file.json["images"] = [{"uri": uri}]
    file.json["textures"] = [{"source": 0}]
    file.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    return file.write(folder)


def obj_with_image(folder: Path, name: str) -> Path:
    (folder / "asset.mtl").write_text(f"newmtl m\nmap_Kd {name}\n")
    (folder / "asset.obj").write_text("mtllib asset.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n")
    return folder / "asset.obj"


def ply_with_image(folder: Path, name: str) -> Path:
    header = f"ply\nformat ascii 1.0\ncomment TextureFile {name}\nelement vertex 3\n"
    header += "".join(f"property float {p}\n" for p in ("x", "y", "z", "s", "t"))
    header += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (folder / "asset.ply").write_text(header + "0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 1\n3 0 1 2\n")
    return folder / "asset.ply"


WRITERS = [gltf_with_image, obj_with_image, ply_with_image]
OUTSIDE = [
    "../canary.png",
    "..\\canary.png",
    "./../canary.png",
    "a/../../canary.png",
    "a/b/../../../canary.png",
    "/etc/passwd",
    "\\\\server\\share\\canary.png",
    "~/canary.png",
    "file:///etc/passwd",
    "FILE:../canary.png",
    "http://example.org/canary.png",
    "https://example.org/canary.png",
]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_folder(inside: Path, write: object, name: str) -> None:
    assert outcome(write(inside, name)) == "path_outside_folder"  # type: ignore[operator]


@pytest.mark.parametrize("uri", ["%2e%2e/canary.png", "..%2Fcanary.png", "%2e%2e%5ccanary.png", "%2Fetc%2Fpasswd"])
def test_percent_encoding_hides_nothing(inside: Path, uri: str) -> None:
    assert outcome(gltf_with_image(inside, uri)) == "path_outside_folder"


def test_an_absolute_path_to_the_canary_itself(inside: Path) -> None:
    for write in WRITERS:
        assert outcome(write(inside, str(inside.parent / "canary.png"))) == "path_outside_folder"


@pytest.mark.parametrize("write", WRITERS)
def test_links_are_followed_before_they_are_judged(inside: Path, write: object) -> None:
    (inside / "link.png").symlink_to(inside.parent / "canary.png")
    (inside / "folder").symlink_to(inside.parent)
    (inside / "good.png").symlink_to(inside / "own.png")
    assert outcome(write(inside, "link.png")) == "path_outside_folder"  # type: ignore[operator]
    assert outcome(write(inside, "folder/canary.png")) == "path_outside_folder"  # type: ignore[operator]
    assert outcome(write(inside, "FOLDER/canary.png")) == "path_outside_folder"  # type: ignore[operator]
    assert outcome(write(inside, "good.png")) == "+"  # type: ignore[operator]


def test_a_material_library_outside_is_as_bad(inside: Path) -> None:
    (inside.parent / "outside.mtl").write_text("newmtl m\nKd 1 0 1\n")
    (inside / "asset.obj").write_text("mtllib ../outside.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl m\nf 1 2 3\n")
    assert outcome(inside / "asset.obj") == "path_outside_folder"


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    "name", ["own.png", "./own.png", ".\\own.png", "OWN.PNG", "C:\\work\\textures\\own.png", "a/../own.png"]
)
def test_what_is_inside_is_found(inside: Path, write: object, name: str) -> None:
    (inside / "a").mkdir(exist_ok=True)
    path = write(inside, name)  # type: ignore[operator]
    mesh = load(path)
    assert mesh.flags == frozenset()
    texture = mesh.materials[int(mesh.material[0])].base_color_texture
    assert texture is not None
    assert texture.pixels.max() == 0


@pytest.mark.parametrize("name", ["pipe.png", "null.png", "a", "x" * 5000, "own.png\0.jpg", "loop.png"])
def test_what_is_no_regular_file_is_missing(inside: Path, name: str) -> None:
    os.mkfifo(inside / "pipe.png")  # opening it would block for ever
    (inside / "a").mkdir()
    (inside / "loop.png").symlink_to(inside / "loop.png")
    assert outcome(gltf_with_image(inside, name.replace("\0", "%00"))) == "+missing_texture"


# Images


def test_an_image_is_measured_before_it_is_decoded(inside: Path) -> None:
    path = gltf_with_image(inside, "own.png")
    assert outcome(path, Limits(texture_pixels=16)) == "+"
    assert outcome(path, Limits(texture_pixels=15)) == "+texture_too_large"
    assert outcome(path, Limits(textures_pixels=15)) == "+texture_too_large"


def test_a_png_that_announces_fifty_thousand_squared(inside: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 6, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    (inside / "own.png").write_bytes(bomb)
    assert outcome(gltf_with_image(inside, "own.png")) == "+texture_too_large"


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8\xff\xe0"]
)
def test_a_corrupt_image_is_flagged(inside: Path, content: bytes) -> None:
    (inside / "own.png").write_bytes(content)
    assert outcome(gltf_with_image(inside, "own.png")) == "+corrupt_texture"
