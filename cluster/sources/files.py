"""A folder of 3D files, or one file."""

import csv
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import render
from cluster.sources.base import AssetRef
from render import Mesh, Rejected
from render.limits import Limits
from shards import Origin, Regime, layout, read_dataset_json

LARGEST = Limits().file_bytes
READABLE = {".gltf", ".glb", ".obj", ".ply", ".stl"}
# Listed so that they end in the ledger as rejected, rather than pass unseen. Textures, .bin and .mtl are companions.
UNREADABLE = {".json", ".fbx", ".dae", ".usd", ".usda", ".usdc", ".usdz", ".blend", ".3ds"}


@dataclass(frozen=True)
class FileSource:
    """Every 3D file below a folder, in the order of their paths, or the one file.

    An asset's sha256 is that of its main file (an .obj without its .mtl and textures). Licences come from the column
    `licence` of a MANIFEST.csv in the folder or one of its three next parents (column `path` relative to it);
    "unknown" otherwise. Hidden files and folders and the datasets of render jobs are skipped; links to folders are not
    followed, and a link to a file outside of the folder is rejected unopened. The path given may itself be a link.
    """

    path: str

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
        return cls(os.path.normpath(text))

    @property
    def text(self) -> str:
        plain = Path(self.path).as_posix()
        return f"folder:{plain}" if ":" in plain.partition("/")[0] else plain  # which would read as a scheme

    @property
    def regime(self) -> Regime:
        return "object"

    @property
    def remote(self) -> bool:
        return False

    @property
    def own_terms(self) -> bool:
        return True

    def assets(self) -> Iterable[AssetRef]:
        top = Path(self.path).absolute()
        root, paths = (top.parent, [top]) if top.is_file() else (top, _walk(top))
        if not paths:
            raise ValueError(f"folder {self.path!r} holds no 3D file ({', '.join(sorted(READABLE))}): check the path")
        licences = _licences(root)
        for path in paths:
            resolved = _resolved(path)
            yield AssetRef(
                uid=path.relative_to(root).as_posix(),
                source=f"folder:{root.resolve().name}",
                licence=licences.get(resolved, "unknown"),
                locator=str(path),
                sha256=_sha256(path) if self._inside(path) else None,
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


def _licences(folder: Path) -> dict[Path, str]:
    """Absolute path -> licence, from the nearest MANIFEST.csv that has the columns path and licence."""
    folder = folder.resolve()
    for parent in [folder, *list(folder.parents)[:3]]:
        manifest = parent / "MANIFEST.csv"
        if not manifest.is_file():
            continue
        with manifest.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.DictReader(file)
            if rows.fieldnames and {"path", "licence"} <= set(rows.fieldnames):
                return {
                    (parent / row["path"]).resolve(): row["licence"] or "unknown" for row in rows if row.get("path")
                }
    return {}
