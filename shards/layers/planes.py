"""What else a view may say of every true hit: normals, facing and material, each in a member of its own.

They are optional, and decoded only on demand. A plane holds one or two whole numbers of every hit, in the order of
`layers.zst`: differences from the hit to the left, packed as there. Which pixels have hits `layers.zst` says.

`normals`  (L,H,W,3) float32, unit vectors of the camera frame; 0 where there is no hit
`facing`   (L,H,W) int8: 1 where the front of the surface is seen, -1 where its back; 0 where there is no hit
`material` (L,H,W) int32, numbers from 0 on; -1 where there is no hit
"""

import math
from collections.abc import Callable, Collection
from typing import Literal, NamedTuple, get_args

import numpy as np

from ..errors import CorruptSample
from . import container
from .packing import PACKINGS, fits, pack, packing_of, unpack
from .prediction import PREDICTORS, reconstruct, residuals, structure

Plane = Literal["normals", "facing", "material"]
PLANES: tuple[Plane, ...] = get_args(Plane)  # in the order of their numbers in the header
MAGIC = b"WTPLANES"
VERSION = 1
SUFFIX = ".zst"
NORMAL_STEP = 2 / ((1 << 12) - 1)  # of the square that the sphere is unfolded to: 12 bits an axis
NORMAL_BOUND = 1.1e-3  # radians, 0.063 degrees: no normal is further from its code; of 4 million none was by 1.03e-3
_LEFT = PREDICTORS.index("left")


class _Kind(NamedTuple):
    """`codes`: values (n,...) of the hits -> numbers (channels, n) from 0 on; `values`: the inverse, given the step."""

    channels: int
    dtype: type
    empty: int
    shape: tuple[int, ...]
    step: float
    bound: float
    codes: Callable[[np.ndarray], np.ndarray]
    values: Callable[[np.ndarray, float], np.ndarray]


def encode_plane(name: Plane, hits: np.ndarray, values: np.ndarray) -> bytes:
    """hits (H,W) uint8 and a plane as above -> bytes. ValueError where it is not as above."""
    kind = _KINDS[name]
    hit = _hit(hits, values.shape[0])
    if values.shape != (*hit.shape, *kind.shape) or values.dtype != kind.dtype:
        raise ValueError(
            f"plane {name} is {values.shape} {values.dtype}, expected {(*hit.shape, *kind.shape)} "
            f"{np.dtype(kind.dtype).name}"
        )
    if (values[~hit] != kind.empty).any():
        raise ValueError(f"plane {name} is not {kind.empty} where there is no hit")
    numbers = kind.codes(values[hit])
    s = structure(hit)
    words = np.concatenate([residuals(channel.astype(np.int32), s, "left") for channel in numbers])
    packing = packing_of(words)
    payload = pack(words, packing)
    return container.packed(
        MAGIC,
        VERSION,
        PLANES.index(name),
        _LEFT | PACKINGS.index(packing) << 4,
        hit.shape,
        int(np.count_nonzero(hit)),
        kind.bound,
        kind.step,
        len(payload),
        container.compressed(payload),
    )


def decode_plane(name: Plane, data: bytes, hits: np.ndarray, layers: int) -> np.ndarray:
    """The inverse; `hits` and the number of layers are those of `layers.zst`. CorruptSample where they do not fit."""
    what = f"plane {name}"
    fields = container.read_fields(data, MAGIC, what)
    packing = fields.layout >> 4
    if fields.version != VERSION or fields.layout & 15 != _LEFT or packing >= len(PACKINGS):
        raise CorruptSample(
            f"{what}: version {fields.version}, layout {fields.layout} is newer than this reader; update worldtrace"
        )
    if fields.kind != PLANES.index(name):
        raise CorruptSample(f"{what}: the header says that it is plane number {fields.kind}")
    kind = _KINDS[name]
    hit = _hit(hits, layers)
    if (fields.layers, fields.height, fields.width) != hit.shape or fields.count != np.count_nonzero(hit):
        raise CorruptSample(f"{what}: its size or its hits are not those of the layers")
    words = kind.channels * fields.count
    if not fits(fields.raw, words, PACKINGS[packing]) or not (math.isfinite(fields.step) and fields.step > 0):
        raise CorruptSample(f"{what}: the header does not fit {fields.count} hits")
    payload = container.unpacked(data, fields, what)
    try:
        residual = unpack(memoryview(payload), words, PACKINGS[packing]).reshape(kind.channels, -1)
        found = kind.values(np.stack([reconstruct(channel, hit, "left") for channel in residual]), fields.step)
    except ValueError as error:
        raise CorruptSample(f"{what}: {error}") from None
    values: np.ndarray = np.full((*hit.shape, *kind.shape), kind.empty, kind.dtype)
    values[hit] = found
    return values


def planes_in(members: Collection[str]) -> tuple[Plane, ...]:
    """The planes among the members of a sample, by their suffixes; those of a clip are in all frames."""
    return tuple(sorted(name for name in PLANES if any(m.rpartition(".")[0].split(".")[-1] == name for m in members)))


def _hit(hits: np.ndarray, layers: int) -> np.ndarray:
    return np.arange(layers)[:, None, None] < hits[None]


def _fold(normals: np.ndarray) -> np.ndarray:
    """Unit vectors (n,3) -> (2,n): the octahedron unfolded to a square of steps. Those that look at the camera, at
    negative z, lie in its middle, where neighbours on the sphere are neighbours in the square.
    """
    wide = normals.astype(np.float64)
    total = np.abs(wide).sum(axis=1)
    if wide.size and not (np.isfinite(total).all() and np.abs(np.linalg.norm(wide, axis=1) - 1).max() < 1e-3):
        raise ValueError("plane normals: a normal at a true hit is not of unit length")
    x, y = wide[:, 0] / total, wide[:, 1] / total
    behind = wide[:, 2] > 0
    across, down = (1 - np.abs(y)) * np.where(x < 0, -1, 1), (1 - np.abs(x)) * np.where(y < 0, -1, 1)
    return np.rint((np.stack([np.where(behind, across, x), np.where(behind, down, y)]) + 1) / NORMAL_STEP)


def _unfold(codes: np.ndarray, step: float) -> np.ndarray:
    if codes.size and (codes.min() < 0 or codes.max() * step > 2 + step):
        raise ValueError("a code of a normal is out of range")
    x, y = codes * step - 1
    z = np.abs(x) + np.abs(y) - 1
    beyond = np.maximum(z, 0)
    x, y = x - np.where(x < 0, -beyond, beyond), y - np.where(y < 0, -beyond, beyond)
    length = np.sqrt(x * x + y * y + z * z)
    return (np.stack([x, y, z], axis=1) / length[:, None]).astype(np.float32)


def _sides(values: np.ndarray) -> np.ndarray:
    if (np.abs(values) != 1).any():
        raise ValueError("plane facing: it is 1 or -1 at every true hit")
    return (values < 0)[None]


def _faces(codes: np.ndarray, step: float) -> np.ndarray:
    if codes.size and (codes.min() < 0 or codes.max() > 1):
        raise ValueError("a side is neither front nor back")
    return np.where(codes[0] > 0, -1, 1)


def _numbers(values: np.ndarray) -> np.ndarray:
    if values.size and (values.min() < 0 or values.max() >= 1 << 29):
        raise ValueError("plane material: it is a number from 0 to 2^29 - 1 at every true hit")
    return values[None]


def _materials(codes: np.ndarray, step: float) -> np.ndarray:
    if codes.size and (codes.min() < 0 or codes.max() >= 1 << 29):
        raise ValueError("the number of a material is out of range")
    return codes[0]


_KINDS: dict[Plane, _Kind] = {
    "normals": _Kind(2, np.float32, 0, (3,), NORMAL_STEP, NORMAL_BOUND, _fold, _unfold),
    "facing": _Kind(1, np.int8, 0, (), 1.0, 0.0, _sides, _faces),
    "material": _Kind(1, np.int32, -1, (), 1.0, 0.0, _numbers, _materials),
}
