"""`objaverse-xl:github`, `thingiverse`, `smithsonian`, `sketchfab`, `all`, `alignment?type=glb,obj`: Objaverse-XL.

Ten million addresses, of which the dataset allenai/objaverse-xl of the Hugging Face hub lists licence, type and sha256.
The objects lie with those who published them. Many are gone, which is a rejection like another ("missing"), and so is
one that is not what was listed ("checksum").
"""

import itertools
import posixpath
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from cluster.sources import hub, query
from cluster.sources.base import AssetRef, uid_of
from cluster.sources.companions import beside, bring_companions
from cluster.sources.download import PATIENT, Policy, download
from cluster.sources.licences import normal
from cluster.sources.objaverse import ObjaverseSource, load, object_paths, package_base
from render import Mesh, Rejected
from render.limits import DEFAULT
from shards import Origin, Regime

DATASET = "allenai/objaverse-xl"
PUBLISHERS = ("github", "thingiverse", "smithsonian", "sketchfab")
SETS = (*PUBLISHERS, "all", "alignment")
KEYS = ("type", "start", "count", "cache")
TYPES = ("glb", "gltf", "obj", "ply", "stl")  # that can be loaded
COLUMNS = ("fileIdentifier", "license", "fileType", "sha256")
ROWS = 1 << 15  # of the catalogue in memory at once

_GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)/blob/([0-9a-f]{40})/(.+)", re.ASCII)
_THING = re.compile(r"https://www\.thingiverse\.com/thing:\d+/.*fileId=(\d+)", re.ASCII)
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\n(?:.*\n)*?size (\d{1,15})\n"
)


@dataclass(frozen=True)
class Hosts:
    """Where the publishers' files are asked for; another address is a mirror's."""

    raw: str = "https://raw.githubusercontent.com"
    media: str = "https://media.githubusercontent.com/media"  # files that are in Git LFS
    thingiverse: str = "https://www.thingiverse.com"
    smithsonian: str = "https://3d-api.si.edu"


@dataclass(frozen=True)
class ObjaverseXLSource:
    """`alignment` are the objects of GitHub and Sketchfab that Objaverse-XL calls so (its choice of quality).

    The order is that of the catalogue; `start` and `count` cut from it. An asset's uid is its fileIdentifier, an
    address, which is also what its licence asks to be named. Only the types that can be loaded are listed: no fbx, dae,
    blend, usd, abc.

    From GitHub comes the file itself at its commit, by its raw address (from Git LFS where it is there), and of its
    companions those that it names: buffers and textures of a glTF, .mtl and textures of an OBJ, spelled as they are
    there, within its folder. Nothing else of the repository is fetched; what a file names outside of its folder is
    rejected by the loader. Thingiverse throttles and bans bulk downloads, and has asked for none: its 403 counts as
    "not now". Take it for small sets.

    `cache` is where the catalogues are kept (else the package's folder, ~/.objaverse), and objects of Sketchfab, which
    are those of `objaverse:`. Other objects are not kept.
    """

    name: str
    type: tuple[str, ...] = ()
    start: int = 0
    count: int | None = None
    cache: str | None = None
    endpoint: str = field(default=hub.HUB, repr=False)
    hosts: Hosts = field(default=Hosts(), repr=False)
    policy: Policy = field(default=PATIENT, repr=False)

    regime: ClassVar[Regime] = "object"
    remote: ClassVar[bool] = True
    own_terms: ClassVar[bool] = False

    @classmethod
    def parse(cls, text: str) -> "ObjaverseXLSource":
        name, values = query.read(text, KEYS)
        query.word(text, name, SETS, "set")
        types = tuple(each.lower().removeprefix(".") for each in query.words(text, values, "type"))
        return cls(
            name,
            tuple(query.word(text, each, TYPES, "type") for each in types),
            query.number(text, values, "start", 0) or 0,
            query.number(text, values, "count", 1),
            values.get("cache"),
            hub.endpoint(),
        )

    @property
    def text(self) -> str:
        return query.written(
            f"objaverse-xl:{self.name}",
            {"type": ",".join(self.type) or None, "start": self.start or None, "count": self.count},
        )

    def assets(self) -> Iterable[AssetRef]:
        stop = None if self.count is None else self.start + self.count
        found = False
        for ref in itertools.islice(self._rows(), self.start, stop):
            found = True
            yield ref
        if not found:
            raise ValueError(f"source {self.text!r} holds no object: ask for an earlier start, or other types")

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        """Rejected: "missing", "forbidden", "checksum", "file_too_large", "too_many_files", "bad_address"."""
        if ref.sha256 is None:
            raise Rejected("checksum", f"the catalogue has no sha256 of {ref.uid}")
        publisher, kind, address = ref.locator.split(" ", 2)
        if publisher == "sketchfab":
            return self._of_sketchfab(ref, address, folder)
        main = folder / f"asset.{kind}"
        if publisher == "github":
            ends = time.monotonic() + self.policy.deadline
            _GitHub(self.hosts, self.policy, folder, ends).bring(address, main, ref.sha256)
            return main.name
        url, bans = self._elsewhere(publisher, address)
        download(
            url,
            main,
            limit=DEFAULT.file_bytes,
            kind="glb" if kind == "glb" else None,
            sha256=ref.sha256,
            bans=bans,
            policy=self.policy,
        )
        return main.name

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        assert path is not None
        return load(ref, path)

    @property
    def base(self) -> Path:
        return Path(self.cache).absolute() if self.cache is not None else package_base()

    def _rows(self) -> Iterator[AssetRef]:
        types = frozenset(self.type or TYPES)
        for publisher, name in self._catalogues():
            path = hub.catalogue(self.endpoint, DATASET, name, self.base / name, "parquet", self.policy)
            paths = object_paths(self.base, self.endpoint, self.policy) if publisher == "sketchfab" else {}
            for identifier, licence, kind, sha256 in _table(path):
                kind = kind.lower().removeprefix(".") if isinstance(kind, str) else ""
                if kind in types and isinstance(identifier, str) and identifier:
                    address = paths.get(identifier.rpartition("/")[2], "") if publisher == "sketchfab" else identifier
                    yield AssetRef(
                        uid=uid_of(identifier),
                        source=f"objaverse-xl:{publisher}",
                        licence=sys.intern(normal(licence if isinstance(licence, str) else None)),
                        locator=f"{publisher} {kind} {address}",
                        sha256=sha256 if isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) else None,
                    )

    def _catalogues(self) -> list[tuple[str, str]]:
        """(publisher, path in the dataset), as in objaverse.xl."""
        if self.name == "alignment":
            return [(each, f"{each}/alignment.parquet") for each in ("github", "sketchfab")]
        return [(each, f"{each}/{each}.parquet") for each in PUBLISHERS if self.name in (each, "all")]

    def _of_sketchfab(self, ref: AssetRef, path: str, folder: Path) -> str:
        if not path:
            raise Rejected("missing", f"Objaverse 1.0 has no object {ref.uid}")
        first = ObjaverseSource("all", cache=self.cache, endpoint=self.endpoint, policy=self.policy)
        return first.fetch(replace(ref, uid="asset", locator=path), folder)

    def _elsewhere(self, publisher: str, identifier: str) -> tuple[str, tuple[int, ...]]:
        """The address, and the statuses by which that host means "not now"."""
        if publisher == "thingiverse" and (thing := _THING.fullmatch(identifier)):
            return f"{self.hosts.thingiverse}/download:{thing[1]}", (403,)
        host = urlsplit(identifier).hostname or ""
        if publisher == "smithsonian" and identifier.startswith("https://") and host.endswith(".si.edu"):
            return identifier.replace(Hosts.smithsonian, self.hosts.smithsonian, 1), ()
        raise _bad(identifier)


@dataclass
class _GitHub:
    """One object of a repository and its companions, at the commit of the catalogue and within `render.limits`."""

    hosts: Hosts
    policy: Policy
    folder: Path
    ends: float  # of time.monotonic, for all files together
    left: int = DEFAULT.folder_bytes

    def bring(self, identifier: str, main: Path, sha256: str) -> None:
        match = _GITHUB.fullmatch(identifier)
        if match is None or {match[1], match[2]} & {".", ".."} or set(match[4].split("/")) & {"", ".", ".."}:
            raise _bad(identifier)
        repository, path = "/".join(match.group(1, 2, 3)), match[4]
        if self._file(repository, path, main, sha256) != sha256:
            main.unlink()  # the transfer may have been spoilt
            url = self._raw(repository, path)
            download(url, main, limit=DEFAULT.file_bytes, sha256=sha256, policy=self._in_time())

        def bring(plain: str, to: Path) -> None:
            self._file(repository, posixpath.join(posixpath.dirname(path), plain), to, None)

        # refused: what the loader says of it
        bring_companions(main, lambda name: beside(self.folder, name, bring, ("missing", "refused")))

    def _file(self, repository: str, path: str, to: Path, sha256: str | None) -> str:
        """Its sha256. A pointer of Git LFS, which a raw address gives as it is, is followed."""
        limit = min(DEFAULT.file_bytes, self.left)
        found = download(self._raw(repository, path), to, limit=limit, policy=self._in_time())
        if (pointer := _pointer(to)) is not None:
            digest, size = pointer
            to.unlink()
            if sha256 not in (None, digest):
                raise Rejected("checksum", f"{path} in Git LFS has the sha256 {digest}; the catalogue says {sha256}")
            url = f"{self.hosts.media}/{repository}/{quote(path)}"
            found = download(url, to, limit=limit, sha256=digest, size=size, policy=self._in_time())
        self.left -= to.stat().st_size
        return found

    def _in_time(self) -> Policy:
        return replace(self.policy, deadline=self.ends - time.monotonic())

    def _raw(self, repository: str, path: str) -> str:
        return f"{self.hosts.raw}/{repository}/{quote(path)}"


def _pointer(path: Path) -> tuple[str, int] | None:
    """sha256 and size of the file that a pointer of Git LFS stands for (its format: git-lfs, docs/spec.md)."""
    if path.stat().st_size > 1024:
        return None
    match = _POINTER.fullmatch(path.read_bytes())
    return None if match is None else (match[1].decode(), int(match[2]))


def _table(path: Path) -> Iterator[tuple[Any, ...]]:
    """The rows of a catalogue, a few at a time: GitHub's has five million."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if absent := [name for name in COLUMNS if name not in file.schema_arrow.names]:
                raise ValueError(f"it has no column {absent[0]}")
            for batch in file.iter_batches(batch_size=ROWS, columns=list(COLUMNS)):
                yield from zip(*(batch.column(name).to_pylist() for name in COLUMNS))
    except (ValueError, OSError, pa.ArrowException) as error:
        raise ValueError(f"the catalogue {path} is damaged ({error}): delete it and start again") from None


def _bad(identifier: str) -> Rejected:
    return Rejected("bad_address", f"{identifier[:200]!r} is no address of the kind that the catalogue has")
