"""What lies in the folder of a cache, and what a server was asked for."""

import time
from collections.abc import Callable
from pathlib import Path

import shards
from tests.shards.web import Server

SECONDS = 20.0  # by which anything that a test waits for has happened


def files(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


def copies_in(folder: Path) -> list[Path]:
    return [path for path in files(folder) if "@" in path.name]


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def downloads(server: Server) -> dict[str, int]:
    return {path: server.count(path) for path, _ in server.requests if path.startswith("/shards/")}


def filled(dataset: shards.Dataset) -> None:
    for row in range(len(dataset)):
        dataset.members(row)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
