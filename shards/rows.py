"""The rows of a manifest that a dataset is made of, column by column: each is loaded when it is first asked for."""

import binascii
from collections.abc import Collection
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import manifest
from .key_index import KeyIndex
from .layout import MANIFEST
from .store import Store, under
from .store.local import LocalStore

SHA256 = 32  # bytes


class Rows:
    """`mask` says which rows of the file, None all of them. A table that is at hand is taken in place of the file.

    What is loaded stays, in arrays that forked processes share: 17 million rows need 1.6 GB for all that training
    asks for, and hold no open file.
    """

    def __init__(self, store: Store, mask: np.ndarray | None = None, table: pa.Table | None = None) -> None:
        self.store, self.mask, self.given = store, mask, table

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

    @cached_property
    def key(self) -> pa.ChunkedArray:
        return self.table(["key"])["key"]

    @cached_property
    def offset(self) -> np.ndarray:
        """(n,) int64: where a sample begins within its shard."""
        return self._numbers("offset")

    @cached_property
    def bytes(self) -> np.ndarray:
        """(n,) int64: the size of a sample within its shard."""
        return self._numbers("bytes")

    @cached_property
    def digest(self) -> np.ndarray:
        """(n, 32) uint8: the sha256 of a sample's part of its shard."""
        column = self.table(["sha256"])["sha256"]
        parts = [np.zeros((0, SHA256), np.uint8), *(self._digests(chunk) for chunk in column.chunks)]
        return np.concatenate(parts)

    @cached_property
    def hash(self) -> str:
        """As `manifest.hash_of` the table, whose hexadecimal column it makes anew, a part at a time."""
        pieces, begin = [], 0
        for chunk in self.key.chunks:
            text = binascii.hexlify(self.digest[begin : begin + len(chunk)].tobytes())
            ends = np.arange(len(chunk) + 1, dtype=np.int32) * (2 * SHA256)
            pieces.append(pa.StringArray.from_buffers(len(chunk), pa.py_buffer(ends), pa.py_buffer(text)))
            begin += len(chunk)
        return manifest.hash_of(pa.table([self.key, pa.chunked_array(pieces, pa.string())], names=["key", "sha256"]))

    @cached_property
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

    @cached_property
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

    @cached_property
    def index(self) -> KeyIndex:
        return KeyIndex(self.key)

    def _numbers(self, name: str) -> np.ndarray:
        return self.table([name])[name].to_numpy()

    def _digests(self, chunk: pa.Array) -> np.ndarray:
        """Of hexadecimal text. ValueError where a row holds something else."""
        _, offsets, text = chunk.buffers()
        ends = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        if np.all(np.diff(ends) == 2 * SHA256):
            try:
                content = binascii.unhexlify(memoryview(text)[ends[0] : ends[-1]])
                return np.frombuffer(content, np.uint8).reshape(-1, SHA256)
            except binascii.Error:
                pass
        raise ValueError(
            f"{under(self.store, MANIFEST)} is damaged (a sha256 is none): rebuild it with "
            "`worldtrace shards verify DIR --repair`"
        )

    def _read(self, columns: Collection[str] | None, dictionary: Collection[str]) -> pa.Table:
        text = under(self.store, MANIFEST)
        try:
            with self.store.reading(MANIFEST) as file:
                # Arrow reads a file of the disk in several threads
                source = self.store.folder / MANIFEST if isinstance(self.store, LocalStore) else file
                return manifest.parsed(source, text, columns, dictionary)
        except ValueError:
            self.store.exists(MANIFEST)  # a store that cannot be reached is no damage, and says so itself
            raise
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{text} is missing: give the folder or URL that `worldtrace render --out` wrote, or rebuild it with "
                "`worldtrace shards verify DIR --repair`"
            ) from None


def is_split(rows: Rows, split: str) -> np.ndarray:
    """(n,) bool: the rows of a split."""
    column: Any = rows.table(["split"], ["split"])["split"]
    return np.asarray(pc.equal(column, split).to_numpy(), bool)
