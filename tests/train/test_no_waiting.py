"""A step asks its device for nothing that it would have to wait for: no number is read, none is sent as a list.

On a CPU nothing waits, so the operators are watched that would wait on a GPU. tests/train/test_step_on_gpu.py runs the
same step where torch itself refuses to wait.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model import LogMedian, Normalisation, WTDiT, ZScore, preset
from tests.train.conftest import Settings
from train.config import Config
from train.data.batch import Batch, joined, points
from train.data.stream import Stream
from train.ranks.parallel import Ranks
from train.reports.reports import Reports
from train.step import compute
from train.step.curriculum import Curriculum
from train.step.loss import loss_of
from train.step.tally import tally
from train.step.update import Update

MAPS = [ZScore((0.0, 0.1, 3.0), (1.0, 1.1, 1.2)), LogMedian()]
# Each needs a number that the device has: for the size of its result, or to hand it over.
READING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_consecutive")


class Waiting(TorchDispatchMode):
    """Counts the operators for which Python would wait for a GPU: those that read numbers of tensors, and those that
    make tensors of numbers, for they are copied from memory that is not pinned."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name.startswith("index") and any(
            isinstance(x, Tensor) and x.dtype == torch.bool for x in (args[1] if isinstance(args[1], list) else [])
        )
        if name in READING or name == "lift_fresh" or masked:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def counted(name: str, found: Counter[str], free: tuple[Tensor | None, ...]) -> Callable[..., Any]:
    plain = getattr(Tensor, name)

    def call(self: Tensor, *args: Any) -> Any:
        if not any(self is each for each in free):
            found[name] += 1
        return plain(self, *args)

    return call


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, *free: Tensor | None) -> Iterator[Counter[str]]:
    """What would wait within the block. Those that are `free` may be read: they stay on the CPU."""
    with Waiting() as waiting, monkeypatch.context() as patch:
        for name in ("tolist", "numpy", "cpu", "item", "__float__", "__int__", "__bool__"):
            patch.setattr(Tensor, name, counted(name, waiting.found, free))
        yield waiting.found


def steps_of(
    c: Config, normalisation: Normalisation, device: torch.device
) -> tuple[Batch, Update, Callable[[int], None]]:
    """What train/loop.py does for a step, but for its data and its ranks: the batch, and a function of the number."""
    ranks = Ranks(0, 1, device)
    torch.manual_seed(0)
    model = WTDiT(preset(c.model.preset, **c.model.overrides))
    compute.prepare(model, c, ranks)
    layers = model.config.layers
    update = Update(model, c)
    curriculum = Curriculum(c.objective.shared_times_from, layers, c.optimizer.warmup, device)
    stream = Stream(c.data, c.augment, layers, c.seed, on_device=True)
    batch = joined([stream[k] for k in range(c.data.batch)])
    batch = batch.pin_memory() if device.type == "cuda" else batch
    Path(c.out).mkdir(exist_ok=True)
    log = Reports(Path(c.out), 0, 10**6, 10**6, Console(file=io.StringIO()), device)

    def step(number: int) -> None:
        loss = loss_of(model, model.config.time_shift, normalisation, batch.to(device), c, curriculum.phase(number))
        loss.total.backward()
        of_all = tally(ranks, [type(loss)(*(x.detach() for x in loss))], update.norm())
        verdict = update.step(of_all.loss, of_all.norm, 1e-3, warm=True)
        curriculum.note(number, of_all.error_L, of_all.weight_L, taken=verdict.refused == 0)
        values = {**of_all._asdict(), "layers": of_all.layers_L, "lr": 1e-3, "skipped": update.skipped}
        log.step(number, values, c.data.batch, 0.0, verdict)

    return batch, update, step


def demanding(settings: Settings, **changes: Any) -> Config:
    """Photometry is left to the device, blocks are computed twice, the curriculum looks at the losses."""
    return settings(
        **{
            "augment__enabled": True,
            "augment__photometric": {"blur": 1.0, "sharpen": 1.0, "noise": 1.0, "jpeg": 1.0},
            "compute__compile": False,
            "compute__activations": "recompute",
            "objective__shared_times_from": "stable",
            "optimizer__warmup": 0,
            **changes,
        }
    )


@pytest.mark.parametrize("normalisation", MAPS, ids=lambda m: m.kind)
def test_a_step_reads_nothing_and_sends_no_list(
    settings: Settings, normalisation: Normalisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a batch to the line of the log, after a first one: what is made once may wait."""
    monkeypatch.setattr(Batch, "xyz", property(lambda batch: points(batch.depth, batch.K)))  # as on a GPU
    batch, update, step = steps_of(demanding(settings), normalisation, torch.device("cpu"))
    step(1)
    with watched(monkeypatch, batch.index, batch.looks) as found:
        step(2)
    assert not found
    assert update.counts() == (2, 0, 0)


@pytest.mark.parametrize(
    ("name", "waits"),
    [
        ("new_tensor", lambda x: x.new_tensor([1.0, 2.0])),
        ("a list", lambda x: torch.tensor([1.0, 2.0])),
        ("item", lambda x: x.sum().item()),
        ("float", lambda x: float(x.sum())),
        ("a branch", lambda x: x.sum() > 0 or None),
        ("a mask", lambda x: x[x > 0]),
        ("tolist", lambda x: x.tolist()),
        ("cpu", lambda x: x.cpu()),
    ],
)
def test_what_would_wait_is_seen(name: str, waits: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as found:
        waits(torch.ones(2))
    assert found, name
