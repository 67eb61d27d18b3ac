"""The bytes of `layers.zst`: `hits` and the depth of every true hit, self-describing, bounded and checked.

A header of 72 bytes (docs/format.md), then one zstd frame. Depths become codes (quantise.py), codes become differences
from what is expected (prediction.py), and these become bytes (packing.py). Forward filling is redone at decode, so
only true hits are stored. A reader learns every size from the header, before it allocates anything.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import CorruptSample
from . import container
from .container import MAX_ELEMENTS, MAX_SIDE, Fields
from .packing import ESCAPE, PACKINGS, Packing, fits, pack, packing_of, unpack
from .prediction import PREDICTORS, Predictor, reconstruct, residuals, structure
from .quantise import CODECS, LARGEST_Q, Codec, codes, depths

MAGIC = b"WTLAYERS"
VERSION = 2  # what is written; 1 is read as well
Choice = Literal["auto", Codec]
DEFAULT_BOUND = 5e-5  # of relative depth error; a point at the mean object depth of 1.9 moves by 1e-4
NOISY = 1 / 3  # share of large residuals of 1/z beyond which other codecs are tried: rendered surfaces have a fifth


@dataclass(frozen=True)
class Header:
    codec: Codec
    predictor: Predictor
    packing: Packing
    layers: int
    height: int
    width: int
    count: int
    bound: float
    step: float
    fields: Fields


def encode_layers(hits: np.ndarray, depth: np.ndarray, codec: Choice = "auto", bound: float = DEFAULT_BOUND) -> bytes:
    """hits (H,W) uint8, depth (L,H,W) float32 forward-filled -> bytes.

    `auto` takes `inverse`; for noisy depth, depth that a sensor gave in steps, and depth over too many orders of
    magnitude whatever of `steps`, `inverse` and `log` is smallest. All keep |z' - z| <= bound * z for every hit and
    never change the order of the layers; `steps` and `float32` are lossless. Depths that `inverse` or `log` cannot hold
    within the bound become `log` or `float32`. ValueError: depth that is not finite and positive at a true hit, or not
    forward-filled elsewhere; `steps` for depth in none.
    """
    layers, height, width = depth.shape
    if not container.fits_limits(layers, height, width):
        raise ValueError(
            f"{layers} layers of {height}x{width} cannot be stored: at most 255 layers, sides from 1 to {MAX_SIDE} and "
            f"{MAX_ELEMENTS} values in all"
        )
    if hits.shape != (height, width) or hits.dtype != np.uint8 or depth.dtype != np.float32:
        raise ValueError(f"hits {hits.shape} {hits.dtype} and depth {depth.shape} {depth.dtype} do not belong together")
    if hits.size and int(hits.max()) > layers:
        raise ValueError(f"hits counts up to {int(hits.max())} surfaces, but there are {layers} layers")
    if codec not in ("auto", *CODECS) or not 1e-6 <= bound <= 1e-2:
        raise ValueError(
            f"codec {codec!r} with bound {bound}: choose auto, {', '.join(CODECS)} and a bound from 1e-6 to 1e-2"
        )
    box, hit = _hit_box(hits, layers)
    inside = depth[: hit.shape[0], box[0], box[1]]
    z = inside[hit]
    if z.size and not (np.isfinite(z).all() and float(z.min()) > 0):
        raise ValueError("depth is not finite and positive at every true hit")
    if not _is_filled(depth, box, hit):
        raise ValueError(
            "depth is not forward-filled: at l >= hits it repeats the last true hit, and is 0 where hits = 0"
        )
    coded = _coded(z, hit, hits.tobytes(), codec, bound)
    layout = PREDICTORS.index(coded.predictor) | PACKINGS.index(coded.packing) << 4
    shape = (layers, height, width)
    kind = CODECS.index(coded.codec)
    return container.packed(
        MAGIC, VERSION, kind, layout, shape, z.size, coded.bound, coded.step, coded.raw, coded.frame
    )


@dataclass(frozen=True)
class _Coded:
    codec: Codec
    predictor: Predictor
    packing: Packing
    bound: float
    step: float
    raw: int
    frame: bytes


def _coded(z: np.ndarray, hit: np.ndarray, hits: bytes, choice: Choice, bound: float) -> _Coded:
    """The smallest of what `choice` allows; z (n,) are the depths of `hit` (l,h,w)."""
    s = structure(hit)
    found: list[_Coded] = []

    def attempt(codec: Codec, *predictors: Predictor) -> float:
        """Share of large residuals of the first predictor; 1 where the codec cannot hold these depths."""
        quantised = codes(z, codec, bound)
        if quantised is None:
            return 1.0
        q, step = quantised
        stated = bound if codec in ("inverse", "log") else 0.0
        shares = []
        for predictor in predictors:
            words = residuals(q, s, predictor)
            shares.append(float(np.count_nonzero(words >= ESCAPE)) / max(words.size, 1))
            packing = packing_of(words)
            payload = hits + pack(words, packing)
            found.append(_Coded(codec, predictor, packing, stated, step, len(payload), container.compressed(payload)))
        return shares[0]

    if choice == "auto":
        stepped = z.size > 0 and attempt("steps", "plane", "left") < 1.0
        # One layer is depth of a sensor: what its holes leave of a row may be too short for planes.
        large = attempt("inverse", "plane", "left") if len(hit) == 1 else attempt("inverse", "plane")
        if large > NOISY or stepped:
            attempt("log", "plane", "left")
    else:
        attempt(choice, "plane", "left")
    if not found and choice == "inverse":
        attempt("log", "plane", "left")
    if not found and choice != "steps":
        attempt("float32", "plane", "left")  # bits below the precision of the bound: subnormal numbers
    if not found:
        raise ValueError("the depths are no multiples of a known step, which codec steps needs: choose auto")
    return min(found, key=lambda coded: len(coded.frame))


def decode_layers(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """-> (hits (H,W) uint8, depth (L,H,W) float32 forward-filled). CorruptSample if anything is not as it must be."""
    header = read_header(data)
    payload = container.unpacked(data, header.fields, "layers")
    pixels = header.height * header.width
    hits = np.frombuffer(payload, np.uint8, pixels).reshape(header.height, header.width).copy()
    if int(hits.sum(dtype=np.int64)) != header.count or (pixels and int(hits.max()) > header.layers):
        raise CorruptSample(f"layers: the hits do not sum to the {header.count} of the header, or exceed its layers")
    try:
        words = unpack(memoryview(payload)[pixels:], header.count, header.packing)
    except ValueError as error:
        raise CorruptSample(f"layers: {error}") from None

    box, hit = _hit_box(hits, header.layers)
    q = words.view(np.int32) if header.predictor == "none" else reconstruct(words, hit, header.predictor)
    if header.codec != "float32" and q.size and not (int(q.min()) >= 1 and int(q.max()) < LARGEST_Q):
        raise CorruptSample("layers: a code of a depth is out of range")
    z = depths(q, header.codec, header.step)
    if z.size and not (np.isfinite(z).all() and float(z.min()) > 0):
        raise CorruptSample("layers: a depth is not finite and positive")
    return hits, _fill(z, hit, hits, box, header.layers)


def read_header(data: bytes) -> Header:
    """The validated header, without touching the payload. CorruptSample if it is damaged or of a later version."""
    fields = container.read_fields(data, MAGIC, "layers")
    version, number, layers, count, step = fields.version, fields.kind, fields.layers, fields.count, fields.step
    predictor, packing = fields.layout & 15, fields.layout >> 4
    known = number < (2 if version == 1 else len(CODECS)) and predictor < len(PREDICTORS) and packing < len(PACKINGS)
    if not 1 <= version <= VERSION or not known or (version == 1 and fields.layout):
        raise CorruptSample(
            f"layers: version {version}, codec {number}, layout {fields.layout} is newer than this reader; "
            "update worldtrace"
        )
    codec = CODECS[number]
    if version == 1:
        predictor = PREDICTORS.index("none" if codec == "float32" else "plane")
    pixels = fields.height * fields.width
    if not fits(fields.raw - pixels, count, PACKINGS[packing]):
        raise CorruptSample(
            f"layers: {fields.raw} unpacked bytes do not fit {fields.height}x{fields.width} with {count} hits"
        )
    if codec != "float32" and not (math.isfinite(step) and step > (1 if codec == "log" and count else 0)):
        raise CorruptSample(f"layers: step {step} is none of codec {codec}")
    kinds = (codec, PREDICTORS[predictor], PACKINGS[packing])
    return Header(*kinds, layers, fields.height, fields.width, count, fields.bound, step, fields)


def _hit_box(hits: np.ndarray, layers: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """Bounding box of the silhouette and true hits (l,h,w) bool within it: most of an object's image is empty."""
    rows, columns = np.flatnonzero(hits.any(axis=1)), np.flatnonzero(hits.any(axis=0))
    if not rows.size:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), bool)
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = hits[box]
    return box, np.arange(min(layers, int(inside.max())))[:, None, None] < inside[None]


def _fill(z: np.ndarray, hit: np.ndarray, hits: np.ndarray, box: tuple[slice, slice], layers: int) -> np.ndarray:
    """True depths (n,) in hit order -> forward-filled depth (L,H,W) (paper, Eq. 2)."""
    depth = np.zeros((layers, *hits.shape), np.float32)
    inside = depth[:, box[0], box[1]]
    begin = 0
    for l in range(layers):
        if l > 0:
            inside[l] = inside[l - 1]
        if l < hit.shape[0]:
            end = begin + int(np.count_nonzero(hit[l]))
            inside[l][hit[l]] = z[begin:end]
            begin = end
    return depth


def _is_filled(depth: np.ndarray, box: tuple[slice, slice], hit: np.ndarray) -> bool:
    """Whether depth (L,H,W) is 0 outside the box and, within it, wherever it is no hit what the layer before is."""
    rows, columns = box
    beside = (
        depth[:, : rows.start],
        depth[:, rows.stop :],
        depth[:, rows, : columns.start],
        depth[:, rows, columns.stop :],
    )
    if any(strip.any() for strip in beside):
        return False
    before = np.zeros(hit.shape[1:], np.float32)
    for l, layer in enumerate(depth[:, rows, columns]):
        differs = layer != before
        if l < len(hit):
            differs &= ~hit[l]
        if differs.any():
            return False
        before = layer
    return True
