"""The paper's metrics (App. C, Tables 1, 2 and 6) as pure functions on NumPy arrays.

Depth is z in camera space; points are camera-space XYZ in the units of the dataset (objects: longest side = 1; scenes:
metres). A prediction is a dense stack (L,H,W,3); the truth is the forward-filled stack with its `hits`.
"""

from collections.abc import Mapping

import numpy as np
from scipy.spatial import cKDTree

F_THRESHOLDS = (0.01, 0.05)


def align_scale_shift(predicted_z: np.ndarray, true_z: np.ndarray) -> tuple[float, float]:
    """(s, b) minimising sum (s * predicted + b - true)^2 over the given pixels: the per-sample alignment of Table 1.

    Where the fit would mirror the scene (s <= 0) or the prediction is constant, only the shift is fitted (s = 1), so
    that a prediction that knows no relief is not given any.
    """
    p, t = np.asarray(predicted_z, np.float64).ravel(), np.asarray(true_z, np.float64).ravel()
    if p.size == 0:
        raise ValueError("scale-shift alignment needs at least one valid pixel, found none")
    centred = p - p.mean()
    variance = float(centred @ centred)
    scale = float(centred @ (t - t.mean())) / variance if variance > 1e-12 * max(1.0, float(p @ p)) else 1.0
    if scale <= 0.0:
        scale = 1.0
    return scale, float(t.mean() - scale * p.mean())


def align_points(xyz: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """Apply an alignment fitted on depth to points (..., 3): all axes scaled, z shifted. Pixel alignment is kept."""
    return np.asarray(xyz, np.float64) * scale + np.array([0.0, 0.0, shift])


def depth_metrics(predicted_z: np.ndarray, true_z: np.ndarray) -> dict[str, float]:
    """MAE, RMSE, AbsRel and delta < 1.25^k (k = 1, 2, 3) over the given pixels; true depth must be positive."""
    p, t = np.asarray(predicted_z, np.float64).ravel(), np.asarray(true_z, np.float64).ravel()
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


def chamfer(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Chamfer distances and F-scores between point sets (N,3) and (M,3).

    cd_l1 is the mean nearest-neighbour distance, averaged over the two directions; cd_l2 the same of squared
    distances; f@t the harmonic mean of precision and recall at distance t. With an empty set the distances are infinite
    and F is 0.
    """
    if len(predicted) == 0 or len(true) == 0:
        return {"cd_l1": np.inf, "cd_l2": np.inf, **{f"f@{t}": 0.0 for t in F_THRESHOLDS}}
    to_true, _ = cKDTree(true).query(predicted)
    to_predicted, _ = cKDTree(predicted).query(true)
    scores = {}
    for threshold in F_THRESHOLDS:
        precision, recall = float(np.mean(to_true < threshold)), float(np.mean(to_predicted < threshold))
        scores[f"f@{threshold}"] = 2 * precision * recall / max(precision + recall, 1e-12)
    return {
        "cd_l1": float(to_true.mean() + to_predicted.mean()) / 2,
        "cd_l2": float(np.mean(to_true**2) + np.mean(to_predicted**2)) / 2,
        **scores,
    }


def distinct(xyz: np.ndarray, hits: np.ndarray, first_layer: int) -> np.ndarray:
    """The points (N,3) of layers first_layer.. of a forward-filled stack, each surface once.

    At a pixel whose ray ended before `first_layer` the one point that fills those layers counts once: the model is
    asked for it too (paper, Eq. 2), so a perfect prediction has distance zero.
    """
    layer = np.arange(xyz.shape[0])[:, None, None]
    kept = (layer >= first_layer) & (layer < np.maximum(hits, first_layer + 1)[None]) & (hits > 0)[None]
    return np.asarray(xyz, np.float64)[kept]


def stack_metrics(
    predicted_xyz: np.ndarray, true_xyz: np.ndarray, hits: np.ndarray, single_layer: bool = False
) -> dict[str, float]:
    """All metrics of one sample, after one scale-shift alignment of the stack fitted on layer-0 depth.

    predicted_xyz, true_xyz (L,H,W,3), true_xyz forward-filled; hits (H,W). Keys: `depth/...` on layer 0; `visible/...`
    (layer 0), `hidden/...` (layers 1..) and `all/...` Chamfer and F; `layer{l}/rmse` the pixel-aligned distance between
    the predicted and the true point. With `single_layer` only layer 0 is known and judged.
    """
    valid = hits > 0
    if not valid.any():
        raise ValueError("a sample without a single valid pixel cannot be evaluated")
    scale, shift = align_scale_shift(predicted_xyz[0, ..., 2][valid], true_xyz[0, ..., 2][valid])
    aligned = align_points(predicted_xyz, scale, shift)
    metrics = _prefix("depth", depth_metrics(aligned[0, ..., 2][valid], true_xyz[0, ..., 2][valid]))
    metrics |= _prefix("visible", chamfer(aligned[0][valid], np.asarray(true_xyz[0], np.float64)[valid]))
    layers = 1 if single_layer else len(aligned)
    if layers > 1:
        metrics |= _prefix("hidden", chamfer(aligned[1:, valid].reshape(-1, 3), distinct(true_xyz, hits, 1)))
        metrics |= _prefix("all", chamfer(aligned[:, valid].reshape(-1, 3), distinct(true_xyz, hits, 0)))
    for layer in range(layers):
        distance = np.linalg.norm(aligned[layer][valid] - true_xyz[layer][valid], axis=-1)
        metrics[f"layer{layer}/rmse"] = float(np.sqrt(np.mean(distance**2)))
    return metrics


def _prefix(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}/{key}": value for key, value in metrics.items()}
