"""What the cache promises: one download per shard, a limit that is kept, nothing removed that is in use or foreign.

Where a test is about a way in which another library fails, it names the report.
"""

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import shards
from shards.cache import ahead
from shards.cache import cache as caching
from shards.cache.cache import Cache, State
from shards.cache.copies import Copies
from shards.cache.file_locks import closed
from shards.store import web
from tests.shards.conftest import write_dataset
from tests.shards.readers import started
from tests.shards.web import Server, serving

SECONDS = 20.0  # by which anything that a test waits for has happened


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """31 shards of one sample each."""
    return write_dataset(tmp_path_factory.mktemp("many"), per_shard=1)


@pytest.fixture
def server(many: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(web, "_sleep", lambda seconds: None)
    with serving(many) as server:
        yield server


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
    """Of all files of the cache but its mark, whatever they are called at this moment."""
    for path in files(folder):
        with suppress(FileNotFoundError):
            if path.name != caching.MARK:
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


def filled(dataset: shards.Dataset) -> None:
    for row in range(len(dataset)):
        dataset.members(row)


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
    held = [dataset.copies.fetched(place) for place in (0, 1)]
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


# damage -----------------------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_copy_is_replaced(server: Server, many: Path, tmp_path: Path) -> None:
    """webdataset 226: a cached file that is not what it should be ends the run."""
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20))
    dataset.members(5)
    flip(dataset.copies.path(5), 700)
    expected = shards.open(many).members(5)
    assert dataset.members(5) == expected
    assert not dataset.copies.path(5).exists()
    assert dataset.members(5) == expected
    assert dataset.copies.path(5).read_bytes() == (many / "shards" / dataset.shards[5]).read_bytes()


def test_what_was_damaged_on_its_way_is_fetched_again(
    server: Server, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20))
    real, count = web.WebStore.pieces, [0]

    def flipped(self: web.WebStore, name: str, patience: float | None = None) -> Iterator[bytes]:
        count[0] += 1
        for piece in real(self, name, patience):
            yield bytes([piece[0] ^ 1]) + piece[1:] if count[0] == 1 else piece

    monkeypatch.setattr(web.WebStore, "pieces", flipped)
    dataset.members(5)
    assert count == [2]
    assert dataset.copies.path(5).read_bytes() == (many / "shards" / dataset.shards[5]).read_bytes()


@pytest.mark.parametrize("damage", ["flip", "truncate", "longer"])
def test_damage_in_the_store_costs_its_samples_alone(damage: str, dataset_copy: Path, tmp_path: Path) -> None:
    """webdataset 142: one truncated tar ends the run."""
    whole = [shards.open(dataset_copy).members(row) for row in range(31)]
    dataset = shards.open(dataset_copy, cache=Cache(tmp_path / "cache", 10 << 20))
    last = int(np.flatnonzero(dataset.shard_of == 1)[-1])
    path = dataset_copy / "shards" / dataset.shards[1]
    begin = int(dataset.selection.offset[last])
    if damage == "flip":
        flip(path, begin + 600)
    elif damage == "truncate":
        os.truncate(path, begin + 600)
    else:
        path.write_bytes(path.read_bytes() + b"more")
    for row in range(31):
        if row == last and damage != "longer":
            for _ in range(2):
                with pytest.raises(shards.CorruptSample, match=r"sha256 differs|truncated"):
                    dataset.members(row)
        else:
            assert dataset.members(row) == whole[row]
    assert dataset.copies.path(1).exists()
    kept = dataset.copies.path(1).read_bytes()
    expected = path.read_bytes()
    assert kept[: len(expected)] == expected[: len(kept)]


def test_a_missing_shard_is_told_of(dataset_copy: Path, tmp_path: Path) -> None:
    dataset = shards.open(dataset_copy, cache=Cache(tmp_path / "cache", 10 << 20))
    (dataset_copy / "shards" / dataset.shards[2]).unlink()
    with pytest.raises(FileNotFoundError, match=r"is missing, but the manifest names it"):
        dataset.members(30)
    assert not files(tmp_path / "cache", "*.part")
    dataset.members(0)


def test_a_manifest_of_version_1_knows_no_hashes_of_shards(server: Server, tmp_path: Path) -> None:
    whole = shards.open(server.url)
    table = whole.manifest
    place = table.column_names.index("shard_sha256")
    table = table.set_column(place, table.schema.field(place), pa.repeat(pa.scalar(""), len(table)))
    dataset = shards.Dataset(server.url, whole.config, table, Cache(tmp_path / "cache", 10 << 20))
    assert [dataset.members(row) for row in (0, 9)] == [whole.members(row) for row in (0, 9)]
    flip(dataset.copies.path(9), 700)
    assert dataset.members(9) == whole.members(9)


def test_a_store_that_was_written_anew_is_not_mistaken(dataset_copy: Path, tmp_path: Path) -> None:
    """The same names and sizes, and other contents: the copy of before is not used."""
    cache = Cache(tmp_path / "cache", 10 << 20)
    filled(shards.open(dataset_copy, cache=cache))
    views = [shards.open(dataset_copy)[row] for row in (1, 0)]
    shutil.rmtree(dataset_copy)
    rows = shards.write_shard(dataset_copy / "shards" / "000000-unit.tar", map(shards.encode, views))
    shards.write_manifest(dataset_copy, rows)
    shards.write_dataset_json(dataset_copy, {"layers": 6, "size": [24, 28]})
    dataset = shards.open(dataset_copy, cache=cache)
    assert [dataset[row].key for row in (0, 1)] == [view.key for view in views]


def test_a_store_that_is_out_of_reach_is_told_of_after_patience(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20, patience=300.0))
    dataset.members(0)

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(web, "_sleep", sleep)
    monkeypatch.setattr(web.time, "monotonic", lambda: clock[0])
    server.misbehave = lambda path, before: "503"
    with pytest.raises(OSError, match=r"the server fails or cannot be reached .*was asked for 300 s"):
        dataset.members(1)
    assert 200 < clock[0] <= 300
    assert dataset.members(0)  # what is here is read without the network
    assert not files(tmp_path, "*.part")


# ahead ------------------------------------------------------------------------------------------------------------


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


def test_a_dataset_that_is_gone_holds_nothing(server: Server, tmp_path: Path) -> None:
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20))
    dataset.expect(dataset.shards[:2])
    copies, threads = dataset.copies, dataset._ahead.threads  # type: ignore[union-attr]
    until(lambda: all(copies.path(place).exists() and pinned(copies, place) for place in range(2)))
    del dataset
    until(lambda: not any(thread.is_alive() for thread in threads))
    assert not pinned(copies, 0)


def pinned(copies: Copies, place: int) -> bool:
    """Whether somebody keeps a copy from being removed."""
    with copies.path(place).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_what_is_expected_stays_until_it_is_not(server: Server, tmp_path: Path) -> None:
    sizes = shards.open(server.url).shard_bytes
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", int(5 * sizes.max())))
    dataset.expect(dataset.shards[:3])
    until(lambda: all(dataset.copies.path(place).exists() and pinned(dataset.copies, place) for place in range(3)))
    for row in range(3, 31):
        dataset.members(row)
    assert all(dataset.copies.path(place).exists() for place in range(3))
    dataset.expect(dataset.shards[2:3])
    assert [pinned(dataset.copies, place) for place in range(3)] == [False, False, True]
    pid = os.fork()
    if not pid:  # a child holds nothing on, expects nothing, and reads
        try:
            until(lambda: not pinned(dataset.copies, 2))
            os._exit(0 if dataset.members(2) else 1)
        finally:
            os._exit(2)
    dataset.expect([])
    assert os.waitpid(pid, 0)[1] == 0


def test_what_is_needed_now_comes_before_what_is_expected(server: Server, tmp_path: Path) -> None:
    """All that there is room for is held for later; a sample of another shard is read all the same."""
    sizes = shards.open(server.url).shard_bytes
    dataset = shards.open(server.url, cache=Cache(tmp_path / "cache", int(sizes[:3].sum()), patience=SECONDS))
    dataset.expect(dataset.shards)
    until(lambda: all(dataset.copies.path(place).exists() and pinned(dataset.copies, place) for place in range(3)))
    assert len(copies_in(tmp_path)) == 3
    dataset.members(20)
    assert dataset.copies.path(20).exists()
    assert Cache(tmp_path / "cache", int(sizes[:3].sum())).bytes() <= sizes[:3].sum()


def test_a_manifest_cannot_lead_out_of_the_cache(many: Path, tmp_path: Path) -> None:
    """Nor ask for memory or room that nothing justifies."""
    table = shards.read_manifest(many)

    def changed(name: str, value: object) -> shards.Dataset:
        place = table.column_names.index(name)
        column = pa.array([value] * len(table), table.schema.field(name).type)
        new = table.set_column(place, table.schema.field(name), column)
        return shards.Dataset(many, {}, new, Cache(tmp_path / "cache", 10 << 20))

    for name in ("../../out.tar", "/out.tar", "..", ".hidden"):
        dataset = changed("shard", name)
        with pytest.raises(ValueError, match=r"its manifest names .* which is no shard"):
            dataset.expect(dataset.shards)
        with pytest.raises(shards.CorruptSample):
            dataset.members(0)
    for size in (-1, 0, 2**62):
        with pytest.raises(ValueError, match=r"is no shard|raise its limit"):
            changed("shard_bytes", size).members(0)
    for name in ("bytes", "offset"):
        for value in (-1, 2**40, 2**62):
            with pytest.raises(shards.CorruptSample):
                changed(name, value).members(0)
            with pytest.raises(shards.CorruptSample):
                shards.Dataset(many, {}, changed(name, value).manifest).members(0)
    assert {path.relative_to(tmp_path).parts[0] for path in files(tmp_path)} == {"cache"}


def test_what_goes_wrong_ahead_is_told_by_who_needs_it(
    dataset_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "RETRY", 0.01)
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


def test_a_copy_that_is_being_made_is_waited_for(server: Server, tmp_path: Path) -> None:
    one, two = (shards.open(server.url, cache=Cache(tmp_path / "cache", 10 << 20)) for _ in range(2))
    server.misbehave = lambda path, before: "stall" if "shards" in path and before == 0 else ""
    read: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda each=each: read.append(each.members(0))) for each in (one, two)]
    for thread in threads:
        thread.start()
    until(lambda: bool(downloads(server)))
    assert one.copies.fetched(0) is State.BUSY
    server.going_on.set()
    for thread in threads:
        thread.join(SECONDS)
    assert read == [shards.open(server.url).members(0)] * 2
    before = downloads(server)
    assert one.copies.fetched(0) is State.BUSY  # it came between a look and the lock: nothing is asked for
    assert downloads(server) == before
