"""Damaged files: the outcome is a sound mesh or a rejection, nothing else, and soon.

The same damage to every real asset, in a process that is watched: tests/benchmarks/fuzz_load.py.
"""

import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from render.load import load
from render.mesh import Rejected
from tests.render.gltf_files import File
from tests.render.mutations import mutated, unsound
from tests.render.test_gltf_animation import animate, skinned_bar
from tests.render.test_load_ply_stl import binary_ply, binary_stl, text_ply, text_stl

OBJ = b"""mtllib asset.mtl
v 0 0 0 1 0 0
v 1 0 0 0 1 0
v 1 1 0 0 0 1
v 0 1 0 1 1 1
vt 0 0
vt 1 0
vn 0 0 1
usemtl m
f 1/1/1 2/2/1 3/1/1 4/2/1
usemtl absent
f -4//-1 -3//1 -1//1
"""


def rich_file() -> File:
    """Most of what the reader reads, in one file: a skin, morphs, sparse values, instances, a texture, a clip."""
    file = animate(skinned_bar(), "rotation", [0, 1], [[0, 0, 0, 1], [0, 0, 1, 0]], node=2)
    primitive = file.json["meshes"][0]["primitives"][0]
    primitive["targets"] = [{"POSITION": file.array(np.ones((6, 3)))}]
    primitive["attributes"] |= {
        "NORMAL": file.array([[0, 0, 1]] * 6),
        "TEXCOORD_0": file.array([[0, 1]] * 6),
        "COLOR_0": file.array([[9, 9, 9, 9]] * 6, np.uint8, normalized=True),
    }
    primitive["material"] = 0
    file.json["images"] = [{"bufferView": file.view(b"\x89PNG\r\n\x1a\n" + bytes(40))}]
    file.json["textures"] = [{"source": 0}]
    file.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}, "alphaMode": "MASK"}]
    sparse = file.json["accessors"][primitive["attributes"]["POSITION"]]
    sparse["sparse"] = {
        "count": 1,
        "indices": {"bufferView": file.view(b"\x02\0\0\0"), "componentType": 5121},
        "values": {"bufferView": file.view(np.array([0, 1, 0.5], np.float32).tobytes())},
    }
    file.mesh(mode=5)
    attributes = {"TRANSLATION": file.array(np.arange(9).reshape(3, 3)), "ROTATION": file.array([[0, 0, 0, 1]] * 3)}
    file.json["nodes"].append({"mesh": 1, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": attributes}}})
    file.json["scenes"][0]["nodes"].append(len(file.json["nodes"]) - 1)
    return file


SEEDS = {
    "a.glb": rich_file().glb(),
    "b.obj": OBJ,
    "c.ply": text_ply(),
    "d.ply": binary_ply(),
    "e.stl": binary_stl(),
    "f.stl": text_stl(),
}


def try_one(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    try:
        mesh = load(folder / name)
    except Rejected as rejected:
        return rejected.reason
    assert unsound(mesh) == ""
    return "accepted"


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_damaged_files(tmp_path: Path, name: str) -> None:
    assert try_one(tmp_path, name, SEEDS[name]) == "accepted"
    generator = np.random.default_rng(sorted(SEEDS).index(name))
    outcomes: dict[str, int] = {}
    slowest = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # an overflow nobody thought of
        for _ in range(500):
            start = time.process_time()
            outcome = try_one(tmp_path, name, mutated(Path(name).suffix, SEEDS[name], generator))
            slowest = max(slowest, time.process_time() - start)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert slowest < 5
    assert len(outcomes) > 1  # the damage reaches the parser and does not only break it
    assert outcomes.get("unreadable", 0) < 5, outcomes  # damage is understood, not merely survived
