"""What a dataset of the paper's size costs to open: a synthetic manifest of 17 million rows, and one real sample.

    python -m tests.benchmarks.manifest_scale --rows 17000000

The manifest has every column of a real one, with hashes that do not compress: 16 views an asset, 1000 samples a shard.
Each figure is taken in a process of its own. `private` is what a forked worker has to itself after reading samples.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import shards
from shards import manifest
from shards import rows as rows_module
from shards.contract import LayeredView
from tests.shards.scenes import spheres_view

VIEWS, PER_SHARD, BYTES = 16, 1000, 65_536
CHUNK = manifest.ROW_GROUP


def hexadecimal(rng: np.random.Generator, count: int) -> pa.Array:
    """Texts of 64 hexadecimal digits."""
    text = rng.bytes(32 * count).hex().encode()
    ends = np.arange(count + 1, dtype=np.int32) * 64
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(text))


def rows(first: int, count: int) -> pa.Table:
    """Rows `first` and on of the manifest."""
    rng = np.random.default_rng(first)
    number = np.arange(first, first + count)
    asset, shard = number // VIEWS, number // PER_SHARD
    digests = np.random.default_rng(7).integers(0, 2**63, 2 + int(asset[-1]))
    of_asset = [f"{digests[each]:016x}{each:048x}" for each in np.unique(asset)]
    places = asset - asset[0]
    starts = np.arange(count + 1, dtype=np.int32)
    member = pa.StructArray.from_arrays(
        [
            pa.array(["json", "layers.zst", "rgba.webp"] * count),
            pa.array(rng.integers(1000, 40_000, 3 * count)),
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), 3 * count, [None, pa.py_buffer(rng.bytes(48 * count))]),
        ],
        fields=list(manifest.MEMBER),
    )

    def same(value: object, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), count)

    layers = pa.array(np.sort(rng.random((count, 6), np.float32).astype(np.float64), axis=1).ravel())
    split = np.where(asset % 20 == 0, "val", np.where(asset % 20 == 1, "test", "train"))
    columns = {
        "key": pa.array(
            [f"objaverse-{of_asset[place][:32]}-{view:03d}" for place, view in zip(places, number % VIEWS)]
        ),
        "shard": pa.array([f"{each:06d}-{each * 2654435761 % 2**48:012x}.tar" for each in shard]),
        "offset": pa.array(number % PER_SHARD * BYTES),
        "bytes": same(BYTES, pa.int64()),
        "sha256": hexadecimal(rng, count),
        "asset": pa.array([of_asset[place][:32] for place in places]),
        "source": same("objaverse", pa.string()),
        "licence": same("CC-BY-4.0", pa.string()),
        "asset_sha256": pa.array([of_asset[place] for place in places]),
        "regime": same("object", pa.string()),
        "split": pa.array(split),
        "view": pa.array((number % VIEWS).astype(np.int32)),
        "frames": same(1, pa.int32()),
        "height": same(504, pa.int32()),
        "width": same(504, pa.int32()),
        "layers": same(6, pa.int32()),
        "single_layer": same(False, pa.bool_()),
        "coverage": pa.ListArray.from_arrays(starts * 6, layers),
        "z_min": pa.array(rng.random(count, np.float32)),
        "z_max": pa.array(1 + rng.random(count, np.float32)),
        "flags": pa.ListArray.from_arrays(starts * 0, pa.array([], pa.string())),
        "overflow": same(0, pa.int64()),
        "shard_bytes": same(PER_SHARD * BYTES + 1024, pa.int64()),
        "shard_sha256": pa.array([hashlib.sha256(b"%d" % each).hexdigest() for each in np.unique(shard)]).take(
            pa.array(shard - shard[0])
        ),
        "members": pa.ListArray.from_arrays(starts * 3, member),
        "planes": pa.ListArray.from_arrays(starts * 0, pa.array([], pa.string())),
    }
    return pa.table([columns[name] for name in manifest.SCHEMA.names], schema=manifest.SCHEMA)


def write(folder: Path, count: int) -> None:
    """A dataset whose first sample is real."""
    view: LayeredView = spheres_view(0, 504, 504)
    table = rows(0, min(count, CHUNK))
    shard, key = table["shard"][0].as_py(), table["key"][0].as_py()
    view = shards.LayeredView(**{**{f: getattr(view, f) for f in view.__dataclass_fields__}, "key": key})
    (real,) = shards.write_shard(folder / "shards" / shard, [shards.encode(view)])
    assert real["bytes"] <= BYTES
    first = {**table.slice(0, 1).to_pylist()[0], "bytes": real["bytes"], "sha256": real["sha256"]}
    table = pa.concat_tables([pa.Table.from_pylist([first], schema=manifest.SCHEMA), table.slice(1)])
    with shards.committed(folder / "manifest.parquet") as file, shards.ManifestWriter(file) as writer:
        writer.write(table)
        for begin in range(CHUNK, count, CHUNK):
            writer.write(rows(begin, min(CHUNK, count - begin)))
    shards.write_dataset_json(folder, {"layers": 6, "size": [504, 504]})


def measured(folder: str, what: str) -> None:
    """One figure; in a fresh process."""
    begin, cpu = time.perf_counter(), time.process_time()
    dataset = shards.open(folder, "train" if what == "training" else None)
    if what == "first":
        assert dataset[0].size == (504, 504)
    elif what == "hash":
        _ = dataset.hash
    elif what == "key":
        last = dataset.key(len(dataset) - 1)
        again = time.perf_counter()
        assert dataset.row_of(last) == len(dataset) - 1  # the keys are read for it
        first_find = time.perf_counter() - again
        again = time.perf_counter()
        wanted = range(0, len(dataset), max(1, len(dataset) // 1000))
        keys = [str(dataset.selection.key[row].as_py()) for row in wanted]
        for key in keys[: rows_module.SCANS]:
            dataset.row_of(key)
        again = time.perf_counter()
        assert [dataset.row_of(key) for key in keys] == list(wanted)
        each = time.perf_counter() - again  # of 1000
        print(f"  first key found in {first_find:.2f} s; of 1000 more, in sorted keys, {each:.2f} ms each")
    elif what == "where":
        dataset = dataset.narrowed("z_max < 1.5 and L3 > 0.5")
        _ = len(dataset)
    elif what == "training":
        dataset.load()
        _ = dataset.hash
        workers(dataset)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    peak = int(line.split()[1]) / 1e6
    print(f"{what:9} {seconds:6.2f} s, {cpu:6.2f} s of CPU, peak {peak:.2f} GB, {len(dataset)} rows", flush=True)


def workers(dataset: shards.Dataset) -> None:
    """Two forked workers that look at 2000 rows each, and tell what memory is theirs alone."""
    for _ in range(2):
        if not (pid := os.fork()):
            for row in range(0, len(dataset), max(1, len(dataset) // 2000)):
                dataset.key(row), dataset.shard_of[row], dataset.selection.digest[row].tobytes()
            rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
            private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty"))
            print(f"  a forked worker: {private / 1000:.0f} MB private", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=17_000_000)
    parser.add_argument("--folder", help="measure this one, and write it if it is not there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measured(given.folder, given.measure)
        sys.exit()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(given.folder or temporary)
        if not (place / "dataset.json").exists():
            began = time.perf_counter()
            write(place, given.rows)
            print(f"written in {time.perf_counter() - began:.0f} s")
        print(f"{given.rows} rows, {(place / 'manifest.parquet').stat().st_size / 1e9:.2f} GB of manifest")
        for each in ("open", "first", "hash", "key", "where", "training"):
            module = [sys.executable, "-m", "tests.benchmarks.manifest_scale"]
            subprocess.run([*module, "--folder", str(place), "--measure", each], check=True)
