"""How many samples does a core decode to tensors in a second, and how many does the loader hand over?

    worldtrace render ASSETS --views 2 --out out/objects504
    worldtrace render ASSETS --views 2 --size 196 --out out/objects196
    python tests/benchmarks/decode.py out/objects504 out/objects196 [--workers 2] [--batch 8] [--soak 20000]

Wanted: at 504 at least 80 samples a second and core, at 196 at least 400, and through the loader nine tenths of that.

A decoded sample is RGBA float32 and the filled points of all layers. One thread; every figure is the CPU time of all
processes that took part (workers included), so that other work on the machine weighs on none of them; medians of
several rounds over the same samples in turns. `Stream` is train/data/stream.py's, augmentation off, at the size of the
images, and the points of each batch are asked for as well. `plain` is torch's own DataLoader over `shards.open(...)`
with the collate function below, the points made where the batch arrives. Files lie in the page cache.

`--soak N` reads N samples through the loader instead and prints the private memory of trainer and workers on the way:
it must not grow.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

import shards
from shards import LayeredView
from shards.image import decode_rgba
from shards.layers.codec import decode_layers
from shards.sample import decode, read_meta
from shards.unproject import unproject
from train.config import Augment, Data
from train.data import augment
from train.data.stream import Schedule, Stream, batches


def tensors(view: LayeredView) -> tuple[torch.Tensor, torch.Tensor]:
    """(RGBA (H,W,4) float32 in [0,1], points (L,H,W,3) float32)."""
    rgba = np.divide(view.rgba, np.float32(255), dtype=np.float32)
    return torch.from_numpy(rgba), torch.from_numpy(view.xyz())


def collate(views: Sequence[LayeredView]) -> tuple[torch.Tensor, ...]:
    """What is small on its way from a worker: RGBA uint8, depth, hits, K."""
    arrays = zip(*((view.rgba, view.depth, view.hits, np.asarray(view.K)) for view in views))
    return tuple(torch.from_numpy(np.stack(each)) for each in arrays)


def finished(batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    rgba, depth, hits, K = batch
    xyz = np.zeros((*depth.shape, 3), np.float32)
    for sample in zip(depth.numpy(), hits.numpy(), K.numpy(), xyz):
        unproject(*sample)
    return rgba.float().div_(255), torch.from_numpy(xyz)


def cpu() -> float:
    """Seconds of this process and of its children that have ended."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in found)


def private(pid: int) -> float:
    """Megabytes of a process that are its own: without files and what it shares with others."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


class Case:
    def __init__(self, path: str, rounds: int, batch: int, samples: int) -> None:
        self.dataset = shards.open(path)
        self.rounds, self.batch, self.samples = rounds, batch, samples
        self.count = len(self.dataset)
        self.size = int(self.dataset[0].size[0])  # type: ignore[union-attr]
        self.keys = self.dataset.keys
        self.members = [self.dataset.members(row) for row in range(self.count)]
        found = (decode(key, members) for key, members in zip(self.keys, self.members))
        self.views = [view for view in found if isinstance(view, LayeredView)]

    def per_sample(self, run: Callable[[int], object]) -> float:
        """Milliseconds of CPU a sample: median over the rounds."""
        took = []
        for _ in range(self.rounds):
            begin = time.process_time()
            for i in range(self.count):
                run(i)
            took.append((time.process_time() - begin) / self.count * 1e3)
        return statistics.median(took)

    def stages(self) -> None:
        layers = [members["layers.zst"] for members in self.members]
        images = [members["rgba.webp"] for members in self.members]
        off = Augment(enabled=False)
        stages: dict[str, Callable[[int], object]] = {
            "read, sha256, tar": lambda i: self.dataset.members(i),
            "json": lambda i: read_meta(self.keys[i], self.members[i]),
            "layers": lambda i: decode_layers(layers[i]),
            "image": lambda i: decode_rgba(images[i], self.size, self.size),
            "rgba to float": lambda i: np.divide(self.views[i].rgba, np.float32(255), dtype=np.float32),
            "points": lambda i: self.views[i].xyz(),
            "prepare, augmentation off": lambda i: augment.prepare(self.views[i], 6, self.size, off, None),
        }
        for name, run in stages.items():
            print(f"  {name:28s} {self.per_sample(run):8.3f} ms")

    def decoded(self) -> float:
        """Samples a second and core: the bytes of a sample -> tensors."""
        return 1e3 / self.per_sample(lambda i: tensors(decode(self.keys[i], self.members[i])))  # type: ignore[arg-type]

    def through_stream(self, path: str, workers: int) -> float:
        data = Data(path=path, split="all", size=self.size, batch=self.batch, workers=workers)
        stream = Stream(data, Augment(enabled=False), 6, 0)
        steps = self.samples // self.batch

        def run() -> None:
            with batches(stream, Schedule(0, steps, self.batch)) as found:
                for batch in found:
                    assert len(batch.xyz) == self.batch

        return self.through(run, steps * self.batch)

    def plain(self, workers: int) -> float:
        loader = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_size=self.batch,
            sampler=[i % self.count for i in range(self.samples)],
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=lambda _: torch.set_num_threads(1),
        )
        return self.through(lambda: [finished(batch) is None for batch in loader], self.samples)

    def soak(self, path: str, workers: int, samples: int) -> None:
        data = Data(path=path, split="all", size=self.size, batch=self.batch, workers=workers)
        steps = samples // self.batch
        with batches(Stream(data, Augment(enabled=False), 6, 0), Schedule(0, steps, self.batch)) as found:
            for step, batch in enumerate(found, start=1):
                assert len(batch.xyz) == self.batch
                if step % max(1, steps // 5) == 0:
                    pids = [os.getpid(), *(child.pid or 0 for child in multiprocessing.active_children())]
                    print(f"  {step * self.batch:6d} samples: {', '.join(f'{private(p):.1f}' for p in pids)} MB")

    def through(self, run: Callable[[], object], count: int) -> float:
        """Samples a second and core, the start of the workers included."""
        took = []
        for _ in range(3):
            begin = cpu()
            run()
            took.append((cpu() - begin) / count)
        return 1 / statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--samples", type=int, default=2000, help="through the loader, over several epochs")
    parser.add_argument("--soak", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for path in arguments.datasets:
        case = Case(path, arguments.rounds, arguments.batch, arguments.samples)
        hits = statistics.mean(int(view.hits.sum()) for view in case.views)
        print(f"{path}: {case.count} samples, {case.size} x {case.size}, {hits / 1e3:.0f}K hits in the mean")
        if arguments.soak:
            case.soak(path, arguments.workers, arguments.soak)
            continue
        case.stages()
        decoded = case.decoded()
        print(f"  {'decoded to tensors':28s} {decoded:8.1f} a second and core")
        for workers in (0, arguments.workers):
            for name, found in (("Stream", case.through_stream(path, workers)), ("plain", case.plain(workers))):
                print(f"  {f'{name}, {workers} workers':28s} {found:8.1f} ({found / decoded:.0%} of the decode)")


if __name__ == "__main__":
    main()
