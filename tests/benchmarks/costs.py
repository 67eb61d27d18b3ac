"""What the parts of a render job cost on this machine: its stages, its driver, its foremen, its ledger; and whole jobs.

CPU time wherever there is a choice, so that other work on the machine falls on none.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any


def stage_times(assets: Path | None, views: int = 4, size: int = 504) -> dict[str, Any]:
    """Seconds of CPU of one thread for each stage: of the objects in a folder, or of 24 procedural ones. CPU time, so
    that other work on the machine falls on none.
    """
    from cluster import sources
    from render import Rejected, render_views, settings_of
    from shards import Moments, encode, moments_of_sample, write_shard

    text = str(assets) if assets else "procedural:objects?count=24"
    source = sources.parse(text)
    settings = settings_of({"views": views, "height": size, "width": size, "backend": "cpu"}, [])
    taken: dict[str, list[float]] = {"load": [], "render": [], "encode": [], "commit": []}
    written = samples = 0
    for index, ref in enumerate(source.assets()):
        try:
            start = time.process_time()
            mesh, origin = source.load(ref, None)
            loaded = time.process_time()
            if len(mesh.faces) > 100_000:
                continue
            if not index:
                render_views(mesh, origin, settings)  # loads the kernels
            begin = time.process_time()
            rendered = render_views(mesh, origin, settings)
            done = time.process_time()
        except Rejected:
            continue
        if not rendered.samples:
            continue
        encoded = [encode(sample) for sample in rendered.samples]
        after = time.process_time()
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "000000-aa.tar"
            write_shard(path, encoded)
            whole = Moments()
            for sample in encoded:
                whole.merge(moments_of_sample(sample.key, sample.members))
            written += path.stat().st_size
        taken["commit"].append((time.process_time() - after) / len(encoded))
        taken["load"].append(loaded - start)
        taken["render"].append((done - begin) / views)  # a refused view costs nearly what a kept one does
        taken["encode"].append((after - done) / len(encoded))
        samples += len(encoded)
    how = (
        f"CPU seconds of one thread, {len(taken['load'])} objects of {'a folder' if assets else text}, {size} x {size}"
    )
    return {
        "load_seconds": {"values": taken["load"], "how": how + ", an asset"},
        "render_seconds_per_view": {"values": taken["render"], "how": how + ", CPU backend"},
        "encode_seconds_per_view": {"values": taken["encode"], "how": how},
        "commit_seconds_per_view": {"values": taken["commit"], "how": how + ", shard and moments"},
        "bytes_per_view": {"value": written / samples, "how": how},
    }


def real_job(workers: int, assets: int, views: int, size: int, folder: Path) -> dict[str, Any]:
    """One job of procedural objects: its rows, the seconds in which its assets were worked on, and the driver's."""
    from cluster import connection, sources, tables

    connection.prepare()
    from cluster.dataset import Means, render_dataset
    from render import settings_of
    from shards.store import open_store

    settings = settings_of({"views": views, "height": size, "width": size, "backend": "cpu"}, [])
    source = sources.parse(f"procedural:objects?count={assets}")
    with connection.connected("local", workers):
        render_dataset([source], str(folder), settings, views, Means(workers=workers))
    rows = list(tables.attempts(open_store(str(folder))))
    spent = [row.seconds_load + row.seconds_render + row.seconds_encode for row in rows]
    begin = min(row.started for row in rows)
    end = max(row.started + seconds for row, seconds in zip(rows, spent))
    sizes = [path.stat().st_size for path in (folder / "shards").glob("*.tar")]
    return {"rows": rows, "spent": spent, "seconds": end - begin, "bytes": statistics.mean(sizes) / views}


def driver_costs(folder: Path) -> tuple[float, float]:
    """Seconds of CPU of the driver's process for an asset, and for a unit: from three jobs whose boxes cost little."""
    from cluster import connection

    connection.prepare()
    from cluster import crew
    from cluster.dataset import Means, render_dataset
    from tests.cluster.boxes import SETTINGS, Boxes

    settings = SETTINGS.model_copy(update={"views": 1})
    taken: list[float] = []
    run = crew.Job.run

    def clocked(job: Any) -> None:
        start = time.process_time()
        run(job)
        taken.append(time.process_time() - start)

    crew.Job.run = clocked  # type: ignore[method-assign]
    try:
        with connection.connected("local", 2):
            for turn, (assets, per_unit) in enumerate([(100, 1), (500, 1), (500, 10)]):
                scratch = folder / f"scratch{turn}"
                scratch.mkdir(parents=True)
                out = str(folder / f"boxes{turn}")
                render_dataset([Boxes(assets, str(scratch))], out, settings, per_unit, Means(workers=2))
    finally:
        crew.Job.run = run  # type: ignore[method-assign]
    both = (taken[1] - taken[0]) / 400
    unit = (taken[1] - taken[2]) / 450
    return max(both - unit, 1e-5), max(unit, 1e-5)


def foremen_costs(folder: Path) -> tuple[float, float]:
    """Seconds of CPU of the driver's process for a foreman and second, and for a unit, where two foremen hand out the
    work: from a job of many units and one of few that take long.
    """
    from cluster import connection

    connection.prepare()
    from cluster import foremen
    from cluster.dataset import Means, render_dataset
    from tests.cluster.boxes import SETTINGS, Boxes

    settings = SETTINGS.model_copy(update={"views": 1})
    taken: list[tuple[float, float]] = []
    run = foremen._Driver.run

    def clocked(driver: Any) -> None:
        start, cpu = time.monotonic(), time.process_time()
        run(driver)
        taken.append((time.process_time() - cpu, 2 * (time.monotonic() - start)))

    foremen._Driver.run = clocked  # type: ignore[method-assign]
    units = (1000, 20)
    try:
        with connection.connected("local", 2):
            for assets, seconds in zip(units, (0.0, 1.5)):
                scratch = folder / f"foremen{assets}"
                scratch.mkdir(parents=True)
                source = Boxes(assets, str(scratch), seconds=seconds)
                render_dataset([source], str(folder / f"out{assets}"), settings, 1, Means(workers=2, foremen=2))
    finally:
        foremen._Driver.run = run  # type: ignore[method-assign]
    (cpu, time_), (cpu_few, time_few) = taken
    unit = (cpu - cpu_few * time_ / time_few) / (units[0] - units[1] * time_ / time_few)
    return max((cpu_few - units[1] * unit) / time_few, 1e-5), max(unit, 1e-6)


def ledger_costs(job: Path, folder: Path, units: int = 2000) -> dict[str, float]:
    """Seconds of CPU a unit of a folder on this disk: to write a record, to list, and to make the tables."""
    from cluster import tables
    from cluster.ledger import Ledger, Record
    from shards import read_manifest
    from shards.store import open_store

    rows = read_manifest(job).to_pylist()
    attempts = list(tables.attempts(open_store(str(job))))
    samples = [row for row in rows if Path(row["shard"]).stem == attempts[-1].unit]
    store = open_store(str(folder))
    ledger = Ledger(store)
    names = [f"{index:06d}-{index:012x}" for index in range(units)]
    start = time.process_time()
    for name in names:
        moved = [{**row, "shard": f"shards/{name}.tar", "key": f"{name}{row['key']}"} for row in samples]
        ledger.write(Record(name, moved, [replace(attempts[-1], unit=name)]))
    written = time.process_time()
    assert len(ledger.units()) == units
    listed = time.process_time()
    tables.finish(ledger, names, lambda: None)
    finished = time.process_time()
    return {
        "record_seconds": (written - start) / units,
        "list_seconds_local": (listed - written) / units,
        "finish_seconds": (finished - listed) / units,
    }
