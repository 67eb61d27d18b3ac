"""A driver that is killed: another one goes on where it was, and the dataset is that of an undisturbed run."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import shards
from cluster.dataset import Means, render_dataset
from shards.store import open_store
from tests.cluster.boxes import SETTINGS, Boxes
from tests.cluster.conftest import COUNT, contents

ROOT = Path(__file__).parents[2]


@contextmanager
def driver(out: Path, scratch: str, *options: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "tests.cluster.driver", str(out), scratch, str(COUNT), *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def working(pid: int) -> set[int]:
    """The descendants that could render or write. Its agents do neither, and take a minute to end."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child for child in found - {pid} if b"Agent" not in command_of(child)}


def command_of(pid: int) -> bytes:
    """Empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_killed_driver_is_continued(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    source, out = Boxes(COUNT, scratch), tmp_path / "out"
    with driver(out, scratch, "hang") as process:
        assert until(lambda: any((out / "units").glob("0*.json")), 60), "no unit was committed"
        with pytest.raises(ValueError, match=rf"is being written by process {process.pid} on "):
            render_dataset([source], out, SETTINGS, shard_views=6)
        family = working(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert family
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 20), "its Ray outlived it"
    committed = len(list((out / "units").glob("0*.json")))
    assert 1 <= committed < COUNT // 3
    rendered = len(source.loads())

    summary = render_dataset([source], out, SETTINGS, shard_views=6)
    assert contents(out) == contents(undisturbed)
    assert summary.views == 2 * COUNT
    assert summary.fresh_views == 2 * (COUNT - 3 * committed)
    assert len(source.loads()) - rendered == COUNT - 3 * committed


def test_killed_at_random_moments(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    out, moments = tmp_path / "out", random.Random(0)
    for _ in range(5):
        with driver(out, scratch) as process:
            until(lambda process=process: process.poll() is not None, moments.uniform(3.0, 8.0))
    render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=Means(workers=1))
    assert contents(out) == contents(undisturbed)


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    store = open_store(tmp_path / "out")
    with store.claim():
        with pytest.raises(ValueError, match="is being written by process"), store.claim():
            pass
        assert (tmp_path / "out" / shards.layout.LOCK).exists()
    with store.claim():
        pass
    assert not (tmp_path / "out").exists()
