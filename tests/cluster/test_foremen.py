"""Several processes hand out the work of one job: the dataset of one, whatever becomes of them."""

import os
import random
import signal
import threading
import time
from collections import deque
from pathlib import Path

import pytest

from cluster import foremen
from cluster.crew import WORKERS_PER_FOREMAN, Sizes
from cluster.dataset import Means, render_dataset
from cluster.ledger import Ledger
from tests.cluster.boxes import SETTINGS, Boxes
from tests.cluster.conftest import COUNT, contents, ledger
from tests.cluster.test_kill import command_of, driver, until, working

TWO = Means(workers=2, foremen=2)


def actors(title: str, driver: int | None = None) -> set[int]:
    """The processes of actors of this class under a driver, by default this process."""
    return {pid for pid in working(driver or os.getpid()) if command_of(pid).startswith(f"ray::{title}".encode())}


def all_gone() -> bool:
    return until(lambda: not any(actors(title) for title in ("Foreman", "Worker", "Committer", "Fetcher")), 10)


def test_small_clusters_need_none_and_large_ones_a_share_each() -> None:
    for nodes in (1, 8, 64, 512):
        sizes = Sizes.of({"CPU": 16.0 * nodes, "GPU": 1.0 * nodes}, Means(), parted=True, remote=True, to_do=10**6)
        count = sizes.foremen(Means(), 10**6)
        assert count == max(1, 16 * nodes // WORKERS_PER_FOREMAN)
        shares = [sizes.share(index, count) for index in range(count)]
        for kind in ("workers", "renderers", "committers", "fetchers"):
            of_kind = [getattr(share, kind) for share in shares]
            assert sum(of_kind) == max(getattr(sizes, kind), count)
            assert min(of_kind) >= 1
            assert max(of_kind) - min(of_kind) <= 1
    few = Sizes(workers=3, renderers=0, fetchers=0, committers=1)
    assert few.foremen(Means(foremen=8), 100) == 3
    assert few.foremen(Means(foremen=8), 2) == 2
    assert few.share(2, 3) == Sizes(1, 0, 0, 1)


def test_foremen_are_done_together() -> None:
    """The driver's side alone: foremen of very different pace, a tick at a time. None is idle for long before all are
    done, and all units are given, once and in the order of the plan.
    """
    paces = [3.0, 40.0, 200.0, 200.0]
    left, given = deque(range(20_000)), []
    crew = [foremen._Hired(None, index, ready=1) for index in range(len(paces))]
    idle, ticks = [0] * len(paces), 0
    while left or any(one.waiting for one in crew):
        ticks += 1
        for index, (one, pace) in enumerate(zip(crew, paces)):
            count = min(len(left), one.wants(len(left), len(crew)))
            given += [left.popleft() for _ in range(count)]
            one.waiting += count
            one.since = time.monotonic() - 1.0
            idle[index] += not one.waiting
            one.heard(foremen.Report(fresh=max(0, one.waiting - int(pace)), ready=1))
    assert given == list(range(20_000))
    assert max(idle) <= 0.1 * ticks
    assert ticks <= 20_000 / sum(paces) + 10


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("means", "remote"),
    [
        pytest.param(TWO, False, id="two"),
        # of which one has no place before another is done
        pytest.param(Means(workers=3, foremen=3, fetchers=3, asset_timeout=5.0), True, id="three, fetched"),
    ],
)
def test_the_number_of_foremen_changes_no_byte(
    means: Means, remote: bool, undisturbed: Path, tmp_path: Path, scratch: str
) -> None:
    source = Boxes(COUNT, scratch, {1: "crash once"}, remote=remote)
    summary = render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=means)
    assert contents(tmp_path / "out") == contents(undisturbed)
    assert (summary.done, summary.views, summary.fresh_views) == (COUNT, 2 * COUNT, 2 * COUNT)
    assert len(source.loads()) == COUNT + 1
    assert [(row["asset"], row["status"], row["attempt"]) for row in ledger(tmp_path / "out")][1:3] == [
        ("box-01", "failed", 1),
        ("box-01", "done", 2),
    ]
    assert all_gone()


@pytest.mark.usefixtures("local_ray")
def test_a_foreman_that_is_killed_costs_what_was_not_committed(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    """At any moment; beside an asset that is rejected and one that crashes."""
    source = Boxes(24, scratch, {5: "reject", 10: "crash"}, seconds=0.1)
    moments, killed = random.Random(), []

    def kill() -> None:
        until(lambda: len(actors("Foreman")) == 2 and len(source.loads()) > 2, 20)
        time.sleep(moments.uniform(0.0, 1.0))
        if alive := sorted(actors("Foreman")):
            os.kill(moments.choice(alive), signal.SIGKILL)
            killed.append(alive)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = render_dataset([source], tmp_path / "out", SETTINGS, shard_views=4, means=TWO)
    killer.join()
    assert killed
    render_dataset([Boxes(24, scratch, {5: "reject", 10: "crash"})], tmp_path / "one", SETTINGS, shard_views=4)
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    # counted once each, though some were rendered twice
    assert (summary.assets, summary.done, summary.views, summary.fresh_views) == (24, 22, 44, 44)
    assert (summary.rejected, summary.failed) == ({"no_faces": 1}, {"crashed": 1})
    assert all_gone()


class Lemming(foremen.Foreman):
    """Dies at once."""

    def work(self, units: list) -> foremen.Report:
        os._exit(1)


@pytest.mark.usefixtures("local_ray")
def test_foremen_that_cannot_live_end_the_job_in_one_sentence(
    tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foremen, "LOSSES", 0)
    monkeypatch.setattr(foremen, "Foreman", Lemming)
    with pytest.raises(ValueError, match="foremen die one after another, 3 since the last unit") as error:
        render_dataset([Boxes(COUNT, scratch)], tmp_path / "out", SETTINGS, shard_views=6, means=TWO)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    assert all_gone()


@pytest.mark.usefixtures("local_ray")
def test_what_ends_the_job_of_one_ends_the_job(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    """A backend that cannot run, and a shard that cannot be written."""
    out = tmp_path / "out"
    settings = SETTINGS.model_copy(update={"backend": "pyrender"})
    with pytest.raises(ValueError, match="--backend pyrender") as error:
        render_dataset([Boxes(COUNT, scratch)], out, settings, shard_views=6, means=TWO)
    assert "\n" not in str(error.value)
    assert not out.exists()
    last = sorted((undisturbed / "shards").iterdir())[-1].name
    (out / "shards" / last / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=last):
        render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=TWO)
    assert all_gone()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_what_foremen_committed_is_folded_once_the_driver_sees_it(
    undisturbed: Path, tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where the driver may believe for a while that a record is not there."""
    listed, asked = Ledger.units, []

    def late(book: Ledger) -> set[str]:
        asked.append(time.monotonic())
        return listed(book) if len(asked) > 3 else set()

    monkeypatch.setattr(Ledger, "units", late)
    render_dataset([Boxes(COUNT, scratch)], tmp_path / "out", SETTINGS, shard_views=6, means=TWO)
    assert len(asked) > 3
    assert contents(tmp_path / "out") == contents(undisturbed)

    monkeypatch.setattr(Ledger, "units", lambda book: set())
    monkeypatch.setattr(foremen, "VISIBLE_AFTER", 0.3)
    with pytest.raises(ValueError, match="not the same folder on every node"):
        render_dataset([Boxes(4, scratch)], tmp_path / "never", SETTINGS, shard_views=2, means=TWO)


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_driver_that_ends_takes_its_foremen_along(
    how: signal.Signals, undisturbed: Path, tmp_path: Path, scratch: str
) -> None:
    out = tmp_path / "out"
    with driver(out, scratch, "hang", "foremen=2") as process:
        assert until(lambda: any((out / "units").glob("0*.json")), 60), "no unit was committed"
        family = working(process.pid)
        assert actors("Foreman", process.pid)
        process.send_signal(how)
        begun = time.monotonic()
        process.wait()
        assert time.monotonic() - begun < 10
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 20), "its Ray outlived it"
    assert not (out / "manifest.parquet").exists()
    summary = render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6)
    assert contents(out) == contents(undisturbed)
    assert 0 < summary.fresh_views < 2 * COUNT
