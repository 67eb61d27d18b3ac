"""An asset on its way through the stages of a job: fetched, loaded, drawn and encoded by different processes."""

import glob
import tempfile
import time
from pathlib import Path

import pytest
import ray

import cluster.availability
import shards
from cluster.availability import Availability, Refusals
from cluster.dataset import Means, render_dataset
from tests.cluster.boxes import SETTINGS, Boxes
from tests.cluster.conftest import ALONE, COUNT, contents, ledger
from tests.cluster.nodes import until

EVERY_WAY = [
    pytest.param(Means(workers=2), False, id="fused"),
    pytest.param(Means(workers=2, fetchers=3), True, id="fetched"),
    pytest.param(Means(workers=2, parted=True), False, id="parted"),
    pytest.param(Means(workers=2, fetchers=1, parted=True), True, id="fetched and parted"),
]


def left_behind() -> list[str]:
    places = {"/dev/shm", tempfile.gettempdir()}
    return [name for place in places for name in glob.glob(f"{place}/worldtrace-*/*")]


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("means", "remote"), EVERY_WAY)
def test_the_way_through_the_stages_changes_no_byte(
    means: Means, remote: bool, undisturbed: Path, tmp_path: Path, scratch: str
) -> None:
    source = Boxes(COUNT, scratch, {1: "crash once", 4: "hang once"}, remote=remote)
    means = Means(**{**vars(means), "asset_timeout": 2.0})
    render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=means)
    assert contents(tmp_path / "out") == contents(undisturbed)
    assert len(source.loads()) == COUNT + 2
    assert sorted(source.log("fetches")) == sorted({*source.loads()} if remote else [])
    for row in ledger(tmp_path / "out"):
        if row["status"] == "done":
            assert min(row["seconds_load"], row["seconds_render"], row["seconds_encode"]) > 0, row
            assert row["node"]
            assert row["host"]
        else:
            assert row["asset"] in ("box-01", "box-04")
        assert abs(row["started"] - time.time()) < 100
        assert (row["seconds_fetch"] > 0) == (remote and row["attempt"] == 1)
    assert until(lambda: not left_behind(), 20)  # a shell removes what a killed process left


@pytest.mark.usefixtures("local_ray")
def test_what_goes_wrong_on_the_way_costs_its_asset_only(tmp_path: Path, scratch: str) -> None:
    trouble = {0: "crash", 1: "hang", 2: "crash once", 3: "reject", 5: "error", 6: "memory"}
    source = Boxes(8, scratch, {7: "crash"}, on_the_way=trouble, remote=True)
    means = Means(workers=1, fetchers=4, fetch_timeout=2.0, memory=1 << 30)
    summary = render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=means)
    assert (summary.done, summary.rejected) == (2, {"no_faces": 1, "out_of_memory": 1})
    assert summary.failed == {"crashed": 2, "timeout": 1, "error": 1}
    assert {sample.origin.uid for sample in shards.open(tmp_path / "out")} == {"box-02", "box-04"}
    last = {row["asset"]: row for row in ledger(tmp_path / "out")}
    assert last["box-01"]["message"] == "not done after 2 s (--fetch-timeout)"
    assert last["box-01"]["seconds_fetch"] > 2.0
    assert source.log("fetches").count("box-07") == 1  # its files were there for the second attempt
    assert until(lambda: not left_behind(), 20)  # a shell removes what a killed process left


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.availability, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(cluster.availability, "LONGEST_PAUSE", 0.2)


@pytest.mark.usefixtures("local_ray", "impatient")
def test_an_asset_that_cannot_be_had_now_is_had_later(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    source = Boxes(COUNT, scratch, on_the_way={0: "unavailable 3", 5: "unavailable 1"}, remote=True)
    render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=ALONE)
    assert contents(tmp_path / "out") == contents(undisturbed)
    assert len(source.log("fetches")) == COUNT + 4
    assert len(ledger(tmp_path / "out")) == COUNT  # nothing of it was the asset's fault


@pytest.mark.usefixtures("local_ray", "impatient")
def test_an_asset_that_cannot_be_had_while_others_can_is_given_up(tmp_path: Path, scratch: str) -> None:
    source = Boxes(COUNT, scratch, on_the_way={1: "unavailable"}, remote=True, seconds=0.3)
    summary = render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=Means(workers=1, fetchers=2))
    assert (summary.done, summary.failed) == (COUNT - 1, {"unavailable": 1})
    (row,) = [row for row in ledger(tmp_path / "out") if row["status"] != "done"]
    assert row["message"] == "not to be had in 8 tries: 429 Too Many Requests"


@pytest.mark.usefixtures("local_ray", "impatient")
def test_a_source_that_is_down_ends_the_job_and_no_asset_pays_for_it(
    undisturbed: Path, tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, down = Boxes(COUNT, scratch, remote=True), Path(scratch) / "down"
    down.touch()
    monkeypatch.setattr(cluster.availability, "DEAD_AFTER", 2.0)
    with pytest.raises(ValueError, match=r"source boxes:9 has served nothing for .*503 Service Unavailable.*") as error:
        render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=ALONE)
    assert "\n" not in str(error.value)
    assert source.loads() == []
    down.unlink()
    render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=ALONE)
    assert contents(tmp_path / "out") == contents(undisturbed)
    assert len(ledger(tmp_path / "out")) == COUNT


def test_a_refusal_counts_against_an_asset_only_if_its_source_served_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(cluster.availability.time, "monotonic", lambda: now[0])
    sources, asset, pauses = Availability(["a", "b"]), Refusals(), []
    sources.served(0)
    now[0] += 1
    sources.served(1)  # of another source: says nothing of this one
    for _ in range(7):
        pauses.append(sources.refused(0, asset, "503"))
        now[0] += pauses[-1]
        sources.served(1)
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
    assert sources.refused(0, asset, "503") == 256.0
    now[0] += 256.0
    assert sources.refused(0, asset, "503") == 300.0
    sources.served(0)
    assert sources.refused(0, asset, "503") is None
    other = Refusals()
    assert sources.refused(0, other, "503") == 2.0
    now[0] += 1801.0
    with pytest.raises(ValueError, match=r"source a has served nothing for 30 minutes \(the last word: 503\)"):
        sources.refused(0, other, "503")


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("parted", [False, True])
def test_a_job_goes_on_where_there_is_no_room_in_the_object_store(
    parted: bool, undisturbed: Path, tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then one unit after the other is made: that much must fit."""
    monkeypatch.setattr("cluster.crew.SHARE_OF_STORE", 0.0)
    source = Boxes(COUNT, scratch, remote=True)
    means = Means(workers=2, fetchers=2, parted=parted)
    render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=means)
    assert contents(tmp_path / "out") == contents(undisturbed)
    units = [int(uid[-2:]) // 3 for uid in source.log("fetches")]
    assert units == sorted(units)


@pytest.mark.usefixtures("local_ray")
def test_fetching_does_not_run_ahead(tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two assets wait for every worker, and every fetcher may have one more in hand."""
    ahead = []
    fetch = cluster.job.Job._advance

    def advance(job: cluster.job.Job, event: object) -> None:
        fetch(job, event)  # type: ignore[arg-type]
        ahead.append(len(source.log("fetches")) - len(source.loads()))

    monkeypatch.setattr("cluster.job.Job._advance", advance)
    source = Boxes(20, scratch, remote=True, seconds=0.1)
    render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=Means(workers=1, fetchers=3))
    assert 2 <= max(ahead) <= 2 + 3


@pytest.mark.usefixtures("local_ray")
def test_the_peak_of_memory_is_that_of_each_asset(tmp_path: Path, scratch: str) -> None:
    render_dataset([Boxes(5, scratch, {2: "large"})], tmp_path / "out", SETTINGS, means=ALONE)
    peak = [row["peak_memory"] for row in ledger(tmp_path / "out")]
    assert min(peak) > 50 << 20
    assert peak[2] - max(peak[:2] + peak[3:]) > 200 << 20


@pytest.mark.usefixtures("local_ray")
def test_a_node_with_other_software_is_refused(tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps no CPU, though the frames of the error hold the actor that found out."""
    monkeypatch.setattr("cluster.crew.versions", lambda: {"numpy": "1.0"})
    said = r"has numpy 2\..*, and the job was started with 1\.0: install the same"
    with pytest.raises(ValueError, match=said) as error:
        render_dataset([Boxes(1, scratch)], tmp_path / "out", SETTINGS, means=ALONE)
    assert until(lambda: ray.available_resources().get("CPU", 0) == ray.cluster_resources()["CPU"], 30)
    assert error.value.__traceback__ is not None
