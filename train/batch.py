"""What a step learns from: B samples as tensors, whose points are computed where the tensors are.

A batch travels as depth and intrinsics: the points of six layers are three times as many bytes, and a GPU makes them
in no time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from shards.unproject import unproject

ALIGNED = 64  # bytes; where a tensor begins within the memory of a batch


@dataclass(frozen=True)
class Unusable:
    """A sample that another one replaced: its global index, and why it was."""

    index: int
    reason: Literal["damaged", "missing", "empty"]
    message: str


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples.

    rgb (B,3,H,W) float32 in [0,1], composited | depth (B,L,H,W) float32, 0 where not valid | K (B,3,3) float64 |
    valid A (B,H,W) bool | weight (B,H,W) float32 of the loss | single_layer (B,) bool: Eq. 4 | index (B,) int64 global
    | damaged: those in whose place others stand.
    """

    rgb: Tensor
    depth: Tensor
    K: Tensor
    valid: Tensor
    weight: Tensor
    single_layer: Tensor
    index: Tensor
    damaged: tuple[Unusable, ...] = ()

    @cached_property
    def xyz(self) -> Tensor:
        """(B,L,H,W,3) float32, camera frame, 0 where not valid."""
        if self.depth.device.type != "cpu":
            return points(self.depth, self.K)
        # the same within the silhouettes alone: a fifth of the time on a CPU, but a loop over samples
        counts = self.valid.numpy() * np.uint8(self.depth.shape[1])
        xyz = np.zeros((*self.depth.shape, 3), np.float32)
        for sample in zip(self.depth.numpy(), counts, self.K.numpy(), xyz):
            unproject(*sample)
        return torch.from_numpy(xyz)

    def to(self, device: torch.device) -> "Batch":
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._each(lambda x: x.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(**{name: change(getattr(self, name)) for name in TENSORS}, damaged=self.damaged)


TENSORS = tuple(f.name for f in fields(Batch) if f.name != "damaged")


def points(depth_BLHW: Tensor, K_B33: Tensor) -> Tensor:
    """Depth along the rays through the pixel centres, z K^-1 (u + 0.5, v + 0.5, 1): (B,L,H,W,3) of depth's type."""
    height, width = depth_BLHW.shape[-2:]
    u = torch.arange(width, device=K_B33.device) + 0.5
    v = torch.arange(height, device=K_B33.device)[:, None] + 0.5
    inverse = torch.linalg.inv(K_B33)[..., None, None]
    xyz = torch.empty(*depth_BLHW.shape, 3, dtype=depth_BLHW.dtype, device=depth_BLHW.device)
    for axis in (0, 1):
        slope_BHW = inverse[:, axis, 0] * u + inverse[:, axis, 1] * v + inverse[:, axis, 2]
        torch.mul(depth_BLHW, slope_BHW[:, None].to(depth_BLHW.dtype), out=xyz[..., axis])
    xyz[..., 2] = depth_BLHW
    return xyz


def joined(items: Sequence[Batch], memory: Tensor | None = None) -> Batch:
    """One batch of several of the same shape, written into `memory` (uint8, as many as `size_of` says) if given."""
    count, shape = sum(len(item.index) for item in items), items[0].depth.shape[1:]
    if memory is None:
        # of NumPy, which asks for huge pages: of torch, the first touch of so much memory takes longer than the copy
        memory = torch.from_numpy(np.empty(size_of(count, *shape), np.uint8))
    tensors = placed(memory, count, *shape)
    for name, tensor in tensors.items():
        torch.cat([getattr(item, name) for item in items], out=tensor)
    return Batch(**tensors, damaged=tuple(line for item in items for line in item.damaged))


def size_of(count: int, layers: int, height: int, width: int) -> int:
    """Bytes that a batch of `count` samples takes in one piece of memory."""
    return sum(
        -(-count * math.prod(shape) * dtype.itemsize // ALIGNED) * ALIGNED
        for dtype, shape in _layout(layers, height, width).values()
    )


def placed(memory: Tensor, count: int, layers: int, height: int, width: int) -> dict[str, Tensor]:
    """The tensors of a batch in a piece of memory (bytes uint8), by name; they share its storage."""
    tensors, here = {}, 0
    for name, (dtype, shape) in _layout(layers, height, width).items():
        size = count * math.prod(shape) * dtype.itemsize
        tensors[name] = memory[here : here + size].view(dtype).view(count, *shape)
        here += -(-size // ALIGNED) * ALIGNED
    return tensors


def _layout(layers: int, height: int, width: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Type and shape of each tensor of one sample."""
    return {
        "rgb": (torch.float32, (3, height, width)),
        "depth": (torch.float32, (layers, height, width)),
        "K": (torch.float64, (3, 3)),
        "valid": (torch.bool, (height, width)),
        "weight": (torch.float32, (height, width)),
        "single_layer": (torch.bool, ()),
        "index": (torch.int64, ()),
    }
