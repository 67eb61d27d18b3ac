"""The files of one asset, from a store into a folder: bounded in number, bytes and time, and checked."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cluster.sources import access
from cluster.sources.base import Unavailable
from cluster.sources.companions import beside
from cluster.sources.download import Policy, download
from render import Rejected
from render.limits import DEFAULT

SLOWEST = 600.0  # seconds that the files of one asset may take
_CHUNK = 8 << 20  # bytes read at a time; of an object store, one request


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file lies, and what was said of it when it was listed: bytes, and a word that changes with the file."""

    key: str
    size: int | None = None
    version: str | None = None

    def to_json(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})


def version_of(info: Mapping[str, Any]) -> str | None:
    """A strong ETag (a weak one differs between the servers of one site), or what the store has instead."""
    for name in ("ETag", "etag", "generation", "Last-Modified"):
        value = info.get(name)
        if isinstance(value, str | int) and value and not str(value).startswith("W/"):
            return str(value).strip('"')
    return None


class Transfer:
    """Brings a main file and its companions, which lie below `parent` in the store `files`, into `folder`."""

    def __init__(self, files: Any, on_web: bool, parent: str, folder: Path) -> None:
        self.files = files
        self.on_web = on_web
        self.parent = parent
        self.folder = folder
        self.left = DEFAULT.folder_bytes
        self.deadline = time.monotonic() + SLOWEST

    def main(self, place: Place, to: Path) -> None:
        """Rejected: missing, forbidden, changed, file_too_large. Unavailable where it may be had later."""
        self._bring(place, to)

    def companion(self, name: str) -> Path | None:
        """The file `name`, relative to the folder of the main file, put where the asset looks for it; None where there
        is none. Stores tell upper from lower case. Rejected: file_too_large.
        """

        def bring(plain: str, to: Path) -> None:
            self._bring(Place(f"{self.parent}/{quote(plain) if self.on_web else plain}"), to)

        # who may not list a store is told 403 of what is not there
        return beside(self.folder, name, bring, ("missing", "forbidden"))

    def _bring(self, place: Place, to: Path) -> None:
        """A file that is cut short leaves nothing behind."""
        most = min(self.left, DEFAULT.file_bytes)
        (self._from_web if self.on_web else self._from_store)(place, to, most)
        self.left -= to.stat().st_size

    def _from_web(self, place: Place, to: Path, most: int) -> None:
        if place.size is not None or place.version is not None:
            info = access.patiently(lambda: self._info(place.key))
            _check_same(place, info.get("size"), version_of(info))
        left = max(1.0, self.deadline - time.monotonic())
        policy = Policy(access.ATTEMPTS, pause=access.PAUSE, connect=access.CONNECT, read=access.READ, deadline=left)
        download(place.key, to, limit=most, size=place.size, policy=policy)

    def _info(self, key: str) -> Mapping[str, Any]:
        with access.reading(key):
            return self.files.info(key)

    def _from_store(self, place: Place, to: Path, most: int) -> None:
        try:
            access.patiently(lambda: self._read(place, to, most))
        except Rejected as error:
            if error.reason == "forbidden":  # by HEAD, whose answer does not say why; perhaps our clock or key is wrong
                with access.reading(place.key):
                    self.files.cat_file(place.key, start=0, end=1)
            raise

    def _read(self, place: Place, to: Path, most: int) -> None:
        with (
            access.reading(place.key),
            self.files.open(place.key, "rb", block_size=_CHUNK, cache_type="none") as file,
        ):
            info = getattr(file, "details", None) or self.files.info(place.key)
            size = info.get("size")
            _check_same(place, size, version_of(info))
            too_large = Rejected("file_too_large", f"{place.key} has more than the {most} bytes left to the asset")
            if size is not None and size > most:
                raise too_large
            count = 0
            try:
                with to.open("wb") as out:
                    while data := file.read(_CHUNK):
                        count += len(data)
                        if count > most:
                            raise too_large
                        out.write(data)
                        if time.monotonic() > self.deadline:
                            raise Unavailable(f"{place.key}: {count} bytes in more than {SLOWEST:.0f} s")
                if size is not None and count != size:
                    raise Unavailable(f"{place.key}: {count} bytes came of {size}")
            except BaseException:
                to.unlink(missing_ok=True)
                raise


def _check_same(place: Place, size: int | None, version: str | None) -> None:
    for said, now, what in ((place.size, size, "bytes"), (place.version, version, "version")):
        if said is not None and now is not None and said != now:
            raise Rejected("changed", f"{place.key} has {what} {now}, but had {said} when it was listed")
