"""From sources to a finished dataset: claim the folder, plan, compare, connect, render what is missing, sum up."""

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

import shards
from cluster import output
from cluster.connection import connected
from cluster.job import Job
from cluster.ledger import Ledger
from cluster.pool import Pool
from cluster.progress import Live, Summary, counting
from cluster.renderer import ON_GPU, Renderer
from cluster.sources import Source
from cluster.units import Unit, digest_of_assets, plan
from render import RenderSettings

# what the bytes of a dataset depend on
SOFTWARE = ("worldtrace", "dracopy", "numpy", "pillow", "pyarrow", "warp-lang", "zstandard")
RENDERERS_PER_GPU = 8  # encoding on the CPU keeps that many busy beside one GPU


@dataclass(frozen=True)
class Means:
    """How a job is carried out. Nothing here changes a byte of its dataset, unless an asset exceeds a limit."""

    address: str | None = None  # None: local, or the Ray job we are in; see connection.connected
    workers: int | None = None  # renderers; None: one a CPU (with a GPU backend at most RENDERERS_PER_GPU a GPU)
    asset_timeout: float = 300.0  # seconds
    memory: int = 8 << 30  # bytes that one renderer may allocate
    debug: bool = False


def render_dataset(
    sources: Sequence[Source],
    folder: Path,
    settings: RenderSettings,
    shard_views: int = 64,
    means: Means = Means(),
    console: Console | None = None,
) -> Summary:
    """Render every asset of `sources` into the dataset `folder`, or what an earlier run left undone.

    ValueError in one sentence where the folder belongs to another job or config, or the cluster cannot do it.
    """
    console = console or Console(stderr=True)
    began = time.monotonic()
    with output.claim(folder), ExitStack() as connection:
        output.sweep(folder)
        stored = _stored(folder)
        if settings.backend == "auto":
            if stored is None:
                connection.enter_context(connected(means.address, means.workers, means.debug))
            settings = settings.model_copy(update={"backend": _backend(stored)})
        with counting(console, "listing assets") as advance:
            units = plan(sources, settings.model_dump(mode="json"), images_per_asset(settings), shard_views, advance)
        names = [unit.name for unit in units]
        job: dict[str, Any] = {
            "sources": [source.text for source in sources],
            "assets": sum(len(unit.tasks) for unit in units),
            "assets_digest": digest_of_assets(units),
            "shard_views": shard_views,
            "render": settings.model_dump(mode="json"),
        }
        header = _adopt(folder, stored, job, settings, names)
        ledger = Ledger(folder)
        if header["complete"]:
            if ledger.tables_stand():
                ledger.discard()  # of a run that was killed while it did so
                return Summary.of(ledger.table())
            ledger.reopen()
            # From here on the records count: a run that is killed must not find the tables to stand again.
            shards.write_dataset_json(folder, {**header, "complete": False})
        standing = ledger.done(names)
        missing = [unit for unit in units if unit.name not in standing]
        fresh = 0
        if missing:
            _refuse_other_software(folder, header["software"])
            connection.enter_context(connected(means.address, means.workers, means.debug))
            fresh = _render(sources, settings, folder, missing, job["assets"], means, console)
        _finish(folder, ledger, names, header, console)
        summary = Summary.of(ledger.table())
        summary.fresh_views, summary.seconds = fresh, time.monotonic() - began
        return summary


def images_per_asset(settings: RenderSettings) -> int:
    return settings.views * (settings.frames if settings.regime == "dynamic" else 1)


def _stored(folder: Path) -> dict[str, Any] | None:
    return shards.read_dataset_json(folder) if (folder / shards.layout.DATASET_JSON).exists() else None


def _backend(stored: Mapping[str, Any] | None) -> str:
    """What `auto` stands for: that which a job began with, else CUDA where Ray has a GPU.

    A dataset must not change its renderer half way, and a worker without a GPU of its own cannot know of the others.
    """
    if stored is not None:
        return str(stored.get("job", {}).get("render", {}).get("backend", "cpu"))
    return "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"


def _adopt(
    folder: Path, stored: Mapping[str, Any] | None, job: dict[str, Any], settings: RenderSettings, names: Sequence[str]
) -> dict[str, Any]:
    """What dataset.json is to hold, once it is sure that the folder is new or this very job's; written if it is new."""
    if stored is not None:
        theirs, ours = dict(stored.get("job", {})), dict(job)
        if theirs.get("assets_digest") == ours["assets_digest"]:
            ours["sources"] = theirs.get("sources")  # the same assets by another path are the same
        if difference := output.first_difference(theirs, ours):
            raise ValueError(
                f"{folder} holds the dataset of another config: {difference}; give another --out "
                "(a dataset does not grow: other counts make another one)"
            )
        job = ours
    output.refuse_strangers(folder, {f"{name}.tar" for name in names})
    header = {
        "layers": settings.layers,
        "size": [settings.height, settings.width],
        "job": job,
        "software": stored.get("software", {}) if stored else _software(),
        "statistics": None,
        "complete": bool(stored and stored.get("complete")),
    }
    if stored is None:
        Ledger(folder).discard()  # of a dataset.json that was removed: what made these units is not known any more
        shards.write_dataset_json(folder, header)
    return header


def _render(
    sources: Sequence[Source],
    settings: RenderSettings,
    folder: Path,
    missing: Sequence[Unit],
    assets: int,
    means: Means,
    console: Console,
) -> int:
    """Commit the missing units; returns the number of samples rendered."""
    to_do = sum(len(unit.tasks) for unit in missing)
    cpus, gpus = (ray.cluster_resources().get(name, 0.0) for name in ("CPU", "GPU"))
    on_gpu = settings.backend in ON_GPU
    if on_gpu and not gpus:
        raise ValueError(f"--backend {settings.backend}: Ray has no GPU here; use --backend cpu")
    workers = means.workers or int(min(cpus, RENDERERS_PER_GPU * gpus) if on_gpu else cpus)
    options: dict[str, Any] = {
        "num_cpus": 1,
        "max_restarts": 0,
        "num_gpus": min(1.0, gpus / max(workers, 1)) if on_gpu else 0,
    }
    actor: Any = ray.remote(**options)(Renderer)
    shared = ray.put((tuple(sources), settings))
    with Live(console, assets, standing=assets - to_do) as live:
        pool = Pool(lambda: actor.remote(shared, means.memory), min(max(workers, 1), to_do), means.asset_timeout)
        try:
            Job(folder, missing, pool, live).run()
        finally:
            pool.close()
    return live.summary.views


def _finish(folder: Path, ledger: Ledger, names: Sequence[str], header: dict[str, Any], console: Console) -> None:
    """Tables, then statistics, then dataset.json, then no more records: killed in between, it is done again."""
    shards.write_manifest(folder, ledger.samples(names))
    ledger.merge(names)
    shards.write_dataset_json(folder, {**header, "statistics": _statistics(folder, console), "complete": True})
    ledger.discard()
    output.sweep(folder)


def _statistics(folder: Path, console: Console) -> dict[str, Any] | None:
    """`shards.statistics`, with a bar."""
    with counting(console, "statistics") as advance:
        return shards.statistics(folder, advance)


def _refuse_other_software(folder: Path, stored: Mapping[str, str]) -> None:
    """ValueError where more shards would be made by other versions than dataset.json states for all of them."""
    for name, here in _software().items():
        if (there := stored.get(name, "absent")) != here:
            raise ValueError(
                f"{folder} was begun with {name} {there}, but {here} is installed: install {name}=={there} and go on, "
                "or give another --out"
            )


def _software() -> dict[str, str]:
    return {name: _version(name) for name in SOFTWARE}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
