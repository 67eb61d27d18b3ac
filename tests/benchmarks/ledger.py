"""What a resume and the finish of a large job cost: synthetic units, no rendering.

    python -m tests.benchmarks.ledger --units 100000 --views 56

`loose` is a record per unit, as every job left them before there were segments; `segments` is what the driver folds
them into. Shards are empty files of the right length (sparse), so that only the ledger is measured.
"""

import argparse
import hashlib
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster import segments, tables
from cluster.ledger import Attempt, Ledger, Record
from shards import Moments
from shards.store import open_store

MOMENTS = tables.packed(1, Moments(1000))


def record(index: int, views: int) -> Record:
    """A unit of one asset."""
    unit = f"{index:06d}-{index:012x}"
    samples = [row(unit, f"asset-{index:08d}", view) for view in range(views)]
    attempt = Attempt(
        unit=unit,
        asset=f"asset-{index:08d}",
        source="objaverse",
        licence="CC-BY-4.0",
        attempt=1,
        views=views,
        sha256=f"{index:064x}",
        host="node",
        moments=MOMENTS,
    )
    return Record(unit, samples, [attempt])


def row(unit: str, asset: str, view: int) -> dict[str, Any]:
    return {
        "key": f"{asset}-v{view:03d}",
        "shard": f"{unit}.tar",
        "offset": view * 200_000,
        "bytes": 200_000,
        "sha256": hashlib.sha256(f"{unit} {view}".encode()).hexdigest(),
        "asset": asset,
        "source": "objaverse",
        "licence": "CC-BY-4.0",
        "asset_sha256": "ab" * 32,
        "regime": "object",
        "split": "train",
        "view": view,
        "frames": 1,
        "height": 504,
        "width": 504,
        "layers": 6,
        "single_layer": False,
        "coverage": [0.31, 0.3, 0.12, 0.1, 0.02, 0.01],
        "z_min": 1.25,
        "z_max": 2.5,
        "flags": ["untextured"],
        "overflow": 0,
    }


def records(units: int, views: int) -> Iterator[Record]:
    return (record(index, views) for index in range(units))


def timed(what: str, call: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    result = call()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{what:<28}{time.perf_counter() - begin:9.2f} s    peak memory so far {peak} MiB", flush=True)
    return result


def fold_all(ledger: Ledger, units: int) -> None:
    for block in range(-(-units // segments.UNITS)):
        ledger.fold(block)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--views", type=int, default=56)
    parser.add_argument("--loose", action="store_true", help="measure loose records too: 35 kB each with 56 views")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ledger-"))
    try:
        ledger = Ledger(open_store(folder))
        names = [f"{index:06d}-{index:012x}" for index in range(given.units)]
        (folder / "shards").mkdir()
        for name in names:
            with (folder / "shards" / f"{name}.tar").open("wb") as file:
                file.truncate(given.views * 200_000 + 1024)
        if given.loose:
            (folder / "units").mkdir()
            for each in records(given.units, given.views):
                (folder / "units" / f"{each.unit}.json").write_text(json.dumps(asdict(each), separators=(",", ":")))
            assert len(timed("resume, loose", lambda: Ledger(ledger.store).done(names))) == given.units
            timed("fold all", lambda: fold_all(ledger, given.units))
        else:
            for begin in range(0, given.units, segments.UNITS):
                some = [record(index, given.views) for index in range(begin, min(begin + segments.UNITS, given.units))]
                with ledger.store.writing(segments.name_of(begin // segments.UNITS)) as file:
                    segments.write(file, segments.table_of(asdict(each) for each in some))
        print(f"segments: {sum(ledger.store.sizes('units').values()) >> 20} MiB in {len(ledger.store.sizes('units'))}")
        assert len(timed("resume, segments", lambda: Ledger(ledger.store).done(names))) == given.units
        timed("finish", lambda: tables.finish(ledger, names, lambda: None))
        timed("do the tables stand?", lambda: tables.stand(ledger.store))
        timed("tables into segments again", lambda: tables.reopen(ledger.store))
        timed("discard", ledger.discard)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
