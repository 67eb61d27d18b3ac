"""One file over HTTP, whole and checked or not at all.

The other side may be slow, stall, throttle, cut off, lie about lengths, redirect to anywhere, never end, or answer with
a page of HTML and status 200. None of it costs more than the time and the bytes that the caller grants, and none of it
leaves a file at `path` that is not the one asked for.
"""

import email.utils
import hashlib
import http.client
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from cluster.sources.addresses import is_near, origin, without_queries
from cluster.sources.base import Unavailable
from cluster.sources.kinds import HEAD, Kind, flaw, foreign
from render import Rejected
from shards.randomness import generator

AGENT = "worldtrace (3D datasets; python-requests)"
MISSING, FORBIDDEN = (404, 410, 451), (401, 403)
TRANSIENT = (408, 421, 425, 429)  # and all from 500 on
REDIRECTS = (301, 302, 303, 307, 308)
CHUNK = 1 << 18
PROGRESS = 1 << 20  # an attempt that brings as much is none of those that are counted

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Policy:
    """How long to try. Seconds; `deadline` is for all attempts together, `read` for each wait for bytes.

    The pause after the n-th failure is between a half and all of `pause` * 2^(n-1), or of `longest_pause` where that is
    less. A Retry-After is kept to where it asks for no more than `longest_pause`; where it asks for more the file is
    `Unavailable` at once.
    """

    attempts: int = 6
    pause: float = 1.0
    longest_pause: float = 60.0
    connect: float = 15.0
    read: float = 60.0
    deadline: float = 540.0  # less than the job's --fetch-timeout, which ends the process and counts as a hang
    redirects: int = 8


PATIENT = Policy()


class _Trouble(Exception):
    """This attempt failed and another may not. `retry_after` in seconds, where the server said so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _WrongBytes(_Trouble):
    def __init__(self, message: str, digest: str) -> None:
        super().__init__(message)
        self.digest = digest


def download(
    url: str,
    path: Path,
    *,
    limit: int,
    kind: Kind | None = None,
    sha256: str | None = None,
    size: int | None = None,
    hub: str | None = None,
    bans: tuple[int, ...] = (),
    policy: Policy = PATIENT,
) -> str:
    """Bring `url` to `path` and return its sha256. The folder is made; a file of that name is replaced.

    The bytes go to a hidden `.part` file beside it, renamed once all is checked: the length announced, `size`,
    `sha256`, and for a `kind` its magic number and its end. An interrupted transfer goes on by Range where the server
    gave a strong ETag and still gives the same. `hub` is the address of a Hugging Face hub: there HF_TOKEN is sent
    (and nowhere else), and what it says of a file it redirects (X-Linked-ETag, X-Linked-Size) is checked. `bans` are
    statuses by which this host means "not now" where another would mean "no".

    Rejected: "missing" (404, 410, 451), "forbidden" (401, 403), "refused" (another 4xx), "file_too_large" (more than
    `limit` bytes, announced or sent), "checksum" (wrong twice alike, or to the end). Unavailable: all else, once the
    policy's attempts or its deadline are spent, an unwritable disk and a refused token included: neither is the
    asset's fault.
    """
    ends = time.monotonic() + policy.deadline
    if size is not None and size > limit:
        raise _too_large(url, size, limit)
    with _part(path, url, limit) as part:
        counted, wrong = 0, set[str]()
        while True:
            before = part.size
            try:
                linked = _receive(
                    url, part, kind, hub, bans, policy, ends, kind is None and sha256 is None and size is None
                )
                digest = _checked(part, kind, sha256 or linked.sha256, size if size is not None else linked.size)
                part.keep(path)
                return digest
            except _Trouble as trouble:
                said = trouble
            if isinstance(said, _WrongBytes):
                if said.digest in wrong:
                    raise Rejected("checksum", f"{url}: {said}") from None
                wrong.add(said.digest)
            if part.size - before < PROGRESS:
                counted += 1
            pause = _pause(url, counted, said, policy)
            if counted >= policy.attempts or pause is None or time.monotonic() + pause >= ends:
                if isinstance(said, _WrongBytes):
                    raise Rejected("checksum", f"{url}: {said}") from None
                raise Unavailable(f"{url}: {said} ({counted} failed attempts)") from None
            time.sleep(pause)


# --- one attempt -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Linked:
    """What the hub says of a file that it keeps elsewhere."""

    sha256: str | None = None
    size: int | None = None


def _receive(
    url: str,
    part: "_Part",
    kind: Kind | None,
    hub: str | None,
    bans: tuple[int, ...],
    policy: Policy,
    ends: float,
    blind: bool,
) -> _Linked:
    """Append to `part` what comes. `blind`: nothing but the transfer itself can tell whether that is all."""
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity", "Accept": "*/*"}
    if part.size and part.etag:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.etag}
    else:
        part.restart()
    with _session(ends) as session:
        response, linked = _open(session, url, headers, hub, bans, policy, ends)
        with response:
            total = _begin(response, part, linked)
            if total is not None and total > part.limit:
                raise _too_large(url, total, part.limit)
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if encoding not in ("", "identity") and kind != "gzip":
                raise _Trouble(f"the answer is encoded as {encoding!r}, which was not asked for")
            while chunk := _read(response):
                part.write(chunk)
                if len(part.head) == HEAD and (reason := foreign(part.head, kind, part.page)):
                    part.restart()
                    raise _Trouble(reason)
            if total is None and (not part.size or (blind and not _chunked(response))):
                raise _Trouble("the transfer ended, and nothing says that it was complete")
            if total is not None and part.size != total:
                raise _Trouble(f"the transfer ended after {part.size} of {total} bytes")
    return linked


def _open(
    session: requests.Session,
    url: str,
    headers: Mapping[str, str],
    hub: str | None,
    bans: tuple[int, ...],
    policy: Policy,
    ends: float,
) -> tuple[requests.Response, _Linked]:
    """The answer at the end of the redirections, with status 200, 206 or 416, its body unread."""
    at, linked = url, _Linked()
    for _ in range(policy.redirects + 1):
        try:
            mine = hub is not None and origin(at) == origin(hub)
        except ValueError as error:  # a port that is none
            raise _Trouble(f"it redirects to no address ({str(error)[:80]})") from error
        token = os.environ.get("HF_TOKEN", "").strip() if mine else ""
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        left = max(0.1, ends - time.monotonic())
        try:
            response = session.get(
                at,
                headers={**headers, **bearer},
                stream=True,
                allow_redirects=False,
                timeout=(min(policy.connect, left), min(policy.read, left)),
                auth=lambda request: request,  # else requests sends what ~/.netrc has for the host
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise _Trouble(_in_words(error)) from error
        if mine:
            linked = _linked(response.headers, linked)
        if response.status_code in (200, 206, 416):
            return response, linked
        response.close()
        if response.status_code in REDIRECTS:
            at = _next(at, session.get_redirect_target(response))
        else:
            raise _refusal(url, response, at == url, bool(token), bans)
    raise _Trouble(f"it redirects more than {policy.redirects} times")


def _next(at: str, target: str | None) -> str:
    try:
        there = urljoin(at, target or "")
        scheme = urlsplit(there).scheme
    except ValueError as error:
        raise _Trouble(f"it redirects to no address ({str(error)[:80]})") from error
    unsafe = urlsplit(at).scheme == "https" and scheme != "https"
    if not target or scheme not in ("http", "https") or unsafe or (is_near(there) and not is_near(at)):
        said = without_queries(target or "nowhere")[:80]
        raise _Trouble(f"it redirects to {said!r}, where this program does not follow")
    return there


def _refusal(url: str, response: requests.Response, first: bool, token: bool, bans: tuple[int, ...]) -> Exception:
    status = response.status_code
    said = f"HTTP {status} {response.reason or ''}".strip()[:80]
    if status in bans or status in TRANSIENT or status >= 500:
        return _Trouble(said, _retry_after(response.headers))
    if status in MISSING:
        return Rejected("missing", f"{url}: {said}")
    if status == 401 and token:
        return Unavailable(f"{url}: {said}: the hub does not accept HF_TOKEN; correct it or unset it")
    if status in FORBIDDEN:
        # A signed address that the hub redirected to has expired; the hub will sign another one.
        return Rejected("forbidden", f"{url}: {said}") if first else _Trouble(f"{said} after a redirection")
    return Rejected("refused", f"{url}: {said}") if status >= 400 else _Trouble(said)


def _begin(response: requests.Response, part: "_Part", linked: _Linked) -> int | None:
    """Set `part` to where the answer goes on; the length of the whole file, where it is announced."""
    etag = response.headers.get("ETag", "").strip()
    etag = etag if etag.startswith('"') else ""  # a weak one is not enough for a Range
    if response.status_code == 200:
        part.restart(etag)
        part.page = "html" in response.headers.get("Content-Type", "html").lower()
        length = response.headers.get("Content-Length", "").strip()
        return int(length) if re.fullmatch("[0-9]{1,18}", length) else linked.size
    given = re.fullmatch(
        r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", response.headers.get("Content-Range", "").strip()
    )
    same = not etag or etag == part.etag
    if response.status_code == 416 or given is None or int(given[1]) != part.size or not same:
        part.restart()
        raise _Trouble(f"HTTP {response.status_code} with another range than was asked for, or of another file")
    return int(given[2])


def _chunked(response: requests.Response) -> bool:
    return response.headers.get("Transfer-Encoding", "").strip().lower() == "chunked"


def _read(response: requests.Response) -> bytes:
    """What has come by now, so that what a stalled server sent before is kept. b"" at the end."""
    try:
        return response.raw.read1(CHUNK, decode_content=False) or b""
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError, AttributeError) as error:
        raise _Trouble(_in_words(error)) from error  # the last two: the deadline closed the socket under the reader


def _checked(part: "_Part", kind: Kind | None, sha256: str | None, size: int | None) -> str:
    """The digest of the whole file; _Trouble, and back to the start, where it is not what it should be."""
    digest = part.digest()
    reason = foreign(part.head, kind, part.page)
    if reason is None and size is not None and size != part.size:
        reason = f"it has {part.size} bytes; it should have {size}"
    if reason is None and sha256 is not None and digest != sha256.lower():
        part.restart()
        raise _WrongBytes(f"its sha256 is {digest}; it should be {sha256}", digest)
    if reason is None and kind is not None:
        part.flush()
        reason = flaw(part.path, kind)
    if reason is not None:
        part.restart()
        raise _Trouble(reason)
    return digest


# --- where the bytes go, and how long that may take ------------------------------------------------------------------


class _Part:
    """The unfinished file: its size, its hash so far, its first bytes, and the ETag of what it is a part of."""

    def __init__(self, path: Path, url: str, limit: int) -> None:
        self.path, self.url, self.limit = path, url, limit
        with self._disk():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
        self.restart()

    def restart(self, etag: str = "") -> None:
        self.size, self.etag, self.page = 0, etag, False
        self.head, self._hash = bytearray(), hashlib.sha256()
        with self._disk():
            self._file.seek(0)
            self._file.truncate()

    def write(self, chunk: bytes) -> None:
        if self.size + len(chunk) > self.limit:
            raise _too_large(self.url, None, self.limit)
        with self._disk():
            self._file.write(chunk)
        self.head += chunk[: HEAD - len(self.head)]
        self.size += len(chunk)
        self._hash.update(chunk)

    def flush(self) -> None:
        with self._disk():
            self._file.flush()

    def digest(self) -> str:
        return self._hash.hexdigest()

    def keep(self, path: Path) -> None:
        with self._disk():
            self._file.close()
            os.replace(self.path, path)

    def discard(self) -> None:
        with suppress(OSError):  # the disk is full: what could not be written is not wanted any more
            self._file.close()
        self.path.unlink(missing_ok=True)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(f"{self.path.parent} on {socket.gethostname()} cannot be written: {error}") from error


@contextmanager
def _part(path: Path, url: str, limit: int) -> Iterator[_Part]:
    """Named by host, process and thread: two that bring the same file do not meet, and the last one leaves its own."""
    owner = f"{socket.gethostname()[:32]}-{os.getpid()}-{threading.get_ident()}"
    name = path.name.encode()[:100].decode("utf-8", "ignore")
    part = _Part(path.with_name(f".{name}.{owner}.part"), url, limit)
    try:
        yield part
    finally:
        part.discard()


@contextmanager
def _session(ends: float) -> Iterator[requests.Session]:
    """Its sockets are shut at `ends`, whatever is being read: a time-out for each read lets a byte a minute pass. What
    the reader sees then is the end of the transfer, too early, or of the headers.
    """
    sockets: list[socket.socket] = []

    def shut() -> None:
        for each in sockets:
            with suppress(OSError):  # closed by now
                socket.socket.shutdown(each, socket.SHUT_RDWR)  # not SSLSocket's: the reader still uses its state

    timer = threading.Timer(max(0.0, ends - time.monotonic()), shut)
    timer.daemon = True
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Watched(sockets.append))
        timer.start()
        try:
            yield session
        finally:
            timer.cancel()


class _Watched(HTTPAdapter):
    """Tells of every socket that is opened, to a host or to the proxy of the environment."""

    def __init__(self, tell: Callable[[socket.socket], None]) -> None:
        super().__init__(max_retries=0)
        self._tell = tell

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        tell, base = self._tell, type(pool).ConnectionCls

        class Connection(base):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                super().connect()
                tell(self.sock)

        pool.ConnectionCls = Connection
        return pool


# --- words and numbers -----------------------------------------------------------------------------------------------


def _pause(url: str, failed: int, trouble: _Trouble, policy: Policy) -> float | None:
    """Seconds until the next attempt; None where the server asks for more than the policy grants."""
    jitter = float(generator(0, "back-off", url, failed).uniform(0.5, 1.0))
    own = min(policy.longest_pause, policy.pause * 2.0 ** max(0, failed - 1)) * jitter
    asked = trouble.retry_after
    if asked is None:
        return own
    return max(own, asked) if asked <= policy.longest_pause else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, of either form. A date is taken relative to the server's own clock."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        then = email.utils.parsedate_to_datetime(text).timestamp()
        now = email.utils.parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, then - now)


def _linked(headers: Mapping[str, str], known: _Linked) -> _Linked:
    digest = headers.get("X-Linked-ETag", "").strip().removeprefix("W/").strip('"').lower()
    size = headers.get("X-Linked-Size", "").strip()
    return _Linked(
        digest if _SHA256.fullmatch(digest) else known.sha256,
        int(size) if size.isascii() and size.isdigit() and len(size) < 19 else known.size,
    )


def _too_large(url: str, size: int | None, limit: int) -> Rejected:
    return Rejected("file_too_large", f"{url} has {size or 'more'} bytes; the limit is {limit}")


def _in_words(error: Exception) -> str:
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return f"its certificate or TLS fails ({without_queries(str(error))[-160:]})"
    return f"the connection fails ({type(error).__name__}: {without_queries(str(error))[-160:]})"
