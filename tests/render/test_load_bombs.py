"""Small files that ask for much: each ends as a typed outcome within seconds and without the memory it asks for."""

import io
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from render.limits import DEFAULT, Limits
from render.load import load
from render.mesh import Rejected
from tests.render.gltf_files import QUAD, QUAD_FACES, File, quad_file
from tests.render.test_load import gltf_with_image, outcome

MIB = 1 << 20
QUAD_OBJ = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def peak(call: Callable[[], str]) -> tuple[str, int]:
    """What `call` gives, and by how many bytes the resident memory of this process rose at most meanwhile."""

    def status(key: str) -> int:
        return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))

    if not Path("/proc/self/clear_refs").exists():
        return call(), 0  # only Linux says; what the call gives, and how soon, is tested everywhere
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status("VmRSS:")
    return call(), status("VmHWM:") - before


def ends(path: Path, expected: str, seconds: float = 5.0, mib: int = 64, limits: Limits = DEFAULT) -> None:
    """Loading `path` comes to `expected` in so many seconds of this process (on a busy machine, too) and so much memory
    beside the file itself.
    """
    start = time.process_time()
    found, memory = peak(lambda: outcome(path, limits))
    assert found == expected
    assert time.process_time() - start < seconds
    assert memory < mib * MIB + path.stat().st_size, f"{memory / MIB:.0f} MiB"


# glTF: what is announced, shared or repeated


def on_nodes(count: int, **node: Any) -> File:
    file = quad_file()
    file.json["nodes"] = [{"mesh": 0, **node}] * count
    file.json["scenes"] = [{"nodes": list(range(count))}]
    return file


def instanced(count: int, nodes: int) -> File:
    file = quad_file()
    attributes = {"TRANSLATION": file.array(np.zeros((1, 3)))}
    file.json["accessors"][-1] = {"componentType": 5126, "type": "VEC3", "count": count}  # zeros, without data
    node = {"mesh": 0, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": attributes}}}
    file.json["nodes"] = [node] * nodes
    file.json["scenes"] = [{"nodes": list(range(nodes))}]
    return file


def shared_indices() -> File:
    file = File()
    primitive = file.mesh(QUAD, np.tile(QUAD_FACES, 100_000).astype(np.uint16))
    file.json["meshes"][0]["primitives"] = [primitive] * 200  # 40 million triangles in 1.2 MB
    return file


def many_primitives() -> File:
    file = quad_file()
    file.json["meshes"][0]["primitives"] *= 100_001
    return file


def sparse_copies() -> File:
    """Each of 200 accessors is a buffer of 200,000 positions with one of them replaced, so a copy of it."""
    file = File()
    base = file.view(np.zeros((200_000, 3), np.float32).tobytes())
    file.json["accessors"] = [
        {
            "bufferView": base,
            "componentType": 5126,
            "type": "VEC3",
            "count": 200_000,
            "sparse": {
                "count": 1,
                "indices": {"bufferView": base, "componentType": 5121},
                "values": {"bufferView": base},
            },
        }
        for _ in range(200)
    ]
    indices = file.array(np.array([0, 1, 2], np.uint16), np.uint16)
    file.json["meshes"] = [{"primitives": [{"attributes": {"POSITION": i}, "indices": indices} for i in range(200)]}]
    return file


def many_joints() -> File:
    file = File()
    joints, weights = np.zeros((4, 4)), np.tile([1.0, 0, 0, 0], (4, 1))
    file.mesh(attributes={"JOINTS_0": file.array(joints, np.uint8), "WEIGHTS_0": file.array(weights)})
    file.json["nodes"] = [{"mesh": 0, "skin": 0}] * 2001 + [{}]
    file.json["scenes"] = [{"nodes": list(range(2001))}]
    file.json["skins"] = [{"joints": [2001] * 1000}]
    return file


def many_channels() -> File:
    file = quad_file()
    times, values = file.array([0.0, 1.0]), file.array(np.zeros((2, 3)))
    channel = {"sampler": 0, "target": {"node": 0, "path": "translation"}}
    file.json["animations"] = [{"samplers": [{"input": times, "output": values}], "channels": [channel] * 100_001}]
    return file


def many_targets() -> File:
    file = quad_file()
    file.json["meshes"][0]["primitives"][0]["targets"] = [{}] * 10_000_000  # counted, not made
    return file


BOMBS: dict[str, tuple[Callable[[], File], str]] = {
    "nodes": (lambda: on_nodes(100_001), "too_many_nodes"),
    "instances announced": (lambda: instanced(2**40, 1), "too_many_nodes"),
    "instances of every node": (lambda: instanced(100_000, 2), "too_many_nodes"),
    "triangles of shared indices": (shared_indices, "too_many_faces"),
    "primitives": (many_primitives, "too_many_nodes"),
    "sparse copies": (sparse_copies, "too_many_vertices"),
    "joints": (many_joints, "too_many_nodes"),
    "channels": (many_channels, "too_many_keys"),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_what_a_gltf_shares_or_repeats_is_counted_before_it_is_made(tmp_path: Path, name: str) -> None:
    make, expected = BOMBS[name]
    ends(make().write(tmp_path), expected, mib=400)


def test_morph_targets_are_counted_before_they_are_made(tmp_path: Path) -> None:
    ends(many_targets().write(tmp_path), "file_too_large")
    ends(many_targets().write(tmp_path), "too_many_vertices", 10, 1200, Limits(json_values=10**9))


def test_a_hundred_thousand_instances_are_an_asset(tmp_path: Path) -> None:
    """What the limits allow must load in bounded time, too."""
    ends(instanced(100_000, 1).write(tmp_path), "+dropped_faces", 20, 700)


@pytest.mark.parametrize("count", [2**31, 2**63, 2**64 + 4, 1e300])
@pytest.mark.parametrize("place", [("accessors", 0, "count"), ("bufferViews", 0, "byteStride")])
def test_numbers_that_overflow(tmp_path: Path, place: tuple, count: float) -> None:
    file = quad_file()
    kind, index, key = place
    file.json[kind][index][key] = count
    ends(file.write(tmp_path), "truncated")


def test_the_values_of_a_json_are_counted_before_they_are_parsed(tmp_path: Path) -> None:
    path = tmp_path / "asset.gltf"
    for unit in ("[],", "{},"):  # 18 MB, of which Python would make half a gigabyte
        path.write_text('{"asset":{"version":"2.0"},"extras":[' + unit * 6_000_000 + "0]}")
        ends(path, "file_too_large")
    path.write_text('{"asset":{"version":"2.0"},"nodes":' + "[" * 50_000 + "]" * 50_000 + "}")
    ends(path, "corrupt")
    path.write_text('{"asset":{"version":"2.0"},"nodes":' + '{"a":' * 50_000 + "0" + "}" * 50_001)
    ends(path, "corrupt")


def test_a_message_does_not_quote_a_whole_asset(tmp_path: Path) -> None:
    file = quad_file()
    for value in ("x" * MIB, [[1] * MIB], {"y" * MIB: 0}):
        file.json["nodes"][0]["children"] = [value]
        with pytest.raises(Rejected) as caught:
            load(file.write(tmp_path))
        assert caught.value.reason == "corrupt"
        assert len(str(caught.value)) < 500


def test_data_uris(tmp_path: Path) -> None:
    file = quad_file()
    file.json["buffers"][0]["uri"] = "data:," + "%41" * (2 * MIB)
    ends(file.write(tmp_path), "corrupt", mib=100)
    big = quad_file()
    path = big.write(tmp_path)
    limits = Limits(json_bytes=MIB)
    big.json["images"] = [{"uri": "data:image/png;base64," + "A" * MIB}]
    assert outcome(path, limits) == "+"
    ends(big.write(tmp_path), "file_too_large", limits=limits)


# Images


def with_images(folder: Path, content: bytes, count: int) -> Path:
    """A quad with `count` materials, each with an image of its own that has the bytes of all others."""
    file = quad_file()
    view = file.view(content)
    file.json["images"] = [{"bufferView": view}] * count
    file.json["textures"] = [{"source": i} for i in range(count)]
    file.json["materials"] = [{"emissiveTexture": {"index": i}} for i in range(count)]
    primitive = file.json["meshes"][0]["primitives"][0]
    file.json["meshes"][0]["primitives"] = [{**primitive, "material": i} for i in range(count)]
    return file.write(folder)


def huge(kind: str) -> bytes:
    """The first bytes of an image of 50,000 x 50,000 (WebP: 16,383 x 16,383, the most it can have)."""
    out = io.BytesIO()
    if kind == "TGA":
        return struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 50_000, 50_000, 24, 0)
    if kind == "BMP":
        header = struct.pack("<IiiHHIIiiII", 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header
    if kind == "WEBP":
        body = b"VP8 " + struct.pack("<I", 10) + b"\x30\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383)
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    Image.new("RGB", (8, 8)).save(out, kind)
    data = bytearray(out.getvalue())
    if kind == "GIF":
        data[6:10] = struct.pack("<HH", 50_000, 50_000)
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 50_000, 50_000)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "TGA", "WEBP"])
def test_an_image_is_measured_by_its_header(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"own.{kind.lower()}").write_bytes(huge(kind))
    path = gltf_with_image(tmp_path, f"own.{kind.lower()}")
    start = time.process_time()
    found, memory = peak(lambda: outcome(path))
    assert found in ("+texture_too_large", "+corrupt_texture")
    assert kind == "WEBP" or found == "+texture_too_large"
    assert time.process_time() - start < 2
    assert memory < 32 * MIB


def test_a_jpeg_of_two_hundred_scans(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.effect_noise((1500, 1500), 50).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    (tmp_path / "own.jpg").write_bytes(data[:-2] + data[last:-2] * 200 + b"\xff\xd9")
    ends(gltf_with_image(tmp_path, "own.jpg"), "+corrupt_texture", 2, mib=100)
    (tmp_path / "own.jpg").write_bytes(data)
    assert outcome(gltf_with_image(tmp_path, "own.jpg")) == "+"


def test_a_thousand_images_of_the_same_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(4 * MIB)
    limits = Limits(folder_bytes=64 * MIB)
    ends(with_images(tmp_path, noise, 1000), "+corrupt_texture,dropped_faces,texture_too_large", limits=limits)


# OBJ, MTL


def write(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("line", [b"f" + b" 1" * 50_000_000, b"v 0 0 0" + b" \\\n" * 10_000_000, b"#" * 100_000_000])
def test_an_obj_with_a_line_of_a_hundred_megabytes(tmp_path: Path, line: bytes) -> None:
    ends(write(tmp_path, "asset.obj", QUAD_OBJ + line + b"\nf 1 2 3\n"), "corrupt", mib=200)


def test_names_without_end(tmp_path: Path) -> None:
    names = [b"usemtl %d\n" % i for i in range(100_001)]
    ends(write(tmp_path, "asset.obj", QUAD_OBJ + b"".join(names) + b"f 1 2 3\n"), "too_many_materials")
    names = [b"mtllib %d.mtl\n" % i for i in range(100_000)]
    ends(write(tmp_path, "asset.obj", QUAD_OBJ + b"".join(names) + b"f 1 2 3\n"), "too_many_materials")


def test_absent_files_in_a_full_folder(tmp_path: Path) -> None:
    for i in range(2000):
        (tmp_path / f"{i}.png").touch()
    maps = b"".join(b"newmtl %d\nmap_Kd absent%d.png\n" % (i, i) for i in range(5000))
    write(tmp_path, "asset.mtl", maps)
    uses = b"".join(b"usemtl %d\nf 1 2 3\n" % i for i in range(5000))
    path = write(tmp_path, "asset.obj", b"mtllib asset.mtl\n" + QUAD_OBJ + uses)
    ends(path, "+dropped_faces,missing_texture", 5)


def test_a_library_that_includes_itself(tmp_path: Path) -> None:
    write(tmp_path, "asset.mtl", b"mtllib asset.mtl\ncall asset.mtl\nnewmtl m\nmtllib asset.mtl\ncall asset.obj\n")
    path = write(tmp_path, "asset.obj", b"mtllib asset.mtl\ncall asset.obj\n" + QUAD_OBJ + b"usemtl m\nf 1 2 3\n")
    ends(path, "+")


def test_combined_images_count_like_others(tmp_path: Path) -> None:
    """Eight images of a megapixel, each cut out by each of the eight: 64 more."""
    for i in range(8):
        Image.new("RGB", (1000, 1000), (i, i, i)).save(tmp_path / f"{i}.png")
    pairs = [(i, j) for i in range(8) for j in range(8)]
    maps = b"".join(b"newmtl %d%d\nmap_Kd %d.png\nmap_d %d.png\n" % (i, j, i, j) for i, j in pairs)
    write(tmp_path, "asset.mtl", maps)
    uses = b"".join(b"usemtl %d%d\nf %d 2 3\n" % (i, j, 1 + 3 * (i == j)) for i, j in pairs)
    path = write(tmp_path, "asset.obj", b"mtllib asset.mtl\n" + QUAD_OBJ + uses)
    ends(path, "+dropped_faces,texture_too_large", mib=120, limits=Limits(textures_pixels=16_000_000))


# PLY, STL


def ply(header: str, body: bytes) -> bytes:
    vertices = "element vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    return f"ply\nformat binary_little_endian 1.0\n{vertices}{header}end_header\n".encode() + bytes(36) + body


LYING_LISTS = {
    "a count of four billion": (
        ply("element face 1\nproperty list uint int vertex_index\n", b"\xff" * 16),
        "truncated",
    ),
    "a negative count": (ply("element face 2\nproperty list int int vertex_index\n", b"\xff" * 16), "truncated"),
    "a count that changes": (
        ply("element face 2\nproperty list uchar int vertex_index\n", b"\x03" + bytes(12) + b"\xff" + bytes(12)),
        "truncated",
    ),
    "elements of nothing": (ply("element nothing 1000000000000\nelement face 0\n", b""), "too_many_vertices"),
    "elements of lists": (
        ply("element nothing 1000000000000\nproperty list uchar uchar x\n", b"\1\0\2\0\0" * 1000),
        "too_many_vertices",
    ),
    "properties without end": (ply("element face 1\n" + "property float p\n" * 50_000, b""), "corrupt"),
    "a polygon of all indices": (
        ply(
            "element face 1\nproperty list uint uchar vertex_index\n", struct.pack("<I", 11_000_000) + bytes(11_000_000)
        ),
        "too_many_faces",
    ),
}


@pytest.mark.parametrize("name", sorted(LYING_LISTS))
def test_a_ply_whose_counts_lie(tmp_path: Path, name: str) -> None:
    data, expected = LYING_LISTS[name]
    ends(write(tmp_path, "asset.ply", data), expected, mib=250)


def test_a_polygon_of_a_million_corners(tmp_path: Path) -> None:
    count = 1_000_000
    header = "element face 1\nproperty list uint uchar vertex_index\n"
    indices = (np.arange(count) % 3).astype(np.uint8).tobytes()
    ends(write(tmp_path, "asset.ply", ply(header, struct.pack("<I", count) + indices)), "zero_extent", 10, 700)


def test_polygons_of_two_thousand_sizes(tmp_path: Path) -> None:
    """Beside a million triangles: grouping them by size must not look at all of them for each size."""
    sizes = [*range(4, 2004), *([3] * 1_000_000)]
    indices = (np.arange(3, dtype=np.uint8)).tobytes() * 700
    body = b"".join(struct.pack("<H", n) + indices[:n] for n in sizes)
    header = f"element face {len(sizes)}\nproperty list ushort uchar vertex_index\n"
    ends(write(tmp_path, "asset.ply", ply(header, body)), "zero_extent", 15, 1500)


def test_texts_that_never_end_a_line(tmp_path: Path) -> None:
    header = b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nelement face 1\nend_header\n"
    ends(write(tmp_path, "asset.ply", header + b"0 " * 10_000_000), "corrupt")
    ends(write(tmp_path, "asset.stl", b"solid facet\n" + b"vertex " * 3_000_000 + b"\nendsolid"), "corrupt")
    ends(write(tmp_path, "asset.stl", b"solid facet\n" + b"endsolid\nsolid\n" * 1_000_000 + b"endsolid"), "no_faces")


LOADERS = ("load", "folder", "lines", "gltf*", "draco", "obj", "mtl", "ply", "stl", "textures", "polygons", "animation")


def test_every_reason_and_flag_of_a_loader_is_documented() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / "assets.md").read_text()
    code = "".join(path.read_text() for name in LOADERS for path in sorted((root / "render").glob(f"{name}.py")))
    reasons = set(re.findall(r'Rejected\(\s*"([a-z_]+)"', code)) | set(re.findall(r'"(node_[a-z]+)" if', code))
    flags = set(re.findall(r'flags(?:\.add\(| \| {)"([a-z_]+)"', code))
    assert len(reasons) > 20
    assert len(flags) > 8
    assert {name for name in reasons | flags if f"`{name}`" not in text} == set()


def test_the_limits_are_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "assets.md").read_text()
    for name in vars(DEFAULT):
        assert f"`{name}`" in text, name
    assert f"{DEFAULT.faces // 10**6} million" in text


def test_ten_million_triangles_are_the_limit_and_the_message_says_so(tmp_path: Path) -> None:
    file = quad_file(indices=None)
    file.json["accessors"][0]["count"] = 3 * (DEFAULT.faces + 1)
    with pytest.raises(Rejected, match="too_many_faces: more than 10000000 triangles"):
        load(file.write(tmp_path))
