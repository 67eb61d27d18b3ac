"""Is the sequence of samples the same for every number of ranks and workers, with kills and resumes in between?

    PYTHONPATH=. python tests/benchmarks/sequence.py [--steps 10000] [--real-steps 240]

Two things are hashed. (1) The keys of 10,000 steps of batch 192, as ranks and workers deal them out among themselves:
every (rank, worker) works with objects of its own, made anew after each of some kills, and the parts of a run have
other numbers of ranks. (2) The same from real processes: ranks that read tiny samples through the DataLoader with its
workers; a worker or a whole rank is killed with SIGKILL in the middle, whoever is left is killed too, and other numbers
of ranks and workers go on from the last checkpoint. A sample is recognised by its pixels.

The data: two sources in a group beside a third, with windows, filters and weights by rows, one of which grows.
"""

import argparse
import hashlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shards
from shards import History, Sequence, generator
from shards.order import mixture
from shards.order.sequence import opened
from tests.shards.scenes import spheres_view
from tests.shards.toys import Toy
from train.config import from_dict
from train.data.stream import Schedule, Stream, batches

RANKS = (1, 2, 3, 8, 64)
WORKERS = range(9)
BATCH = 192  # the least that 3 and 64 ranks can share
SIZE = 14
CHUNK = 250  # steps whose keys a worker looks up at a time


def write_shards(directory: Path, numbers: range, rows: int, first_view: int) -> list[dict[str, Any]]:
    (directory / "shards").mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    for s in numbers:
        views = [spheres_view(first_view + rows * s + k, SIZE, SIZE) for k in range(rows)]
        path = directory / "shards" / f"{s:06d}-spheres.tar"
        found += shards.write_shard(path, [shards.encode(view) for view in views])
    return found


def write_data(root: Path | None) -> list[dict[str, Any]]:
    """Three datasets of 24, 15 and 20 samples (None: of nothing); what a config says of them."""
    there = {"objects": (8, 3, 0), "photos": (3, 5, 100), "rooms": (5, 4, 200)} if root is not None else {}
    root = root or Path("toys")
    for name, (count, rows, first) in there.items():
        shards.write_manifest(root / name, write_shards(root / name, range(count), rows, first))
        shards.write_dataset_json(root / name, {"layers": 6, "size": [SIZE, SIZE]})
    group = [
        {"path": str(root / "photos"), "split": "all", "weight": "sqrt(rows)", "boost": 1.5},
        {"path": str(root / "rooms"), "split": "all", "weight": "sqrt(rows)", "where": "L0 > 0"},
    ]
    objects = {"path": str(root / "objects"), "split": "all", "weight": 0.6, "window": 2}
    return [objects, {"weight": 0.4, "of": group}]


def grow(root: Path) -> None:
    """Two shards more for `objects`."""
    rows = shards.read_manifest(root / "objects").to_pylist()
    shards.write_manifest(root / "objects", [*rows, *write_shards(root / "objects", range(8, 10), 3, 0)])


@dataclass
class Run:
    """What a run's folder says: the mixture, the datasets as they are now, and how they came to be."""

    mixed: mixture.Mixed
    datasets: list[Any]
    names: list[list[str]]  # the keys of each dataset
    history: History
    steps: int
    batch: int
    seed: int = 5

    def sequence(self) -> Sequence:
        """A new one; only the columns of the manifests are shared."""
        return Sequence(self.mixed, self.datasets, self.seed, self.history)

    def keys(self) -> list[str]:
        """Of all steps, one after the other, in one process."""
        return [self.names[at.source][at.row] for at in self.sequence().located(0, self.steps * self.batch)]


def real_run(root: Path, steps: int, batch: int) -> Run:
    """Of tiny samples on this disk; `objects` grows after a third of the steps."""
    mixed = mixture.parse(write_data(root))
    history = History.begun(mixed, opened(mixed), 5, batch)
    grow(root)
    datasets = opened(mixed)
    history = history.resumed(mixed, datasets, steps // 3 * batch)
    return Run(mixed, datasets, [dataset.keys for dataset in datasets], history, steps, batch)


def large_run(steps: int, batch: int) -> Run:
    """Of names alone: 112 thousand samples, and 12 thousand more after a third of the steps."""
    entries = write_data(None)
    mixed = mixture.parse(entries)

    def toys(objects: int) -> list[Any]:
        return [Toy({f"{k:06d}": n for k in range(m)}) for m, n in ((objects, 400), (20, 350), (30, 150))]

    history = History.begun(mixed, toys(250), 5, batch)
    datasets = toys(280)
    history = history.resumed(mixed, datasets, steps // 3 * batch)
    return Run(
        mixed, datasets, [[f"{s}/{name}" for name in d.samples] for s, d in enumerate(datasets)], history, steps, batch
    )


def digest(keys: Iterator[str] | list[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]


def dealt(run: Run, parts: list[tuple[int, int, int, int]]) -> str:
    """The hash of the keys that the ranks' steps have, one after the other; `parts` are (start, stop, ranks, workers):
    each is a run of its own that goes on where the one before was killed.
    """
    found: list[np.ndarray] = []
    numbers: dict[str, int] = {}
    for start, stop, world, workers in parts:
        keys = np.empty((stop - start, run.batch), np.int32)
        for rank in range(world):
            schedule = list(Schedule(start, stop, run.batch, rank=rank, world=world))
            for worker in range(max(1, workers)):  # the DataLoader deals batches out in turns
                own = schedule[worker :: max(1, workers)]
                sequence = run.sequence()
                for begin in range(0, len(own), CHUNK):
                    indices = np.array(own[begin : begin + CHUNK])
                    flat = indices.ravel()
                    at = np.array([sequence[i] for i in flat.tolist()])
                    result = np.empty(len(flat), np.int32)
                    for s in np.unique(at[:, 0]):
                        here = at[:, 0] == s
                        rows = sequence.orders[s].rows(at[here, 1])
                        result[here] = [numbers.setdefault(run.names[s][row], len(numbers)) for row in rows.tolist()]
                    keys[flat // run.batch - start, flat % run.batch] = result
        found.append(keys)
    names_of = list(numbers)
    return digest([names_of[k] for keys in found for k in keys.ravel().tolist()])


def table(run: Run) -> None:
    expected = digest(run.keys())
    print(f"{run.steps} steps of {run.batch}: sha256 of the keys in one process, one after the other: {expected}")
    for world in RANKS:
        results = []
        for workers in WORKERS:
            kills = sorted(
                generator(world, "kills", workers).choice(np.arange(1, run.steps), 3, replace=False).tolist()
            )
            others = [(world, workers), (RANKS[(workers + 1) % 5], 2), (world, workers), (1, workers)]
            parts = [(a, b, *who) for (a, b), who in zip(pairwise([0, *kills, run.steps]), others)]
            results.append(dealt(run, parts) == expected)
        said = " ".join("same" if same else "DIFFERS" for same in results)
        print(f"{world:3} ranks, 0 to 8 workers, 3 kills each: {said}", flush=True)
        assert all(results)


def pixels(rgb: torch.Tensor) -> str:
    return hashlib.sha256(rgb.numpy().tobytes()).hexdigest()[:16]


def stream_of(run: Run, workers: int) -> Stream:
    c = from_dict(
        {
            "data": {"path": mixture.plain(run.mixed), "size": SIZE, "batch": run.batch, "workers": workers},
            "augment": {"enabled": False},
            "out": "unused",
        }
    )
    return Stream(c.data, c.augment, 6, run.seed, run.history)


def rank_process(run: Run, rank: int, world: int, workers: int, start: int, log: Path) -> None:
    """Reads its part of every step and notes what it saw. Killed, it leaves what it wrote."""
    torch.set_num_threads(1)
    os.setpgid(0, 0)
    stream = stream_of(run, workers)
    schedule = Schedule(start, run.steps, run.batch, rank=rank, world=world)
    try:
        with log.open("a") as file, batches(stream, schedule) as found:
            for step, batch in enumerate(found, start):
                file.write(f"{step} {' '.join(pixels(rgb) for rgb in batch.rgb)}\n")
                file.flush()
    except OSError:  # a worker was killed
        raise SystemExit(1) from None


def real(run: Run, lives: list[tuple[int, int, str]], every: int, folder: Path) -> tuple[str, int]:
    """Real ranks and workers. `lives` are (ranks, workers, who dies: "worker", "rank" or nobody); a life goes on from
    the newest step, a multiple of `every`, that all ranks of the one before had completed. Returns the hash of the keys
    that the run has seen, each step counted once, and how many kills there were.
    """
    key_of = {}
    stream = stream_of(run, 0)
    for dataset in stream.sources:
        for row in range(len(dataset)):
            key_of[_pixels_of(stream, dataset, row)] = dataset.key(row)
    context = multiprocessing.get_context("fork")
    seen: dict[int, list[str]] = {}
    start = kills = 0
    for life, (world, workers, dies) in enumerate(lives):
        logs = [folder / f"life{life}-rank{rank}" for rank in range(world)]
        processes = [
            context.Process(target=rank_process, args=(run, rank, world, workers, start, logs[rank]))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        if dies:
            _wait(logs[-1], start + (run.steps - start) // (len(lives) - life), start)
            victim = processes[-1]
            assert victim.pid is not None
            children = _children(victim.pid)
            assert victim.is_alive()
            os.kill(children[0] if dies == "worker" and children else victim.pid, signal.SIGKILL)
            kills += 1
            victim.join(30)
            assert victim.exitcode != 0, "who lost a worker ends"
            for process in processes:  # as torchrun does: the others end too, at whatever step they are
                process.kill()
        for process in processes:
            process.join()
            for child in _children_of_group(process):
                os.kill(child, signal.SIGKILL)
        steps = [[line.split() for line in log.read_text().splitlines(True) if line.endswith("\n")] for log in logs]
        done = min(len(lines) for lines in steps)
        kept = start + done if start + done == run.steps else (start + done) // every * every
        for step in range(start, max(start, kept)):
            seen[step] = [key_of[name] for lines in steps for name in lines[step - start][1:]]
        start = max(start, kept)
    assert start == run.steps, f"the last life ended at {start}"
    return digest([key for step in range(run.steps) for key in seen[step]]), kills


def _pixels_of(stream: Stream, dataset: Any, row: int) -> str:
    from train.data import augment

    target = augment.prepare(dataset[row], stream.layers, SIZE, stream.augmentation, generator(0, "none"))
    return pixels(torch.from_numpy(target.rgb))


def _wait(log: Path, step: int, start: int) -> None:
    until = time.monotonic() + 120
    while not log.is_file() or start + log.read_text().count("\n") < step:
        assert time.monotonic() < until, f"{log} does not reach step {step}"
        time.sleep(0.005)


def _children(pid: int) -> list[int]:
    return [int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]


def _children_of_group(process: BaseProcess) -> list[int]:
    """Workers that a killed rank has left behind (they end by themselves within seconds)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == process.pid:
            found.append(int(stat.parent.name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--real-steps", type=int, default=240)
    given = parser.parse_args()
    table(large_run(given.steps, BATCH))
    with tempfile.TemporaryDirectory() as text:
        root = Path(text)
        run = real_run(root / "real", given.real_steps, 24)
        expected = digest(run.keys())
        print(f"real processes, {run.steps} steps of {run.batch}: expected {expected}")
        for ranks in (1, 2, 3, 8):
            for workers in (0, 1, 2, 8) if ranks < 3 else (1, 2):
                lives = [
                    (ranks, workers, "rank"),
                    (ranks, max(1, workers), "worker"),
                    (2, 1, "rank"),
                    (ranks, workers, ""),
                ]
                folder = root / f"{ranks}-{workers}"
                folder.mkdir()
                found, kills = real(run, lives, 10, folder)
                same = "same" if found == expected else "DIFFERS"
                print(f"{ranks:3} ranks x {workers} workers, {kills} kills: {same}", flush=True)
                assert found == expected


if __name__ == "__main__":
    main()
