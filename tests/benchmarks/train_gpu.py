"""What does a GPU make of the trainer? Is it right there, how fast is a step, a prediction, an attention, the data?

    python -m tests.benchmarks.train_gpu COMMAND [--out DIR] [--minutes 9] [--only TEXT ...] [--peak FLOPS]

A command takes at most about `--minutes`, builds all it needs with random weights of the true shapes, prints its table
last and writes DIR/COMMAND.json after every row. What time or memory does not allow is a row that says so. Wanted, on
one H100 (989 TFLOP/s dense bf16): train504 45 % MFU on the way to 55, train196 40 %, infer 2 s, rays about 1, data 1 %.

check     Is it right? `tiny` and a small scene model in float32 (no TF32) on the device against the CPU in float64:
          loss, gradients, points of a batch; then bf16, compiled, every kernel, computed twice, within what bf16
          rounds; a whole prediction; 20 steps of the update, refused ones among them. Exits 1 where a bound is missed.
train504  Steps of `wt_o` at 504 (train196: at 196), as the loop takes them: targets, forward, backward, tally, AdamW,
          guard, average, on batches that are there already. Rows: the model as one writes it down first
          (plain_wt_dit.py: eager PyTorch, SDPA, fused AdamW), then ours eager, compiled, with cuDNN's attention, with
          blocks computed twice, over micro-batches. MFU = samples/s x model.training_flops / peak; a ratio to the plain
          one's samples a second in the same run; the most memory that was allocated.
infer     Seconds for 20 steps of the sampler on an image of 504: eager in float32 and under autocast, compiled under
          autocast, and with the matrices of the blocks in bf16 beforehand, which autocast would cast at every step.
rays      A block of each attention, forward and backward, at 504: time, the time of its matrix products alone, and what
          is left over the least time that the bytes of the rest take at the bandwidth of a large copy, measured here
          (of layer-wise and global blocks attention's arithmetic is in the rest); attention of each shape alone by
          each kernel, over its bytes.
data      `data --data DATASET`: steps at `--size` fed by the loader (--workers) with augmentation and the paper's
          photometry: the part of the time that the step waits for data, and what a step takes without.

`--device cpu --small` runs the same code on micro shapes with host clocks, to see that it works.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import Loss, WTDiT, training_flops
from tests.benchmarks.gpu_check import check
from tests.benchmarks.gpu_pieces import inference, rays, unprepare
from tests.benchmarks.gpu_rows import RELEASED, Bench, batch_on
from tests.benchmarks.plain_wt_dit import PlainWTDiT
from train.config import Config
from train.data.batch import Batch
from train.data.stream import Schedule, Stream, batches
from train.plan import gpus
from train.ranks import sharding
from train.step import compute
from train.step.loss import loss_of
from train.step.tally import tally
from train.step.update import Update


def training(bench: Bench, size: int, micro_batches: Sequence[int]) -> None:
    """Rows of steps at `size`; see above. `micro_batches` from the one that should suit best to the others."""
    best = _plain_rows(bench, size, sorted(micro_batches))
    with torch.device(bench.device):
        model = WTDiT(bench.shape())
    update = Update(model, bench.settings(size, 1))
    first = micro_batches[:1]
    # What was compiled once serves again, but for another kernel of attention, which is chosen when compiling.
    ways: list[tuple[str, dict[str, Any], Sequence[int]]] = [
        ("compiled", {"compile": True}, micro_batches),
        ("compiled, all twice", {"compile": True, "activations": "recompute"}, micro_batches[-1:]),
        ("compiled, none twice", {"compile": True, "activations": "keep"}, first),
        ("compiled, cudnn", {"compile": True, "attention": "cudnn"}, first),
        ("compiled, flash", {"compile": True, "attention": "flash"}, first),
        ("eager", {"compile": False}, micro_batches),
    ]
    for name, chosen, batches_ in ways:
        if "attention" in chosen:
            torch._dynamo.reset()
        for batch in batches_:
            settings = bench.settings(size, batch, compute=chosen)
            bench.attempt(f"{name}, {batch}", partial(_ours, bench, model, update, settings, best))
            unprepare(model)
            for weight in model.parameters():
                weight.grad = None


def _ours(bench: Bench, model: WTDiT, update: Update, settings: Config, best: float) -> dict[str, Any]:
    twice = compute.prepare(model, settings, bench.ranks)
    with compute.attention(settings.compute):
        return {**_speed(bench, our_step(bench, model, update, settings), settings, best), "twice": twice}


def _plain_rows(bench: Bench, size: int, micro_batches: Sequence[int]) -> float:
    """Rows of the plain model; its most samples a second, 0 where it was not asked for."""
    best = 0.0
    with torch.device(bench.device):
        plain = PlainWTDiT(bench.shape())
    trained = [p for p in plain.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    average = [p.detach().clone() for p in trained]
    for batch in micro_batches:
        settings = bench.settings(size, batch)
        step = plain_step(bench, plain, optimizer, average, settings)
        found = bench.attempt(f"plain eager, {batch}", partial(_speed, bench, step, settings, 0.0))
        best = max(best, found["samples_s"] if found else 0.0)
        optimizer.zero_grad(set_to_none=True)
    return best


def _speed(bench: Bench, step: Callable[[], None], settings: Config, best: float) -> dict[str, Any]:
    seconds, size = bench.seconds(step), settings.data.size
    rate, work = settings.data.batch / seconds, training_flops(bench.shape(), size, size)
    mfu = {} if bench.peak is None else {"MFU": rate * work / bench.peak}
    ratio = {"x_plain": rate / best} if best else {}
    return {"ms": 1000 * seconds, "samples_s": rate, **mfu, **ratio, "GB": bench.allocated()}


def our_step(bench: Bench, model: WTDiT, update: Update, settings: Config) -> Callable[[], None]:
    """A step of train/loop.py but for data and log, on batches that are there already, in turns."""
    turns = itertools.cycle(ready(bench, settings, model.config.layers))

    def step() -> None:
        sharding.accumulating(model, last=True)
        batch = next(turns).to(bench.device)
        loss = loss_of(model, model.config.time_shift, RELEASED, batch, settings, "shared")
        loss.total.backward()
        of_all = tally(bench.ranks, [Loss(*(x.detach() for x in loss))], update.norm())
        update.step(of_all.loss, of_all.norm, 1e-4, warm=False)

    return step


def plain_step(
    bench: Bench, model: PlainWTDiT, optimizer: torch.optim.Optimizer, average: list[Tensor], settings: Config
) -> Callable[[], None]:
    """The same as one writes it down first; nothing of it waits for the device either."""
    turns = itertools.cycle(ready(bench, settings, model.config.layers))
    trained = [p for p in model.parameters() if p.requires_grad]

    def step() -> None:
        batch = next(turns).to(bench.device)
        loss_of(model, model.config.time_shift, RELEASED, batch, settings, "shared").total.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(average, [p.detach() for p in trained], 0.0005)

    return step


def ready(bench: Bench, settings: Config, layers: int) -> list[Batch]:
    return [batch_on(bench.device, settings.data.size, settings.data.batch, layers, seed) for seed in range(4)]


def fed(bench: Bench, size: int, path: str | None, workers: int, batch: int) -> None:
    """Rows of steps on batches that are there, and on those of the loader."""
    if path is None:
        bench.row("steps fed by the loader", not_run="no --data DATASET was given")
        return
    chosen = {"path": path, "size": size, "batch": batch, "workers": workers, "split": "all"}
    settings = bench.settings(size, batch, data=chosen, compute={"compile": not bench.small})
    with torch.device(bench.device):
        model = WTDiT(bench.shape())
    compute.prepare(model, settings, bench.ranks)
    update = Update(model, settings)
    alone = bench.seconds(our_step(bench, model, update, settings))
    bench.row("steps on batches that are there", ms=1000 * alone, samples_s=batch / alone)
    stream = Stream(settings.data, settings.augment, model.config.layers, 0, on_device=bench.device.type == "cuda")
    count = 4 if bench.small else max(20, min(400, int(120 / alone)))
    with batches(stream, Schedule(0, count + 5, batch), pin=bench.device.type == "cuda") as incoming:

        def step(found: Batch) -> None:
            loss = loss_of(model, model.config.time_shift, RELEASED, found.to(bench.device), settings, "shared")
            loss.total.backward()
            update.step(loss.total.detach(), update.norm(), 1e-4, warm=False)

        for _ in range(5):
            step(next(incoming))
        bench.wait()
        began, waited = time.perf_counter(), 0.0
        for _ in range(count):
            asked = time.perf_counter()
            found = next(incoming)
            waited += time.perf_counter() - asked
            step(found)
        bench.wait()
        seconds = time.perf_counter() - began
    bench.row(
        f"steps fed by {workers} workers",
        ms=1000 * seconds / count,
        samples_s=batch * count / seconds,
        data_wait=waited / seconds,
        over_alone=seconds / count / alone,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "train504", "train196", "infer", "rays", "data"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="micro shapes, to see that it works")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--peak", type=float, help="FLOP/s of the device where it is not a known one")
    parser.add_argument("--data")
    parser.add_argument("--size", type=int, default=504)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--workers", type=int, default=12)
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("train_gpu: torch sees no CUDA device; add --device cpu --small to see that it works", file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    until = time.monotonic() + 60 * given.minutes
    bench = Bench(given.command, device, given.small, gpus.peak(name, given.peak), until, given.out, given.only)
    size = 28 if given.small else given.size
    if given.command == "check":
        check(bench)
    elif given.command == "train504":
        training(bench, 28 if given.small else 504, (1, 2) if given.small else (2, 1, 4))
    elif given.command == "train196":
        training(bench, 28 if given.small else 196, (2,) if given.small else (16, 8, 32))
    elif given.command == "infer":
        inference(bench, size, 2 if given.small else 20)
    elif given.command == "rays":
        rays(bench, size, 1 if given.small else 2)
    else:
        fed(bench, size, given.data, given.workers, given.batch)
    bench.table()
    return 1 if any(row.get("wrong") for row in bench.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
