"""The figures of a report are those of ledgers written by hand, and of a real job."""

import io
import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

import shards
from cluster import tables
from cluster.commands.report import duration, page
from cluster.commands.report import report as command
from cluster.ledger import Attempt, Ledger, Record
from cluster.report import PAUSE, RECENT, Histogram, Prices, Report, Spans, Tally
from cluster.watch import Watch
from shards.store import open_store
from tests.cluster.boxes import SETTINGS, Boxes

T0 = 1.7e9  # a time of day, in unix seconds


def header(assets: int, per_unit: int = 2, views: int = 4, backend: str = "cpu", **rest: Any) -> dict[str, Any]:
    settings = {"views": views, "regime": "object", "frames": 16, "backend": backend, **rest}
    return {"job": {"assets": assets, "shard_views": per_unit * views, "render": settings}}


def row(asset: str, started: float = T0, unit: str = "000000-aa", **values: Any) -> Attempt:
    """A done attempt of 10 seconds with four views, unless said otherwise."""
    given = {
        "views": 4,
        "seconds_fetch": 1.0,
        "seconds_load": 2.0,
        "seconds_render": 6.0,
        "seconds_encode": 1.0,
        "peak_memory": 1 << 30,
        "host": "one",
        "node": "n1",
        "source": "test",
        "licence": "CC0-1.0",
        "attempt": 1,
        **values,
    }
    return Attempt(unit=unit, asset=asset, started=started, **given)


def report(units: list[list[Attempt]], now: float = T0 + 100, complete: bool = False, **how: Any) -> Report:
    prices = how.pop("prices", Prices())
    tally = Tally("there", how.pop("header", header(8)), **how)
    for attempts in units:
        tally.add(attempts)
    return tally.report(now, complete, prices)


def test_progress_and_rates_of_a_steady_job() -> None:
    """A unit of two assets and eight views ends every 20 s, for 600 s."""
    units = [[row(f"{i}a", T0 + 20 * i), row(f"{i}b", T0 + 20 * i + 10)] for i in range(30)]
    seen = report(units, now=T0 + 600, header=header(100))
    assert (seen.units.done, seen.units.total) == (30, 50)
    assert (seen.assets.done, seen.assets.total) == (60, 100)
    assert (seen.views.done, seen.views.total) == (240, 400)
    assert seen.rate.working_seconds == pytest.approx(600)
    assert seen.rate.overall == pytest.approx(240 / 600)
    assert seen.rate.recent_seconds == pytest.approx(RECENT)
    assert seen.rate.recent == pytest.approx(8 / 20)
    assert seen.rate.eta_seconds == pytest.approx(40 * 10)
    assert seen.rate.since_last_unit == pytest.approx(0)
    assert seen.rate.pauses == 0


def test_the_pause_between_two_runs_counts_for_nothing() -> None:
    """Twice 100 seconds at work, and a night between them. The second run works at half the rate of the first."""
    night = 8 * 3600
    first = [[row(f"{i}a", T0 + 10 * i)] for i in range(10)]
    second = [[row(f"{i}b", T0 + 100 + night + 20 * i, seconds_render=16.0)] for i in range(5)]
    seen = report(first + second, now=T0 + 200 + night, header=header(20, per_unit=1))
    assert seen.rate.working_seconds == pytest.approx(200)
    assert (seen.rate.pauses, seen.rate.pause_seconds) == (1, pytest.approx(night))
    assert seen.rate.overall == pytest.approx(60 / 200)
    assert seen.rate.recent_seconds == pytest.approx(100)  # not before this run began
    assert seen.rate.recent == pytest.approx(20 / 100)
    assert seen.rate.eta_seconds == pytest.approx(5 * 20)


def test_a_stalled_job_has_no_recent_rate() -> None:
    seen = report([[row("a")]], now=T0 + 7200)
    assert (seen.rate.recent, seen.rate.eta_seconds) == (None, None)
    assert seen.rate.overall == pytest.approx(0.4)
    assert seen.rate.since_last_unit == pytest.approx(7190)


def test_spans_do_not_depend_on_the_order_in_which_units_are_read() -> None:
    draw = random.Random(3)
    spans = [(start := draw.uniform(0, 20000), start + draw.expovariate(1 / 40)) for _ in range(300)]
    twin: list[list[float]] = []
    for start, end in sorted(spans):
        if twin and start <= twin[-1][1] + PAUSE:
            twin[-1][1] = max(twin[-1][1], end)
        else:
            twin.append([start, end])
    assert len(twin) > 5
    for _ in range(5):
        draw.shuffle(spans)
        found = Spans()
        for span in spans:
            found.add(*span)
        assert [list(span) for span in found.spans] == twin


def test_quantiles_are_true_to_one_percent() -> None:
    values = np.random.default_rng(0).lognormal(0, 2, 20001)
    histogram = Histogram()
    for value in values:
        histogram.add(float(value))
    for q in (0.01, 0.5, 0.95, 0.999):
        assert histogram.quantile(q) == pytest.approx(np.quantile(values, q), rel=0.015)
    assert Histogram().quantile(0.5) == 0


def test_stages_and_the_slowest_assets() -> None:
    rows = [row(str(i), seconds_render=float(i)) for i in range(1, 101)]
    rows[-1].seconds_commit = 3.0
    seen = report([rows], header=header(100), slowest=3)
    stages = {stage.stage: stage for stage in seen.stages}
    whole = 100 * (1 + 2 + 1) + 5050 + 3
    assert {name: stage.seconds for name, stage in stages.items()} == {
        "fetch": 100.0,
        "load": 200.0,
        "render": 5050.0,
        "encode": 100.0,
        "commit": 3.0,
    }
    assert sum(stage.share for stage in seen.stages) == pytest.approx(1)
    assert stages["render"].share == pytest.approx(5050 / whole)
    assert stages["render"].median == pytest.approx(50, rel=0.01)
    assert stages["render"].p95 == pytest.approx(95, rel=0.01)
    assert [(slow.asset, slow.seconds, slow.slowest_stage) for slow in seen.slowest_assets] == [
        ("100", 104.0, "render"),
        ("99", 103.0, "render"),
        ("98", 102.0, "render"),
    ]


def test_reasons_retries_hosts_and_licences() -> None:
    first = [
        row("a"),
        row("b", status="failed", reason="crashed", message="died", views=0, host="two", node="n2"),
        row("b", attempt=2, host="two", node="n3", peak_memory=3 << 30),
        row("c", status="rejected", reason="no_faces", message="it has no faces", views=0),
    ]
    second = [
        row("d", status="failed", reason="timeout", message="300 s", views=0, licence="CC-BY-4.0"),
        row("d", status="failed", reason="timeout", message="300 s again", views=0, attempt=2, licence="CC-BY-4.0"),
        row("e", status="rejected", reason="no_faces", message="none here", views=0),
        row("f", views=3, views_rejected=["2:empty"]),
    ]
    seen = report([first, second], header=header(6, per_unit=3), complete=True, examples=1)
    assert (seen.done, seen.rejected, seen.failed, seen.views.done) == (3, 2, 1, 11)
    assert seen.views_rejected == {"empty": 1}
    assert [(reason.status, reason.reason, reason.assets) for reason in seen.reasons] == [
        ("rejected", "no_faces", 2),
        ("failed", "timeout", 1),
    ]
    assert [(example.asset, example.message) for reason in seen.reasons for example in reason.examples] == [
        ("c", "it has no faces"),
        ("d", "300 s again"),
    ]
    assert asdict(seen.retries) == {"attempts": 2, "seconds": 20.0, "reasons": {"crashed": 1, "timeout": 1}}
    hosts = {host.host: (host.nodes, host.attempts, host.views, host.seconds, host.lost) for host in seen.hosts}
    assert hosts == {"one": (1, 6, 7, 60.0, 1), "two": (2, 2, 4, 20.0, 1)}
    assert [(p.licence, p.assets, p.done, p.views) for p in seen.provenance] == [
        ("CC0-1.0", 5, 3, 11),
        ("CC-BY-4.0", 1, 0, 0),
    ]
    assert seen.memory is not None
    assert (seen.memory.peak, seen.memory.asset) == (3 << 30, "b")
    assert seen.memory.median == pytest.approx(1 << 30, rel=0.01)


@pytest.mark.parametrize(("backend", "gpu"), [("cpu", 0.0), ("cuda", 12.0)])
def test_cost_counts_every_attempt_and_rejected_assets(backend: str, gpu: float) -> None:
    rows = [row("a"), row("b", status="rejected", reason="empty", views=0)]
    rows[-1].seconds_commit = 2.0
    prices = Prices(core_hour=36.0, gpu_hour=3600.0)
    seen = report([rows], header=header(2, backend=backend), complete=True, prices=prices)
    assert seen.cost.core_seconds == pytest.approx(2 * 9 + 2)  # to fetch keeps no core busy
    assert seen.cost.gpu_seconds == pytest.approx(gpu)
    assert seen.cost.core_seconds_per_view == pytest.approx(20 / 4)
    assert seen.cost.money == pytest.approx(20 * 0.01 + gpu * 1.0)
    assert seen.cost.money_per_million_views == pytest.approx((0.2 + gpu) / 4 * 1e6)
    assert report([rows]).cost.money is None


def test_clips_count_their_frames_into_units() -> None:
    """As units.plan does: 4 clips of 16 frames are 64 images, the whole of a shard."""
    settings = {"views": 4, "frames": 16, "regime": "dynamic"}
    seen = report([], header={"job": {"assets": 10, "shard_views": 128, "render": settings}})
    assert (seen.units.total, seen.views.total) == (5, 40)


def test_an_older_dataset_without_times_has_no_rate() -> None:
    seen = report([[row("a", started=0.0)]])
    assert (seen.rate.overall, seen.rate.recent, seen.rate.eta_seconds) == (None, None, None)
    assert seen.views.done == 4
    assert "not known" in text(seen)


def text(seen: Report, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(page(seen))
    return out.getvalue()


def test_the_page_fits_eighty_columns_and_takes_names_as_they_are() -> None:
    name = "a/very/long/name/of/an/asset/" + "x" * 80 + "[bold]"
    rows = [
        row(name, host="h" * 70, source="s" * 60, licence="l" * 60),
        row("b", status="rejected", reason="no_faces", message="[red]" + "m" * 300, views=0),
    ]
    shown = text(report([rows], prices=Prices(core_hour=0.05)))
    assert max(map(len, shown.splitlines())) <= 80
    assert "[red]mmm" in shown.replace("\n", "")
    assert "slowest" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min 0 s"), (3599.6, "1 h 0 min"), (7322, "2 h 2 min")]
    + [(90000, "1 d 1 h")],
)
def test_durations_carry_over(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def write(folder: Path, units: list[str]) -> Ledger:
    ledger = Ledger(open_store(str(folder)))
    for unit in units:
        ledger.write(Record(unit, [], [row(unit, unit=unit, views=0, status="rejected", reason="no_faces")]))
    return ledger


def config(complete: bool = False) -> dict[str, Any]:
    return {"layers": 6, "size": [8, 8], "statistics": None, "complete": complete, **header(4, per_unit=1)}


def test_watching_reads_every_record_once_and_survives_the_end_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{index:06d}-aa" for index in range(4)]
    shards.write_dataset_json(tmp_path, config())
    watch = Watch(str(tmp_path))
    assert watch.look().assets.done == 0
    ledger = write(tmp_path, names[:3])
    read: list[str] = []
    records = Ledger.records
    monkeypatch.setattr(Ledger, "records", lambda self, units, **how: records(self, [*map(noted, units)], **how))

    def noted(unit: str) -> str:
        read.append(unit)
        return unit

    assert watch.look().assets.done == 3
    assert watch.look().assets.done == 3
    assert read == names[:3]

    write(tmp_path, names[3:])
    monkeypatch.setattr(Ledger, "records", records)
    tables.finish(ledger, names, lambda: None)
    shards.write_dataset_json(tmp_path, config(complete=True))
    ledger.discard()
    seen, fresh = watch.look(), Watch(str(tmp_path)).look()
    assert seen.complete
    assert seen.rejected == 4
    assert asdict(seen) == asdict(fresh)


def run(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


def test_no_dataset_is_one_sentence(tmp_path: Path) -> None:
    result = run(str(tmp_path / "absent"))
    assert isinstance(result.exception, FileNotFoundError)
    assert "holds no dataset" in str(result.exception)
    assert not (tmp_path / "absent").exists()


def test_a_real_job(local_ray: None, tmp_path: Path, scratch: str) -> None:
    """What the driver counted, what the tables hold and what the report says are the same."""
    from cluster.dataset import Means, render_dataset

    source = Boxes(9, scratch, {1: "reject", 4: "crash once", 6: "error"})
    out = tmp_path / "out"
    summary = render_dataset([source], out, SETTINGS, shard_views=6, means=Means(workers=2))
    result = run(str(out), "--json", "--failed", "3", "--price-core-hour", "0.05")
    assert result.exit_code == 0, result.output
    seen = json.loads(result.stdout)
    assert seen["complete"]
    assert seen["units"] == {"done": 3, "total": 3}
    assert seen["assets"] == {"done": 9, "total": 9}
    assert seen["views"] == {"done": summary.views, "total": 18}
    assert (seen["done"], seen["rejected"], seen["failed"]) == (summary.done, 1, 1)
    assert {(reason["reason"], reason["examples"][0]["asset"]) for reason in seen["reasons"]} == {
        ("no_faces", "box-01"),
        ("error", "box-06"),
    }
    assert seen["retries"]["reasons"] == {"crashed": 1}
    assert 0 < seen["rate"]["working_seconds"] <= summary.seconds
    assert seen["rate"]["overall"] == pytest.approx(summary.views / seen["rate"]["working_seconds"])
    assert seen["cost"]["core_seconds"] > 0
    assert seen["cost"]["money"] > 0
    stages = {stage["stage"]: stage["seconds"] for stage in seen["stages"]}
    assert min(stages["load"], stages["render"], stages["encode"], stages["commit"]) > 0
    (host,) = seen["hosts"]
    assert (host["nodes"], host["attempts"]) == (1, 10)
    assert seen["memory"]["peak"] > 0
    followed = run(str(out), "--follow")
    assert followed.exit_code == 0
    assert f"9 of 9 assets | {summary.views} views" in followed.stdout
