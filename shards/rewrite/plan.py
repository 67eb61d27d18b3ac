"""Which sample goes into which new shard: decided from the manifests alone, as a stream."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..archive import END
from .inputs import Input

INPUT = "input"  # the column of a plan that says from which dataset a row is
SHARDS = 1_000_000  # of a dataset: their names have six digits
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True)
class Cut:
    """A shard ends before it would have more samples, or more bytes, than this; one sample it always has."""

    samples: int | None = None
    bytes: int | None = 256 * 10**6

    def __post_init__(self) -> None:
        for name, value in (("samples", self.samples), ("bytes", self.bytes)):
            if value is not None and value < 1:
                raise ValueError(f"a shard of {value} {name} cannot be: give 1 or more")

    def fits(self, sizes: np.ndarray, held: int, held_bytes: int) -> int:
        """How many of the next samples, of these sizes (n,), go into a shard that holds some already."""
        room = len(sizes)
        if self.bytes is not None:
            left = self.bytes - len(END) - held_bytes
            room = int(np.searchsorted(np.cumsum(sizes), left, "right"))
        if self.samples is not None:
            room = min(room, self.samples - held)
        return max(room, 0 if held else 1)


@dataclass(frozen=True)
class Planned:
    """A shard to be: `table` has the manifest rows of its samples as they are in their dataset, and INPUT.

    Its name tells its place and its contents, so that who finds it knows that it is this one.
    """

    output: int
    index: int
    table: pa.Table

    @property
    def stem(self) -> str:
        digest = hashlib.sha256()
        for key, sha256 in zip(self.table["key"].to_pylist(), self.table["sha256"].to_pylist()):
            digest.update(f"{key} {sha256}\n".encode())
        return f"{self.index:06d}-{digest.hexdigest()[:12]}"


def planned(inputs: Sequence[Input], to: Sequence[np.ndarray], cut: Cut) -> Iterator[Planned]:
    """The shards of all outputs, each output's in order. `to[i]` (n,) says into which output a row of input i goes;
    negative: into none. Holds one shard's rows for each output.
    """
    open_: dict[int, _Shard] = {}
    for number, (source, into) in enumerate(zip(inputs, to, strict=True)):
        begin = 0
        for table in source.batches():
            here = into[begin : begin + len(table)]
            begin += len(table)
            for output in np.unique(here[here >= 0]):
                rows = table.filter(pa.array(here == output))
                rows = rows.append_column(INPUT, pa.array(np.full(len(rows), number, np.int32)))
                shard = open_.setdefault(int(output), _Shard(int(output), cut))
                yield from shard.add(rows)
        if begin != len(into):
            raise ValueError(f"{source.text} changed while it was read: run the command again")
    for _, shard in sorted(open_.items()):
        yield from shard.flush()


class _Shard:
    """The rows that wait for the shard of an output to be full."""

    def __init__(self, output: int, cut: Cut) -> None:
        self.output, self.cut = output, cut
        self.index, self.held, self.bytes = 0, 0, 0
        self.tables: list[pa.Table] = []

    def add(self, rows: pa.Table) -> Iterator[Planned]:
        while len(rows):
            sizes = rows["bytes"].to_numpy()
            count = self.cut.fits(sizes, self.held, self.bytes)
            if count:
                self.tables.append(rows.slice(0, count))
                self.held += count
                self.bytes += int(sizes[:count].sum())
                rows = rows.slice(count)
            if len(rows):
                yield from self.flush()

    def flush(self) -> Iterator[Planned]:
        if self.held:
            if self.index >= SHARDS:
                raise ValueError(
                    f"there would be more than {SHARDS} shards: make them larger with --bytes or --samples"
                )
            yield Planned(self.output, self.index, pa.concat_tables(self.tables))
            self.index += 1
            self.tables, self.held, self.bytes = [], 0, 0


def size_of(text: str) -> int:
    """256MB, 1GiB or 5000 -> bytes. ValueError where it is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?b)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is no size: write such as 256MB or 1GiB")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])
