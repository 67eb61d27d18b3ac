"""Which sample comes when: a pure function of (seed, manifest hash, global index), no state but one integer.

Epoch e visits every row once. `Order` does so in a keyed permutation of all rows. `Windows` is for data that come over
a network through a cache smaller than they are: it permutes the shards, cuts them into windows of W, and permutes the
samples of each window. Any index is answered alone; so ranks, workers and resumed runs agree without talking to each
other. docs/order.md says how good these shuffles are, measured.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

ROUNDS = 8  # 4 suffice for a pseudorandom permutation with ideal rounds (Luby and Rackoff); 8 leave a margin
_LARGEST = 1 << 40
_FEW = 64  # positions from which arrays are faster than integers of Python
_BITS64 = (1 << 64) - 1
_AHEAD = 512  # places at a time whose shards `Order` names in advance


class Order:
    """The order of `n` samples. `order[g]` is the row at global position g, for any g >= 0; g // n is the epoch.

    `among` (n,): these are the rows, instead of 0 to n - 1.
    """

    def __init__(self, n: int, seed: int, manifest_hash: str, among: np.ndarray | None = None) -> None:
        if not 0 < n <= _LARGEST:
            raise ValueError(f"an order needs 1 to {_LARGEST} samples, not {n}: is the split empty?")
        self.n, self.seed, self.manifest_hash, self.among = int(n), int(seed), manifest_hash, among

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
        for e in {*epoch.tolist()}:
            rows[epoch == e] = self.permute(position[epoch == e], e)
        return (rows if self.among is None else self.among[rows]).reshape(g.shape)

    def batch(self, step: int, size: int) -> np.ndarray:
        """Rows (size,) int64 of optimisation step `step` (from 0) with a global batch of `size` samples."""
        if step < 0 or size < 1:
            raise ValueError(f"step {step} of batches of {size}: steps count from 0, batches hold at least 1")
        return self.rows(np.arange(step * size, (step + 1) * size))

    def permute(self, position: np.ndarray, epoch: int) -> np.ndarray:
        """Positions (m,) in 0..n-1 -> rows (m,): the bijection of one epoch."""
        return permuted(position, self.n, f"order {self.seed} {self.manifest_hash} {self.n} {epoch}")

    def substitute(self, g: int, attempt: int) -> int:
        """The row of the sample that stands in for that at position g, if those of the attempts 0 (it itself) to
        `attempt` - 1 cannot be used: the next in order.
        """
        return int(self.rows(np.array([g + attempt]))[0])

    def epoch(self, g: int) -> tuple[int, int]:
        """(number of the epoch of position g, first position of the next)."""
        e = g // self.n
        return e, (e + 1) * self.n

    def stretch(self, g: int) -> tuple[int, int]:
        """The positions [begin, end) about g whose shards a reader should have at hand together."""
        begin = g // _AHEAD * _AHEAD
        return begin, begin + _AHEAD


class Windows(Order):
    """The order of samples by windows of `window` shards; `counts` (S,) are the rows of each shard, in manifest order.

    In each epoch the shards are permuted and cut into ceil(S / window) windows, as equal in shards as can be; the rows
    of a window are permuted among themselves. So a reader needs the shards of one window at a time.
    """

    def __init__(
        self,
        counts: Sequence[int] | np.ndarray,
        window: int,
        seed: int,
        manifest_hash: str,
        among: np.ndarray | None = None,
    ) -> None:
        self.counts = np.asarray(counts, np.int64)
        if window < 1 or (self.counts < 1).any():
            raise ValueError(f"a window of {window} shards: it needs at least one, and every shard at least one row")
        super().__init__(int(self.counts.sum()), seed, manifest_hash, among)
        self.window = int(window)
        self.first = np.concatenate([[0], np.cumsum(self.counts)])  # (S+1,) first row of each shard
        self.number = -(-len(self.counts) // self.window)  # windows in an epoch
        self._table = lru_cache(maxsize=2)(self._shards_of_epoch)  # an epoch and the next

    def permute(self, position: np.ndarray, epoch: int) -> np.ndarray:
        shards, begins, cuts = self._table(epoch)
        rows = np.empty_like(position)
        window = np.searchsorted(begins[cuts], position, side="right") - 1
        for w in {*window.tolist()}:
            here, begin, end = window == w, begins[cuts[w]], begins[cuts[w + 1]]
            name = f"window {self.seed} {self.manifest_hash} {epoch} {w}"
            at = begin + permuted(position[here] - begin, int(end - begin), name)
            place = np.searchsorted(begins, at, side="right") - 1
            rows[here] = self.first[shards[place]] + at - begins[place]
        return rows

    def substitute(self, g: int, attempt: int) -> int:
        """A sample of another window, as a shard that is lost is lost to its own; of another shard where there is one
        window alone. Each attempt takes another one, as far as there are so many.
        """
        row = super().substitute(g, 0)
        return self.beside(row, g // self.n, attempt) if attempt else row

    def beside(self, row: int, epoch: int, attempt: int) -> int:
        """`substitute`, from attempt 1 on, of a row in an epoch."""
        local = row if self.among is None else int(np.searchsorted(self.among, row))
        shards, begins, cuts = self._table(epoch)
        parts = cuts if self.number > 1 else np.arange(len(shards) + 1)
        others = max(1, len(parts) - 2)
        shard = int(np.searchsorted(self.first, local, side="right")) - 1
        own = int(np.searchsorted(parts, np.flatnonzero(shards == shard)[0], side="right")) - 1
        part = (own + 1 + (attempt - 1) % others) % (len(parts) - 1)
        begin, end = int(begins[parts[part]]), int(begins[parts[part + 1]])
        at = begin + (local + attempt) % (end - begin)  # another one for each row of a shard
        if self.number > 1:
            return super().substitute(epoch * self.n + at, 0)
        found = int(self.first[shards[part]]) + at - begin
        return found if self.among is None else int(self.among[found])

    def stretch(self, g: int) -> tuple[int, int]:
        epoch, position = divmod(g, self.n)
        _, begins, cuts = self._table(epoch)
        w = int(np.searchsorted(begins[cuts], position, side="right")) - 1
        return epoch * self.n + int(begins[cuts[w]]), epoch * self.n + int(begins[cuts[w + 1]])

    def shards_of(self, epoch: int, window: int) -> np.ndarray:
        """Numbers of the shards in one window."""
        shards, _, cuts = self._table(epoch)
        return shards[cuts[window] : cuts[window + 1]]

    def _shards_of_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shards (S,) in the order of an epoch, position (S+1,) where each begins, and the cuts (windows + 1,)."""
        size = len(self.counts)
        shards = permuted(np.arange(size), size, f"shards {self.seed} {self.manifest_hash} {size} {epoch}")
        begins = np.concatenate([[0], np.cumsum(self.counts[shards])])
        return shards, begins, np.arange(self.number + 1) * size // self.number

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_table"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._table = lru_cache(maxsize=2)(self._shards_of_epoch)


def permuted(position: np.ndarray, n: int, name: str) -> np.ndarray:
    """Positions (m,) in 0..n-1 -> (m,) int64, by the bijection of 0..n-1 that `name` keys.

    A Feistel network over the smallest even number of bits that holds n, applied again where it lands outside (cycle
    walking): constant time and memory for each position.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    keys = np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8 * ROUNDS).digest(), "<u8")
    if position.size <= _FEW:
        return np.array([_permuted_one(x, n, keys.tolist(), half) for x in position.tolist()], np.int64)
    out = _feistel(position.astype(np.uint64), keys, half)
    outside = np.flatnonzero(out >= n)
    while outside.size:  # ends: every cycle of the wider permutation returns to where it started, inside
        out[outside] = _feistel(out[outside], keys, half)
        outside = outside[out[outside] >= n]
    return out.astype(np.int64)


def _permuted_one(x: int, n: int, keys: list[int], half: int) -> int:
    """`permuted` of one position, in Python's integers: 8 times as fast as arrays of one."""
    mask = (1 << half) - 1
    while True:
        left, right = x >> half, x & mask
        for key in keys:
            mixed = right ^ key
            mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _BITS64
            mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _BITS64
            left, right = right, left ^ ((mixed ^ (mixed >> 31)) & mask)
        x = (left << half) | right
        if x < n:
            return x


def _feistel(x: np.ndarray, keys: np.ndarray, half_bits: int) -> np.ndarray:
    half, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = x >> half, x & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """64-bit finaliser of SplitMix64: every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
