"""The transfer function of sRGB (IEC 61966-2-1) for the 256 values of a byte."""

import numpy as np

_BYTE = np.arange(256) / 255
LINEAR = np.where(_BYTE <= 0.04045, _BYTE / 12.92, ((_BYTE + 0.055) / 1.055) ** 2.4)  # (256,) float64 in [0, 1]
