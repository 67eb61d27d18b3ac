"""The paper's metrics (App. C, Tables 1, 2, 3 and 6) as pure functions on NumPy arrays.

Depth is z in camera space; points are camera-space XYZ in the units of the dataset (objects: longest side = 1; scenes:
metres) or of the sample's own median depth. A prediction is a stack (L,H,W,3), of which `exists` (L,H,W) may say that
points are not there; the truth is the forward-filled stack with its `hits`.

Three pairs of point sets are compared: `visible` (layer 0), `hidden` (layers 1 and up) and `all` layers; and `surface`,
all predicted points against points sampled from the asset's surfaces, where there are any. docs/evaluation.md says what
the paper leaves open, and what was chosen.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from train.evaluation.alignment import Rule, align_points, align_scale_shift, aligned
from train.evaluation.chamfer import F_THRESHOLDS, PointSet, chamfer, scores

__all__ = [
    "F_THRESHOLDS",
    "TrueStack",
    "align_points",
    "align_scale_shift",
    "averaged",
    "chamfer",
    "depth_metrics",
    "distinct",
    "judge",
    "stack_metrics",
]


def depth_metrics(predicted_z: np.ndarray, true_z: np.ndarray) -> dict[str, float]:
    """MAE, RMSE, AbsRel and delta < 1.25^k (k = 1, 2, 3) over the given pixels; true depth must be positive.

    Without a pixel the errors are infinite and no depth is within a ratio.
    """
    p, t = np.asarray(predicted_z, np.float64).ravel(), np.asarray(true_z, np.float64).ravel()
    if not p.size:
        return {"mae": np.inf, "rmse": np.inf, "absrel": np.inf, "delta1": 0.0, "delta2": 0.0, "delta3": 0.0}
    error = np.abs(p - t)
    with np.errstate(divide="ignore"):
        ratio = np.where(p > 0, np.maximum(p / t, t / np.where(p > 0, p, 1.0)), np.inf)
    deltas = {f"delta{k}": float(np.mean(ratio < 1.25**k)) for k in (1, 2, 3)}
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "absrel": float(np.mean(error / t)),
        **deltas,
    }


def distinct(xyz: np.ndarray, hits: np.ndarray, first_layer: int) -> np.ndarray:
    """The points (N,3) of layers first_layer.. of a forward-filled stack, each surface once.

    At a pixel whose ray ended before `first_layer` the one point that fills those layers counts once: the model is
    asked for it too (paper, Eq. 2), so a perfect prediction has distance zero.
    """
    layer = np.arange(xyz.shape[0])[:, None, None]
    kept = (layer >= first_layer) & (layer < np.maximum(hits, first_layer + 1)[None]) & (hits > 0)[None]
    return np.asarray(xyz, np.float64)[kept]


class TrueStack:
    """The truth of one view, prepared once for all predictions that are judged by it.

    true_xyz (L,H,W,3) forward-filled; hits (H,W); `surface` (N,3), points on the asset's surfaces in the same frame;
    `unit` is the length that all distances are told in. With `single_layer` only layer 0 is known and judged.
    ValueError without a valid pixel.
    """

    def __init__(
        self,
        true_xyz: np.ndarray,
        hits: np.ndarray,
        single_layer: bool = False,
        surface: np.ndarray | None = None,
        unit: float = 1.0,
    ) -> None:
        self.valid = hits > 0
        if not self.valid.any():
            raise ValueError("a sample without a single valid pixel cannot be evaluated")
        self.layers = 1 if single_layer else len(true_xyz)
        self.unit = unit
        self.xyz = np.asarray(true_xyz[: self.layers, self.valid], np.float64) / unit  # (L,N,3)
        self.hits = hits[self.valid]  # (N,)
        self.surface = None if surface is None or single_layer else PointSet(surface / unit, {})

    @property
    def z(self) -> np.ndarray:
        """(N,): true visible depth at the valid pixels."""
        return self.xyz[0, :, 2]

    def seen(self, predicted_xyz: np.ndarray, exists: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """A prediction (L',H,W,3) at the valid pixels: (points (L,N,3), there (L,N) bool). ValueError where it has
        another size or fewer layers. What is not finite is not there."""
        shape = np.shape(predicted_xyz)
        if shape[1:] != (*self.valid.shape, 3) or shape[0] < self.layers:
            raise ValueError(
                f"a prediction of shape {shape} cannot be judged by {self.layers} layers of "
                f"{self.valid.shape[1]}x{self.valid.shape[0]} pixels"
            )
        points = np.asarray(predicted_xyz[: self.layers, self.valid], np.float64)
        there = _in_all_axes(np.isfinite(points))
        if exists is not None:
            there &= exists[: self.layers, self.valid]
        points[~there] = 0.0
        return points, there

    def metrics(self, points: np.ndarray, there: np.ndarray, sets: bool = True) -> dict[str, float]:
        """Of aligned points (L,N,3), in units of `unit`, of which `there` (L,N) are. `sets`: Chamfer and F, too."""
        first = there[0]
        found = _prefix("depth", depth_metrics(points[0, first, 2], self.z[first]))
        found["depth/coverage"] = float(first.mean())
        if sets:
            found |= self._of_sets(points, there)
        for layer in range(self.layers):
            off = (points[layer] - self.xyz[layer])[there[layer]]
            if off.size:
                found[f"layer{layer}/rmse"] = float(np.sqrt(3 * np.mean(off**2)))  # over points, not coordinates
        return found

    @cached_property
    def _known(self) -> PointSet:
        """Every true surface once; the visible ones come first, in the order of the valid pixels."""
        layer = np.arange(self.layers)[:, None]
        kept = layer < self.hits[None]
        visible = np.broadcast_to(layer == 0, kept.shape)
        hidden = np.broadcast_to(layer >= 1, kept.shape) | ((layer == 0) & (self.hits == 1))  # fills (see `distinct`)
        return PointSet(self.xyz[kept], {"visible": visible[kept], "hidden": hidden[kept]})

    def _of_sets(self, points: np.ndarray, there: np.ndarray) -> dict[str, float]:
        unique, number = _unique(points, there)
        of_visible, of_hidden = number[0, there[0]], number[1:][there[1:]]
        ended = there[0] & ~there[1:].any(axis=0)
        of_hidden = np.concatenate([of_hidden, number[0, ended]])  # the rule of `distinct`, for predictions with masks
        of_all = number[there]
        predicted = PointSet(
            unique, {"visible": _members(of_visible, len(unique)), "hidden": _members(of_hidden, len(unique))}
        )
        true = self._known
        parts = ("visible", "hidden") if self.layers > 1 else ("visible",)
        asked = {part: predicted.parts[part] for part in parts}
        to_true, to_parts = true.distances(predicted.points, asked)
        to_predicted, from_parts = predicted.distances(true.points, {part: true.parts[part] for part in parts})
        found: dict[str, float] = {}
        for part, numbers in (("visible", of_visible), ("hidden", of_hidden)):
            if part in parts:
                each = np.empty(len(unique))
                each[asked[part]] = to_parts[part]
                found |= _prefix(part, scores(each[numbers], from_parts[part]))
        if self.layers > 1:
            found |= _prefix("all", scores(to_true[of_all], to_predicted))
        if self.surface is not None:
            to_surface, _ = self.surface.distances(predicted.points, {})
            from_surface, _ = predicted.distances(self.surface.points, {})
            found |= _prefix("surface", scores(to_surface[of_all], from_surface))
        return found


def judge(
    truths: Sequence[TrueStack],
    predicted_xyz: Sequence[np.ndarray],
    exists: Sequence[np.ndarray | None] | None = None,
    rule: Rule = "ray",
    sets: bool = True,
) -> dict[str, float]:
    """All metrics of one view, or the mean over the frames of a clip (App. C), after one scale-shift alignment that is
    fitted on the visible depth of all frames together.

    Per frame: truths, predictions (L,H,W,3) and, if any, exists (L,H,W). Keys: `depth/...` of layer 0; `visible/...`,
    `hidden/...`, `all/...` and `surface/...` Chamfer and F; `layer{l}/rmse`, the pixel-aligned distance between the
    predicted and the true point; `depth/coverage`, the part of the valid pixels at which a visible point is predicted.
    Without `sets`, which cost nearly all of the time, there is no Chamfer and no F.
    """
    seen = [t.seen(p, e) for t, p, e in zip(truths, predicted_xyz, exists or [None] * len(truths), strict=True)]
    z = np.concatenate([points[0, there[0], 2] for points, there in seen])
    true_z = np.concatenate([t.z[there[0]] for t, (_, there) in zip(truths, seen)])
    if rule == "none":
        scale, shift = 1.0 / truths[0].unit, 0.0
        seen = [(points * scale, there) for points, there in seen]
    elif z.size:
        scale, shift = align_scale_shift(z, true_z)
        median = float(np.median(z))
        seen = [(aligned(points, scale, shift, median, rule), there) for points, there in seen]
    return averaged([t.metrics(*each, sets) for t, each in zip(truths, seen)])


def stack_metrics(
    predicted_xyz: np.ndarray,
    true_xyz: np.ndarray,
    hits: np.ndarray,
    single_layer: bool = False,
    exists: np.ndarray | None = None,
    rule: Rule = "ray",
) -> dict[str, float]:
    """`judge` of one view: predicted_xyz, true_xyz (L,H,W,3), true_xyz forward-filled; hits (H,W); exists (L,H,W).

    A point that `exists` denies is in no point set. With `single_layer` only layer 0 is known and judged.
    """
    return judge([TrueStack(true_xyz, hits, single_layer)], [predicted_xyz], [exists], rule)


def averaged(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean per metric over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _unique(points: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(points (M,3) of which none repeats the one before it on its ray, number (L,N) of each point's among them)."""
    fresh = there.copy()
    fresh[1:] &= ~(there[:-1] & _in_all_axes(points[1:] == points[:-1]))
    number = np.zeros(fresh.shape, np.int64)
    number[fresh] = np.arange(np.count_nonzero(fresh))
    for layer in range(1, len(points)):
        number[layer] = np.where(fresh[layer], number[layer], number[layer - 1])
    return points[fresh], number


def _in_all_axes(found: np.ndarray) -> np.ndarray:
    """`found.all(axis=-1)` of (...,3) bool, which NumPy takes ten times as long for."""
    return np.asarray(found[..., 0] & found[..., 1] & found[..., 2])


def _members(numbers: np.ndarray, count: int) -> np.ndarray:
    members = np.zeros(count, bool)
    members[numbers] = True
    return members


def _prefix(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}/{key}": value for key, value in metrics.items()}
