"""Our loader beside webdataset, LitData and MosaicML Streaming, on the same samples.

    pip install webdataset litdata mosaicml-streaming        (beside worldtrace; they want torchvision as well)
    worldtrace render ASSETS --views 4 --out out/objects504
    python tests/benchmarks/loaders.py out/objects504 --work FOLDER [--batch 8] [--workers 2] [--epochs 4]

Every peer stores what its documentation advises for arrays: the lossless WebP of our shards (byte for byte) and beside
it float32 layers, `hits` and K; webdataset as compressed npz members of its tars, LitData as NumPy arrays in chunks
under zstd, Streaming as MDS of typed columns under zstd. All give the same tensors, RGBA in [0,1] and the points of all
layers, by the same functions: from worker to trainer go 8-bit RGBA, depth and K, and the points are made where they
arrive, in all of them. Order is shuffled. Each measurement is a process of its own; files lie in the page cache.

    rate      samples a second and core: CPU time of all processes over several epochs, workers included
    bytes     on disk, as written and after an epoch was read (what a reader unpacks stays there)
    first     seconds to open and get the first batch
    resume    seconds to the first batch after going on in mid-epoch, with as many workers
    exact     after going on: of the epoch, the samples that came twice or never; is their order that of an epoch
              that was not interrupted; the same when it goes on with one worker more
"""

import argparse
import ast
import importlib.metadata
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import shards
from shards import LayeredView
from shards.image import decode_rgba
from shards.unproject import unproject
from train.config import Augment, Data
from train.data.stream import Schedule, Stream, batches

COPIES = 2  # of every sample, under keys of their own: so that an epoch has a middle
CHUNK = 8 << 20  # bytes of a shard or chunk; the 64 MB that peers advise would hold all of so small a set
SEED = 7
Record = dict[str, Any]  # key, rgba (H,W,4) uint8, depth (L,H,W) float32, hits (H,W) uint8, K (3,3) float64


def collate(records: Sequence[Record]) -> Record:
    arrays = {name: torch.from_numpy(np.stack([r[name] for r in records])) for name in ("rgba", "depth", "hits", "K")}
    return {"key": [str(r["key"]) for r in records], **arrays}


def finished(batch: Record) -> tuple[torch.Tensor, torch.Tensor]:
    """RGBA (B,H,W,4) in [0,1] and points (B,L,H,W,3)."""
    xyz = np.zeros((*batch["depth"].shape, 3), np.float32)
    for sample in zip(batch["depth"].numpy(), batch["hits"].numpy(), batch["K"].numpy(), xyz):
        unproject(*sample)
    return batch["rgba"].float().div_(255), torch.from_numpy(xyz)


def one_thread(worker: int) -> None:
    torch.set_num_threads(1)


class Loader(ABC):
    """One way to store and read. `read(workers, state)` yields (keys, batch) of an epoch, or of what is left of it."""

    def __init__(self, folder: Path, batch: int, epochs: int = 1) -> None:
        self.folder, self.batch, self.epochs = folder, batch, epochs

    @abstractmethod
    def write(self, dataset: shards.Dataset) -> None: ...

    @abstractmethod
    def read(self, workers: int, state: Any = None) -> Iterator[tuple[list[str], Any]]: ...

    @abstractmethod
    def state(self, seen: int) -> Any:
        """What has to be kept to go on after `seen` batches, as plain values; called between two batches."""

    def finish(self, batch: Any) -> None:
        finished(batch)


class Ours(Loader):
    package = "worldtrace"

    def write(self, dataset: shards.Dataset) -> None:
        encoded = (shards.encode(view) for view in copies(dataset))
        folder, rows, waiting, size = self.folder / "shards", [], [], 0
        folder.mkdir(parents=True)

        def flush() -> None:
            rows.extend(shards.write_shard(folder / f"{len(list(folder.iterdir())):06d}.tar", waiting))
            waiting.clear()

        for sample in encoded:
            waiting.append(sample)
            size += sum(map(len, sample.members.values()))
            if size > CHUNK:
                flush()
                size = 0
        if waiting:
            flush()
        shards.write_manifest(self.folder, rows)
        first = dataset[0]
        assert isinstance(first, LayeredView)
        shards.write_dataset_json(self.folder, {"layers": first.layers, "size": list(first.size)})

    def read(self, workers: int, state: Any = None) -> Iterator[tuple[list[str], Any]]:
        size = shards.open(self.folder).config["size"][0]
        data = Data(path=str(self.folder), split="all", size=size, batch=self.batch, workers=workers)
        stream = Stream(data, Augment(enabled=False), 6, SEED)
        # an index says which sample it is without reading it; the keys are looked up only where they are compared
        self.key_of: Callable[[int], str] = lambda index: stream.view(index)[0].key
        steps = stream.samples * self.epochs // self.batch
        with batches(stream, Schedule(state or 0, steps, self.batch)) as found:
            for batch in found:
                yield [str(i) for i in batch.index.tolist()], batch

    def state(self, seen: int) -> Any:
        return seen

    def finish(self, batch: Any) -> None:
        assert batch.xyz.shape[-1] == 3


class WebDataset(Loader):
    package = "webdataset"

    def write(self, dataset: shards.Dataset) -> None:
        import webdataset

        self.folder.mkdir(parents=True)
        with webdataset.ShardWriter(f"{self.folder}/%06d.tar", maxsize=CHUNK, verbose=0) as out:
            for record, image in records(dataset):
                file = io.BytesIO()
                np.savez_compressed(file, depth=record["depth"], hits=record["hits"], K=record["K"])
                out.write({"__key__": record["key"], "layers.npz": file.getvalue(), "rgba.webp": image})

    def read(self, workers: int, state: Any = None) -> Iterator[tuple[list[str], Any]]:
        import webdataset

        urls = sorted(map(str, self.folder.glob("*.tar")))
        pipeline = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=SEED, empty_check=False).shuffle(
            100, seed=SEED
        )
        loader = DataLoader(
            pipeline.map(self._decoded),
            batch_size=self.batch,
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=one_thread,
        )
        skipped = state or 0  # it has no state: a run that goes on reads and decodes all that it had seen, as advised
        for epoch in range(self.epochs):
            for number, batch in enumerate(loader):
                if epoch or number >= skipped:
                    yield batch["key"], batch

    @staticmethod
    def _decoded(sample: dict[str, Any]) -> Record:
        with np.load(io.BytesIO(sample["layers.npz"]), allow_pickle=False) as arrays:
            record = {name: arrays[name] for name in ("depth", "hits", "K")}
        return {"key": sample["__key__"], "rgba": decode_rgba(sample["rgba.webp"], *record["hits"].shape), **record}

    def state(self, seen: int) -> Any:
        return seen


class LitData(Loader):
    package = "litdata"

    def write(self, dataset: shards.Dataset) -> None:
        import litdata

        os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(self.folder) + ".tmp"
        global _WRITTEN
        _WRITTEN = dataset
        litdata.optimize(
            fn=lit_sample,
            inputs=list(range(len(dataset) * COPIES)),
            output_dir=str(self.folder),
            chunk_bytes=CHUNK,
            compression="zstd",
            num_workers=1,
            start_method="fork",
            verbose=False,
        )

    def read(self, workers: int, state: Any = None) -> Iterator[tuple[list[str], Any]]:
        import litdata

        dataset = litdata.StreamingDataset(
            str(self.folder), shuffle=True, seed=SEED, transform=lit_decoded, cache_dir=str(self.folder) + ".cache"
        )
        self.loader = litdata.StreamingDataLoader(
            dataset, batch_size=self.batch, num_workers=workers, collate_fn=collate, worker_init_fn=one_thread
        )
        if state is not None:
            self.loader.load_state_dict(state)
        for _ in range(self.epochs):
            for batch in self.loader:
                yield batch["key"], batch

    def state(self, seen: int) -> Any:
        return self.loader.state_dict()


_WRITTEN: Any = None


def lit_sample(number: int) -> dict[str, Any]:
    record, image = record_of(_WRITTEN, number)
    return {"depth": record["depth"], "hits": record["hits"], "K": record["K"], "key": record["key"], "image": image}


def lit_decoded(sample: dict[str, Any], *_: Any) -> Record:
    return {**sample, "rgba": decode_rgba(sample["image"], *sample["hits"].shape)}


class Mosaic(Loader):
    package = "mosaicml-streaming"

    def write(self, dataset: shards.Dataset) -> None:
        from streaming import MDSWriter

        first = dataset[0]
        assert isinstance(first, LayeredView)
        shape = ",".join(map(str, first.depth.shape))
        columns = {
            "key": "str",
            "image": "bytes",
            "depth": f"ndarray:float32:{shape}",
            "hits": f"ndarray:uint8:{shape.split(',', 1)[1]}",
            "K": "ndarray:float64:3,3",
        }
        with MDSWriter(out=str(self.folder), columns=columns, compression="zstd", size_limit=CHUNK) as out:
            for record, image in records(dataset):
                out.write({**{name: record[name] for name in ("key", "depth", "hits", "K")}, "image": image})

    def read(self, workers: int, state: Any = None) -> Iterator[tuple[list[str], Any]]:
        from streaming import StreamingDataLoader, StreamingDataset

        class Decoded(StreamingDataset):  # type: ignore[misc]
            def __getitem__(self, at: Any) -> Record:
                sample = super().__getitem__(at)
                return {**sample, "rgba": decode_rgba(sample["image"], *sample["hits"].shape)}

        dataset = Decoded(
            local=str(self.folder),
            shuffle=True,
            shuffle_seed=SEED,
            batch_size=self.batch,
            num_canonical_nodes=1,
            keep_zip=True,  # the folder is the only copy
        )
        self.loader = StreamingDataLoader(
            dataset, batch_size=self.batch, num_workers=workers, collate_fn=collate, worker_init_fn=one_thread
        )
        self.loader._get_batch_size = lambda batch: len(batch["key"])  # its own guess wants a tensor first
        if state is not None:
            self.loader.load_state_dict(state)
        for _ in range(self.epochs):
            for batch in self.loader:
                yield batch["key"], batch

    def state(self, seen: int) -> Any:
        return self.loader.state_dict()


LOADERS: dict[str, type[Loader]] = {"ours": Ours, "webdataset": WebDataset, "litdata": LitData, "streaming": Mosaic}


def record_of(dataset: shards.Dataset, number: int) -> tuple[Record, bytes]:
    row = number % len(dataset)
    view = dataset[row]
    assert isinstance(view, LayeredView)
    record = {"key": f"{view.key}-{number // len(dataset)}", "rgba": view.rgba, "depth": view.depth}
    return {**record, "hits": view.hits, "K": np.asarray(view.K, np.float64)}, dataset.members(row)["rgba.webp"]


def records(dataset: shards.Dataset) -> Iterator[tuple[Record, bytes]]:
    for number in range(len(dataset) * COPIES):
        yield record_of(dataset, number)


def copies(dataset: shards.Dataset) -> Iterator[LayeredView]:
    from dataclasses import replace

    for number in range(len(dataset) * COPIES):
        view = dataset[number % len(dataset)]
        assert isinstance(view, LayeredView)
        yield replace(view, key=f"{view.key}-{number // len(dataset)}")


def cpu() -> float:
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in found)


def size_of(folder: Path) -> int:
    places = [folder, *folder.parent.glob(folder.name + ".*")]
    return sum(p.stat().st_size for place in places for p in place.rglob("*") if p.is_file())


# ---------------------------------------------------------------- one measurement, in a process of its own


def measure(task: str, loader: Loader, workers: int, path: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.rand(2).sum()
    began, used = time.perf_counter(), cpu()
    if task == "rate":
        count = 0
        for keys, batch in loader.read(workers):
            loader.finish(batch)
            count += len(keys)
        del batch
        return {"rate": count / (cpu() - used), "wall": count / (time.perf_counter() - began)}
    if task == "first":
        keys, batch = next(iter(loader.read(workers)))
        loader.finish(batch)
        return {"seconds": time.perf_counter() - began}
    if task == "whole":
        return {"keys": [key for keys, _ in loader.read(workers) for key in keys]}
    if task == "stop":
        found, seen = loader.read(workers), []
        for number, (keys, _) in enumerate(found, start=1):
            seen += keys
            if number == int(path.read_text()):
                path.with_suffix(".state").write_text(repr(loader.state(number)))
                return {"keys": seen}
        raise ValueError("the epoch is shorter than that")
    state = ast.literal_eval(path.with_suffix(".state").read_text())
    rest, seconds = [], 0.0
    for keys, batch in loader.read(workers, state):
        if not rest:
            loader.finish(batch)
            seconds = time.perf_counter() - began
        rest += keys
    return {"keys": rest, "seconds": seconds}


def ask(arguments: argparse.Namespace, name: str, task: str, workers: int, epochs: int = 1) -> dict[str, Any]:
    """Run this script for one measurement. An error is its last line: some peers cannot do all of it."""
    command = [sys.executable, __file__, str(arguments.dataset), "--work", str(arguments.work), "--only", name]
    command += ["--task", task, "--workers", str(workers), "--batch", str(arguments.batch), "--epochs", str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
    return dict(json.loads(lines[-1][7:]))


def exactness(whole: list[str], seen: list[str], rest: list[str]) -> str:
    once, found = set(whole), seen + rest
    lost, twice = len(once - set(found)), len(found) - len(set(found))
    order = "same order" if found == whole else "another order"
    return f"{lost} lost, {twice} repeated, {order}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=list(LOADERS))
    parser.add_argument("--task")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    plan = arguments.work / f"{arguments.only}.plan"
    if arguments.task:
        loader = LOADERS[arguments.only](arguments.work / arguments.only, arguments.batch, arguments.epochs)
        if arguments.task == "write":
            loader.write(shards.open(arguments.dataset))
            result: dict[str, Any] = {}
        else:
            result = measure(arguments.task, loader, arguments.workers, plan)
        print("RESULT " + json.dumps(result), flush=True)
        os._exit(0)  # some keep threads or processes that wait for ever

    count = len(shards.open(arguments.dataset)) * COPIES
    stop = count // arguments.batch * 2 // 5
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(f"{count} samples, batches of {arguments.batch}, stopped after {stop} batches of the epoch")
    for name in [arguments.only] if arguments.only else list(LOADERS):
        folder = arguments.work / name
        for place in (folder, *arguments.work.glob(f"{name}.*")):
            shutil.rmtree(place, ignore_errors=True)
        (arguments.work / f"{name}.plan").write_text(str(stop))
        version = importlib.metadata.version(LOADERS[name].package)  # type: ignore[attr-defined]
        print(f"{name} {version}", flush=True)
        if "error" in (written := ask(arguments, name, "write", 0)):
            print(f"  could not write: {written['error']}")
            continue
        before = size_of(folder)
        whole = ask(arguments, name, "whole", arguments.workers)  # also brings the files into the page cache
        print(f"  {before / count / 1e3:.1f} KB a sample, {size_of(folder) / count / 1e3:.1f} KB once read")
        for workers in (0, arguments.workers):
            rates = [ask(arguments, name, "rate", workers, arguments.epochs) for _ in range(2)]
            rate, wall = median(rates, "rate"), median(rates, "wall")
            print(f"  {workers} workers: {rate} samples a second and core, {wall} a second", flush=True)
        first = [ask(arguments, name, "first", arguments.workers) for _ in range(3)]
        print(f"  first batch after {median(first, 'seconds')} s")
        seen = ask(arguments, name, "stop", arguments.workers)
        for workers in (arguments.workers, arguments.workers + 1):
            rest = ask(arguments, name, "resume", workers)
            if failed := next((r["error"] for r in (whole, seen, rest) if "error" in r), None):
                print(f"  going on with {workers} workers: {failed}")
                continue
            again = [ask(arguments, name, "resume", workers) for _ in range(2)]
            exact = exactness(whole["keys"], seen["keys"], rest["keys"])
            print(f"  going on with {workers} workers: {median([rest, *again], 'seconds')} s, {exact}", flush=True)


def median(found: list[dict[str, Any]], name: str) -> str:
    values = sorted(each[name] for each in found if name in each)
    return f"{values[len(values) // 2]:.3g}" if values else next(each["error"] for each in found)


if __name__ == "__main__":
    main()
