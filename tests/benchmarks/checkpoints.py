"""Seconds and bytes of checkpoints on this machine: staged, written while a loop computes, read back; and torch.save.

    python -m tests.benchmarks.checkpoints [--millions 200] [--folder DIR]

A model of so many million weights, its average and Adam's moments: 16 bytes a weight.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train import checkpoints
from train.checkpoints import Checkpoints, Saved
from train.ranks.parallel import Ranks

BLOCK = 4_718_592  # of wt_o: 1536 x 3072 weights


def tensors(millions: int) -> dict[str, dict[str, Tensor]]:
    """As many as `millions` of weights take, in tensors as large as those of the full model."""
    names = [f"block.{i}" for i in range(max(1, round(millions * 1e6 / BLOCK)))]

    def drawn() -> dict[str, Tensor]:
        return {name: torch.randn(1536, 3072) for name in names}

    moments = {f"{kind}.{name}": t for kind in ("exp_avg", "exp_avg_sq") for name, t in drawn().items()}
    return {"model": drawn(), "ema": drawn(), "optimizer": moments}


class Clock:
    """Wall and CPU seconds of acts, by name."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    def time(self, name: str, act: Callable[..., Any], *arguments: Any) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        act(*arguments)
        self.note(name, time.perf_counter() - wall, time.process_time() - cpu)

    def note(self, name: str, wall: float, cpu: float) -> None:
        self.wall.setdefault(name, []).append(wall)
        self.cpu.setdefault(name, []).append(cpu)

    def median(self, name: str) -> float:
        return statistics.median(self.wall[name])

    def row(self, name: str, size: int) -> None:
        wall, cpu = statistics.median(self.wall[name]), statistics.median(self.cpu[name])
        print(f"{name:44s} {wall:8.3f} s {size / 1e9 / wall:6.2f} GB/s {cpu:8.3f} s CPU {size / 1e9 / cpu:6.2f} GB/s")


def plainly(held: dict[str, dict[str, Tensor]], file: Path) -> None:
    """What one would do without any of this."""
    torch.save(held, file)
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def paces(until: Callable[[], bool], least: int) -> list[float]:
    """Seconds of each of at least so many steps of a loop that computes on one thread, until that is so."""
    a = torch.randn(512, 512)
    found: list[float] = []
    while len(found) < least or not until():
        began = time.perf_counter()
        _ = a @ a @ a @ a
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    held = tensors(asked.millions)
    size = sum(t.nbytes for named in held.values() for t in named.values())
    print(f"{asked.millions}M weights, {size / 1e9:.2f} GB; medians of {asked.rounds} rounds")
    clock, alone, busy = Clock(), list[float](), list[float]()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        out = Path(folder)
        with Checkpoints(out, 1, Ranks(0, 1, torch.device("cpu"))) as saver:

            def save(step: int, wait: bool) -> None:
                saver.save(step, held, {}, wait)

            def over(whole: list[Saved]) -> bool:
                found = saver.settle()
                whole += [found] if found else []
                return bool(whole)

            clock.time("first save, its memory included", save, 0, True)
            saver.settle()
            for step in range(1, 2 * asked.rounds, 2):
                clock.time("save, waited for", save, step, True)
                saver.settle()
                clock.time("torch.save and fsync", plainly, held, out / "all.pt")  # in place of the one before, too
                alone += paces(lambda: True, 50)
                clock.time("save, not waited for", save, step + 1, False)
                whole: list[Saved] = []
                busy += paces(partial(over, whole), 1)
                found = checkpoints.find(out, ())
                clock.time("hash all files", checkpoints.check, found.path)
                clock.time("load all, hashed before", checkpoints.load, found, held)
    for name in clock.wall:
        clock.row(name, size)
    waited, blocked = clock.median("save, waited for"), clock.median("save, not waited for")
    print(f"a save that is waited for stops training {waited / blocked:.0f} times as long as one that is not")
    pairs = zip(clock.wall["torch.save and fsync"], clock.wall["save, waited for"])
    print(f"torch.save takes {statistics.median(one / other for one, other in pairs):.2f} times as long as a save")
    slower = statistics.median(busy) / statistics.median(alone)
    print(f"a step of a loop takes {slower:.2f} times as long while a checkpoint is written")


if __name__ == "__main__":
    main()
