"""A glTF that lies, loops or leads outside is refused with a typed reason, in bounded time and memory."""

import io
import json
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from render import draco
from render.limits import Limits
from render.load import load
from render.mesh import Rejected
from tests.render.gltf_files import QUAD, QUAD_FACES, File, quad_file


def reason(path: Path, **limits: int) -> str:
    with pytest.raises(Rejected) as caught:
        load(path, Limits(**limits))
    return caught.value.reason


def change(*keys: Any, to: Any) -> Any:
    def apply(file: File) -> None:
        at = file.json
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (change("accessors", 0, "count", to=2**31 - 1), "truncated"),
        (change("accessors", 0, "count", to=-1), "corrupt"),
        (change("accessors", 0, "count", to="4"), "corrupt"),
        (change("accessors", 0, "byteOffset", to=8), "truncated"),
        (change("accessors", 0, "bufferView", to=7), "index_out_of_range"),
        (change("accessors", 0, "componentType", to=9999), "corrupt"),
        (change("accessors", 0, "type", to="VEC2"), "corrupt"),
        (change("accessors", 1, "componentType", to=5122), "corrupt"),
        (change("accessors", 1, "count", to=5), "corrupt"),
        (change("bufferViews", 0, "byteLength", to=2**40), "truncated"),
        (change("bufferViews", 0, "byteOffset", to=2**70), "truncated"),
        (change("bufferViews", 0, "byteStride", to=1), "corrupt"),
        (change("buffers", 0, "byteLength", to=10**9), "truncated"),
        (change("buffers", 0, "uri", to="absent.bin"), "missing_buffer"),
        (change("buffers", 0, "uri", to="../outside.bin"), "path_outside_folder"),
        (change("buffers", 0, "uri", to="https://example.org/a.bin"), "path_outside_folder"),
        (change("buffers", 0, "uri", to="data:application/octet-stream;base64,AAAA"), "truncated"),
        (change("meshes", 0, "primitives", 0, "material", to=3), "index_out_of_range"),
        (change("meshes", 0, "primitives", 0, "mode", to=9), "corrupt"),
        (change("meshes", 0, "primitives", to=3), "corrupt"),
        (change("nodes", 0, "mesh", to=1), "index_out_of_range"),
        (change("nodes", 0, "scale", to=[1, 1]), "corrupt"),
        (change("nodes", 0, "scale", to=[1e308, 1e308, 1]), "non_finite"),
        (change("nodes", 0, "scale", to=[0, 0, 0]), "zero_extent"),
        (change("nodes", 0, "scale", to=[0, 1, 0]), "zero_area"),
        (change("nodes", 0, "children", to=[0]), "node_cycle"),
        (change("nodes", 0, "children", to=[99]), "index_out_of_range"),
        (change("scenes", 0, "nodes", to=[5]), "index_out_of_range"),
        (change("scenes", 0, "nodes", to=[]), "no_faces"),
        (change("scene", to=4), "index_out_of_range"),
        (change("asset", "version", to="1.0"), "unsupported_version"),
        (change("extensionsRequired", to=["KHR_gaussian_splatting"]), "unsupported_extension"),
        (change("extensionsRequired", to="KHR"), "corrupt"),
        (change("meshes", to={}), "corrupt"),
    ],
)
def test_a_single_lie(tmp_path: Path, damage: Any, expected: str) -> None:
    file = quad_file()
    damage(file)
    assert reason(file.write(tmp_path)) == expected


def test_one_index_too_far(tmp_path: Path) -> None:
    assert reason(quad_file(indices=np.array([0, 1, 4], np.uint8)).write(tmp_path)) == "index_out_of_range"


def test_one_sparse_index_too_far(tmp_path: Path) -> None:
    file = quad_file()
    file.json["accessors"][0]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": file.view(b"\x04"), "componentType": 5121},
        "values": {"bufferView": file.view(bytes(12))},
    }
    assert reason(file.write(tmp_path)) == "index_out_of_range"


def test_attributes_shorter_than_the_positions(tmp_path: Path) -> None:
    file = File()
    file.mesh(attributes={"NORMAL": file.array([[0, 0, 1]] * 3)})
    assert reason(file.write(tmp_path)) == "index_out_of_range"


def test_a_nan_position(tmp_path: Path) -> None:
    broken = QUAD.copy()
    broken[2, 1] = np.nan
    assert reason(quad_file(positions=broken).write(tmp_path)) == "non_finite"


@pytest.mark.parametrize("decoder", [False, True])
def test_compressed_geometry_is_never_read_as_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: bool
) -> None:
    """Even where the file forgets to *require* the extension."""
    monkeypatch.setattr(draco, "available", lambda: decoder)
    file = quad_file()
    compressed: dict[str, Any] = {"bufferView": 0, "attributes": {"NORMAL": 0}}
    file.json["meshes"][0]["primitives"][0]["extensions"] = {draco.NAME: compressed}
    assert len(load(file.write(tmp_path)).faces) == 2  # an uncompressed copy is there
    del file.json["accessors"][0]["bufferView"]
    assert reason(file.write(tmp_path)) == ("corrupt" if decoder else "unsupported_extension")


def test_what_only_looks_need_may_be_required(tmp_path: Path) -> None:
    file = quad_file()
    file.json["extensionsRequired"] = ["KHR_materials_unlit", "KHR_materials_transmission", "KHR_texture_transform"]
    assert len(load(file.write(tmp_path)).faces) == 2


def test_announced_sizes_allocate_nothing(tmp_path: Path) -> None:
    zeros = quad_file()
    del zeros.json["accessors"][0]["bufferView"]
    zeros.json["accessors"][0]["count"] = 2**31 - 1
    soup = quad_file(indices=None)
    soup.json["accessors"][0]["count"] = 3 * 2**29
    tracemalloc.start()
    reasons = [reason(zeros.write(tmp_path)), reason(soup.write(tmp_path))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reasons == ["too_many_vertices", "too_many_faces"]
    assert peak < 4 << 20


def test_instances_are_counted_before_they_are_made(tmp_path: Path) -> None:
    file = quad_file()
    count = 1000
    attributes = {"TRANSLATION": file.array(np.zeros((count, 3)))}
    file.json["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    assert reason(file.write(tmp_path), faces=2 * count - 1) == "too_many_faces"
    assert reason(file.write(tmp_path), vertices=4 * count - 1) == "too_many_vertices"


def test_ten_thousand_nested_nodes(tmp_path: Path) -> None:
    file = quad_file()
    depth = 10_000
    file.json["nodes"] = [{"children": [i + 1], "translation": [1, 0, 0]} for i in range(depth)] + [{"mesh": 0}]
    start = time.perf_counter()
    mesh = load(file.write(tmp_path))
    assert time.perf_counter() - start < 10
    np.testing.assert_allclose(mesh.vertices.min(axis=0), [depth, 0, 0])
    file.json["nodes"][-1]["children"] = [5000]
    assert reason(file.write(tmp_path)) == "node_cycle"
    assert reason(file.write(tmp_path), nodes=depth) == "too_many_nodes"


def test_a_node_with_two_parents_cannot_multiply(tmp_path: Path) -> None:
    """Forty diamonds one below the other would stand for 2^40 meshes."""
    file = quad_file()
    nodes: list[dict] = []
    for level in range(40):
        at = 3 * level
        nodes += [{"children": [at + 1, at + 2]}, {"children": [at + 3]}, {"children": [at + 3]}]
    file.json["nodes"] = [*nodes, {"mesh": 0}]
    assert reason(file.write(tmp_path)) == "node_shared"


def test_a_cycle_away_from_the_scene(tmp_path: Path) -> None:
    file = quad_file()
    file.json["nodes"] += [{"children": [2]}, {"children": [1]}]
    assert reason(file.write(tmp_path)) == "node_cycle"


def test_json_that_nests_too_deep_or_is_none(tmp_path: Path) -> None:
    path = tmp_path / "asset.gltf"
    path.write_text("{" + '"a":[' * 100_000)
    assert reason(path) == "corrupt"
    path.write_text('{"asset": {"version": "2.0"}, "nodes": [{"scale": [NaN, 1, 1]}]}')
    assert reason(path) == "corrupt"
    path.write_text(json.dumps(quad_file().json))
    assert reason(path, json_bytes=100) == "file_too_large"


def test_glb_containers_that_lie(tmp_path: Path) -> None:
    good = quad_file().glb()
    path = tmp_path / "asset.glb"
    json_length = struct.unpack_from("<I", good, 12)[0]
    for damaged, expected in [
        (good[:7], "truncated"),
        (good[:-1], "truncated"),
        (good[:8] + struct.pack("<I", 2**32 - 1) + good[12:], "truncated"),
        (good[:12] + struct.pack("<I", 2**31) + good[16:], "truncated"),
        (good[:4] + struct.pack("<I", 1) + good[8:], "unsupported_version"),
        (good[:16] + b"\0\0\0\0" + good[20:], "corrupt"),
        (good[: 20 + json_length], "truncated"),
    ]:
        path.write_bytes(damaged)
        assert reason(path) == expected, damaged[:24]
    path.write_bytes(good + b"trailing bytes belong to nobody")
    assert len(load(path).faces) == 2


def test_a_primitive_of_a_large_shared_buffer_costs_what_it_uses(tmp_path: Path) -> None:
    """Exporters let hundreds of primitives point into one buffer; each once cost the whole of it."""
    file = File()
    count = 300
    shared = file.array(np.random.default_rng(0).random((200_000, 3)))
    primitives = []
    for i in range(count):
        indices = file.array(np.array([3 * i, 3 * i + 1, 3 * i + 2]), np.uint32)
        primitives.append({"attributes": {"POSITION": shared}, "indices": indices})
    file.json["meshes"] = [{"primitives": primitives}]
    start = time.perf_counter()
    mesh = load(file.write(tmp_path))
    assert time.perf_counter() - start < 5
    assert (len(mesh.faces), len(mesh.vertices)) == (count, 3 * count)


def test_skins_that_name_what_is_not_there(tmp_path: Path) -> None:
    def skinned(joint: int, **skin: Any) -> Path:
        file = File()
        joints, weights = np.zeros((4, 4)), np.zeros((4, 4))
        joints[:, 0], weights[:, 0] = joint, 1
        attributes = {"JOINTS_0": file.array(joints, np.uint8), "WEIGHTS_0": file.array(weights)}
        file.mesh(QUAD, QUAD_FACES, attributes=attributes)
        file.json["nodes"] = [{"mesh": 0, "skin": 0}, {}]
        file.json["skins"] = [{"joints": [1], **skin}]
        return file.write(tmp_path)

    assert len(load(skinned(0)).faces) == 2
    assert reason(skinned(1)) == "index_out_of_range"
    assert reason(skinned(0, joints=[2])) == "index_out_of_range"
    assert reason(skinned(0, joints=[])) == "corrupt"
    assert reason(skinned(0, inverseBindMatrices=77)) == "index_out_of_range"


# Small files that ask for much work


def test_a_mesh_on_many_nodes_is_counted_each_time(tmp_path: Path) -> None:
    file = quad_file()
    file.json["nodes"] = [{"mesh": 0, "translation": [0, 0, i]} for i in range(50)]
    file.json["scenes"] = [{"nodes": list(range(50))}]
    assert len(load(file.write(tmp_path)).faces) == 100
    assert reason(file.write(tmp_path), faces=99) == "too_many_faces"
    assert reason(file.write(tmp_path), vertices=199) == "too_many_vertices"
    file.json["meshes"][0]["primitives"] *= 3
    assert reason(file.write(tmp_path), nodes=149) == "too_many_nodes"


def test_morph_targets_are_counted_over_all_meshes(tmp_path: Path) -> None:
    file = quad_file()
    primitive = file.json["meshes"][0]["primitives"][0]
    primitive["targets"] = [{"POSITION": 0}] * 10
    file.json["meshes"][0]["primitives"] = [primitive] * 10
    assert reason(file.write(tmp_path), vertices=4 * 11 * 10 - 1) == "too_many_vertices"
    assert len(load(file.write(tmp_path)).faces) == 2


def test_channels_that_all_read_the_same_keys(tmp_path: Path) -> None:
    file = quad_file()
    times, values = file.array(np.arange(100)), file.array(np.zeros((100, 3)))
    channel = {"sampler": 0, "target": {"node": 0, "path": "translation"}}
    file.json["animations"] = [{"samplers": [{"input": times, "output": values}], "channels": [channel] * 100}]
    assert reason(file.write(tmp_path), vertices=20_000 - 1) == "too_many_keys"
    assert len(load(file.write(tmp_path)).faces) == 2


def test_damaged_images_use_up_the_same_allowance_as_sound_ones(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.effect_noise((1000, 1000), 50).save(out, "PNG")
    file = quad_file()
    broken = file.view(out.getvalue()[:-20_000])
    count = 200
    file.json["images"] = [{"bufferView": broken} for _ in range(count)]
    file.json["textures"] = [{"source": i} for i in range(count)]
    file.json["materials"] = [{"emissiveTexture": {"index": i}} for i in range(count)]
    primitive = file.json["meshes"][0]["primitives"][0]
    file.json["meshes"][0]["primitives"] = [{**primitive, "material": i} for i in range(count)]
    mesh = load(file.write(tmp_path), Limits(textures_pixels=3_000_000))
    assert mesh.flags == {"corrupt_texture", "texture_too_large", "dropped_faces"}


def test_zeros_are_counted_over_all_accessors(tmp_path: Path) -> None:
    file = quad_file()
    zeros = {"componentType": 5126, "type": "VEC3", "count": 1000}
    file.json["accessors"] += [dict(zeros) for _ in range(5)]
    primitive = file.json["meshes"][0]["primitives"][0]
    file.json["meshes"][0]["primitives"] += [
        {"attributes": {"POSITION": 2 + i}, "indices": primitive["indices"]} for i in range(5)
    ]
    assert reason(file.write(tmp_path), vertices=4999) == "too_many_vertices"
    assert len(load(file.write(tmp_path)).faces) == 2
