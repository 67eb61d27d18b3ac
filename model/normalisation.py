"""Camera-space points <-> the network's normalised space, per regime (paper, App. A: Eq. 5 and 6)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class ZScore:
    """Eq. 5, for objects: per-channel mean and standard deviation (x, y, z) of the training set."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    kind: ClassVar[str] = "zscore"

    def __post_init__(self) -> None:
        known = len(self.mean) == len(self.std) == 3 and all(map(math.isfinite, (*self.mean, *self.std)))
        if not known or min(self.std) <= 0:
            raise ValueError(
                f"z-score: needs three means and three positive deviations, got {self.mean} and {self.std}"
            )

    def forward(self, xyz_BLHW3: Tensor, valid_BHW: Tensor, frames: int = 1) -> tuple[Tensor, Tensor]:
        """Points -> (normalised points, 0 at invalid pixels; scale (B,) of ones). Frames are as good as images."""
        x = (xyz_BLHW3 - _vector(self.mean, xyz_BLHW3)) / _vector(self.std, xyz_BLHW3)
        return torch.where(_pixels(valid_BHW), x, 0.0), xyz_BLHW3.new_ones(len(xyz_BLHW3))

    def inverse(self, x_BLHW3: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """Normalised points -> camera-space points. There is no scale per sample; the argument keeps the maps alike."""
        return x_BLHW3 * _vector(self.std, x_BLHW3) + _vector(self.mean, x_BLHW3)


@dataclass(frozen=True)
class LogMedian:
    """Eq. 6, for scenes: divide by the median valid depth of the (filled) stack, then signed logarithms.

    z -> ln(z/m), x -> sign(x) ln(1 + |x|/m), y alike. At inference m is unknown and 1, so points come in units of m.
    """

    kind: ClassVar[str] = "log_median"

    def forward(self, xyz_BLHW3: Tensor, valid_BHW: Tensor, frames: int = 1) -> tuple[Tensor, Tensor]:
        """Points (z > 0 at valid pixels) -> (normalised points, 0 at invalid pixels; m (B,), 1 without valid pixels).

        Of an even number of depths the median is the lower of the middle two. The frames of a clip, which stand one
        after the other, share the m of all their depths: what stands still must not move in normalised space.
        """
        valid = _pixels(valid_BHW)
        depth_BLHW = torch.where(valid[..., 0], xyz_BLHW3[..., 2], torch.nan)
        median_C = _lower_median(depth_BLHW.unflatten(0, (-1, frames)).flatten(1))
        m_B = median_C.nan_to_num(nan=1.0).repeat_interleave(frames)
        ahead = _vector((0.0, 0.0, 1.0), xyz_BLHW3)
        scaled = torch.where(valid, xyz_BLHW3, ahead) / m_B[:, None, None, None, None]
        xy = scaled[..., :2]
        x = torch.cat([xy.sign() * xy.abs().log1p(), scaled[..., 2:].log()], dim=-1)
        return torch.where(valid, x, 0.0), m_B

    def inverse(self, x_BLHW3: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """Normalised points -> camera-space points, times m (B,) (default 1, as the release does)."""
        xy = x_BLHW3[..., :2]
        xyz = torch.cat([xy.sign() * xy.abs().expm1(), x_BLHW3[..., 2:].exp()], dim=-1)
        return xyz if scale_B is None else xyz * scale_B[:, None, None, None, None]


Normalisation = ZScore | LogMedian


def to_dict(normalisation: Normalisation) -> dict[str, Any]:
    """JSON for a checkpoint; `from_dict` reads it."""
    return {"kind": normalisation.kind, **asdict(normalisation)}


def from_dict(values: Mapping[str, Any]) -> Normalisation:
    """{"kind": "zscore", "mean": [3], "std": [3]} or {"kind": "log_median"} -> the map. ValueError for another kind."""
    if values.get("kind") == ZScore.kind:
        return ZScore(_three(values["mean"]), _three(values["std"]))
    if values.get("kind") == LogMedian.kind:
        return LogMedian()
    raise ValueError(f"normalisation {values.get('kind')!r} is unknown; choose {ZScore.kind!r} or {LogMedian.kind!r}")


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _vector(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Numbers as a tensor of the type and device of `like`. Filled in there: to copy a list, a GPU is waited for."""
    return torch.stack([like.new_full((), value) for value in values])


def _lower_median(x_CN: Tensor) -> Tensor:
    """(C,) of the numbers of each row that are not NaN, the lower one of the middle two; NaN where there are none."""
    if not torch.are_deterministic_algorithms_enabled():
        return x_CN.nanmedian(dim=1).values
    # The same number. CUDA's nanmedian is refused then, for which of several equal numbers it points at is open.
    count_C1 = (~x_CN.isnan()).sum(dim=1, keepdim=True)
    return x_CN.sort(dim=1).values.gather(1, (count_C1 - 1).clamp(min=0) // 2)[:, 0]  # NaN comes last


def _pixels(valid_BHW: Tensor) -> Tensor:
    return valid_BHW.bool()[:, None, :, :, None]
