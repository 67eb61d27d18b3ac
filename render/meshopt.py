"""EXT_meshopt_compression: buffer views of vertices, triangles and indices, decoded as the extension's appendices say.

Strict: a stream must be used up to its last byte, so that damage is noticed and never read as geometry. Sizes are
checked against the length of the stream before anything is allocated.
"""

from collections.abc import Iterator

import numpy as np

from render.mesh import Rejected

NAME = "EXT_meshopt_compression"
_GROUP = 16
_UNPACKED_2 = [bytes((b >> shift) & 3 for shift in (6, 4, 2, 0)) for b in range(256)]
_UNPACKED_4 = [bytes((b >> 4, b & 15)) for b in range(256)]


def decode(data: bytes, count: int, stride: int, mode: str, filtered: str) -> bytes:
    """The count * stride bytes of a view. Raises Rejected("corrupt")."""
    if mode == "ATTRIBUTES":
        if stride % 4 or not 4 <= stride <= 256:
            raise _corrupt(f"elements of {stride} bytes")
        return _filtered(_attributes(data, count, stride), filtered)
    if mode not in ("TRIANGLES", "INDICES") or stride not in (2, 4) or filtered != "NONE":
        raise _corrupt(f"mode {mode[:20]!r} with elements of {stride} bytes and filter {filtered[:20]!r}")
    found = _triangles(data, count) if mode == "TRIANGLES" else _indices(data, count)
    if len(found) and not (int(found.min()) >= 0 and int(found.max()) < 1 << 8 * stride):
        raise _corrupt("an index that no vertex could have")
    return found.astype(f"<u{stride}").tobytes()


def _attributes(data: bytes, count: int, stride: int) -> np.ndarray:
    """(count,stride) uint8. Every byte of an element is a delta to the one before, 16 elements to a group."""
    tail = max(stride, 32)
    groups = -(-count // _GROUP)
    if len(data) < 1 + groups // 4 * stride + tail or data[0] != 0xA0:
        raise _corrupt("a stream of vertices that does not begin as one, or is too short")
    block = min((8192 // stride) & ~15, 256)
    end, at, length = len(data) - tail, 1, groups * _GROUP
    planes = [bytearray(length) for _ in range(stride)]
    for start in range(0, count, block):
        in_block = -(-min(block, count - start) // _GROUP)
        for plane in planes:
            header = at
            at += -(-in_block // 4)
            for group in range(in_block):
                if at > end:
                    raise _corrupt("a stream of vertices that ends too soon")
                bits = (data[header + group // 4] >> 2 * (group % 4)) & 3
                if bits:
                    deltas, at = _group(data, at, bits)
                    place = start + group * _GROUP
                    plane[place : place + _GROUP] = deltas
    if at != end:
        raise _corrupt(f"a stream of vertices with {end - at} bytes too many")
    baseline = np.frombuffer(data, np.uint8, stride, len(data) - stride)
    out = np.empty((count, stride), np.uint8)
    for k, plane in enumerate(planes):
        coded = np.frombuffer(plane, np.uint8, count)
        change = (coded >> 1) ^ (0 - (coded & 1)).astype(np.uint8)
        out[:, k] = np.cumsum(change, dtype=np.uint8) + baseline[k]
    return out


def _group(data: bytes, at: int, bits: int) -> tuple[bytes, int]:
    """16 deltas and where the next group begins; a slice beyond the end is short, which the caller notices by `at`."""
    if bits == 3:
        return data[at : at + _GROUP].ljust(_GROUP, b"\0"), at + _GROUP
    size, table, sentinel = (4, _UNPACKED_2, 3) if bits == 1 else (8, _UNPACKED_4, 15)
    packed = b"".join([table[byte] for byte in data[at : at + size]]).ljust(_GROUP, b"\0")
    at += size
    place = packed.find(sentinel)
    if place < 0:
        return packed, at
    out = bytearray(packed)
    while place >= 0:
        if at >= len(data):
            raise _corrupt("a stream of vertices that ends too soon")
        out[place] = data[at]
        at += 1
        place = packed.find(sentinel, place + 1)
    return bytes(out), at


class _Numbers:
    """Bytes and variable-length integers from `at` to `end`."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def byte(self) -> int:
        if self.at >= self.end:
            raise _corrupt("a stream of indices that ends too soon")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 28:
                return value & 0xFFFFFFFF


def _triangles(data: bytes, count: int) -> np.ndarray:
    """(count,) int64, three to a triangle; -1 stands for an edge or a vertex that was never there."""
    if count % 3 or len(data) < 1 + count // 3 + 16 or data[0] != 0xE1:
        raise _corrupt("a stream of triangles that does not begin as one, or is too short")
    codes, aux = data[1 : 1 + count // 3], data[-16:]
    if aux[14:] != b"\0\0" or any(byte & 15 == 15 or byte >> 4 == 15 for byte in aux):
        raise _corrupt("a stream of triangles without its table")
    more = _Numbers(data, 1 + count // 3, len(data) - 16)
    out = np.fromiter((index for triangle in _decoded(codes, aux, more) for index in triangle), np.int64, count)
    if more.at != more.end:
        raise _corrupt(f"a stream of triangles with {more.end - more.at} bytes too many")
    return out


def _decoded(codes: bytes, aux: bytes, more: _Numbers) -> Iterator[tuple[int, int, int]]:
    edges, vertices = [(-1, -1)] * 16, [-1] * 16  # the most recent one is first
    following = last = 0
    for code in codes:
        high, low = code >> 4, code & 15
        if high < 15:
            a, b = edges[high]
            if low == 0:
                c, following = following, following + 1
            elif low < 13:
                c = vertices[low]
            elif low < 15:
                c = last = (last + (1 if low == 14 else -1)) & 0xFFFFFFFF
            else:
                c = last = (last + _signed(more.varint())) & 0xFFFFFFFF
            edges = [(a, c), (c, b), *edges[:14]]
            if not 0 < low < 13:
                vertices = [c, *vertices[:15]]
        else:
            explicit = low >= 14
            pair = more.byte() if explicit else aux[low]
            z, w = pair >> 4, pair & 15
            if explicit and pair == 0:
                following = 0
            if low == 15:
                a = last = (last + _signed(more.varint())) & 0xFFFFFFFF
            else:
                a, following = following, following + 1
            if z == 0:
                b, following = following, following + 1
            elif z < 15:
                b = vertices[z - 1]
            else:
                b = last = (last + _signed(more.varint())) & 0xFFFFFFFF
            if w == 0:
                c, following = following, following + 1
            elif w < 15:
                c = vertices[w - 1]
            else:
                c = last = (last + _signed(more.varint())) & 0xFFFFFFFF
            edges = [(a, c), (c, b), (b, a), *edges[:13]]
            fresh = [a, *([b] if z in (0, 15) else []), *([c] if w in (0, 15) else [])]
            vertices = [*reversed(fresh), *vertices][:16]
        yield a, b, c


def _indices(data: bytes, count: int) -> np.ndarray:
    """(count,) int64, each a delta to the latest one of two sequences."""
    if len(data) < 1 + count + 4 or data[0] != 0xD1 or any(data[-4:]):
        raise _corrupt("a stream of indices that does not begin as one, or is too short")
    more, last = _Numbers(data, 1, len(data) - 4), [0, 0]
    out = np.empty(count, np.int64)
    for i in range(count):
        value = more.varint()
        sequence = value & 1
        last[sequence] = (last[sequence] + _signed(value >> 1)) & 0xFFFFFFFF
        out[i] = last[sequence]
    if more.at != more.end:
        raise _corrupt(f"a stream of indices with {more.end - more.at} bytes too many")
    return out


def _signed(value: int) -> int:
    return ~(value >> 1) if value & 1 else value >> 1


def _filtered(elements: np.ndarray, name: str) -> bytes:
    """Appendix B: what the deltas add up to, as the numbers that the accessors mean."""
    stride = elements.shape[1]
    if name == "NONE":
        return elements.tobytes()
    if name == "EXPONENTIAL":
        words = elements.view("<i4")
        return np.ldexp((words << 8 >> 8).astype(np.float32), words >> 24).astype("<f4").tobytes()
    if name == "OCTAHEDRAL" and stride in (4, 8):
        given = elements.view("<i1" if stride == 4 else "<i2")
        out = given.copy()
        x, y = (given[:, :2] / np.maximum(given[:, 2:3], 1).astype(np.float32)).T
        z = 1 - np.abs(x) - np.abs(y)
        under = np.minimum(z, 0)
        vector = np.stack([x - np.copysign(under, x), y - np.copysign(under, y), z], axis=1)
        vector /= np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-9)
        out[:, :3] = np.rint(vector * np.iinfo(given.dtype).max)
        return out.tobytes()
    if name == "QUATERNION" and stride == 8:
        given = elements.view("<i2")
        three = given[:, :3] / ((given[:, 3:] | 3) * np.float32(np.sqrt(2)))
        four = np.concatenate([np.sqrt(np.maximum(1 - (three**2).sum(axis=1, keepdims=True), 0)), three], axis=1)
        place = ((given[:, 3:] & 3) + np.arange(4)) % 4  # the largest, which was left out, and those after it
        out = np.empty_like(given)
        np.put_along_axis(out, place.astype(np.int64), np.rint(np.clip(four, -1, 1) * 32767).astype("<i2"), axis=1)
        return out.tobytes()
    raise _corrupt(f"filter {name[:20]!r} with elements of {stride} bytes")


def _corrupt(what: str) -> Rejected:
    return Rejected("corrupt", f"{NAME}: {what}")
