"""A minute of bad luck for the cache: processes are killed at random, the server fails, room is short."""

import random
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

import shards
from shards import Cache
from tests.shards.conftest import write_dataset
from tests.shards.readers import started
from tests.shards.web import serving

SECONDS = 40.0


@pytest.mark.slow
def test_kills_failures_and_little_room(tmp_path: Path) -> None:
    """Whatever happens, nobody waits for the dead, the limit holds, and who is left alone reads all samples rightly."""
    chance = random.Random(5)
    with serving(write_dataset(tmp_path / "data", per_shard=1)) as server:
        troubles = ["500", "cut", "longer"] + 27 * [""]
        server.misbehave = lambda path, before: chance.choice(troubles) if "shards" in path else ""
        folder, sizes = tmp_path / "cache", shards.open(server.url).shard_bytes
        limit = 8 * int(sizes.max())
        cache = Cache(folder, limit)
        alive: list[BaseProcess] = []
        ended = killed = 0
        largest = 0
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            while len(alive) < 5:
                alive += started(1, server.url, folder, limit, ahead=chance.random() < 0.7)
            time.sleep(0.05)
            with cache.accounts():
                there = 0
                for path in folder.rglob("*"):
                    with suppress(FileNotFoundError):
                        there += path.stat().st_size if "@" in path.name else 0
            largest = max(largest, there)
            assert there <= limit
            if chance.random() < 0.04:
                chance.choice(alive).kill()
                killed += 1
            for process in [each for each in alive if not each.is_alive()]:
                alive.remove(process)
                assert process.exitcode in (0, -9)
                ended += process.exitcode == 0
        for process in alive:
            process.kill()
            process.join(30)
        assert ended > 3
        assert killed > 5
        assert largest > limit / 2
        server.misbehave = lambda path, before: ""
        (last,) = started(1, server.url, folder, limit, ahead=True)
        last.join(30)
        assert last.exitcode == 0
        plain, cached = shards.open(server.url), shards.open(server.url, cache=cache)
        assert [cached.members(row) for row in range(31)] == [plain.members(row) for row in range(31)]
        assert not list(folder.rglob("*.part"))
