"""The rows of a manifest that a dataset is made of, column by column: each is loaded when it is first asked for."""

import binascii
import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import manifest, seal
from .key_index import KeyIndex
from .layout import MANIFEST
from .loaded import loaded
from .store import Store, under
from .store.local import LocalStore
from .unfinished import missing_manifest

SHA256 = 32  # bytes
FEW = 5  # row groups; a manifest of fewer (each holds 131,072 rows) is read whole
RUN = 4  # row groups that are read at a time of a larger one
THREADS = 8
SEALED = 256 << 20  # bytes of a manifest whose every bit is looked at before training
SORTED = 1 << 20  # rows that are sorted by key at the first key that is asked for
SCANS = 64  # keys that are looked for from end to end among more rows
_CAPITAL = np.uint64(0x2020202020202020)  # set in (c >> 1) & ~c for A to F, and for no digit and no a to f
LOOKUPS = 32  # row groups that are read for rows alone, before all of them are


class Rows:
    """`mask` says which rows of the file, None all of them. A table that is at hand is taken in place of the file.

    What is loaded stays, in arrays that forked processes share: 17 million rows need 1.9 GB for all that training
    asks for, and hold no open file.
    """

    def __init__(self, store: Store, mask: np.ndarray | None = None, table: pa.Table | None = None) -> None:
        self.store, self.mask, self.given = store, mask, table
        self._recent: dict[int, pa.Table] = {}  # row groups in which rows were looked up
        self._lookups = self._scans = 0
        self._total: int | None = None if mask is None else len(mask)  # rows of the file

    def __len__(self) -> int:
        return len(self.bytes)

    def table(self, columns: Collection[str] | None = None, dictionary: Collection[str] = ()) -> pa.Table:
        """These columns, in the order of the manifest's; None: all of them. Nothing of it is kept here."""
        whole = self.given if self.given is not None else self._read(columns, dictionary)
        if self.given is not None and columns is not None:
            whole = whole.select([name for name in whole.column_names if name in columns])
        return whole if self.mask is None else whole.filter(pa.array(self.mask))

    def narrowed(self, chosen: np.ndarray) -> "Rows":
        """Those of these rows for which `chosen`, (n,) bool, is true."""
        if self.mask is None:
            return Rows(self.store, chosen, self.given)
        mask = self.mask.copy()
        mask[mask] = chosen
        return Rows(self.store, mask, self.given)

    def load(self, version: int) -> None:
        """All that reading samples needs, from a manifest of this version that is what was written (shards/seal.py).
        ValueError where it is not. One of more than SEALED bytes is believed its checksums of pages.
        """
        if self.given is None and self.store.size(MANIFEST) <= SEALED:
            with self.store.reading(MANIFEST) as file:
                if not seal.holds(file, version):
                    raise ValueError(
                        f"{under(self.store, MANIFEST)} is damaged (it is not what its seal says): rebuild it with "
                        "`worldtrace shards verify DIR --repair`"
                    )
        _ = self.key, self.digest, self.offset, self.bytes, self.shard_of, self.shard_bytes

    def sample(self, row: int) -> tuple[str, bytes]:
        """Key and sha256 of a row. The first rows of a large manifest are looked up by themselves, so that one sample
        does not wait for what millions need.
        """
        if not self._is_loaded:
            if (found := self._looked_up(row)) is not None:
                return found
            _ = self.key, self.digest
        return str(self.key[row].as_py()), self.digest[row].tobytes()

    @property
    def _is_loaded(self) -> bool:
        return "key" in self.__dict__ and "digest" in self.__dict__

    def _looked_up(self, row: int) -> tuple[str, bytes] | None:
        """From its row group alone; None where loading all of them is the better way."""
        if len(self._groups) < FEW or self._lookups >= LOOKUPS:
            return None
        counts = self._counts
        group = int(np.searchsorted(counts, row, "right"))
        if (table := self._recent.get(group)) is None:
            self._lookups += 1
            table = self._masked(self._read(["key", "sha256"], (), [group]), group, group + 1)
            self._recent = dict(list(self._recent.items())[-3:]) | {group: table}  # threads may look at the old one
        row -= int(counts[group - 1]) if group else 0
        sha256 = table["sha256"].slice(row, 1).combine_chunks()
        return str(table["key"][row].as_py()), self._digests(sha256)[0].tobytes()

    @loaded
    def key(self) -> pa.ChunkedArray:
        return pa.chunked_array([c for part in self._parts(["key"]) for c in part["key"].chunks], pa.string())

    @loaded
    def offset(self) -> np.ndarray:
        """(n,) int64: where a sample begins within its shard."""
        return self._numbers("offset")

    @loaded
    def bytes(self) -> np.ndarray:
        """(n,) int64: the size of a sample within its shard."""
        return self._numbers("bytes")

    @loaded
    def digest(self) -> np.ndarray:
        """(n, 32) uint8: the sha256 of a sample's part of its shard."""
        digests, begin = np.zeros((len(self), SHA256), np.uint8), 0
        for part in self._parts(["sha256"]):
            for chunk in part["sha256"].chunks:
                digests[begin : begin + len(chunk)] = self._digests(chunk)
                begin += len(chunk)
        return digests

    @loaded
    def hash(self) -> str:
        """As `manifest.hash_of` the table, a part at a time."""
        return manifest.hash_of(self._loaded() if self._is_loaded else self._parts(["key", "sha256"]))

    def _loaded(self) -> Iterator[pa.Table]:
        begin = 0
        for chunk in self.key.chunks:
            text = binascii.hexlify(self.digest[begin : begin + len(chunk)].tobytes())
            ends = np.arange(len(chunk) + 1, dtype=np.int32) * (2 * SHA256)
            sha256 = pa.StringArray.from_buffers(len(chunk), pa.py_buffer(ends), pa.py_buffer(text))
            yield pa.table([chunk, sha256], names=["key", "sha256"])
            begin += len(chunk)

    @loaded
    def _shard(self) -> tuple[list[str], np.ndarray]:
        """The names of all shards, sorted, and (n,) int32: which of them a row lies in."""
        column = self.table(["shard"], ["shard"])["shard"]
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        names = sorted({name for chunk in column.chunks for name in chunk.dictionary.to_pylist()})
        number = {name: place for place, name in enumerate(names)}
        codes = [np.zeros(0, np.int32)]
        for chunk in column.chunks:
            places = np.array([number[name] for name in chunk.dictionary.to_pylist()], np.int32)
            codes.append(places[chunk.indices.to_numpy(zero_copy_only=False)])
        of = np.concatenate(codes)
        used = np.unique(of)
        if len(used) == len(names):
            return names, of
        again = np.zeros(len(names), np.int32)
        again[used] = np.arange(len(used), dtype=np.int32)
        return [names[place] for place in used], again[of]

    @property
    def shards(self) -> list[str]:
        """The names of the shards that these rows lie in, sorted."""
        return self._shard[0]

    @property
    def shard_of(self) -> np.ndarray:
        """(n,) int32: the place in `shards` of the shard that a row lies in."""
        return self._shard[1]

    @loaded
    def _facts(self) -> tuple[np.ndarray, list[str]]:
        """Of each of `shards`: its size in bytes, int64, and its sha256 ("" where the manifest does not know it)."""
        table = self.table(["shard_bytes", "shard_sha256"], ["shard_sha256"])
        first = np.zeros(len(self.shards), np.int64)
        first[self.shard_of[::-1]] = np.arange(len(self.shard_of), dtype=np.int64)[::-1]
        column = table["shard_sha256"]
        return table["shard_bytes"].to_numpy()[first], [column[int(row)].as_py() for row in first]

    @property
    def shard_bytes(self) -> np.ndarray:
        return self._facts[0]

    @property
    def shard_sha256(self) -> list[str]:
        return self._facts[1]

    def find(self, key: str) -> int | None:
        """The row of a key; None where there is none. The first few of many rows are looked for from end to end, which
        takes less than to sort them.
        """
        if len(self) > SORTED and self._scans < SCANS:
            self._scans += 1
            found = int(pc.index(self.key, pa.scalar(key)).as_py())
            return None if found < 0 else found
        return self._index.find(key)

    @loaded
    def _index(self) -> KeyIndex:
        return KeyIndex(self.key)

    def _numbers(self, name: str) -> np.ndarray:
        return self.table([name])[name].to_numpy()

    def _digests(self, chunk: pa.Array) -> np.ndarray:
        """Of hexadecimal text. ValueError where a row holds something else, upper case included: it would be another
        text to `hash`.
        """
        _, offsets, text = chunk.buffers()
        ends = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        if np.all(np.diff(ends) == 2 * SHA256):
            try:
                content = binascii.unhexlify(memoryview(text)[ends[0] : ends[-1]])
                words = np.frombuffer(text, np.uint64, len(chunk) * SHA256 // 4, ends[0])
                if not np.any(words >> 1 & ~words & _CAPITAL):
                    return np.frombuffer(content, np.uint8).reshape(-1, SHA256)
            except binascii.Error:
                pass
        raise ValueError(
            f"{under(self.store, MANIFEST)} is damaged (sha256 is none of 64 digits in lower case): rebuild it with "
            "`worldtrace shards verify DIR --repair`"
        )

    @loaded
    def _groups(self) -> np.ndarray:
        """(g,) int64: the rows of each row group of the file; none where it is not read by them."""
        if self.given is not None or not self.store.ranged:
            return np.zeros(0, np.int64)
        with self.store.reading(MANIFEST) as file:
            groups = manifest.row_groups(file)
        self._same(int(groups.sum()))
        return groups

    @loaded
    def _counts(self) -> np.ndarray:
        """(g,) int64: how many of these rows lie in a row group and those before it."""
        if self.mask is None:
            return np.cumsum(self._groups)
        ends = np.cumsum(self._groups)
        return np.concatenate([[0], np.cumsum(self.mask)])[ends]

    def _parts(self, columns: Collection[str]) -> Iterator[pa.Table]:
        """`table`, RUN row groups at a time, which a few threads read ahead."""
        if len(self._groups) < FEW:
            yield self.table(columns)
            return
        threads = min(THREADS, os.cpu_count() or 1)
        waiting: deque[tuple[Future[pa.Table], range]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for begin in range(0, len(self._groups), RUN):
                run = range(begin, min(begin + RUN, len(self._groups)))
                waiting.append((pool.submit(self._read, columns, (), run), run))
                if len(waiting) > threads:  # no more in memory than is soon asked for
                    first, its = waiting.popleft()
                    yield self._masked(first.result(), its.start, its.stop)
            for each, its in waiting:
                yield self._masked(each.result(), its.start, its.stop)

    def _masked(self, table: pa.Table, begin: int, end: int) -> pa.Table:
        """Those of the rows of row groups [begin, end) that are ours."""
        if self.mask is None:
            return table
        ends = np.concatenate([[0], np.cumsum(self._groups)])
        return table.filter(pa.array(self.mask[ends[begin] : ends[end]]))

    def _read(
        self, columns: Collection[str] | None, dictionary: Collection[str], groups: Sequence[int] | None = None
    ) -> pa.Table:
        text = under(self.store, MANIFEST)
        try:
            with self.store.reading(MANIFEST) as file:
                # Arrow reads a file of the disk in several threads
                source = self.store.folder / MANIFEST if isinstance(self.store, LocalStore) else file
                table = manifest.parsed(source, text, columns, dictionary, groups)
        except ValueError:
            self.store.exists(MANIFEST)  # a store that cannot be reached is no damage, and says so itself
            raise
        except FileNotFoundError:
            raise missing_manifest(self.store) from None
        if groups is None:
            self._same(len(table))
        return table

    def _same(self, total: int) -> None:
        """A dataset that grows gets a new manifest: columns of two of them do not belong together."""
        if self._total not in (None, total):
            raise OSError(f"{under(self.store, MANIFEST)} was written anew while it was read: open the dataset again")
        self._total = total


def is_split(rows: Rows, split: str) -> np.ndarray:
    """(n,) bool: the rows of a split."""
    column: Any = rows.table(["split"], ["split"])["split"]
    return np.asarray(pc.equal(column, split).to_numpy(), bool)
