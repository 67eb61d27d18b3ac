"""Training, top to bottom: config, data, model, step, log, save (paper, sections 3.1 and 3.3, App. B).

Samples, times and noise are functions of (seed, global sample index), so a run killed at any moment and started again
takes the same steps it would have taken: with as many ranks on the same kind of machine bit for bit on a CPU, and on
CUDA with compute.deterministic=true (never run). Without it CUDA adds up gradients in any order, and only samples,
times, noise, augmentation and state are exactly those. Another number of ranks sees the same samples, and differs by
the rounding of sums.

A step waits for nothing that it does not need. What it found is read from the device when a report is due, whether it
is taken the device decides (step/update.py), and what ranks must agree on besides (signals, replaced samples) travels
on the CPU while they wait for data (ranks/pulse.py). A signal ends the run between two micro-batches: the step that was
under way is dropped, and the one before it saved.
"""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from model import Loss, WTDiT, preset, training_flops
from model import normalisation as maps
from train import checkpoints, config, resume, signals
from train.checkpoints import Checkpoints
from train.config import Config
from train.data.batch import Unusable
from train.data.sizes import enlarged
from train.data.stream import Damage, Schedule, Stream, batches
from train.plan import gpus
from train.ranks import heartbeat, parallel, sharding
from train.ranks.heartbeat import Heartbeat
from train.ranks.parallel import Ranks
from train.ranks.pulse import Pulse
from train.reports import curves
from train.reports.boards import open_boards
from train.reports.lines import switch_in_words
from train.reports.log import events
from train.reports.reports import Reports, Silence
from train.reports.speed import Utilisation
from train.reports.validation import HeldOut, validate
from train.run import build, normalisation_for
from train.step import compute
from train.step.curriculum import Curriculum
from train.step.loss import loss_of
from train.step.rate import learning_rate
from train.step.tally import tally
from train.step.update import Update


@dataclass(frozen=True)
class Outcome:
    """`step` of `steps` were done; `stopped_by` names the signal that ended the run early.

    `reports`: this process speaks for the run; of several ranks the first.
    """

    step: int
    steps: int
    stopped_by: signal.Signals | None
    reports: bool = True

    def line(self, out: str) -> str:
        """What is said at the end."""
        if self.stopped_by is None:
            return f"done: step {self.step}; {out}/training.png shows how it went"
        return f"{self.stopped_by.name}: saved step {self.step} of {self.steps}; the same command goes on from there"


def train(
    settings: Config,
    console: Console | None = None,
    caught: list[signal.Signals] | None = None,
    end: Callable[[str], Any] | None = None,
) -> Outcome:
    """Train, or go on training, the run in `settings.out`; as one of several ranks if it was started as one.

    `caught` is where somebody else puts a signal to stop by (Ray Train runs this in a thread, which gets none); without
    it SIGTERM and SIGINT of this process count. `end` is told, in another thread, which rank hangs, and ends this
    process (heartbeat.py). ValueError / FileNotFoundError say what to do; ConnectionError: another rank is gone.
    """
    patience = settings.parallel.timeout * heartbeat.BACKSTOP  # the heartbeat knows more, so it is to speak first
    with (
        compute.arithmetic(settings),  # before CUDA starts
        parallel.joined(settings.device, patience) as ranks,
        Heartbeat(ranks, settings.parallel.timeout, end) as heart,
        nullcontext(caught) if caught is not None else signals.noted() as caught,
        ExitStack() as held,
    ):
        console = console or Console() if ranks.first else Console(quiet=True)
        try:
            return _run(settings, ranks, heart, held, console, caught)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"the memory of {ranks.device} is full ({str(error).partition('. ')[0]}): raise accumulation, set "
                "compute.activations=recompute, or share the weights out over more ranks (parallel.shard)"
            ) from error


def _run(
    settings: Config, ranks: Ranks, heart: Heartbeat, held: ExitStack, console: Console, caught: list[signal.Signals]
) -> Outcome:
    out, device, patience = Path(settings.out), ranks.device, settings.parallel.timeout * heartbeat.BACKSTOP

    # Data: the sequence of samples, and what this run has noted about it.
    with ranks.together():
        layers = preset(settings.model.preset, **settings.model.overrides).layers
        stream = Stream(settings.data, settings.augment, layers, settings.seed, on_device=device.type == "cuda")
        Schedule(0, settings.steps, settings.data.batch, settings.accumulation, ranks.rank, ranks.world)
        held_out = HeldOut.open(settings, partial(_say, console))
    judged = "" if held_out is None else f"held-out samples of hash {held_out.hash}"
    ranks.agree({**config.alike(settings), "data.path": f"samples of hash {stream.hash}", "evaluation.split": judged})
    ranks.check_folder(out)
    held.enter_context(resume.alone_in(out, ranks))
    saved = checkpoints.latest(out, partial(_say, console), ranks)
    with ranks.together():
        if saved is not None:
            resume.check_config(out, saved, settings)
        history = resume.history_of(out, saved, settings, stream) if ranks.first else None
    stream.follow(ranks.tell(history))
    first = saved.step if saved else 0

    # Model: rank 0 has the weights, `prepare` gives each rank its part of them.
    known: dict[str, Any] = saved.state["normalisation"] if saved else {}
    with ranks.together():
        model, inherited = build(settings, resumed=saved is not None, meta=not ranks.first, say=partial(_say, console))
        if saved is not None:
            resume.check_model(out, saved, settings, model)
        elif ranks.first:
            known = maps.to_dict(normalisation_for(stream, settings.model.normalisation, inherited))
    normalisation = maps.from_dict(ranks.tell(known))
    twice = compute.prepare(model, settings, ranks)
    update = Update(model, settings)
    curriculum = Curriculum(settings.objective.shared_times_from, layers, settings.optimizer.warmup, device)
    if saved is not None:
        with ranks.together():
            checkpoints.load(saved, update.tensors())
        curriculum.load(saved.state["curriculum"])
    with ranks.together():
        if ranks.first:
            config.save(settings, out / "config.yaml")
            if history is not None:
                history.write(out)

    def save(step: int, last: bool) -> None:
        """The ranks copy what they hold, and it is written while training goes on; the last one is waited for."""
        state = {
            "config": config.to_dict(settings),
            "model": model.config.to_dict(),
            "normalisation": maps.to_dict(normalisation),
            "data": stream.hash,
            "generations": len(stream.sequence.generations),
            "curriculum": curriculum.state(),
        }
        heart.at(step, "saves a checkpoint")
        with log.aside("checkpoint"):
            saver.save(step, update.tensors(), state, wait=last)

    def settle() -> None:
        """Note the checkpoint that has become whole, if one has."""
        if (whole := saver.settle()) is not None:
            log.event("checkpoint", whole.step, seconds=round(whole.seconds, 3), blocked=round(whole.blocked, 3))

    def hear() -> tuple[signal.Signals | None, float]:
        """What the ranks have just told each other: a signal that one has caught, the longest wait for data; of
        samples that were replaced, a note is made."""
        beats = pulse.read()
        assert beats is not None
        if beats[:, 1].any():
            found = [line for lines in ranks.gather_objects(untold) for line in lines]
            untold.clear()
            of = found[0].index // settings.data.batch + 1  # this step, or the one before
            log.event("damaged", of, count=len(found))
            with ranks.together():
                if damage is not None:
                    damage.note(found, of * settings.data.batch)
        return _signal(beats[:, 0]), float(beats[:, 2].max())

    def signalled() -> signal.Signals | None:
        """A signal that any rank has caught by now. All of them ask together, and wait for one another."""
        return _signal(ranks.gather(torch.tensor([_number(caught)], dtype=torch.float64)))

    def stops() -> bool:
        """Asked between the batches of an evaluation."""
        heart.at(step, "evaluates")
        return signalled() is not None

    def evaluate(held_out: HeldOut) -> signal.Signals | None:
        """Judge the averaged weights; a signal ends it at once, on all ranks together."""
        heart.at(step, "evaluates")
        with log.aside("evaluation"), update.averaged():
            found = validate(model, normalisation, held_out, ranks, stops, step, out, log.say)
        if found is None:
            return signalled()
        log.evaluated(step, found)
        return None

    schedule = Schedule(first, settings.steps, settings.data.batch, settings.accumulation, ranks.rank, ranks.world)
    damage = Damage(out / "damaged.jsonl", first * settings.data.batch, partial(_say, console)) if ranks.first else None
    step, stopped_by = first, None
    untold: list[Unusable] = []
    waited = 0.0
    with (
        batches(stream, schedule, pin=device.type == "cuda") as incoming,
        _reports(settings, model, ranks, console, first) as log,
        Checkpoints(out, settings.checkpoint.keep, ranks, log.say, settings.parallel.timeout) as saver,
        compute.attention(settings.compute),
    ):
        pulse = Pulse(ranks, patience)
        saver.prepare(update.tensors())
        log.about(first, world=ranks.world, precision=settings.precision)
        for line in (_opening(settings, model, stream, ranks, first, twice), *log.opening()):
            log.say(line)
        if ranks.first and (small := enlarged(stream.sources, settings.data.size)):
            log.say(small)
        if len(grown := stream.sequence.generations) > 1 and grown[-1].first == first * settings.data.batch:
            log.say(f"the data have grown from {sum(grown[-2].rows)} to {sum(grown[-1].rows)} samples")
        if held_out is not None and ranks.tell(_missed(settings, first)):
            stopped_by = evaluate(held_out)
        for step in range(first + 1, settings.steps + 1) if stopped_by is None else ():
            phase = curriculum.phase(step)
            rate = learning_rate(step - 1, settings.steps, settings.optimizer)
            parts: list[Loss] = []
            longest = 0.0
            for part in range(settings.accumulation):
                heart.at(step, "waits for data")
                pulse.beat([_number(caught), len(untold), waited])
                asked = time.perf_counter()
                batch = next(incoming)
                waited = time.perf_counter() - asked
                stopped_by, wait = hear()
                if stopped_by:
                    break
                longest += wait
                untold += batch.damaged
                heart.at(step, "computes" if step > first + 1 else "computes its first step")
                sharding.accumulating(model, last=part == settings.accumulation - 1)
                with ranks.answering():
                    loss = loss_of(model, model.config.time_shift, normalisation, batch.to(device), settings, phase)
                    (loss.total / settings.accumulation).backward()
                parts.append(Loss(*(x.detach() for x in loss)))
            if stopped_by:  # the weights are still those of the step before
                step -= 1
                break
            with ranks.answering():
                of_all = tally(ranks, parts, update.norm())
            verdict = update.step(of_all.loss, of_all.norm, rate, warm=step > settings.optimizer.warmup)
            if curriculum.note(step, of_all.error_L, of_all.weight_L, taken=verdict.refused == 0):
                log.event("phase", step, next="shared", **curriculum.cause())
                log.say(switch_in_words(step, curriculum.cause()))

            heart.at(step, "reports")
            last = step == settings.steps
            due = last or step % settings.checkpoint.every == 0
            judging = held_out is not None and (last or step % settings.evaluation.every == 0)
            if due or judging:  # whoever goes on from here knows of all samples that were replaced before
                pulse.beat([0.0, len(untold), 0.0])
                hear()
            slowest, late = pulse.slowest()
            values = {
                "loss": of_all.loss,
                "endpoint": of_all.endpoint,
                "monotonicity": of_all.monotonicity,
                "layers": of_all.layers_L,
                "lr": rate,
                "grad_norm": of_all.norm,
                "phase": phase,
                "skipped": update.skipped,
                "damaged": len(damage) if damage is not None else 0,
                **({"slowest_rank": slowest, "slowest_by": late} if ranks.world > 1 else {}),
            }
            log.step(step, values, settings.data.batch, longest, verdict)
            if last or step % settings.log.every == 0:
                update.counts()  # ends a run that refuses every step
            if due:
                save(step, last)
            settle()
            if held_out is not None and judging:
                stopped_by = evaluate(held_out)
                if stopped_by:
                    break
        if stopped_by and (step > first or saved is None):
            save(step, last=True)
        settle()  # the one before, if both have become whole together
        settle()
    if ranks.first:
        curves.draw(out)
    return Outcome(step, settings.steps, stopped_by, ranks.first)


def _reports(settings: Config, model: WTDiT, ranks: Ranks, console: Console, first: int) -> Reports | Silence:
    """The log of the first rank; the others are silent."""
    if not ranks.first:
        return Silence()
    out, size, device = Path(settings.out), settings.data.size, ranks.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    flops = training_flops(model.config, size, size, settings.data.frames)
    use = Utilisation(flops, gpus.peak(name, settings.compute.peak), ranks.world)
    boards = open_boards(settings.log, out, first, config.to_dict(settings), partial(_say, console))
    return Reports(out, first, settings.steps, settings.log.every, console, device, boards, use)


def _opening(settings: Config, model: WTDiT, stream: Stream, ranks: Ranks, first: int, twice: int) -> str:
    total, trainable = (count / 1e6 for count in model.parameter_counts())
    size, batch = settings.data.size, settings.data.batch
    kind = "samples" if settings.data.frames == 1 else f"clips of {settings.data.frames} frames"
    start = "starts" if not first else f"goes on at step {first}" if first < settings.steps else "is done"
    return (
        f"{settings.out} {start}: {settings.model.preset}, {total:.1f}M parameters, {trainable:.1f}M trainable; "
        f"{stream.samples} {kind} at {size}x{size}; batch {batch} on {ranks.device}"
        + (f", over {ranks.world} ranks" if ranks.world > 1 else "")
        + (f"; {twice} blocks are computed twice" if twice else "")
    )


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)  # a path in brackets is none of rich's tags


def _missed(settings: Config, step: int) -> bool:
    """Whether the run that is gone on with was ended before the evaluation that was due after `step`."""
    due = step > 0 and (step == settings.steps or step % settings.evaluation.every == 0)
    return due and all(line["step"] != step for line in events(Path(settings.out), "evaluation"))


def _number(caught: list[signal.Signals]) -> float:
    """What a rank tells the others of the signals that it has caught."""
    return float(caught[0]) if caught else 0.0


def _signal(numbers: Tensor) -> signal.Signals | None:
    number = int(numbers.max())
    return signal.Signals(number) if number else None
