"""`objaverse:all`, `objaverse:lvis?category=chair,armchair`, `objaverse:uids?file=LIST`: the objects of Objaverse 1.0.

800,000 glTF binaries of Sketchfab, in the dataset allenai/objaverse of the Hugging Face hub. The annotations are those
of the `objaverse` package, in its folder and format; its downloads are not used, which know neither time-outs nor
retries nor checksums.
"""

import difflib
import hashlib
import itertools
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import render
from cluster.sources import hub, query
from cluster.sources.base import AssetRef, Unavailable, uid_of
from cluster.sources.download import PATIENT, Policy, download
from cluster.sources.licences import normal
from cluster.sources.uid_lists import read_uids
from render import Mesh, Rejected
from render.limits import DEFAULT
from shards import Origin, Regime

DATASET = "allenai/objaverse"
SETS = ("all", "lvis", "uids")
KEYS = ("category", "file", "start", "count", "cache")
FOLDER = "hf-objaverse-v1"  # within the cache, as the package has it
PATHS, LVIS = "object-paths.json.gz", "lvis-annotations.json.gz"
AHEAD = 4  # files of annotations that are brought at once
MOST_NAMES, LONGEST_NAME = 32, 64  # categories and tags kept of an object

_PATH = re.compile(r"glbs/([\w-]+)/([\w-]+)\.glb", re.ASCII)


@dataclass(frozen=True)
class ObjaverseSource:
    """`start` and `count` cut from a fixed order: that of the objects' paths in the hub's repository, by folder and,
    within one, by uid. So annotations are read one folder (5,000 objects) at a time, and only those needed.

    `uids?file=` takes a list as `--only` does (.txt, .csv, .json), but reads only the folders that the list needs.
    `cache` keeps the downloads, in the layout of the package; without it objects are not kept, and annotations are in
    the package's own folder (~/.objaverse), where objects of earlier days are found too. It is not part of `text`: it
    changes nothing of what is rendered.

    An object's categories are its LVIS categories (where those were read), then the categories and tags of Sketchfab.
    `triangles` is Sketchfab's count. The sha256 is known once the file is there: nothing lists it. HF_ENDPOINT is read
    where the job is started.
    """

    name: str
    category: tuple[str, ...] = ()
    file: str | None = None
    start: int = 0
    count: int | None = None
    cache: str | None = None
    endpoint: str = field(default=hub.HUB, repr=False)
    policy: Policy = field(default=PATIENT, repr=False)

    regime: ClassVar[Regime] = "object"
    remote: ClassVar[bool] = True
    own_terms: ClassVar[bool] = False

    @classmethod
    def parse(cls, text: str) -> "ObjaverseSource":
        name, values = query.read(text, KEYS)
        query.word(text, name, SETS, "set")
        if "category" in values and name != "lvis":
            raise ValueError(f"source {text!r}: category belongs to objaverse:lvis (for others there is --category)")
        if ("file" in values) != (name == "uids"):
            raise ValueError(f"source {text!r}: the file of uids belongs to objaverse:uids?file=LIST, and it needs one")
        if "file" in values:
            read_uids(f"source {text!r}:", Path(values["file"]))  # now, rather than once a Ray was started
        return cls(
            name,
            query.words(text, values, "category"),
            values.get("file"),
            query.number(text, values, "start", 0) or 0,
            query.number(text, values, "count", 1),
            values.get("cache"),
            hub.endpoint(),
        )

    @property
    def text(self) -> str:
        return query.written(
            f"objaverse:{self.name}",
            {
                "category": ",".join(self.category) or None,
                "file": self.file,
                "start": self.start or None,
                "count": self.count,
            },
        )

    def assets(self) -> Iterable[AssetRef]:
        paths = object_paths(self.base, self.endpoint, self.policy)
        lvis = self._lvis() if self.name == "lvis" else {}
        chosen = sorted(paths.values()) if self.name == "all" else self._chosen(paths, lvis)
        del paths  # 200 MB
        stop = None if self.count is None else self.start + self.count
        chosen = chosen[self.start : stop]
        if not chosen:
            raise ValueError(f"source {self.text!r} holds no object: ask for an earlier start, or other categories")
        for folder, group in self._folders(chosen):
            annotations = hub.read_table(folder)
            refs = [_ref(path, annotations.get(_uid(path)), lvis.get(_uid(path), ())) for path in group]
            del annotations  # some 200 MB, before the next folder's are read
            yield from refs

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        """The object itself; from the cache of this node where it is whole there. There are no companions."""
        name = f"{ref.uid}.glb"
        for base in dict.fromkeys((self.base, package_base())):
            kept = base / FOLDER / ref.locator
            if hub.kept(kept, "glb", ref.sha256):
                copy(kept, folder / name)
                return name
        url = hub.address(self.endpoint, DATASET, ref.locator)
        limit = DEFAULT.file_bytes
        download(url, folder / name, limit=limit, kind="glb", sha256=ref.sha256, hub=self.endpoint, policy=self.policy)
        if self.cache is not None:
            copy(folder / name, self.base / FOLDER / ref.locator)
        return name

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        assert path is not None
        return load(ref, path)

    @property
    def base(self) -> Path:
        return Path(self.cache).absolute() if self.cache is not None else package_base()

    def _lvis(self) -> dict[str, tuple[str, ...]]:
        """uid -> its categories, of those asked for; of all where none is."""
        path = self.base / FOLDER / LVIS
        hub.catalogue(self.endpoint, DATASET, LVIS, path, "gzip", self.policy)
        annotations = hub.read_table(path)
        by_case = {name.casefold(): name for name in annotations}
        wanted = []
        for category in self.category:
            found = category if category in annotations else by_case.get(category.casefold().replace(" ", "_"))
            if found is None:
                near = difflib.get_close_matches(category.casefold(), by_case, n=1, cutoff=0.5)
                hint = f"did you mean {by_case[near[0]]!r}?" if near else "see the list of LVIS, such as chair or car"
                raise ValueError(f"source {self.text!r} has an unknown category {category!r}: {hint}")
            wanted.append(found)
        names: dict[str, tuple[str, ...]] = {}
        for category in wanted or sorted(annotations):
            listed = annotations[category]
            for uid in listed if isinstance(listed, list) else ():
                names[str(uid)] = (*names.get(str(uid), ()), category)
        return names

    def _chosen(self, paths: dict[str, str], lvis: dict[str, tuple[str, ...]]) -> list[str]:
        """The paths of the uids of LVIS or of the file. Those that Objaverse does not have are passed over."""
        if self.file is None:
            return sorted(paths[uid] for uid in lvis if uid in paths)
        listed = read_uids(f"source {self.text!r}:", Path(self.file)).uids
        return sorted(paths[uid] for uid in {each.removeprefix("objaverse/") for each in listed} if uid in paths)

    def _folders(self, paths: list[str]) -> Iterator[tuple[Path, list[str]]]:
        """The file of annotations of each folder, and the folder's objects; a few files are brought ahead."""
        groups = [(name, list(group)) for name, group in itertools.groupby(paths, lambda path: path.split("/")[1])]
        with ThreadPoolExecutor(AHEAD) as threads:
            try:
                for (_, group), path in zip(groups, threads.map(self._annotations, [name for name, _ in groups])):
                    yield path, group
            finally:
                threads.shutdown(wait=False, cancel_futures=True)  # at an error, or where the listing is given up

    def _annotations(self, folder: str) -> Path:
        name = f"metadata/{folder}.json.gz"
        return hub.catalogue(self.endpoint, DATASET, name, self.base / FOLDER / name, "gzip", self.policy)


def object_paths(base: Path, at: str, policy: Policy = PATIENT) -> dict[str, str]:
    """uid -> path in the repository, such as glbs/000-023/<uid>.glb, of every object of Objaverse 1.0."""
    path = base / FOLDER / PATHS
    hub.catalogue(at, DATASET, PATHS, path, "gzip", policy)
    paths = hub.read_table(path)
    for uid, each in paths.items():
        match = _PATH.fullmatch(each) if isinstance(each, str) else None
        if match is None or match[2] != uid:  # it becomes a path on this machine
            raise ValueError(
                f"the catalogue {path} places {uid[:80]!r} at {str(each)[:80]!r}: delete it and start again"
            )
    return paths


def package_base() -> Path:
    """Where the objaverse package keeps what it downloads."""
    import objaverse  # here: the other sources do without it

    return Path(objaverse.BASE_PATH)


def copy(path: Path, to: Path) -> None:
    """Between the cache and the folder that travels to the renderer; `to` appears whole. No link: each stays as it is,
    whatever becomes of the other. Unavailable where it cannot be written.
    """
    part = to.with_name(f".{to.name}.{socket.gethostname()[:32]}-{os.getpid()}.part")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, part)
            os.replace(part, to)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(f"{path} cannot be copied to {to.parent}: {error}") from error


def load(ref: AssetRef, path: Path) -> tuple[Mesh, Origin]:
    """The fetched asset; Rejected("changed") where it is not the file that was listed."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if ref.sha256 not in (None, sha256):
        raise Rejected("changed", f"{ref.label} is not the file that the catalogue lists")
    return render.load(path), Origin(ref.uid, ref.source, sha256, ref.licence)


def _ref(path: str, annotation: Any, lvis: tuple[str, ...]) -> AssetRef:
    """Of the annotation, some kilobytes, no more is kept than filters ask for."""
    said = annotation if isinstance(annotation, dict) else {}
    faces, clips = said.get("faceCount"), said.get("animationCount")
    names = dict.fromkeys([*lvis, *_names(said.get("categories")), *_names(said.get("tags"))])
    licence = said.get("license")
    return AssetRef(
        uid=_uid(path),
        source="objaverse",
        licence=sys.intern(normal(licence if isinstance(licence, str) else None)),
        locator=path,
        triangles=faces if type(faces) is int and faces > 0 else None,
        animated=clips > 0 if type(clips) is int else None,
        categories=tuple(itertools.islice(names, MOST_NAMES)),
    )


def _names(entries: Any) -> list[str]:
    """Of [{"name": "animals-pets", ...}, ...]."""
    entries = entries if isinstance(entries, list) else []
    names = [entry.get("name") for entry in entries if isinstance(entry, dict)]
    return [sys.intern(uid_of(name[:LONGEST_NAME])) for name in names if isinstance(name, str) and name]


def _uid(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".glb")
