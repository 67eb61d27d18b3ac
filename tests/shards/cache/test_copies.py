"""What the cache promises: one download per shard, a limit that is kept, nothing removed that is in use or foreign.

Where a test is about a way in which another library fails, it names the report.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import shards
from shards.cache import cache as caching
from shards.cache.cache import Cache, State
from shards.cache.expected import is_list
from shards.cache.file_locks import closed
from tests.shards.cache.folder import SECONDS, copies_in, downloads, files, filled, until
from tests.shards.readers import started
from tests.shards.web import Server

# four processes on one folder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [True, False])
def test_four_processes_download_each_shard_once(ahead: bool, server: Server, tmp_path: Path) -> None:
    processes = started(4, server.url, tmp_path / "cache", 10 << 20, ahead)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert downloads(server) == {f"/shards/{name}": 1 for name in shards.open(server.url).shards}
    assert len(copies_in(tmp_path)) == 31
    assert not files(tmp_path, "*.part")


def test_the_limit_is_kept_at_every_moment(server: Server, tmp_path: Path) -> None:
    """Four processes want 31 shards each, and there is room for six of the largest."""
    sizes = shards.open(server.url).shard_bytes
    limit = 6 * int(sizes.max())
    assert limit < sizes.sum() / 2
    cache = Cache(tmp_path / "cache", limit)
    processes = started(4, server.url, tmp_path / "cache", limit, True)
    seen = []
    while any(process.is_alive() for process in processes):
        with cache.accounts():  # nothing comes, goes or is renamed meanwhile
            seen.append(sum(facts.st_size for facts in still_there(tmp_path)))
        time.sleep(0.002)
    assert [process.exitcode for process in processes] == [0] * 4
    assert limit - sizes.max() < max(seen) <= limit
    assert sum(downloads(server).values()) >= 31


def still_there(folder: Path) -> Iterator[os.stat_result]:
    """Of all files of the cache but its mark and the lists of what is expected, whatever they are called now."""
    for path in files(folder):
        with suppress(FileNotFoundError):
            if path.name != caching.MARK and not is_list(path.name):
                yield path.stat()


# a process that dies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waiting", [True, False])
def test_a_killed_downloader_keeps_nobody_waiting(waiting: bool, server: Server, tmp_path: Path) -> None:
    """mosaicml-streaming 573 and 781, litdata 398 and 452: what a killed run left blocks the next one."""
    server.misbehave = lambda path, before: "stall" if "shards" in path and before == 0 else ""
    (process,) = started(1, server.url, tmp_path / "cache", 10 << 20, False)
    until(lambda: bool(downloads(server)))
    (path,) = downloads(server)
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20))
    (row,) = np.flatnonzero(dataset.shard_of == dataset.shards.index(path.rpartition("/")[2]))
    read: list[dict[str, bytes]] = []
    thread = threading.Thread(target=lambda: read.append(dataset.members(int(row))))
    if waiting:
        thread.start()  # it waits for the other process
        time.sleep(0.1)
        assert not read
    process.kill()
    process.join(60)
    assert waiting or files(tmp_path, "*.part")
    if not waiting:
        thread.start()
    thread.join(SECONDS)
    assert read == [shards.open(server.url).members(int(row))]
    assert not files(tmp_path, "*.part")
    assert server.count(path) == 3  # the killed one, this one, and the comparison


def test_half_a_download_of_a_dead_process_is_swept(server: Server, tmp_path: Path) -> None:
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20))
    path = dataset.copies.path(3)
    path.parent.mkdir()
    half = path.parent / f".{path.name}.part"
    half.write_bytes(bytes(int(dataset.shard_bytes[3])))
    foreign = path.parent / ".mine.tar.part"
    foreign.write_bytes(b"mine")
    assert Cache(tmp_path / "cache", 10 << 20).bytes() == 0
    assert not half.exists()
    half.write_bytes(b"half")
    dataset.members(0)
    assert not half.exists()
    assert foreign.read_bytes() == b"mine"


# what is never removed --------------------------------------------------------------------------------------------


def test_foreign_files_are_left_alone_and_not_counted(server: Server, tmp_path: Path) -> None:
    """mosaicml-streaming 988 removes the only copy of a dataset, litdata 93 files of others."""
    limit = 3 * int(shards.open(server.url).shard_bytes.max())
    folder = tmp_path / "cache"
    dataset = shards.open(server.url, cache=Cache(folder, limit))
    dataset.members(0)
    (copy,) = copies_in(folder)
    mine = [
        folder / "shards" / "000000-unit.tar",
        folder / "notes.txt",
        copy.parent / "000001-unit.tar",
        copy.parent / f"x{copy.name}",  # looks like a copy, but no cache would call one so
        folder / ("0" * 32) / copy.name,  # a copy that was carried to another place
    ]
    sizes = {path: copy.stat().st_size if "@" in path.name else 2 * limit for path in mine}
    for path, size in sizes.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, (1, 1))  # unused for longer than anything else
    other = copy.parent / "linked"
    other.symlink_to(mine[1])
    filled(dataset)
    assert {path: path.stat().st_size for path in mine} == sizes
    assert other.is_symlink()
    assert Cache(folder, limit).bytes() <= limit


def test_a_dataset_in_a_folder_is_never_evicted(many: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(many, tmp_path / "only"))
    before = {path: path.read_bytes() for path in files(folder)}
    with pytest.raises(ValueError, match=r"only holds 'dataset.json' and is no cache: give an empty or a new folder"):
        Cache(folder, 1 << 20)
    with pytest.raises(ValueError, match="is no cache"):
        Cache(folder / "shards", 1 << 20)
    dataset = shards.open(folder, cache=Cache(tmp_path / "cache", 3 * int(shards.open(folder).shard_bytes.max())))
    filled(dataset)
    assert {path: path.read_bytes() for path in files(folder)} == before
    assert 0 < len(copies_in(tmp_path / "cache")) < 31


def test_the_copy_unused_for_the_longest_goes_first(server: Server, tmp_path: Path) -> None:
    sizes = shards.open(server.url).shard_bytes
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", int(sizes[:3].sum() + sizes[3] - 1)))
    for place in (0, 1, 2, 0):
        dataset.members(place)
        time.sleep(0.01)  # file systems tell times that are closer apart than a tick as one
    dataset.members(3)
    there = [place for place in range(4) if dataset.copies.path(place).exists()]
    assert 1 not in there
    assert {0, 3} <= set(there)


def test_what_is_in_use_stays(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """litdata 846: one worker removes a chunk that another still needs. Here two others hold all there is room for."""
    sizes = shards.open(server.url).shard_bytes
    cache = Cache(tmp_path / "cache", int(sizes[:2].sum()), patience=0.2)
    dataset = shards.open(server.url, cache=cache)
    held = [dataset.copies.fetched(place, now=True) for place in (0, 1)]
    assert all(isinstance(each, int) for each in held)
    with pytest.raises(OSError, match=r"the cache .* has no room for 000002-unit.tar .*are in use: raise its limit"):
        dataset.members(2)
    assert [dataset.copies.path(place).exists() for place in range(3)] == [True, True, False]
    assert not files(tmp_path, "*.part")
    closed(held[0])  # type: ignore[arg-type]
    closed(held[1])  # type: ignore[arg-type]
    dataset.members(2)


# limits -----------------------------------------------------------------------------------------------------------


def test_what_cannot_fit_is_said_at_the_start(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mosaicml-streaming 417 waits for ever, 475 fails with a meaningless error."""
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 2000))
    with pytest.raises(ValueError, match=r"may take 2 KB, but 000004-unit.tar needs .* KB: raise its limit"):
        dataset.members(4)
    with pytest.raises(ValueError, match=r"may take 2 KB, but three windows needs 3 MB: raise its limit, or"):
        Cache(tmp_path / "cache", 2000).check(3_000_000, "three windows")
    Cache(tmp_path / "cache", 2000).check(2000)
    with pytest.raises(ValueError, match="a cache of 0 bytes holds nothing"):
        Cache(tmp_path / "cache", 0)
    with pytest.raises(ValueError, match=r"may take 1000 TB, but its disk has .* left beside 0 bytes of copies"):
        Cache(tmp_path / "cache", 10**15)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file cannot be used \(.*\): give another folder"):
        Cache(tmp_path / "file", 1000)


def test_a_disk_that_others_have_filled(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is reserved on the disk before the first byte is asked for; old copies make room for new ones."""
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20, patience=0.1))
    dataset.members(0)
    real = os.posix_fallocate

    def full(handle: int, begin: int, size: int) -> None:
        if len([path for path in copies_in(tmp_path) if not path.name.endswith(".part")]):
            raise OSError(28, "No space left on device")
        real(handle, begin, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    dataset.members(1)
    assert [dataset.copies.path(place).exists() for place in (0, 1)] == [False, True]
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: full(0, 0, 0))
    server.requests.clear()
    held = dataset.copies.held(1)
    assert held is not None
    with pytest.raises(OSError, match="all that its disk has, are in use"):
        dataset.members(2)
    closed(held)
    assert not downloads(server)


def test_two_datasets_share_a_cache(server: Server, many: Path, tmp_path: Path) -> None:
    """webdataset 463: shards of one name in two datasets become one file."""
    other = tmp_path / "other"
    shards.write_dataset_json(other, {"layers": 6, "size": [24, 28]})
    shards.write_manifest(
        other, shards.write_shard(other / "shards" / "000000-unit.tar", [shards.encode(shards.open(many)[7])])
    )
    cache = Cache(tmp_path / "cache", 10 << 20)
    one, two = shards.open(server.url, cache=cache), shards.open(other, cache=cache)
    assert one.shards[0] == two.shards[0]
    assert one.members(0) == shards.open(many).members(0)
    assert two.members(0) == shards.open(many).members(7)
    assert one.members(0) == shards.open(many).members(0)


def test_a_copy_that_is_being_made_is_waited_for(server: Server, tmp_path: Path) -> None:
    one, two = (shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20)) for _ in range(2))
    server.misbehave = lambda path, before: "stall" if "shards" in path and before == 0 else ""
    read: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda each=each: read.append(each.members(0))) for each in (one, two)]
    for thread in threads:
        thread.start()
    until(lambda: bool(downloads(server)))
    assert one.copies.fetched(0, now=True) is State.BUSY
    server.going_on.set()
    for thread in threads:
        thread.join(SECONDS)
    assert read == [shards.open(server.url).members(0)] * 2
    before = downloads(server)
    assert one.copies.fetched(0, now=True) is State.BUSY  # it came between a look and the lock: nothing is asked for
    assert downloads(server) == before
