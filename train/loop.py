"""Training, top to bottom: config, data, model, step, log, save (paper, sections 3.1 and 3.3, App. B).

Samples, times and noise are functions of (seed, global sample index), so a run killed at any moment and started again
takes the same steps it would have taken, bit for bit on the same kind of machine with as many ranks; another number of
ranks sees the same samples, and differs by the rounding of sums.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from model import Loss, Normalisation, WTDiT, draw_times, objective, preset
from model import normalisation as maps
from shards import seed_of
from train import checkpoint, config, curves, parallel, resume
from train.batch import Batch, Unusable
from train.config import Config
from train.data import Damage, Schedule, Stream, batches
from train.log import Log, Silence
from train.optimizer import Ema, Guard, adamw, learning_rate
from train.parallel import Ranks
from train.run import build, normalisation_for
from train.tally import tally

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


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


def train(settings: Config, console: Console | None = None, caught: list[signal.Signals] | None = None) -> Outcome:
    """Train, or go on training, the run in `settings.out`; as one of several ranks if it was started as one.

    `caught` is where somebody else puts a signal to stop by (Ray Train runs this in a thread, which gets none); without
    it SIGTERM and SIGINT of this process count. ValueError / FileNotFoundError say what to do; ConnectionError: another
    rank is gone.
    """
    with (
        parallel.joined(settings.device, settings.parallel.timeout) as ranks,
        nullcontext(caught) if caught is not None else _signals() as caught,
    ):
        return _run(settings, ranks, console or Console() if ranks.first else Console(quiet=True), caught)


def _run(settings: Config, ranks: Ranks, console: Console, caught: list[signal.Signals]) -> Outcome:
    out, device = Path(settings.out), ranks.device
    with ranks.together():
        layers = preset(settings.model.preset, **settings.model.overrides).layers
        stream = Stream(settings.data, settings.augment, layers, settings.seed)
        Schedule(0, settings.steps, settings.data.batch, settings.accumulation, ranks.rank, ranks.world)
    ranks.agree({**config.alike(settings), "data.path": f"samples of hash {stream.hash}"})
    with ranks.together():
        saved = checkpoint.latest(out, say=console.print) if ranks.first else None
        if saved is not None:
            resume.check_config(out, saved, settings)
        history = resume.history_of(out, saved, settings, stream) if ranks.first else None
    before = ranks.tell(saved.step if saved else None)
    stream.follow(ranks.tell(history))
    known = {}
    with ranks.together():  # rank 0 has the weights; `spread` gives them to the others
        model, inherited = build(settings, resumed=before is not None or not ranks.first)
        if ranks.first and saved is None:
            known = maps.to_dict(normalisation_for(stream, settings.model.normalisation, inherited))
        elif saved is not None:
            resume.check_model(out, saved, settings, model)
            known = saved.state["normalisation"]
            model.load_state_dict(saved.tensors.pop("model"))
    normalisation = maps.from_dict(ranks.tell(known))
    model.to(device)
    network = ranks.spread(model, unused=model.config.temporal)
    optimizer = adamw(model, settings.optimizer)
    ema, guard = Ema(model, settings.ema), Guard(settings.optimizer.spike)
    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    if before is not None:
        ema.load(ranks.share(saved.tensors.pop("ema") if saved else {}))
        checkpoint.restore_moments(optimizer, names, ranks.share(saved.tensors.pop("optimizer") if saved else {}))
        guard = Guard(**ranks.tell(saved.state["guard"] if saved else {}))
    saved, first = None, before or 0  # what was saved is four times the model's memory

    ranks.check_folder(out)
    with ranks.together():
        if ranks.first:
            config.save(settings, out / "config.yaml")
            if history is not None:
                history.write(out)

    def save(step: int, last: bool) -> None:
        """By rank 0, the others wait. A failure ends the run where nothing could be saved later."""
        with ranks.together():
            if not ranks.first:
                return
            tensors = {
                "model": model.state_dict(),
                "ema": ema.weights,
                "optimizer": checkpoint.moments(optimizer, names),
            }
            state = {
                "config": config.to_dict(settings),
                "model": model.config.to_dict(),
                "normalisation": maps.to_dict(normalisation),
                "data": stream.hash,
                "generations": len(stream.sequence.generations),
                "guard": guard.state(),
            }
            try:
                checkpoint.save(out, step, tensors, state, settings.checkpoint.keep)
            except OSError as error:
                if last:
                    raise
                log.say(f"{error}; training goes on, and the checkpoint before this one stays")  # the disk may be freed

    schedule = Schedule(first, settings.steps, settings.data.batch, settings.accumulation, ranks.rank, ranks.world)
    damage = Damage(out / "damaged.jsonl", first * settings.data.batch) if ranks.first else None
    step, stopped_by = first, None
    with (
        batches(stream, schedule, pin=device.type == "cuda") as incoming,
        Log(out, first, settings.steps, settings.log.every, settings.log.tensorboard, console)
        if ranks.first
        else Silence() as log,
    ):
        log.say(_opening(settings, model, stream, ranks, first))
        if len(grown := stream.sequence.generations) > 1 and grown[-1].first == first * settings.data.batch:
            log.say(f"the data have grown from {sum(grown[-2].rows)} to {sum(grown[-1].rows)} samples")
        for step in range(first + 1, settings.steps + 1):
            began, waited = time.perf_counter(), 0.0
            rate = learning_rate(step - 1, settings.steps, settings.optimizer)
            switch = settings.objective.shared_times_from
            phase = "independent" if switch == "stable" or step <= switch else "shared"
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)

            parts: list[Loss] = []
            unusable: list[Unusable] = []
            for part in range(settings.accumulation):
                asked = time.perf_counter()
                batch = next(incoming)
                waited += time.perf_counter() - asked
                unusable += batch.damaged
                with ranks.answering(), ranks.reducing(network, last=part == settings.accumulation - 1):
                    loss = loss_of(network, model.config.time_shift, normalisation, batch.to(device), settings, phase)
                    (loss.total / settings.accumulation).backward()
                parts.append(Loss(*(x.detach() for x in loss)))
            grad_norm = float(torch.nn.utils.clip_grad_norm_(list(names), settings.optimizer.clip))
            of_all = tally(ranks, parts, grad_norm, waited, len(unusable), caught)
            if of_all.unusable:
                found = ranks.gather_objects(unusable)
                with ranks.together():
                    if damage is not None:
                        damage.note([line for lines in found for line in lines], step * settings.data.batch)

            refused = guard.refuse(of_all.loss, of_all.grad_norm, warm=step > settings.optimizer.warmup)
            if refused is None:
                optimizer.step()
                ema.update(model, guard.updates)
            else:
                log.say(f"step {step} skipped: {refused}")

            values: dict[str, Any] = {
                "loss": of_all.loss,
                "endpoint": of_all.endpoint,
                "monotonicity": of_all.monotonicity,
                "layers": of_all.layers,
                "lr": rate,
                "grad_norm": of_all.grad_norm,
                "phase": phase,
                "skipped": guard.skipped,
                "damaged": len(damage) if damage is not None else 0,
            }
            log.step(step, values, settings.data.batch, time.perf_counter() - began, of_all.waited)
            stopped_by = of_all.stopped_by
            if step % settings.checkpoint.every == 0 or step == settings.steps or stopped_by:
                save(step, last=step == settings.steps or stopped_by is not None)
            if stopped_by:
                break
    if ranks.first:
        curves.draw(out)
    return Outcome(step, settings.steps, stopped_by, ranks.first)


def loss_of(
    network: Network, time_shift: float, normalisation: Normalisation, batch: Batch, settings: Config, phase: Any
) -> Loss:
    """The objective of one batch, its times and noise drawn for the batch's own samples; bf16 by autocast if asked."""
    x0, _ = normalisation.forward(batch.xyz, batch.valid)
    uniform, noise = draws(settings.seed, batch.index, x0)
    half = settings.precision == "bf16"
    with torch.autocast(x0.device.type, torch.bfloat16) if half else nullcontext():
        return objective(
            network,
            batch.rgb,
            x0,
            batch.valid,
            draw_times(uniform, phase, time_shift),
            noise,
            batch.single_layer,
            batch.weight,
            settings.objective.lambda_mono,
        )


def draws(seed: int, index_B: Tensor, x0_BLHW3: Tensor) -> tuple[Tensor, Tensor]:
    """Uniform numbers (B,L) for the times and Gaussian noise like x0, of each global sample index by itself."""
    uniform, noise = [], torch.empty_like(x0_BLHW3)
    for i, index in enumerate(index_B.tolist()):
        generator = torch.Generator(x0_BLHW3.device).manual_seed(seed_of(seed, "noise", index) % 2**63)
        uniform.append(torch.rand(x0_BLHW3.shape[1], generator=generator, device=x0_BLHW3.device))
        noise[i].normal_(generator=generator)
    return torch.stack(uniform), noise


def _opening(settings: Config, model: WTDiT, stream: Stream, ranks: Ranks, first: int) -> str:
    total, trainable = (count / 1e6 for count in model.parameter_counts())
    size, batch = settings.data.size, settings.data.batch
    start = "starts" if not first else f"goes on at step {first}" if first < settings.steps else "is done"
    return (
        f"{settings.out} {start}: {settings.model.preset}, {total:.1f}M parameters, {trainable:.1f}M trainable; "
        f"{stream.samples} samples at {size}x{size}; batch {batch} on {ranks.device}"
        + (f", over {ranks.world} ranks" if ranks.world > 1 else "")
    )


@contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
    """SIGTERM and SIGINT are noted in the list, for the loop to save and leave; a second one acts as it always did."""
    caught: list[signal.Signals] = []
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: Any) -> None:
        caught.append(signal.Signals(number))
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
