"""Depth as whole numbers and back: the codes q of the layers, by which rule they were made, and what they lose.

`inverse`  z = 1 / (q step)      equal steps of 1/z: a plane has affine codes, so its residuals are rounding noise
`log`      z = 2^-150 ratio^q    equal steps of log z: any range, and fewer codes where depth spans much or is noisy
`steps`    z = q step            depth that a sensor gave in steps (of 1 mm, say) comes back exactly
`float32`  the bits of z         lossless

All of it is defined by IEEE operations in a stated order, so that every reader finds the same bits: `log` takes no
exponential, whose last bit depends on the library and the machine.
"""

from typing import Literal, get_args

import numpy as np

Codec = Literal["inverse", "float32", "log", "steps"]
CODECS: tuple[Codec, ...] = get_args(Codec)  # in the order of their numbers in the header
LARGEST_Q = 1 << 29  # second differences of q then fit 32 bits after zigzag

_ROUNDING = 2.0**-23  # what rounding to float32 may add to a relative error, twice over
_LOWEST = 2.0**-150  # below the least positive float32: codes of `log` begin here
_TABLE = 1 << 12  # powers of the ratio in one of the two tables of `log`

# Metres a step, of sensors and formats: 1 mm, 0.1 mm, TUM's 1/5000, 1 cm, 1/256, 1/512 (Taskonomy), 1/1000 of mm in
# float32 and so on. Each is tried as it is and as the float32 by which many readers multiply.
_STEPS = tuple(
    step
    for each in (1e-3, 1 / 512, 1e-4, 1 / 5000, 1e-2, 1 / 256, 1 / 4000)
    for step in dict.fromkeys((each, float(np.float32(each))))
)
_PROBE = 32  # hits on which all steps are tried before one is on all hits


def codes(z: np.ndarray, codec: Codec, bound: float) -> tuple[np.ndarray, float] | None:
    """True depths (n,) float32 > 0 -> (q (n,) int32, step), or None where this codec cannot keep the bound.

    `step` is that of the formulas above: the ratio for `log`, 0 for `float32`. |z' - z| <= bound * z for every hit;
    `steps` and `float32` are exact.
    """
    if codec == "float32":
        return z.view(np.int32), 0.0
    if not z.size:
        return np.zeros(0, np.int32), 1.0
    if codec == "steps":
        return _as_steps(z)
    wide = z.astype(np.float64)
    if codec == "inverse":
        # |1/z' - 1/z| <= step/2 bounds the relative error by step/2 z_max / (1 - step/2 z_max): hence the margins
        step = 2.0 * bound * (1.0 - bound - _ROUNDING / bound) / float(z.max())
        q = np.rint(1.0 / (wide * step))
    else:
        step = (1.0 + bound - _ROUNDING) ** 2  # half a step to either side is the square root of it
        q = np.rint((np.log(wide) - np.log(_LOWEST)) / np.log(step))
    if not 0.0 < step < np.inf or q.max() >= LARGEST_Q or q.min() < 1.0:
        return None
    q = q.astype(np.int32)
    error = np.abs(depths(q, codec, step) - wide)
    return (q, step) if bool((error <= bound * wide).all()) else None


def depths(q: np.ndarray, codec: Codec, step: float) -> np.ndarray:
    """q (n,) int32 >= 1 -> z (n,) float32; of `float32` q holds the bits."""
    if codec == "float32":
        return q.view(np.float32)
    with np.errstate(over="ignore"):  # only a forged step overflows; the caller refuses what is not finite
        if codec == "inverse":
            return (1.0 / (q.astype(np.float64) * step)).astype(np.float32)
        if codec == "steps":
            return (q.astype(np.float64) * step).astype(np.float32)
        low = np.cumprod(np.concatenate([[1.0], np.full(_TABLE - 1, step)]))
        high = np.cumprod(
            np.concatenate([[_LOWEST], np.full((int(q.max()) // _TABLE) if q.size else 0, low[-1] * step)])
        )
        return (high[q >> 12] * low[q & (_TABLE - 1)]).astype(np.float32)


def _as_steps(z: np.ndarray) -> tuple[np.ndarray, float] | None:
    steps = np.array(_STEPS)[:, None]
    probe = z[:: -(-z.size // _PROBE)].astype(np.float64)
    likely = ((np.rint(probe / steps) * steps).astype(np.float32) == probe).all(axis=1)
    for step in steps[likely, 0].tolist():
        if (q := _multiples(z, step)) is not None:
            return q, step
    return None


def _multiples(z: np.ndarray, step: float) -> np.ndarray | None:
    q = np.rint(z.astype(np.float64) / step)
    if q.min() < 1.0 or q.max() >= LARGEST_Q or not np.array_equal((q * step).astype(np.float32), z):
        return None
    return q.astype(np.int32)
