"""The stream of training samples: a function of a global index, read by torch's DataLoader.

Sample i of a run (i = 0, 1, 2, ... over all epochs) is decided by (seed, manifest hash, i) alone: which row of which
dataset, which frames of a clip, which augmentation. Step k of batch B takes the indices [k B, (k + 1) B), whatever the
number of ranks, accumulation steps and workers; so the whole state of the stream is one integer, and a resumed run goes
on with the very next sample.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

import shards
from shards import Cache, Clip, CorruptSample, History, LayeredView, generator
from shards.order.mixture import Source
from shards.order.sequence import opened
from train.config import Augment, Data
from train.data import augment
from train.data.augment import photometric
from train.data.batch import Batch, Form, Unusable, joined
from train.data.readers import Reader
from train.data.slots import Parcel, Slots, can_share
from train.reports.log import read_lines, write_lines

SUBSTITUTES = 8  # damaged samples in a row that are stepped over before the stream gives up
TOLERATED = 0.001  # part of the samples read that may be damaged ...
AT_LEAST = 4  # ... and the number of them from which that part is believed
REASONS = {
    "damaged": "damaged (`worldtrace shards verify` finds them)",
    "missing": "in shards that are missing",
    "empty": "without a valid pixel",
}


@dataclass(frozen=True)
class Failure:
    """What kept a sample from being read. An error itself torch would hand over with the worker's whole traceback."""

    message: str
    of_system: bool  # an OSError, which may pass; else the data are to blame


class Stream(Dataset[Batch]):
    """Map-style: `stream[i]` is a Batch of one, for any i >= 0; worker processes index it."""

    def __init__(
        self,
        data: Data,
        augmentation: Augment,
        layers: int,
        seed: int,
        history: History | None = None,
        on_device: bool = False,
    ) -> None:
        """`history`: what the run has noted about its data; without it the datasets have never grown. `on_device`:
        photometry is left to `Batch.to`. ValueError where samples have fewer frames than are asked for.
        """
        self.data, self.augmentation, self.layers, self.seed = data, augmentation, layers, seed
        self.form = Form(layers, data.size, data.size, data.frames, on_device and augmentation.enabled)
        cache = None if data.cache is None else Cache(data.cache.folder, data.cache.bytes)
        self.sources = opened(data.mixed, cache)
        if data.frames > 1:
            for written, source in zip(data.sources, self.sources):
                _check_frames(written, source, data.frames, isinstance(data.path, str))
        self.follow(history)
        if cache is not None:
            parts = [f"{s.path} ({f'2 windows of {s.window} shards' if s.window else 'whole'})" for s in data.sources]
            needed = sum(self.sequence.needed_bytes(s) for s in range(len(parts)))
            cache.check(needed, f"the shards that are read at a time, of {', '.join(parts)}")
        self._fetched: dict[int, tuple[int, int]] = {}  # source -> places whose shards this process has asked for

    def follow(self, history: History | None) -> None:
        """Take the sequence that the run has noted, of which these datasets are the newest generation."""
        self.sequence = shards.Sequence(self.data.mixed, self.sources, self.seed, history)

    @property
    def hash(self) -> str:
        """Of the manifests (of the splits in use) and the weights: the same hash and seed give the same samples, as
        long as the datasets do not grow.
        """
        return self.sequence.hash

    @property
    def samples(self) -> int:
        return sum(len(source) for source in self.sources)

    def __getitem__(self, index: int) -> Batch:
        views, damaged = self.views(index)
        rng, deferred = generator(self.seed, "augment", index), self.form.deferred
        targets = augment.prepare_clip(views, self.layers, self.data.size, self.augmentation, rng, deferred)
        batch = Batch(
            _stacked([t.rgb for t in targets]),
            _stacked([t.depth for t in targets]),
            _stacked([t.K for t in targets]),
            _stacked([t.valid for t in targets]),
            _stacked([t.weight for t in targets]),
            torch.tensor([view.single_layer for view in views]),
            torch.tensor([index]),
            damaged,
        )
        if not deferred:
            return batch
        looks = photometric.packed([t.look for t in targets if t.look is not None])
        return replace(batch, shown=_stacked([t.shown for t in targets if t.shown is not None]), looks=looks)

    def view(self, index: int) -> tuple[LayeredView, tuple[Unusable, ...]]:
        """The first of the `views` of global index i."""
        views, damaged = self.views(index)
        return views[0], damaged

    def views(self, index: int) -> tuple[tuple[LayeredView, ...], tuple[Unusable, ...]]:
        """The `data.frames` views of global index i, of a clip one after the other; a sample that is damaged, missing
        or empty is replaced by the next in order, or, where there are windows, by one of another window.
        """
        source, place = self.sequence[index]
        self._fetch(source, place)
        dataset, order = self.sources[source], self.sequence.orders[source]
        damaged: list[Unusable] = []
        absent = 0
        for attempt in range(SUBSTITUTES):
            try:
                key, views = self._read(dataset, order.substitute(place, attempt), index)
            except (CorruptSample, FileNotFoundError) as error:
                is_absent = isinstance(error, FileNotFoundError)
                damaged.append(Unusable(index, "missing" if is_absent else "damaged", str(error)))
                absent += is_absent
                continue
            if any(view.valid.any() for view in views):
                return views, tuple(damaged)
            damaged.append(Unusable(index, "empty", f"{key}: no valid pixel, so nothing to learn from"))
        kind = OSError if absent == SUBSTITUTES else ValueError  # a file system that is not there may come back
        raise kind(f"{SUBSTITUTES} samples in a row cannot be used, the last one: {damaged[-1].message}")

    def _fetch(self, source: int, place: int) -> None:
        """Ask for the shards that come next, where they come through a cache."""
        begin, end = self._fetched.get(source, (0, 0))
        if self.sources[source].cache is not None and not begin <= place < end:
            end, names = self.sequence.ahead(source, place)
            self._fetched[source] = place, end
            self.sources[source].expect(names)

    def _read(self, dataset: "shards.Dataset", row: int, index: int) -> tuple[str, tuple[LayeredView, ...]]:
        """Key and views of a row: of a clip a window of its frames, whose beginning is drawn for this index."""
        try:
            sample = dataset[row]
        except (CorruptSample, FileNotFoundError):
            sample = dataset[row]  # a network file system may have served half a read
        frames, wanted = sample.frames if isinstance(sample, Clip) else (sample,), self.data.frames
        if len(frames) < wanted:
            raise CorruptSample(f"{sample.key}: has {len(frames)} frames, and the manifest says that it has more")
        begin = int(generator(self.seed, "frame", index).integers(len(frames) - wanted + 1)) if len(frames) > 1 else 0
        views = frames[begin : begin + wanted]
        return views[0].key if wanted == 1 else sample.key, views


def _check_frames(written: Source, dataset: "shards.Dataset", frames: int, alone: bool) -> None:
    """ValueError where a source has samples of fewer frames than data.frames: none is repeated to make a clip."""
    counts = dataset.columns(["frames"])["frames"].to_numpy()
    if not (short := int((counts < frames).sum())):
        return
    still, condition = int((counts == 1).sum()), f"frames >= {frames}"
    if written.where:
        condition = f"({written.where}) and {condition}"
    if short == len(counts):
        advice = f"its longest has {int(counts.max())}: give data.frames={int(counts.max())}, or longer clips"
        if still == short:
            advice = "give clips, or data.frames=1"
    else:
        advice = f'leave them out with {"data." if alone else ""}where="{condition}"' + (
            "" if alone else " in this source"
        )
    raise ValueError(
        f"{written.path}: data.frames is {frames}, but {short} of its {len(counts)} samples have fewer frames "
        f"({still} are still views, {short - still} shorter clips); {advice}"
    )


def _stacked(arrays: Sequence[np.ndarray]) -> Tensor:
    """Of one array a view, of several a copy: (T,...)."""
    return torch.from_numpy(arrays[0])[None] if len(arrays) == 1 else torch.from_numpy(np.stack(arrays))


class Schedule(Sampler[list[int]]):
    """Global indices of each micro-batch of one rank, for steps [start, stop).

    The indices of a step are the same for every (world, accumulation); they are dealt out in runs of
    batch / (world * accumulation).
    """

    def __init__(self, start: int, stop: int, batch: int, accumulation: int = 1, rank: int = 0, world: int = 1) -> None:
        if batch % (accumulation * world):
            raise ValueError(f"data.batch {batch} is not a multiple of {world} ranks x accumulation {accumulation}")
        self.start, self.stop, self.batch = start, stop, batch
        self.accumulation, self.rank, self.world = accumulation, rank, world
        self.share = batch // (accumulation * world)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            for part in range(self.accumulation):
                first = step * self.batch + (part * self.world + self.rank) * self.share
                yield list(range(first, first + self.share))


@contextmanager
def batches(stream: Stream, schedule: Schedule, pin: bool = False) -> Iterator[Iterator[Batch]]:
    """Decodes and augments in `data.workers` processes (0: in this one), a few batches ahead.

    The workers have ended when the block has, also when by an error: they ignore SIGTERM, and Python, which joins them
    when it exits, would wait for ever. Where this process is killed they end soon after. OSError or ValueError says in
    one sentence what could not be read.
    """
    workers = stream.data.workers
    slots = None
    if not workers or can_share():  # a slot for each batch that waits, one that is used and one that was used last
        slots = Slots(max(1, workers), 2 + (stream.data.prefetch if workers else 0), schedule.share, stream.form)
    loader: DataLoader[Batch | Parcel | Failure] = DataLoader(
        _Reported(stream),
        batch_sampler=schedule,
        collate_fn=_Collate(slots),
        num_workers=workers,
        prefetch_factor=stream.data.prefetch if workers else None,
        worker_init_fn=Reader.of_this_process(),
        pin_memory=pin,
    )
    threads = torch.get_num_threads()
    found = iter(loader)
    try:
        yield map(_raised, _living(found, threads))
    finally:
        if workers:
            found._shutdown_workers()  # type: ignore[attr-defined]  # torch has no public name for it


def _living(found: Iterator[Batch | Parcel | Failure], threads: int) -> Iterator[Batch | Parcel | Failure]:
    """The same batches; a worker that was killed is an error of the system, which people can read.

    The thread of the loader that pins batches takes one thread for its arithmetic, and with it, torch counts so, all
    threads that begin later, autograd's among them: those of this process stay `threads`. torch.compile has graphs for
    a number of threads, so blocks that autograd's thread computes again would all be compiled again there.
    """
    try:
        for number, batch in enumerate(found):
            if number == 0:  # that thread has begun
                torch.set_num_threads(threads)
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OSError(
            "a process that reads samples was killed (by the system, if memory ran out: lower data.workers or "
            "data.prefetch); the same command goes on from the newest checkpoint"
        ) from None


class _Reported(Dataset[Batch | Failure]):
    """A stream whose errors that a user can cause are data; other errors are ours and keep their traceback."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __getitem__(self, index: int) -> Batch | Failure:
        try:
            return self.stream[index]
        except (ValueError, OSError) as error:
            return Failure(str(error), isinstance(error, OSError))


def _raised(batch: Batch | Parcel | Failure) -> Batch:
    if isinstance(batch, Failure):
        raise (OSError if batch.of_system else ValueError)(batch.message)
    return batch.open() if isinstance(batch, Parcel) else batch


@dataclass(frozen=True)
class _Collate:
    """One batch of several, in memory that is used again, or the first failure among them."""

    slots: Slots | None

    def __call__(self, items: Sequence[Batch | Failure]) -> Batch | Parcel | Failure:
        whole = [item for item in items if isinstance(item, Batch)]
        if len(whole) < len(items):
            return next(item for item in items if isinstance(item, Failure))
        worker = get_worker_info()
        return joined(whole) if self.slots is None else self.slots.joined(whole, 0 if worker is None else worker.id)


class Damage:
    """The damaged and empty samples of a run, in `damaged.jsonl`; too many of them end it."""

    def __init__(self, path: Path, before: int, say: Callable[[str], None] = print) -> None:
        """Takes over what a resumed run noted about global indices below `before`."""
        self.path, self.say, self._unwritten = path, say, False
        self.lines = [line for line in read_lines(path, by="index") if line["index"] < before]
        if path.is_file():
            write_lines(path, self.lines)

    def note(self, unusable: Sequence[Unusable], seen: int) -> None:
        """Raises ValueError when more than 0.1 % (and at least 4) of the `seen` samples had to be replaced. What a full
        disk does not take is written with the next ones.
        """
        if not unusable:
            return
        self.lines += [asdict(line) for line in unusable]
        try:
            write_lines(self.path, self.lines)
        except OSError as error:
            if not self._unwritten:
                self.say(f"{self.path} cannot be written: {error}; training goes on, and tries again")
            self._unwritten = True
        else:
            self._unwritten = False
        # a substitute may be unusable as well, and has a line, too: what counts is who was to be replaced
        replaced = {line["index"]: line["reason"] for line in reversed(self.lines)}
        if len(replaced) >= AT_LEAST and len(replaced) > TOLERATED * seen:
            listed = "; ".join(sorted({line["message"] for line in self.lines})[:10])
            found = Counter(replaced.values())
            counts = [f"{found[reason]} {words}" for reason, words in REASONS.items() if found[reason]]
            raise ValueError(
                f"{len(replaced)} of {seen} samples cannot be used, more than {TOLERATED:.1%}: {' and '.join(counts)}; "
                f"all of them are in {self.path}: {listed}"
            )

    def __len__(self) -> int:
        return len(self.lines)
