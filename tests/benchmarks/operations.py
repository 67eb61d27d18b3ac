"""What the commands that check and change datasets cost: CPU seconds for each sample, and memory for each manifest row.

    .venv/bin/python -m tests.benchmarks.operations [--samples 1000] [--rows 1000000]

CPU time of one process, so that other jobs on the machine do not count.
"""

import argparse
import hashlib
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import shards
from shards import EncodedSample, encode
from shards.check.repair import repair
from shards.check.verify import inspect
from shards.manifest import SCHEMA, ManifestWriter
from shards.rewrite import choice
from shards.rewrite.compare import compare
from shards.rewrite.inputs import open_input
from shards.rewrite.plan import Cut, planned
from shards.rewrite.rewrite import Output, rewrite
from shards.store import open_store
from tests.shards.scenes import spheres_view

SIZE, DIFFERENT = 504, 8


def dataset(root: Path, samples: int, per_shard: int = 200) -> Path:
    """Few views under many keys: what is measured does not care, and encoding takes long."""
    views = [encode(spheres_view(index, SIZE, SIZE)) for index in range(DIFFERENT)]

    def renamed(begin: int, end: int) -> Iterator[EncodedSample]:
        for number in range(begin, end):
            view, key = views[number % DIFFERENT], f"view-{number:08d}"
            meta = {**json.loads(view.members["json"]), "key": key}
            members = {**view.members, "json": json.dumps(meta, sort_keys=True, separators=(",", ":")).encode()}
            yield EncodedSample(key, members, {**view.row, "key": key})

    rows: list[dict[str, Any]] = []
    for begin in range(0, samples, per_shard):
        path = root / "shards" / f"{begin // per_shard:06d}-unit.tar"
        rows += shards.write_shard(path, renamed(begin, min(begin + per_shard, samples)))
    shards.write_manifest(root, rows)
    shards.write_dataset_json(root, {"layers": 6, "size": [SIZE, SIZE]})
    return root


def per_sample(root: Path, out: Path) -> None:
    one = open_input(root)
    cut = Cut(None, 8_000_000)
    print(f"{one.samples} samples of {one.bytes / one.samples / 1000:.1f} KB, {SIZE}x{SIZE}")

    def copy() -> None:
        output = Output(open_store(out), choice.header("reshard", [one], cut))
        rewrite([one], [choice.everything(one)], [output], cut, workers=1)

    steps: dict[str, Callable[[], object]] = {
        "reshard": copy,
        "diff with it": lambda: compare(one, open_input(out)),
        "verify": lambda: inspect(root, workers=1),
        "verify --quick": lambda: inspect(root, workers=1, quick=True),
        "verify --repair": lambda: repair(root),
        "stats": lambda: shards.statistics(root),
    }
    for name, step in steps.items():
        began = time.process_time()
        step()
        took = time.process_time() - began
        print(f"{name:<16}{1e3 * took / one.samples:8.3f} ms a sample{one.samples / took:10.0f} samples a second")


def manifest(root: Path, rows: int) -> Path:
    """Of samples that are not there: a plan reads no shard."""
    root.mkdir()
    with (root / "manifest.parquet").open("wb") as file, ManifestWriter(file) as writer:
        for begin in range(0, rows, 1 << 14):
            number = np.arange(begin, min(begin + (1 << 14), rows))
            sha256 = [hashlib.sha256(b"%d" % each).hexdigest() for each in number]
            count = len(number)
            columns: dict[str, Any] = {
                "key": [f"objaverse-{digest[:16]}-v{each % 12:03d}" for each, digest in zip(number, sha256)],
                "shard": [f"{each // 600:06d}-abcdef123456.tar" for each in number],
                "offset": number % 600 * 75776,
                "bytes": np.full(count, 75776),
                "sha256": sha256,
                "asset_sha256": [hashlib.sha256(b"a%d" % (each // 12)).hexdigest() for each in number],
                "split": ["train"] * count,
                "regime": ["object"] * count,
                "coverage": [[0.1, 0.1, 0.02, 0.01, 0.0, 0.0]] * count,
                "members": [[{"name": "json", "bytes": 9, "digest": bytes(16)}]] * count,
                "flags": [[]] * count,
                "planes": [[]] * count,
            }
            empty = {pa.string(): "", pa.bool_(): False}
            arrays = [
                pa.array(columns.get(field.name, [empty.get(field.type, 0)] * count), field.type) for field in SCHEMA
            ]
            writer.write(pa.table(arrays, schema=SCHEMA))
    shards.write_dataset_json(root, {"layers": 6, "size": [SIZE, SIZE]})
    return root


def per_row(root: Path, rows: int) -> None:
    source = open_input(root)
    to = choice.by_asset(source, [0.5, 0.5], 0)
    steps: dict[str, Callable[[], object]] = {
        "open": lambda: open_input(root),
        "plan a split": lambda: sum(len(plan.table) for plan in planned([source], [to], Cut())),
        "filter": lambda: choice.where(source, "L0 > 0.05 and split = 'train'"),
        "merge of two": lambda: choice.together([source, source], None),
    }
    print(f"{rows} rows of a manifest; memory is the peak so far, of which {peak():.0f} MB were there before")
    for name, step in steps.items():
        began = time.process_time()
        step()
        print(f"{name:<16}{1e6 * (time.process_time() - began) / rows:8.2f} us a row{peak():10.0f} MB")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        per_row(manifest(Path(folder) / "rows", asked.rows), asked.rows)
        per_sample(dataset(Path(folder) / "data", asked.samples), Path(folder) / "out")


if __name__ == "__main__":
    main()
