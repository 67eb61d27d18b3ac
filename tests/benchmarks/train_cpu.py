"""What does a training step of `tiny` take on a CPU, where does it go, and how much of it need it be?

    python -m tests.benchmarks.train_cpu [--turns 7] [--steps 30] [--batch 8]

One thread; CPU time of this process, so that other work on the machine weighs little. The dataset is made here
(spheres, 112 x 112, six layers). Seconds depend on the machine; the ratios carry over, and so do the counts at the end,
on which tests/train/test_step_cost.py holds bounds.

whole     `train()` itself in a fresh process: the CPU time of `--steps` more steps, logs and curriculum included, no
          checkpoint; resident memory after the imports and at the peak.
parts     The pieces of that step, one after the other. data: reading, decoding and batching in this process (workers
          0); targets: points, normalisation, times and noise; forward with the loss; backward; update: norm, clipping,
          AdamW, guard and average. What the whole takes beyond their sum is the loop's own, its log included.
products  Every matrix product of forward and backward, those of attention too, again on random operands of the same
          shapes and layouts: what the arithmetic takes at the speed of this machine's library. FLOPs are theirs.
plain     Forward and backward of the model as one writes it down first (plain_wt_dit.py), same weights, same batch; its
          loss is compared before it is timed.
counts    Operators that a step calls (each a launch on a GPU), and bytes that the forward pass keeps for the backward.

Model, plain twin and products are taken in turns, three at a time; every figure is a median.
"""

import argparse
import io
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from model import Loss, Normalisation, WTDiT, draw_times, objective, preset
from tests.benchmarks.plain_wt_dit import PlainWTDiT
from tests.shards.scenes import spheres_view
from tests.train.conftest import write_dataset
from train import config
from train.config import Config
from train.data.batch import Batch
from train.data.stream import Schedule, Stream, batches
from train.loop import train
from train.run import build, normalisation_for
from train.step.loss import draws
from train.step.update import Update

FREE = {  # operators that look at a tensor in another way and launch nothing
    "view", "_unsafe_view", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze", "select", "slice", "split",
    "unbind", "detach", "alias", "as_strided", "_reshape_alias", "split_with_sizes", "unsafe_split", "diagonal",
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "is_same_size",
}  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts the operators that compute something, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in FREE:
            self.by_name[name] = self.by_name.get(name, 0) + 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return sum(self.by_name.values())


class Products(TorchDispatchMode):
    """Notes the operands of every matrix product: shape, strides, type and device of each of the two."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Operand, Operand]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            a, b = args[:2] if name in ("mm", "bmm") else args[1:3]
            self.found.append((_operand(a), _operand(b)))
        return func(*args, **(kwargs or {}))

    @property
    def flops(self) -> int:
        return sum(2 * math.prod(a.shape) * b.shape[-1] for a, b in self.found)

    def again(self) -> Callable[[], None]:
        """A function that computes them one after the other."""
        operands = {pair: (_random(pair[0]), _random(pair[1])) for pair in set(self.found)}
        pairs = [operands[pair] for pair in self.found]

        def run() -> None:
            for a, b in pairs:
                torch.matmul(a, b)

        return run


class Operand(NamedTuple):
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def _operand(tensor: Tensor) -> Operand:
    return Operand(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)


def _random(operand: Operand) -> Tensor:
    shape, stride, dtype, device = operand
    return torch.empty_strided(shape, stride, dtype=dtype, device=device).normal_()


def kept_for_backward(model: torch.nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of the tensors that `forward` saves for its backward, each storage once, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, int] = {}

    def note(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return saved

    with saved_tensors_hooks(note, lambda saved: saved):
        result = forward()  # alive until all are counted, so that no storage is freed and counted as another
    del result
    return sum(storages.values())


@dataclass
class Pieces:
    """A step of the trainer on one device, taken apart."""

    settings: Config
    stream: Stream
    model: WTDiT
    normalisation: Normalisation
    update: Update
    incoming: Iterator[Batch]

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(x0, times, noise) of a batch."""
        x0, _ = self.normalisation.forward(batch.xyz, batch.valid)
        uniform, noise = draws(self.settings.seed, batch.index, x0)
        return x0, draw_times(uniform, "shared", self.model.config.time_shift), noise

    def forward(self, network: Callable[..., Tensor], batch: Batch, targets: tuple[Tensor, Tensor, Tensor]) -> Loss:
        x0, t, noise = targets
        return objective(network, batch.rgb, x0, batch.valid, t, noise, batch.single_layer, batch.weight)

    def change(self, loss: Loss) -> None:
        self.update.step(loss.total.detach(), self.update.norm(), 1e-4, warm=False)


def settings_of(folder: Path, steps: int, batch: int) -> Config:
    """The shipped `tiny` on a dataset made in `folder`, reading in this process and reporting once."""
    path = folder / "dataset"
    if not path.exists():
        write_dataset(path, [spheres_view(i, 112, 112) for i in range(8)], 112)
    tree = config.to_dict(config.load("tiny", [f"data.path={path}", "data.split=all", f"data.batch={batch}"]))
    tree["data"]["workers"] = 0
    tree["log"] |= {"every": 10, "tensorboard": False}
    tree["checkpoint"]["every"] = 10**6
    return config.from_dict({**tree, "steps": steps, "out": str(folder / f"run-{steps}"), "device": "cpu"})


def pieces(settings: Config, incoming: Iterator[Batch] | None = None) -> Pieces:
    layers = preset(settings.model.preset, **settings.model.overrides).layers
    stream = Stream(settings.data, settings.augment, layers, settings.seed)
    model, _ = build(settings)
    return Pieces(settings, stream, model, normalisation_for(stream), Update(model, settings), incoming or iter(()))


def counts(found: Pieces, batch: Batch) -> dict[str, int]:
    """Operators of forward, backward and update, and the bytes that the forward pass keeps."""
    targets = found.targets(batch)
    result = {"kept": kept_for_backward(found.model, lambda: found.forward(found.model, batch, targets).total)}
    for name in ("forward", "backward", "update"):
        with Launches() as launches:
            if name == "forward":
                loss = found.forward(found.model, batch, targets)
            elif name == "backward":
                loss.total.backward()
            else:
                found.change(loss)
        result[name] = launches.total
    return result


def whole(folder: Path, steps: int, batch: int) -> tuple[float, float, float]:
    """(CPU seconds of one more step of `train`, MB resident after the imports, MB at the peak), in a fresh process."""
    code = f"from tests.benchmarks.train_cpu import _whole; _whole({str(folder)!r}, {steps}, {batch})"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    per_step, before, peak = json.loads(said.splitlines()[-1])
    return per_step, before, peak


def _whole(folder: str, steps: int, batch: int) -> None:
    torch.set_num_threads(1)
    before, taken = _resident(), []
    for each in (5, 5, 5 + steps):  # the first pays for what is imported and made once
        settings = settings_of(Path(folder), each, batch)
        began = time.process_time()
        with tempfile.TemporaryDirectory() as out:
            train(settings.model_copy(update={"out": out}), Console(file=io.StringIO()))
        taken.append(time.process_time() - began)
    print(json.dumps([(taken[2] - taken[1]) / steps, before, _resident()]))


def _resident() -> float:
    """The most memory this process has had resident, MB; what `getrusage` says would include its parent's."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(folder: Path, turns: int, steps: int, batch: int) -> None:
    torch.set_num_threads(1)
    settings = settings_of(folder, steps, batch)
    ours = pieces(settings)
    plain = PlainWTDiT(ours.model.config)
    with batches(ours.stream, Schedule(0, 10**6, batch)) as incoming:
        first = next(incoming)
        for _ in range(3):  # from the start the last layer is zero, and most gradients with it
            loss = ours.forward(ours.model, first, ours.targets(first))
            loss.total.backward()
            ours.change(loss)
        plain.load_state_dict(ours.model.state_dict())
        targets = ours.targets(first)
        a, b = (ours.forward(network, first, targets).total.item() for network in (ours.model, plain))
        if abs(a - b) > 1e-4 * abs(b):
            raise SystemExit(f"the model's loss is {a}, that of its plain twin {b}: nothing to compare")
        with Products() as products, sdpa_kernel(SDPBackend.MATH):
            ours.forward(ours.model, first, targets).total.backward()
        again, counted = products.again(), counts(ours, first)

        seconds: dict[str, list[float]] = {}
        wholes = []

        def timed(name: str, run: Callable[[], Any]) -> Any:
            began = time.process_time()
            result = run()
            seconds.setdefault(name, []).append(time.process_time() - began)
            return result

        for turn in range(turns):
            if turn % 3 == 0:
                wholes.append(whole(folder, steps, batch))
            for _ in range(3):  # the first of a kind finds the caches, and the memory it is given, as another left them
                found = timed("data", lambda: next(incoming))
                made = timed("targets", lambda found=found: ours.targets(found))
                loss = timed("forward", lambda found=found, made=made: ours.forward(ours.model, found, made))
                timed("backward", loss.total.backward)
                timed("update", lambda loss=loss: ours.change(loss))
            for _ in range(3):
                loss = timed("plain forward", lambda found=found, made=made: ours.forward(plain, found, made))
                timed("plain backward", loss.total.backward)
                plain.zero_grad(set_to_none=True)
            for _ in range(3):
                timed("products", again)
    per_step, before, peak = (statistics.median(each) for each in zip(*wholes))
    _show({name: statistics.median(each) for name, each in seconds.items()}, per_step, products.flops, batch)
    print(f"memory: {before:.0f} MB after the imports, {peak:.0f} MB at the peak")
    print(
        f"counts: {counted['forward']} + {counted['backward']} + {counted['update']} operators (forward, backward, "
        f"update); {counted['kept'] / batch / 1e6:.2f} MB a sample kept for the backward pass"
    )


def _show(median: dict[str, float], per_step: float, flops: int, batch: int) -> None:
    parts = ("data", "targets", "forward", "backward", "update")
    print(f"tiny, batch {batch}, 112 x 112, one thread, float32, torch {torch.__version__}; CPU time\n")
    print(f"{'':32} ms      share of the whole step")
    for name, value in [*((name, median[name]) for name in parts), ("the rest, log included", 0.0)]:
        own = value or per_step - sum(median[part] for part in parts)
        print(f"{name:28} {own * 1000:8.2f}   {own / per_step:6.1%}")
    print(f"{'whole step of train()':28} {per_step * 1000:8.2f}   {batch / per_step:.1f} samples/s")
    speed = f"{flops / median['products'] / 1e9:.1f} GFLOP/s"
    print(f"{'its matrix products alone':28} {median['products'] * 1000:8.2f}   {speed}\n")
    both, plain = (median[f"{of}forward"] + median[f"{of}backward"] for of in ("", "plain "))
    print(f"whole step / products            {per_step / median['products']:.2f}   ({flops / 1e9:.2f} GFLOP)")
    print(f"forward and backward / products  {both / median['products']:.2f}")
    print(f"forward and backward / plain     {both / plain:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), given.turns, given.steps, given.batch)


if __name__ == "__main__":
    main()
