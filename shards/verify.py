"""Is a dataset what was written? Every byte of every shard, every row of the manifest, every file of the folder."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from .archive import END, split_part, walk
from .contract import Clip, Sample
from .dataset_json import read_dataset_json
from .layout import DATASET_JSON, FINISHED, LEDGER, MANIFEST, SHARDS, TEMPORARY, UNFINISHED
from .manifest import members_of, read_manifest, write_manifest
from .reader import Dataset
from .sample import decode, describe

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify(directory: str | PathLike[str], progress: Progress | None = None) -> list[Problem]:
    """Everything that is wrong with the dataset in `directory`; an empty list if nothing is.

    Every sample is read, hashed and decoded, and its manifest row computed anew; the rows of a shard must cover it from
    its first byte to its end mark. `progress(done, total)` is called after every sample.
    """
    root = Path(directory)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: give the one that `worldtrace render --out` wrote")
    problems = _files(root)
    try:
        config = read_dataset_json(root)
    except (ValueError, FileNotFoundError) as error:
        problems.append(Problem(DATASET_JSON, str(error)))
        config = {}
    if (root / LEDGER).exists():
        try:
            pq.read_table(root / LEDGER)
        except (ValueError, OSError) as error:  # pyarrow's errors are of these kinds
            problems.append(Problem(LEDGER, f"cannot be read: {_first_line(error)}"))
    try:
        manifest = read_manifest(root)
    except (ValueError, FileNotFoundError) as error:
        return [*problems, Problem(MANIFEST, str(error))]

    dataset = Dataset(root, config, manifest)
    rows = manifest.to_pylist()
    seen: set[str] = set()
    for i, row in enumerate(rows):
        if row["key"] in seen:
            problems.append(Problem(MANIFEST, f"key {row['key']} comes twice"))
        seen.add(row["key"])
        problems += _sample(dataset, i, row)
        if progress is not None:
            progress(i + 1, len(rows))
    ordered = sorted(rows, key=lambda row: (row["shard"], row["offset"]))
    if ordered != rows:
        problems.append(Problem(MANIFEST, "the rows are not in the order of (shard, offset)"))
    problems += _coverage(root, ordered)
    return problems


def repair(directory: str | PathLike[str], progress: Progress | None = None) -> tuple[int, list[Problem]]:
    """Write the manifest anew from the shards: (samples found, what could not be used). Nothing else is touched."""
    root = Path(directory)
    paths = sorted((root / SHARDS).glob("*.tar"))
    if not paths:
        raise FileNotFoundError(f"{root / SHARDS} holds no shard: there is nothing to rebuild the manifest from")
    rows: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for done, path in enumerate(paths, start=1):
        with path.open("rb") as file:
            of_shard = {
                "shard_bytes": path.stat().st_size,
                "shard_sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
        try:
            for key, offset, part in walk(path):
                where = f"{SHARDS}/{path.name}"
                place = {"shard": path.name, "offset": offset, "bytes": len(part), **of_shard}
                try:
                    if key in rows:
                        raise ValueError(f"{key} is already in {rows[key]['shard']}")
                    members = split_part(key, part, where)
                    row = {**describe(key, _frames(decode(key, members))), "members": members_of(members), "planes": []}
                    rows[key] = {**row, **place, "sha256": hashlib.sha256(part).hexdigest()}
                except ValueError as error:
                    problems.append(Problem(where, f"left out: {error}"))
        except ValueError as error:
            problems.append(Problem(f"{SHARDS}/{path.name}", str(error)))
        if progress is not None:
            progress(done, len(paths))
    write_manifest(root, rows.values())
    return len(rows), problems


def _files(root: Path) -> list[Problem]:
    problems = []
    for path in sorted(root.iterdir()):
        if path.name.endswith(TEMPORARY):
            problems.append(Problem(path.name, "left by an interrupted write; remove it if no job is running"))
        elif path.name not in FINISHED | UNFINISHED:
            problems.append(Problem(path.name, "does not belong to a dataset; move it elsewhere"))
    folder = root / SHARDS
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.endswith(TEMPORARY):
            problems.append(
                Problem(f"{SHARDS}/{path.name}", "left by an interrupted write; remove it if no job is running")
            )
        elif path.suffix != ".tar" or not path.is_file():
            problems.append(Problem(f"{SHARDS}/{path.name}", "is not a shard; move it elsewhere"))
    return problems


def _sample(dataset: Dataset, i: int, row: dict[str, Any]) -> list[Problem]:
    where = f"{SHARDS}/{row['shard']}"
    try:
        sample = dataset[i]
    except (ValueError, OSError) as error:
        return [Problem(where, str(error))]
    found = describe(row["key"], _frames(sample))
    wrong = [name for name, value in found.items() if not _agree(name, value, row[name])]
    if not wrong:
        return []
    what = ", ".join(f"{name} is {row[name]!r}, the sample says {found[name]!r}" for name in wrong)
    return [Problem(MANIFEST, f"{row['key']}: {what}")]


def _agree(name: str, found: Any, stated: Any) -> bool:
    if name in ("z_min", "z_max"):  # measured before the codec moved depths by up to its bound
        return bool(abs(found - stated) <= 1e-3 * abs(stated))
    return bool(found == stated)


def _coverage(root: Path, ordered: list[dict[str, Any]]) -> list[Problem]:
    """Shards and manifest name each other, and the rows of a shard leave no byte of it unnamed."""
    problems = []
    ends: dict[str, int] = {}
    for row in ordered:
        end = ends.get(row["shard"], 0)
        if row["offset"] != end:
            gap = f"bytes {end} to {row['offset']} belong to no sample of the manifest"
            problems.append(Problem(f"{SHARDS}/{row['shard']}", gap))
        ends[row["shard"]] = row["offset"] + row["bytes"]
    for path in sorted((root / SHARDS).glob("*.tar")):
        if path.name not in ends:
            problems.append(Problem(f"{SHARDS}/{path.name}", "is not in the manifest: foreign, or the manifest is old"))
            continue
        with path.open("rb") as file:
            file.seek(ends[path.name])
            if file.read(len(END) + 1) != END:
                what = f"does not end after its last sample, at byte {ends[path.name]}: truncated or added to"
                problems.append(Problem(f"{SHARDS}/{path.name}", what))
    return problems


def _frames(sample: Sample) -> tuple[Any, ...]:
    return sample.frames if isinstance(sample, Clip) else (sample,)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
