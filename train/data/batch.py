"""What a step learns from: B samples as tensors, of a frame or a clip each, whose points are computed where they are.

A batch travels as depth and intrinsics: the points of six layers are three times as many bytes, and a GPU makes them
in no time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from shards.unproject import unproject
from train.data.augment import photometric

ALIGNED = 64  # bytes; where a tensor begins within the memory of a batch


@dataclass(frozen=True)
class Unusable:
    """A sample that another one replaced: its global index, and why it was."""

    index: int
    reason: Literal["damaged", "missing", "empty"]
    message: str


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples of `frames` frames each (1: still images), N = B frames images; those of a sample lie side by side.

    rgb (N,3,H,W) float32 in [0,1], composited | depth (N,L,H,W) float32, 0 where not valid | K (N,3,3) float64 |
    valid A (N,H,W) bool | weight (N,H,W) float32 of the loss | single_layer (N,) bool: Eq. 4 | index (B,) int64,
    global | damaged: those in whose place others stand.

    Where photometry is left to the device, `to` does it: shown (N,H,W) bool and looks (N,P) float64 say what
    (train/data/augment/photometric.py). `index` and `looks` stay on the CPU, where they are read as numbers.
    """

    rgb: Tensor
    depth: Tensor
    K: Tensor
    valid: Tensor
    weight: Tensor
    single_layer: Tensor
    index: Tensor
    damaged: tuple[Unusable, ...] = ()
    shown: Tensor | None = None
    looks: Tensor | None = None

    @property
    def frames(self) -> int:
        return len(self.depth) // len(self.index)

    @cached_property
    def xyz(self) -> Tensor:
        """(N,L,H,W,3) float32, camera frame, 0 where not valid."""
        if self.depth.device.type != "cpu":
            return points(self.depth, self.K)
        # the same within the silhouettes alone: a fifth of the time on a CPU, but a loop over samples
        counts = self.valid.numpy() * np.uint8(self.depth.shape[1])
        xyz = np.zeros((*self.depth.shape, 3), np.float32)
        for sample in zip(self.depth.numpy(), counts, self.K.numpy(), xyz):
            unproject(*sample)
        return torch.from_numpy(xyz)

    def to(self, device: torch.device) -> "Batch":
        """There, with finished photometry. From pinned memory the copy does not wait."""
        there = self._each(lambda x: x.to(device, non_blocking=True), but=ON_CPU)
        if there.shown is None or there.looks is None:
            return there
        rgb = there.rgb.clone() if there.rgb is self.rgb else there.rgb
        for image, shown, look in zip(rgb, there.shown, photometric.unpacked(there.looks)):
            photometric.finished(image, shown, look)
        return replace(there, rgb=rgb, shown=None, looks=None)

    def pin_memory(self) -> "Batch":
        """All of it, so that nothing holds on to the memory that it came in."""
        return self._each(lambda x: x.pin_memory())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name, without those that this batch does not have."""
        return {name: tensor for name in TENSORS if (tensor := getattr(self, name)) is not None}

    @property
    def form(self) -> "Form":
        layers, height, width = self.depth.shape[1:]
        return Form(layers, height, width, self.frames, self.looks is not None)

    def _each(self, change: Callable[[Tensor], Tensor], but: Sequence[str] = ()) -> "Batch":
        changed = {name: tensor if name in but else change(tensor) for name, tensor in self.tensors.items()}
        return Batch(**changed, damaged=self.damaged)


TENSORS = tuple(f.name for f in fields(Batch) if f.name != "damaged")
ON_CPU = ("index", "looks")


@dataclass(frozen=True)
class Form:
    """Of one sample: layers, height and width in pixels, frames, and whether its photometry is still to be done."""

    layers: int
    height: int
    width: int
    frames: int = 1
    deferred: bool = False

    @property
    def tensors(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Type and shape of each tensor of a sample."""
        image, of_a_frame = (self.height, self.width), (self.frames,)
        found: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "rgb": (torch.float32, (*of_a_frame, 3, *image)),
            "depth": (torch.float32, (*of_a_frame, self.layers, *image)),
            "K": (torch.float64, (*of_a_frame, 3, 3)),
            "valid": (torch.bool, (*of_a_frame, *image)),
            "weight": (torch.float32, (*of_a_frame, *image)),
            "single_layer": (torch.bool, of_a_frame),
            "index": (torch.int64, (1,)),
        }
        if self.deferred:
            found["shown"] = (torch.bool, (*of_a_frame, *image))
            found["looks"] = (torch.float64, (*of_a_frame, len(photometric.Look._fields)))
        return found


def points(depth_BLHW: Tensor, K_B33: Tensor) -> Tensor:
    """Depth along the rays through the pixel centres, z K^-1 (u + 0.5, v + 0.5, 1): (B,L,H,W,3) of depth's type."""
    height, width = depth_BLHW.shape[-2:]
    u = torch.arange(width, device=K_B33.device) + 0.5
    v = torch.arange(height, device=K_B33.device)[:, None] + 0.5
    # in closed form, as the last row of K is 0, 0, 1: torch.linalg.inv waits for the GPU to say whether there is one
    a, b, c, d, e, f = K_B33[:, :2].reshape(-1, 6, 1, 1).unbind(1)
    u, v, determinant = u - c, v - f, a * e - b * d
    xyz = torch.empty(*depth_BLHW.shape, 3, dtype=depth_BLHW.dtype, device=depth_BLHW.device)
    for axis, slope_BHW in enumerate(((e * u - b * v) / determinant, (a * v - d * u) / determinant)):
        torch.mul(depth_BLHW, slope_BHW[:, None].to(depth_BLHW.dtype), out=xyz[..., axis])
    xyz[..., 2] = depth_BLHW
    return xyz


def existing(depth_NLHW: Tensor, valid_NHW: Tensor) -> Tensor:
    """(N,L,H,W) bool: where a forward-filled stack has a layer of its own, up to the last hit of each ray.

    Filling repeats a depth exactly, so the last layer that differs from the one before is the last hit. (Two hits may
    share a depth, the two sides of a sheet: a layer that repeats one is there if another one comes behind.)
    """
    differs = torch.ones_like(depth_NLHW, dtype=torch.bool)
    torch.ne(depth_NLHW[:, 1:], depth_NLHW[:, :-1], out=differs[:, 1:])
    behind = differs.flip(1).cumsum(dim=1).flip(1) > 0
    return behind & valid_NHW.bool()[:, None]


def joined(items: Sequence[Batch], memory: Tensor | None = None) -> Batch:
    """One batch of several of the same form, written into `memory` (uint8, as many as `size_of` says) if given."""
    count, form = sum(len(item.index) for item in items), items[0].form
    if memory is None:
        # of NumPy, which asks for huge pages: of torch, the first touch of so much memory takes longer than the copy
        memory = torch.from_numpy(np.empty(size_of(count, form), np.uint8))
    tensors = placed(memory, count, form)
    for name, tensor in tensors.items():
        torch.cat([getattr(item, name) for item in items], out=tensor)
    return Batch(**tensors, damaged=tuple(line for item in items for line in item.damaged))


def size_of(count: int, form: Form) -> int:
    """Bytes that a batch of `count` samples takes in one piece of memory."""
    return sum(
        -(-count * math.prod(shape) * dtype.itemsize // ALIGNED) * ALIGNED for dtype, shape in form.tensors.values()
    )


def placed(memory: Tensor, count: int, form: Form) -> dict[str, Tensor]:
    """The tensors of a batch in a piece of memory (bytes uint8), by name; they share its storage."""
    tensors, here = {}, 0
    for name, (dtype, (first, *rest)) in form.tensors.items():
        size = count * first * math.prod(rest) * dtype.itemsize
        tensors[name] = memory[here : here + size].view(dtype).view(count * first, *rest)
        here += -(-size // ALIGNED) * ALIGNED
    return tensors
