"""The files of one asset as they travel through Ray's object store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.scratch import private_folder


@dataclass(frozen=True)
class Bundle:
    """Names relative to a folder, with "/", and contents (uint8, which Ray hands on without a copy). `main` is one of
    the names.
    """

    main: str
    files: tuple[tuple[str, np.ndarray], ...]

    @property
    def size(self) -> int:
        return sum(len(content) for _, content in self.files)


def packed(folder: Path, main: str) -> Bundle:
    """The regular files below `folder`, sorted by name; links are left behind. ValueError where `main` is none."""
    files: dict[str, np.ndarray] = {}
    for where, _, names in os.walk(folder):
        for path in (Path(where) / name for name in names):
            if path.is_file() and not path.is_symlink():
                files[path.relative_to(folder).as_posix()] = np.fromfile(path, np.uint8)
    main = Path(main).as_posix()
    if main not in files:
        raise ValueError(f"what was fetched holds no file {main!r}")
    return Bundle(main, tuple(sorted(files.items(), key=lambda file: file[0])))


@contextmanager
def unpacked(bundle: Bundle) -> Iterator[Path]:
    """The path of the main file in a private folder, for the length of the block."""
    with private_folder(bundle.size) as folder:
        for name, content in bundle.files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content.tofile(path)
        yield folder / bundle.main
