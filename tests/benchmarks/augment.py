"""What does augmentation cost a core, and does it keep a GPU waiting?

    worldtrace render ASSETS --views 2 --out out/objects504
    worldtrace render ASSETS --views 2 --size 196 --out out/objects196
    python tests/benchmarks/augment.py out/objects504 out/objects196 [--workers 2] [--rounds 3] [--profile]

Of each dataset at the size of its images: CPU milliseconds a sample of the decode, of each part of augmentation (of the
defects that only some samples have, also what one of them takes), and of all of it; samples a second and core that the
workers hand over, augmentation on, photometry there or left to the device; and how many cores that is for each GPU.

A step of `wt_o` is 85.4 TFLOP a sample at 504 and about a sixth of that at 196 (model/flops.py), of which an H100 at
45 % of 989 TFLOP/s takes 5.2 and 30 a second: NEED. One thread; every figure is CPU time of all processes that took
part, medians of rounds over the same samples. `--profile` prints where the time of `prepare` goes.
"""

import argparse
import cProfile
import os
import pstats
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

import shards
from shards import LayeredView, generator
from tests.benchmarks.decode import cpu
from train.config import Augment, Data, MaskJitter, Photometric
from train.data import augment
from train.data.augment import geometry, mask, photometric
from train.data.augment.compositing import composite_planes
from train.data.augment.geometry import View, box_of
from train.data.augment.jpeg import jpeg
from train.data.augment.noise import sensor_noise
from train.data.stream import Schedule, Stream, batches

NEED = {504: 5.2, 196: 30.0}  # samples a second and H100
NOTHING = Photometric(**dict.fromkeys(Photometric.model_fields, 0.0))


class Case:
    def __init__(self, path: str, rounds: int, samples: int) -> None:
        self.path, self.rounds = path, rounds
        self.dataset = shards.open(path)
        rows = np.linspace(0, len(self.dataset) - 1, min(samples, len(self.dataset))).astype(int).tolist()
        found = [(row, self.dataset[row]) for row in rows]
        self.rows = [row for row, view in found if isinstance(view, LayeredView)]
        self.views = [view for _, view in found if isinstance(view, LayeredView)]
        self.size = min(self.views[0].size)
        self.config = Augment()

    def per_sample(self, run: Callable[[int], object]) -> float:
        """CPU milliseconds: median over the rounds, of which the first does not count."""
        took = []
        for _ in range(self.rounds + 1):
            begin = time.process_time()
            for i in range(len(self.views)):
                run(i)
            took.append((time.process_time() - begin) / len(self.views) * 1e3)
        return statistics.median(took[1:])

    def prepared(self, config: Augment, i: int, deferred: bool = False) -> object:
        rng = generator(0, "augment", i)
        return augment.prepare_clip([self.views[i]], 6, self.size, config, rng, deferred)

    def parts(self) -> dict[str, Callable[[int], object]]:
        size, config = self.size, self.config
        views = [View(v.rgba, v.depth, v.valid, np.asarray(v.K)) for v in self.views]
        motions = [geometry.draw([v], size, config.geometric, generator(0, i))[0] for i, v in enumerate(views)]
        warped = [geometry.warp(v, *motion, size) for v, motion in zip(views, motions)]
        black = np.zeros(3, np.float32)
        images = [composite_planes(v.rgba, black) for v in warped]
        opaque = [v.rgba[..., 3] > 0 for v in warped]
        plain = photometric.draw(NOTHING, 1, generator(0))[0]
        defects = {"blur": {"blur": 0.7}, "sharpen": {"sharpen": 0.5}, "sensor noise": {"noise": 0.02}}
        looks = {name: plain._replace(**change) for name, change in defects.items()}
        looks |= {"colours": plain._replace(contrast=1.1, gamma=1.1, exposure=0.2), "jpeg": plain._replace(quality=70)}

        def finish(look: photometric.Look, i: int) -> object:
            here = look.within(black, box_of(opaque[i]))
            return photometric.finished(torch.from_numpy(images[i].copy()), torch.from_numpy(opaque[i]), here)

        def jittered(config: MaskJitter, i: int) -> object:
            return mask.jitter([warped[i].valid], config, generator(0, i))[0].depth(warped[i].depth)

        once = MaskJitter(probability=1, thin=0, holes=0, pierced=0)
        return {
            "geometry: draw": lambda i: geometry.draw([views[i]], size, config.geometric, generator(0, i)),
            "geometry: warp": lambda i: geometry.warp(views[i], *motions[i], size),
            "composite": lambda i: composite_planes(warped[i].rgba, black),
            **{f"photometry: {name}": partial(finish, look) for name, look in sorted(looks.items())},
            "mask: outline": partial(jittered, once),
            "mask: thin, holes, pierced": partial(
                jittered, once.model_copy(update={"thin": 1.0, "holes": 1.0, "pierced": 1.0})
            ),
            "noise of the whole image": lambda i: sensor_noise(i, size, size, range(size), range(size)),
            "jpeg of the whole image": lambda i: jpeg(torch.from_numpy(images[i]), 70),
        }

    def through_workers(self, workers: int, batch: int, on_device: bool, samples: int) -> float:
        """Samples a second and core, the start of the workers included. What the device does is not done."""
        data = Data(path=self.path, split="all", size=self.size, batch=batch, workers=workers)
        stream = Stream(data, self.config, 6, 0, on_device=on_device)
        took = []
        for _ in range(self.rounds):
            begin = cpu()
            with batches(stream, Schedule(0, samples // batch, batch)) as found:
                for _ in found:
                    pass
            took.append((cpu() - begin) / (samples // batch * batch))
        return 1 / statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--views", type=int, default=48, help="of the dataset, spread over it")
    parser.add_argument("--samples", type=int, default=480, help="through the workers")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.nice(5)
    for path in arguments.datasets:
        case = Case(path, arguments.rounds, arguments.views)
        covered = statistics.mean(float(view.valid.mean()) for view in case.views)
        print(f"{path}: {len(case.views)} views, {case.size} x {case.size}, {covered:.0%} of their pixels valid")
        decode = case.per_sample(lambda i, case=case: case.dataset[case.rows[i]])  # type: ignore[misc]
        whole = case.per_sample(partial(case.prepared, case.config))
        deferred = case.per_sample(partial(case.prepared, case.config, deferred=True))
        off = case.per_sample(partial(case.prepared, Augment(enabled=False)))
        print(f"  {'decode':30s} {decode:7.2f} ms")
        for name, run in case.parts().items():
            print(f"  {name:30s} {case.per_sample(run):7.2f} ms")
        for name, took in (
            ("prepared, augmentation off", off),
            ("prepared, augmentation on", whole),
            ("prepared, photometry left", deferred),
        ):
            print(f"  {name:30s} {took:7.2f} ms ({took / decode:.1f} times the decode)")
        for name, on_device in (("all of it", False), ("photometry left", True)):
            rate = case.through_workers(arguments.workers, arguments.batch, on_device, arguments.samples)
            need = NEED.get(case.size)
            cores = f", an H100 needs {need}: {need / rate:.2f} cores" if need else ""
            print(f"  {f'workers, {name}':30s} {rate:7.1f} samples a second and core{cores}")
        if arguments.profile:
            profile = cProfile.Profile()
            profile.runcall(list, map(partial(case.prepared, case.config), range(len(case.views))))
            pstats.Stats(profile).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main()
