"""Reading a dataset: any sample by number or key with one `pread`, checked against the hash of its manifest row."""

import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .archive import split_part
from .contract import Sample
from .dataset_json import read_dataset_json
from .errors import CorruptSample
from .layout import SHARDS
from .manifest import hash_of, read_manifest
from .sample import decode
from .split import SPLITS


def open(path: str | PathLike[str], split: str | None = None) -> "Dataset":
    """The dataset under `path`, or one split of it. FileNotFoundError / ValueError where it is none."""
    directory = Path(path)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} is not a folder: give the one that `worldtrace render --out` wrote")
    if split is not None and split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    config = read_dataset_json(directory)
    table = read_manifest(directory)
    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
    return Dataset(directory, config, table)


class Dataset:
    """Samples in manifest order. No open files: it may be copied to worker processes, and forked."""

    def __init__(self, directory: Path, config: dict[str, Any], manifest: pa.Table) -> None:
        self.directory = directory
        self.config = config
        self.manifest = manifest.combine_chunks()
        self._offset = self.manifest["offset"].to_numpy()
        self._bytes = self.manifest["bytes"].to_numpy()

    def __len__(self) -> int:
        return len(self._offset)

    def __iter__(self) -> Iterator[Sample]:
        for row in range(len(self)):
            yield self[row]

    def __getitem__(self, which: int | str) -> Sample:
        """The sample of a row (negative: from the end) or key. CorruptSample: its bytes are not those written."""
        row = self.row_of(which)
        return decode(self.manifest["key"][row].as_py(), self.members(row))

    def __repr__(self) -> str:
        return f"Dataset({str(self.directory)!r}, {len(self)} samples)"

    @property
    def keys(self) -> list[str]:
        return list(self.manifest["key"].to_pylist())

    @cached_property
    def hash(self) -> str:
        """Identity of these samples in this order (shards/manifest.py); the order of training is a function of it."""
        return hash_of(self.manifest)

    @property
    def statistics(self) -> dict[str, Any] | None:
        """{"mean": [3], "std": [3], ...} of the z-score map, or None before `worldtrace shards stats`."""
        return self.config.get("statistics")

    def rows(self, split: str | None = None) -> np.ndarray:
        """Row numbers (n,) int64 of one split, or of all."""
        if split is None:
            return np.arange(len(self))
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
        return np.flatnonzero(pc.equal(self.manifest["split"], split).to_numpy(zero_copy_only=False))

    def row_of(self, which: int | str) -> int:
        """Row number of a key, or a row number brought into range. KeyError / IndexError where there is none."""
        if isinstance(which, str):
            if which not in self._row_of_key:
                raise KeyError(f"{self.directory} has no sample {which!r}: `worldtrace shards ls` lists them")
            return self._row_of_key[which]
        row = int(which)
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} samples in {self.directory}")
        return row % len(self)

    @cached_property
    def _row_of_key(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}

    def members(self, row: int) -> dict[str, bytes]:
        """Suffix -> bytes of the sample of a row, read from its shard and checked against the manifest."""
        key, shard = self.manifest["key"][row].as_py(), self.manifest["shard"][row].as_py()
        path = self.directory / SHARDS / shard
        if os.path.basename(shard) != shard:
            raise CorruptSample(f"{key}: the manifest names {shard!r}, which is not the plain name of a shard")
        where = f"{key} in {path} at {self._offset[row]}"
        part = _pread(path, int(self._offset[row]), int(self._bytes[row]))
        if hashlib.sha256(part).hexdigest() != self.manifest["sha256"][row].as_py():
            raise CorruptSample(
                f"{where}: the bytes are not those of the manifest (sha256 differs): {_anew(path)}, and see what else "
                "is damaged with `worldtrace shards verify`"
            )
        return split_part(key, part, where)


def _pread(path: Path, offset: int, size: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing, but the manifest names it: restore it from a copy, run the same render command again, "
            "or rebuild the manifest without it with `worldtrace shards verify DIR --repair`"
        ) from None
    try:
        if offset < 0 or size < 0 or offset + size > os.fstat(handle).st_size:
            raise CorruptSample(
                f"{path} ends before byte {offset + size} that the manifest names: it is truncated: {_anew(path)}"
            )
        return os.pread(handle, size, offset)
    finally:
        os.close(handle)


def _anew(path: Path) -> str:
    """How to get a damaged shard back; the render job makes what is missing anew."""
    return f"restore the shard from a copy, or delete it ({path}) and run the same render command again"
