"""How long from the start of a process to the samples of step 1,000,000?

    PYTHONPATH=. python tests/benchmarks/resume.py [--rows 17000000] [--data FOLDER]

A synthetic manifest of the paper's size (tests/benchmarks/manifest_scale.py) and two small ones to mix it with. Each
line is a process of its own: seconds of wall clock and of CPU from its very start, the import of torch included, until
it has the rows, shards and keys of the 512 samples of step 1,000,000. Reading those samples comes on top.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEP, BATCH = 1_000_000, 512
KINDS = ("one dataset", "windows", "mixture", "mixture that grew")


def data_of(folder: Path, kind: str) -> Any:
    """`data.path` of a config, and its other keys."""
    objects = {"path": str(folder / "objects"), "weight": 0.6}
    of = [{"path": str(folder / name), "weight": "sqrt(rows)", "boost": 1.5} for name in ("photos", "rooms")]
    if kind == "one dataset":
        return {"path": objects["path"]}
    if kind == "windows":
        return {"path": objects["path"], "window": 64}
    return {"path": [{**objects, "window": 64}, {"weight": 0.4, "of": of}]}


def measured(folder: Path, kind: str) -> None:
    began = float(os.environ["BEGAN"])
    marks = {"python": time.time() - began}
    from shards import History
    from train.config import from_dict
    from train.data.stream import Stream

    marks["import"] = time.time() - began
    c = from_dict({"data": {**data_of(folder, kind), "workers": 0, "batch": BATCH}, "out": "unused", "seed": 3})
    stream = Stream(c.data, c.augment, 6, c.seed)
    marks["open"] = time.time() - began
    out = folder / f"run {kind}"
    out.mkdir(exist_ok=True)
    history = History.read(out)
    if history is None:  # the first start of the run: what its shards hold is noted
        history = History.begun(c.data.mixed, stream.sources, c.seed, BATCH)
        if kind == "mixture that grew":
            history = json.loads(json.dumps(history.to_dict()))
            history = History.from_dict(without_last(history)).resumed(c.data.mixed, stream.sources, 500_000 * BATCH)
    else:
        history = history.resumed(c.data.mixed, stream.sources, STEP * BATCH)
    history.write(out)
    stream.follow(history)
    marks["history"] = time.time() - began
    found = list(stream.sequence.located(STEP * BATCH, BATCH))
    keys = [stream.sources[at.source].key(at.row) for at in found]
    assert len(keys) == BATCH
    marks["step"] = time.time() - began
    said = "  ".join(f"{name} {seconds:.2f}" for name, seconds in marks.items())
    print(f"{kind:18} {marks['step']:6.2f} s wall, {time.process_time():6.2f} s of CPU: until {said}", flush=True)


def without_last(tree: dict[str, Any]) -> dict[str, Any]:
    """The notes of a run as they would be, had the last shard of its first source not been there yet."""
    tree["shards"][0].pop()
    tree["generations"][0]["hashes"] = ["another", *tree["generations"][0]["hashes"][1:]]
    tree["generations"][0]["rows"][0] = sum(shard[1] for shard in tree["shards"][0])
    return tree


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=17_000_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--measure", nargs=2)
    given = parser.parse_args()
    if given.measure:
        measured(Path(given.measure[0]), given.measure[1])
        return
    from tests.benchmarks.manifest_scale import write

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        if given.data is None:
            write(folder / "objects", given.rows)
        else:
            (folder / "objects").symlink_to(given.data.absolute())
        write(folder / "photos", 100_000)
        write(folder / "rooms", 50_000)
        for turn in ("the first start of a run", "a resumed run"):
            print(turn)
            for kind in KINDS:
                command = [sys.executable, __file__, "--measure", str(folder), kind]
                subprocess.run(command, check=True, env={**os.environ, "BEGAN": str(time.time())})
        for kind in KINDS[1:3]:
            began = time.time()
            words = ["shards", "order", str(folder / f"run {kind}"), "--step", str(STEP), "--long"]
            subprocess.run([sys.executable, "-m", "worldtrace", *words], check=True, stdout=subprocess.DEVNULL)
            print(f"worldtrace shards order, {kind}: {time.time() - began:.2f} s")


if __name__ == "__main__":
    main()
