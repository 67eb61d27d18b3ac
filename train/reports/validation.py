"""The loss of the averaged weights on held-out samples while training goes on, and pictures of what they predict.

Always the same samples, without augmentation, each at its own time and under its own noise, which are functions of the
seed and of its place in the list: two evaluations differ by the weights alone. Nothing here touches what training
depends on: no generator but its own, no mode, no cache of shards.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

import shards
from model import Loss, Normalisation, WTDiT, draw_times, objective
from shards import Clip, CorruptSample, LayeredView, seed_of
from shards.order import mixture
from train.config import Augment, Config
from train.data import augment
from train.ranks.parallel import Ranks
from train.reports.sheets import Row, draw_rows, write_sheet
from train.step.loss import of_kind
from train.step.stacks import stacks_of

GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it fill [0, 1) evenly, however many there are
SAMPLER_STEPS = 20
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Sample:
    """One held-out sample, of T frames: rgb (T,3,H,W) float32 | xyz (T,L,H,W,3) float32 | valid (T,H,W) bool |
    noise like xyz | number: its place in the list.
    """

    key: str
    number: int
    single_layer: bool
    rgb: Tensor
    xyz: Tensor
    valid: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Evaluated:
    """Means over `samples` held-out samples: `loss` is that of training (Eq. 3 and 8), `layers` the squared error of
    each, over all pixels that supervise it (NaN where none does). `unusable` could not be read.
    """

    split: str
    samples: int
    unusable: int
    loss: float
    endpoint: float
    monotonicity: float
    layers: list[float]
    seconds: float
    picture: Path | None = None

    def facts(self) -> dict[str, Any]:
        """For metrics.jsonl; None in place of what is not finite."""
        named = {name: getattr(self, name) for name in ("loss", "endpoint", "monotonicity")}
        return {
            "split": self.split,
            "samples": self.samples,
            "unusable": self.unusable,
            **{name: _rounded(value) for name, value in named.items()},
            "layers": [_rounded(value) for value in self.layers],
            "seconds": round(self.seconds, 2),
            "picture": None if self.picture is None else f"{self.picture.parent.name}/{self.picture.name}",
        }

    def line(self) -> str:
        layers = " ".join("-" if math.isnan(x) else f"{x:.3f}" for x in self.layers)
        text = f"validation loss {self.loss:.4f}  layers {layers}  of {self.samples} samples of split {self.split}"
        text += f" in {self.seconds:.1f} s"
        return text + (f"  {self.unusable} could not be read" if self.unusable else "")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """`rows[k]` is (dataset, row) of held-out sample k. Ranks and steps do not enter."""

    datasets: tuple[shards.Dataset, ...]
    rows: tuple[tuple[int, int], ...]
    split: str
    settings: Config

    @classmethod
    def open(cls, settings: Config, say: Callable[[str], None] = print) -> "HeldOut | None":
        """`evaluation.samples` samples of `evaluation.split` of the run's sources, in the shares of its mixture, chosen
        by the hash of each manifest; None, and a sentence, where evaluation is off or there are none.
        """
        asked = settings.evaluation
        if not asked.every:
            return None
        split = None if asked.split == "all" else asked.split
        sources = settings.data.sources
        datasets = tuple(shards.open(s.path, split, where=s.where).load() for s in sources)
        counts = [len(dataset) for dataset in datasets]
        if not any(counts):
            say(
                f"evaluation: no sample of {', '.join(s.path for s in sources)} is in split {asked.split}, so there is "
                "no validation loss; name another evaluation.split, or set evaluation.every=0"
            )
            return None
        if any(count and (s.split in ("all", asked.split) or split is None) for s, count in zip(sources, counts)):
            say(f"evaluation: the run trains on split {asked.split} too: its validation loss is of samples it has seen")
        orders = [shards.Order(count, 0, dataset.hash) if count else None for count, dataset in zip(counts, datasets)]
        rows: list[tuple[int, int]] = []
        for source, place in _dealt(_shares(settings, counts), counts, min(asked.samples, sum(counts))):
            order = orders[source]
            assert order is not None
            rows.append((source, int(order[place])))
        return cls(datasets, tuple(rows), asked.split, settings)

    @property
    def hash(self) -> str:
        """Of the datasets: the same hash and config are the same samples."""
        return "-".join(dataset.hash[:16] for dataset in self.datasets if len(dataset))

    def read(self, number: int, layers: int) -> Sample:
        """Sample `number` as the model is shown it: scaled to data.size, without augmentation; of a clip its first
        frames. Raises CorruptSample, FileNotFoundError, or ValueError where there is nothing to judge.
        """
        source, row = self.rows[number]
        data = self.settings.data
        found = self.datasets[source][row]
        views: Sequence[LayeredView] = found.frames[: data.frames] if isinstance(found, Clip) else [found]
        if len(views) < data.frames:
            raise ValueError(f"{found.key}: {len(views)} frames, and data.frames asks for {data.frames}")
        background = self.settings.augment.background
        plain = Augment(enabled=False, background="white" if background == "white" else "black")
        targets = [augment.prepare(view, layers, data.size, plain, None) for view in views]
        valid = torch.from_numpy(np.stack([t.valid for t in targets]))
        if not valid.any():
            raise ValueError(f"{found.key}: no valid pixel, so there is nothing to judge")
        xyz = torch.from_numpy(np.stack([t.xyz for t in targets]))
        generator = torch.Generator().manual_seed(seed_of(self.settings.seed, "evaluation", number) % 2**63)
        noise = torch.randn(xyz.shape, generator=generator)
        rgb = torch.from_numpy(np.stack([t.rgb for t in targets]))
        return Sample(found.key, number, views[0].single_layer, rgb, xyz, valid, noise)


def validate(
    model: WTDiT,
    normalisation: Normalisation,
    held_out: HeldOut,
    ranks: Ranks,
    stop: Callable[[], bool],
    step: int,
    out: Path,
    say: Callable[[str], None] = print,
) -> Evaluated | None:
    """The loss of the weights that `model` has now, and a sheet of pictures in out/pictures; None if it was stopped.

    Collective: all ranks call it, as often as each other they call the model and `stop`, which is asked between
    batches and must say the same on all of them. The numbers are the same on every rank, and but for the rounding in
    the model on any number of ranks.
    """
    began = time.perf_counter()
    settings = held_out.settings
    layers = model.config.layers
    most = max(1, settings.data.batch // (ranks.world * settings.accumulation))  # as in training, so that it fits
    sums = torch.zeros(5 + 2 * layers, dtype=torch.float64, device=ranks.device)
    for batch in _batches(held_out, range(len(held_out.rows)), most, layers, ranks):
        if stop():
            return None
        with torch.no_grad():
            sums += _sums(model, normalisation, batch, settings, ranks.device)
    total = torch.zeros_like(sums, device="cpu")
    for of_rank in ranks.gather(sums.cpu()):  # in the order of ranks, so that all of them add up to the same bits
        total += of_rank
    count, unusable, loss, endpoint, monotonicity = total[:5].tolist()
    errors, weights = total[5:].chunk(2)

    drawn: list[tuple[int, np.ndarray]] = []
    pictures = range(min(settings.evaluation.pictures, len(held_out.rows)))
    for batch in _batches(held_out, pictures, most, layers, ranks):
        if stop():
            return None
        drawn += _drawn(model, normalisation, batch, settings, ranks.device)
    gathered = dict(pair for of_rank in ranks.gather_objects(drawn) for pair in of_rank) if pictures else {}
    picture = None
    if ranks.first and gathered:
        try:
            picture = write_sheet(out / "pictures" / f"step-{step:06d}.png", [gathered[k] for k in sorted(gathered)])
        except OSError as error:
            say(f"the predictions of step {step} cannot be drawn: {error}; training goes on")
    many = count or math.nan
    return Evaluated(
        held_out.split,
        int(count),
        int(unusable),
        loss / many,
        endpoint / many,
        monotonicity / many,
        (errors / weights).tolist(),
        time.perf_counter() - began,
        picture,
    )


@dataclass(frozen=True, eq=False)
class _Batch:
    """Samples to compute on, always as many: the first `count` are this rank's, the others fill it up."""

    samples: list[Sample]
    count: int
    unusable: int

    def stacked(self, name: str, device: torch.device) -> Tensor:
        """One field of all samples, the frames of a sample one after the other: (B*T,...)."""
        tensor = torch.cat([getattr(s, name) for s in self.samples])
        return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

    @property
    def frames(self) -> int:
        return len(self.samples[0].rgb)


def _batches(held_out: HeldOut, numbers: range, most: int, layers: int, ranks: Ranks) -> Iterator[_Batch]:
    """This rank's batches of at most `most`: dealt out in turn, equally many on each rank, of one size, read one ahead.

    A rank of a sharded model that made one call less would leave the others waiting for ever, and another shape would
    be compiled anew.
    """
    share = max(1, min(most, -(-len(numbers) // ranks.world)))
    chunks = [list(numbers[k : k + share]) for k in range(0, len(numbers), share)]
    rounds = -(-len(chunks) // ranks.world)
    own = [chunks[i] if i < len(chunks) else [] for i in range(ranks.rank, rounds * ranks.world, ranks.world)]
    blank = _blank(held_out.settings, layers)

    def read(chunk: list[int]) -> _Batch:
        found: list[Sample] = []
        for number in chunk:
            try:
                found.append(held_out.read(number, layers))
            except (CorruptSample, ValueError, OSError):
                continue  # counted, and the same ones are missing at every evaluation
        count = len(found)
        filling = [found[-1] if found else blank] * (share - count)
        return _Batch(found + filling, count, len(chunk) - count)

    yield from _ahead(read, own)


def _ahead(read: Callable[[list[int]], Item], chunks: Sequence[list[int]]) -> Iterator[Item]:
    """`read` of each chunk, in a thread that is one chunk ahead."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="evaluation")
    try:
        waiting = [pool.submit(read, chunk) for chunk in chunks[:1]]
        for chunk in [*chunks[1:], None]:
            if not waiting:
                return
            item = waiting.pop().result()
            if chunk is not None:
                waiting.append(pool.submit(read, chunk))
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # whoever stops does not wait for a slow disk


def _blank(settings: Config, layers: int) -> Sample:
    """What is computed where a rank has nothing to compute."""
    frames, size = settings.data.frames, settings.data.size
    rgb, xyz = torch.zeros(frames, 3, size, size), torch.ones(frames, layers, size, size, 3)
    return Sample("", 0, False, rgb, xyz, torch.ones(frames, size, size, dtype=torch.bool), torch.zeros_like(xyz))


def _sums(model: WTDiT, normalisation: Normalisation, batch: _Batch, settings: Config, device: torch.device) -> Tensor:
    """(5 + 2L,) float64: samples, unusable ones, loss, endpoint, monotonicity, and per layer errors and weights."""
    frames = batch.frames
    rgb, xyz, valid, noise = (batch.stacked(name, device) for name in ("rgb", "xyz", "valid", "noise"))
    x0, _ = normalisation.forward(xyz, valid, frames)
    times = times_of(
        [s.number for s in batch.samples],
        x0.shape[1],
        settings.seed,
        model.config.time_shift,
        settings.objective.schedule,
    )
    single = torch.tensor([s.single_layer for s in batch.samples])
    t, single = (of_samples.repeat_interleave(frames, dim=0).to(device) for of_samples in (times, single))
    kind: dict[str, Any] = of_kind(settings, xyz[..., 2])
    exists = kind["exists_BLHW"]
    seen: list[Tensor] = []

    def network(*arguments: Any) -> Tensor:
        seen.append(model(*arguments))
        return seen[0]

    def losses(part: slice, network: Callable[..., Tensor]) -> Loss:
        """The objective of some of the frames."""
        return objective(
            network,
            rgb[part],
            x0[part],
            valid[part],
            t[part],
            noise[part],
            single[part],
            None,
            settings.objective.lambda_mono,
            frames,
            settings.objective.noise_correlation,
            **{**kind, "exists_BLHW": None if exists is None else exists[part]},
        )

    with torch.autocast(device.type, torch.bfloat16) if settings.precision == "bf16" else nullcontext():
        losses(slice(None), network)  # one call of the model for all, the same on every rank
    rows = []
    for i in range(batch.count):  # then the loss of each sample by itself
        part = slice(i * frames, (i + 1) * frames)
        rows.append(losses(part, lambda *_, x=seen[0][part]: x))
    counts = torch.tensor([batch.count, batch.unusable], dtype=torch.float64)
    own = torch.zeros(3 + 2 * x0.shape[1], dtype=torch.float64, device=device)
    for row in rows:
        own += torch.cat([torch.stack(row[:3]), *row[3:]]).double()
    return torch.cat([counts.to(device), own])


def times_of(numbers: Sequence[int], layers: int, seed: int, shift: float, schedule: str = "mixture") -> Tensor:
    """(B,L): the time of held-out sample k, one for its stack (phase ii), whatever phase the training is in.

    Samples 0, 1, 2, ... fill the distribution of times evenly: their quantiles are the multiples of the golden ratio.
    """
    offset = seed_of(seed, "evaluation") % 2**32 / 2**32
    uniform = torch.tensor([(offset + k * GOLDEN) % 1.0 for k in numbers], dtype=torch.float64).float()
    return draw_times(uniform[:, None].expand(-1, layers), "shared", shift, schedule)


def _drawn(
    model: WTDiT, normalisation: Normalisation, batch: _Batch, settings: Config, device: torch.device
) -> list[tuple[int, np.ndarray]]:
    """(number, picture) of this rank's samples: what the sampler makes of their images, beside the truth."""
    frames = batch.frames
    rgb, xyz, valid = (batch.stacked(name, device) for name in ("rgb", "xyz", "valid"))
    _, scale = normalisation.forward(xyz, valid, frames)
    generators = [
        torch.Generator().manual_seed(seed_of(settings.seed, "picture", s.number) % 2**63) for s in batch.samples
    ]
    with torch.autocast(device.type, torch.bfloat16) if settings.precision == "bf16" else nullcontext():
        x0, _ = stacks_of(model, settings.objective, rgb, valid, generators, SAMPLER_STEPS, frames)
    predicted = normalisation.inverse(x0, scale).unflatten(0, (-1, frames)).cpu().numpy()
    drawn = []
    for s, stack in zip(batch.samples[: batch.count], predicted):
        known = 1 if s.single_layer else stack.shape[1]
        shown = sorted({0, frames - 1})  # of a clip its first and last frame
        rows = [
            Row(
                s.key if frames == 1 else f"{s.key} [{f}]",
                s.rgb[f].numpy().transpose(1, 2, 0),
                s.valid[f].numpy(),
                s.xyz[f, :known, ..., 2].numpy(),
                stack[f, ..., 2],
            )
            for f in shown
        ]
        drawn.append((s.number, draw_rows(rows)))
    return drawn


def _shares(settings: Config, counts: Sequence[int]) -> np.ndarray:
    """The part of each source in the run's mixture, 0 of those without a held-out sample, of sum 1."""
    found = mixture.shares(settings.data.mixed, [max(1, count) for count in counts]) * (np.array(counts) > 0)
    return found / found.sum()


def _dealt(shares: np.ndarray, counts: Sequence[int], wanted: int) -> Iterator[tuple[int, int]]:
    """(source, place) of `wanted` samples: the next is always of the source that is furthest behind its share."""
    given = np.zeros(len(counts), np.int64)
    for k in range(wanted):
        behind = np.where(given < np.array(counts), shares * (k + 1) - given, -np.inf)
        source = int(behind.argmax())
        yield source, int(given[source])
        given[source] += 1


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
