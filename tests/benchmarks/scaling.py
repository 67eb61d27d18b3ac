"""Where does a job stop scaling, and why? A discrete-event simulation of the driver, the actors, the hub and the store.

    python -m tests.benchmarks.scaling measure [--assets DIR]    # on this machine -> tests/benchmarks/scaling.json
    python -m tests.benchmarks.scaling simulate                  # 8, 64, 512 GPUs, and as many CPU nodes
    python -m tests.benchmarks.scaling requests                  # of an object store, by kind
    python -m tests.benchmarks.scaling validate [--count 24]     # the simulation of 1 and 2 workers beside real jobs

Every input in scaling.json says whether it was measured or assumed, and how. Render time on a GPU is assumed and swept:
none has been measured yet. What is simulated is the steady state: the rules of cluster/job.py (late stages first, two
tasks a next actor in the buffers, 2 n + 2 open units), drivers that hear one message at a time, encode before load in
the same workers, and one pipe from the hub that all share. Foremen (cluster/foremen.py) are alike: one is simulated,
with its share of the actors and of the pipe, and the driver is charged for all. Listing before and tables after are
added as totals.

Wanted: within 10 % of real jobs of 1 and 2 workers where nothing else runs on the machine.
"""

import argparse
import heapq
import json
import random
import statistics
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

INPUTS = Path(__file__).with_name("scaling.json")
VIEWS = 56  # of an asset, as in the paper's object corpus
WHOLE = 17_000_000  # views

ASSUMED: dict[str, tuple[float, str]] = {
    "gpu_seconds_per_view": (0.005, "no GPU has been measured; swept in the table"),
    "cores_per_gpu": (12, "workers that load and encode beside one GPU; the renderers of that GPU take 4 more"),
    "fetch_latency": (0.3, "seconds from request to first byte, redirect included"),
    "fetch_bytes": (10e6, "bytes of an asset; Objaverse 1.0 is about 8.9 TB in 800K objects"),
    "connection_rate": (20e6, "bytes a second of one download"),
    "hub_rate": (5e9, "bytes a second that the hub gives to all downloads together"),
    "put_latency": (0.05, "seconds of a small PUT; a unit takes two"),
    "upload_rate": (100e6, "bytes a second of one commit"),
    "list_page": (0.1, "seconds of a LIST of 1,000 names"),
}


FOREMEN = "CPU seconds of the driver's process, 2 foremen: 1,000 units of 1 box, and 20 of 1.5 s"


@dataclass
class Stage:
    """`crew` names the pool; `seconds` draws a service time. `bytes` go through the hub's pipe beforehand."""

    crew: str
    seconds: Any
    bytes: float = 0.0


@dataclass
class Cluster:
    stages: list[Stage]
    sizes: dict[str, int]
    committers: int
    commit: Any  # draws the seconds of a commit
    message: float  # seconds of the driver for a message of a stage
    unit: float  # and for a unit, all in all
    per_unit: int = 1  # assets
    hub_rate: float = 1e18

    def share(self, foremen: int) -> "Cluster":
        """What one of so many foremen has."""
        sizes = {name: max(1, size // foremen) for name, size in self.sizes.items()}
        committers = max(1, self.committers // foremen)
        return replace(self, sizes=sizes, committers=committers, hub_rate=self.hub_rate / foremen)


@dataclass
class Found:
    """What a simulation came to: seconds in which `assets` were committed, and how busy everything was."""

    seconds: float
    assets: int
    busy: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.assets / self.seconds

    @property
    def bend(self) -> str:
        return max(self.busy, key=lambda name: self.busy[name])


def simulate(cluster: Cluster, assets: int, warm: float = 0.25) -> Found:
    """Run `assets` through; the rate is that between the first `warm` share of the units and the last."""
    tie = count()
    events: list[tuple[float, int, str, Any]] = []
    idle = {**cluster.sizes, "committers": cluster.committers}
    queues: list[deque[int]] = [deque() for _ in cluster.stages]
    units = -(-assets // cluster.per_unit)
    left = [min(cluster.per_unit, assets - unit * cluster.per_unit) for unit in range(units)]
    to_commit: deque[int] = deque()
    used: dict[str, float] = dict.fromkeys([*idle, "driver", "hub"], 0.0)
    fresh = done = 0
    open_units: set[int] = set()
    driver_free = pipe_free = 0.0
    ends: list[float] = []
    last = len(cluster.stages) - 1

    def assign(now: float) -> None:
        nonlocal fresh, pipe_free
        while idle["committers"] and to_commit:
            idle["committers"] -= 1
            seconds = cluster.commit()
            used["committers"] += seconds
            heapq.heappush(events, (now + seconds, next(tie), "commit", to_commit.popleft()))
        for index in range(last, -1, -1):
            stage = cluster.stages[index]
            while idle[stage.crew]:
                if index < last and len(queues[index + 1]) >= 2 * cluster.sizes[cluster.stages[index + 1].crew]:
                    break
                if index == 0 and not queues[0] and fresh < units:
                    if len(open_units) >= 2 * cluster.sizes[cluster.stages[0].crew] + 2:
                        break
                    open_units.add(fresh)
                    first = fresh * cluster.per_unit
                    queues[0].extend(range(first, first + left[fresh]))
                    fresh += 1
                if not queues[index]:
                    break
                asset = queues[index].popleft()
                idle[stage.crew] -= 1
                seconds = stage.seconds()
                if stage.bytes:
                    pipe_free = max(now, pipe_free) + stage.bytes / cluster.hub_rate
                    used["hub"] += stage.bytes / cluster.hub_rate
                    seconds = max(seconds, pipe_free - now)
                used[stage.crew] += seconds
                heapq.heappush(events, (now + seconds, next(tie), "stage", (index, asset)))

    assign(0.0)
    while done < units:
        when, _, kind, what = heapq.heappop(events)
        cost = cluster.message if kind == "stage" else cluster.unit
        driver_free = max(when, driver_free) + cost
        used["driver"] += cost
        if kind == "commit":
            idle["committers"] += 1
            open_units.discard(what)
            done += 1
            ends.append(driver_free)
        else:
            index, asset = what
            idle[cluster.stages[index].crew] += 1
            if index < last:
                queues[index + 1].append(asset)
            else:
                unit = asset // cluster.per_unit
                left[unit] -= 1
                if not left[unit]:
                    to_commit.append(unit)
        assign(driver_free)
    whole = ends[-1]
    servers = {**cluster.sizes, "committers": cluster.committers, "driver": 1, "hub": 1}
    busy = {name: seconds / whole / servers[name] for name, seconds in used.items() if seconds}
    if not warm:
        return Found(whole, assets, busy)
    start, end = int(warm * units), int((1 - warm) * units) - 1
    return Found(ends[end] - ends[start], (end - start) * cluster.per_unit, busy)


def drawn(values: Sequence[float], scale: float = 1.0, seed: int = 0) -> Any:
    """Draws from what was measured."""
    draw = random.Random(seed)
    return lambda: scale * draw.choice(values)


# What a real job of this machine takes.


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


def measure(assets: Path | None) -> None:
    stages = stage_times(assets)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        real_job(1, 1, 8, 128, folder / "job")
        asset, unit = driver_costs(folder)
        foreman, given = foremen_costs(folder)
        ledger = ledger_costs(folder / "job", folder / "ledger")
    inputs: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "measured": {
            **stages,
            "driver_asset": {"value": asset, "how": "CPU seconds of the driver's process, slope over 400 boxes"},
            "driver_unit": {"value": unit, "how": "CPU seconds of the driver's process, 50 units against 500"},
            "foreman_second": {"value": foreman, "how": FOREMEN + ", for a foreman and second"},
            "foreman_unit": {"value": given, "how": FOREMEN + ", a unit"},
            **{
                name: {"value": value, "how": "CPU seconds, 2,000 units of 8 samples"} for name, value in ledger.items()
            },
        },
        "assumed": {name: {"value": value, "why": why} for name, (value, why) in ASSUMED.items()},
    }
    INPUTS.write_text(json.dumps(inputs, indent=1) + "\n")
    for name, entry in inputs["measured"].items():
        values = entry.get("values") or [entry["value"]]
        print(f"{name}: median {statistics.median(values):.3g}, mean {statistics.mean(values):.3g} ({entry['how']})")


class Inputs:
    def __init__(self) -> None:
        if not INPUTS.exists():
            raise SystemExit(f"{INPUTS} is missing: run `measure` first")
        read = json.loads(INPUTS.read_text())
        self.measured, self.assumed = read["measured"], read["assumed"]

    def value(self, name: str) -> float:
        entry = self.measured.get(name) or self.assumed[name]
        return float(entry["value"])

    def values(self, name: str) -> list[float]:
        return list(self.measured[name]["values"])

    def clusters(self, nodes: int, gpu: float | None, per_unit: int, fetchers: int) -> Cluster:
        """`nodes` of one GPU and its cores, or of 16 cores where `gpu` (seconds a view) is None."""
        from cluster.crew import WORKERS_PER_COMMITTER

        bytes_up = per_unit * VIEWS * self.value("bytes_per_view")
        moving = 2 * self.value("put_latency") + bytes_up / self.value("upload_rate")
        work = per_unit * VIEWS
        commit = drawn([work * seconds + moving for seconds in self.values("commit_seconds_per_view")])
        down = self.value("fetch_latency") + self.value("fetch_bytes") / self.value("connection_rate")
        fetch = Stage("fetchers", lambda: down, self.value("fetch_bytes"))
        load, encode = drawn(self.values("load_seconds")), drawn(self.values("encode_seconds_per_view"), VIEWS)
        if gpu is None:
            render = drawn(self.values("render_seconds_per_view"), VIEWS)
            stages = [fetch, Stage("workers", lambda: load() + render() + encode())]
            sizes = {"fetchers": fetchers, "workers": 16 * nodes}
        else:
            on_gpu = VIEWS * gpu
            stages = [fetch, Stage("workers", load), Stage("renderers", lambda: on_gpu), Stage("workers", encode)]
            sizes = {"fetchers": fetchers, "workers": int(self.value("cores_per_gpu")) * nodes, "renderers": nodes}
        # a renderer's place beside the others of its GPU only hides what it does on its core: one at a time on the GPU
        renderers = 4 * nodes if gpu is not None else 0
        committers = 1 + max(renderers, sizes["workers"]) // WORKERS_PER_COMMITTER
        message = self.value("driver_asset")
        return Cluster(
            stages, sizes, committers, commit, message, self.value("driver_unit"), per_unit, self.value("hub_rate")
        )


def table() -> None:
    from cluster.crew import WORKERS_PER_FOREMAN

    inputs = Inputs()
    print(
        "| nodes | views/s by one driver | foremen | views/s | of linear | what limits | each foreman | driver "
        "| workers | GPUs | committers | hub |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for title, gpu, per_unit, hub in (
        ("16 cores", None, 1, 1),
        ("1 GPU, 10 ms a view", 0.010, 1, 1),
        ("1 GPU, 5 ms a view", 0.005, 1, 1),
        ("1 GPU, 5 ms a view, --shard-views 448", 0.005, 8, 1),
        ("1 GPU, 5 ms a view, 100 x the hub", 0.005, 1, 100),
        ("1 GPU, 2 ms a view", 0.002, 1, 1),
        ("1 GPU, 2 ms a view, 100 x the hub", 0.002, 1, 100),
    ):
        alone = None
        for nodes in (8, 64, 512):
            # as many downloads as this many nodes need; --fetchers says so to the job
            cluster = inputs.clusters(nodes, gpu, per_unit, fetchers=max(16, 8 * nodes))
            cluster.hub_rate *= hub
            actors = cluster.sizes["workers"] + (4 * nodes if gpu else 0)
            foremen = -(-actors // WORKERS_PER_FOREMAN)
            rates = []
            for parts in (1, foremen):
                own = cluster.share(parts)
                servers = own.sizes["renderers" if gpu else "workers"]
                found = simulate(own, max(4000, 6 * servers, 40 * per_unit * own.committers))
                rates.append(parts * found.rate * VIEWS)
            busy = {"one": found.busy.pop("driver"), "driver": 0.0, **found.busy}
            if foremen > 1:
                units = rates[1] / VIEWS / per_unit
                busy["driver"] = foremen * inputs.value("foreman_second") + units * inputs.value("foreman_unit")
                rates[1] /= max(1.0, busy["driver"])
            else:
                busy["one"], busy["driver"] = 0.0, busy["one"]
            rate = rates[1]
            alone = alone or rate / nodes
            shown = [
                f"{100 * busy.get(name, 0):.0f} %" if name != "one" or foremen > 1 else ""
                for name in ("one", "driver", "workers", "renderers", "committers", "hub")
            ]
            limits = max(busy, key=lambda name: busy[name])
            cells = [f"{nodes} x {title}", f"{rates[0]:,.0f}", str(foremen) if foremen > 1 else "none", f"{rate:,.0f}",
                     f"{rate / nodes / alone:.2f}", "foremen" if limits == "one" else limits, *shown]  # fmt: skip
            print("| " + " | ".join(cells) + " |", flush=True)
    units = WHOLE / VIEWS
    pages = 2 * units / 1000
    print(f"17M views in units of one asset: {units:,.0f} units;")
    minutes = units * inputs.value("finish_seconds") * VIEWS / 8 / 60
    print(f"  tables at the end, where nothing renders: {minutes:.1f} min (scaled from units of 8 samples)")
    print(f"  a resume without segments lists {pages:,.0f} pages: {pages * inputs.value('list_page'):.0f} s")


def validate(assets: int) -> None:
    """Simulations fed with the service times of the job of one worker, and with those of the job itself."""
    inputs = Inputs()
    with tempfile.TemporaryDirectory() as place:
        jobs = {workers: real_job(workers, assets, 4, 504, Path(place) / str(workers)) for workers in (1, 2)}
    print("| workers | real, assets/s | simulated from 1 worker | ratio | from its own times | ratio |")
    print("|---|---|---|---|---|---|")
    for workers, job in jobs.items():
        real = assets / job["seconds"]
        cells = [str(workers), f"{real:.3f}"]
        for spent in (jobs[1]["spent"], job["spent"]):
            order = iter([*spent, *spent])
            cluster = Cluster(
                [Stage("workers", lambda order=order: next(order))],
                {"workers": workers},
                1,
                drawn([row.seconds_commit for row in job["rows"]]),
                inputs.value("driver_asset"),
                inputs.value("driver_unit"),
            )
            found = assets / simulate(cluster, assets, warm=0).seconds
            cells += [f"{found:.3f}", f"{found / real:.2f}"]
        print("| " + " | ".join(cells) + " |")
    print(f"2 workers / 1 worker: {jobs[1]['seconds'] / jobs[2]['seconds']:.2f}")


def requests() -> None:
    """What an object store is asked for, by units: two jobs against moto's server, and the difference between them."""
    from cluster import connection

    connection.prepare()
    from cluster.dataset import Means, render_dataset
    from tests.cluster.boxes import SETTINGS, Boxes
    from tests.s3 import BUCKET, serving

    settings = SETTINGS.model_copy(update={"views": 1})
    counts: list[Counter[str]] = []
    with serving() as server, connection.connected("local", 2), tempfile.TemporaryDirectory() as scratch:
        for units in (20, 60):
            server.requests.clear()
            render_dataset([Boxes(units, scratch)], f"s3://{BUCKET}/{units}", settings, 1, Means(workers=2))
            kinds = Counter(f"{method} {_kind(path)}" for method, path in server.requests)
            counts.append(kinds)
    print("| request | 20 units | 60 units | a unit |")
    print("|---|---|---|---|")
    for kind in sorted(counts[1]):
        few, many = counts[0][kind], counts[1][kind]
        print(f"| {kind} | {few} | {many} | {(many - few) / 40:.2f} |")


def _kind(path: str) -> str:
    """shards, units, another file, or the bucket itself (which is listed, or has objects deleted)."""
    parts = path.strip("/").split("/")
    return parts[2] if len(parts) > 3 else "bucket" if len(parts) < 2 else "other files"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "simulate", "validate", "requests"])
    parser.add_argument("--assets", type=Path, help="measure: a folder of objects instead of procedural ones")
    parser.add_argument("--count", type=int, default=24, help="validate: objects in each job")
    arguments = parser.parse_args()
    if arguments.what == "measure":
        measure(arguments.assets)
    elif arguments.what == "validate":
        validate(arguments.count)
    elif arguments.what == "requests":
        requests()
    else:
        table()


if __name__ == "__main__":
    main()
