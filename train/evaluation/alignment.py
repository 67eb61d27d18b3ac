"""Bringing a prediction to the scale of the truth: one scale and one shift per sample, fitted on visible depth.

The paper applies "the same per-sample scale-shift alignment for all methods" (Tables 1, 2 and 6) and computes Chamfer
distances and F-scores "after unprojection" (Table 2). It leaves open how the loss of the fit is weighted (here: plain
least squares on depth) and along which rays aligned depth is unprojected (here: along the predicted ones, rule "ray").
"""

from typing import Literal, get_args

import numpy as np

Rule = Literal["ray", "similar", "none"]
RULES: tuple[Rule, ...] = get_args(Rule)

RULE_TEXTS: dict[Rule, str] = {
    "ray": "depth scaled and shifted, each point moved along its own predicted ray",
    "similar": "points scaled, and shifted along z",
    "none": "no alignment",
}
NEAREST = 0.1  # of the median predicted depth: a point nearer than that has no ray to be moved along


def align_scale_shift(predicted_z: np.ndarray, true_z: np.ndarray) -> tuple[float, float]:
    """(s, b) minimising sum (s * predicted + b - true)^2 over the given pixels: the per-sample alignment of Table 1.

    Where the fit would mirror the scene (s <= 0) or the prediction is constant, s is the ratio of the median depths and
    only b is fitted: a prediction that knows no relief is not given any, and in whatever unit it comes, it is judged
    alike. ValueError without a pixel.
    """
    p, t = np.asarray(predicted_z, np.float64).ravel(), np.asarray(true_z, np.float64).ravel()
    if p.size == 0:
        raise ValueError("scale-shift alignment needs at least one valid pixel, found none")
    mean = float(p.mean())
    centred = p - mean  # sums of products, not `@`: BLAS would wake all its threads for them
    variance = float((centred * centred).sum())
    known = variance > 1e-12 * (variance + p.size * mean**2)
    scale = float((centred * (t - t.mean())).sum()) / variance if known else 0.0
    if scale <= 0.0:
        of_predicted, of_true = abs(float(np.median(p))), abs(float(np.median(t)))
        scale = of_true / of_predicted if of_true and of_predicted else 1.0
    return scale, float(t.mean() - scale * mean)


def align_points(xyz: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """Points (..., 3) scaled, and shifted along z: the shape stays similar to what was predicted, but with a shift the
    points leave the rays of their pixels (rule "similar")."""
    return np.asarray(xyz, np.float64) * scale + np.array([0.0, 0.0, shift])


def align_along_rays(xyz: np.ndarray, scale: float, shift: float, median_z: float) -> np.ndarray:
    """Points (..., 3) moved along their own rays to the depth scale * z + shift: aligned depth, unprojected.

    Every point projects where it did before. `median_z` is the prediction's median visible depth; a point nearer than
    a tenth of it, or behind the camera, is moved as if it were there: its x and y say nothing of a ray.
    """
    xyz = np.asarray(xyz, np.float64)
    z = xyz[..., 2]
    aligned = scale * z + shift
    ratio = aligned / np.maximum(z, max(NEAREST * median_z, 1e-12))
    out = np.empty_like(xyz)
    out[..., 0], out[..., 1], out[..., 2] = xyz[..., 0] * ratio, xyz[..., 1] * ratio, aligned
    return out


def aligned(xyz: np.ndarray, scale: float, shift: float, median_z: float, rule: Rule) -> np.ndarray:
    """Points (..., 3), float64, after an alignment that was fitted on visible depth. ValueError for another rule."""
    if rule == "ray":
        return align_along_rays(xyz, scale, shift, median_z)
    if rule == "similar":
        return align_points(xyz, scale, shift)
    if rule == "none":
        return np.asarray(xyz, np.float64)
    raise ValueError(f"alignment {rule!r} is none of {', '.join(RULES)}")
