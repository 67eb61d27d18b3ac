"""What a glTF says is what the mesh holds: each feature on a file of a few numbers, against the answer by hand."""

import base64
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from render.limits import DEFAULT
from render.load import load, read
from render.mesh import Mesh, Texture
from tests.render.gltf_files import QUAD, QUAD_FACES, File, quad_file
from tests.render.test_load import ASSETS, manifest, needs_assets


def corner_positions(mesh: Mesh) -> np.ndarray:
    return mesh.vertices[mesh.faces]


def same_triangles(mesh: Mesh, expected: np.ndarray) -> None:
    """Equal up to the order of triangles and where each starts; the winding counts."""

    def canonical(triangles: np.ndarray) -> list:
        rolled = [min([np.roll(t, k, axis=0).round(6).tolist() for k in range(3)]) for t in triangles]
        return sorted(rolled)

    assert canonical(corner_positions(mesh)) == canonical(np.asarray(expected, float))


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) + 100


def textured(
    tmp_path: Path, info: dict | None = None, sampler: dict | None = None, material: dict | None = None
) -> Mesh:
    file = File()
    uv = file.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    file.mesh(attributes={"TEXCOORD_0": uv}, material=0)
    uri = "data:image/png;base64," + base64.b64encode(png(PIXELS)).decode()
    file.json["images"] = [{"uri": uri}]
    file.json["textures"] = [{"source": 0, **({"sampler": 0} if sampler else {})}]
    file.json["samplers"] = [sampler or {}]
    file.json["materials"] = [
        {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0, **(info or {})}}, **(material or {})}
    ]
    return load(file.write(tmp_path))


def texture_of(mesh: Mesh) -> Texture:
    texture = mesh.materials[int(mesh.material[0])].base_color_texture
    assert texture is not None
    return texture


# Geometry


def test_a_strip_turns_every_second_triangle(tmp_path: Path) -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 2, 0]], np.float32)
    mesh = load(quad_file(positions=points, indices=np.arange(5, dtype=np.uint8), mode=5).write(tmp_path))
    same_triangles(mesh, points[[[0, 1, 2], [1, 3, 2], [2, 3, 4]]])
    normals = np.cross(
        mesh.vertices[mesh.faces[:, 1]] - mesh.vertices[mesh.faces[:, 0]],
        mesh.vertices[mesh.faces[:, 2]] - mesh.vertices[mesh.faces[:, 0]],
    )
    assert (normals[:, 2] > 0).all()


def test_a_fan_shares_its_first_corner(tmp_path: Path) -> None:
    mesh = load(quad_file(indices=np.arange(4, dtype=np.uint16), mode=6).write(tmp_path))
    same_triangles(mesh, QUAD[[[0, 1, 2], [0, 2, 3]]])


def test_without_indices_corners_follow_each_other(tmp_path: Path) -> None:
    soup = QUAD[QUAD_FACES]
    same_triangles(load(quad_file(positions=soup, indices=None).write(tmp_path)), soup.reshape(2, 3, 3))


def test_points_and_lines_beside_triangles_are_left_out(tmp_path: Path) -> None:
    file = quad_file()
    for mode in (0, 1, 2, 3):
        far = file.array([[50, 50, 50], [60, 60, 60]])
        file.json["meshes"][0]["primitives"].append({"attributes": {"POSITION": far}, "mode": mode})
    mesh = load(file.write(tmp_path))
    assert len(mesh.faces) == 2
    assert mesh.vertices.max() == 1


def test_sparse_values_replace_those_of_the_base(tmp_path: Path) -> None:
    file = quad_file()
    accessor = file.json["accessors"][0]
    accessor["sparse"] = {
        "count": 1,
        "indices": {"bufferView": file.view(np.array([2], np.uint8).tobytes()), "componentType": 5121},
        "values": {"bufferView": file.view(np.array([[1, 1, 5]], np.float32).tobytes())},
    }
    expected = QUAD.copy()
    expected[2] = [1, 1, 5]
    same_triangles(load(file.write(tmp_path)), expected[QUAD_FACES].reshape(2, 3, 3))


def test_a_sparse_accessor_without_a_view_starts_from_zeros(tmp_path: Path) -> None:
    file = quad_file()
    accessor = file.json["accessors"][0]
    del accessor["bufferView"]
    accessor["sparse"] = {
        "count": 2,
        "indices": {"bufferView": file.view(np.array([1, 2], np.uint16).tobytes()), "componentType": 5123},
        "values": {"bufferView": file.view(np.array([[1, 0, 0], [1, 1, 0]], np.float32).tobytes())},
    }
    same_triangles(load(file.write(tmp_path)), [[[0, 0, 0], [1, 0, 0], [1, 1, 0]]])  # the other one has no area


def test_interleaved_attributes(tmp_path: Path) -> None:
    file = File()
    both = np.concatenate([QUAD, np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)], axis=1)
    view = file.view(both.tobytes(), byteStride=20)
    shared = {"bufferView": view, "componentType": 5126, "count": 4}
    file.json["accessors"] = [
        {**shared, "type": "VEC3"},
        {**shared, "type": "VEC2", "byteOffset": 12},
    ]
    indices = file.array(QUAD_FACES, np.uint16)
    file.json["meshes"] = [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": indices}]}]
    mesh = load(file.write(tmp_path))
    assert mesh.uv is not None
    np.testing.assert_array_equal(mesh.uv, mesh.vertices[:, :2])


@pytest.mark.parametrize(("dtype", "top"), [(np.int8, 127), (np.uint8, 255), (np.int16, 32767), (np.uint16, 65535)])
def test_quantised_positions(tmp_path: Path, dtype: type, top: int) -> None:
    file = File()
    whole = (QUAD * top).astype(dtype)
    for normalized in (True, False):
        accessor = file.array(whole, dtype, normalized=normalized)
        indices = file.array(QUAD_FACES, np.uint16)
        file.json["meshes"].append({"primitives": [{"attributes": {"POSITION": accessor}, "indices": indices}]})
    file.json["extensionsRequired"] = ["KHR_mesh_quantization"]
    same_triangles(load(file.write(tmp_path)), QUAD[QUAD_FACES].reshape(2, 3, 3))
    file.json["nodes"] = [{"mesh": 1, "scale": [1 / top] * 3}]
    same_triangles(load(file.write(tmp_path)), QUAD[QUAD_FACES].reshape(2, 3, 3))


def test_vertices_without_a_face_are_dropped(tmp_path: Path) -> None:
    far = np.concatenate([QUAD, [[1e6, 1e6, np.nan]]]).astype(np.float32)
    mesh = load(quad_file(positions=far).write(tmp_path))
    assert len(mesh.vertices) == 4
    assert mesh.vertices.max() == 1


# Placement


def test_transforms_go_down_the_tree(tmp_path: Path) -> None:
    file = quad_file()
    half = math.sqrt(0.5)
    file.json["nodes"] = [
        {"children": [1], "translation": [10, 0, 0]},
        {"children": [2], "rotation": [0, 0, half, half]},  # a quarter turn about z: x -> y
        {"mesh": 0, "scale": [2, 3, 1]},
    ]
    placed = np.stack([10 - 3 * QUAD[:, 1], 2 * QUAD[:, 0], QUAD[:, 2]], axis=1)
    same_triangles(load(file.write(tmp_path)), placed[QUAD_FACES].reshape(2, 3, 3))


def test_a_matrix_is_written_column_by_column(tmp_path: Path) -> None:
    file = quad_file()
    matrix = np.array([[0, -1, 0, 7], [1, 0, 0, 8], [0, 0, 1, 9], [0, 0, 0, 1]], float)
    file.json["nodes"] = [{"mesh": 0, "matrix": matrix.T.reshape(-1).tolist()}]
    placed = QUAD @ matrix[:3, :3].T + matrix[:3, 3]
    same_triangles(load(file.write(tmp_path)), placed[QUAD_FACES].reshape(2, 3, 3))


def test_a_mirror_turns_the_winding_so_that_outside_stays_outside(tmp_path: Path) -> None:
    file = File()
    file.mesh(attributes={"NORMAL": file.array([[0, 0, 1]] * 4)})
    file.json["nodes"] = [{"mesh": 0, "scale": [-1, 1, 1]}]
    mesh = load(file.write(tmp_path))
    a, b, c = (corner_positions(mesh)[:, i] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()
    assert mesh.normals is not None
    np.testing.assert_allclose(mesh.normals, [[0, 0, 1]] * 4)


def test_normals_take_the_inverse_transpose(tmp_path: Path) -> None:
    file = File()
    slope = QUAD @ np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1]], np.float32)  # the plane z = x
    file.mesh(positions=slope, attributes={"NORMAL": file.array([[-math.sqrt(0.5), 0, math.sqrt(0.5)]] * 4)})
    file.json["nodes"] = [{"mesh": 0, "scale": [4, 1, 1]}]
    mesh = load(file.write(tmp_path))
    a, b, c = (corner_positions(mesh)[:, i] for i in range(3))
    face = np.cross(b - a, c - a)
    assert mesh.normals is not None
    np.testing.assert_allclose(mesh.normals[mesh.faces[:, 0]], face / np.linalg.norm(face, axis=1)[:, None], atol=1e-6)


def test_instances_stand_where_their_attributes_say(tmp_path: Path) -> None:
    file = quad_file()
    attributes = {
        "TRANSLATION": file.array([[0, 0, 0], [5, 0, 0], [0, 0, 2]]),
        "SCALE": file.array([[1, 1, 1], [2, 2, 2], [1, 3, 1]]),
    }
    file.json["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    file.json["nodes"][0]["translation"] = [0, 100, 0]
    file.json["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    places = [QUAD, QUAD * 2 + [5, 0, 0], QUAD * [1, 3, 1] + [0, 0, 2]]
    expected = np.concatenate([(p + [0, 100, 0])[QUAD_FACES].reshape(2, 3, 3) for p in places])
    same_triangles(load(file.write(tmp_path)), expected)


def test_a_mesh_on_two_nodes_is_drawn_twice_and_other_scenes_not_at_all(tmp_path: Path) -> None:
    file = quad_file()
    file.json["nodes"] = [{"mesh": 0}, {"mesh": 0, "translation": [0, 0, 4]}, {"mesh": 0, "translation": [0, 0, 9]}]
    file.json["scenes"] = [{"nodes": [2]}, {"nodes": [0, 1]}]
    file.json["scene"] = 1
    mesh = load(file.write(tmp_path))
    assert len(mesh.faces) == 4
    assert sorted(set(mesh.vertices[:, 2])) == [0, 4]


def test_faces_drawn_twice_count_once_and_the_mesh_says_so(tmp_path: Path) -> None:
    file = quad_file()
    file.json["nodes"] = [{"mesh": 0}, {"mesh": 0}]
    file.json["scenes"] = [{"nodes": [0, 1]}]
    mesh = load(file.write(tmp_path))
    assert len(mesh.faces) == 2
    assert "dropped_faces" in mesh.flags


# Normals and colours


@pytest.mark.parametrize("bad", [[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0]])
def test_a_normal_that_is_none_is_made_from_the_faces(tmp_path: Path, bad: list) -> None:
    file = File()
    file.mesh(attributes={"NORMAL": file.array([[0, 0, 1], [0, 0, 7], bad, [0, 0, 1]])})
    mesh = load(file.write(tmp_path))
    assert "bad_normals" in mesh.flags
    assert mesh.normals is not None
    np.testing.assert_allclose(mesh.normals, [[0, 0, 1]] * 4)


def test_a_primitive_without_normals_beside_one_with_normals_is_shaded_flat(tmp_path: Path) -> None:
    file = File()
    file.mesh(attributes={"NORMAL": file.array([[0, 0, 1]] * 4)})
    roof = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 2, 0]], np.float32)
    second = file.mesh(positions=roof, indices=[0, 1, 2, 1, 3, 2, 2, 3, 4])
    file.json["meshes"][0]["primitives"].append(second)
    mesh = load(file.write(tmp_path))
    assert mesh.normals is not None
    for face in mesh.faces:
        a, b, c = mesh.vertices[face]
        across = np.cross(b - a, c - a)
        np.testing.assert_allclose(mesh.normals[face], [across / np.linalg.norm(across)] * 3, atol=1e-6)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integer_colours_are_shares_of_one(tmp_path: Path, dtype: type, top: int) -> None:
    file = File()
    given = np.array([[0, 0, 0], [top, 0, 0], [0, top, 0], [top // 5, top, top]])
    file.mesh(attributes={"COLOR_0": file.array(np.pad(given, ((0, 0), (0, 1))), dtype, normalized=True)})
    mesh = load(file.write(tmp_path))
    assert mesh.colors is not None
    np.testing.assert_allclose(mesh.colors, np.pad(given, ((0, 0), (0, 1))) / top, atol=1e-7)


def test_rgb_colours_are_opaque_and_primitives_without_colours_white(tmp_path: Path) -> None:
    file = File()
    file.mesh(attributes={"COLOR_0": file.array([[0.5, 0.25, 0]] * 4)})
    second = file.mesh(positions=QUAD + [0, 0, 1])
    file.json["meshes"][0]["primitives"].append(second)
    mesh = load(file.write(tmp_path))
    assert mesh.colors is not None
    np.testing.assert_allclose(mesh.colors, [[0.5, 0.25, 0, 1]] * 4 + [[1, 1, 1, 1]] * 4)


# Materials


def test_texture_pixels_and_wrap_modes(tmp_path: Path) -> None:
    texture = texture_of(textured(tmp_path, sampler={"wrapS": 33071, "wrapT": 33648}))
    np.testing.assert_array_equal(texture.pixels, PIXELS)
    assert (texture.wrap_s, texture.wrap_t, texture.uv_set, texture.transform) == ("clamp", "mirror", 0, None)
    assert texture_of(textured(tmp_path)).wrap_s == "repeat"


def test_the_worked_example_of_khr_texture_transform(tmp_path: Path) -> None:
    """'Utilizes only the lower left quadrant of the source image, rotated clockwise 90 degrees' (v points down)."""
    info = {"extensions": {"KHR_texture_transform": {"offset": [0, 1], "rotation": math.pi / 2, "scale": [0.5, 0.5]}}}
    transform = texture_of(textured(tmp_path, info)).transform
    assert transform is not None
    corners = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], float) @ transform.T
    top_left, top_right, bottom_right, bottom_left = corners[:, :2]
    # The picture's lower left corner appears at the top left: the quadrant has turned clockwise.
    np.testing.assert_allclose([top_left, top_right], [[0, 1], [0, 0.5]], atol=1e-9)
    np.testing.assert_allclose([bottom_right, bottom_left], [[0.5, 0.5], [0.5, 1]], atol=1e-9)


def test_the_second_uv_set(tmp_path: Path) -> None:
    file = File()
    first, second = file.array([[0, 0]] * 4), file.array([[0.5, 0.25]] * 4)
    file.mesh(attributes={"TEXCOORD_0": first, "TEXCOORD_1": second}, material=0)
    file.json["images"] = [{"bufferView": file.view(png(PIXELS)), "mimeType": "image/png"}]
    file.json["textures"] = [{"source": 0}]
    moved = {"KHR_texture_transform": {"texCoord": 1}}
    file.json["materials"] = [
        {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0, "texCoord": 0, "extensions": moved}}}
    ]
    mesh = load(file.write(tmp_path))
    assert texture_of(mesh).uv_set == 1
    assert mesh.uv1 is not None
    np.testing.assert_allclose(mesh.uv1, [[0.5, 0.25]] * 4)


def test_factors_modes_and_extensions_of_a_material(tmp_path: Path) -> None:
    extensions = {"KHR_materials_emissive_strength": {"emissiveStrength": 5}}
    more = {
        "alphaMode": "MASK",
        "alphaCutoff": 0.75,
        "emissiveFactor": [0.1, 0.2, 0.4],
        "normalTexture": {"index": 0, "scale": 2},
        "occlusionTexture": {"index": 0},
        "emissiveTexture": {"index": 0},
        "extensions": extensions,
    }
    mesh = textured(tmp_path, material=more)
    material = mesh.materials[int(mesh.material[0])]
    assert (material.alpha_mode, material.alpha_cutoff) == ("MASK", 0.75)
    np.testing.assert_allclose(material.emissive, [0.5, 1.0, 2.0])
    assert (material.metallic, material.roughness, material.normal_scale) == (1, 1, 2)
    for texture in (material.normal_texture, material.occlusion_texture, material.emissive_texture):
        assert texture is not None
        assert texture.pixels is texture_of(mesh).pixels  # decoded once


def test_without_a_material_a_surface_is_grey_and_matt(tmp_path: Path) -> None:
    mesh = load(quad_file().write(tmp_path))
    material = mesh.materials[int(mesh.material[0])]
    assert (material.base_color, material.metallic, material.roughness) == ((0.5, 0.5, 0.5, 1), 0, 1)


KTX2 = base64.b64encode(b"\xabKTX 20\xbb\r\n\x1a\n").decode()


@pytest.mark.parametrize(
    ("image", "flag"),
    [
        ({"uri": "absent.png"}, "missing_texture"),
        ({"uri": "data:image/png;base64,iVBORw0KGgoAAAAA"}, "corrupt_texture"),
        ({"uri": "data:image/png;base64,%%%"}, "corrupt_texture"),
        ({"bufferView": 999}, "corrupt_texture"),
        ({"uri": "data:image/ktx2;base64," + KTX2}, "unsupported_texture"),
    ],
)
def test_a_bad_image_costs_the_texture_and_not_the_asset(tmp_path: Path, image: dict, flag: str) -> None:
    file = quad_file(material=0)
    file.json["images"] = [image]
    file.json["textures"] = [{"source": 0}]
    file.json["materials"] = [
        {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "baseColorFactor": [1, 0, 0, 1]}}
    ]
    mesh = load(file.write(tmp_path))
    assert mesh.flags == {flag}
    assert mesh.materials[0].base_color == (1, 0, 0, 1)
    assert mesh.materials[0].base_color_texture is None


def test_basis_textures_fall_back_to_their_png(tmp_path: Path) -> None:
    file = quad_file(material=0)
    file.json["extensionsUsed"] = ["KHR_texture_basisu"]
    file.json["images"] = [{"bufferView": file.view(png(PIXELS))}, {"uri": "absent.ktx2"}]
    file.json["textures"] = [{"source": 0, "extensions": {"KHR_texture_basisu": {"source": 1}}}]
    file.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    mesh = load(file.write(tmp_path))
    assert mesh.flags == frozenset()
    np.testing.assert_array_equal(texture_of(mesh).pixels, PIXELS)
    del file.json["textures"][0]["source"]
    assert load(file.write(tmp_path)).flags == {"unsupported_texture"}


def test_webp_textures_come_before_their_plain_copy(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(PIXELS[..., :3]).save(out, "WEBP", lossless=True)
    file = File()
    file.mesh(attributes={"TEXCOORD_0": file.array([[0, 0], [1, 0], [1, 1], [0, 1]])}, material=0)
    file.json["images"] = [
        {"bufferView": file.view(png(PIXELS * 0)), "mimeType": "image/png"},
        {"bufferView": file.view(out.getvalue()), "mimeType": "image/webp"},
    ]
    file.json["textures"] = [{"source": 0, "extensions": {"EXT_texture_webp": {"source": 1}}}]
    file.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    file.json["extensionsRequired"] = ["EXT_texture_webp"]
    mesh = load(file.write(tmp_path))
    np.testing.assert_array_equal(texture_of(mesh).pixels[..., :3], PIXELS[..., :3])
    assert (texture_of(mesh).pixels[..., 3] == 255).all()
    assert mesh.flags == frozenset()


@pytest.mark.parametrize("mode", ["CMYK", "L", "LA", "1", "YCbCr"])
def test_images_of_every_kind_show_their_colour(tmp_path: Path, mode: str) -> None:
    plain = Image.new("RGB", (8, 8), (200, 200, 200) if mode != "1" else (255, 255, 255))
    out = io.BytesIO()
    plain.convert(mode).save(out, "PNG" if mode in ("L", "LA", "1") else "JPEG", quality=100)
    file = File()
    file.mesh(attributes={"TEXCOORD_0": file.array([[0, 0], [1, 0], [1, 1], [0, 1]])}, material=0)
    file.json["images"] = [{"bufferView": file.view(out.getvalue())}]
    file.json["textures"] = [{"source": 0}]
    file.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    pixels = texture_of(load(file.write(tmp_path))).pixels
    np.testing.assert_allclose(pixels[..., :3], np.asarray(plain), atol=3)


def test_sixteen_bit_and_palette_images(tmp_path: Path) -> None:
    deep = np.array([[0, 256 * 100, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep image.png")
    file = quad_file(material=0)
    file.json["images"] = [{"uri": "deep%20image.png"}]
    file.json["textures"] = [{"source": 0}]
    file.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    np.testing.assert_array_equal(texture_of(load(file.write(tmp_path))).pixels[0, :, 0], [0, 100, 255])
    Image.fromarray(PIXELS[..., :3]).convert("P").save(tmp_path / "deep image.png")
    assert texture_of(load(file.write(tmp_path))).pixels.shape == (2, 3, 4)


def test_a_text_gltf_with_its_buffer_beside(tmp_path: Path) -> None:
    file = quad_file()
    (tmp_path / "my data.bin").write_bytes(file.binary)
    file.json["buffers"][0]["uri"] = "my%20data.bin"
    (tmp_path / "asset.gltf").write_text(json.dumps(file.json))
    same_triangles(load(tmp_path / "asset.gltf"), QUAD[QUAD_FACES].reshape(2, 3, 3))


# The twin

STATIC = [r for r in manifest() if r["path"].endswith((".glb", ".gltf")) and r["animated"] != "y"]


@needs_assets
@pytest.mark.parametrize("row", [r for r in STATIC if "instancing" not in r["name"]], ids=lambda row: row["name"])
def test_trimesh_sees_the_same_surface(row: dict[str, str]) -> None:
    """Placed triangles as sums of their corners, each with its equal in the other: no transform is lost or doubled."""
    mesh = read(ASSETS / row["path"], DEFAULT)
    twin = trimesh.load(ASSETS / row["path"], process=False, force="scene", skip_materials=True)
    own = mesh.vertices[mesh.faces].sum(axis=1)
    placed = twin.to_geometry() if hasattr(twin, "to_geometry") else twin.dump(concatenate=True)
    other = placed.vertices[placed.faces].sum(axis=1)
    assert len(own) == len(other)
    far = 1e-5 * float(np.ptp(own, axis=0).max())
    assert cKDTree(own).query(other)[0].max() < far
    assert cKDTree(other).query(own)[0].max() < far
