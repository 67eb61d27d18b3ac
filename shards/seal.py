"""A parquet file that states its own sha256, so that any flipped bit of it is found, in pages and footer alike.

The metadata of the footer hold `worldtrace.sha256`: the SHA-256 of the whole file with 64 zeros in its place. The
footer is the last that a parquet writer writes: it is held back, and leaves with the digest in it. Nothing seeks, so
that the file may be an upload to an object store.
"""

import hashlib
import re
from typing import Any, BinaryIO, cast

import pyarrow.parquet as pq

KEY = "worldtrace.sha256"
BLANK = b"0" * 64
CHUNK = 1 << 22
# A KeyValue in Thrift's compact protocol: field 1 is the key, a text of 17 bytes, field 2 the value, of 64; the end.
_STATED = re.compile(rb"\x18\x11worldtrace\.sha256\x18\x40([0-9a-f]{64})\x00")
_MAGIC = b"PAR1"


class Sealing:
    """The file for a ParquetWriter; `close_sealed` closes the writer and writes the footer, sealed, to `file`."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.footer: bytearray | None = None  # held back from `close_sealed` on
        self.position = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.position += len(view)
        if self.footer is not None:
            self.footer += view
        else:
            self.digest.update(view)
            self.file.write(view)
        return len(view)

    def tell(self) -> int:
        return self.position

    def flush(self) -> None:
        """The file itself is flushed by who opened it."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close_sealed(self, writer: pq.ParquetWriter) -> None:
        """Instead of `writer.close()`."""
        writer.add_key_value_metadata({KEY: BLANK.decode()})
        self.footer = bytearray()
        writer.close()
        self.digest.update(self.footer)
        stated = self.digest.hexdigest().encode()
        at = _place(bytes(self.footer))
        if at is None:
            raise AssertionError("a parquet footer without the metadata that were given to it")
        self.footer[at : at + len(BLANK)] = stated
        self.file.write(self.footer)
        self.closed = True


def sealing(file: BinaryIO) -> tuple[Sealing, BinaryIO]:
    """(the sealing file, the same as what a ParquetWriter takes)."""
    sealed = Sealing(file)
    return sealed, cast(BinaryIO, sealed)


def check(file: BinaryIO) -> bool | None:
    """Whether a seekable file holds what its seal says; None where it is no parquet file with a seal (version 1, or
    another writer). Reads all of it, a few megabytes at a time.
    """
    size = file.seek(0, 2)
    if size < 12:
        return None
    file.seek(size - 8)
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length + 12 > size:
        return None
    begin = size - 8 - length
    file.seek(begin)
    footer = file.read()
    at = _place(footer)
    if at is None:
        return None
    stated = footer[at : at + len(BLANK)]
    digest = hashlib.sha256()
    file.seek(0)
    left = begin
    while left:
        data = file.read(min(CHUNK, left))
        if not data:
            return False
        digest.update(data)
        left -= len(data)
    digest.update(footer[:at] + BLANK + footer[at + len(BLANK) :])
    return digest.hexdigest().encode() == stated


def holds(file: BinaryIO, version: int) -> bool:
    """Whether a table of a dataset of this version is what was written: from version 2 on all have a seal."""
    sealed = check(file)
    return version < 2 if sealed is None else sealed


def _place(footer: bytes) -> int | None:
    """Where the digest stands in the footer: last, as statistics of columns, which hold what assets are named, come
    before the metadata, and nothing but the writer's name and enumerations after them.
    """
    found = [match.start(1) for match in _STATED.finditer(footer)]
    return found[-1] if found else None
