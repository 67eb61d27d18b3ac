"""Which row has a key: sorted 64-bit hashes of all keys, 12 bytes a row, and no Python object per key."""

import numpy as np
import pyarrow as pa

_WORD = 8  # bytes of a key that are hashed at a time


class KeyIndex:
    """Of the keys of a manifest, in its order. 17 million of them take 204 MB; a dictionary would take 2 GB."""

    def __init__(self, keys: pa.ChunkedArray) -> None:
        self.keys = keys
        hashes = np.concatenate([np.zeros(0, np.uint64), *(_hashes(chunk) for chunk in keys.chunks)])
        self.order = np.argsort(hashes, kind="stable").astype(np.int32 if len(hashes) < 2**31 else np.int64)
        self.sorted = hashes[self.order]

    def find(self, key: str) -> int | None:
        """The row of `key`, the first one where several have it; None where none has."""
        wanted = _hashes(pa.array([key], pa.string()))[0]
        first = int(np.searchsorted(self.sorted, wanted, "left"))
        last = int(np.searchsorted(self.sorted, wanted, "right"))
        for row in self.order[first:last]:  # more than one only where two keys share a hash
            if self.keys[int(row)].as_py() == key:
                return int(row)
        return None


def _hashes(keys: pa.Array) -> np.ndarray:
    """(n,) uint64 of n strings: their bytes are taken eight at a time, and stirred by the finaliser of SplitMix64."""
    _, offsets, text = keys.buffers()
    ends = np.frombuffer(offsets, np.int32)[keys.offset : keys.offset + len(keys) + 1].astype(np.int64)
    if not len(keys):
        return np.zeros(0, np.uint64)
    content = np.frombuffer(text, np.uint8)[ends[0] : ends[-1]] if text is not None else np.zeros(0, np.uint8)
    padded = np.concatenate([content, np.zeros(_WORD, np.uint8)])
    words = np.lib.stride_tricks.as_strided(padded.view(np.uint8), (len(content) + 1, _WORD), (1, 1))
    begin, size = ends[:-1] - ends[0], np.diff(ends)
    hashes = size.astype(np.uint64)
    for place in range(0, int(size.max()), _WORD):
        left = size - place
        inside = np.flatnonzero(left > 0)
        word = words[begin[inside] + place].view("<u8").ravel()
        unused = (8 * np.clip(_WORD - left[inside], 0, _WORD)).astype(np.uint64)
        hashes[inside] = _stirred(hashes[inside] ^ (word << unused))
    return hashes


def _stirred(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
