"""A folder of 3D files, or one file."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import render
from cluster.sources import stated
from cluster.sources.base import AssetRef, uid_of
from render import Mesh, Rejected
from render.limits import Limits
from shards import Origin, Regime, layout, read_dataset_json

LARGEST = Limits().file_bytes
READABLE = {".gltf", ".glb", ".obj", ".ply", ".stl"}
# Listed so that they end in the ledger as rejected, rather than pass unseen. Textures, .bin and .mtl are companions.
UNREADABLE = {".json", ".fbx", ".dae", ".usd", ".usda", ".usdc", ".usdz", ".blend", ".3ds"}

_BLOCK, _TIMED = 512, 8  # files hashed together, and those of them that are timed
_SLOW = 5e-4  # seconds a file; one of 20 KB in the page cache takes a fifth of that, half a megabyte all of it


@dataclass(frozen=True)
class FileSource:
    """Every 3D file below a folder, in the order of their paths, or the one file.

    An asset's sha256 is that of its main file (an .obj without its .mtl and textures). Licences come from a
    MANIFEST.csv (`stated.py`) in the folder or one of its three next parents; "unknown" otherwise. Hidden files and
    folders and the datasets of render jobs are skipped; links to folders are not followed, and a link to a file outside
    of the folder is rejected unopened. The path given may itself be a link.
    """

    path: str

    regime: ClassVar[Regime] = "object"
    remote: ClassVar[bool] = False
    own_terms: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> "FileSource":
        """A path, or `folder:` and a path, whatever it begins with."""
        text = text.removeprefix("folder:")
        path = Path(text)
        if not text or not path.exists():
            raise FileNotFoundError(f"source {text!r} does not exist: give a folder, a file, or procedural:objects")
        if path.is_file() and path.suffix.lower() not in READABLE | UNREADABLE:
            raise ValueError(
                f"source {text!r} is no 3D file: give one of {', '.join(sorted(READABLE))}, or a folder of them"
            )
        if uid_of(text) != text:
            raise ValueError(
                f"source {uid_of(text)!r} has a name that is no text, and dataset.json names it: rename it"
            )
        return cls(os.path.normpath(text))

    @property
    def text(self) -> str:
        plain = Path(self.path).as_posix()
        return f"folder:{plain}" if ":" in plain.partition("/")[0] else plain  # which would read as a scheme

    def assets(self) -> Iterable[AssetRef]:
        top = Path(self.path).absolute()
        root, paths = (top.parent, [top]) if top.is_file() else (top, _walk(top))
        if not paths:
            raise ValueError(f"folder {self.path!r} holds no 3D file ({', '.join(sorted(READABLE))}): check the path")
        listed = stated.Listed(iter(()))
        listed.refs = self._refs(root, paths, listed.remarks)
        return listed

    def _refs(self, root: Path, paths: list[Path], remarks: list[str]) -> Iterator[AssetRef]:
        table, said = _stated(root)
        if said and paths != [Path(self.path).absolute()]:  # of one file a table may say what it likes of others
            top, there = _resolved(root), {_resolved(path) for path in paths}
            inside = (
                path for path in said if path.suffix.lower() in READABLE | UNREADABLE and path.is_relative_to(top)
            )
            remarks += stated.unmatched(f"{table}", inside, there.__contains__)
        for path, sha256 in zip(paths, _in_order(self._hash, paths), strict=True):
            where = _resolved(path)
            what = said.get(where) or said.get(Path(str(where).replace("\\", "/")), stated.NOTHING)
            yield AssetRef(
                uid=uid_of(path.relative_to(root).as_posix()),
                source=uid_of(f"folder:{root.resolve().name}"),
                licence=what.licence,
                locator=str(path),
                sha256=sha256,
                triangles=what.triangles,
                animated=what.animated,
                categories=what.categories,
            )

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        raise AssertionError("every node reads the file where it lies")

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        path = Path(ref.locator)
        if not self._inside(path):
            raise Rejected("path_outside_folder", f"{ref.uid} is a link that leads out of the folder given")
        if path.is_file() and path.stat().st_size > LARGEST:
            raise Rejected("file_too_large", f"{path.name} has {path.stat().st_size} bytes; the limit is {LARGEST}")
        now = _sha256(path)
        if now is None:
            raise Rejected("unreadable", f"{ref.locator} is no regular file, or cannot be read on this node")
        if now != ref.sha256:
            raise Rejected("changed", f"{ref.locator} is not the file that was listed when the job started")
        return render.load(ref.locator), Origin(ref.uid, ref.source, now, ref.licence)

    def _hash(self, path: Path) -> str | None:
        return _sha256(path) if self._inside(path) else None

    def _inside(self, path: Path) -> bool:
        """Whether `path` is the file given, or in truth lies within the folder given."""
        top = Path(self.path).absolute()
        return path == top or _resolved(path).is_relative_to(_resolved(top))


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links: it cannot be opened either
        return path


def _walk(top: Path) -> list[Path]:
    """Depth first and sorted at every level, whatever order the file system gives."""
    found = []
    for folder, subfolders, names in os.walk(top):
        if _is_dataset(Path(folder), names):
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in READABLE | UNREADABLE:
                found.append(Path(folder) / name)
    return found


def _in_order(call: Callable[[Path], str | None], paths: Sequence[Path]) -> Iterator[str | None]:
    """`call` of each path, in the order of `paths`, by several threads where files take long: then they wait for disks
    and hash side by side. Threads that read small files at hand wait for Python's lock, and took twice as long as one
    (measured); hence each block begins with a few that are timed. What is finished early waits within its block.
    """
    threads = min(32, 2 * (os.cpu_count() or 1))  # a disk, and more so a network's, serves several at once
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), _BLOCK):
            block = paths[start : start + _BLOCK]
            began = time.perf_counter()
            yield from [call(path) for path in block[:_TIMED]]
            slow = time.perf_counter() - began > _SLOW * len(block[:_TIMED])
            yield from (pool.map if slow else map)(call, block[_TIMED:])


def _is_dataset(folder: Path, names: list[str]) -> bool:
    """Whether a render job writes or wrote `folder`, as when --out lies in the source: its records are no assets."""
    if layout.LOCK in names:
        return True
    try:
        return layout.DATASET_JSON in names and bool(read_dataset_json(folder))
    except (ValueError, OSError):
        return False  # something else of that name


def _sha256(path: Path) -> str | None:
    """None where it is no regular file (to open a FIFO would be to wait for its writer), too large to be loaded (a
    sparse file may announce years of reading) or cannot be read: the asset is then rejected in its turn, and the
    listing goes on.
    """
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST:
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _stated(folder: Path) -> tuple[Path | None, dict[Path, stated.Stated]]:
    """The nearest MANIFEST.csv, and absolute path -> what it says of it. ValueError where it cannot be understood."""
    folder = folder.resolve()
    for parent in [folder, *list(folder.parents)[: stated.PARENTS]]:
        manifest = parent / stated.NAME
        if manifest.is_file():
            with manifest.open("rb") as file:
                rows = stated.read_stated(file.read(stated.LARGEST + 1), str(manifest))
            found: dict[Path, stated.Stated] = {}
            for path, what in rows.items():
                stated.put(found, _resolved(parent / path), what)
            return manifest, found
    return None, {}
