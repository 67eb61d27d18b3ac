"""PLY and STL: every way to write the same solid gives the same mesh, and a header that lies is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from render.limits import Limits
from render.load import load
from render.mesh import Mesh
from tests.render.test_load import ASSETS, needs_assets, outcome

POINTS = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0], [1, 0.5, 3]], np.float32)
POLYGONS = [[3, 2, 1, 0], [0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]  # a pyramid: one quad, four triangles
HEADER = """ply
format {encoding} 1.0
comment made by hand
element vertex 5
property float x
property float y
property float z
element face 5
property list uchar int vertex_indices
end_header
"""


def text_ply() -> bytes:
    lines = [" ".join(map(str, p)) for p in POINTS] + [f"{len(f)} " + " ".join(map(str, f)) for f in POLYGONS]
    return (HEADER.format(encoding="ascii") + "\n".join(lines) + "\n").encode()


def binary_ply(order: str = "<", polygons: list | None = None, count: int = 5) -> bytes:
    name = "binary_little_endian" if order == "<" else "binary_big_endian"
    body = POINTS.astype(f"{order}f4").tobytes()
    for f in POLYGONS if polygons is None else polygons:
        body += struct.pack(f"{order}B{len(f)}i", len(f), *f)
    return HEADER.format(encoding=name).replace("face 5", f"face {count}").encode() + body


def write(folder: Path, data: bytes, name: str = "asset.ply") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def volume(mesh: Mesh) -> float:
    """Signed, by the divergence theorem: it notices a lost, doubled or turned face."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("data", [text_ply(), binary_ply("<"), binary_ply(">")], ids=["text", "little", "big"])
def test_mixed_polygons_in_every_encoding(tmp_path: Path, data: bytes) -> None:
    mesh = load(write(tmp_path, data))
    assert len(mesh.faces) == 6
    assert volume(mesh) == pytest.approx(2 * 1 * 3 / 3)


def test_windows_line_ends(tmp_path: Path) -> None:
    assert volume(load(write(tmp_path, text_ply().replace(b"\n", b"\r\n")))) == pytest.approx(2)


@pytest.mark.parametrize("cut", [1, 3, 20, 90])
def test_a_short_body(tmp_path: Path, cut: int) -> None:
    assert outcome(write(tmp_path, binary_ply()[:-cut])) == "truncated"
    assert outcome(write(tmp_path, text_ply()[: -2 * cut])) in ("truncated", "corrupt")


@pytest.mark.parametrize("count", [6, 10**6, 2**31, 2**62])
def test_a_header_that_announces_too_much(tmp_path: Path, count: int) -> None:
    expected = "truncated" if count <= 10**7 else "too_many_faces"
    assert outcome(write(tmp_path, binary_ply(count=count))) == expected
    text = text_ply().replace(b"face 5", b"face %d" % count)
    assert outcome(write(tmp_path, text)) == expected
    vertices = text_ply().replace(b"vertex 5", b"vertex %d" % count)
    assert outcome(write(tmp_path, vertices)) in ("truncated", "too_many_vertices", "index_out_of_range", "corrupt")


@pytest.mark.parametrize("index", [5, -1, 2**31 - 1])
def test_an_index_out_of_range(tmp_path: Path, index: int) -> None:
    data = binary_ply(polygons=[[0, 1, 2], [0, 1, index]], count=2)
    assert outcome(write(tmp_path, data)) == "index_out_of_range"


def test_limits(tmp_path: Path) -> None:
    assert outcome(write(tmp_path, binary_ply()), Limits(faces=5)) == "too_many_faces"  # six triangles
    assert outcome(write(tmp_path, binary_ply()), Limits(vertices=4)) == "too_many_vertices"


def test_points_without_faces(tmp_path: Path) -> None:
    data = text_ply().decode().replace("face 5", "face 0")
    assert outcome(write(tmp_path, data.encode())) == "no_faces"


def test_headers_that_are_none(tmp_path: Path) -> None:
    for data in (b"ply\n", b"ply\nformat ascii 1.0\n", b"ply\n" + b"comment x\n" * 1000):
        assert outcome(write(tmp_path, data)) == "truncated"
    assert outcome(write(tmp_path, b"ply\nformat utf7 1.0\nend_header\n")) == "corrupt"
    assert outcome(write(tmp_path, b"nothing")) == "wrong_format"


def coloured(kind: str, value: str, where: str) -> bytes:
    names = "".join(f"property {kind} {c}\n" for c in ("red", "green", "blue", "alpha"))
    text = "ply\nformat ascii 1.0\nelement vertex 4\n" + "".join(f"property float {a}\n" for a in "xyz")
    text += (names if where == "vertex" else "") + "element face 2\nproperty list uchar int vertex_index\n"
    text += (names if where == "face" else "") + "end_header\n"
    own = f" {value}" if where == "vertex" else ""
    text += f"0 0 0{own}\n1 0 0{own}\n1 1 0{own}\n0 1 0{own}\n"
    other = f" {value}" if where == "face" else ""
    return (text + f"3 0 1 2{other}\n3 0 2 3{other}\n").encode()


@pytest.mark.parametrize(("kind", "value"), [("uchar", "255 0 51 128"), ("float", "1 0 0.2 0.50196")])
@pytest.mark.parametrize("where", ["vertex", "face"])
def test_colours_are_srgb_and_alpha_is_not(tmp_path: Path, kind: str, value: str, where: str) -> None:
    mesh = load(write(tmp_path, coloured(kind, value, where)))
    assert mesh.colors is not None
    expected = [1, 0, ((0.2 + 0.055) / 1.055) ** 2.4, 128 / 255]
    np.testing.assert_allclose(mesh.colors, [expected] * len(mesh.vertices), atol=1e-5)


def test_dark_bytes_stay_dark(tmp_path: Path) -> None:
    mesh = load(write(tmp_path, coloured("uchar", "1 1 1 255", "vertex")))
    assert mesh.colors is not None
    assert mesh.colors[:, :3].max() < 0.001


def test_faces_of_two_colours_share_no_vertex(tmp_path: Path) -> None:
    data = coloured("uchar", "255 0 0 255", "face").replace(b"3 0 2 3 255 0 0 255", b"3 0 2 3 0 255 0 255")
    mesh = load(write(tmp_path, data))
    assert mesh.colors is not None
    assert len(mesh.vertices) == 6
    for face, color in zip(mesh.faces, ([1, 0, 0, 1], [0, 1, 0, 1])):
        np.testing.assert_allclose(mesh.colors[face], [color] * 3)


def test_texture_coordinates_of_corners(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "skin one.png")
    text = "ply\nformat ascii 1.0\ncomment TextureFile skin one.png\nelement vertex 4\n"
    text += "".join(f"property float {a}\n" for a in "xyz")
    text += "element face 2\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\nend_header\n"
    text += "0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2 6 0 0 1 0 1 1\n3 0 2 3 6 0.5 0 1 1 0 1\n"
    mesh = load(write(tmp_path, text.encode()))
    assert mesh.uv is not None
    assert len(mesh.vertices) == 5  # corner 0 has two coordinates, corner 2 one
    np.testing.assert_allclose(mesh.uv[mesh.faces[0]], [[0, 1], [1, 1], [1, 0]])
    np.testing.assert_allclose(mesh.uv[mesh.faces[1]], [[0.5, 1], [1, 0], [0, 0]])
    texture = mesh.materials[0].base_color_texture
    assert texture is not None
    assert texture.pixels[0, 0].tolist() == [9, 8, 7, 255]


@needs_assets
@pytest.mark.parametrize(
    "name", ["cycloidal_ply.ply", "dog_jaw_498k_ply.ply", "dog_skull_stl.stl", "featuretype_stl.stl", "soup_stl.stl"]
)
def test_trimesh_sees_the_same_surface(name: str) -> None:
    mesh = load(ASSETS / "objects" / name)
    twin = trimesh.load(ASSETS / "objects" / name, process=False)
    np.testing.assert_allclose(mesh.vertices[mesh.faces].sum(axis=1), twin.vertices[twin.faces].sum(axis=1), rtol=1e-6)


# STL


TRIANGLES = POINTS[[[0, 2, 1], [0, 3, 2], [0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]]


def binary_stl(header: bytes = b"") -> bytes:
    record = np.zeros(6, [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")])
    record["v"] = TRIANGLES
    return header.ljust(80, b" ") + struct.pack("<I", 6) + record.tobytes()


def text_stl() -> bytes:
    lines = ["solid pyramid"]
    for t in TRIANGLES:
        lines += [
            "facet normal 0 0 1",
            "outer loop",
            *(f"  vertex {x} {y} {z}" for x, y, z in t),
            "endloop",
            "endfacet",
        ]
    return "\n".join([*lines, "endsolid pyramid", ""]).encode()


@pytest.mark.parametrize(
    "data",
    [binary_stl(), binary_stl(b"solid facet"), binary_stl() + b"more", text_stl(), text_stl().upper(), text_stl() * 2],
)
def test_every_way_to_write_an_stl(tmp_path: Path, data: bytes) -> None:
    mesh = load(write(tmp_path, data, "asset.STL"))
    assert len(mesh.faces) == 6  # of two equal solids, one is dropped
    assert volume(mesh) == pytest.approx(2)


def test_stl_files_that_lie(tmp_path: Path) -> None:
    good, text = binary_stl(), text_stl()
    for data, expected in [
        (good[:-1], "truncated"),
        (good[:80], "truncated"),
        (good[:80] + struct.pack("<I", 2**32 - 1) + good[84:], "truncated"),
        (good[:80] + bytes(4), "no_faces"),
        (text[:-20], "truncated"),
        (text.replace(b"vertex 2.0", b"vertex two", 1), "corrupt"),
        (b"solid nothing facet\nendsolid nothing\n", "no_faces"),
    ]:
        assert outcome(write(tmp_path, data, "asset.stl")) == expected, data[:100]
    assert outcome(write(tmp_path, good, "asset.stl"), Limits(faces=5)) == "too_many_faces"
    assert outcome(write(tmp_path, text, "asset.stl"), Limits(faces=5)) == "too_many_faces"
