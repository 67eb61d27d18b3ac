"""What do the paper's runs take on 1, 8, 64 and 512 GPUs? The computed tables of docs/scale.md.

    python tests/benchmarks/scale.py [--gpu h100] [--mfu 0.4]      the tables, in seconds; no GPU, no data
    python tests/benchmarks/scale.py --track wt_o_504              what one GPU's step holds, by torch's own accounts

The tables are those of `worldtrace train CONFIG --dry-run --gpus N`, with the accumulation that fits and is fastest.
`--track` runs a forward and a backward pass on simulated tensors (FakeTensorMode: shapes without memory, so the whole
model fits anywhere), eager, lets torch's MemTracker follow every storage, and prints its peak beside what
train/plan/memory.py counts. It takes minutes.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from model import WTDiT, objective, preset
from train import config
from train.plan import memory, plan
from train.plan.plan import Plan
from train.step import compute

RUNS = {
    "wt_o, 196": ("wt_o",),
    "wt_o, 504": ("wt_o_504",),
    "wt_s, 504": ("wt_s",),
    "wt_d, 336": ("wt_d", "data.size=336"),
    "wt_d, 504": ("wt_d",),
}
COUNTS = (1, 8, 64, 512)


def best(run: str, count: int, gpu: str = "h100", mfu: float = plan.MFU) -> Plan:
    """The run on so many GPUs, as fast as it fits; in the smallest parts where it does not.

    WT-D's batch of 64 clips is 512 on 512 GPUs: one for each is the least.
    """
    name, *changes = RUNS[run]
    settings = config.load(name, changes)
    if settings.data.batch % count:
        settings = config.load(name, [*changes, f"data.batch={count}"])
    smallest = settings.model_copy(update={"accumulation": settings.data.batch // count})
    made = plan.plan(smallest, count, gpu, mfu)
    return min((other for other in plan.divisions(made) if other.fits), key=lambda other: other.step, default=made)


def tables(gpu: str = "h100", mfu: float = plan.MFU) -> str:
    made = {(run, count): best(run, count, gpu, mfu) for run in RUNS for count in COUNTS}
    return "\n\n".join(
        [
            "Memory of a GPU, GB:\n\n" + _table(made, MEMORY),
            "Time and traffic of a step, of one GPU:\n\n" + _table(made, STEP),
            "Data and checkpoints, of one node:\n\n" + _table(made, NODE),
        ]
    )


Column = tuple[str, Callable[[Plan], str]]


def _items(*names: str) -> Callable[[Plan], str]:
    return lambda p: f"{sum(p.memory[name] for name in names) / 1e9:.1f}"


MEMORY: tuple[Column, ...] = (
    ("a GPU, at a time", lambda p: f"{p.on.micro_batch}"),
    ("weights", _items("weights")),
    ("gradients", _items("gradients")),
    ("moments, averages", _items("Adam's moments", "averages (EMA)")),
    ("gathered", _items("gathered weights")),
    ("batch, temporary", _items("batches, points, noise", "temporary (estimate)")),
    ("activations", _items("activations")),
    ("blocks twice", lambda p: f"{p.recomputed}"),
    ("all", lambda p: f"**{sum(p.memory.values()) / 1e9:.1f}**" + ("" if p.fits else " (does not fit)")),
)
STEP: tuple[Column, ...] = (
    ("batch = GPUs x at a time x accumulation", lambda p: f"{p.settings.data.batch} = {_product(p)}"),
    ("computing, s", lambda p: f"{p.compute:.3g}"),
    ("received over links, GB", lambda p: f"{p.communication.bytes_link / 1e9:.1f}"),
    ("over the network, GB", lambda p: f"{p.communication.bytes_network / 1e9:.2f}"),
    ("traffic, s", lambda p: f"{p.communication.all:.3g}"),
    ("of it not hidden, s", lambda p: f"{p.communication.shown:.2g}"),
    ("optimizer, s", lambda p: f"{p.update:.2g}"),
    ("step, s", lambda p: f"**{p.step:.3g}**"),
    ("MFU", lambda p: f"{p.achieved:.0%}"),
    ("steps", lambda p: f"{p.settings.steps // 1000}K"),
    ("days", lambda p: f"{p.hours / 24:.3g}"),
    ("GPU hours", lambda p: f"{p.hours * p.on.world:,.0f}"),
)
NODE: tuple[Column, ...] = (
    ("nodes", lambda p: f"{p.nodes}"),
    ("samples/s, all", lambda p: f"{p.samples_per_second:,.3g}"),
    ("frames/s, a node", lambda p: f"{p.frames_per_node:.3g}"),
    ("read, MB/s", lambda p: f"{p.read / 1e6:.3g}"),
    ("cores for data", lambda p: f"{p.cores:.2g}"),
    ("checkpoint, GB in all", lambda p: f"{p.checkpoint / 1e9:.1f}"),
    ("staging, s", lambda p: f"{p.checkpoint / p.on.world / plan.STAGING:.2g}"),
    ("rate for 25 s, GB/s", lambda p: f"{p.checkpoint / p.nodes / 25 / 1e9:.2g}"),
)


def _product(made: Plan) -> str:
    return f"{made.on.world} x {made.on.micro_batch} x {made.settings.accumulation}"


def _table(made: dict[tuple[str, int], Plan], columns: tuple[Column, ...]) -> str:
    lines = ["| run | GPUs | " + " | ".join(title for title, _ in columns) + " |"]
    lines.append("|---|---|" + "---|" * len(columns))
    for (name, count), p in made.items():
        lines.append(f"| {name} | {count} | " + " | ".join(value(p) for _, value in columns) + " |")
    return "\n".join(lines)


def track(name: str, samples: int = 2) -> None:
    """Peak of a forward and a backward pass at full size, with none, half and all of the blocks computed twice."""
    from torch.distributed._tools.mem_tracker import MemTracker

    settings = config.load(name)
    shape = preset(settings.model.preset, **settings.model.overrides)
    size, half = settings.data.size, settings.precision == "bf16"
    names = [unit for unit, _ in memory.units(shape)]
    counted = memory.parameters(shape)
    on = memory.Placement(1, 1, samples)
    for twice in (0, len(names) // 2, len(names)):
        began = time.perf_counter()
        with FakeTensorMode():
            network = WTDiT(shape)
            network.requires_grad_(True)  # MemTracker asks for it; frozen parts run without a graph all the same
            compute.recompute_blocks([network.get_submodule(unit) for unit in names[:twice]])
            x0 = torch.randn(samples, shape.layers, size, size, 3)
            given = (torch.rand(samples, 3, size, size), x0, torch.ones(samples, size, size).bool())
            drawn = (torch.rand(samples, shape.layers), torch.randn_like(x0))
            tracker = MemTracker()
            tracker.track_external(network, *given, *drawn)
            with tracker:
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    loss = objective(network, *given, *drawn)
                loss.total.backward()  # type: ignore[no-untyped-call]
        peak = {str(k).rpartition(".")[2]: v for k, v in tracker.get_tracker_snapshot("peak")[x0.device].items()}
        kept = memory.activations(shape, size, 1, samples, half, "eager", twice)
        temporary = memory.passing(settings, shape, counted, on)["temporary (estimate)"]
        print(
            f"{name}, {samples} samples, eager, {twice} of {len(names)} blocks twice: torch {peak['Total'] / 1e9:.2f} "
            f"GB, of which weights {peak['PARAM'] / 1e9:.2f}, activations {peak['ACT'] / 1e9:.2f}, temporary "
            f"{peak['TEMP'] / 1e9:.2f}; counted: weights {4e-9 * counted.all:.2f}, activations {kept / 1e9:.2f}, "
            f"temporary {temporary / 1e9:.2f} ({time.perf_counter() - began:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpu", default="h100")
    parser.add_argument("--mfu", type=float, default=plan.MFU)
    parser.add_argument("--track", metavar="CONFIG")
    given = parser.parse_args()
    if given.track:
        track(given.track)
    else:
        print(tables(given.gpu, given.mfu))
