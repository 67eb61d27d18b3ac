"""A dataset under a prefix of an object store, through fsspec: an object appears when its upload is completed.

Nothing here relies on a rename, on a listing that was made before, or on clocks. Listings are not cached. Throttling
and lost connections are waited out, with growing pauses.
"""

import io
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import fsspec.asyn

from . import lease, naming
from .waiting import told, waited

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "memory")
EXTRAS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
PART = 64 << 20  # bytes: a smaller object is one request, a larger one is uploaded in parts of that size
PATIENCE = 120.0  # seconds for which a store that throttles, or cannot be reached, is asked again
PIECE = 16 << 20  # bytes that are read at a time of what is read whole
LISTED = 1000  # objects that one request deletes

TRANSIENT = frozenset(
    {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "TooManyRequests", "Throttling"}
    | {"ThrottlingException", "RequestLimitExceeded", "OperationAborted", "429", "500", "502", "503", "504"}
)
LOST = frozenset({"HTTPClientError", "IncompleteReadError", "ResponseParserError", "ClientError", "ConnectionError"})

Result = TypeVar("Result")
_filesystems: dict[tuple[int, str], Any] = {}  # by process: a client does not survive a fork


@dataclass(frozen=True)
class ObjectStore:
    """`text` is the URL of the prefix: s3://bucket/prefix, gs://bucket/prefix, memory://name (of this process)."""

    text: str
    concurrency: int = 32
    consistent: bool = True
    ranged: bool = True

    @property
    def scheme(self) -> str:
        return self.text.partition("://")[0]

    @property
    def root(self) -> str:
        """The prefix as fsspec names it, without the scheme."""
        return str(self._fs._strip_protocol(self.text)).rstrip("/")

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        upload = _Upload(self, name)
        try:
            yield cast(BinaryIO, upload)
            upload.complete()
        except BaseException:
            upload.abort()
            raise

    def write(self, name: str, data: bytes, **conditions: Any) -> None:
        """In one request. FileExistsError or PreconditionFailed where `conditions` of the store do not hold."""
        self.asked("written", lambda fs: fs.pipe_file(self.path(name), data, **conditions))

    def read(self, name: str) -> bytes:
        return bytes(self.asked("read", lambda fs: fs.cat_file(self.path(name))))

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        def opened(fs: Any) -> Any:
            return fs.open(self.path(name), "rb", block_size=4 << 20, cache_type="readahead")

        with self.asked("read", opened) as file:
            yield file

    def size(self, name: str) -> int:
        return int(self.asked("read", lambda fs: fs.info(self.path(name), **self._fresh))["size"])

    def part(self, name: str, begin: int, size: int, patience: float | None = None) -> bytes:
        if size == 0:
            return b""

        def taken(fs: Any) -> bytes:
            try:
                return bytes(fs.cat_file(self.path(name), start=begin, end=begin + size))
            except Exception as error:
                if _code(error) in ("InvalidRange", "416"):
                    return b""
                raise

        return self.asked("read", taken, patience)

    def pieces(self, name: str, patience: float | None = None) -> Iterator[bytes]:
        begin, size = 0, self.asked("read", lambda fs: fs.info(self.path(name), **self._fresh), patience)["size"]
        while begin < size:
            piece = self.part(name, begin, min(PIECE, size - begin), patience)
            if not piece:
                return
            begin += len(piece)
            yield piece

    def exists(self, name: str) -> bool:
        def info(fs: Any) -> bool:
            with suppress(FileNotFoundError):
                fs.info(self.path(name), **self._fresh)
                return True
            return False

        return self.asked("read", info)

    def sizes(self, folder: str) -> dict[str, int]:
        place = self.path(folder)

        def listed(fs: Any) -> dict[str, int]:
            try:
                found = fs.ls(place, detail=True, **self._fresh)
            except FileNotFoundError:
                return {}
            files = {info["name"].rstrip("/"): int(info["size"] or 0) for info in found if info["type"] == "file"}
            return {f"{folder}/{path.rpartition('/')[2]}": size for path, size in files.items() if path != place}

        return self.asked("listed", listed)

    def top(self) -> list[str]:
        place = self.root

        def listed(fs: Any) -> list[str]:
            try:
                found = fs.ls(place, detail=False, **self._fresh)
            except FileNotFoundError:
                return []
            return sorted({path.rstrip("/").rpartition("/")[2] for path in found if path.rstrip("/") != place})

        return self.asked("listed", listed)

    def delete(self, names: Iterable[str]) -> None:
        paths = [self.path(name) for name in names]
        for begin in range(0, len(paths), LISTED):
            part = paths[begin : begin + LISTED]
            self.asked("removed", lambda fs, part=part: _removed(fs, part))  # type: ignore[misc]

    def sweep(self) -> None:
        """Abort uploads in parts that nobody completed: their parts are invisible, and are paid for. A store names a
        thousand of its bucket at a time; those behind the uploads of others stay.
        """
        bucket, _, prefix = self.root.partition("/")
        prefix = f"{prefix}/" if prefix else ""
        if not hasattr(self._fs, "list_multipart_uploads"):
            return
        with suppress(OSError):  # whoever may write may not be allowed to see them
            aborted: set[str] = set()
            while ours := [
                upload
                for upload in self._fs.list_multipart_uploads(bucket)
                if upload["Key"].startswith(prefix)
                and naming.is_ours(upload["Key"].removeprefix(prefix))
                and upload["UploadId"] not in aborted
            ]:
                for upload in ours:
                    self._fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])
                    aborted.add(upload["UploadId"])

    def remove(self) -> None:
        """A prefix without objects is not there."""

    @contextmanager
    def claim(self, say: Callable[[str], None] = told) -> Iterator["lease.Lease"]:
        held = lease.taken(self, say)
        try:
            yield held
        finally:
            held.release()

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def asked(self, what: str, call: Callable[[Any], Result], patience: float | None = None) -> Result:
        """call(filesystem), again while the store throttles or cannot be reached. OSError in one sentence otherwise,
        but FileNotFoundError for an object that is not there and FileExistsError for a condition that does not hold.
        """
        begin, patience = time.monotonic(), PATIENCE if patience is None else patience
        pause = 0.5
        while True:
            try:
                return call(self._fs)
            except Exception as error:
                if conflicts(error):
                    raise FileExistsError(f"{self.text} holds it already") from None
                if isinstance(error, FileNotFoundError) and not _is_about_bucket(error):
                    raise FileNotFoundError(f"{self.text} does not hold it") from None
                if not _passes(error) or time.monotonic() + pause > begin + patience:
                    raise self._plain(error, what) from None
                waited(self.text, begin, patience, " ".join(str(error).split())[:200] or type(error).__name__)
                time.sleep(pause * random.uniform(0.5, 1.0))  # a thousand workers must not come back at one moment
                pause = min(2 * pause, 20.0)

    @property
    def _fresh(self) -> dict[str, bool]:
        return {} if self.scheme == "memory" else {"refresh": True}

    @property
    def _fs(self) -> Any:
        key = (os.getpid(), self.scheme)
        if key not in _filesystems:
            _filesystems[key] = self._connected()
        return _filesystems[key]

    def _connected(self) -> Any:
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if self.scheme == "s3":
            # one request for a read instead of two; patience is ours, above
            options |= {
                "max_concurrency": 1,
                "config_kwargs": {"retries": {"total_max_attempts": 2, "mode": "standard"}},
            }
        if self.scheme == "memory":
            options = {}
        try:
            return fsspec.filesystem(self.scheme, **options)
        except ImportError:
            package = EXTRAS.get(self.scheme, self.scheme)
            raise ValueError(f"{self.text} needs the package {package}: pip install {package} on every node") from None

    def _plain(self, error: Exception, what: str) -> OSError:
        """One sentence: what, where, what to do."""
        name = type(error).__name__
        said = " ".join(str(error).split())[:200]
        if name in ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "RefreshError"):
            keys = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if self.scheme == "s3" else "log in"
            said = f"no credentials were found: {keys}, or give the machine a role"
        elif name in ("NoRegionError", "ProfileNotFound", "InvalidConfigError"):
            said = f"{said.rstrip('.')}: mend ~/.aws/config or the environment"
        elif isinstance(error, PermissionError):
            needed = "list and read there" if what == "read" else "list, read, write and delete there"
            said = f"{said.rstrip('.') or 'denied'}: these credentials need to {needed}"
        elif isinstance(error, FileNotFoundError):
            remedy = "make it first, or give another --out" if what == "written" else "see to its name"
            said = f"there is no such bucket: {remedy}"
        elif _passes(error):
            said = (
                f"the store throttles or cannot be reached ({said.rstrip('.') or name}): see to the network, and run "
                "the same command again, which goes on from there"
            )
        else:
            said = f"{name}: {said}"
        return OSError(f"{self.text} cannot be {what}: {said}")


class _Upload(io.RawIOBase):
    """What is written to it becomes one object at `complete`: by one request, or in parts where it is large."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.store, self.name = store, name
        self.buffer = bytearray()
        self.parts: Any = None
        self.position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.buffer += view
        self.position += len(view)
        if len(self.buffer) >= PART and self.store.scheme != "memory":  # fsspec's memory shows what is half written
            self._send()
        return len(view)

    def _send(self) -> None:
        if self.parts is None:
            self.parts = self.store.asked(
                "written", lambda fs: fs.open(self.store.path(self.name), "wb", block_size=PART, autocommit=False)
            )
        handed_on = False

        def sent(fs: Any) -> None:
            nonlocal handed_on
            if handed_on:  # fsspec holds it still where its upload failed
                self.parts.flush()
            else:
                handed_on = True
                self.parts.write(bytes(self.buffer))

        self.store.asked("written", sent)
        self.buffer.clear()

    def complete(self) -> None:
        if self.parts is None:
            self.store.write(self.name, bytes(self.buffer))
            return

        def completed(fs: Any) -> None:
            self.parts.write(bytes(self.buffer))
            self.parts.close()
            self.parts.commit()

        self.store.asked("written", completed, patience=0.0)
        self.parts = None

    def abort(self) -> None:
        self.buffer.clear()
        if self.parts is not None:
            with suppress(Exception):  # what goes wrong here must not hide what went wrong before; `sweep` comes after
                self.parts.discard()
                self.parts.closed = True  # or fsspec would complete it when the file is collected
            self.parts = None


def conflicts(error: BaseException) -> bool:
    """Whether a store refused because a condition (If-None-Match, If-Match) does not hold."""
    code = _code(error)
    return isinstance(error, FileExistsError) or code in ("PreconditionFailed", "ConditionalRequestConflict", "412")


def _passes(error: BaseException) -> bool:
    """Throttling, a server's own error, a connection that failed: may be over in a while."""
    code = _code(error)
    if code:
        return code in TRANSIENT
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or bool(kinds & LOST)


def _code(error: BaseException) -> str:
    """The store's own name of an error: botocore's response, or the status of gcsfs."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        if (status := getattr(one, "code", None)) is not None and not callable(status):
            return str(status)
    return ""


def _is_about_bucket(error: BaseException) -> bool:
    return _code(error) == "NoSuchBucket" or "bucket does not exist" in str(error)


def _removed(fs: Any, paths: list[str]) -> None:
    if len(paths) > 1 and hasattr(fs, "_bulk_delete"):
        fsspec.asyn.sync(fs.loop, fs._bulk_delete, paths)
        return
    for path in paths:
        with suppress(FileNotFoundError):
            fs.rm_file(path)
