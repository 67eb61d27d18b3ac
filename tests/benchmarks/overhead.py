"""What Ray and the ledger cost beside the bare renderer, and what a second worker brings.

    python -m tests.benchmarks.overhead [--minutes 1.0] [--rounds 3] [--size 224]

The bare renderer is a loop in one process: load, render_views, encode, write_shard. The job is that of `worldtrace
render` with one worker, and with two, over the same assets in units of about `--minutes` of work; its clock starts when
the first worker is ready and ends when the last unit is committed, since starting Ray takes seconds whatever the length
of a job. The shards are compared. Ways alternate, and medians are told.
"""

import argparse
import hashlib
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cluster import connection

connection.prepare()
from rich.console import Console  # noqa: E402

import render  # noqa: E402
import shards  # noqa: E402
from cluster.crew import Means, render_units  # noqa: E402
from cluster.job import Job  # noqa: E402
from cluster.sources import parse  # noqa: E402
from cluster.units import Unit, plan  # noqa: E402
from render import RenderSettings  # noqa: E402
from shards import Origin  # noqa: E402
from shards.store import open_store  # noqa: E402


def bare(source: Any, settings: RenderSettings, units: list[Unit], folder: Path) -> float:
    """Seconds for all units."""
    begun = time.perf_counter()
    for unit in units:
        samples = []
        for task in unit.tasks:
            mesh, origin = source.load(task.ref, None)
            samples += [shards.encode(sample) for sample in render.render_views(mesh, origin, settings).samples]
        shards.write_shard(folder / unit.shard, samples)
    return time.perf_counter() - begun


def job(source: Any, settings: RenderSettings, units: list[Unit], folder: Path, workers: int) -> tuple[float, float]:
    """(seconds from the first ready worker to the last commit, CPU seconds of the driver meanwhile)."""
    folder.mkdir()
    began: list[float] = []
    ended: list[float] = []
    submit = Job._assign

    def assign(self: Job) -> None:
        if not began and self.pools["workers"].ready == workers:
            began.extend([time.perf_counter(), cpu_seconds()])
        if began:  # all start together, as they do in a long job
            submit(self)

    Job._assign = assign  # type: ignore[method-assign]
    try:
        count = sum(len(unit.tasks) for unit in units)
        store = open_store(folder)
        console = Console(stderr=True, quiet=True)
        means = Means(workers=workers)
        render_units(
            [source], settings, None, store, units, count, means, console, lambda _: ended.append(time.perf_counter())
        )
        return ended[-1] - began[0], cpu_seconds() - began[1]
    finally:
        Job._assign = submit  # type: ignore[method-assign]


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def digest(folder: Path) -> str:
    """Of all shards."""
    hashed = hashlib.sha256()
    for path in sorted((folder / "shards").glob("*.tar")):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="of one worker's work in a unit")
    parser.add_argument("--units", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    settings = RenderSettings(views=4, height=options.size, width=options.size, backend="cpu")
    probe = parse("procedural:objects?count=6")
    origin = Origin("warm-up", "procedural", "0" * 64)
    render.render_views(next(iter(load_all(probe)))[0], origin, settings)
    begun = time.perf_counter()
    for mesh, its in load_all(probe):
        for sample in render.render_views(mesh, its, settings).samples:
            shards.encode(sample)
    per_asset = (time.perf_counter() - begun) / 6
    in_unit = max(1, round(60 * options.minutes / per_asset))
    count = in_unit * options.units
    source = parse(f"procedural:objects?count={count}")
    units = plan([source], settings.model_dump(mode="json"), settings.views, in_unit * settings.views)
    print(f"{count} assets of {per_asset:.2f} s in {len(units)} units; {os.cpu_count()} cores", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="overhead-"))
    alone, one, two = [], [], []
    try:
        with connection.connected("local", workers=2):
            for index in range(options.rounds):
                alone.append(bare(source, settings, units, folder / f"bare{index}"))
                seconds, driver = job(source, settings, units, folder / f"one{index}", 1)
                one.append(seconds)
                two.append(job(source, settings, units, folder / f"two{index}", 2)[0])
                print(
                    f"bare {alone[-1]:.1f} s   job {seconds:.1f} s ({seconds / alone[-1]:.3f} of bare; driver "
                    f"{1000 * driver / count:.1f} ms of CPU an asset)   2 workers {two[-1]:.1f} s "
                    f"({seconds / two[-1]:.2f}x)",
                    flush=True,
                )
                assert len({digest(folder / f"{way}{index}") for way in ("bare", "one", "two")}) == 1
                for way in ("bare", "one", "two"):
                    shutil.rmtree(folder / f"{way}{index}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratio = statistics.median(b / a for a, b in zip(alone, one))
    gain = statistics.median(b / a for a, b in zip(two, one))
    print(f"median: job with one worker {ratio:.3f} of the bare renderer; two workers {gain:.2f}x one")


def load_all(source: Any) -> list[Any]:
    return [source.load(ref, None) for ref in source.assets()]


if __name__ == "__main__":
    main()
