"""The bytes of `layers.zst`: `hits` and the depth of every true hit, self-describing, bounded and checked.

A header of 72 bytes (docs/format.md), then one zstd frame. Forward filling is redone at decode, so only true hits are
stored. A reader learns every size from the header, before it allocates anything.
"""

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import zstandard

from .errors import CorruptSample
from .inverse_depth import LARGEST_Q, dequantise, quantise, reconstruct, residuals, structure

MAGIC = b"WTLAYERS"
VERSION = 1
Codec = Literal["inverse", "float32"]
CODECS: tuple[Codec, ...] = get_args(Codec)
DEFAULT_BOUND = 5e-5  # of relative depth error; a point at the mean object depth of 1.9 moves by 1e-4
MAX_ELEMENTS = 1 << 26  # L*H*W of one image: 256 MB of float32, so that a damaged header cannot ask for more
LEVEL = 9

# magic, version, codec, reserved, L, H, W, hits, bound, step, raw bytes, compressed bytes, crc of frame, crc of header
_HEADER = struct.Struct("<8sHBBIIIQddQQII")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class Header:
    codec: Codec
    layers: int
    height: int
    width: int
    count: int
    bound: float
    step: float
    raw: int
    compressed: int
    frame_crc: int


def encode_layers(hits: np.ndarray, depth: np.ndarray, codec: Codec = "inverse", bound: float = DEFAULT_BOUND) -> bytes:
    """hits (H,W) uint8, depth (L,H,W) float32 forward-filled -> bytes.

    `inverse` keeps |z' - z| <= bound * z for every hit and never changes the order of the layers; where it cannot (1/z
    over more than 29 bits) `float32`, which is lossless, is written instead. ValueError: depth that is not finite
    and positive at a true hit, or not forward-filled elsewhere.
    """
    layers, height, width = depth.shape
    if layers * height * width > MAX_ELEMENTS:
        raise ValueError(
            f"{layers} layers of {height}x{width} are more than the {MAX_ELEMENTS} values a sample may have"
        )
    if layers > 255 or hits.shape != (height, width) or hits.dtype != np.uint8 or depth.dtype != np.float32:
        raise ValueError(f"hits {hits.shape} {hits.dtype} and depth {depth.shape} {depth.dtype} do not belong together")
    if hits.size and int(hits.max()) > layers:
        raise ValueError(f"hits counts up to {int(hits.max())} surfaces, but there are {layers} layers")
    if codec not in CODECS or not 1e-6 <= bound <= 1e-2:
        raise ValueError(
            f"codec {codec!r} with bound {bound}: choose {' or '.join(CODECS)} and a bound from 1e-6 to 1e-2"
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

    step = 0.0
    quantised = quantise(z, bound) if codec == "inverse" else None
    if quantised is None or _relative_error(dequantise(*quantised), z) > bound:
        codec, bound, words = "float32", 0.0, z.view(np.uint32)
    else:
        q, step = quantised
        words = residuals(q, structure(hit))
    # byte planes: the upper bytes are nearly constant and cost nothing
    payload = np.empty(hits.size + 4 * z.size, np.uint8)
    payload[: hits.size] = hits.reshape(-1)
    payload[hits.size :].reshape(4, -1)[:] = words.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4).T
    frame = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(payload.data)
    fields = (CODECS.index(codec), 0, layers, height, width, z.size, bound, step, payload.size, len(frame))
    head = _HEADER.pack(MAGIC, VERSION, *fields, zlib.crc32(frame), 0)[: -_CRC.size]
    return head + _CRC.pack(zlib.crc32(head)) + frame


def decode_layers(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """-> (hits (H,W) uint8, depth (L,H,W) float32 forward-filled). CorruptSample if anything is not as it must be."""
    header = read_header(data)
    frame = memoryview(data)[_HEADER.size :]
    if len(frame) != header.compressed or zlib.crc32(frame) != header.frame_crc:
        raise CorruptSample(
            f"layers: the {len(frame)} bytes after the header are not the {header.compressed} that were written"
        )
    try:
        if zstandard.frame_content_size(frame) != header.raw:
            raise CorruptSample("layers: the zstd frame declares another size than the header")
        payload = zstandard.ZstdDecompressor().decompress(frame, max_output_size=header.raw, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptSample(f"layers: {error}") from None
    if len(payload) != header.raw:
        raise CorruptSample(f"layers: {len(payload)} bytes unpacked where the header says {header.raw}")
    pixels = header.height * header.width
    hits = np.frombuffer(payload, np.uint8, pixels).reshape(header.height, header.width).copy()
    if int(hits.sum(dtype=np.int64)) != header.count or (pixels and int(hits.max()) > header.layers):
        raise CorruptSample(f"layers: the hits do not sum to the {header.count} of the header, or exceed its layers")

    box, hit = _hit_box(hits, header.layers)
    planes = np.frombuffer(payload, np.uint8, offset=pixels).reshape(4, header.count)
    words = np.ascontiguousarray(planes.T).view("<u4").reshape(-1).astype(np.uint32, copy=False)
    if header.codec == "float32":
        z = words.view(np.float32)
    else:
        q = reconstruct(words, structure(hit))
        if q.size and not (int(q.min()) >= 1 and int(q.max()) < LARGEST_Q):
            raise CorruptSample("layers: a quantised inverse depth is out of range")
        z = dequantise(q, header.step)
    if z.size and not (np.isfinite(z).all() and float(z.min()) > 0):
        raise CorruptSample("layers: a depth is not finite and positive")
    return hits, _fill(z, hit, hits, box, header.layers)


def read_header(data: bytes) -> Header:
    """The validated header, without touching the payload. CorruptSample if it is damaged or of a later version."""
    if len(data) < _HEADER.size:
        raise CorruptSample(f"layers: {len(data)} bytes are fewer than a header")
    magic, version, codec, reserved, *fields, frame_crc, crc = _HEADER.unpack_from(data)
    if magic != MAGIC or crc != zlib.crc32(data[: _HEADER.size - _CRC.size]):
        raise CorruptSample("layers: the header is damaged")
    if version != VERSION or codec >= len(CODECS) or reserved:
        raise CorruptSample(f"layers: version {version}, codec {codec} is newer than this reader; update worldtrace")
    layers, height, width, count, bound, step, raw, compressed = fields
    elements = layers * height * width
    if not (1 <= layers <= 255 and elements <= MAX_ELEMENTS and count <= elements):
        raise CorruptSample(f"layers: {layers} layers of {height}x{width} with {count} hits are outside the limits")
    if raw != height * width + 4 * count:
        raise CorruptSample(f"layers: {raw} unpacked bytes do not fit {height}x{width} with {count} hits")
    if CODECS[codec] == "inverse" and not (math.isfinite(step) and step > 0):
        raise CorruptSample(f"layers: step {step} is not a positive number")
    return Header(CODECS[codec], layers, height, width, count, bound, step, raw, compressed, frame_crc)


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


def _relative_error(decoded: np.ndarray, z: np.ndarray) -> float:
    if not z.size:
        return 0.0
    exact = z.astype(np.float64)
    error = np.subtract(decoded, exact)
    np.abs(error, out=error)
    error /= exact
    return float(error.max())
