"""Poses against a second evaluator, written here from the glTF 2.0 specification alone, slowly and without our loader.

It runs over every animated file of the shared assets, at key times and between them; and procedural figures, whose pose
is known in closed form, are written to glTF as skins, read back and compared.
"""

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation, Slerp

from render.load import load
from render.mesh import Mesh
from render.procedural import make
from render.procedural.actors import skin_of
from tests.render.gltf_files import QUAD, File
from tests.render.test_load import ASSETS, manifest, needs_assets

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@dataclass
class Reference:
    """A glTF file as the specification reads; no checks, for the files are sound."""

    json: dict[str, Any]
    buffers: list[bytes]

    @classmethod
    def open(cls, path: Path) -> "Reference":
        data = path.read_bytes()
        binary = b""
        if data[:4] == b"glTF":
            length = struct.unpack_from("<I", data, 12)[0]
            text, rest = data[20 : 20 + length], data[20 + length :]
            binary = rest[8:]
        else:
            text = data
        parsed = json.loads(text)
        buffers = []
        for buffer in parsed["buffers"]:
            uri = buffer.get("uri")
            if uri is None:
                buffers.append(binary)
            elif uri.startswith("data:"):
                buffers.append(base64.b64decode(uri.partition(",")[2]))
            else:
                buffers.append((path.parent / unquote(uri)).read_bytes())
        return cls(parsed, buffers)

    def accessor(self, index: int) -> np.ndarray:
        """(count, width) float64: one element after the other (3.6.2)."""
        entry = self.json["accessors"][index]
        assert "sparse" not in entry
        view = self.json["bufferViews"][entry["bufferView"]]
        kind, width = np.dtype(COMPONENTS[entry["componentType"]]), WIDTHS[entry["type"]]
        stride = view.get("byteStride") or kind.itemsize * width
        start = view.get("byteOffset", 0) + entry.get("byteOffset", 0)
        data = self.buffers[view["buffer"]]
        rows = [np.frombuffer(data, kind, width, start + i * stride) for i in range(entry["count"])]
        values = np.array(rows, np.float64).reshape(entry["count"], width)
        if entry.get("normalized"):
            values = np.maximum(values / np.iinfo(kind).max, -1.0)
        return values

    def animation(self) -> dict[str, Any]:
        """The first one that moves something, which is what `load` plays."""
        for animation in self.json["animations"]:
            if any(np.ptp(self.accessor(s["output"]), axis=0).any() for s in animation["samplers"]):
                return dict(animation)
        raise AssertionError("nothing moves")

    def key_times(self) -> np.ndarray:
        animation = self.animation()
        return np.unique(np.concatenate([self.accessor(s["input"])[:, 0] for s in animation["samplers"]]))

    def targets(self, t: float) -> dict[tuple[int, str], np.ndarray]:
        """(node, path) -> value at t (3.11, appendix C)."""
        animation, values = self.animation(), {}
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            times, keys = self.accessor(sampler["input"])[:, 0], self.accessor(sampler["output"])
            keys = keys.reshape(len(times), -1)
            path = channel["target"]["path"]
            assert sampler.get("interpolation", "LINEAR") == "LINEAR"
            if t <= times[0] or len(times) == 1:
                value = keys[0]
            elif t >= times[-1]:
                value = keys[-1]
            elif path == "rotation":
                value = Slerp(times, Rotation.from_quat(keys))(t).as_quat()
            else:
                value = np.array([np.interp(t, times, column) for column in keys.T])
            values[channel["target"]["node"], path] = value
        return values

    def local(self, node: int, targets: dict[tuple[int, str], np.ndarray]) -> np.ndarray:
        """Matrix, or T R S (3.5.2)."""
        entry = self.json["nodes"][node]
        if "matrix" in entry:
            return np.array(entry["matrix"], np.float64).reshape(4, 4).T
        t, r, s = (
            np.asarray(targets.get((node, path), entry.get(path, rest)), np.float64)
            for path, rest in (("translation", [0, 0, 0]), ("rotation", [0, 0, 0, 1]), ("scale", [1, 1, 1]))
        )
        out = np.eye(4)
        out[:3, :3] = Rotation.from_quat(r).as_matrix() @ np.diag(s)
        out[:3, 3] = t
        return out

    def triangles(self, t: float) -> np.ndarray:
        """(F,3,3): the corners of every triangle of the scene, in the order of nodes, primitives and indices."""
        targets = self.targets(t)
        world: dict[int, np.ndarray] = {}

        def place(node: int, above: np.ndarray) -> None:
            world[node] = above @ self.local(node, targets)
            for child in self.json["nodes"][node].get("children", []):
                place(child, world[node])

        for root in self.json["scenes"][self.json.get("scene", 0)]["nodes"]:
            place(root, np.eye(4))
        out = [corners for node in world for corners in self._of_node(node, world, targets)]
        return np.concatenate(out)

    def _of_node(
        self, node: int, world: dict[int, np.ndarray], targets: dict[tuple[int, str], np.ndarray]
    ) -> Iterator[np.ndarray]:
        entry = self.json["nodes"][node]
        if "mesh" not in entry:
            return
        mesh = self.json["meshes"][entry["mesh"]]
        for primitive in mesh["primitives"]:
            assert primitive.get("mode", 4) == 4
            attributes = primitive["attributes"]
            points = self.accessor(attributes["POSITION"])
            morphs = primitive.get("targets", [])
            weights = targets.get((node, "weights"), entry.get("weights", mesh.get("weights", [0] * len(morphs))))
            for morph, weight in zip(morphs, weights, strict=True):  # 3.7.2.2
                if "POSITION" in morph:
                    points = points + weight * self.accessor(morph["POSITION"])
            homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
            if "skin" in entry:  # 3.7.3: joints move the mesh, its own node does not
                skin = self.json["skins"][entry["skin"]]
                binds = self.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
                joints = self.accessor(attributes["JOINTS_0"]).astype(int)
                influence = self.accessor(attributes["WEIGHTS_0"])
                placed = np.zeros((len(points), 4))
                for j, joint in enumerate(skin["joints"]):
                    share = np.where(joints == j, influence, 0.0).sum(axis=1)
                    placed += share[:, None] * (homogeneous @ (world[joint] @ binds[j]).T)
                placed = placed[:, :3] / placed[:, 3:]  # weights that do not quite sum to one
            else:
                placed = (homogeneous @ world[node].T)[:, :3]
            if "indices" in primitive:
                placed = placed[self.accessor(primitive["indices"])[:, 0].astype(int)]
            yield placed.reshape(-1, 3, 3)


def times_of(keys: np.ndarray) -> list[float]:
    """The ends, key times and times between keys."""
    places = np.linspace(0, len(keys) - 1, 4).astype(int)
    some = keys[places]
    between = [0.5 * (keys[i] + keys[i + 1]) for i in places[:-1]] + [
        0.83 * keys[i] + 0.17 * keys[i + 1] for i in places[:-1]
    ]
    return sorted({0.0, *some.tolist(), *between})


def farthest(these: np.ndarray, from_those: np.ndarray) -> float:
    """The largest distance of a row of `these` to its nearest row of `from_those`."""
    return float(cKDTree(from_those).query(these)[0].max())


@needs_assets
@pytest.mark.parametrize("row", [r for r in manifest() if r["animated"] == "y"], ids=lambda row: row["name"])
def test_a_real_animation_is_posed_as_the_specification_says(row: dict[str, str]) -> None:
    """Corners and centres of triangles follow the same ways through time on both sides, whatever their order.

    The loader drops repeated triangles and those that never have an area, so both directions are compared as sets.
    """
    path = ASSETS / row["path"]
    mesh, reference = load(path), Reference.open(path)
    keys = reference.key_times()
    assert mesh.duration == pytest.approx(keys[-1])
    assert mesh.pose is not None
    times = times_of(keys)
    theirs = np.stack([reference.triangles(t) for t in times])  # (T,F,3,3)
    ours = np.stack([np.asarray(mesh.pose(t))[mesh.faces] for t in times])
    size = float(np.ptp(theirs.reshape(-1, 3), axis=0).max())
    area = np.linalg.norm(np.cross(theirs[:, :, 1] - theirs[:, :, 0], theirs[:, :, 2] - theirs[:, :, 0]), axis=-1)
    theirs = theirs[:, area.max(axis=0) > 1e-9 * size**2]
    moved = np.abs(theirs - theirs[:1]).max()
    assert moved > 0.01 * size
    # a row for each corner, and one for each triangle: all its places, one after the other
    corners = [a.transpose(1, 2, 0, 3).reshape(-1, 3 * len(times)) for a in (ours, theirs)]
    centres = [a.mean(axis=2).transpose(1, 0, 2).reshape(-1, 3 * len(times)) for a in (ours, theirs)]
    for mine, other in (corners, centres):
        assert farthest(mine, other) < 1e-6 * size
        assert farthest(other, mine) < 1e-6 * size


def test_the_manifest_has_nine_animated_files() -> None:
    if not manifest():
        pytest.skip("the shared assets are not beside the repository")
    assert sum(row["animated"] == "y" for row in manifest()) == 9


def interpolated(path: str, interpolation: str, times: np.ndarray, keys: np.ndarray, t: float) -> np.ndarray:
    """Appendix C of the specification by scipy; keys (K,w), or (K,3,w) of in-tangent, value, out-tangent."""
    if interpolation == "STEP":
        return np.asarray(keys[np.searchsorted(times, t, side="right") - 1])
    if interpolation == "CUBICSPLINE":  # a tangent counts per second, out of the left key and into the right one
        k = min(int(np.searchsorted(times, t, side="right")), len(times) - 1)
        ends = np.stack([keys[k - 1, 1], keys[k, 1]])
        return np.asarray(CubicHermiteSpline(times[k - 1 : k + 1], ends, [keys[k - 1, 2], keys[k, 0]])(t))
    if path == "rotation":
        return np.asarray(Slerp(times, Rotation.from_quat(keys))(t).as_quat())
    return np.array([np.interp(t, times, column) for column in keys.T])


@pytest.mark.parametrize("interpolation", ["LINEAR", "STEP", "CUBICSPLINE"])
@pytest.mark.parametrize("path", ["translation", "rotation", "scale", "weights"])
def test_every_path_in_every_interpolation(tmp_path: Path, path: str, interpolation: str) -> None:
    rng = np.random.default_rng(len(path) * len(interpolation))
    times = np.array([0.0, 0.25, 1.0, 1.5])
    width = {"rotation": 4, "weights": 2}.get(path, 3)
    keys = rng.normal(size=(4, 3, width)).astype(np.float32).astype(np.float64)
    if path == "rotation":
        keys[:, 1] /= np.linalg.norm(keys[:, 1], axis=1, keepdims=True)
    if interpolation != "CUBICSPLINE":
        keys = keys[:, 1]
    file, offsets = File(), rng.normal(size=(2, 4, 3)).astype(np.float32)
    file.mesh(targets=[{"POSITION": file.array(offset)} for offset in offsets])
    output = file.array(keys.reshape(-1) if path == "weights" else keys.reshape(-1, width))
    sampler = {"input": file.array(times), "output": output, "interpolation": interpolation}
    file.json["animations"] = [
        {"samplers": [sampler], "channels": [{"sampler": 0, "target": {"node": 0, "path": path}}]}
    ]
    mesh = load(file.write(tmp_path))
    assert mesh.pose is not None
    for t in (0.0, 0.1, 0.25, 0.6, 0.999, 1.0, 1.3):
        value = interpolated(path, interpolation, times, keys, t)
        expected = {
            "translation": lambda v: QUAD + v,
            "scale": lambda v: QUAD * v,
            "rotation": lambda v: Rotation.from_quat(v).apply(QUAD),  # normalises
            "weights": lambda v: QUAD + v[0] * offsets[0] + v[1] * offsets[1],
        }[path](value)
        np.testing.assert_allclose(mesh.pose(t), expected, atol=3e-6)


@pytest.fixture(scope="module")
def actors() -> list[Mesh]:
    return [make("actors", 6, index) for index in range(3)]


def test_every_vertex_of_a_figure_is_where_its_joints_carry_it(actors: list[Mesh]) -> None:
    """Linear blend skinning joint by joint: the sum over joints of weight times the rigidly carried rest position."""
    for mesh in actors:
        assert mesh.pose is not None
        skin = skin_of(mesh)
        for t in np.linspace(0.0, mesh.duration, 5):
            joints, expected = skin.walk.transforms(float(t)), np.zeros_like(skin.vertices)
            for j, rest in enumerate(skin.walk.skeleton.rest):
                carried = Rotation.from_matrix(joints[j, :3, :3]).apply(skin.vertices - rest) + joints[j, :3, 3]
                expected += skin.weights[:, j, None] * carried
            np.testing.assert_allclose(mesh.pose(float(t)), expected, atol=1e-9)


def skinned(actor: Mesh, times: np.ndarray, interpolation: str) -> File:
    """The figure as a glTF skin whose joints are keyed with its closed-form walk at `times`."""
    skin = skin_of(actor)
    skeleton, poses = skin.walk.skeleton, np.stack([skin.walk.transforms(float(t)) for t in times])
    order = np.argsort(-skin.weights, axis=1)[:, :4]
    assert np.take_along_axis(skin.weights, order, axis=1).sum(axis=1).min() > 1 - 1e-6
    file = File()
    attributes = {
        "JOINTS_0": file.array(order, np.uint8),
        "WEIGHTS_0": file.array(np.take_along_axis(skin.weights, order, axis=1)),
    }
    file.mesh(skin.vertices, actor.faces.reshape(-1).astype(np.uint32), attributes=attributes)
    binds = np.tile(np.eye(4), (len(skeleton.rest), 1, 1))
    binds[:, :3, 3] = -skeleton.rest
    file.json["skins"] = [
        {
            "joints": [1 + j for j in range(len(skeleton.rest))],
            "inverseBindMatrices": file.array(binds.transpose(0, 2, 1).reshape(-1, 16)),
        }
    ]
    file.json["nodes"] = [{"mesh": 0, "skin": 0}, *[{} for _ in skeleton.rest]]
    file.json["scenes"] = [{"nodes": [0, *[1 + j for j, p in enumerate(skeleton.parents) if p < 0]]}]
    keys, samplers, channels = file.array(times), [], []
    for j, parent in enumerate(skeleton.parents):
        if parent >= 0:
            file.json["nodes"][1 + parent].setdefault("children", []).append(1 + j)
        local = poses[:, j] if parent < 0 else np.linalg.inv(poses[:, parent]) @ poses[:, j]
        for path, values in (
            ("translation", local[:, :3, 3]),
            ("rotation", Rotation.from_matrix(local[:, :3, :3]).as_quat()),
        ):
            channels.append({"sampler": len(samplers), "target": {"node": 1 + j, "path": path}})
            samplers.append({"input": keys, "output": file.array(values), "interpolation": interpolation})
    file.json["animations"] = [{"samplers": samplers, "channels": channels}]
    return file


@pytest.mark.parametrize("interpolation", ["LINEAR", "STEP"])
def test_a_figure_written_as_a_skin_walks_as_its_closed_form(
    actors: list[Mesh], tmp_path: Path, interpolation: str
) -> None:
    for number, actor in enumerate(actors):
        assert actor.pose is not None
        times = np.linspace(0.0, actor.duration, 33).astype(np.float32).astype(np.float64)
        mesh = load(skinned(actor, times, interpolation).write(tmp_path, f"{number}.glb"))
        assert mesh.pose is not None
        assert mesh.duration == pytest.approx(actor.duration)
        size = float(np.ptp(actor.vertices, axis=0).max())
        step = times[1] - times[0]
        for k in (0, 5, 16, 31):
            between = times[k] + 0.4 * step
            shown = float(times[k]) if interpolation == "STEP" else float(between)
            # keys are float32; between them, a chord of 1/32 of a turn is off by (2 pi / 32)^2 / 8 of the swing
            for t, wanted, bound in ((times[k], times[k], 1e-5), (between, shown, 1e-5 if shown != between else 5e-3)):
                expected = np.asarray(actor.pose(float(wanted)))[actor.faces].mean(axis=1)
                found = np.asarray(mesh.pose(float(t)))[mesh.faces].mean(axis=1)
                assert farthest(found, expected) < bound * size
                assert farthest(expected, found) < bound * size
