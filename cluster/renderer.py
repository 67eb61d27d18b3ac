"""What happens in a worker: load one asset, render its views, encode them."""

import resource
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import render
import shards
from cluster.ledger import Outcome
from cluster.sources import Source
from cluster.units import Task
from render import Material, Mesh, Rejected, RenderSettings
from shards import EncodedSample, Origin

ON_GPU = ("cuda", "nvdiffrast")  # backends that need one


class Renderer:
    """Renders one asset per call. An asset is untrusted: whatever it does here ends as an Outcome, or with the process.

    `memory` bounds in bytes what the process may allocate for an asset, beside what it held before; see
    `limited_memory`. Time is bounded by the pool, which kills the process.
    """

    def __init__(self, shared: tuple[Sequence[Source], RenderSettings], memory: int) -> None:
        self.sources, self.settings = shared
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]  # an administrator's
        self.memory = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        self.on_gpu = self.settings.backend in ON_GPU

    def ready(self) -> tuple[str, str]:
        """Compile or load the kernels, so that the time limit of the first asset does not pay for it.

        Returns (Ray's node id, host name). Raises ValueError where the backend cannot run on this node.
        """
        import ray

        small = self.settings.model_copy(update={"views": 1, "frames": 1, "height": 32, "width": 32})
        render.render_views(_tetrahedron(), Origin("warm-up", "procedural", "0" * 64), small)
        return ray.get_runtime_context().get_node_id(), socket.gethostname()

    def render(self, task: Task) -> tuple[Outcome, list[EncodedSample]]:
        """The outcome, and the samples where it is "done". On a GPU an unexpected exception is raised, upon which the
        pool replaces this process: after an illegal access its CUDA context fails at every later call.
        """
        outcome = Outcome(host=socket.gethostname())
        if task.duplicate_of is not None:
            outcome.status, outcome.reason = "rejected", "duplicate"
            outcome.message = f"the same name and bytes as {task.duplicate_of}"
            return outcome, []
        try:
            with limited_memory(self.memory):
                return outcome, self._samples(task, outcome)
        except Rejected as error:
            outcome.status, outcome.reason, outcome.message = "rejected", error.reason, error.message
        except MemoryError:
            outcome.status, outcome.reason = "rejected", "out_of_memory"
            outcome.message = f"needs more than {self.memory / 2**30:.3g} GiB"
        except Exception as error:
            if self.on_gpu:
                raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            outcome.status, outcome.reason = "failed", "error"
            outcome.message = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        return outcome, []

    def _samples(self, task: Task, outcome: Outcome) -> list[EncodedSample]:
        start = time.perf_counter()
        mesh, origin = self.sources[task.source].load(task.ref, None)
        loaded = time.perf_counter()
        outcome.seconds_load = loaded - start
        outcome.flags = sorted(mesh.flags)
        rendered = render.render_views(mesh, origin, self.settings)
        done = time.perf_counter()
        outcome.seconds_render = done - loaded
        outcome.views_rejected = [f"{view}:{reason}" for view, reason, _ in rendered.rejected]
        samples = [shards.encode(sample) for sample in rendered.samples]
        outcome.seconds_encode = time.perf_counter() - done
        outcome.views = len(samples)
        if not samples:
            _, reason, message = rendered.rejected[0]
            raise Rejected(reason, f"every view was rejected; the first: {message}")
        return samples


def _tetrahedron() -> Mesh:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    return Mesh(vertices, faces, np.zeros(4, np.int32), (Material(),))


@contextmanager
def limited_memory(limit: int) -> Iterator[None]:
    """Let this process allocate at most `limit` bytes more of private memory within the block.

    RLIMIT_DATA and not RLIMIT_AS: what CUDA, Ray and Warp reserve or share counts only once it is private and writable.
    Beyond it NumPy and Python raise MemoryError. Native code may abort instead, which the job sees as a crash. What the
    process holds already is not counted, so that no asset pays for those before it.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = private_memory() + limit
    hard = before[1]  # asking for more would be an error
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def private_memory() -> int:
    """Bytes that this process holds as RLIMIT_DATA counts them (VmData); 0 where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:")), 0)
