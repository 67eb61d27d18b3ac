"""Who works on a job: how many actors of which kind a cluster gets, and what they are called to do."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import ray
from rich.console import Console

from cluster.availability import Availability
from cluster.commit import commit_unit
from cluster.job import Job
from cluster.ledger import Attempt
from cluster.pool import Event, Pool
from cluster.progress import Live
from cluster.renderer import Renderer, Work
from cluster.software import versions
from cluster.sources import Source
from cluster.sources.filters import Filters
from cluster.stages import ON_GPU, Crew, chain
from cluster.stopping import stopped_by_signals
from cluster.store import Store
from cluster.units import Unit
from render import RenderSettings

FOLLOW_EVERY = 5.0  # seconds between looks at the cluster
WORKERS_PER_COMMITTER = 8
SHARE_OF_STORE = 0.5  # of Ray's object store; the rest is for what is under way, and for what Ray does not drop at once

# Ray places an actor where its share of CPUs is free. A worker takes a core; those that only wait take next to none,
# but not zero: a head node that was started without CPUs is to do no work.
WORKER_CPUS = 0.99
WAITER_CPUS = 0.001


@dataclass(frozen=True)
class Means:
    """How a job is carried out. Nothing here changes a byte of its dataset, unless an asset exceeds a limit."""

    address: str | None = None  # None: local, or the Ray job we are in; see connection.connected
    workers: int | None = None  # renderers; None: one a CPU (with a GPU backend `renderers_per_gpu` a GPU)
    asset_timeout: float = 300.0  # seconds, for each stage of an asset
    memory: int = 8 << 30  # bytes that one renderer may allocate
    debug: bool = False
    fetchers: int = 16  # downloads at a time
    fetch_timeout: float = 600.0  # seconds
    renderers_per_gpu: int = 4  # what they do on their CPUs hides behind what the others do on the GPU
    parted: bool = False  # load, render and encode in processes of their own, as on a GPU


@dataclass(frozen=True)
class Sizes:
    """How many actors of each kind."""

    workers: int
    renderers: int
    fetchers: int
    committers: int

    @classmethod
    def of(cls, resources: Mapping[str, float], means: Means, parted: bool, remote: bool, to_do: int) -> "Sizes":
        """For a cluster with these resources. With --workers they do not depend on it: what is asked for beyond what is
        there waits until the cluster grows, and lets Ray's autoscaler know.
        """
        cpus, gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
        if parted:
            renderers = means.workers or max(1, int(gpus * means.renderers_per_gpu))
            workers = max(1, cpus - renderers)  # a renderer keeps a core busy too
        else:
            renderers, workers = 0, means.workers or max(1, cpus)
        committers = 1 + max(renderers, workers) // WORKERS_PER_COMMITTER
        return cls(*(min(n, to_do) for n in (workers, renderers, means.fetchers if remote else 0, committers)))


class Committer:
    """Writes units. No asset is touched in its process."""

    def ready(self) -> tuple[str, str]:
        import socket

        return ray.get_runtime_context().get_node_id(), socket.gethostname()

    def commit(
        self, store: Store, unit: str, attempts: list[Attempt], batches: list[ray.ObjectRef]
    ) -> tuple[str, None]:
        commit_unit(store, unit, attempts, batches)
        return unit, None


def render_units(
    sources: Sequence[Source],
    settings: RenderSettings,
    filters: Filters | None,
    store: Store,
    missing: Sequence[Unit],
    assets: int,
    means: Means,
    console: Console,
    committed: Callable[[str], None],
) -> int:
    """Commit the `missing` units with the Ray that is connected; returns the number of samples rendered.

    `assets` is how many the whole job has. `committed` is told the name of every unit that is done.

    ValueError or OSError, in one sentence, where that cannot be; KeyboardInterrupt for SIGINT and SIGTERM.
    """
    to_do = sum(len(unit.tasks) for unit in missing)
    on_gpu = settings.backend in ON_GPU
    parted = on_gpu or means.parted
    remote = any(source.remote for source in sources)
    resources = ray.cluster_resources()
    if on_gpu and not resources.get("GPU"):
        raise ValueError(f"--backend {settings.backend}: Ray has no GPU here; use --backend cpu")
    work = ray.put(Work(tuple(sources), settings, means.memory, filters and filters.for_workers(), versions()))
    sizes = Sizes.of(resources, means, parted, remote, to_do)
    events: SimpleQueue[Event] = SimpleQueue()

    def pool(name: Crew, size: int, renders: bool, **options: Any) -> Pool:
        actor: Any = ray.remote(max_restarts=0, **options)(type(f"{name[:-1].title()}", (Renderer,), {}))
        return Pool(lambda: actor.remote(work), size, events, (renders,), name[:-1])

    share = 1.0 / means.renderers_per_gpu if on_gpu else 0
    with Live(console, assets, standing=assets - to_do) as live, stopped_by_signals():
        pools: dict[str, Pool] = {}
        try:
            # those that need least room are placed first
            writer: Any = ray.remote(num_cpus=WAITER_CPUS, scheduling_strategy="SPREAD")(Committer)
            pools["committers"] = Pool(writer.remote, sizes.committers, events, what="committer")
            if remote:
                pools["fetchers"] = pool(
                    "fetchers", sizes.fetchers, False, num_cpus=WAITER_CPUS, scheduling_strategy="SPREAD"
                )
            if parted:
                pools["renderers"] = pool("renderers", sizes.renderers, True, num_cpus=WAITER_CPUS, num_gpus=share)
            pools["workers"] = pool("workers", sizes.workers, not parted, num_cpus=WORKER_CPUS)
            cluster = _Cluster(pools, lambda now: Sizes.of(now, means, parted, remote, to_do))
            job = Job(
                store,
                missing,
                chain(remote, parted, means.asset_timeout, means.fetch_timeout),
                pools,
                pools["committers"],
                events,
                Availability([source.text for source in sources]),
                live,
                cluster.room,
                committed,
            )
            job.run()
        finally:
            for each in pools.values():
                each.close()
    return live.summary.views


class _Cluster:
    """The cluster as it comes and goes: looked at every few seconds, and the pools made to fit."""

    def __init__(self, pools: Mapping[str, Pool], sizes: Callable[[Mapping[str, float]], Sizes]) -> None:
        self.pools = pools
        self.sizes = sizes
        self.bytes = 0
        self.looked = 0.0
        self.room()

    def room(self) -> int:
        """Bytes that the job may keep in the object stores of all nodes."""
        if time.monotonic() - self.looked > FOLLOW_EVERY:
            resources = ray.cluster_resources()
            sizes = self.sizes(resources)
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            for name, pool in self.pools.items():
                pool.lose_nodes(alive)
                if (size := getattr(sizes, name)) != pool.size:
                    pool.resize(size)
            self.bytes = int(SHARE_OF_STORE * resources.get("object_store_memory", 1 << 30))
            self.looked = time.monotonic()
        return self.bytes
