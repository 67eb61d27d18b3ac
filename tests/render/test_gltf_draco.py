"""Draco: decoded to the same mesh as its plain copy where DracoPy is installed, refused by name where it is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from render import draco
from render.limits import DEFAULT, Limits
from render.load import load
from tests.render.gltf_files import QUAD, QUAD_FACES, File
from tests.render.test_load import ASSETS, needs_assets, outcome

decoder = pytest.mark.skipif(not draco.available(), reason="the optional package DracoPy is not installed")

GRID = np.stack([*np.mgrid[0:8, 0:8], np.zeros((8, 8))], axis=-1).reshape(-1, 3).astype(np.float32)
GRID[:, 2] = np.sin(GRID[:, 0]) * np.cos(GRID[:, 1])
CELLS = np.array([[i, i + 1, i + 8, i + 8, i + 1, i + 9] for i in range(55) if i % 8 < 7], np.uint32).reshape(-1, 3)
UV = GRID[:, :2].astype(np.float64) / 7


def compressed(cut: int | None = None, **more: Any) -> File:
    """The grid with positions and texture coordinates, and nothing of it uncompressed."""
    import DracoPy

    data = DracoPy.encode(GRID, CELLS, quantization_bits=20, preserve_order=True, tex_coord=UV)
    ids = {a["attribute_type"]: a["unique_id"] for a in DracoPy.decode(data).attributes}
    file = File()
    view = file.view(data[:cut])
    file.json["accessors"] = [
        {"componentType": 5126, "type": "VEC3", "count": len(GRID)},
        {"componentType": 5126, "type": "VEC2", "count": len(GRID)},
        {"componentType": 5123, "type": "SCALAR", "count": CELLS.size},
    ]
    held = {"POSITION": ids[0], "TEXCOORD_0": ids[3], **more}
    extension = {draco.NAME: {"bufferView": view, "attributes": held}}
    primitive = {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "extensions": extension}
    file.json["meshes"] = [{"primitives": [primitive]}]
    file.json["extensionsRequired"] = [draco.NAME]
    return file


@decoder
def test_the_mesh_is_that_of_the_plain_copy(tmp_path: Path) -> None:
    mesh = load(compressed().write(tmp_path))
    assert mesh.uv is not None
    assert len(mesh.faces) == len(CELLS)
    found = np.concatenate([mesh.vertices[mesh.faces], mesh.uv[mesh.faces]], axis=2).reshape(len(CELLS), -1)
    wanted = np.concatenate([GRID[CELLS], UV[CELLS]], axis=2).reshape(len(CELLS), -1)
    order, other = np.lexsort(found.round(3).T), np.lexsort(wanted.round(3).T)
    np.testing.assert_allclose(found[order], wanted[other], atol=1e-3)


@decoder
def test_two_primitives_of_one_buffer(tmp_path: Path) -> None:
    file = compressed()
    file.json["meshes"][0]["primitives"] *= 2
    assert outcome(file.write(tmp_path)) == "+dropped_faces"
    assert outcome(file.write(tmp_path), Limits(faces=2 * len(CELLS) - 1)) == "too_many_faces"


@decoder
@needs_assets
def test_a_real_file() -> None:
    mesh = load(ASSETS / "bad" / "draco_required.glb")
    assert (len(mesh.faces), mesh.normals is not None) == (180, True)
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), [0.0803, 0.0672, 0.0396], atol=1e-4)  # its accessor's box


@decoder
@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("accessors", 0, "count"), 63),
        (("accessors", 1, "type"), "VEC3"),
        (("accessors", 1, "componentType"), 5123),
        (("accessors", 2, "count"), 3),
        (("meshes", 0, "primitives", 0, "extensions", draco.NAME, "attributes", "POSITION"), 9),
        (("meshes", 0, "primitives", 0, "extensions", draco.NAME, "attributes"), {}),
        (("meshes", 0, "primitives", 0, "attributes", "TEXCOORD_0"), 0),
    ],
)
def test_what_the_file_announces_must_be_there(tmp_path: Path, place: tuple, value: object) -> None:
    file = compressed()
    at = file.json
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    assert outcome(file.write(tmp_path)) == "corrupt"


@decoder
def test_damaged_data_and_limits(tmp_path: Path) -> None:
    for cut in (0, 5, 20, 100):
        assert outcome(compressed(cut).write(tmp_path)) == "corrupt"
    path = compressed().write(tmp_path)
    assert outcome(path, Limits(faces=len(CELLS) - 1)) == "too_many_faces"
    assert outcome(path, Limits(vertices=2 * len(GRID) - 1)) == "too_many_vertices"
    assert outcome(path, DEFAULT) == "+"


def test_without_the_decoder_it_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draco, "available", lambda: False)
    file = File()
    file.mesh(QUAD, QUAD_FACES, extensions={draco.NAME: {"bufferView": 0, "attributes": {"POSITION": 0}}})
    assert outcome(file.write(tmp_path)) == "+"  # the plain copy is there
    file.json["extensionsRequired"] = [draco.NAME]
    path = file.write(tmp_path)
    assert outcome(path) == "unsupported_extension"
    with pytest.raises(Exception, match=r"KHR_draco_mesh_compression.*DracoPy"):
        load(path)
