"""Flipped bits and truncations of any file of a dataset: are all found, does none crash a reader or reach training?

    python -m tests.benchmarks.bit_flips [--cases 10000] [--seed 0] [--version1] [--cached 1000]

Wanted: all found by `worldtrace shards verify`, no error but one sentence (CorruptSample, ValueError, OSError), no
sample in training that differs in a single bit from the one that was written. The dataset is small: three shards of
views and a clip, with manifest, ledger and dataset.json. A case is one damage of one file: half are flips drawn over
all bytes of the dataset, four tenths flips in a file drawn first (so that the small files have their share), and a
tenth truncations. `--version1` does the same to a dataset of version 1, which had fewer checks. `--cached` damages
copies of shards in the cache of a dataset on a web server: the reader must notice, and download them again.
"""

import argparse
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import shards
from shards import CorruptSample, LayeredView, ledger
from shards.check.verify import verify
from shards.randomness import generator
from tests.shards.scenes import spheres_clip, spheres_view
from tests.shards.web import serving
from train.config import Augment, Data
from train.data.stream import Stream

SAMPLES = 9
VERSION1 = Path(__file__).parents[1] / "shards" / "version1"
ARRAYS = ("rgba", "hits", "depth", "K", "world_from_camera")


@dataclass(frozen=True)
class Damage:
    """A flipped bit of a byte, or (bit -1) what is left of the file."""

    file: str
    at: int
    bit: int

    def of(self, content: bytes) -> bytes:
        if self.bit < 0:
            return content[: self.at]
        changed = bytearray(content)
        changed[self.at] ^= 1 << self.bit
        return bytes(changed)


@dataclass
class Outcome:
    cases: int = 0
    missed: list[Damage] = field(default_factory=list)  # `verify` found nothing
    crashed: list[tuple[Damage, str]] = field(default_factory=list)  # an error that is no sentence
    trained: list[tuple[Damage, str]] = field(default_factory=list)  # training got something else than was written
    kinds: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds of CPU

    @property
    def failures(self) -> int:
        return len(self.missed) + len(self.crashed) + len(self.trained)


def write_small(root: Path) -> Path:
    """Views of spheres and a clip in three shards, with a ledger."""
    samples: list[shards.Sample] = [spheres_view(i, 12, 14) for i in range(SAMPLES - 1)]
    samples.append(spheres_clip(40, 2, height=12, width=14))
    (root / "shards").mkdir(parents=True)
    rows = []
    for begin in range(0, SAMPLES, 3):
        part = [shards.encode(sample) for sample in samples[begin : begin + 3]]
        rows += shards.write_shard(root / "shards" / f"{begin:06d}-unit.tar", part)
    shards.write_manifest(root, rows)
    counted = sum(row["split"] == "train" for row in rows)
    statistics = {"mean": [0.0, 0.0, 2.0], "std": [1.0, 1.0, 1.5], "points": 10, "samples": counted}
    shards.write_dataset_json(root, {"layers": 6, "size": [12, 14], "statistics": statistics})
    with open(root / "ledger.parquet", "xb") as file, ledger.LedgerWriter(file) as writer:
        writer.write(
            [
                ledger.row(
                    unit=f"{begin:06d}-unit", asset=str(begin), source="test", licence="CC0-1.0", status="done", views=3
                )
                for begin in range(0, SAMPLES, 3)
            ]
        )
    return root


def damages(root: Path, cases: int, seed: int) -> Iterator[Damage]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    names = [str(p.relative_to(root)) for p in files]
    sizes = np.array([p.stat().st_size for p in files])
    rng = generator(seed, "bit flips")
    for case in range(cases):
        by_bytes = case % 10 < 5
        chosen = int(rng.choice(len(files), p=sizes / sizes.sum() if by_bytes else None))
        bit = -1 if case % 10 == 9 else int(rng.integers(8))
        yield Damage(names[chosen], int(rng.integers(sizes[chosen])), bit)


def clean_samples(place: str | Path) -> dict[str, shards.Sample]:
    dataset = shards.open(place)
    return {key: dataset[key] for key in dataset.keys}


def frames_of(sample: shards.Sample) -> tuple[LayeredView, ...]:
    return sample.frames if isinstance(sample, shards.Clip) else (sample,)


def same(found: LayeredView, written: LayeredView) -> bool:
    arrays = all(np.asarray(getattr(found, n)).tobytes() == np.asarray(getattr(written, n)).tobytes() for n in ARRAYS)
    rest = ("key", "regime", "origin", "single_layer", "info")
    return arrays and all(getattr(found, name) == getattr(written, name) for name in rest)


def sentence(error: BaseException) -> str:
    """What is wrong with an error that a user would see; empty if nothing is."""
    text = str(error)
    if not isinstance(error, (ValueError, OSError)):
        return f"{type(error).__name__}: {text}"
    return "" if text and "\n" not in text and len(text) < 1500 else f"not a sentence: {text!r}"


class Checker:
    """What one damaged dataset does to `verify`, to a reader and to training."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.samples = clean_samples(root)
        self.frames = {f.key: f for sample in self.samples.values() for f in frames_of(sample)}
        clean = shards.open(root)
        self.hash, self.config = clean.hash, clean.config
        self.outcome = Outcome()
        if problems := verify(root):
            raise ValueError(f"the dataset is not sound before it is damaged: {problems[0]}")

    def run(self, damage: Damage) -> None:
        path = self.root / damage.file
        content = path.read_bytes()
        began = time.process_time()
        path.write_bytes(damage.of(content))
        try:
            self.outcome.cases += 1
            name = damage.file if "/" not in damage.file else "shards"
            self.outcome.kinds[f"{name}, {'flip' if damage.bit >= 0 else 'truncation'}"] += 1
            self._verify(damage)
            self._read(damage)
            self._train(damage)
        finally:
            path.write_bytes(content)
        self.outcome.slowest = max(self.outcome.slowest, time.process_time() - began)

    def _verify(self, damage: Damage) -> None:
        try:
            if not verify(self.root):
                self.outcome.missed.append(damage)
        except Exception as error:
            if wrong := sentence(error):
                self.outcome.crashed.append((damage, f"verify: {wrong}"))

    def _read(self, damage: Damage) -> None:
        """Every sample by number and by key; one that comes must be the one that was written."""
        try:
            dataset = shards.open(self.root)
            wanted: list[int | str] = [*range(len(dataset)), *self.samples]
        except Exception as error:
            if wrong := sentence(error):
                self.outcome.crashed.append((damage, f"open: {wrong}"))
            return
        for which in wanted:
            try:
                dataset[which]
            except KeyError as error:
                if damage.file.startswith("shards") or isinstance(which, int):
                    self.outcome.crashed.append((damage, f"read: {error!r}"))
            except Exception as error:
                if wrong := sentence(error):
                    self.outcome.crashed.append((damage, f"read: {wrong}"))

    def _train(self, damage: Damage) -> None:
        try:
            stream = Stream(Data(path=str(self.root), split="all", size=14), Augment(enabled=False), 6, 0)
        except Exception as error:
            if wrong := sentence(error):
                self.outcome.crashed.append((damage, f"stream: {wrong}"))
            return
        opened = stream.sources[0]
        if opened.hash != self.hash or opened.statistics != self.config.get("statistics"):
            self.outcome.trained.append((damage, "other samples or other statistics than were written"))
        for index in range(len(self.samples)):
            try:
                view, _ = stream.view(index)
            except Exception as error:
                if wrong := sentence(error):
                    self.outcome.crashed.append((damage, f"training: {wrong}"))
                continue
            if view.key not in self.frames or not same(view, self.frames[view.key]):
                self.outcome.trained.append((damage, f"index {index} is not what was written as {view.key}"))


def check_cached(root: Path, work: Path, cases: int, seed: int) -> int:
    """Damages of cached copies; returns how many samples came otherwise than they were written, or not at all."""
    wrong = 0
    rng = generator(seed, "cached")
    written = clean_samples(root)
    with serving(root) as server:
        for _ in range(cases):
            cache = shards.Cache(work / "cache", 1 << 30)
            dataset = shards.open(server.url, cache=cache)
            for key in dataset.keys:
                dataset[key]
            copies = sorted(p for p in (work / "cache").rglob("*.tar@*") if p.is_file())
            path = copies[int(rng.integers(len(copies)))]
            content = path.read_bytes()
            damage = Damage(path.name, int(rng.integers(len(content))), int(rng.integers(-1, 8)))
            path.chmod(0o644)
            path.write_bytes(damage.of(content))
            dataset = shards.open(server.url, cache=shards.Cache(work / "cache", 1 << 30))
            for key, sample in written.items():
                try:
                    found = dataset[key]
                except (CorruptSample, OSError):
                    wrong += 1
                    continue
                wrong += not all(same(a, b) for a, b in zip(frames_of(found), frames_of(sample), strict=True))
    return wrong


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--version1", action="store_true")
    parser.add_argument("--cached", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        if arguments.version1:
            shutil.copytree(VERSION1, root)
        else:
            write_small(root)
        if arguments.cached:
            wrong = check_cached(root, Path(folder), arguments.cached, arguments.seed)
            print(
                f"{arguments.cached} damaged copies in the cache: {wrong} samples came otherwise than they were written"
            )
            return
        checker = Checker(root)
        before, began = memory(), time.process_time()
        for damage in damages(root, arguments.cases, arguments.seed):
            checker.run(damage)
        found = checker.outcome
        print(f"{found.cases} cases in {time.process_time() - began:.0f} s of CPU, slowest {found.slowest:.2f} s")
        print(f"memory {before:.0f} -> {memory():.0f} MB")
        print(", ".join(f"{name}: {count}" for name, count in sorted(found.kinds.items())))
        print(f"not found: {len(found.missed)}; crashes: {len(found.crashed)}; reached training: {len(found.trained)}")
        for line in [*found.missed[:10], *found.crashed[:10], *found.trained[:10]]:
            print("  ", line)


if __name__ == "__main__":
    main()
