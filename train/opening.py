"""Opening a run: its data, its model, and what a checkpoint of it brings. All ranks open it together.

What one rank finds wrong all ranks raise (ranks/parallel.py), in the order in which it stands here: data, folder,
checkpoint, model. Nothing is written to the folder of another run: config.yaml comes last.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import Normalisation, WTDiT, preset
from model import normalisation as maps
from train import checkpoints, config, resume
from train.config import Config
from train.data.stream import Schedule, Stream
from train.ranks.parallel import Ranks
from train.reports.validation import HeldOut
from train.run import build, normalisation_for
from train.step import compute
from train.step.curriculum import Curriculum
from train.step.update import Update


@dataclass(frozen=True, eq=False)
class Opened:
    """A run that is ready for step `first` + 1. `resumed`: from a checkpoint of its own, of step `first`.

    `model` has its weights, or this rank's part of them, on the device; `update` holds them, their average and the
    optimizer's state. `twice`: how many of its blocks are computed twice to save memory.
    """

    settings: Config
    out: Path
    stream: Stream
    held_out: HeldOut | None
    model: WTDiT
    normalisation: Normalisation
    update: Update
    curriculum: Curriculum
    first: int
    resumed: bool
    twice: int

    def state(self) -> dict[str, Any]:
        """What a checkpoint says beside its tensors, as of now."""
        return {
            "config": config.to_dict(self.settings),
            "model": self.model.config.to_dict(),
            "normalisation": maps.to_dict(self.normalisation),
            "data": self.stream.hash,
            "generations": len(self.stream.sequence.generations),
            "curriculum": self.curriculum.state(),
        }


def opened(settings: Config, ranks: Ranks, held: ExitStack, say: Callable[[str], None]) -> Opened:
    """Open the run in `settings.out`, or begin it; `held` keeps others out of its folder. Collective.

    ValueError / OSError on all ranks: the data, the folder or its checkpoint is not what this run needs.
    """
    out = Path(settings.out)
    stream, held_out = _data(settings, ranks, say)
    ranks.check_folder(out)
    held.enter_context(resume.alone_in(out, ranks))
    saved = checkpoints.latest(out, say, ranks)
    with ranks.together():
        if saved is not None:
            resume.check_config(out, saved, settings)
        history = resume.history_of(out, saved, settings, stream) if ranks.first else None
    stream.follow(ranks.tell(history))
    model, normalisation = _model(settings, ranks, stream, saved, say)
    twice = compute.prepare(model, settings, ranks)
    update = Update(model, settings)
    curriculum = Curriculum(
        settings.objective.shared_times_from, stream.layers, settings.optimizer.warmup, ranks.device
    )
    if saved is not None:
        with ranks.together():
            checkpoints.load(saved, update.tensors())
        curriculum.load(saved.state["curriculum"])
    with ranks.together():
        if ranks.first:
            config.save(settings, out / "config.yaml")
            if history is not None:
                history.write(out)
    first = saved.step if saved else 0
    return Opened(
        settings, out, stream, held_out, model, normalisation, update, curriculum, first, saved is not None, twice
    )


def _data(settings: Config, ranks: Ranks, say: Callable[[str], None]) -> tuple[Stream, HeldOut | None]:
    """The sequence of samples, and those that are held out; the same on all ranks."""
    with ranks.together():
        layers, on_device = (
            preset(settings.model.preset, **settings.model.overrides).layers,
            ranks.device.type == "cuda",
        )
        stream = Stream(settings.data, settings.augment, layers, settings.seed, on_device=on_device)
        Schedule(0, settings.steps, settings.data.batch, settings.accumulation, ranks.rank, ranks.world)  # can be dealt
        held_out = HeldOut.open(settings, say)
    judged = "" if held_out is None else f"held-out samples of hash {held_out.hash}"
    ranks.agree({**config.alike(settings), "data.path": f"samples of hash {stream.hash}", "evaluation.split": judged})
    return stream, held_out


def _model(
    settings: Config, ranks: Ranks, stream: Stream, saved: checkpoints.Found | None, say: Callable[[str], None]
) -> tuple[WTDiT, Normalisation]:
    """Rank 0 has the weights; `compute.prepare` gives each rank its part of them."""
    known: dict[str, Any] = saved.state["normalisation"] if saved else {}
    with ranks.together():
        model, inherited = build(settings, resumed=saved is not None, meta=not ranks.first, say=say)
        if saved is not None:
            resume.check_model(Path(settings.out), saved, settings, model)
        elif ranks.first:
            known = maps.to_dict(normalisation_for(stream, settings.model.normalisation, inherited))
    return model, maps.from_dict(ranks.tell(known))
