"""Whether bytes that came are those of the kind of file that was asked for."""

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Kind = Literal["glb", "gzip", "zip", "parquet"]

MAGIC: dict[str, bytes] = {"glb": b"glTF", "gzip": b"\x1f\x8b", "zip": b"PK", "parquet": b"PAR1"}
HEAD = 512  # bytes in which HTML or a magic number shows
CHUNK = 1 << 18
MOST_UNPACKED = 8 << 30  # bytes a gzip file may expand to while it is checked

_HTML = re.compile(rb"^(\xef\xbb\xbf)?\s*(<!doctype html|<html|<head)", re.IGNORECASE)


def flaw(path: Path, kind: Kind) -> str | None:
    """What shows that the file is not a whole one of its kind, or None. Reads its ends; a gzip file is read through."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        if reason := foreign(head, kind, False):
            return reason
        length = file.seek(0, os.SEEK_END)
        if kind == "glb":
            announced = int.from_bytes(head[8:12], "little")
            return None if 12 <= announced <= length else f"it has {length} bytes; its header says {announced}"
        if kind == "parquet":
            file.seek(max(0, length - 4))
            return None if length >= 12 and file.read() == MAGIC["parquet"] else "its end is missing"
        if kind == "zip":
            return None if zipfile.is_zipfile(path) else "its table of contents is missing"
        file.seek(0)
        return _gzip_flaw(iter(lambda: file.read(CHUNK), b""))


def foreign(head: bytes | bytearray, kind: Kind | None, page: bool) -> str | None:
    """`page`: the server calls it HTML. Some do call a page something else, and a model may be one: where a kind is
    asked for the bytes decide, else both must say so.
    """
    if (page or kind is not None) and _HTML.match(head):
        return "the answer is a page of HTML"
    if kind is not None and not head.startswith(MAGIC[kind]):
        return f"the answer is no {kind} file"
    return None


def _gzip_flaw(chunks: Iterator[bytes]) -> str | None:
    """A gzip file may have several members; each ends with the checksum of what it holds."""
    unpacked, ended = 0, False
    unpack = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            while chunk:
                if ended:
                    unpack, ended = zlib.decompressobj(wbits=31), False
                unpacked += len(unpack.decompress(chunk, CHUNK))
                chunk = unpack.unconsumed_tail or unpack.unused_data
                ended = unpack.eof
                if unpacked > MOST_UNPACKED:
                    return f"it expands to more than {MOST_UNPACKED} bytes"
    except zlib.error as error:
        return f"it cannot be unpacked ({error})"
    return None if ended else "its end is missing"
