"""What happens in a worker: load one asset, render its views, encode them; at once, or a stage at a time."""

import resource
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import render
import shards
from cluster.bundle import Bundle, packed, unpacked
from cluster.ledger import Outcome
from cluster.limits import forget_peak, limited_memory, peak_memory
from cluster.scratch import private_folder
from cluster.software import versions
from cluster.sources import Source, Unavailable
from cluster.sources.filters import Filters
from cluster.stages import ON_GPU
from cluster.units import Task
from render import Material, Mesh, Rejected, RenderSettings
from render.views import Rendered
from shards import EncodedSample, Origin


@dataclass(frozen=True)
class Work:
    """What all actors of a job share. `memory` bounds in bytes what a process may allocate for an asset, beside what it
    held before. `software` is what the driver has installed: a node with other versions would make other bytes.
    """

    sources: Sequence[Source]
    settings: RenderSettings
    memory: int
    filters: Filters | None
    software: Mapping[str, str]


@dataclass
class Reply:
    """What a stage says of an asset: `outcome` is that of this stage, and `bytes` the size of what it leaves in the
    object store. `unavailable` says why it could not be had just now; then nothing is known of the asset.
    """

    outcome: Outcome
    bytes: int = 0
    unavailable: str | None = None


@dataclass(frozen=True)
class Loaded:
    mesh: Mesh
    origin: Origin


class Renderer:
    """Takes one asset per call, through one stage or all. An asset is untrusted: whatever it does here ends as an
    Outcome, or with the process. Time is bounded by the pool, which kills the process.

    Every stage returns a Reply, and what it made, or None.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]  # an administrator's
        self.memory = work.memory if hard == resource.RLIM_INFINITY else min(work.memory, hard)
        self.on_gpu = work.settings.backend in ON_GPU
        self.node = ""

    def ready(self, renders: bool) -> tuple[str, str]:
        """Get ready: one that `renders` compiles or loads the kernels, so that the time limit of the first asset does
        not pay for it. Returns (Ray's node id, host name). Raises ValueError where it cannot work on this node.
        """
        import ray

        for name, here in versions().items():
            if (there := self.work.software.get(name, here)) != here:
                raise ValueError(
                    f"{socket.gethostname()} has {name} {here}, and the job was started with {there}: "
                    "install the same on every node"
                )
        if renders:
            small = self.work.settings.model_copy(update={"views": 1, "frames": 1, "height": 32, "width": 32})
            render.render_views(_tetrahedron(), Origin("warm-up", "procedural", "0" * 64), small)
        self.node = ray.get_runtime_context().get_node_id()
        return self.node, socket.gethostname()

    def fetch(self, task: Task) -> tuple[Reply, Bundle | None]:
        """Of a source that lies on every node, nothing."""

        def step(outcome: Outcome) -> tuple[Bundle | None, int]:
            source = self.work.sources[task.source]
            if not source.remote:
                return None, 0
            with private_folder() as folder:
                main = source.fetch(task.ref, folder)
                bundle = packed(folder, main)
            return bundle, bundle.size

        return self._guarded("seconds_fetch", step)

    def load(self, task: Task, bundle: Bundle | None = None) -> tuple[Reply, Loaded | None]:
        def step(outcome: Outcome) -> tuple[Loaded, int]:
            loaded = self._load(task, bundle, outcome)
            return loaded, _bytes(loaded.mesh)

        return self._guarded("seconds_load", step)

    def draw(self, task: Task, loaded: Loaded) -> tuple[Reply, Rendered | None]:
        """On a GPU an unexpected exception is raised, upon which the pool replaces this process: after an illegal
        access its CUDA context fails at every later call.
        """

        def step(outcome: Outcome) -> tuple[Rendered, int]:
            rendered = self._draw(loaded, outcome)
            return rendered, sum(_bytes(frame) for sample in rendered.samples for frame in _frames(sample))

        return self._guarded("seconds_render", step, fragile=self.on_gpu)

    def encode(self, task: Task, rendered: Rendered) -> tuple[Reply, list[EncodedSample] | None]:
        def step(outcome: Outcome) -> tuple[list[EncodedSample], int]:
            return _encode(rendered, outcome)

        return self._guarded("seconds_encode", step)

    def render(self, task: Task, bundle: Bundle | None = None) -> tuple[Reply, list[EncodedSample] | None]:
        """Load, draw and encode."""

        def step(outcome: Outcome) -> tuple[list[EncodedSample], int]:
            begun = time.perf_counter()
            loaded = self._load(task, bundle, outcome)
            outcome.seconds_load = time.perf_counter() - begun
            begun = time.perf_counter()
            rendered = self._draw(loaded, outcome)
            outcome.seconds_render = time.perf_counter() - begun
            begun = time.perf_counter()
            encoded = _encode(rendered, outcome)
            outcome.seconds_encode = time.perf_counter() - begun
            return encoded

        return self._guarded("", step, fragile=self.on_gpu)

    def _guarded(self, seconds: str, step: Callable[[Outcome], tuple[Any, int]], fragile: bool = False) -> Any:
        """`step` within the limits -> (Reply, what it made or None), whatever it raises."""
        outcome = Outcome(host=socket.gethostname(), node=self.node, started=time.time())
        reply, made = Reply(outcome), None
        forget_peak()
        begun = time.perf_counter()
        try:
            with limited_memory(self.memory):
                made, reply.bytes = step(outcome)
        except Unavailable as error:
            reply.unavailable = str(error)
        except Rejected as error:
            outcome.status, outcome.reason, outcome.message = "rejected", error.reason, error.message
        except MemoryError:
            outcome.status, outcome.reason = "rejected", "out_of_memory"
            outcome.message = f"needs more than {self.memory / 2**30:.3g} GiB"
        except Exception as error:
            if fragile:
                raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            outcome.status, outcome.reason = "failed", "error"
            outcome.message = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        if seconds:
            setattr(outcome, seconds, time.perf_counter() - begun)
        outcome.peak_memory = peak_memory()
        return reply, made

    def _load(self, task: Task, bundle: Bundle | None, outcome: Outcome) -> Loaded:
        source = self.work.sources[task.source]
        if bundle is None:
            mesh, origin = source.load(task.ref, None)
        else:
            with unpacked(bundle) as path:
                mesh, origin = source.load(task.ref, path)
        outcome.sha256 = origin.sha256
        outcome.flags = sorted(mesh.flags)
        if self.work.filters is not None:
            self.work.filters.check(mesh)
        return Loaded(mesh, origin)

    def _draw(self, loaded: Loaded, outcome: Outcome) -> Rendered:
        rendered = render.render_views(loaded.mesh, loaded.origin, self.work.settings)
        outcome.views_rejected = [f"{view}:{reason}" for view, reason, _ in rendered.rejected]
        if not rendered.samples:
            _, reason, message = rendered.rejected[0]
            raise Rejected(reason, f"every view was rejected; the first: {message}")
        return rendered


def _encode(rendered: Rendered, outcome: Outcome) -> tuple[list[EncodedSample], int]:
    samples = [shards.encode(sample) for sample in rendered.samples]
    outcome.views = len(samples)
    return samples, sum(len(member) for sample in samples for member in sample.members.values())


def _frames(sample: shards.Sample) -> Sequence[shards.LayeredView]:
    return sample.frames if isinstance(sample, shards.Clip) else (sample,)


def _bytes(thing: Any, depth: int = 4) -> int:
    """Bytes of the arrays in the attributes of `thing`, about: what it will take in the object store."""
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if depth == 0:
        return 0
    if isinstance(thing, tuple | list):
        return sum(_bytes(part, depth - 1) for part in thing)
    return sum(_bytes(part, depth - 1) for part in getattr(thing, "__dict__", {}).values())


def _tetrahedron() -> Mesh:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    return Mesh(vertices, faces, np.zeros(4, np.int32), (Material(),))
