"""The pinhole camera that a predicted pointmap implies (paper, App. B: self-consistent intrinsics)."""

from typing import Literal

import torch
from torch import Tensor

MIN_PIXELS = 10
MIN_DEPTH = 1e-6
ROUNDING = 1e-20  # variance over squared mean: below, what varies is the last bits of equal numbers


def fit_intrinsics(xyz_BHW3: Tensor, valid_BHW: Tensor, errors_in: Literal["points", "pixels"] = "points") -> Tensor:
    """Layer-0 points (B,H,W,3) in camera space, valid bool (B,H,W) -> K (B,3,3) float64 in pixels.

    Two independent least-squares lines, u = fx X/Z + cx and v = fy Y/Z + cy, over pixel centres (+0.5) that are valid
    with Z > 1e-6. From points of a camera both choices of `errors_in` give that camera exactly. From others:

    "points": the sum of (X/Z - (u - cx)/fx)^2 is least. A pixel's place is known and its point is a prediction, so this
    is where the errors are, and the focal length has no bias.
    "pixels": the sum of (u - fx X/Z - cx)^2 is least, as the paper writes it and the release has it. Errors in X/Z then
    shorten the focal length, to r^2 of the other (r: the correlation of u and X/Z), however many pixels there are: of
    an object seen under a narrow angle by several per cent (docs/predicting.md).

    ValueError where a sample has fewer than 10 such pixels, or where no positive focal length fits them: they lie on
    one line of sight, in one row or column, or the points run against the pixels.
    """
    if errors_in not in ("points", "pixels"):
        raise ValueError(f"intrinsics: errors_in is {errors_in!r}; choose 'points' or 'pixels'")
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
        K[:, axis, axis], K[:, axis, 2] = _line(slope, pixel.flatten(), usable_BN.double(), errors_in)
    fits_B = K.isfinite().all(dim=(1, 2)) & (K[:, 0, 0] > 0) & (K[:, 1, 1] > 0)
    if not bool(fits_B.all()):
        raise ValueError(
            f"intrinsics: no focal length fits the points of sample {int(fits_B.int().argmin())}; they lie on one line "
            "of sight, in one row or column of pixels, or run against the pixels"
        )
    return K


def _line(x_BN: Tensor, y_N: Tensor, weight_BN: Tensor, errors_in: str) -> tuple[Tensor, Tensor]:
    """The line y = a x + b per row, least squares in x ("points") or y: (a (B,), b (B,)); a is NaN where all x are
    equal but for rounding, 0 or NaN where all y are."""
    total = weight_BN.sum(dim=1)
    mean_x = (weight_BN * x_BN).sum(dim=1) / total
    mean_y = (weight_BN * y_N).sum(dim=1) / total
    dx, dy = x_BN - mean_x[:, None], y_N - mean_y[:, None]
    xx, xy, yy = ((weight_BN * p * q).sum(dim=1) for p, q in ((dx, dx), (dx, dy), (dy, dy)))
    a = torch.where(xx > ROUNDING * mean_x**2 * total, yy / xy if errors_in == "points" else xy / xx, torch.nan)
    return a, mean_y - a * mean_x
