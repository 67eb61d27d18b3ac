"""Residuals as bytes that zstd makes little of: half a byte where they are small, words where they are not.

Most residuals of a smooth surface are below 15: two of them share a byte, whose repetitions zstd finds in a fourth of
the bytes that words would take. Of noise most are not: then all are kept as words, the lowest bytes of all first, then
the second ones, and so on.
"""

from typing import Literal, get_args

import numpy as np

Packing = Literal["words", "nibbles"]
PACKINGS: tuple[Packing, ...] = get_args(Packing)  # in the order of their numbers in the header
ESCAPE = 15


def pack(words: np.ndarray, packing: Packing) -> bytes:
    """(n,) uint32 -> bytes."""
    if packing == "words":
        return _planes(words)
    n = words.size
    nibbles = np.zeros(n + n % 2, np.uint8)
    np.minimum(words, np.uint32(ESCAPE), out=nibbles[:n], casting="unsafe")
    pairs = nibbles[0::2] << 4
    pairs |= nibbles[1::2]
    return pairs.tobytes() + _planes(words[words >= ESCAPE] - np.uint32(ESCAPE))


def unpack(data: memoryview, count: int, packing: Packing) -> np.ndarray:
    """The inverse: `count` words, (count,) uint32. ValueError where `data` does not hold so many."""
    if packing == "words":
        return _words(np.frombuffer(data, np.uint8), count)
    pairs = np.frombuffer(data, np.uint8, (count + 1) // 2)
    nibbles = np.empty((pairs.size, 2), np.uint8)
    np.right_shift(pairs, 4, out=nibbles[:, 0])
    np.bitwise_and(pairs, 15, out=nibbles[:, 1])
    small = nibbles.reshape(-1)
    if count % 2 and small[-1]:
        raise ValueError("the residuals end in a half byte that is not 0")
    small = small[:count]
    words = small.astype(np.uint32)
    escaped = np.flatnonzero(small == ESCAPE)
    words[escaped] += _words(np.frombuffer(data, np.uint8)[pairs.size :], escaped.size)
    return words


def fits(size: int, count: int, packing: Packing) -> bool:
    """Whether `count` words can be packed into `size` bytes."""
    least = 4 * count if packing == "words" else (count + 1) // 2
    return least <= size <= (least if packing == "words" else least + 4 * count)


def packing_of(words: np.ndarray) -> Packing:
    """That which suits them: words where more than half would escape."""
    return "words" if 2 * np.count_nonzero(words >= ESCAPE) > words.size else "nibbles"


def _planes(words: np.ndarray) -> bytes:
    return words.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4).T.tobytes()


def _words(planes: np.ndarray, count: int) -> np.ndarray:
    if planes.size != 4 * count:
        raise ValueError(f"{planes.size} bytes of residuals are not those of {count}")
    return np.ascontiguousarray(planes.reshape(4, count).T).view("<u4").reshape(-1).astype(np.uint32, copy=False)
