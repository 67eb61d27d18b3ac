"""Who works on a job: how many actors of which kind a cluster gets, and what they are called to do."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from queue import SimpleQueue
from typing import Any

import ray
from rich.console import Console

from cluster.availability import Availability
from cluster.commit import commit_unit
from cluster.job import Job
from cluster.ledger import Attempt
from cluster.pool import Event, Pool
from cluster.progress import Counts, Live
from cluster.renderer import Renderer, Work
from cluster.software import versions
from cluster.sources import Source
from cluster.sources.filters import Filters
from cluster.stages import ON_GPU, Crew, chain
from cluster.stopping import stopped_by_signals
from cluster.units import Unit
from render import RenderSettings
from shards.store import Store

FOLLOW_EVERY = 5.0  # seconds between looks at the cluster
WORKERS_PER_COMMITTER = 4
# To hand out an asset and take it back costs 0.4 to 1.6 ms of one Python process at every stage. A GPU of 2 ms a view
# and its 12 workers ask for 9 assets of 56 views a second; 128 actors beside 8 of them keep half of that process busy.
WORKERS_PER_FOREMAN = 128
SHARE_OF_STORE = 0.5  # of Ray's object store; the rest is for what is under way, and for what Ray does not drop at once

# Ray places an actor where its share of CPUs is free. A worker takes a core; those that only wait take the least that
# Ray counts, so that hundreds of them keep no worker from its core, but not zero: a head node that was started without
# CPUs is to do no work.
WORKER_CPUS = 0.99
WAITER_CPUS = 0.0001


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
    foremen: int | None = None  # processes that hand out the work; None: the driver alone, or as many as it takes


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

    def foremen(self, means: Means, units: int) -> int:
        """How many processes are to hand out the work."""
        wanted = means.foremen or -(-(self.workers + self.renderers) // WORKERS_PER_FOREMAN)
        return min(wanted, self.workers, self.renderers or self.workers, units)

    def share(self, index: int, of: int) -> "Sizes":
        """What the foreman `index` of so many has: at least one of each kind that there is."""
        return Sizes(*(max(n // of + (index < n % of), n > 0) for n in astuple(self)))


@dataclass(frozen=True)
class Brief:
    """All that who hands out the work must know, but for the units: the driver, or foreman `index` of `foremen`."""

    store: Store
    work: ray.ObjectRef  # a Work
    sources: tuple[str, ...]
    means: Means
    on_gpu: bool
    remote: bool
    to_do: int  # assets of the whole job
    index: int = 0
    foremen: int = 1

    @property
    def parted(self) -> bool:
        return self.on_gpu or self.means.parted

    def sizes(self, resources: Mapping[str, float]) -> Sizes:
        return Sizes.of(resources, self.means, self.parted, self.remote, self.to_do)


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
    from cluster.foremen import dispatch  # which imports this module

    to_do = sum(len(unit.tasks) for unit in missing)
    on_gpu = settings.backend in ON_GPU
    resources = ray.cluster_resources()
    if on_gpu and not resources.get("GPU"):
        raise ValueError(f"--backend {settings.backend}: Ray has no GPU here; use --backend cpu")
    work = ray.put(Work(tuple(sources), settings, means.memory, filters and filters.for_workers(), versions()))
    names, remote = tuple(source.text for source in sources), any(source.remote for source in sources)
    brief = Brief(store, work, names, means, on_gpu, remote, to_do)
    brief = replace(brief, foremen=brief.sizes(resources).foremen(means, len(missing)))
    with Live(console, assets, standing=assets - to_do) as live, stopped_by_signals():
        if brief.foremen > 1:
            dispatch(brief, missing, live, committed)
        else:
            with working(brief, missing, live, committed) as job:
                job.run()
    return live.summary.views


@contextmanager
def working(brief: Brief, units: Sequence[Unit], live: Counts, committed: Callable[[str], None]) -> Iterator[Job]:
    """A job and its actors, who are gone when the block ends."""
    events: SimpleQueue[Event] = SimpleQueue()
    means, parted = brief.means, brief.parted
    sizes = brief.sizes(ray.cluster_resources()).share(brief.index, brief.foremen)

    def pool(name: Crew, size: int, renders: bool, **options: Any) -> Pool:
        actor: Any = ray.remote(max_restarts=0, **options)(type(f"{name[:-1].title()}", (Renderer,), {}))
        return Pool(lambda: actor.remote(brief.work), size, events, (renders,), name[:-1])

    share = 1.0 / means.renderers_per_gpu if brief.on_gpu else 0
    pools: dict[str, Pool] = {}
    try:
        # those that need least room are placed first
        writer: Any = ray.remote(num_cpus=WAITER_CPUS, scheduling_strategy="SPREAD")(Committer)
        pools["committers"] = Pool(writer.remote, sizes.committers, events, what="committer")
        if brief.remote:
            pools["fetchers"] = pool(
                "fetchers", sizes.fetchers, False, num_cpus=WAITER_CPUS, scheduling_strategy="SPREAD"
            )
        if parted:
            pools["renderers"] = pool("renderers", sizes.renderers, True, num_cpus=WAITER_CPUS, num_gpus=share)
        pools["workers"] = pool("workers", sizes.workers, not parted, num_cpus=WORKER_CPUS)
        yield Job(
            brief.store,
            units,
            chain(brief.remote, parted, means.asset_timeout, means.fetch_timeout),
            pools,
            pools["committers"],
            events,
            Availability(list(brief.sources)),
            live,
            _Cluster(pools, brief).room,
            committed,
        )
    finally:
        for each in pools.values():
            each.close()


class _Cluster:
    """The cluster as it comes and goes: looked at every few seconds, and the pools made to fit."""

    def __init__(self, pools: Mapping[str, Pool], brief: Brief) -> None:
        self.pools = pools
        self.brief = brief
        self.bytes = 0
        self.looked = 0.0
        self.room()

    def room(self) -> int:
        """Bytes that the job may keep in the object stores of all nodes."""
        if time.monotonic() - self.looked > FOLLOW_EVERY:
            resources = ray.cluster_resources()
            sizes = self.brief.sizes(resources).share(self.brief.index, self.brief.foremen)
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            for name, pool in self.pools.items():
                pool.lose_nodes(alive)
                if (size := getattr(sizes, name)) != pool.size:
                    pool.resize(size)
            self.bytes = int(SHARE_OF_STORE * resources.get("object_store_memory", 1 << 30) / self.brief.foremen)
            self.looked = time.monotonic()
        return self.bytes
