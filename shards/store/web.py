"""A dataset that a web server shows: read alone, by GET requests for parts of files where the server knows them.

Any static server will do. One that ignores `Range` still works: what lies before a part is then read and thrown away.
Redirects are followed up to ten times, and never from https to http. Proxies are those of the environment. Nothing is
cached here, and no connection outlives its request.
"""

import http.client
import io
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any, BinaryIO, TypeVar, cast

from .base import Claim
from .waiting import waited

TIMEOUT = 30.0  # seconds without a byte after which a connection counts as lost
LEAST = 1000.0  # bytes a second; a connection that brings fewer over TIMEOUT counts as lost as well
PATIENCE = 120.0  # seconds for which a server that fails, or cannot be reached, is asked again
PIECE = 1 << 20  # bytes that are read from a connection at a time
WHOLE = 4 << 30  # bytes of the largest file that is taken whole into memory, from a server without Range
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

Result = TypeVar("Result")


class Broken(OSError):
    """A transfer that failed in a way that may pass."""


@dataclass(frozen=True)
class WebStore:
    """`text` is the URL of the folder that holds dataset.json."""

    text: str
    concurrency: int = 8
    consistent: bool = False
    ranged: bool = False  # a server may ignore what is asked for

    def url(self, name: str) -> str:
        return f"{self.text}/{urllib.parse.quote(name)}"

    def read(self, name: str) -> bytes:
        def whole(answer: http.client.HTTPResponse) -> bytes:
            return b"".join(_body(answer, WHOLE, self.url(name)))

        return self._asked(name, {}, whole)

    def size(self, name: str) -> int:
        def told(answer: http.client.HTTPResponse) -> int:
            if answer.status == 206:
                return _part_of(answer)[2]
            return _length(answer)

        size = self._asked(name, {"Range": "bytes=0-0"}, told)
        return size if size >= 0 else len(self.read(name))

    def part(self, name: str, begin: int, size: int, patience: float | None = None) -> bytes:
        if size == 0:
            return b""

        def taken(answer: http.client.HTTPResponse) -> bytes:
            skip = 0 if answer.status == 206 else begin
            if answer.status == 206 and (first := _part_of(answer)[0]) != begin:
                raise Broken(f"it sent bytes from {first} where those from {begin} were asked for")
            pieces, left = [], size
            for piece in _body(answer, skip + size, self.url(name), whole=False):
                if skip >= len(piece):
                    skip -= len(piece)
                    continue
                pieces.append(piece[skip : skip + left])
                skip, left = 0, left - len(pieces[-1])
                if not left:
                    break
            return b"".join(pieces)

        with suppress(EOFError):
            return self._asked(name, {"Range": f"bytes={begin}-{begin + size - 1}"}, taken, patience)
        return b""

    def pieces(self, name: str, patience: float | None = None) -> Iterator[bytes]:
        have, again = 0, _Again(self, name, patience)
        while True:
            try:
                headers = {"Range": f"bytes={have}-"} if have else {}
                with self._answer(name, headers) as answer:
                    if answer.status == 206 and _part_of(answer)[0] != have:
                        raise Broken("it sent another part than the one that was asked for")
                    skip = 0 if answer.status == 206 else have
                    for piece in _body(answer, None, self.url(name)):
                        if skip >= len(piece):
                            skip -= len(piece)
                            continue
                        have += len(piece) - skip
                        again.goes_on()
                        yield piece[skip:]
                        skip = 0
                    return
            except Exception as error:
                if isinstance(error, urllib.error.HTTPError) and error.code == 416 and have:
                    return  # a file without a stated length had ended just there
                again.after(error)

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        def probed(answer: http.client.HTTPResponse) -> int:
            return _part_of(answer)[2] if answer.status == 206 else -1

        size = self._asked(name, {"Range": "bytes=0-0"}, probed)
        file: Any = io.BytesIO(self.read(name)) if size < 0 else io.BufferedReader(_Parts(self, name, size), 1 << 20)
        with file:
            yield cast(BinaryIO, file)

    def exists(self, name: str) -> bool:
        with suppress(FileNotFoundError):
            self._asked(name, {"Range": "bytes=0-0"}, lambda answer: None)
            return True
        return False

    def sizes(self, folder: str) -> dict[str, int]:
        raise OSError(f"{self.text}/{folder} cannot be listed: a web server names no files; take a copy of the dataset")

    def top(self) -> list[str]:
        raise OSError(f"{self.text} cannot be listed: a web server names no files; take a copy of the dataset")

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        raise self._read_only()

    def delete(self, names: Iterable[str]) -> None:
        raise self._read_only()

    def sweep(self) -> None:
        raise self._read_only()

    def remove(self) -> None:
        raise self._read_only()

    def claim(self, say: Callable[[str], None] = lambda line: None) -> AbstractContextManager[Claim]:
        raise self._read_only()

    def _read_only(self) -> OSError:
        return OSError(f"{self.text} cannot be written: a web server is read alone; give a folder, s3:// or gs://")

    def _answer(self, name: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        # gzip would change lengths and parts
        request = urllib.request.Request(self.url(name), headers={**headers, "Accept-Encoding": "identity"})
        answer: http.client.HTTPResponse = _opener().open(request, timeout=TIMEOUT)
        if answer.status not in (200, 206) or answer.headers.get("Content-Encoding", "identity") != "identity":
            answer.close()
            raise OSError(
                f"{self.url(name)} cannot be read: the server answers {answer.status} in a form not asked for"
            )
        return answer

    def _asked(
        self,
        name: str,
        headers: dict[str, str],
        use: Callable[[http.client.HTTPResponse], Result],
        patience: float | None = None,
    ) -> Result:
        again = _Again(self, name, patience)
        while True:
            try:
                with self._answer(name, headers) as answer:
                    return use(answer)
            except Exception as error:
                again.after(error)


class _Again:
    """Whether a request is made again, and how long to wait before it."""

    def __init__(self, store: WebStore, name: str, patience: float | None) -> None:
        self.url, self.patience = store.url(name), PATIENCE if patience is None else patience
        self.place = store.text
        self.goes_on()

    def goes_on(self) -> None:
        """Bytes have come: patience begins anew."""
        self.deadline, self.pause = time.monotonic() + self.patience, 0.5

    def after(self, error: Exception) -> None:
        """Waits, or raises an OSError in one sentence."""
        status = error.code if isinstance(error, urllib.error.HTTPError) else 0
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        if status in (404, 410):
            raise FileNotFoundError(f"{self.url} does not exist") from None
        if status in (401, 403):
            raise OSError(
                f"{self.url} cannot be read: the server refuses it ({status}): see to the address, and to who may "
                "read it"
            ) from None
        if status == 416:
            raise EOFError(f"{self.url} ends before the part that was asked for") from None
        if not _passes(error, status):
            if not isinstance(error, urllib.error.URLError):  # it is a sentence already, or a fault of ours
                raise error
            raise OSError(f"{self.url} cannot be read: {_said(error)}") from None
        if time.monotonic() + self.pause > self.deadline:
            raise OSError(
                f"{self.url} cannot be read: the server fails or cannot be reached ({_said(error)}), and was asked for "
                f"{self.patience:g} s: see to the network, and run the same command again"
            ) from None
        waited(self.place, self.deadline - self.patience, self.patience, _said(error))
        _sleep(self.pause * random.uniform(0.5, 1.0))  # a thousand workers must not come back at one moment
        self.pause = min(2 * self.pause, 20.0)


class _Parts(io.RawIOBase):
    """A file of known size, read by parts."""

    def __init__(self, store: WebStore, name: str, size: int) -> None:
        self.store, self.name, self.whole, self.position = store, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.whole}[whence]
        self.position = max(0, base + offset)
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        size = max(0, min(len(view), self.whole - self.position))
        data = self.store.part(self.name, self.position, size)
        view[: len(data)] = data
        self.position += len(data)
        return len(data)


class _Paced(io.RawIOBase):
    """What a connection brings, header and body alike, as long as it brings LEAST. Only the time that is spent waiting
    for it counts, and none that who reads takes for himself.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self.raw, self.waited, self.have = raw, 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        begin = time.monotonic()
        count = self.raw.readinto(buffer)
        self.waited += time.monotonic() - begin
        self.have += count or 0
        if self.waited > TIMEOUT:
            if self.have < LEAST * self.waited and count:
                raise Broken(f"only {self.have} bytes came in {self.waited:.0f} s")
            self.waited, self.have = 0.0, 0
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.fp = io.BufferedReader(_Paced(cast(io.BufferedReader, self.fp).detach()))


class _Plain(http.client.HTTPConnection):
    response_class = _Answer


class _Encrypted(http.client.HTTPSConnection):
    response_class = _Answer


class _PlainHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Plain, req)


class _EncryptedHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Encrypted, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.startswith("https://"):
            raise OSError(
                f"{req.full_url} cannot be read: it redirects to {newurl.partition(':')[0]}, without encryption"
            )
        return super().redirect_request(req, fp, code, msg, cast(Any, headers), newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Of web addresses alone: a redirect must not lead to a file or an FTP server."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _PlainHandler(),
        _EncryptedHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _body(answer: http.client.HTTPResponse, most: int | None, url: str, whole: bool = True) -> Iterator[bytes]:
    """What is sent, at most `most` bytes. Broken where the connection ends before what its header promised; OSError
    where more would come, if `whole` is asked for.
    """
    length, have = _length(answer), 0
    while True:
        want = PIECE if most is None else min(PIECE, most - have)
        if not want:
            if whole and answer.read(1):
                raise OSError(f"{url} cannot be read: it is larger than the {most} bytes that memory is given for it")
            return
        piece = answer.read(want)
        have += len(piece)
        if not piece:
            if 0 <= length != have:
                raise Broken(f"the connection ended after {have} of {length} bytes")
            return
        yield piece


def _length(answer: http.client.HTTPResponse) -> int:
    """What the header promises; -1 where it does not."""
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else -1


def _part_of(answer: http.client.HTTPResponse) -> tuple[int, int, int]:
    """(first byte, last byte, size of the whole file) of an answer with a part; -1 for a size not told."""
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None:
        raise Broken("it does not say which part it sends")
    return int(found[1]), int(found[2]), -1 if found[3] == "*" else int(found[3])


def _passes(error: Exception, status: int) -> bool:
    if status:
        return status in TRANSIENT
    if isinstance(error, urllib.error.URLError):
        inner = error.reason
        return isinstance(inner, OSError) and "CERTIFICATE" not in str(inner).upper()
    return isinstance(error, Broken | http.client.HTTPException | ConnectionError | TimeoutError)


def _said(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return " ".join(str(inner).split())[:200] or type(inner).__name__


_sleep = time.sleep  # the tests hold clocks still
