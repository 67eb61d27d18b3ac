"""What is fetched ahead of need: in order, few at a time, and never in the way of what is needed now."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import shards
from shards.cache import ahead
from shards.cache import cache as caching
from shards.cache.cache import Cache
from shards.cache.expected import is_list, ranks
from shards.cache.file_locks import locked
from tests.shards.cache.folder import SECONDS, copies_in, downloads, until
from tests.shards.web import Server


def test_two_downloads_run_ahead_in_order(server: Server, tmp_path: Path) -> None:
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20))
    names = [dataset.shards[place] for place in (9, 4, 20, 1)]
    server.misbehave = lambda path, before: "stall" if "shards" in path and before == 0 else ""
    dataset.expect(names)
    until(lambda: len(downloads(server)) == 2)
    time.sleep(0.05)
    assert sorted(downloads(server)) == sorted(f"/shards/{name}" for name in names[:2])
    server.going_on.set()
    until(lambda: len([path for path in copies_in(tmp_path) if not path.name.endswith(".part")]) == 4)
    before = dict(downloads(server))
    dataset.members(9)
    assert downloads(server) == before
    with pytest.raises(ValueError, match=r"has no shard 'x.tar'"):
        dataset.expect(["x.tar"])


def here(dataset: shards.Dataset) -> list[int]:
    return [place for place in range(len(dataset.shards)) if dataset.copies.path(place).exists()]


def test_a_dataset_that_is_gone_expects_nothing(server: Server, tmp_path: Path) -> None:
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20))
    dataset.expect(dataset.shards[:2])
    assert set(ranks(tmp_path / "cache")) == {dataset.copies.tag(place) for place in (0, 1)}
    copies, threads = dataset.copies, dataset._ahead.threads  # type: ignore[union-attr]
    until(lambda: all(copies.path(place).exists() for place in (0, 1)))
    del dataset
    until(lambda: not any(thread.is_alive() for thread in threads))
    assert not ranks(tmp_path / "cache")


def test_what_is_expected_stays_until_it_is_not(server: Server, tmp_path: Path) -> None:
    """While others read all they want, and other room is left; a child of a fork expects nothing, and reads."""
    limit = int(5 * shards.open(server.url).shard_bytes.max())
    dataset, other = (shards.open(server.url, cache=Cache(tmp_path / "cache", limit)) for _ in range(2))
    dataset.expect(dataset.shards[:3])
    until(lambda: here(dataset) == [0, 1, 2])
    for reader in (dataset, other):
        for row in range(3, 31):
            reader.members(row)
        assert here(dataset)[:3] == [0, 1, 2]
    dataset.expect(dataset.shards[2:3])
    for row in range(3, 31):
        dataset.members(row)
    assert here(dataset)[:2] == [2, here(dataset)[1]]
    pid = os.fork()
    if not pid:
        try:
            dataset.members(2)
            until(lambda: not ranks(tmp_path / "cache"))
            os._exit(0)
        finally:
            os._exit(1)
    dataset.expect([])
    assert os.waitpid(pid, 0)[1] == 0


def test_of_those_who_were_killed_nothing_is_expected(server: Server, tmp_path: Path) -> None:
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20))
    pid = os.fork()
    if not pid:
        try:
            dataset.expect(dataset.shards[:3])
            signal.pause()
        finally:
            os._exit(1)
    until(lambda: len(ranks(tmp_path / "cache")) == 3)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not ranks(tmp_path / "cache")
    dataset.expect(dataset.shards[:1])
    assert len([name for name in os.listdir(tmp_path / "cache") if is_list(name)]) == 1  # its file is taken over


def test_what_is_needed_now_comes_before_what_is_expected(server: Server, tmp_path: Path) -> None:
    """All that there is room for is expected, here and elsewhere; a sample of another shard is read all the same, in
    the place of the one that is needed last.
    """
    sizes = shards.open(server.url).shard_bytes
    limit = int(sizes[:3].sum() + sizes[20] - 1)
    mine, other = (shards.open(server.url, cache=Cache(tmp_path / "cache", limit, patience=2.0)) for _ in range(2))
    mine.expect([mine.shards[place] for place in (1, 0, 2)])
    until(lambda: here(mine) == [0, 1, 2])
    for reader in (other, mine):
        begin = time.monotonic()
        reader.members(20)
        assert time.monotonic() - begin < 1.0
        assert here(mine) == [0, 1, 20]
    time.sleep(0.2)
    assert here(mine) == [0, 1, 20]  # and is not fetched again ahead, which would go on for ever
    assert Cache(tmp_path / "cache", limit).bytes() <= limit
    assert mine.members(2)


def test_readers_far_apart_do_not_starve_each_other(server: Server, tmp_path: Path) -> None:
    """What a run accepts at its start is room for two windows; its workers may be at four of them at a time, and one
    that has filled its queue waits for the one that has not.
    """
    sizes = shards.open(server.url).shard_bytes
    limit = int(2 * sizes[:22].max())
    readers = []
    for first in range(0, 12, 2):
        pid = os.fork()
        if not pid:
            try:
                dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", limit, patience=5.0))
                dataset.expect(dataset.shards[first : first + 2])
                for row in (first, first + 1, first, first + 1):
                    dataset.members(row)
                if first:
                    time.sleep(60)  # its queue is full, and it expects on
                dataset.expect(dataset.shards[20:22])
                dataset.members(20)
                dataset.members(21)
                os._exit(0)
            finally:
                os._exit(1)
        readers.append(pid)
    assert os.waitpid(readers[0], 0)[1] == 0
    for pid in readers[1:]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("call", ["open", "close"])
def test_a_forked_child_keeps_no_lock(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even of a file that another thread opens or closes at that very moment."""
    cache = Cache(tmp_path / "cache", 1 << 20)
    within = threading.Event()
    real: Any = {"open": os.open, "close": os.close}[call]

    def slow(what: object, *arguments: object) -> object:
        if threading.current_thread() is not thread:
            return real(what, *arguments)
        if call == "close":
            within.set()
            time.sleep(0.2)
        result = real(what, *arguments)
        if call == "open":
            within.set()
            time.sleep(0.2)
        return result

    def accounts() -> None:
        with cache.accounts():
            pass

    thread = threading.Thread(target=accounts)
    monkeypatch.setattr(os, call, slow)
    thread.start()
    within.wait(SECONDS)
    pid = os.fork()
    if not pid:
        signal.pause()
    try:
        thread.join(SECONDS)
        assert not thread.is_alive()
        with (tmp_path / "cache" / caching.ACCOUNTS).open() as file:
            until(lambda: locked(file.fileno()))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_what_goes_wrong_ahead_is_told_by_who_needs_it(
    dataset_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "FAILED", 0.01)
    dataset = shards.open(dataset_copy, cache=Cache(tmp_path / "cache", 10 << 20))
    (dataset_copy / "shards" / dataset.shards[0]).unlink()
    dataset.expect(dataset.shards)
    until(lambda: dataset.copies.path(2).exists() and dataset.copies.path(1).exists())
    with pytest.raises(FileNotFoundError, match="is missing"):
        dataset.members(0)
    dataset.members(12)


def test_few_run_ahead_at_a_time_on_a_machine(server: Server, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10 << 20)
    server.misbehave = lambda path, before: "stall" if "shards" in path else ""
    many = [shards.open(server.url, cache=cache) for _ in range(caching.SLOTS)]
    for each in many:
        each.expect(each.shards)
    until(lambda: len(downloads(server)) == caching.SLOTS)
    time.sleep(0.2)
    assert len(downloads(server)) == caching.SLOTS
    server.misbehave = lambda path, before: ""
    many[0].members(30)  # what is needed now waits for none of them
    server.going_on.set()
    until(lambda: len([path for path in copies_in(tmp_path) if not path.name.endswith(".part")]) == 31)
    assert set(downloads(server)) == {f"/shards/{name}" for name in many[0].shards}


def test_without_a_cache_nothing_is_expected(server: Server) -> None:
    dataset = shards.open(server.url)
    dataset.expect(dataset.shards)
    assert not downloads(server)
    with pytest.raises(ValueError, match="opened without a cache"):
        _ = dataset.copies
