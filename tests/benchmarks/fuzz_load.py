"""Fuzzes the loader: damaged copies of every real asset, each in bounded time and memory.

    python -m tests.benchmarks.fuzz_load --cases 10000 --seed 0

A case takes a file of an asset (its main file, or one that this names), wounds it (tests/render/mutations.py) and loads
the asset in a child process that may allocate `--memory` MiB, beside what it holds, as in a render job. One in
`--render` accepted meshes is also rendered. The parent waits `--seconds` for each case; a child that dies or hangs is a
finding, as are: an exception other than Rejected, an unsound mesh, a file opened outside the folder of the asset, a
socket. Every finding is printed with its case number; `--only N` runs that case alone and shows its traceback.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ASSETS = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
MAIN = (".glb", ".gltf", ".obj", ".ply", ".stl")
SLOW = 20  # the instanced teapots (7.7 million triangles) are one case in this many


@dataclass(frozen=True)
class Seed:
    """An asset: its main file and the files beside it that it may name."""

    main: Path
    companions: tuple[Path, ...]


def seeds() -> list[Seed]:
    found = []
    for main in sorted(path for path in ASSETS.rglob("*") if path.suffix.lower() in MAIN):
        alone = sum(path.suffix.lower() in MAIN for path in main.parent.iterdir()) > 1
        inside = () if alone else tuple(sorted(p for p in main.parent.rglob("*") if p.is_file() and p != main))
        found.append(Seed(main, inside))
    return found


def case(number: int, seed: int, assets: list[Seed], folder: Path) -> Path:
    """Writes case `number` into the empty `folder` and returns its main file: a pure function of (seed, number)."""
    from tests.render.mutations import mutated

    damage = np.random.default_rng([seed, number])
    chosen = assets[number % len(assets)]
    if "instancing" in chosen.main.name and number // len(assets) % SLOW:
        chosen = assets[0]
    files = [chosen.main, *chosen.companions]
    at = 0 if damage.random() < 0.8 else int(damage.integers(len(files)))
    for place, path in enumerate(files):
        copy = folder / path.relative_to(chosen.main.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        copy.write_bytes(mutated(path.suffix.lower(), data, damage) if place == at else data)
    return folder / chosen.main.name


def try_case(main: Path, number: int, render_one_in: int, memory: int) -> dict:
    """What becomes of one case."""
    from cluster.renderer import limited_memory
    from render import RenderSettings, load, render_views
    from render.mesh import Rejected
    from shards import Origin
    from tests.render.mutations import unsound

    Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from here
    start, held = time.perf_counter(), _status("VmRSS:")
    found = {"case": number, "outcome": "accepted", "finding": "", "rendered": False, "seconds": 0.0}
    try:
        with limited_memory(memory):
            mesh = load(main)
            found["seconds"] = time.perf_counter() - start
            found["finding"] = unsound(mesh)
            if number % render_one_in == 0:
                regime = "dynamic" if mesh.pose is not None else "object"
                settings = RenderSettings(
                    views=1, frames=2, height=32, width=32, regime=regime, backend="cpu", min_coverage=0.0
                )
                found["rendered"] = True
                rendered = render_views(mesh, Origin(main.name, "fuzz", f"{number:064x}"), settings)
                found["finding"] = found["finding"] or _unsound_views(rendered.samples)
    except Rejected as rejected:
        found["outcome"] = rejected.reason if not found["rendered"] else f"rendering: {rejected.reason}"
        found["message"] = rejected.message
        if not rejected.message or len(rejected.message) > 500:
            found["finding"] = "no sound message"
    except MemoryError:  # an allocation in rendering: the renderer of a job calls it this, too
        found["outcome"] = "rendering: out_of_memory"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        found["finding"] = f"{type(error).__name__}: {str(error)[:150]} ({Path(last.filename).name}:{last.lineno})"
        found["traceback"] = traceback.format_exc()
    found["seconds"] = found["seconds"] or time.perf_counter() - start
    found["bytes"] = max(_status("VmHWM:") - held, 0)
    return found


def _unsound_views(samples: list) -> str:
    import shards

    for sample in samples:
        shards.encode(sample)
        for view in getattr(sample, "frames", [sample]):
            depth = view.depth[:, view.hits > 0]
            if not np.isfinite(depth).all() or not (depth > 0).all():
                return "depth of a view"
            if (np.diff(depth, axis=0) < 0).any():
                return "order of the layers"
    return ""


def _status(key: str) -> int:
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))


def child(arguments: argparse.Namespace) -> None:
    """Runs the cases from `--start` on and prints one line of JSON for each."""
    opened: list[str] = []

    def watch(event: str, given: tuple) -> None:
        if event == "open" and isinstance(given[0], str | bytes | os.PathLike):
            opened.append(os.fsdecode(given[0]))
        elif event.startswith("socket.connect"):
            opened.append(f"socket {given[1:]}")

    assets = seeds()
    with tempfile.TemporaryDirectory() as base:
        try_case(assets[0].main, 0, 1, arguments.memory << 20)  # imports and kernels
        import warp

        allowed = ("/proc/self/", sys.prefix, sys.base_prefix, str(warp.config.kernel_cache_dir))
        sys.addaudithook(watch)
        numbers = range(arguments.start, arguments.cases)
        for number in numbers if arguments.only is None else [arguments.only]:
            folder = Path(base, str(number))
            main = case(number, arguments.seed, assets, folder)
            opened.clear()
            found = try_case(main, number, arguments.render, arguments.memory << 20)
            strangers = [name for name in opened if not name.startswith(allowed) and not name.endswith((".py", ".pyc"))]
            strangers = [name for name in strangers if not name.startswith(str(folder))]
            if strangers:
                found["finding"] = found["finding"] or f"opened {strangers[:3]}"
            found["asset"] = main.name
            print(json.dumps(found), flush=True)
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            folder.rmdir()


def run(arguments: argparse.Namespace) -> list[dict]:
    """All cases, with a new child wherever one died or had to be killed."""
    results: list[dict] = []
    at = arguments.start
    while at < arguments.cases:
        command = [sys.executable, "-m", "tests.benchmarks.fuzz_load", "--child", "--start", str(at)]
        for name in ("cases", "seed", "memory", "render"):
            command += [f"--{name}", str(getattr(arguments, name))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            patience = 120.0  # until the first line: imports and kernels
            while at < arguments.cases:
                ready, _, _ = select.select([process.stdout], [], [], patience)
                line = process.stdout.readline() if ready else b""
                if not line:
                    process.kill()
                    end = "crash" if ready else "hang"
                    results.append(
                        {"case": at, "outcome": end, "finding": end, "seconds": 0.0, "bytes": 0, "asset": ""}
                    )
                    at += 1
                    break
                results.append(json.loads(line))
                at, patience = results[-1]["case"] + 1, arguments.seconds
                if len(results) % 500 == 0:
                    print(f"{len(results)} cases", file=sys.stderr, flush=True)
            process.kill()
    return results


def table(results: list[dict]) -> str:
    """Cases by outcome, the slowest and the largest one, and every finding."""
    outcomes = Counter(found["outcome"] for found in results)
    lines = [f"{len(results)} cases, {sum(found.get('rendered', False) for found in results)} of them rendered", ""]
    lines += [f"{count:7d}  {outcome}" for outcome, count in outcomes.most_common()]
    slowest = max(results, key=lambda found: found["seconds"])
    largest = max(results, key=lambda found: found["bytes"])
    lines += ["", f"slowest {slowest['seconds']:.2f} s (case {slowest['case']}, {slowest['asset']})"]
    lines += [f"largest {largest['bytes'] / 2**20:.0f} MiB (case {largest['case']}, {largest['asset']})"]
    findings = [found for found in results if found["finding"]]
    lines += [f"findings {len(findings)}"]
    lines += [f"  case {found['case']} ({found['asset']}): {found['finding']}" for found in findings[:200]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="last case + 1")
    parser.add_argument("--start", type=int, default=0, help="first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0, help="a case that takes longer hangs")
    parser.add_argument("--memory", type=int, default=2048, help="MiB that a case may allocate")
    parser.add_argument("--render", type=int, default=3, help="one in so many cases is rendered if it is accepted")
    parser.add_argument("--only", type=int, help="run this case alone")
    parser.add_argument("--out", type=Path, help="a line of JSON for each case")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not ASSETS.is_dir():
        parser.error(f"the seeds are the real assets, and {ASSETS} is no folder")
    if arguments.child or arguments.only is not None:
        child(arguments)
        return
    results = run(arguments)
    if arguments.out is not None:
        arguments.out.write_text("".join(json.dumps(found) + "\n" for found in results))
    print(table(results))


if __name__ == "__main__":
    main()
