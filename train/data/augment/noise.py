"""Sensor noise as a function of (key, channel, row, column): the same numbers on every device and in every order.

A generator would give other numbers on CUDA than on the CPU, and others for a part of an image than for the whole. A
hash in integer arithmetic does neither. The sum of the four bytes of a 32-bit hash has nearly a normal distribution
(excess kurtosis -0.3, at most 3.4 deviations), and is exact.
"""

import torch
from torch import Tensor

# of the lowest known bias among hashes of two rounds; the second less 2^32, so that no product exceeds 63 bits
_FIRST, _SECOND = 0x21F0AAAD, 0xD35A2D97 - (1 << 32)
_MASK = (1 << 32) - 1
MEAN = 4 * 127.5  # of the sum of four bytes
DEVIATION = (4 * (256**2 - 1) / 12) ** 0.5


def sensor_noise(
    key: int, height: int, width: int, rows: range, columns: range, device: torch.device | None = None
) -> Tensor:
    """(3,h,w) float32 of mean 0 and deviation 1: the part `rows` x `columns` of a noise image of height x width.

    `key` is of 64 bits; 3 x height x width is at most 2^32.
    """
    row = torch.arange(rows.start, rows.stop, device=device)
    column = torch.arange(columns.start, columns.stop, device=device)
    channel = torch.arange(3, device=device)
    counter = (channel[:, None, None] * height + row[:, None]) * width + column
    number = _hash(_hash(counter.bitwise_xor_(key & _MASK)).bitwise_xor_(key >> 32 & _MASK))
    pairs = (number & 0x00FF00FF).add_(number >> 8 & 0x00FF00FF)
    total = (pairs & 0xFFFF).add_(pairs >> 16)
    return total.to(torch.float32).sub_(MEAN).mul_(1 / DEVIATION)


def _hash(x: Tensor) -> Tensor:
    """A bijection of 32-bit numbers in int64, in place."""
    x.bitwise_xor_(x >> 16).mul_(_FIRST).bitwise_and_(_MASK)
    x.bitwise_xor_(x >> 15).mul_(_SECOND).bitwise_and_(_MASK)
    return x.bitwise_xor_(x >> 15)
