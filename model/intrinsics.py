"""The pinhole camera that a predicted pointmap implies (paper, App. B: self-consistent intrinsics)."""

import torch
from torch import Tensor

MIN_PIXELS = 10
MIN_DEPTH = 1e-6


def fit_intrinsics(xyz_BHW3: Tensor, valid_BHW: Tensor) -> Tensor:
    """Layer-0 points (B,H,W,3) in camera space, valid bool (B,H,W) -> K (B,3,3) float64 in pixels.

    Two independent least-squares lines, u = fx X/Z + cx and v = fy Y/Z + cy, over pixel centres (+0.5) that are valid
    with Z > 1e-6. ValueError where a sample has fewer than 10 of them, or where they lie on one line of sight.
    """
    _, height, width, _ = xyz_BHW3.shape
    xyz = xyz_BHW3.double()
    usable_BN = (valid_BHW.bool() & (xyz[..., 2] > MIN_DEPTH) & xyz.isfinite().all(dim=-1)).flatten(1)
    count_B = usable_BN.sum(dim=1)
    if bool((count_B < MIN_PIXELS).any()):
        raise ValueError(
            f"intrinsics: sample {int(count_B.argmin())} has {int(count_B.min())} pixels with a point in front of the "
            f"camera; the fit needs {MIN_PIXELS}"
        )
    z = torch.where(usable_BN, xyz[..., 2].flatten(1), 1.0)
    v, u = torch.meshgrid(
        torch.arange(height, device=xyz.device, dtype=torch.float64) + 0.5,
        torch.arange(width, device=xyz.device, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    K = torch.eye(3, dtype=torch.float64, device=xyz.device).repeat(len(xyz), 1, 1)
    for axis, pixel in ((0, u), (1, v)):
        slope = torch.where(usable_BN, xyz[..., axis].flatten(1), 0.0) / z
        K[:, axis, axis], K[:, axis, 2] = _line(slope, pixel.flatten(), usable_BN.double())
    if not bool(K.isfinite().all()):
        raise ValueError("intrinsics: the points of a sample lie on one line of sight; no focal length fits them")
    return K


def _line(x_BN: Tensor, y_N: Tensor, weight_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares y = a x + b per row: (a (B,), b (B,)); infinite or NaN where all x are equal."""
    total = weight_BN.sum(dim=1)
    mean_x = (weight_BN * x_BN).sum(dim=1) / total
    mean_y = (weight_BN * y_N).sum(dim=1) / total
    dx, dy = x_BN - mean_x[:, None], y_N - mean_y[:, None]
    a = (weight_BN * dx * dy).sum(dim=1) / (weight_BN * dx * dx).sum(dim=1)
    return a, mean_y - a * mean_x
