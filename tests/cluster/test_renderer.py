"""What a worker's process survives, and what it must not."""

import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import OutOfMemoryError

import cluster.pool
from cluster.dataset import render_dataset
from cluster.limits import limited_memory
from cluster.renderer import Renderer, Work
from cluster.sources import FileSource
from cluster.units import Task
from tests.cluster.boxes import SETTINGS, Boxes
from tests.cluster.conftest import ALONE, ledger
from tests.render.test_load import ASSETS, BAD, needs_assets

ROOT = Path(__file__).parents[2]


class AsOnGpu(Renderer):
    """Renders on the CPU, and goes by the rules for a GPU."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.on_gpu = True


@pytest.mark.usefixtures("local_ray")
def test_a_broken_gpu_process_renders_no_other_asset(
    tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.crew.Renderer", AsOnGpu)
    source = Boxes(4, scratch, {0: "poison once", 2: "poison"})
    summary = render_dataset([source], tmp_path / "out", SETTINGS, shard_views=8, means=ALONE)
    assert (summary.done, summary.failed) == (3, {"crashed": 1})
    rows = ledger(tmp_path / "out")
    assert [(row["asset"], row["attempt"], row["status"]) for row in rows] == [
        ("box-00", 1, "failed"),
        ("box-00", 2, "done"),
        ("box-01", 1, "done"),
        ("box-02", 1, "failed"),
        ("box-02", 2, "failed"),
        ("box-03", 1, "done"),
    ]
    assert "CUDA error 700" in rows[0]["message"]


def test_a_memory_limit_above_that_of_the_administrator_fails_no_asset(scratch: str) -> None:
    """In a process of its own: a hard limit cannot be raised again."""
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
from cluster.renderer import Renderer, Work
from cluster.units import Task
from tests.cluster.boxes import SETTINGS, Boxes
source = Boxes(2, {scratch!r}, {{1: "memory"}})
renderer = Renderer(Work([source], SETTINGS, 8 << 30, None, {{}}))
for ref in source.assets():
    reply, samples = renderer.render(Task(ref, 0))
    print(reply.outcome.status, reply.outcome.views, len(samples or []), reply.outcome.message)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["done 2 2 None", "rejected 0 0 needs more than 4 GiB"]


def test_the_limit_counts_what_an_asset_adds_and_not_what_was_there() -> None:
    before = np.empty(1 << 27)  # 1 GiB; what is announced counts, touched or not
    with limited_memory(256 << 20):
        assert len(np.empty(1 << 24)) == 1 << 24  # 128 MiB
        with pytest.raises(MemoryError):
            np.empty(1 << 26)
    assert len(np.empty(1 << 26)) * 2 == len(before)


def test_memory_taken_bit_by_bit_ends_as_a_rejection_and_the_next_asset_has_all_of_it(scratch: str) -> None:
    source = Boxes(4, scratch, {1: "hoard", 2: "memory"})
    renderer = Renderer(Work([source], SETTINGS, 256 << 20, None, {}))
    outcomes = [renderer.render(Task(ref, 0))[0].outcome for ref in source.assets()]
    assert [outcome.status for outcome in outcomes] == ["done", "rejected", "rejected", "done"]
    assert [(outcome.reason, outcome.message) for outcome in outcomes[1:3]] == [
        ("out_of_memory", "needs more than 0.25 GiB")
    ] * 2


@needs_assets
def test_every_bad_asset_ends_in_the_ledger_with_its_reason() -> None:
    """As a worker meets them: within its memory limit, and the next one after whatever the one before did."""
    source = FileSource(str(ASSETS / "bad"))
    renderer = Renderer(Work([source], SETTINGS, 1 << 30, None, {}))
    found = {}
    for ref in source.assets():
        reply, samples = renderer.render(Task(ref, 0))
        outcome = reply.outcome
        found[ref.uid] = f"+{','.join(outcome.flags)}" if outcome.status == "done" else outcome.reason
        assert bool(samples) == (outcome.status == "done")
        assert outcome.message or samples
    assert found == BAD


@pytest.mark.usefixtures("local_ray")
def test_what_ray_kills_for_want_of_memory_is_told_from_a_crash(
    tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cluster.pool.Pool._ended

    def ended(pool: cluster.pool.Pool, worker: Any, future: Any) -> Any:
        told: Future = Future()
        if isinstance(future.exception(), ray.exceptions.RayActorError):
            told.set_exception(OutOfMemoryError("1 worker(s) were killed due to the node running low on memory."))
        return real(pool, worker, told if told.done() else future)

    monkeypatch.setattr("cluster.pool.Pool._ended", ended)
    summary = render_dataset([Boxes(1, scratch, {0: "crash"})], tmp_path / "out", SETTINGS, means=ALONE)
    assert summary.failed == {"out_of_memory": 1}
    assert "give fewer --workers, or less --memory" in ledger(tmp_path / "out")[0]["message"]
