"""What `layers.zst` and the optional planes have in common: a header of 72 bytes, then one zstd frame.

A reader learns every size from the header, before it allocates anything; both parts carry a CRC-32.
"""

import math
import struct
import zlib
from dataclasses import dataclass

import zstandard

from ..errors import CorruptSample

MAX_ELEMENTS = 1 << 26  # L*H*W of one image: 256 MB of float32, so that a damaged header cannot ask for more
MAX_SIDE = 16383  # of an image: the most of WebP. A column of 2^25 pixels would be as many sums, one after the other
LEVEL = 9  # of zstd: 1 to 3 % fewer bytes than level 6, for a twelfth of the time of encoding

# magic, version, kind, layout, L, H, W, hits, bound, step, raw bytes, compressed bytes, crc of frame, crc of header
HEADER = struct.Struct("<8sHBBIIIQddQQII")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class Fields:
    """A header as it stands: `kind` and `layout` mean what `magic` says (docs/format.md)."""

    magic: bytes
    version: int
    kind: int
    layout: int
    layers: int
    height: int
    width: int
    count: int
    bound: float
    step: float
    raw: int
    compressed: int
    frame_crc: int


def compressed(payload: bytes) -> bytes:
    """One zstd frame that states its size."""
    return zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(payload)


def packed(
    magic: bytes,
    version: int,
    kind: int,
    layout: int,
    shape: tuple[int, int, int],
    count: int,
    bound: float,
    step: float,
    raw: int,
    frame: bytes,
) -> bytes:
    """Header and `frame`, which unpacks to `raw` bytes. `shape` is (L, H, W)."""
    fields = (magic, version, kind, layout, *shape, count, bound, step, raw, len(frame))
    head = HEADER.pack(*fields, zlib.crc32(frame), 0)[: -_CRC.size]
    return head + _CRC.pack(zlib.crc32(head)) + frame


def read_fields(data: bytes, magic: bytes, what: str) -> Fields:
    """The header, whose checksum and limits are right. CorruptSample, which begins with `what`, where they are not."""
    if len(data) < HEADER.size:
        raise CorruptSample(f"{what}: {len(data)} bytes are fewer than a header")
    *values, crc = HEADER.unpack_from(data)
    fields = Fields(*values)
    if fields.magic != magic or crc != zlib.crc32(data[: HEADER.size - _CRC.size]):
        raise CorruptSample(f"{what}: the header is damaged")
    layers, height, width, count = fields.layers, fields.height, fields.width, fields.count
    if not fits_limits(layers, height, width) or count > layers * height * width:
        raise CorruptSample(f"{what}: {layers} layers of {height}x{width} with {count} hits are outside the limits")
    if not (math.isfinite(fields.bound) and fields.bound >= 0):
        raise CorruptSample(f"{what}: the bound {fields.bound} is no bound of an error")
    return fields


def fits_limits(layers: int, height: int, width: int) -> bool:
    """Whether an image may have so many. Decoding takes up to 30 bytes for each of its values, up to 60 where most hits
    have no hit to their left.
    """
    sides = 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE
    return 1 <= layers <= 255 and sides and layers * height * width <= MAX_ELEMENTS


def unpacked(data: bytes, fields: Fields, what: str) -> bytes:
    """The payload of `fields.raw` bytes, a number which the caller has found to be possible."""
    frame = memoryview(data)[HEADER.size :]
    if len(frame) != fields.compressed or zlib.crc32(frame) != fields.frame_crc:
        raise CorruptSample(
            f"{what}: the {len(frame)} bytes after the header are not the {fields.compressed} that were written"
        )
    try:
        if zstandard.frame_content_size(frame) != fields.raw:
            raise CorruptSample(f"{what}: the zstd frame declares another size than the header")
        payload = zstandard.ZstdDecompressor().decompress(frame, max_output_size=fields.raw, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptSample(f"{what}: {error}") from None
    if len(payload) != fields.raw:
        raise CorruptSample(f"{what}: {len(payload)} bytes unpacked where the header says {fields.raw}")
    return bytes(payload)
