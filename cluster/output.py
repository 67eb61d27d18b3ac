"""The folder that a job writes: claimed by one driver at a time, belonging to one config, free of leftovers."""

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards import layout


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; ValueError naming the holder if another job has it.

    The kernel drops the lock when its process dies, however it dies. Needs a file system with flock: local ones, NFS,
    CephFS, Lustre mounted with flock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / layout.LOCK
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another job"
                raise ValueError(f"{folder} is being written by {holder}: wait for it, or give another --out") from None
            if not _is_still(path, file.fileno()):
                continue  # its last holder removed the file between our open and our lock
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed jobs left. Call it under `claim`."""
    for place in (folder, folder / layout.SHARDS, folder / layout.UNITS):
        for path in place.glob(f".*{layout.TEMPORARY}"):
            path.unlink(missing_ok=True)


def refuse_strangers(folder: Path, shards: set[str]) -> None:
    """ValueError where the folder holds what no run of this job can have left. `shards` are the plan's names."""
    known = layout.FINISHED | layout.UNFINISHED
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in known)
    if strangers and not (folder / layout.DATASET_JSON).exists():
        raise ValueError(f"{folder} holds {strangers[0]!r} and no dataset: give an empty or a new folder as --out")
    if strangers := sorted(path.name for path in (folder / layout.SHARDS).glob("*.tar") if path.name not in shards):
        raise ValueError(f"{folder} holds the shard {strangers[0]} of another job: give another --out")


def first_difference(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first setting in which two configs differ, for people: "render.views is 4 there and 8 here"; None if none."""
    for key in [*asked, *(key for key in stored if key not in asked)]:
        there, here = stored.get(key), asked.get(key)
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            if nested := first_difference(there, here, f"{prefix}{key}."):
                return nested
        elif there != here:
            return f"{prefix}{key} is {_brief(there)} there and {_brief(here)} here"
    return None


def _brief(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
