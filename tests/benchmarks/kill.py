"""Is a run that was killed at random moments, again and again, the run that nobody disturbed?

    python -m tests.benchmarks.kill [--steps 100] [--kills 12] [--every 7] [--seed 0] [--work DIR]

A micro model on spheres, with all augmentation, jittered masks, noise, both phases of the times and two accumulation
steps, on the CPU (gloo), for 1 and 2 ranks and for 0 and 2 workers. Each case runs once undisturbed. Then the same is
started, killed with SIGKILL and started again, `--kills` times, and at last left alone. A kill comes, by turns drawn
from the seed,

    start       somewhere in the first seconds: while processes join, data are opened, a checkpoint is read
    step        some steps after the first one, at any point of a step
    checkpoint  as soon as the temporary folder of a checkpoint shows, and up to 20 ms later
    one         as `step`, but only one of several ranks is killed: the others must end by themselves

and takes a rank's workers with it, as the loss of a machine does. Wanted, in every case: the loss of every step, as the
float64 that the ranks agreed on, the same bits in all attempts as in the undisturbed run; the sample indices of every
step the same; weights, moments, averages and the guard of the last checkpoint the same bits; `metrics.jsonl` the same
lines but for times.

Then 4 -> 2 -> 1 ranks (SIGTERM in between), against a run of 4: the same indices at every step, the loss at the first
step after each change within 1e-5. A table comes last; exits 1 if anything differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from tests.shards.scenes import spheres_view
from tests.train import ranks
from tests.train.conftest import MICRO, write_dataset
from train import checkpoints, config
from train.config import Config
from train.reports.log import read_lines

WAIT = 240.0  # seconds after which a process that should have moved has not; this machine may be busy
CLOSE = 1e-5
TIMES = (
    "time",
    "seconds_per_step",
    "samples_per_second",
    "data_wait",
    "memory",
    "memory_workers",
    "eta",
    "mfu",
    "slowest",
)


def settings_of(folder: Path, name: str, steps: int, every: int, workers: int, **changes: Any) -> Config:
    """A micro model on eight views of spheres, everything that is random switched on."""
    path = folder / "dataset"
    if not path.exists():
        write_dataset(path, [spheres_view(i, 48, 48) for i in range(8)], 48)
    tree = {
        "data": {"path": str(path), "split": "all", "size": 28, "batch": 8, "workers": workers},
        "model": MICRO,
        "objective": {"shared_times_from": steps // 2},
        "optimizer": {"lr": 2e-3, "min_lr": 2e-4, "warmup": 5},
        "log": {"every": 1, "tensorboard": False},
        "checkpoint": {"every": every, "keep": 3},
        "parallel": {"timeout": 60.0},
        "accumulation": 2,
        "device": "cpu",
        "out": str(folder / name),
        "steps": steps,
    }
    return config.from_dict({**tree, **changes})


# ---------------------------------------------------------------- a rank


def start(settings: Config, world: int, attempt: int) -> list[BaseProcess]:
    """`world` ranks of the run; each notes what it did in `Attempt.file`, and says what it says in a .log beside it."""
    port = ranks.free_port()
    processes = [
        ranks.CONTEXT.Process(target=_rank, args=(config.to_dict(settings), rank, world, port, attempt))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def notes(settings: Config, attempt: int, rank: int) -> Path:
    return Path(f"{settings.out}-{attempt}-{rank}.jsonl")


def _rank(tree: dict[str, Any], rank: int, world: int, port: int, attempt: int) -> None:
    settings = config.from_dict(tree)
    path = notes(settings, attempt, rank)
    ranks.become(rank, world, port)

    def prepare() -> None:
        from train import loop

        _note(loop, path, settings.data.batch)

    outcome = ranks.trained(settings, path.with_suffix(".log"), prepare)
    print(f"ended at {outcome.step}", flush=True)


def _note(loop: Any, path: Path, batch: int) -> None:
    """Let the loop write down the indices of every micro-batch, and the loss of every step in all its bits."""
    sound_loss, sound_tally = loop.loss_of, loop.tally
    out = path.open("w", buffering=1)
    step = 0

    def loss_of(network: Any, shift: Any, normalisation: Any, given: Any, *rest: Any) -> Any:
        nonlocal step
        indices = given.index.tolist()
        step = indices[0] // batch + 1
        out.write(json.dumps({"step": step, "indices": indices}) + "\n")
        return sound_loss(network, shift, normalisation, given, *rest)

    def tally(*given: Any) -> Any:
        found = sound_tally(*given)
        out.write(json.dumps({"step": step, "loss": float(found.loss).hex()}) + "\n")
        return found

    loop.loss_of, loop.tally = loss_of, tally


# ---------------------------------------------------------------- what a run was


@dataclass
class Trace:
    """Per step: the indices of all ranks, sorted, and the loss in hexadecimal; of all attempts together.

    `differing` names what two attempts, or two ranks, did otherwise at the same step.
    """

    indices: dict[int, list[int]]
    losses: dict[int, str]
    differing: list[str]


def trace(settings: Config, worlds: Sequence[int]) -> Trace:
    """Of the attempts 0, 1, ... with so many ranks each. A step counts where all ranks came to its end."""
    found = Trace({}, {}, [])
    for attempt, world in enumerate(worlds):
        lines = [read_lines(notes(settings, attempt, rank)) for rank in range(world)]
        ended = [{line["step"]: line["loss"] for line in own if "loss" in line} for own in lines]
        for step in set.intersection(*(set(own) for own in ended)):
            indices = sorted(
                i for own in lines for line in own if line["step"] == step for i in line.get("indices", ())
            )
            for known, new in ((found.indices, indices), *((found.losses, own[step]) for own in ended)):
                if known.setdefault(step, new) != new:  # type: ignore[attr-defined]
                    found.differing.append(f"step {step}: {known[step]} and, in attempt {attempt}, {new}")
    return found


def differences(undisturbed: Config, disturbed: Config, worlds: Sequence[int]) -> list[str]:
    """What a run of several attempts did otherwise than one that ran through; nothing is wanted."""
    one, two = trace(undisturbed, worlds[:1]), trace(disturbed, worlds)
    found = [*one.differing, *two.differing]
    for name, a, b in (("indices", one.indices, two.indices), ("loss", one.losses, two.losses)):
        found += [f"{name} of step {step}: {a[step]} and {b.get(step)}" for step in a if a[step] != b.get(step)]
    lines = [[_timeless(line) for line in read_lines(Path(c.out) / "metrics.jsonl")] for c in (undisturbed, disturbed)]
    steps = [[line for line in each if "loss" in line] for each in lines]
    found += [f"metrics.jsonl: {a} and {b}" for a, b in zip(*steps) if a != b]
    if len(steps[0]) != len(steps[1]):
        found.append(f"metrics.jsonl: {len(steps[0])} and {len(steps[1])} steps")
    ends = [checkpoints.steps(Path(c.out))[-1] for c in (undisturbed, disturbed)]
    if ends[0].name != ends[1].name:
        found.append(f"the last checkpoints are {ends[0].name} and {ends[1].name}")
    a, b = (checkpoints.read(checkpoints.check(end), checkpoints.GROUPS) for end in ends)
    for group in a:
        found += [
            f"{group}: {name}"
            for name in a[group].keys() | b[group].keys()
            if name not in a[group] or name not in b[group] or not same(a[group][name], b[group][name])
        ]
    return found


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit."""
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if not name.startswith(TIMES)}


# ---------------------------------------------------------------- killing


def kill(process: BaseProcess) -> None:
    """The rank and all that it has started."""
    pids = [process.pid]
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                pids += map(int, task.read_text().split())
            except OSError:
                continue
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def disturb(settings: Config, world: int, attempt: int, how: str, draw: random.Random) -> str:
    """One attempt and its end: what was done to it, or "ended" where it was faster."""
    folder = Path(settings.out) / "checkpoints"
    before = len(checkpoints.steps(Path(settings.out)))
    processes = start(settings, world, attempt)
    until = time.monotonic() + WAIT
    steps, seconds = draw.randint(2, 2 * settings.checkpoint.every), draw.random()

    def due() -> bool:
        if how == "start":
            return time.monotonic() > until - WAIT + 6 * seconds
        if how == "checkpoint":
            return any(folder.glob(".step-*.tmp")) and (attempt == 0 or _taken(settings, attempt) >= 1)
        return _taken(settings, attempt) >= steps

    while not due() and all(p.is_alive() for p in processes) and time.monotonic() < until:
        time.sleep(0.001 if how == "checkpoint" else 0.02)
    time.sleep({"start": 0.0, "checkpoint": 0.02 * seconds}.get(how, 0.2 * seconds))
    alive = [p for p in processes if p.is_alive()]
    if how == "one" and world > 1:
        kill(draw.choice(processes))
        for process in processes:
            process.join(WAIT)
    else:
        for process in processes:
            kill(process)
    hung = [k for k, p in enumerate(processes) if how == "one" and p.is_alive()]
    for process in processes:
        kill(process)
        process.join()
    if hung:
        raise SystemExit(f"ranks {hung} of {settings.out} did not end {WAIT:.0f} s after another was killed")
    if len(alive) < world:
        return "ended"
    half = any(folder.glob(".step-*.tmp"))
    new = len(checkpoints.steps(Path(settings.out))) - before
    return f"{how}{' (half a checkpoint left)' if half else ''}{' (none new)' if new <= 0 else ''}"


def _taken(settings: Config, attempt: int) -> int:
    return sum("loss" in line for line in read_lines(notes(settings, attempt, 0)))


def finish(settings: Config, world: int, attempt: int) -> None:
    """Let the run go on undisturbed to its end. SystemExit with what its ranks said if it does not come to it."""
    processes = start(settings, world, attempt)
    for process in processes:
        process.join(4 * WAIT)
    if any(p.exitcode != 0 for p in processes):
        for process in processes:
            kill(process)
        texts = [notes(settings, attempt, k).with_suffix(".log").read_text()[-2000:] for k in range(world)]
        raise SystemExit(f"{settings.out}: {[p.exitcode for p in processes]}\n" + "\n".join(texts))


def case(folder: Path, world: int, workers: int, steps: int, every: int, kills: int, seed: int) -> dict[str, Any]:
    """One row: a run that is killed again and again beside one that is not."""
    name = f"{world}-{workers}"
    whole = settings_of(folder, f"whole-{name}", steps, every, workers)
    broken = settings_of(folder, f"broken-{name}", steps, every, workers)
    finish(whole, world, 0)
    draw = random.Random(f"{seed} {name}")
    ways = ["start", "step", "checkpoint", *(["one"] if world > 1 else [])]
    order = [ways[k % len(ways)] for k in range(kills)]
    draw.shuffle(order)
    done: list[str] = []
    for attempt, how in enumerate(order):
        done.append(disturb(broken, world, attempt, how, draw))
        if done[-1] == "ended":
            break
    finish(broken, world, len(done))
    found = differences(whole, broken, [world] * (len(done) + 1))
    return {
        "case": f"{world} ranks, {workers} workers",
        "kills": sum(how != "ended" for how in done),
        "in a checkpoint": sum("half" in how for how in done),
        "steps taken twice": _repeated(broken, world, len(done) + 1),
        "differing": found,
    }


def _repeated(settings: Config, world: int, attempts: int) -> int:
    """Steps that were lost with a kill and taken again: they are compared as well."""
    taken = [line["step"] for k in range(attempts) for line in read_lines(notes(settings, k, 0)) if "loss" in line]
    return len(taken) - len(set(taken))


# ---------------------------------------------------------------- other numbers of ranks


def changing(folder: Path, steps: int, every: int, worlds: Sequence[int] = (4, 2, 1)) -> dict[str, Any]:
    """One row: a run whose number of ranks changes, beside one of the first number."""
    whole = settings_of(folder, "whole-4", steps, every, 0)
    moved = settings_of(folder, "moved", steps, every, 0)
    finish(whole, worlds[0], 0)
    firsts = []
    for attempt, world in enumerate(worlds[:-1]):
        processes = start(moved, world, attempt)
        until = time.monotonic() + WAIT
        while _taken(moved, attempt) < steps // len(worlds) and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(processes[-1].pid or 0, signal.SIGTERM)  # one rank has heard it: all save and leave
        for process in processes:
            process.join(WAIT)
        if [p.exitcode for p in processes] != [0] * world:
            raise SystemExit(f"{moved.out}: {world} ranks ended with {[p.exitcode for p in processes]} after SIGTERM")
        firsts.append(checkpoints.find(moved.out).step + 1)
    finish(moved, worlds[-1], len(worlds) - 1)
    one, two = trace(whole, worlds[:1]), trace(moved, worlds)
    found = [*one.differing, *two.differing]
    found += [f"indices of step {k}" for k in one.indices if one.indices[k] != two.indices.get(k)]
    far = {k: abs(_number(two.losses[k]) / _number(one.losses[k]) - 1) for k in one.losses if k in two.losses}
    found += [f"loss of step {k}: {far[k]:.2g} from that of {worlds[0]} ranks" for k in firsts if far[k] > CLOSE]
    return {
        "case": " -> ".join(map(str, worlds)) + " ranks",
        "changes at": firsts,
        "loss differs by": {k: float(f"{far[k]:.2g}") for k in firsts},
        "at the last step": float(f"{far[steps]:.2g}"),
        "differing": found,
    }


def _number(loss: str) -> float:
    return float.fromhex(loss)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--every", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--work", type=Path)
    given = parser.parse_args(arguments)
    folder = Path(given.work or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    try:
        for world in given.worlds:
            for workers in given.workers:
                rows.append(case(folder, world, workers, given.steps, given.every, given.kills, given.seed))
                print(rows[-1], flush=True)
        rows.append(changing(folder, max(15, given.steps // 3), given.every))
        print(rows[-1], flush=True)
    finally:
        if given.work is None:
            shutil.rmtree(folder)
    for row in rows:
        wrong = row.pop("differing")
        print(", ".join(f"{name}: {value}" for name, value in row.items()), "->", "DIFFERS" if wrong else "the same")
        for line in wrong[:10]:
            print("   ", line[:300])
        row["differing"] = wrong
    return 1 if any(row["differing"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
