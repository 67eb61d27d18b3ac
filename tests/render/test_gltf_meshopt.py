"""EXT_meshopt_compression against streams of the reference implementation, a real file, and damage."""

import base64
import contextlib
import json
import time
from pathlib import Path

import numpy as np
import pytest

from render.limits import Limits
from render.load import load
from render.mesh import Rejected
from render.meshopt import NAME, decode
from tests.render.gltf_files import File
from tests.render.mutations import damaged
from tests.render.test_load import ASSETS, needs_assets, outcome

STREAMS = json.loads((Path(__file__).parent / "meshopt_streams.json").read_text())["streams"]


def decoded(stream: dict) -> bytes:
    data = base64.b64decode(stream["data"])
    return decode(data, stream["count"], stream["stride"], stream["mode"], stream["filter"])


@pytest.mark.parametrize("stream", STREAMS, ids=lambda s: f"{s['name']}-{s['count']}x{s['stride']}")
def test_the_reference_decoder_gives_the_same_bytes(stream: dict) -> None:
    found, wanted = decoded(stream), base64.b64decode(stream["decoded"])
    if stream["filter"] in ("OCTAHEDRAL", "QUATERNION"):  # which are defined to one unit in the last place
        kind = np.int8 if stream["stride"] == 4 else np.int16
        difference = np.frombuffer(found, kind).astype(int) - np.frombuffer(wanted, kind).astype(int)
        assert np.abs(difference).max() <= 1
    else:
        assert found == wanted


def test_the_examples_of_the_text() -> None:
    """The 4-bit group of appendix A, as a stream of one byte plane: baseline 0, the other planes without deltas."""
    group = bytes.fromhex("175ff0bc77a9210034b5")
    data = b"\xa0" + b"\x02" + group + b"\0" * 3 + bytes(32)
    elements = np.frombuffer(decode(data, 16, 4, "ATTRIBUTES", "NONE"), np.uint8).reshape(16, 4)
    deltas = [-1, -4, -3, 26, -91, 0, -6, 6, -4, -4, 5, -5, 1, -1, 0, 0]
    np.testing.assert_array_equal(elements[:, 0], np.cumsum(deltas).astype(np.int64) % 256)
    assert not elements[:, 1:].any()
    indices = decode(b"\xd1" + b"\x08\x08\x81\x01" + bytes(4), 3, 4, "INDICES", "NONE")
    assert np.frombuffer(indices, "<u4").tolist() == [2, 4, 2**5]  # two of one sequence, then one of the other


@pytest.mark.parametrize("stream", STREAMS, ids=lambda s: f"{s['name']}-{s['count']}x{s['stride']}")
def test_a_stream_is_used_up_to_its_last_byte(stream: dict) -> None:
    data = base64.b64decode(stream["data"])
    for wrong in (data[:-1], data[:-40], b"", bytes(1) + data[1:], data[:1] + bytes(1) + data[1:]):
        with pytest.raises(Rejected, match="corrupt"):
            decode(wrong, stream["count"], stream["stride"], stream["mode"], stream["filter"])
    with pytest.raises(Rejected, match="corrupt"):  # without an allocation of that size
        decode(data, 3 * 10**12, stream["stride"], stream["mode"], stream["filter"])


def test_damaged_streams_end_soon() -> None:
    damage = np.random.default_rng(0)
    start = time.process_time()
    for i in range(2000):
        stream = STREAMS[i % len(STREAMS)]
        broken = {**stream, "data": base64.b64encode(damaged(base64.b64decode(stream["data"]), damage))}
        with contextlib.suppress(Rejected):
            assert len(decoded(broken)) == stream["count"] * stream["stride"]
    assert time.process_time() - start < 10


@needs_assets
def test_a_real_file() -> None:
    """A unit cube of gltfpack: quantised, its normals in bytes."""
    mesh = load(ASSETS / "bad" / "meshopt_required.glb")
    np.testing.assert_array_equal(mesh.vertices.min(axis=0), [-0.5] * 3)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    assert float((a * np.cross(b, c)).sum() / 6) == pytest.approx(1)
    assert mesh.normals is not None
    across = np.cross(b - a, c - a)
    np.testing.assert_allclose(mesh.normals[mesh.faces[:, 0]], across, atol=1e-6)


def compressed(**more: object) -> File:
    """Twenty-five vertices in a plane, whose indices alone are compressed."""
    stream = next(s for s in STREAMS if s["name"] == "tri" and s["stride"] == 2 and s["count"] > 100)
    size = round((stream["count"] / 6) ** 0.5) + 1
    file = File()
    primitive = file.mesh(np.stack([*np.mgrid[0:size, 0:size], np.zeros((size, size))], axis=-1).reshape(-1, 3), None)
    data = file.view(base64.b64decode(stream["data"]))
    length = 2 * stream["count"]
    held = {"buffer": 0, "byteStride": 2, "count": stream["count"], "mode": "TRIANGLES"}
    held |= {key: file.json["bufferViews"][data][key] for key in ("byteOffset", "byteLength")} | more
    file.json["bufferViews"].append({"buffer": 1, "byteLength": length, "extensions": {NAME: held}})
    file.json["buffers"].append({"byteLength": length, "extensions": {NAME: {"fallback": True}}})
    file.json["accessors"].append(
        {
            "bufferView": len(file.json["bufferViews"]) - 1,
            "componentType": 5123,
            "type": "SCALAR",
            "count": stream["count"],
        }
    )
    primitive["indices"] = len(file.json["accessors"]) - 1
    file.json["extensionsRequired"] = [NAME]
    return file


def test_a_compressed_view_in_a_file(tmp_path: Path) -> None:
    mesh = load(compressed().write(tmp_path))
    assert len(mesh.faces) == 50
    area = np.cross(*(mesh.vertices[mesh.faces[:, k]] - mesh.vertices[mesh.faces[:, 0]] for k in (1, 2)))[:, 2] / 2
    np.testing.assert_allclose(np.abs(area), 0.5)
    assert outcome(compressed().write(tmp_path), Limits(vertices=149)) == "too_many_vertices"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"count": 147}, "corrupt"),
        ({"byteStride": 4}, "corrupt"),
        ({"mode": "POINTS"}, "corrupt"),
        ({"filter": "EXPONENTIAL"}, "corrupt"),
        ({"byteLength": 10**6}, "truncated"),
        ({"byteOffset": 2**70}, "truncated"),
        ({"buffer": 1}, "missing_buffer"),
        ({"buffer": 7}, "index_out_of_range"),
        ({"count": -3}, "corrupt"),
    ],
)
def test_what_the_extension_says_must_hold(tmp_path: Path, change: dict, reason: str) -> None:
    assert outcome(compressed(**change).write(tmp_path)) == reason
