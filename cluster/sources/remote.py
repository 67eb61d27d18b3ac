"""`s3://bucket/prefix`, `gs://bucket/prefix`, `https://host/chair.glb`: a folder of 3D files, or one file, by fsspec.

Object stores are listed. Web servers have no listing: there a folder is what its MANIFEST.csv says it is.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

import render
from cluster.sources import access, stated
from cluster.sources.base import AssetRef, Source, uid_of
from cluster.sources.companions import bring_companions
from cluster.sources.files import READABLE, UNREADABLE, FileSource
from cluster.sources.transfer import Place, Transfer, version_of
from render import Mesh, Rejected
from render.folder import relative_name
from shards import Origin, Regime, layout

_QUERIES = ("v", "version", "versionId", "download", "dl", "raw")  # any other may be a secret, by whatever name


@dataclass(frozen=True)
class RemoteSource:
    """The 3D files below `url`, in the order of their names.

    Credentials and endpoints come from the environment, as the client of each store reads them. Licences come from a
    MANIFEST.csv (`stated.py`) in the folder or one of its three next parents. Hidden files and folders and the datasets
    of render jobs are skipped. Size and ETag, where the store says them, are recorded and must be the same at fetch.
    An asset's sha256 is that of its main file, known once it is fetched.
    """

    url: str

    regime: ClassVar[Regime] = "object"
    remote: ClassVar[bool] = True
    own_terms: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> Source:
        """ValueError in one sentence; nothing is opened yet. `file://` is a local folder."""
        protocol, _, rest = text.partition("://")
        protocol = protocol.lower()
        if "::" in text:
            raise ValueError(f"source {text!r} chains file systems: unpack the archive, and give the folder's address")
        if protocol in ("file", "local"):
            return FileSource.parse(unquote(rest))
        access.check_protocol(text, protocol)
        parts = urlsplit(text)
        if "@" in parts.netloc:
            raise ValueError(
                f"source {protocol}://...@{parts.netloc.rpartition('@')[2]} holds credentials, which would be written "
                "into the dataset: give them by the environment"
            )
        plain = f"{protocol}://{parts.netloc}{parts.path}"
        if parts.fragment:
            raise ValueError(f"source {plain}#... has a fragment, which may be a secret: give the address without it")
        names = [re.split("[=;]", part)[0] for part in re.split("[&;]", parts.query)] if parts.query else []
        if (other := next((name for name in names if name not in _QUERIES), None)) is not None:
            raise ValueError(
                f"source {plain}?{other[:40]}=... may hold a secret, which would be written into the dataset: give the "
                f"address without it (allowed are {', '.join(_QUERIES)}), and credentials by the environment"
            )
        if not rest.strip("/"):
            raise ValueError(f"source {text!r} names no place: give {protocol}:// and what follows it")
        return cls(f"{protocol}://{rest.rstrip('/')}")

    @property
    def text(self) -> str:
        return self.url

    def assets(self) -> Iterable[AssetRef]:
        """FileNotFoundError, ValueError (no permission, nothing there) or OSError (not just now), in one sentence."""
        refs = access.listed(self.url, self._web if self._on_web else self._store)
        if not refs:
            raise ValueError(f"{self.url} holds no 3D file ({', '.join(sorted(READABLE))}): check the address")
        return sorted(refs, key=lambda ref: ref.uid)

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        """The main file and those that it names. Rejected: missing, forbidden, changed, file_too_large,
        too_many_files. A file that it names and that is not there is for the loader to speak of.
        """
        place = Place(**json.loads(ref.locator))
        parent, _, last = _without_query(place.key, self._on_web).rpartition("/")
        name = unquote(last) if self._on_web else last
        if name in ("", ".", "..") or "/" in name or uid_of(name) != name or len(name.encode()) > 200:
            name = f"asset{PurePosixPath(name).suffix}"
        transfer = Transfer(access.files(self._protocol), self._on_web, parent, folder)
        transfer.main(place, folder / name)
        bring_companions(folder / name, transfer.companion)
        return name

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        assert path is not None
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return render.load(path), Origin(ref.uid, ref.source, sha256, ref.licence)

    @property
    def _protocol(self) -> str:
        return self.url.partition("://")[0]

    @property
    def _on_web(self) -> bool:
        return self._protocol in access.WEB

    def _ref(self, uid: str, root: str, place: Place, what: stated.Stated = stated.NOTHING) -> AssetRef:
        return AssetRef(
            uid=uid_of(uid),
            source=root,
            licence=what.licence,
            locator=place.to_json(),
            triangles=what.triangles,
            animated=what.animated,
            categories=what.categories,
        )

    def _web(self) -> list[AssetRef]:
        files = access.files(self._protocol)
        path = urlsplit(self.url).path
        if _is_3d(path):
            root, _, last = _without_query(self.url, True).rpartition("/")
            info = files.info(self.url)  # by HEAD, or by GET where that is refused
            return [self._ref(unquote(last), root, Place(self.url, info.get("size"), version_of(info)))]
        if urlsplit(self.url).query:
            raise ValueError(f"{self.url} is no 3D file by its name: give an address that ends in .glb or the like")
        table = None
        try:
            with access.reading(self.url), access.stream(files, f"{self.url}/{stated.NAME}") as file:
                table = _bytes(file)
        except Rejected as error:
            if error.reason != "missing":
                raise
        if table is None:
            raise ValueError(
                f"{self.url} is a folder on a web server, which cannot be listed: put a {stated.NAME} with the columns "
                "path and licence there, or give the addresses of files"
            )
        said: dict[str, stated.Stated] = {}
        for name, what in stated.read_stated(table, f"{self.url}/{stated.NAME}").items():
            if _is_3d(name) and (uid := _within(name)) is not None:
                stated.put(said, uid, what)
        refs = {}
        for uid, what in said.items():
            refs[uid] = self._ref(uid, self.url, Place(f"{self.url}/{quote(uid)}"), what)
        return list(refs.values())

    def _store(self) -> list[AssetRef]:
        files = access.files(self._protocol)
        top = files._strip_protocol(self.url).rstrip("/")
        if _is_3d(top):
            try:
                info = files.info(top)
            except FileNotFoundError:
                info = {"type": "directory"}  # of that name, perhaps
            if info["type"] == "file":
                uid = top.rpartition("/")[2]
                what = self._stated(files, top.rpartition("/")[0]).get(top, stated.NOTHING)
                return [
                    self._ref(uid, self.url.rpartition("/")[0], Place(top, info.get("size"), version_of(info)), what)
                ]
        found = files.find(top, detail=True)
        if not found and not files.exists(top):
            raise FileNotFoundError(self.url)
        datasets = _datasets(found)
        said = self._stated(files, top)
        refs = []
        for key, info in found.items():
            uid = key.removeprefix(f"{top}/")
            if uid == key or not _is_3d(key) or any(part.startswith(".") for part in uid.split("/")):
                continue
            if datasets and not datasets.isdisjoint(map(str, PurePosixPath(key).parents)):
                continue
            place = Place(key, info.get("size"), version_of(info))
            refs.append(
                self._ref(uid, self.url, place, said.get(key) or said.get(key.replace("\\", "/"), stated.NOTHING))
            )
        return refs

    def _stated(self, files: Any, folder: str) -> dict[str, stated.Stated]:
        """Key -> what the nearest MANIFEST.csv says of it."""
        for _ in range(1 + stated.PARENTS):
            if not folder.strip("/"):
                break
            try:
                with access.reading(folder), files.open(f"{folder}/{stated.NAME}", "rb") as file:
                    table = _bytes(file)
            except Rejected:  # none there, or a folder above that we may not read
                table = None
            if table is not None:
                found: dict[str, stated.Stated] = {}
                for path, what in stated.read_stated(table, f"{folder}/{stated.NAME}").items():
                    stated.put(found, posixpath.normpath(f"{folder}/{path}"), what)
                return found
            folder = folder.rpartition("/")[0]
        return {}


def _is_3d(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in READABLE | UNREADABLE


def _within(name: str) -> str | None:
    """A path of a table without ".", ".." and doubled slashes; None where it leads out of its folder."""
    try:
        plain = relative_name(name, uri=False)
    except Rejected:
        return None
    return posixpath.normpath(plain) if plain else None


def _without_query(url: str, on_web: bool) -> str:
    return url.partition("#")[0].partition("?")[0] if on_web else url


def _bytes(file: Any) -> bytes:
    """A table, and no more of it than tells that it is too large."""
    data = bytearray()
    while len(data) <= stated.LARGEST and (more := file.read(1 << 20)):
        data += more
    return bytes(data)


def _datasets(keys: Iterable[str]) -> set[str]:
    """Folders that a render job writes or wrote: their records are no assets."""
    headers, written = set(), set()
    for key in keys:
        folder, _, name = key.rpartition("/")
        if name == layout.DATASET_JSON:
            headers.add(folder)
        elif name == layout.MANIFEST:
            written.add(folder)
        elif folder.endswith((f"/{layout.SHARDS}", f"/{layout.UNITS}")):
            written.add(folder.rpartition("/")[0])
    return headers & written
