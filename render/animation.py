"""The vertices of a rigged asset at a time t: node animation, morph targets and skins, as glTF 2.0 defines them.

A `Rig` also places what does not move: an asset without a clip is its pose at rest. It is data all through, so it can
travel between processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from render.gltf_nodes import Nodes

Path = Literal["translation", "rotation", "scale", "weights"]
Interpolation = Literal["LINEAR", "STEP", "CUBICSPLINE"]


@dataclass(frozen=True, eq=False)
class Channel:
    """Keys of one property of one node.

    times (K,) seconds, not decreasing | values (K,w), for CUBICSPLINE (K,3,w): in-tangent, value, out-tangent.
    """

    node: int
    path: Path
    times: np.ndarray
    values: np.ndarray
    interpolation: Interpolation

    def at(self, t: float) -> np.ndarray:
        """(w,) at time t; before the first and after the last key it stands still."""
        cubic = self.interpolation == "CUBICSPLINE"
        keys = self.values[:, 1] if cubic else self.values
        after = int(np.searchsorted(self.times, t, side="right"))
        if after == 0:
            value = keys[0]
        elif after == len(self.times):
            value = keys[-1]
        else:
            step = float(self.times[after] - self.times[after - 1])
            s = (t - float(self.times[after - 1])) / step
            if self.interpolation == "STEP":
                value = keys[after - 1]
            elif cubic:
                value = _hermite(self.values[after - 1], self.values[after], s, step)
            elif self.path == "rotation":
                value = slerp(keys[after - 1], keys[after], s)
            else:
                value = (1 - s) * keys[after - 1] + s * keys[after]
        if self.path == "rotation":
            length = float(np.linalg.norm(value))
            value = value / length if length > 0 else np.array([0.0, 0.0, 0.0, 1.0])
        return value


@dataclass(frozen=True, eq=False)
class Clip:
    """One animation of the file; it lasts until its last key, `duration` seconds."""

    channels: tuple[Channel, ...]
    duration: float


@dataclass(frozen=True, eq=False)
class Skin:
    """joints (J,) node indices | inverse_bind (J,4,4) joint from mesh, in the bind pose."""

    joints: np.ndarray
    inverse_bind: np.ndarray


@dataclass(frozen=True, eq=False)
class Part:
    """n vertices that hang on one node, or on the joints of a skin.

    positions (n,3) | instance (4,4) node from mesh, or None | targets (m,n,3) displacements and `weights` (m,) at rest,
    or None | joints (n,k) into skin.joints and joint_weights (n,k), which sum to 1, or None without a skin.
    """

    node: int
    positions: np.ndarray
    instance: np.ndarray | None = None
    targets: np.ndarray | None = None
    weights: np.ndarray | None = None
    skin: Skin | None = None
    joints: np.ndarray | None = None
    joint_weights: np.ndarray | None = None

    def matrices(self, world: np.ndarray) -> np.ndarray:
        """World from mesh: (4,4), or (n,4,4) blended over the joints. `world` is (N,4,4) of all nodes."""
        if self.skin is None or self.joints is None or self.joint_weights is None:
            return world[self.node] if self.instance is None else world[self.node] @ self.instance
        # The node of a skinned mesh does not move it: only its joints do (glTF 2.0, 3.7.3.3).
        bones = world[self.skin.joints] @ self.skin.inverse_bind
        blended = np.zeros((len(self.positions), 16))
        for k in range(self.joints.shape[1]):
            blended += self.joint_weights[:, k, None] * bones.reshape(-1, 16)[self.joints[:, k]]
        return blended.reshape(-1, 4, 4)

    def vertices(self, world: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """(n,3) float64 in the world; `weights` (m,) replace those at rest."""
        local = self.positions.astype(np.float64)
        if self.targets is not None:
            used = self.weights if weights is None else weights
            if used is not None:
                for target, weight in zip(self.targets, used, strict=True):
                    if weight != 0:
                        local += float(weight) * target
        matrix = self.matrices(world)
        if matrix.ndim == 2:
            return local @ matrix[:3, :3].T + matrix[:3, 3]
        return np.einsum("nij,nj->ni", matrix[:, :3, :3], local) + matrix[:, :3, 3]


@dataclass(frozen=True, eq=False)
class Rig:
    """The parts of an asset on its nodes, in the order of the vertices; `clip` is None for what stands still."""

    nodes: Nodes
    parts: tuple[Part, ...]
    clip: Clip | None = None

    def state(self, t: float) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """(N,4,4) world from node at time t, and the morph weights that the clip sets, by node."""
        if self.clip is None:
            return self.nodes.world(), {}
        tables = {
            "translation": self.nodes.translation.copy(),
            "rotation": self.nodes.rotation.copy(),
            "scale": self.nodes.scale.copy(),
        }
        morphs: dict[int, np.ndarray] = {}
        for channel in self.clip.channels:
            if channel.path == "weights":
                morphs[channel.node] = channel.at(t)
            else:
                tables[channel.path][channel.node] = channel.at(t)
        moved = frozenset(c.node for c in self.clip.channels if c.path != "weights")
        return self.nodes.world(tables["translation"], tables["rotation"], tables["scale"], moved), morphs

    def __call__(self, t: float) -> np.ndarray:
        """(V,3) float64 at t seconds."""
        world, morphs = self.state(t)
        with np.errstate(all="ignore"):  # the loader refuses what overflows
            return np.concatenate([part.vertices(world, morphs.get(part.node)) for part in self.parts])


@dataclass(frozen=True, eq=False)
class Selected:
    """Those vertices of a pose that the mesh kept: pose(t)[rows]."""

    pose: Callable[[float], np.ndarray]
    rows: np.ndarray

    def __call__(self, t: float) -> np.ndarray:
        return self.pose(t)[self.rows]


def slerp(a: np.ndarray, b: np.ndarray, s: float) -> np.ndarray:
    """Quaternions (4,) along the shorter arc; s in [0, 1]."""
    cosine = float(a @ b)
    if cosine < 0:
        b, cosine = -b, -cosine
    if cosine > 0.9995:  # the arc is straight within float32; its sine would divide by nearly zero
        return (1 - s) * a + s * b
    angle = float(np.arccos(min(cosine, 1.0)))
    return (np.sin((1 - s) * angle) * a + np.sin(s * angle) * b) / np.sin(angle)


def _hermite(left: np.ndarray, right: np.ndarray, s: float, step: float) -> np.ndarray:
    s2, s3 = s * s, s * s * s
    return (
        (2 * s3 - 3 * s2 + 1) * left[1]
        + step * (s3 - 2 * s2 + s) * left[2]
        + (-2 * s3 + 3 * s2) * right[1]
        + step * (s3 - s2) * right[0]
    )
