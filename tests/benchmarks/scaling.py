"""Where does a job stop scaling, and why? By a simulation (simulation.py) of what its parts cost (costs.py).

    python -m tests.benchmarks.scaling measure [--assets DIR]    # on this machine -> tests/benchmarks/scaling.json
    python -m tests.benchmarks.scaling simulate                  # 8, 64, 512 GPUs, and as many CPU nodes
    python -m tests.benchmarks.scaling requests                  # of an object store, by kind
    python -m tests.benchmarks.scaling validate [--count 24]     # the simulation of 1 and 2 workers beside real jobs

Every input in scaling.json says whether it was measured or assumed, and how. Render time on a GPU is assumed and swept:
none has been measured yet. Listing before and tables after the steady state are added as totals.

Wanted: within 10 % of real jobs of 1 and 2 workers where nothing else runs on the machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.benchmarks.costs import driver_costs, foremen_costs, ledger_costs, real_job, stage_times
from tests.benchmarks.simulation import Cluster, Stage, drawn, simulate

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
