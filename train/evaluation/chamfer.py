"""Chamfer distances and F-scores between point sets, exact, for many predictions of one truth.

A sample is judged by three pairs of sets (visible, hidden, all layers), and two of them are parts of the third. So each
point looks for its nearest neighbour once, among all points of the other side; only where that one is not in the part
that is asked for does it look again, among the part alone. The truth's trees are built once for all seeds and methods,
a point that repeats the one before it on its ray is looked up once, and the trees are searched without Python's lock,
so samples are judged in threads. The trees are pykdtree's, which need half the time of SciPy's; the tests judge them by
those. The figures beside a plain k-d tree per set: tests/benchmarks/evaluation.py.
"""

import ctypes
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property

import numpy as np
from pykdtree import kdtree
from pykdtree.kdtree import KDTree

F_THRESHOLDS = (0.01, 0.05)
LEAF = 16  # points, as pykdtree has it
# No tree parts points that are one and the same, and a search looks at all of them: a constant prediction of N pixels
# would take N^2. They are looked for in every STRIDE-th point, and made one where ALIKE of those are the same.
STRIDE, ALIKE = 17, 8


def search_alone() -> None:
    """The calling thread searches trees by itself. Else each search takes a thread per core, of OpenMP, and of a pool
    of a thread per core that is the square of them."""
    with suppress(AttributeError, OSError):  # built without OpenMP
        ctypes.CDLL(kdtree.__file__).omp_set_num_threads(1)


class PointSet:
    """Points (N,3) of which named parts are asked for: `parts[name]` (N,) bool says which points are in it."""

    def __init__(self, points: np.ndarray, parts: Mapping[str, np.ndarray]) -> None:
        self.points, self.parts = np.ascontiguousarray(points, np.float64), dict(parts)
        self._trees: dict[str, KDTree] = {}

    @cached_property
    def _searched(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The points and parts of the trees: each place once, if many points share one."""
        some = np.sort(self.points[::STRIDE, 0])
        if not (some[ALIKE:] == some[:-ALIKE]).any():
            return self.points, self.parts
        order = np.lexsort(self.points.T)
        fresh = np.append(True, (np.diff(self.points[order], axis=0) != 0).any(axis=1))
        number = np.cumsum(fresh) - 1
        parts = {}
        for name, members in self.parts.items():
            parts[name] = np.zeros(number[-1] + 1, bool)
            parts[name][number[members[order]]] = True
        return self.points[order[fresh]], parts

    @cached_property
    def tree(self) -> KDTree:
        return KDTree(self._searched[0], leafsize=LEAF)

    def tree_of(self, part: str) -> KDTree:
        if part not in self._trees:
            points, parts = self._searched
            self._trees[part] = KDTree(points[parts[part]], leafsize=LEAF)
        return self._trees[part]

    def distances(
        self, queries: np.ndarray, asked: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """From queries (M,3) to the nearest of all points (M,), and of those queries that `asked[part]` (M,) bool
        chooses to the nearest of that part. Infinite to a part without a point."""
        if not len(self.points):
            nothing = np.full(len(queries), np.inf)
            return nothing, {part: nothing[chosen] for part, chosen in asked.items()}
        if not len(queries):
            return np.zeros(0), {part: np.zeros(0) for part in asked}
        to_all, nearest = self.tree.query(queries)
        to_parts = {}
        for part, chosen in asked.items():
            members = self._searched[1][part]
            distance = to_all[chosen]
            elsewhere = ~members[nearest[chosen]]
            if elsewhere.any():
                again = queries[chosen][elsewhere]
                distance[elsewhere] = self.tree_of(part).query(again)[0] if members.any() else np.inf
            to_parts[part] = distance
        return to_all, to_parts


def scores(to_true: np.ndarray, to_predicted: np.ndarray) -> dict[str, float]:
    """Distances of the predicted points to the truth (N,) and of the true ones to the prediction (M,) -> metrics.

    cd_l1 is the mean distance, averaged over the two directions; cd_l2 the same of squared distances; f@t the harmonic
    mean of precision and recall at distance t. With an empty set the distances are infinite and F is 0.
    """
    if len(to_true) == 0 or len(to_predicted) == 0:
        return {"cd_l1": np.inf, "cd_l2": np.inf, **{f"f@{t}": 0.0 for t in F_THRESHOLDS}}
    f = {}
    for threshold in F_THRESHOLDS:
        precision, recall = float(np.mean(to_true < threshold)), float(np.mean(to_predicted < threshold))
        f[f"f@{threshold}"] = 2 * precision * recall / max(precision + recall, 1e-12)
    return {
        "cd_l1": float(to_true.mean() + to_predicted.mean()) / 2,
        "cd_l2": float(np.mean(to_true**2) + np.mean(to_predicted**2)) / 2,
        **f,
    }


def chamfer(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """`scores` of two point sets (N,3) and (M,3)."""
    to_true, _ = PointSet(true, {}).distances(np.asarray(predicted, np.float64), {})
    to_predicted, _ = PointSet(predicted, {}).distances(np.asarray(true, np.float64), {})
    return scores(to_true, to_predicted)
