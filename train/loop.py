"""Training, top to bottom: open (opening.py), step, log, save (paper, sections 3.1 and 3.3, App. B).

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from model import Loss, WTDiT, training_flops
from model.times import Phase
from train import config, signals
from train.checkpoints import Checkpoints
from train.config import Config
from train.data.batch import Batch, Unusable
from train.data.sizes import enlarged
from train.data.stream import Damage, Schedule, batches
from train.opening import Opened, opened
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
from train.step import compute
from train.step.loss import loss_of
from train.step.rate import learning_rate
from train.step.tally import Tally, tally
from train.step.update import Verdict


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
    say = partial(_say, console)
    run = opened(settings, ranks, held, say)
    batch, first = settings.data.batch, run.first
    schedule = Schedule(first, settings.steps, batch, settings.accumulation, ranks.rank, ranks.world)
    damage = Damage(run.out / "damaged.jsonl", first * batch, say) if ranks.first else None
    with (
        batches(run.stream, schedule, pin=ranks.device.type == "cuda") as incoming,
        _reports(settings, run.model, ranks, console, first) as log,
        Checkpoints(run.out, settings.checkpoint.keep, ranks, log.say, settings.parallel.timeout) as saver,
        compute.attention(settings.compute),
    ):
        pulse = Pulse(ranks, settings.parallel.timeout * heartbeat.BACKSTOP)
        steps = _Steps(run, ranks, heart, pulse, incoming, log, saver, damage, caught)
        steps.begin()
        while steps.stopped_by is None and steps.done < settings.steps:
            steps.take()
        steps.end()
    if ranks.first:
        curves.draw(run.out)
    return Outcome(steps.done, settings.steps, steps.stopped_by, ranks.first)


class _Steps:
    """The steps of an opened run. `done`: how many count; `stopped_by`: the signal that ends it before the last one.

    All ranks make it, and call its methods, together.
    """

    def __init__(
        self,
        run: Opened,
        ranks: Ranks,
        heart: Heartbeat,
        pulse: Pulse,
        incoming: Iterator[Batch],
        log: Reports | Silence,
        saver: Checkpoints,
        damage: Damage | None,
        caught: list[signal.Signals],
    ) -> None:
        self.run, self.settings, self.ranks, self.heart, self.pulse = run, run.settings, ranks, heart, pulse
        self.incoming, self.log, self.saver, self.damage, self.caught = incoming, log, saver, damage, caught
        self.done = run.first
        self.stopped_by: signal.Signals | None = None
        self._untold: list[Unusable] = []  # samples replaced on this rank, of which the others do not know yet
        self._waited = 0.0  # seconds for the batch before

    def begin(self) -> None:
        """What is said first, and the evaluation that the run before was stopped at."""
        run, settings, log = self.run, self.settings, self.log
        self.saver.prepare(run.update.tensors())
        log.about(run.first, world=self.ranks.world, precision=settings.precision)
        for line in (_opening(run, self.ranks), *log.opening()):
            log.say(line)
        if self.ranks.first and (small := enlarged(run.stream.sources, settings.data.size)):
            log.say(small)
        grown = run.stream.sequence.generations
        if len(grown) > 1 and grown[-1].first == run.first * settings.data.batch:
            log.say(f"the data have grown from {sum(grown[-2].rows)} to {sum(grown[-1].rows)} samples")
        if run.held_out is not None and self.ranks.tell(_missed(settings, run.first)):
            self.stopped_by = self._evaluate(run.held_out)

    def take(self) -> None:
        """One step; a signal drops the one that is under way, and the weights are those of the step before."""
        settings, update = self.settings, self.run.update
        step = self.done + 1
        phase = self.run.curriculum.phase(step)
        rate = learning_rate(step - 1, settings.steps, settings.optimizer)
        parts, longest = self._gradient(step, phase)
        if self.stopped_by:
            return
        with self.ranks.answering():
            of_all = tally(self.ranks, parts, update.norm())
        verdict = update.step(of_all.loss, of_all.norm, rate, warm=step > settings.optimizer.warmup)
        self.done = step
        self._follow(of_all, verdict, phase, rate, longest)

    def end(self) -> None:
        """Save what a signal found unsaved, and note the checkpoints that have become whole."""
        if self.stopped_by and (self.done > self.run.first or not self.run.resumed):
            self._save(last=True)
        self._settle()  # the one before, if both have become whole together
        self._settle()

    def _gradient(self, step: int, phase: Phase) -> tuple[list[Loss], float]:
        """The losses of the micro-batches, whose gradients the weights have now, and the longest wait for data, summed
        over them. Fewer where a signal has come, which is then in `stopped_by`.
        """
        run, settings, heart = self.run, self.settings, self.heart
        parts: list[Loss] = []
        longest = 0.0
        for part in range(settings.accumulation):
            heart.at(step, "waits for data")
            self.pulse.beat([_number(self.caught), len(self._untold), self._waited])
            asked = time.perf_counter()
            batch = next(self.incoming)
            self._waited = time.perf_counter() - asked
            self.stopped_by, wait = self._hear()
            if self.stopped_by:
                break
            longest += wait
            self._untold += batch.damaged
            heart.at(step, "computes" if step > run.first + 1 else "computes its first step")
            sharding.accumulating(run.model, last=part == settings.accumulation - 1)
            with self.ranks.answering():
                loss = loss_of(
                    run.model,
                    run.model.config.time_shift,
                    run.normalisation,
                    batch.to(self.ranks.device),  # by no name: none of it is held while gradients are computed
                    settings,
                    phase,
                )
                (loss.total / settings.accumulation).backward()
            parts.append(Loss(*(x.detach() for x in loss)))
        return parts, longest

    def _follow(self, of_all: Tally, verdict: Verdict, phase: Phase, rate: float, longest: float) -> None:
        """What follows a step: the next one's phase, the report, the checkpoint and the evaluation that are due."""
        run, settings, log, step = self.run, self.settings, self.log, self.done
        if run.curriculum.note(step, of_all.error_L, of_all.weight_L, taken=verdict.refused == 0):
            log.event("phase", step, next="shared", **run.curriculum.cause())
            log.say(switch_in_words(step, run.curriculum.cause()))

        self.heart.at(step, "reports")
        last = step == settings.steps
        due = last or step % settings.checkpoint.every == 0
        judging = run.held_out is not None and (last or step % settings.evaluation.every == 0)
        if due or judging:  # whoever goes on from here knows of all samples that were replaced before
            self.pulse.beat([0.0, len(self._untold), 0.0])
            self._hear()
        slowest, late = self.pulse.slowest()
        values = {
            "loss": of_all.loss,
            "endpoint": of_all.endpoint,
            "monotonicity": of_all.monotonicity,
            "layers": of_all.layers_L,
            "lr": rate,
            "grad_norm": of_all.norm,
            "phase": phase,
            "skipped": run.update.skipped,
            "damaged": len(self.damage) if self.damage is not None else 0,
            **({"slowest_rank": slowest, "slowest_by": late} if self.ranks.world > 1 else {}),
        }
        log.step(step, values, settings.data.batch, longest, verdict)
        if last or step % settings.log.every == 0:
            run.update.counts()  # ends a run that refuses every step
        if due:
            self._save(last)
        self._settle()
        if run.held_out is not None and judging:
            self.stopped_by = self._evaluate(run.held_out)

    def _save(self, last: bool) -> None:
        """The ranks copy what they hold, and it is written while training goes on; the last one is waited for."""
        state = self.run.state()
        self.heart.at(self.done, "saves a checkpoint")
        with self.log.aside("checkpoint"):
            self.saver.save(self.done, self.run.update.tensors(), state, wait=last)

    def _settle(self) -> None:
        """Note the checkpoint that has become whole, if one has."""
        if (whole := self.saver.settle()) is not None:
            self.log.event("checkpoint", whole.step, seconds=round(whole.seconds, 3), blocked=round(whole.blocked, 3))

    def _evaluate(self, held_out: HeldOut) -> signal.Signals | None:
        """Judge the averaged weights; a signal ends it at once, on all ranks together, and is returned."""
        run, log = self.run, self.log

        def stops() -> bool:
            """Asked between the batches."""
            self.heart.at(self.done, "evaluates")
            return self._signalled() is not None

        self.heart.at(self.done, "evaluates")
        with log.aside("evaluation"), run.update.averaged():
            found = validate(run.model, run.normalisation, held_out, self.ranks, stops, self.done, run.out, log.say)
        if found is None:
            return self._signalled()
        log.evaluated(self.done, found)
        return None

    def _hear(self) -> tuple[signal.Signals | None, float]:
        """What the ranks have just told each other: a signal that one has caught, the longest wait for data; of
        samples that were replaced, a note is made."""
        beats = self.pulse.read()
        assert beats is not None
        if beats[:, 1].any():
            found = [line for lines in self.ranks.gather_objects(self._untold) for line in lines]
            self._untold.clear()
            of = found[0].index // self.settings.data.batch + 1  # this step, or the one before
            self.log.event("damaged", of, count=len(found))
            with self.ranks.together():
                if self.damage is not None:
                    self.damage.note(found, of * self.settings.data.batch)
        return _signal(beats[:, 0]), float(beats[:, 2].max())

    def _signalled(self) -> signal.Signals | None:
        """A signal that any rank has caught by now. All of them ask together, and wait for one another."""
        return _signal(self.ranks.gather(torch.tensor([_number(self.caught)], dtype=torch.float64)))


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


def _opening(run: Opened, ranks: Ranks) -> str:
    settings, first = run.settings, run.first
    total, trainable = (count / 1e6 for count in run.model.parameter_counts())
    size, batch = settings.data.size, settings.data.batch
    kind = "samples" if settings.data.frames == 1 else f"clips of {settings.data.frames} frames"
    start = "starts" if not first else f"goes on at step {first}" if first < settings.steps else "is done"
    return (
        f"{settings.out} {start}: {settings.model.preset}, {total:.1f}M parameters, {trainable:.1f}M trainable; "
        f"{run.stream.samples} {kind} at {size}x{size}; batch {batch} on {ranks.device}"
        + (f", over {ranks.world} ranks" if ranks.world > 1 else "")
        + (f"; {run.twice} blocks are computed twice" if run.twice else "")
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
