"""The node tree of a glTF: its local transforms and, from them, every node's place in the world.

Parents come before children in `levels`, so that 10^4 nested nodes cost a loop and not the stack. A cycle, or a node
with two parents (through which 40 nodes can stand for 2^40), is refused.
"""

from dataclasses import dataclass

import numpy as np

from render.gltf_file import GltfFile, array, integer, numbers
from render.mesh import Rejected


@dataclass(frozen=True)
class Nodes:
    """N nodes. `levels[k]` are the indices at depth k; `parent` is -1 at a root; `in_scene` marks what is shown.

    translation (N,3), rotation (N,4) as xyzw, scale (N,3) hold the rest pose of nodes without a matrix; `matrix` maps
    the others to their (4,4). All float64.
    """

    parent: np.ndarray
    levels: tuple[np.ndarray, ...]
    in_scene: np.ndarray
    translation: np.ndarray
    rotation: np.ndarray
    scale: np.ndarray
    matrix: dict[int, np.ndarray]

    def world(
        self,
        translation: np.ndarray | None = None,
        rotation: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        animated: frozenset[int] = frozenset(),
    ) -> np.ndarray:
        """(N,4,4) world from node. The arrays replace the rest pose; an `animated` node ignores its matrix."""
        local = trs_matrices(
            self.translation if translation is None else translation,
            self.rotation if rotation is None else rotation,
            self.scale if scale is None else scale,
        )
        for node, matrix in self.matrix.items():
            if node not in animated:
                local[node] = matrix
        world = local
        with np.errstate(all="ignore"):  # 10^4 nested scales overflow; the vertices are then refused as non-finite
            for level in self.levels[1:]:
                world[level] = world[self.parent[level]] @ local[level]
        return world


def read_nodes(gltf: GltfFile) -> Nodes:
    """The tree of the file. Raises Rejected: node_cycle, node_shared, too_many_nodes, index_out_of_range, corrupt."""
    count = gltf.count("nodes")
    if count > gltf.limits.nodes:
        raise Rejected("too_many_nodes", f"{count} nodes; the limit is {gltf.limits.nodes}")
    parent = np.full(count, -1, np.int64)
    children: list[list[int]] = []
    for index in range(count):
        own = [integer(c, f"child of node {index}", count) for c in array(gltf.item("nodes", index), "children")]
        for child in own:
            if parent[child] >= 0 or child == index:
                cyclic = child == index or _is_above(child, index, parent)
                raise Rejected(
                    "node_cycle" if cyclic else "node_shared",
                    f"node {child} is {'its own ancestor' if cyclic else 'a child of two nodes'}",
                )
            parent[child] = index
        children.append(own)
    levels = _levels(parent, children)
    translation, rotation, scale = np.zeros((count, 3)), np.tile([0.0, 0.0, 0.0, 1.0], (count, 1)), np.ones((count, 3))
    matrix = {}
    for index in range(count):
        node = gltf.item("nodes", index)
        if "matrix" in node:
            matrix[index] = numbers(node["matrix"], 16, f"matrix of node {index}").reshape(4, 4).T
            continue
        if "translation" in node:
            translation[index] = numbers(node["translation"], 3, f"translation of node {index}")
        if "rotation" in node:
            rotation[index] = numbers(node["rotation"], 4, f"rotation of node {index}")
        if "scale" in node:
            scale[index] = numbers(node["scale"], 3, f"scale of node {index}")
    return Nodes(parent, levels, _in_scene(gltf, children, parent), translation, rotation, scale, matrix)


def trs_matrices(translation: np.ndarray, rotation: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Translation (N,3), rotation (N,4) xyzw (normalised here) and scale (N,3) -> (N,4,4) float64: T R S."""
    length = np.linalg.norm(rotation, axis=1, keepdims=True)
    x, y, z, w = np.where(length > 0, rotation / np.where(length > 0, length, 1), [0.0, 0.0, 0.0, 1.0]).T
    turn = np.empty((len(translation), 3, 3))
    turn[:, 0] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=1)
    turn[:, 1] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], axis=1)
    turn[:, 2] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=1)
    out = np.zeros((len(translation), 4, 4))
    out[:, :3, :3] = turn * np.asarray(scale, np.float64)[:, None, :]
    out[:, :3, 3] = translation
    out[:, 3, 3] = 1
    return out


def _levels(parent: np.ndarray, children: list[list[int]]) -> tuple[np.ndarray, ...]:
    level = [int(i) for i in np.flatnonzero(parent < 0)]
    levels, reached = [], 0
    while level:
        levels.append(np.array(level, np.int64))
        reached += len(level)
        level = [child for index in level for child in children[index]]
    if reached < len(parent):
        raise Rejected("node_cycle", f"{len(parent) - reached} nodes are their own ancestors")
    return tuple(levels)


def _in_scene(gltf: GltfFile, children: list[list[int]], parent: np.ndarray) -> np.ndarray:
    shown = np.zeros(len(parent), bool)
    if gltf.count("scenes"):
        scene = gltf.item("scenes", gltf.json.get("scene", 0))
        stack = [integer(root, "root of the scene", len(parent)) for root in array(scene, "nodes")]
    else:
        stack = [int(i) for i in np.flatnonzero(parent < 0)]
    while stack:
        index = stack.pop()
        if not shown[index]:
            shown[index] = True
            stack.extend(children[index])
    return shown


def _is_above(node: int, start: int, parent: np.ndarray) -> bool:
    for _ in range(len(parent)):
        if start == node:
            return True
        if start < 0:
            return False
        start = int(parent[start])
    return True
