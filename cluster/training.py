"""Training on a Ray cluster: the trainer of `worldtrace train`, one process per rank, started again when one is lost.

Ray Train places the workers, opens their process group and restarts all of them when one dies; what is lost is what the
run did since its newest checkpoint in `out`, which is all that a restart needs. So `out` and the dataset lie on storage
that every node sees; the ranks check both before the first step.
"""

import contextlib
import importlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast

from cluster import connection
from cluster.board import Board, Lines
from shards.order import mixture
from train import config, environment, signals
from train.config import Config

PLACEMENTS = 10  # attempts of a minute each to place all workers, after which a run that may not wait gives up
REFUSED = (ValueError, FileNotFoundError)  # what another attempt would meet again
ALONE = 5.0  # seconds after which a worker that met an error believes to be the only one
LOST_ANOTHER = r"rank \d+ of \d+, on \S+, has (ended|not moved) [^;\n]*"  # as train/ranks/heartbeat.py says it
POLL = 0.5  # seconds between two looks at what the workers say
PATIENCE = 20.0  # seconds without room for the workers after which that is said; again after three times as long
TELLING = 5.0  # seconds that a rank which must end takes, at most, to tell the driver why


@dataclass(frozen=True)
class Workers:
    """How many ranks, and what each takes of the cluster. `gpu` None: a GPU each where the cluster has any.

    `max_failures`: how often a lost worker is made good, -1 for ever. `wait`: nodes may still have to come.
    """

    count: int
    gpu: bool | None = None
    cpus: int = 1
    max_failures: int = 3
    wait: bool = False


@dataclass(frozen=True)
class Ended:
    """How the run ended: `line` says it, `stopped_by` names the signal that stopped it."""

    line: str
    stopped_by: signal.Signals | None


def train_on_cluster(
    settings: Config, workers: Workers, address: str | None, say: Callable[[str], None], debug: bool = False
) -> Ended:
    """Train the run in `settings.out` on `workers`, or go on with it.

    SIGTERM and SIGINT are handed to the workers, which save and leave; another, some seconds later, ends all.
    ValueError says in one sentence what cannot be, and which rank met it; FileNotFoundError as in `worldtrace train`.
    """
    _check_batch(settings, workers.count)
    connection.prepare(address, debug)
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    settings = settled(settings)
    with connection.connected(address, workers.count * workers.cpus, debug):
        gpu = _place(settings, workers, say)
        given = settings.model_copy(update={"device": "cuda" if gpu else "cpu"})
        with signals.noted(again=True) as caught:
            return _fit(given, workers, gpu, caught, say)


def settled(settings: Config) -> Config:
    """The same run with absolute paths: workers have other working directories.

    ValueError where `out` would lie in the copy of the working directory that `ray job submit` makes.
    """
    from train import weights

    if not Path(settings.out).is_absolute() and "runtime_resources" in Path.cwd().parts:
        raise ValueError(
            f"out: {settings.out} would lie in the job's own copy of the working directory: give an absolute path"
        )
    data = settings.data
    path = (
        _absolute(data.path)
        if isinstance(data.path, str)
        else mixture.plain(mixture.changed(data.mixed, lambda source: replace(source, path=_absolute(source.path))))
    )
    cache = data.cache and data.cache.model_copy(update={"folder": _absolute(data.cache.folder)})
    return settings.model_copy(
        update={
            "out": _absolute(settings.out),
            "data": data.model_copy(update={"path": path, "cache": cache}),
            "model": settings.model.model_copy(
                update={"start": settings.model.start and weights.absolute(settings.model.start)}
            ),
        }
    )


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _check_batch(settings: Config, count: int) -> None:
    from train.data.stream import Schedule

    Schedule(0, settings.steps, settings.data.batch, settings.accumulation, 0, count)


def _place(settings: Config, workers: Workers, say: Callable[[str], None]) -> bool:
    """Whether workers get a GPU each. ValueError where the cluster has not the nodes for them and may not wait."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("GPU", "CPU"))
    gpu = workers.gpu
    if gpu is None:
        gpu = settings.device == "cuda" or (settings.device == "auto" and gpus > 0)
    if not gpu and settings.device == "cuda":
        raise ValueError("device: cuda in the config, but --cpu was given; leave one of them out")
    if gpu and settings.device == "cpu":
        raise ValueError("device: cpu in the config, but --gpu was given; leave one of them out")
    has = f"the cluster has {cpus} CPUs and {gpus} GPUs on {len(nodes)} node{'s' * (len(nodes) != 1)}"
    if gpu and not gpus and not workers.wait:
        raise ValueError(f"no GPU for a worker: {has}; give --cpu, or --wait where an autoscaler will add some")
    need = _need(workers, gpu)
    room = sum(int(min(node.get(kind, 0) // amount for kind, amount in need.items())) for node in nodes)
    if room < workers.count:
        each = _each(need)
        if not workers.wait:
            hint = f"give --workers {room}, or " if room else ""
            raise ValueError(
                f"--workers {workers.count}: only {room} can be placed ({each}; {has}); {hint}"
                "--wait where an autoscaler will add nodes"
            )
        say(f"waiting for nodes: {room} of {workers.count} workers can be placed ({each}; {has})")
    return gpu


def _need(workers: Workers, gpu: bool) -> dict[str, int]:
    return {"CPU": workers.cpus, **({"GPU": 1} if gpu else {})}


def _each(need: Mapping[str, int]) -> str:
    return f"each takes {need['CPU']} CPU{'s' * (need['CPU'] > 1)}{' and a GPU' if 'GPU' in need else ''}"


class _Room:
    """Whether the workers wait for room that others have taken, which Ray Train does without a word."""

    def __init__(self, need: Mapping[str, int], workers: Workers) -> None:
        self._need, self._workers = dict(need), workers
        self._since, self._patience = time.monotonic(), PATIENCE

    def lacking(self, runs: bool) -> str | None:
        """A line to say, now and then, while no attempt `runs` and the workers are not placed."""
        import ray
        from ray.util import placement_group_table

        now = time.monotonic()
        if runs:
            self._since, self._patience = now, PATIENCE
        if now - self._since < self._patience:
            return None
        asked = [{kind: float(amount) for kind, amount in self._need.items()}] * self._workers.count
        groups = [each for each in placement_group_table().values() if list(each["bundles"].values()) == asked]
        if not any(each["state"] in ("PENDING", "PREPARED", "RESCHEDULING") for each in groups):
            return None
        self._patience = 3 * (now - self._since)
        free, all_ = ray.available_resources(), ray.cluster_resources()
        rest = " and ".join(f"{free.get(kind, 0.0):g} of {all_.get(kind, 0.0):g} {kind}s" for kind in self._need)
        return (
            f"waiting for room since {now - self._since:.0f} s: {self._workers.count} workers are to be placed "
            f"({_each(self._need)}), and {rest} are free; what other programs hold must end first"
        )


def _fit(
    settings: Config, workers: Workers, gpu: bool, caught: list[signal.Signals], say: Callable[[str], None]
) -> Ended:
    import ray
    import torch
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from train.ranks import heartbeat
    from train.ranks.parallel import backend_of

    # As Any: to a type checker these have the signatures of Ray Train's first version.
    ray_train: Any = importlib.import_module("ray.train")
    ray_torch: Any = importlib.import_module("ray.train.torch")
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
    need = _need(workers, gpu)
    trainer = ray_torch.TorchTrainer(
        _work,
        train_loop_config={"board": board, "settings": config.to_dict(settings)},
        torch_config=ray_torch.TorchConfig(
            backend=backend_of(torch.device("cuda" if gpu else "cpu")),
            timeout_s=int(settings.parallel.timeout * heartbeat.BACKSTOP),
        ),
        scaling_config=ray_train.ScalingConfig(
            num_workers=workers.count,
            use_gpu=gpu,
            resources_per_worker=need,
        ),
        run_config=ray_train.RunConfig(
            name="ray",
            storage_path=str(out),
            callbacks=[_tells_losses(board)],
            failure_config=ray_train.FailureConfig(
                max_failures=workers.max_failures, controller_failure_limit=-1 if workers.wait else PLACEMENTS
            ),
            worker_runtime_env={"env_vars": _worker_environment(workers)},
        ),
    )
    ended: dict[str, Any] = {}

    def fit() -> None:
        try:
            ended["value"] = trainer.fit().return_value
        except BaseException as error:
            ended["error"] = error

    # In a thread, for Ray's own Ctrl-C handler, which throws the steps since the last checkpoint away, goes in the main
    # one only; here signals go to the workers instead, and lines come back meanwhile.
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    told, room = False, _Room(need, workers)
    try:
        while thread.is_alive():
            thread.join(POLL)
            if len(caught) > 1:
                raise KeyboardInterrupt
            if caught and not told:
                told = True
                say(f"{caught[0].name}: the workers save a checkpoint; again in some seconds ends them at once")
                ray.get(board.stop.remote(int(caught[0])))
            for line in ray.get(board.read.remote()):
                say(line)
            if (line := room.lacking(ray.get(board.runs.remote()))) is not None:
                say(line)
    except BaseException:
        board.stop.remote(int(signal.SIGTERM))  # nobody looks on any more: where this process lives on, they are not to
        raise
    _sweep(out / "ray")
    refusal = ray.get(board.refusal.remote())
    if refusal is not None:
        raise ValueError(refusal)
    if "error" in ended:
        raise ValueError(_failed(ended["error"], workers)) from ended["error"]
    value = ended["value"]
    return Ended(value["line"], signal.Signals(value["stopped_by"]) if value["stopped_by"] else None)


def _worker_environment(workers: Workers) -> dict[str, str]:
    """As `worldtrace train` sets it for itself."""
    known = {name: os.environ.get(name, value) for name, value in environment.DEFAULTS.items()}
    return {"OMP_NUM_THREADS": str(workers.cpus), **known}


def _work(given: dict[str, Any]) -> dict[str, Any] | None:
    """What each worker runs: the very `train` of `worldtrace train`. Returns how it ended (rank 0's is read)."""
    import ray
    from ray.train import get_context
    from rich.console import Console

    from train.loop import train

    board, rank = given["board"], get_context().get_world_rank()
    refused = ray.get((board.begin if rank == 0 else board.refusal).remote())
    if refused is not None:
        return None  # an attempt before this one met an error that no other attempt can mend
    caught: list[signal.Signals] = []
    ended = threading.Event()
    console = Console(file=cast(TextIO, Lines(board)), width=1000) if rank == 0 else None
    if rank == 0:
        threading.Thread(target=_listen, args=(board, caught, ended), daemon=True).start()
    try:
        outcome = train(config.from_dict(given["settings"]), console, caught, partial(_end, board))
    except REFUSED as error:
        ray.get(board.refuse.remote(str(error)))
        if _met_by_all(board, get_context().get_world_size()):
            return None  # a run that ended: to raise would make Ray Train start all of them again
        raise
    finally:
        ended.set()
    number = int(outcome.stopped_by) if outcome.stopped_by else 0
    return {"line": outcome.line(given["settings"]["out"]), "stopped_by": number}


def _end(board: Any, sentence: str) -> None:
    """A rank hangs: tell the driver which, and end this process, whose main thread may wait in C."""
    import ray

    from train.ranks.heartbeat import leave

    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(board.hung.remote(sentence), timeout=TELLING)
    leave()


def _met_by_all(board: Any, world: int) -> bool:
    """Most refusals are agreed on by all ranks. Where one is alone the others wait for it, and must be ended."""
    import ray

    until = time.monotonic() + ALONE
    while (count := ray.get(board.refused_by.remote())) < world and time.monotonic() < until:
        time.sleep(0.1)
    return bool(count >= world)


def _listen(board: Any, caught: list[signal.Signals], ended: threading.Event) -> None:
    """Put the driver's signal where the loop looks for one. Without a driver there is nothing to listen to."""
    import ray

    while not ended.wait(2 * POLL):
        with contextlib.suppress(ray.exceptions.RayError):
            number = ray.get(board.stopped.remote())
            if number and not caught:
                caught.append(signal.Signals(number))


def _failed(error: BaseException, workers: Workers) -> str:
    """One sentence about a run that Ray Train gave up."""
    if type(getattr(error, "controller_failure", None)).__name__ == "WorkerGroupStartupTimeoutError":
        return (
            f"--workers {workers.count}: no room for them in {PLACEMENTS + 1} minutes, as other programs hold what "
            "they need; give fewer, or --wait"
        )
    failures = getattr(error, "worker_failures", None)
    text = _cause(failures) if failures else _last_line(getattr(error, "controller_failure", error))
    return (
        f"training ended after {workers.max_failures} restarts (--max-failures): {text}; "
        "the same command goes on from the newest checkpoint"
    )


def _tells_losses(board: Any) -> Any:
    """A callback of Ray Train's controller, made here because importing Ray must wait for `connection.prepare`."""
    from ray.train import UserCallback

    class Losses(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            board.lost.remote(_cause(worker_exceptions))

    return Losses()


def _cause(failures: Mapping[int, object]) -> str:
    """The rank that failed, and why. Ranks that only lost touch with it say so, and are the last choice."""
    named = {rank: re.search(LOST_ANOTHER, str(failure)) for rank, failure in failures.items()}
    ranks = sorted(failures, key=lambda rank: ("another rank" in str(failures[rank]), named[rank] is not None, rank))
    told = named[ranks[0]]
    return told[0] if told else f"rank {ranks[0]}: {_last_line(failures[ranks[0]])}"


def _last_line(error: object) -> str:
    text = str(error).partition(" Some common causes")[0]  # Ray's guesses about a process that was killed
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


def _sweep(folder: Path) -> None:
    """Remove the folder that Ray Train keeps for itself: our checkpoints are all there is to keep."""
    (folder / ".validate_storage_marker").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
