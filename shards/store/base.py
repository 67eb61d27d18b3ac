"""Where a dataset is written: a folder, or a prefix in an object store. One interface, so that no one else asks which.

`open_store("data")` is a folder (local.py); `open_store("s3://bucket/prefix")`, `gs://bucket/prefix` or
`memory://name` is an object store (bucket.py), through fsspec; `https://host/path` is a web server (web.py), which is
read alone.

Credentials come from the environment or the instance's role, on every machine for itself, and are written nowhere. For
MinIO or another S3-compatible store set AWS_ENDPOINT_URL=https://host:port beside AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, on the driver and on every node (AWS_ENDPOINT_URL_S3 and `endpoint_url` in ~/.aws/config do too).
"""

import os
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from os import PathLike
from typing import BinaryIO, Protocol

from .waiting import told

WEB = ("http", "https")
_PASSWORD = re.compile("[^/@]*:[^@]*@")  # which may hold a slash, as secret keys do


class Claim(Protocol):
    """What the one writer of a dataset holds."""

    @property
    def lost(self) -> bool:
        """Whether it is known that another job took the dataset over. Costs nothing."""

    def check(self) -> None:
        """ValueError in one sentence where another job took the dataset over. Asks the store: call it before whatever
        only the holder may do.
        """


class Store(Protocol):
    """The files of one dataset, by names such as "shards/000000-aa.tar".

    Plain values that travel to Ray's workers. What goes wrong is an OSError in one sentence: what, where, what to do.
    """

    @property
    def text(self) -> str:
        """As a user would write it."""

    @property
    def concurrency(self) -> int:
        """How many small reads at a time serve best: one where it is a disk, many where each waits for a network."""

    @property
    def consistent(self) -> bool:
        """Whether what one machine has written is there for all others at once: object stores promise it, NFS does
        not.
        """

    @property
    def ranged(self) -> bool:
        """Whether a part of a file surely costs no more than that part."""

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A binary file that appears under `name`, whole, when the block ends, and not at all when the block raises."""

    def read(self, name: str) -> bytes:
        """FileNotFoundError where there is none."""

    def reading(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A seekable file, for formats that are read in parts. FileNotFoundError where there is none."""

    def size(self, name: str) -> int:
        """Bytes. FileNotFoundError where there is no such file."""

    def part(self, name: str, begin: int, size: int, patience: float | None = None) -> bytes:
        """`size` bytes from `begin`, fewer where the file ends before. FileNotFoundError where there is none.
        `patience`: seconds for which a store that cannot be reached is asked again.
        """

    def pieces(self, name: str, patience: float | None = None) -> Iterator[bytes]:
        """The whole file, a piece at a time; `patience` begins anew with each."""

    def exists(self, name: str) -> bool:
        """Whether it is there now: never an answer of yesterday."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Name -> bytes of all files of "shards" or "units", by one fresh listing, without temporary ones."""

    def top(self) -> list[str]:
        """The names of files and folders at the top, sorted."""

    def delete(self, names: Iterable[str]) -> None:
        """Those that are there."""

    def sweep(self) -> None:
        """Remove what interrupted writes of a job left, and nothing else. Call it under `claim`, once it is sure that
        the place is that of a dataset.
        """

    def remove(self) -> None:
        """Remove the place itself where nothing lies in it."""

    def claim(self, say: Callable[[str], None] = told) -> AbstractContextManager[Claim]:
        """Hold the dataset for this process; ValueError naming the holder where a living job has it. `say` is told why
        it takes long; by default the terminal is, through Python's logging.
        """


def open_store(text: str | PathLike[str]) -> Store:
    """The store of the dataset at a path or URL. ValueError for a URL that cannot be one."""
    from .local import LocalStore

    text = os.fspath(text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalStore(os.path.abspath(text))
    if _PASSWORD.match(rest):
        raise _with_password(scheme, rest)
    if scheme == "file":
        return LocalStore(os.path.abspath(rest))
    if scheme in WEB:
        from .web import WebStore

        return WebStore(_web_address(text))
    from .bucket import SCHEMES, ObjectStore  # fsspec, which a folder need not wait for

    if scheme not in SCHEMES:
        known = ", ".join((*SCHEMES, *WEB))
        raise ValueError(f"{text} has an unknown scheme {scheme!r}: give a folder, or one of {known}")
    if not rest.partition("/")[0]:
        raise ValueError(f"{text} names no bucket: give {scheme}://BUCKET/PREFIX")
    return ObjectStore(f"{scheme}://{rest.strip('/')}")


def _web_address(text: str) -> str:
    """Without the slash at its end. ValueError for one that names no host, or holds what must not stand in logs."""
    address = urllib.parse.urlsplit(text)
    if not address.hostname:
        raise ValueError(f"{text} names no host: give {address.scheme}://HOST/PATH")
    if address.username or address.password:
        raise _with_password(address.scheme, text.partition("://")[2])
    if address.query or address.fragment:
        raise ValueError(f"{text} has a part behind ? or #: give the address of the folder that holds dataset.json")
    return text.rstrip("/")


def _with_password(scheme: str, rest: str) -> ValueError:
    place = rest.rpartition("@")[2].partition("/")[0]
    return ValueError(
        f"{scheme}://{place} is given with a password in its address, which ends up in logs: give it without"
    )


def under(store: Store, name: str) -> str:
    """How to speak of a file of it."""
    return f"{store.text.rstrip('/')}/{name}"
