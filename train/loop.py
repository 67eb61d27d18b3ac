"""Training, top to bottom: config, data, model, step, log, save (paper, sections 3.1 and 3.3, App. B).

Samples, times and noise are functions of (seed, global sample index), so a run killed at any moment and started again
takes the same steps it would have taken, bit for bit on the same kind of machine.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from model import Loss, Normalisation, WTConfig, WTDiT, draw_times, objective, preset
from model import normalisation as maps
from shards import seed_of
from train import checkpoint, config, curves
from train.config import Config
from train.data import Batch, Damage, Schedule, Stream, batches
from train.log import Log
from train.optimizer import Ema, Guard, adamw, learning_rate
from train.run import build, device_of, normalisation_for


@dataclass(frozen=True)
class Outcome:
    """`step` of `steps` were done; `stopped_by` names the signal that ended the run early."""

    step: int
    steps: int
    stopped_by: signal.Signals | None


def train(settings: Config, console: Console | None = None) -> Outcome:
    """Train, or go on training, the run in `settings.out`. ValueError / FileNotFoundError say what to do."""
    console = console or Console()
    out = Path(settings.out)
    device = device_of(settings.device)
    saved = _previous(out, settings, console)

    layers = preset(settings.model.preset, **settings.model.overrides).layers
    stream = Stream(settings.data, settings.augment, layers, settings.seed)

    model, inherited = build(settings, resumed=saved is not None)
    model.to(device)
    optimizer = adamw(model, settings.optimizer)
    ema, guard, first = Ema(model, settings.ema), Guard(settings.optimizer.spike), 0
    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    if saved is None:
        normalisation = normalisation_for(stream, settings.model.normalisation, inherited)
    else:
        if saved.state["data"] != stream.hash:
            raise ValueError(f"{out}: its run was trained on other samples than data.path holds now; use another out=")
        changed = config.differing(WTConfig.from_dict(saved.state["model"]).to_dict(), model.config.to_dict())
        if changed:
            raise ValueError(
                f"{out}: its run trained another model than preset {settings.model.preset} is now "
                f"({'; '.join(changed)}); go on with the version that began it, or use another out="
            )
        normalisation = maps.from_dict(saved.state["normalisation"])
        model.load_state_dict(saved.tensors["model"])
        ema.load(saved.tensors["ema"])
        checkpoint.restore_moments(optimizer, names, saved.tensors["optimizer"])
        guard, first = Guard(**saved.state["guard"]), saved.step
        saved = None  # four times the model's memory

    out.mkdir(parents=True, exist_ok=True)
    config.save(settings, out / "config.yaml")

    def save(step: int) -> None:
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
            "guard": guard.state(),
        }
        try:
            checkpoint.save(out, step, tensors, state, settings.checkpoint.keep)
        except OSError as error:
            if step == settings.steps or caught:
                raise
            log.say(f"{error}; training goes on, and the checkpoint before this one stays")  # the disk may be freed

    schedule = Schedule(first, settings.steps, settings.data.batch, settings.accumulation)
    damage = Damage(out / "damaged.jsonl", first * settings.data.batch)
    step = first
    with (
        _signals() as caught,
        batches(stream, schedule, pin=device.type == "cuda") as incoming,
        Log(out, first, settings.steps, settings.log.every, settings.log.tensorboard, console) as log,
    ):
        log.say(_opening(settings, model, stream, device, first))
        for step in range(first + 1, settings.steps + 1):
            began, waited = time.perf_counter(), 0.0
            rate = learning_rate(step - 1, settings.steps, settings.optimizer)
            phase = "independent" if step <= settings.objective.shared_times_from else "shared"
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)

            parts = []
            for _ in range(settings.accumulation):
                asked = time.perf_counter()
                batch = next(incoming)
                waited += time.perf_counter() - asked
                damage.note(batch, step * settings.data.batch)
                loss = loss_of(model, normalisation, batch.to(device), settings, phase)
                (loss.total / settings.accumulation).backward()
                parts.append([x.detach() for x in loss])
            *scalars, per_layer = (torch.stack(part) for part in zip(*parts))
            total, endpoint, monotonicity = (float(part.mean()) for part in scalars)
            grad_norm = float(torch.nn.utils.clip_grad_norm_(list(names), settings.optimizer.clip))

            refused = guard.refuse(total, grad_norm, warm=step > settings.optimizer.warmup)
            if refused is None:
                optimizer.step()
                ema.update(model, guard.updates)
            else:
                log.say(f"step {step} skipped: {refused}")

            values: dict[str, Any] = {
                "loss": total,
                "endpoint": endpoint,
                "monotonicity": monotonicity,
                "layers": per_layer.nanmean(0).tolist(),
                "lr": rate,
                "grad_norm": grad_norm,
                "phase": phase,
                "skipped": guard.skipped,
                "damaged": len(damage),
            }
            log.step(step, values, settings.data.batch, time.perf_counter() - began, waited)
            if step % settings.checkpoint.every == 0 or step == settings.steps or caught:
                save(step)
            if caught:
                break
    curves.draw(out)
    return Outcome(step, settings.steps, caught[0] if caught else None)


def loss_of(model: WTDiT, normalisation: Normalisation, batch: Batch, settings: Config, phase: Any) -> Loss:
    """The objective of one batch, its times and noise drawn for the batch's own samples; bf16 by autocast if asked."""
    x0, _ = normalisation.forward(batch.xyz, batch.valid)
    uniform, noise = draws(settings.seed, batch.index, x0)
    half = settings.precision == "bf16"
    with torch.autocast(x0.device.type, torch.bfloat16) if half else nullcontext():
        return objective(
            model,
            batch.rgb,
            x0,
            batch.valid,
            draw_times(uniform, phase, model.config.time_shift),
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


def _previous(out: Path, settings: Config, console: Console) -> checkpoint.Checkpoint | None:
    """The newest whole checkpoint of the run in `out`, if there is one and it is the same run."""
    saved = checkpoint.latest(out, say=console.print)
    if saved is None:
        return None
    changed = config.differences(config.from_dict(saved.state["config"]), settings)
    if changed:
        raise ValueError(
            f"{out}: holds a run with another config ({'; '.join(changed)}); use another out=, or remove it"
        )
    return saved


def _opening(settings: Config, model: WTDiT, stream: Stream, device: torch.device, first: int) -> str:
    total, trainable = (count / 1e6 for count in model.parameter_counts())
    size, batch = settings.data.size, settings.data.batch
    start = "starts" if not first else f"goes on at step {first}" if first < settings.steps else "is done"
    return (
        f"{settings.out} {start}: {settings.model.preset}, {total:.1f}M parameters, {trainable:.1f}M trainable; "
        f"{stream.samples} samples at {size}x{size}; batch {batch} on {device}"
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
