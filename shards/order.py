"""Which sample comes when: a pure function of (seed, manifest hash, global index), no state but one integer.

Epoch e visits every row once, in the order of a keyed permutation of 0..n-1: a Feistel network over the smallest even
number of bits that holds n, applied again where it lands outside (cycle walking). Any index is answered alone, in
constant time and memory; so ranks, workers and resumed runs agree without talking to each other.
"""

import hashlib

import numpy as np

ROUNDS = 8  # 4 suffice for a pseudorandom permutation with ideal rounds (Luby and Rackoff); 8 leave a margin
_LARGEST = 1 << 40


class Order:
    """The order of `n` samples. `order[g]` is the row at global position g, for any g >= 0; g // n is the epoch."""

    def __init__(self, n: int, seed: int, manifest_hash: str) -> None:
        if not 0 < n <= _LARGEST:
            raise ValueError(f"an order needs 1 to {_LARGEST} samples, not {n}: is the split empty?")
        self.n, self.seed, self.manifest_hash = int(n), int(seed), manifest_hash
        self._half = max(1, ((self.n - 1).bit_length() + 1) // 2)

    def __getitem__(self, g: int | np.ndarray) -> int | np.ndarray:
        """Row(s) at global position(s) g: int -> int, integer array (any shape) -> int64 array of that shape."""
        if isinstance(g, int | np.integer):
            return int(self.rows(np.array([int(g)]))[0])
        return self.rows(g)

    def rows(self, g: np.ndarray) -> np.ndarray:
        """Global positions (any shape, integers >= 0) -> rows, int64 of the same shape."""
        g = np.asarray(g)
        if g.size and (g.dtype.kind not in "iu" or int(g.min()) < 0):
            raise ValueError("global positions are integers from 0 on")
        epoch, position = np.divmod(g.astype(np.int64).ravel(), self.n)
        rows = np.empty_like(position)
        for e in np.unique(epoch):
            rows[epoch == e] = self.permute(position[epoch == e], int(e))
        return rows.reshape(g.shape)

    def batch(self, step: int, size: int) -> np.ndarray:
        """Rows (size,) int64 of optimisation step `step` (from 0) with a global batch of `size` samples."""
        if step < 0 or size < 1:
            raise ValueError(f"step {step} of batches of {size}: steps count from 0, batches hold at least 1")
        return self.rows(np.arange(step * size, (step + 1) * size))

    def permute(self, position: np.ndarray, epoch: int) -> np.ndarray:
        """Positions (m,) in 0..n-1 -> rows (m,): the bijection of one epoch."""
        keys = self._round_keys(epoch)
        out = self._feistel(position.astype(np.uint64), keys)
        outside = np.flatnonzero(out >= self.n)
        while outside.size:  # ends: every cycle of the wider permutation returns to where it started, inside
            out[outside] = self._feistel(out[outside], keys)
            outside = outside[out[outside] >= self.n]
        return out.astype(np.int64)

    def _round_keys(self, epoch: int) -> np.ndarray:
        name = f"order {self.seed} {self.manifest_hash} {self.n} {epoch}".encode()
        return np.frombuffer(hashlib.blake2b(name, digest_size=8 * ROUNDS).digest(), "<u8")

    def _feistel(self, x: np.ndarray, keys: np.ndarray) -> np.ndarray:
        half, mask = np.uint64(self._half), np.uint64((1 << self._half) - 1)
        left, right = x >> half, x & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        return (left << half) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """64-bit finaliser of SplitMix64: every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
