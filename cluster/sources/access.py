"""How stores elsewhere are reached through fsspec, and what their errors mean.

Clients differ in what they raise: the same 503 is an OSError of s3fs and a ClientResponseError of aiohttp. Here each
becomes one of few: there is none, we may not, or not just now.
"""

import asyncio
import difflib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import fsspec
from fsspec.exceptions import FSTimeoutError

from cluster.sources.addresses import without_queries
from cluster.sources.base import Unavailable
from render import Rejected

WEB = ("http", "https")
CONNECT, READ = 15.0, 60.0  # seconds without an answer
ATTEMPTS, PAUSE = 3, 0.5  # beside those of the client itself; seconds before the second one, then twice as long

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
# What other packages raise derives from no common class; these names begin their modules.
_CLIENTS = ("aiohttp", "aiobotocore", "botocore", "s3fs", "gcsfs", "google", "adlfs", "azure", "requests", "urllib3")
# 403 for reasons that lie with this node, and not with the asset: a clock that is wrong, a key that has expired.
_OURS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}

_T = TypeVar("_T")


def check_protocol(text: str, protocol: str) -> None:
    """ValueError in one sentence where fsspec does not know `protocol`, or lacks the package for it."""
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        remedy = f"pip install 'worldtrace[{extra}]'" if extra else str(error).splitlines()[0][:200]
        raise ValueError(f"source {text!r} needs a package for {protocol}:// that is not installed: {remedy}") from None
    except ValueError:
        near = difflib.get_close_matches(protocol, fsspec.available_protocols(), n=1)
        hint = f"did you mean {near[0]}://...?" if near else "give s3://, gs:// or https://, or a local path"
        raise ValueError(f"source {text!r} has an unknown protocol {protocol!r}: {hint}") from None


def files(protocol: str) -> Any:
    """The file system, with time-outs where its client takes them. Its listings are not remembered."""
    options: dict[str, Any] = {}
    if protocol in WEB:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=READ)
        # What is sent compressed has no length that could be compared.
        options["client_kwargs"] = {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}}
        options["client_kwargs"]["trust_env"] = True  # the proxy of the environment, which downloads obey
    elif protocol in ("s3", "s3a"):
        once = {"mode": "standard", "total_max_attempts": 1}  # s3fs itself tries five times
        options["config_kwargs"] = {"connect_timeout": CONNECT, "read_timeout": READ, "retries": once}
    system = fsspec.filesystem(protocol, **options)
    system.invalidate_cache()
    return system


def stream(files: Any, url: str) -> Any:
    """A file of a web server by one GET. Without a size fsspec would ask for it by HEAD first, which servers refuse."""
    return files.open(url, block_size=0, size=1)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Rejected("missing" | "forbidden" | "changed") or Unavailable, for whatever a client raises within."""
    try:
        yield
    except (Rejected, Unavailable):
        raise
    except Exception as error:
        meaning = _meaning(error)
        first = (without_queries(str(error)).splitlines() or [""])[0][:200]
        said = f"{without_queries(what)}: {first or type(error).__name__}"
        if meaning is None:
            raise
        raise (Unavailable(said) if meaning == "unavailable" else Rejected(meaning, said)) from error


def patiently(call: Callable[[], _T]) -> _T:
    """`call`, again where it is Unavailable, and that where it stays so."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except Unavailable:
            time.sleep(PAUSE * 2**attempt)
    return call()


def listed(url: str, call: Callable[[], _T]) -> _T:
    """`call`, which lists `url`. FileNotFoundError, ValueError or OSError in one sentence for the user."""

    def once() -> _T:
        with reading(url):
            return call()

    try:
        return patiently(once)
    except Rejected as error:
        if error.reason == "missing":
            raise FileNotFoundError(f"source {url} does not exist: check the address") from None
        raise _no_permission(url, error.message) from None
    except Unavailable as error:
        cause = error.__cause__
        if _answer(cause)[1] in _OURS or type(cause).__name__ == "NoCredentialsError":
            raise _no_permission(url, str(error)) from None
        raise OSError(f"{url} cannot be listed just now ({_short(str(error))}): run the same command later") from None


def _no_permission(url: str, message: str) -> ValueError:
    return ValueError(
        f"no permission to list {url} ({_short(message)}): check the credentials, which come from the environment"
    )


def _short(message: str) -> str:
    return (message.partition(": ")[2] or message)[:160]


def _meaning(error: BaseException) -> str | None:
    """None for what is a fault of this program. A full disk of this node is no fault of the asset: another time."""
    status, code = _answer(error)
    if type(error).__name__ == "FileExpired" or status == 412:
        return "changed"
    if code in _OURS:
        return "unavailable"
    if status in (404, 410):
        return "missing"
    if status in (401, 403):
        return "forbidden"
    if status is not None and (status == 429 or status >= 500):
        return "unavailable"
    if isinstance(error, FileNotFoundError):  # which fsspec also makes of a web server that is down
        return "unavailable" if _of_a_client(error.__cause__) else "missing"
    if isinstance(error, PermissionError):
        return "forbidden"
    if isinstance(error, OSError | FSTimeoutError | TimeoutError | asyncio.TimeoutError):
        return "unavailable"
    return "unavailable" if _of_a_client(error) else None


def _of_a_client(error: BaseException | None) -> bool:
    return type(error).__module__.partition(".")[0] in _CLIENTS


def _answer(error: BaseException | None) -> tuple[int | None, str | None]:
    """The HTTP status and the store's own word for it, as far as `error` or what caused it says them."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, response.get("Error", {}).get("Code")
        status = getattr(error, "status", getattr(error, "code", None))
        if isinstance(status, int):
            return status, None
        error = error.__cause__
    return None, None
