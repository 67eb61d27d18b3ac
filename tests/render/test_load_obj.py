"""Wavefront OBJ and MTL: what the lines say, by hand and against trimesh where trimesh reads them right."""

import time
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from render.limits import DEFAULT, Limits
from render.load import load
from render.mesh import Material, Mesh, Rejected
from tests.render.test_load import ASSETS, needs_assets, outcome

CORNERS = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def obj(folder: Path, text: str, mtl: str | None = None) -> Path:
    (folder / "asset.obj").write_text(text)
    if mtl is not None:
        (folder / "asset.mtl").write_text(mtl)
    return folder / "asset.obj"


def areas(mesh: Mesh) -> np.ndarray:
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a) / 2


def test_a_quad_is_two_triangles_that_keep_its_winding(tmp_path: Path) -> None:
    mesh = load(obj(tmp_path, CORNERS + "f 1 2 3 4\n"))
    np.testing.assert_allclose(areas(mesh), [[0, 0, 0.5]] * 2)


def test_negative_indices_count_from_their_own_line(tmp_path: Path) -> None:
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 0 0 5\nv 1 0 5\nv 0 1 5\nf -3 -2 -1\n"
    mesh = load(obj(tmp_path, text))
    assert sorted(mesh.vertices[mesh.faces[:, 0]][:, 2]) == [0, 5]
    assert outcome(obj(tmp_path, "v 0 0 0\nv 1 0 0\nv 0 1 0\nf -4 -2 -1\n")) == "index_out_of_range"


@pytest.mark.parametrize("face", ["f 1 2 5", "f 0 1 2", "f 1 2 99999999999999999999", "f 1 2 x", "f 1 2 3.5"])
def test_faces_that_name_no_vertex(tmp_path: Path, face: str) -> None:
    assert outcome(obj(tmp_path, CORNERS + face + "\n")) in ("index_out_of_range", "corrupt")


@pytest.mark.parametrize("line", ["v 1 2", "v 1 2 x", "v"])
def test_vertices_that_are_none(tmp_path: Path, line: str) -> None:
    assert outcome(obj(tmp_path, CORNERS + line + "\nf 1 2 3\n")) == "corrupt"


@pytest.mark.parametrize("far", ["nan", "inf", "1e200", "-1e400"])
def test_vertices_that_are_nowhere(tmp_path: Path, far: str) -> None:
    assert outcome(obj(tmp_path, CORNERS + f"v {far} 0 0\nf 1 2 5\n")) == "non_finite"
    assert outcome(obj(tmp_path, CORNERS + f"v {far} 0 0\nf 1 2 3\n")) == "+"  # nobody uses it


def test_corners_with_and_without_uv_and_normal_mix(tmp_path: Path) -> None:
    text = CORNERS + "vt 0.25 0.75\nvn 0 0 2\nf 1/1/1 2//1 3\nf 1 3/1 4//1\n"
    mesh = load(obj(tmp_path, text))
    assert len(mesh.faces) == 2
    assert mesh.uv is not None
    assert mesh.normals is not None
    np.testing.assert_allclose(mesh.uv[mesh.faces[0, 0]], [0.25, 0.25])  # v is flipped
    np.testing.assert_allclose(mesh.normals, [[0, 0, 1]] * len(mesh.vertices))


def test_uv_and_normals_out_of_range_cost_only_the_looks(tmp_path: Path) -> None:
    mesh = load(obj(tmp_path, CORNERS + "vt 0 0\nvn 0 0 1\nf 1/7/1 2/1/9 3/1/1\n"))
    assert mesh.flags == {"bad_uv", "bad_normals"}


def test_tabs_continued_lines_carriage_returns_and_indented_text(tmp_path: Path) -> None:
    text = "\ufeff# first\r\n" + CORNERS.replace(" ", "\t").replace("\n", "\r\n") + "  f 1 2 \\\r\n 3 4\r\n"
    assert len(load(obj(tmp_path, text)).faces) == 2


def test_vertex_colours_are_srgb(tmp_path: Path) -> None:
    text = "v 0 0 0 1 0 0.5\nv 1 0 0 1 0 0.5\nv 0 1 0 1 0 0.5\nv 0 0 1\nf 1 2 3\nf 1 2 4\n"
    mesh = load(obj(tmp_path, text))
    assert mesh.colors is not None
    half = ((0.5 + 0.055) / 1.055) ** 2.4
    white = mesh.vertices[:, 2] == 1
    np.testing.assert_allclose(mesh.colors[~white], [[1, 0, half, 1]] * 3, atol=1e-6)
    np.testing.assert_allclose(mesh.colors[white], [[1, 1, 1, 1]])


def test_limits_are_kept_while_reading(tmp_path: Path) -> None:
    path = obj(tmp_path, CORNERS + "f 1 2 3 4\n" * 50)
    assert outcome(path, Limits(faces=99)) == "too_many_faces"
    assert outcome(path, Limits(vertices=3)) == "too_many_vertices"


# Polygons


L_SHAPE = np.array([[0, 0], [3, 0], [3, 1], [1, 1], [1, 3], [0, 3]], float)


@pytest.mark.parametrize("shift", range(6))
@pytest.mark.parametrize("turn", [np.eye(3), np.roll(np.eye(3), 1, axis=0), np.roll(np.eye(3), 2, axis=0)])
@pytest.mark.parametrize("order", [1, -1])
def test_a_concave_polygon_is_covered_once(tmp_path: Path, shift: int, turn: np.ndarray, order: int) -> None:
    points = np.pad(np.roll(L_SHAPE, shift, axis=0)[::order], ((0, 0), (0, 1))) @ turn
    text = "".join(f"v {x} {y} {z}\n" for x, y, z in points) + "f 1 2 3 4 5 6\n"
    signed = areas(load(obj(tmp_path, text)))
    whole = order * np.array([0, 0, 5.0]) @ turn
    assert len(signed) == 4
    np.testing.assert_allclose(signed.sum(axis=0), whole)
    assert (signed @ whole > 0).all()  # none is turned over: they tile the shape, they do not cancel outside it


def test_a_dart_takes_its_other_diagonal(tmp_path: Path) -> None:
    mesh = load(obj(tmp_path, "v 0 2 0\nv -1 0 0\nv 0 1 0\nv 1 0 0\nf 1 2 3 4\n"))
    assert (areas(mesh)[:, 2] > 0).all()


@pytest.mark.parametrize("ending", ["obj", "ply"])
def test_a_cube_of_quads_given_twice_has_its_faces_once(tmp_path: Path, ending: str) -> None:
    """Once for each side, as exporters do: copies begin at any corner, run either way, have vertices of their own."""
    points = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) - 0.5
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    copies = [tuple(np.roll(quad, shift)[::way] + 8) for quad in quads for shift in range(4) for way in (1, -1)]
    path = polygons(tmp_path, np.concatenate([points, points]), quads + copies, ending)
    mesh = load(path)
    assert len(mesh.faces) == 12
    np.testing.assert_allclose(np.linalg.norm(areas(mesh), axis=1), 0.5)


@pytest.mark.parametrize("radius", [1.0, 0.3, -0.3])
def test_copies_of_a_polygon_are_cut_alike(tmp_path: Path, radius: float) -> None:
    """Convex, concave and crooked ones of 4 to 9 corners."""
    g = np.random.default_rng(3)
    for n in range(4, 10):
        angle = np.arange(n) * 2 * np.pi / n
        points = np.stack([np.cos(angle), np.sin(angle), 0.1 * g.normal(size=n)], axis=1)
        points[1, :2] *= radius
        points = points @ np.linalg.qr(g.normal(size=(3, 3)))[0]
        copies = [tuple(np.roll(np.arange(n), shift)[::way]) for shift in range(n) for way in (1, -1)]
        once = load(polygons(tmp_path, points, copies[:1], "obj"))
        assert len(once.faces) == n - 2
        many = load(polygons(tmp_path, points, copies, "obj"))
        assert len(many.faces) == n - 2
        np.testing.assert_allclose(areas(many).sum(axis=0), areas(once).sum(axis=0), atol=1e-12)


def polygons(folder: Path, points: np.ndarray, faces: list[tuple[int, ...]], ending: str) -> Path:
    path = folder / f"asset.{ending}"
    if ending == "obj":
        lines = ["v " + " ".join(map(repr, p)) for p in points.tolist()]
        lines += ["f " + " ".join(str(i + 1) for i in face) for face in faces]
    else:
        lines = ["ply", "format ascii 1.0", f"element vertex {len(points)}", *(f"property double {k}" for k in "xyz")]
        lines += [f"element face {len(faces)}", "property list int int vertex_indices", "end_header"]
        lines += [" ".join(map(repr, p)) for p in points.tolist()]
        lines += [" ".join(map(str, (len(face), *face))) for face in faces]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_polygon_of_many_corners(tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    text = "".join(f"v {np.cos(a)} {np.sin(a)} 0\n" for a in angle) + "f " + " ".join(str(i + 1) for i in range(500))
    signed = areas(load(obj(tmp_path, text)))
    np.testing.assert_allclose(signed.sum(axis=0), [0, 0, 250 * np.sin(2 * np.pi / 500)])


# Materials


def material_of(mesh: Mesh, face: int = 0) -> Material:
    return mesh.materials[int(mesh.material[face])]


FACE = "vt 0 0\nusemtl m\nf 1/1 2/1 3/1\n"


@pytest.fixture
def picture(tmp_path: Path) -> np.ndarray:
    pixels = np.arange(2 * 2 * 4, dtype=np.uint8).reshape(2, 2, 4) * 10
    for name in ("a b.png", "plain.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "maps").mkdir()
    Image.fromarray(pixels).save(tmp_path / "maps" / "deep one.png")
    return pixels


@pytest.mark.parametrize(
    "line",
    [
        "map_Kd a b.png",
        "map_Kd .\\a b.png",
        "map_Kd maps\\deep one.png",
        "map_Kd -bm 0.5 -clamp on a b.png",
        "MAP_KD\tplain.png",
    ],
)
def test_texture_names(tmp_path: Path, picture: np.ndarray, line: str) -> None:
    mesh = load(obj(tmp_path, "mtllib asset.mtl\n" + CORNERS + FACE, f"newmtl m\nKd 0 0 0\n{line}\n"))
    texture = material_of(mesh).base_color_texture
    assert texture is not None
    np.testing.assert_array_equal(texture.pixels, picture)
    assert texture.wrap_s == ("clamp" if "-clamp on" in line else "repeat")
    assert material_of(mesh).base_color == (1, 1, 1, 1)  # Kd does not darken a texture
    assert mesh.flags == frozenset()


def test_scale_and_offset_of_a_texture(tmp_path: Path, picture: np.ndarray) -> None:
    """In an OBJ v points up: the point (u, v) of the file shows the picture at (2 u + 0.25, 4 v + 0.5) from below."""
    text = "mtllib asset.mtl\n" + CORNERS + "vt 0.1 0.2\nusemtl m\nf 1/1 2/1 3/1\n"
    mesh = load(obj(tmp_path, text, "newmtl m\nmap_Kd -s 2 4 1 -o 0.25 0.5 plain.png\n"))
    texture = material_of(mesh).base_color_texture
    assert texture is not None
    assert texture.transform is not None
    assert mesh.uv is not None
    u, v, _ = texture.transform @ [*mesh.uv[0], 1]
    np.testing.assert_allclose([u, v], [2 * 0.1 + 0.25, 1 - (4 * 0.2 + 0.5)], atol=1e-6)


def test_factors(tmp_path: Path) -> None:
    mtl = (
        "newmtl other\nKd 1 0 0\nnewmtl m\nKd 0.5 0.25 0\nKe 0 1 0\nd 0.25\nKs 1 1 1\nNs 0\nPm 0.5\nillum 2\nKd_bad x\n"
    )
    material = material_of(load(obj(tmp_path, "mtllib asset.mtl\n" + CORNERS + FACE, mtl)))
    expected = [((0.5 + 0.055) / 1.055) ** 2.4, ((0.25 + 0.055) / 1.055) ** 2.4, 0, 0.25]
    np.testing.assert_allclose(material.base_color, expected)
    assert (material.emissive, material.alpha_mode, material.metallic, material.roughness) == (
        (0, 1, 0),
        "BLEND",
        0.5,
        1,
    )


@pytest.mark.parametrize(("line", "alpha"), [("d 1", 1), ("d 0", 1), ("Tr 1", 1), ("Tr 0.75", 0.25), ("d x", 1)])
def test_opacity(tmp_path: Path, line: str, alpha: float) -> None:
    material = material_of(load(obj(tmp_path, "mtllib asset.mtl\n" + CORNERS + FACE, f"newmtl m\n{line}\n")))
    assert material.base_color[3] == alpha
    assert material.alpha_mode == ("OPAQUE" if alpha == 1 else "BLEND")


def test_a_cut_out_mask(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(tmp_path / "mask.png")
    mtl = "newmtl m\nmap_Kd plain.png\nmap_d mask.png\n"
    material = material_of(load(obj(tmp_path, "mtllib asset.mtl\n" + CORNERS + FACE, mtl)))
    assert material.alpha_mode == "MASK"
    assert material.base_color_texture is not None
    np.testing.assert_array_equal(material.base_color_texture.pixels[..., 3], [[0, 255], [255, 0]])
    np.testing.assert_array_equal(material.base_color_texture.pixels[..., :3], picture[..., :3])


def test_each_face_has_the_material_named_before_it(tmp_path: Path) -> None:
    mtl, more = "newmtl red\nKd 1 0 0\nnewmtl two words\nKd 0 1 0\n", "newmtl blue\nKd 0 0 1\n"
    (tmp_path / "more.mtl").write_text(more)
    text = (
        "mtllib asset.mtl more.mtl\n" + CORNERS + "f 1 2 3\nusemtl blue\nf 1 3 4\ng part\nusemtl two words\nf 1 2 4\n"
    )
    text += "usemtl red\nf 2 3 4\n"
    mesh = load(obj(tmp_path, text, mtl))
    colors = [material_of(mesh, face).base_color[:3] for face in range(4)]
    assert colors == [(0.5, 0.5, 0.5), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert mesh.flags == frozenset()


def test_what_is_missing_is_flagged(tmp_path: Path) -> None:
    assert outcome(obj(tmp_path, "mtllib absent.mtl\n" + CORNERS + FACE)) == "+missing_material"
    assert outcome(obj(tmp_path, "mtllib asset.mtl\n" + CORNERS + FACE, "newmtl another\n")) == "+missing_material"
    assert outcome(obj(tmp_path, CORNERS + FACE)) == "+"  # it names no library, so none is missing
    unused = "newmtl m\nKd 1 1 1\nnewmtl unused\nmap_Kd absent.png\n"
    assert outcome(obj(tmp_path, "mtllib asset.mtl\n" + CORNERS + FACE, unused)) == "+"


# The twin


@needs_assets
@pytest.mark.parametrize(
    "name", ["spot_obj/spot.obj", "armchair_obj/armchair.obj", "gso_frypan/chefmate_8_frypan.obj", "fuze_obj/fuze.obj"]
)
def test_trimesh_sees_the_same_textured_surface(name: str) -> None:
    """Every triangle, as the sum of its corners' positions and texture coordinates, has its equal in the other."""
    mesh = load(ASSETS / "objects" / name)
    twin = trimesh.load(ASSETS / "objects" / name, process=False, force="scene")
    assert mesh.uv is not None
    own = np.concatenate([mesh.vertices, mesh.uv], axis=1)[mesh.faces].sum(axis=1)
    theirs = []
    for part in twin.geometry.values():
        flipped = np.stack([part.visual.uv[:, 0], 1 - part.visual.uv[:, 1]], axis=1)
        theirs.append(np.concatenate([part.vertices, flipped], axis=1)[part.faces].sum(axis=1))
    other = np.concatenate(theirs)
    assert len(own) == len(other)
    far = 1e-5 * float(np.ptp(mesh.vertices, axis=0).max() + 1)
    assert cKDTree(own).query(other)[0].max() < far
    assert cKDTree(other).query(own)[0].max() < far


def test_rejections_cross_processes() -> None:
    import pickle

    copy = pickle.loads(pickle.dumps(Rejected("no_faces", "there are none")))
    assert (copy.reason, copy.message) == ("no_faces", "there are none")
    assert DEFAULT.faces == 10_000_000


# Small files that ask for much work


def in_time(path: Path, seconds: float) -> str:
    start = time.perf_counter()
    result = outcome(path)
    assert time.perf_counter() - start < seconds
    return result


def test_many_materials_and_one_library_again_and_again(tmp_path: Path) -> None:
    names = "".join(f"usemtl m{i}\nf 1 2 3\n" for i in range(50_000))
    libraries = "".join("mtllib " + "./" * (i % 40) + "asset.mtl\n" for i in range(5_000))
    mtl = "".join(f"newmtl m{i}\nKd 1 0 0\n" for i in range(5_000))
    assert in_time(obj(tmp_path, libraries + CORNERS + names, mtl), 15) == "+dropped_faces,missing_material"


def test_many_large_concave_polygons(tmp_path: Path) -> None:
    n, count = 300, 300
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    radius = np.where(np.arange(n) % 2, 1.0, 0.3)  # a star has a reflex corner beside every ear
    text = "".join(f"v {r * np.cos(a)} {r * np.sin(a)} 0\n" for r, a in zip(radius, angle))
    text += ("f " + " ".join(str(i + 1) for i in range(n)) + "\n") * count
    assert in_time(obj(tmp_path, text), 30) == "+dropped_faces"


# Relief and metal


def lit(tmp_path: Path, mtl: str) -> Material:
    return material_of(load(obj(tmp_path, "mtllib asset.mtl\n" + CORNERS + FACE, "newmtl m\n" + mtl)))


def test_heights_become_normals(tmp_path: Path) -> None:
    """A ramp that rises to the right by 32 grey levels a texel: the normal leans to the left by its slope."""
    ramp = np.tile(np.arange(0, 256, 32, dtype=np.uint8), (8, 1))
    Image.fromarray(ramp).save(tmp_path / "right.png")
    Image.fromarray(ramp.T).save(tmp_path / "down.png")
    for name, strength, axis in (("right.png", 1.0, 0), ("down.png", 4.0, 1)):
        texture = lit(tmp_path, f"map_Bump -bm {strength} {name}\n").normal_texture
        assert texture is not None
        normal = texture.pixels[3, 3, :3] / 127.5 - 1
        wanted = np.array([0.0, 0.0, 1.0])
        wanted[axis] = -strength * 32 / 255 if axis == 0 else strength * 32 / 255  # +y is up in the image
        np.testing.assert_allclose(normal, wanted / np.linalg.norm(wanted), atol=0.01)
    flat = lit(tmp_path, "bump -bm 0 right.png\n").normal_texture
    assert flat is not None
    assert (flat.pixels == [128, 128, 255, 255]).all()


def test_a_bump_map_that_holds_normals_is_taken_for_one(tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    pixels = np.zeros((4, 16, 3))
    pixels[:] = np.stack([np.sin(angle) * 0.5, np.cos(angle) * 0.5, np.full(16, 0.75**0.5)], axis=1)
    pixels = np.round((pixels + 1) * 127.5).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "n.png")
    texture = lit(tmp_path, "map_Bump -bm 2 n.png\n").normal_texture
    assert texture is not None
    np.testing.assert_array_equal(texture.pixels[..., :3], pixels)


def test_metal_and_roughness_share_an_image(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 200, np.uint8)).save(tmp_path / "metal.png")
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(tmp_path / "rough.png")
    both = lit(tmp_path, "Pr 0.3\nPm 0.2\nmap_Pr rough.png\nmap_Pm metal.png\n")
    texture = both.metallic_roughness_texture
    assert texture is not None
    np.testing.assert_array_equal(texture.pixels[..., 1], np.arange(16).reshape(4, 4))
    assert (texture.pixels[..., 2] == 200).all()
    assert (both.metallic, both.roughness) == (1, 1)
    one = lit(tmp_path, "Pr 0.3\nPm 0.2\nmap_Pm metal.png\n")
    assert one.metallic_roughness_texture is not None
    assert (one.metallic_roughness_texture.pixels[..., 1] == 255).all()
    assert (one.metallic, one.roughness) == (1, 0.3)
